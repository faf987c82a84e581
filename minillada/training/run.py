"""The folder of a run: what is written to it, and when.

    metrics.jsonl               one line a step
    state.safetensors           what the run needs to go on
    step-NNNNNN.safetensors     snapshots of the weights, where they are asked for
    tensorboard/                the metrics again, for TensorBoard, where they are asked for
    weights.safetensors, .json  the result, when the run is complete (of text pieces: text.json)

Notable choices
- A folder that holds a run is never overwritten unasked.
- Nothing in the folder is touched before the first step is done. A run that cannot start leaves
  what was there.
- Of several processes that share a run, the first one writes. All of them call the same methods,
  because weights may have to be gathered from all.
- Files are written in such an order that a run killed between two of them can mend what is
  missing: a snapshot before the state, the JSON of weights before them. Until there is a state,
  the JSON of a snapshot says whose it is.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TextIO

from tqdm.auto import tqdm

from .. import checkpoint
from ..config import TrainingConfig
from ..extras import merging
from ..extras.packages import load_package
from ..files import atomic, check_writable, checksum
from ..settings import as_python, to_dict
from .distributed import SHARDS, Processes
from .locking import lock
from .state import STATE, Learner, State, differences, read_state, save_state

LOG, WEIGHTS, TEXT = "metrics.jsonl", "weights.safetensors", "text.json"
# The parts of the JSON beside the weights that decide what a run computes.
STORY = (
    "preset", "kind", "config", "training",
    "tokenizer_sha256", "teacher_sha256", "text_sha256", "source_sha256", "start_sha256",
    "data_md5",
)  # fmt: skip


@dataclass
class Run:
    """A folder, what to do with a run that is already in it, and how often to save."""

    folder: Path
    resume: bool = False  # go on with the run in the folder; an empty folder starts one
    overwrite: bool = False  # replace the run in the folder
    save_every: int | None = None  # steps from state to state; None: a tenth of all, at most 500
    snapshot_every: int | None = None  # steps from snapshot to snapshot of the weights; None: none
    info: dict[str, Any] = field(default_factory=dict)  # what the JSON beside the weights says
    tensorboard: bool = False  # write the metrics for TensorBoard, too
    processes: Processes = Processes()  # that share the run; the first one writes

    def __post_init__(self) -> None:
        self.folder = Path(self.folder)
        for name in ("save_every", "snapshot_every"):
            value = getattr(self, name)
            if value is not None and not (isinstance(as_python(value), int) and value >= 1):
                raise ValueError(f"{name} must be a whole number and at least 1, got {value!r}")
        if self.resume and self.overwrite:
            raise ValueError("--resume keeps a run and --overwrite replaces it; choose one")
        # Before anything is written: a `ValueError` if the package is missing.
        self.board_class = board_class() if self.tensorboard else None
        self.board: Any = None
        self.log: TextIO | None = None
        self.learner: Learner | None = None
        self.config = TrainingConfig()
        self.first_step, self.state_every, self.seconds_before = 0, 1, 0.0
        self.began = time.perf_counter()

    # --- before the first step -------------------------------------------------------------------

    def files(self) -> list[Path]:
        """What a run has written to the folder."""
        named = [self.folder / name for name in (LOG, STATE, WEIGHTS, "weights.json", TEXT)]
        snapshots = [*self.folder.glob("step-*.safetensors"), *self.folder.glob("step-*.json")]
        return [path for path in named if path.exists()] + sorted(snapshots)

    def check_folder(self, trains: bool = True) -> None:
        """`ValueError` if the folder cannot be written, or holds a run that must be kept.

        Commands that train nothing cannot resume: for them (`trains=False`) no --resume is offered.
        """
        check_writable(self.folder / LOG, "choose another folder with --out")
        if self.files() and not (self.resume or self.overwrite):
            way = "`minillada train … --resume` goes on with it, " if trains else ""
            raise ValueError(
                f"{self.folder} already holds a run; {way}--overwrite replaces it, and --out names "
                "another folder"
            )

    def locked(self) -> AbstractContextManager:
        """Inside, the folder is locked for the processes of this run, by the first of them.

        Another run may have begun since the folder was checked; `begin` checks it again.
        """
        return lock(self.folder) if self.processes.is_first else nullcontext()

    @property
    def story(self) -> dict[str, Any]:
        """Everything that decides what the run computes, as plain JSON types."""
        return story_of(self.info)

    def stored_state(self) -> State | None:
        """The state to go on from; None if the run starts.

        `ValueError` if what is in the folder is another run, or has no state to go on from. Before
        its first state a run writes its log and perhaps snapshots: they are its own, and replaced.
        """
        self.check_folder()
        if not self.resume:
            return None
        if (self.folder / STATE).exists():
            return read_state(self.folder, self.story)
        for path in self.files():
            own = path.name.startswith("step-") and own_sum(path, self.story)
            if path.name != LOG and not own:
                raise ValueError(
                    f"{self.folder} holds {path.name}, but {STATE} is missing, so nothing can go "
                    "on; choose another folder, or start again with --overwrite"
                )
        return None

    def begin(self, learner: Learner, config: TrainingConfig) -> int:
        """Put back the state that is in the folder, if any. Returns the step to go on with.

        `ValueError` in every process if one of them would begin otherwise than the others.
        """
        self.info.setdefault("training", to_dict(config))  # all that `fit` alone knows of a run
        state = self.stored_state()
        if not self.processes.agree(json.dumps([self.story, state and state.digest])):
            raise ValueError(
                f"the processes find different states in {self.folder}, or were given different "
                "settings; give all the same command, and a folder that all machines share"
            )
        if state:
            state.restore(learner)
        self.first_step = state.step if state else 0
        self.seconds_before = state.seconds if state else 0.0
        self.state_every = self.save_every or min(500, max(1, config.steps // 10))
        self.learner, self.config, self.began = learner, config, time.perf_counter()
        return self.first_step

    @property
    def seconds(self) -> float:
        """How long the run has trained, earlier parts included."""
        return self.seconds_before + time.perf_counter() - self.began

    # --- while it trains -------------------------------------------------------------------------

    def record(self, record: dict[str, Any], last: bool) -> None:
        """Write down a finished step; save if it is time to, or if the step is the `last`."""
        if self.processes.is_first:
            self.write_line(record)
        done = record["step"] + 1
        # The snapshot comes first. A run that is killed now goes on from an older state, and writes
        # the snapshot again. After the state it would go on behind this step, without a snapshot.
        if self.snapshot_every and done % self.snapshot_every == 0:
            self.save_weights(merging.snapshot_path(self.folder, done), {"step": done})
        if last or done % self.state_every == 0:
            learner = self.whole_learner()
            if self.log:  # which only the first process has
                self.log.flush()  # first, so that no step of the state is missing in the log
                save_state(self.folder, learner, done, self.story, self.seconds)

    def write_line(self, record: dict[str, Any]) -> None:
        """Write a step into the log, which is opened at the first step of this process."""
        if self.log is None:
            self.clear()
            self.log = open_log(self.folder / LOG, self.first_step)
            if self.board_class:  # steps that are trained again are shown once
                folder = str(self.folder / "tensorboard")
                self.board = self.board_class(folder, purge_step=self.first_step)
        self.log.write(json.dumps(record) + "\n")
        if self.board:  # every number is a curve of its name
            for name, value in record.items():
                if name != "step":
                    self.board.add_scalar(name, value, record["step"])

    def whole_learner(self) -> Learner:
        """The learner, with all weights in the first process."""
        assert self.learner is not None
        return self.processes.gathered(self.learner, self.config, self.folder)

    def clear(self) -> None:
        """Remove the files of an old run; a run that goes on keeps its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder / SHARDS, ignore_errors=True)  # of a save that was interrupted
        if self.overwrite:
            shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)
        if self.first_step == 0:
            for path in reversed(self.files()):  # weights before their JSON, the log at the end
                path.unlink()

    def close(self) -> None:
        for writer in (self.log, self.board):
            if writer:
                writer.close()
        self.log = self.board = None

    # --- afterwards ------------------------------------------------------------------------------

    def save_weights(self, path: Path, more: dict[str, Any]) -> None:
        """Write the weights and their JSON. `ValueError` if a weight is not finite."""
        learner = self.whole_learner()
        if self.processes.is_first:
            checkpoint.save_model(path, learner.module, self.info | more)

    def is_complete(self) -> bool:
        """Whether the weights of this run are there and belong to their JSON."""
        path, complete = self.folder / WEIGHTS, False
        if self.processes.is_first:
            complete = path.exists() and own_sum(path, self.story) == checksum(path)
        return self.processes.any(complete)


def own_sum(path: Path, story: dict[str, Any]) -> str | None:
    """The SHA-256 in the JSON beside weights, if it is that of a run with this story."""
    try:
        info = checkpoint.read_info(path)
    except (FileNotFoundError, ValueError):
        return None
    # More may have been written down since, such as scores: only the story is compared.
    return None if differences(story_of(info), story) else info.get("sha256")


def story_of(info: dict[str, Any]) -> dict[str, Any]:
    """The part of `info` that decides what a run computes, as plain JSON types."""
    story = json.loads(json.dumps({key: info[key] for key in STORY if key in info}))
    # They change how a step is computed, not what it computes, so a resumed run may change them.
    for name in ("accumulate", "workers"):
        story.get("training", {}).pop(name, None)
    return story


def open_log(path: Path, steps: int) -> TextIO:
    """The log for appending, cut back to the first `steps`, so that each step stands there once."""
    kept, foreign = [], 0
    if steps and path.is_file():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            step = step_of(line)
            if step is not None and step < steps:
                kept.append(line + "\n")
            # A process that was killed leaves half a line at the end.
            elif step is None and number < len(lines):
                foreign += 1
    if foreign:
        warnings.warn(f"{path}: {foreign} lines that no step wrote were left out", stacklevel=2)
    with atomic(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
    return open(path, "a", encoding="utf-8")


def board_class() -> Any:
    """The class that writes for TensorBoard. `ValueError` if TensorBoard is not installed."""
    load_package("tensorboard", "ablate")
    return load_package("torch.utils.tensorboard", "ablate").SummaryWriter


def step_of(line: str) -> int | None:
    """The step that a line of the log is about; None for any other line."""
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return step if isinstance(step, int) else None


class StopSignals:
    """Inside, Ctrl-C and SIGTERM let the step be finished and saved. A second one stops at once.

    Without a run, and outside the main thread, signals act as usual: Python lets only the main
    thread handle them.
    """

    def __init__(self, run: Run | None) -> None:
        self.run = run
        self.listen = run is not None and threading.current_thread() is threading.main_thread()
        self.received: int | None = None
        self.before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if self.listen:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self.receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            # None is a handler that Python did not set, and cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def receive(self, number: int, frame: object) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def leave(self, sentence: str) -> NoReturn:
        """Say how to go on, and raise what the signal stands for.

        A process that stops because another one got the signal ends as by SIGTERM.
        """
        assert self.run is not None
        if self.run.processes.is_first:  # above the progress bar, not through it
            # A caller that resumes by itself, such as `ablate`, may have no option of that name.
            way = "the same command goes on" if self.run.resume else "go on with --resume"
            tqdm.write(f"{sentence}, which are saved; {way}", file=sys.stderr)
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.received or signal.SIGTERM))

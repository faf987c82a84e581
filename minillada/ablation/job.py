"""One job of an ablation: train a run, or go on with it, and measure what is not measured yet.

    weights.safetensors, …   the files of the run (`training/run.py`)
    measures.json            what was measured on these weights, and what measured it
    failed.json              why the run failed, if it did; a new try removes it

Notable choices
- Everything is written as soon as it is known, so a job that is killed loses at most some steps.
- A run that fails says so in its folder and ends like any other: it does not stop the others.
- The seed of a run is also the seed of its drawings. So intervals over seeds cover the noise of
  training and that of drawing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import digest, read_info
from ..config import SamplingConfig
from ..datasets.table import data_set_of
from ..evaluation import evaluate, suite
from ..experiments.results import current_commit
from ..layout import sides
from ..measure.judge import load_judge
from ..measure.timing import card
from ..sampler import Generation
from ..settings import changed
from ..training.locking import lock
from ..training.run import WEIGHTS, Run
from ..training.state import STATE, saved_step
from ..training.train import train
from ..uni import Uni, load
from ..writer import BATCH_SIZE, Prompts, equal_lengths
from .folder import check_sources, damaged, read_json, read_plan, write_json
from .passes import count_passes
from .plan import Measurement, Plan, Trial

MEASURES, FAILED = "measures.json", "failed.json"
# What each measurement says besides its numbers: code, device and threads that measured it.
MADE = ("commit", "device", "threads")
# Values of these names may be words, and those of names that end so, such as `timing.device`.
WORDS = (*MADE, "clock")
WAIT_SECONDS = 10


# --- decoding as asked ---------------------------------------------------------------------------


def steps_for(passes: int, start: int, length: int, config: SamplingConfig) -> int:
    """The steps a block with which an answer takes this number of passes, or the nearest to it."""

    def distance(steps: int) -> int:
        return abs(count_passes(start, length, changed(config, steps=steps)) - passes)

    return min(range(1, config.block_size + 1), key=distance)


class Decoder(Uni):
    """A model that decodes as a measurement asks, whichever task it is given."""

    def prepare(self, asked: Measurement) -> Decoder:
        """Take the settings of a measurement, and count from 0."""
        self.asked = asked
        self.images, self.image_passes = 0, 0
        return self

    def sampling(self, base: SamplingConfig, **changes: Any) -> SamplingConfig:
        """The settings of the task, changed to those that are asked for."""
        return changed(super().sampling(base, **changes), **dict(self.asked.sampling))

    def write(
        self, rows: Sequence[Prompts], answer: Any, config: SamplingConfig, *rest: Any
    ) -> Any:
        """As `Uni` does, but without a scale of guidance for which the rows have no branches."""
        branches = min(map(len, rows), default=1)
        if branches < 3:
            config = changed(config, guidance_image=0.0)
        if branches < 2:
            config = changed(config, guidance=1.0)
        return super().write(rows, answer, config, *rest)

    def fill_images(
        self,
        rows: Sequence[Prompts],
        config: SamplingConfig,
        generators: Sequence[torch.Generator],
        cache: bool = True,
        given: Tensor | None = None,
    ) -> tuple[Tensor, Generation]:
        """As `Uni` does, but in the number of passes that is asked for; those taken are counted."""
        if not rows:
            return super().fill_images(rows, config, generators, cache, given)
        height, width = sides(self.tokenizer.grid)
        length = height * width
        codes: list[Tensor] = [torch.empty(0)] * len(rows)
        records = []
        # How many steps lead to these passes depends on where the prompt ends.
        for batch in equal_lengths(rows, BATCH_SIZE):
            chosen = config
            if self.asked.passes is not None:
                steps = steps_for(self.asked.passes, len(rows[batch[0]][0]), length, config)
                chosen = changed(config, steps=steps)
            part, record = super().fill_images(
                [rows[i] for i in batch],
                chosen,
                [generators[i] for i in batch],
                cache,
                None if given is None else given[batch],
            )
            for i, one in zip(batch, part):
                codes[i] = one
            self.images += len(batch)
            self.image_passes += record.forwards * len(batch)
            records.append(record._replace(rows=batch))
        return torch.stack(codes), records[0]  # of the first batch, as in `Writer.write`


def measure(decoder: Decoder, asked: Measurement, seed: int) -> dict[str, Any]:
    """All numbers of a measurement by name, and the passes of an answer where there are some.

    `passes` are those of a drawing, or of a text if nothing is drawn. `rows` are the rows in all
    passes of an answer, so each branch of guidance counts.
    """
    decoder.prepare(asked)
    data = data_set_of(decoder.info)
    judge = load_judge(decoder.device, data.judge)
    if asked.measure in suite.SUITES[data.name]:
        pool = suite.unseen_pool(data.name)
        marked = suite.run(decoder, judge, pool, asked.count, seed, [asked.measure])
        report: dict[str, Any] = {}
        for score, entry in suite.scores(marked).items():
            report |= {score: entry["accuracy"], f"{score}_n": entry["n"]}
            report |= {f"{score}_low": entry["low"], f"{score}_high": entry["high"]}
            report["rows"] = entry["passes"]
    else:
        test = data.load("test")
        subject = evaluate.Subject(decoder, judge, data, test, asked.count, seed, rival=False)
        report = flat(evaluate.MEASURES[asked.measure](subject))
        for name in ("draw_passes", "caption_passes"):
            if name in report:
                report["rows"] = report.pop(name)
    if decoder.images:
        report["passes"] = decoder.image_passes / decoder.images
    elif "rows" in report:
        report["passes"] = report["rows"]  # texts have no branches of guidance
    return report


def flat(report: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested report in one level, with names such as `timing.cached.median`."""
    found: dict[str, Any] = {}
    for name, value in report.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        elif value is not None:
            found[prefix + name] = value
    return found


# --- the job -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A trial of the ablation in `folder`, as a process of its own can call it."""

    folder: Path
    name: str
    device: str = "cpu"
    threads: int | None = None  # None: as many as torch takes
    tensorboard: bool = False

    def __call__(self) -> None:
        """Train and measure. An error is written down and not raised; an interruption is raised."""
        if self.threads:
            torch.set_num_threads(self.threads)
        # submitit lets SIGTERM pass unheard, for clusters. On this machine it is how jobs end; a
        # training saves its state first.
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        plan = read_plan(self.folder)
        [trial] = [trial for trial in plan.trials() if trial.name == self.name]
        run = self.folder / self.name
        try:
            wait_for_folder(run)
            (run / FAILED).unlink(missing_ok=True)
            check_sources(plan)  # on a cluster, a job may begin long after the plan was stored
            training = Run(run, resume=True, tensorboard=self.tensorboard)
            train(trial.preset, training, self.device, plan.start)
            with lock(run):  # a job that has outlived its ablation may be measuring, too
                self.measure_all(plan, trial)
        except Exception as error:  # whatever it is, the other runs go on
            traceback.print_exc(file=sys.stderr)
            write_json(run / FAILED, {"error": f"{error}" or type(error).__name__})

    def measure_all(self, plan: Plan, trial: Trial) -> None:
        """Measure what is not stored yet; each measurement is stored when it is done.

        `RuntimeError` at the end, if some could not be.
        """
        run = self.folder / self.name
        uni = load(run, self.device)
        decoder = Decoder(uni.backbone, uni.tokenizer, uni.vocab, uni.info).eval()
        done, made, failed = read_measures(run), made_by(self.device), []
        for asked in plan.measurements():
            if asked.key in done:
                continue
            try:
                done[asked.key] = measure(decoder, asked, trial.seed) | made
            except Exception as error:  # whatever it is, the other measurements go on
                traceback.print_exc(file=sys.stderr)
                failed.append(f"{asked.key}: {error}")
                continue
            stored = {"sha256": uni.info["sha256"], "measures": done}
            write_json(run / MEASURES, stored | {"digest": digest(stored)})
        if failed:
            raise RuntimeError("; ".join(failed))

    def checkpoint(self) -> Any:
        """What submitit starts again when a cluster stops the job: the same, which then resumes."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def wait_for_folder(run: Path) -> None:
    """Wait while another process has this run: one that has outlived its ablation."""
    while True:
        try:
            with lock(run):
                return
        except ValueError as error:
            print(f"waiting: {error}", file=sys.stderr, flush=True)
            time.sleep(WAIT_SECONDS)


def made_by(device: str) -> dict[str, Any]:
    """The values of `MADE` in this process."""
    return dict(zip(MADE, (current_commit(), card(device) or device, torch.get_num_threads())))


def read_measures(run: Path) -> dict[str, dict[str, Any]]:
    """What was measured on the weights of a run: `{key of the measurement: numbers}`.

    Nothing if they were trained again since, or if their JSON is missing: it has their sum.
    `ValueError` for a file that is damaged, or was changed.
    """
    if not (run / MEASURES).exists() or not (run / WEIGHTS).with_suffix(".json").exists():
        return {}
    stored = read_json(run / MEASURES, "sha256", "measures")
    measures = stored["measures"]
    if not isinstance(measures, dict) or not all(map(is_report, measures.values())):
        raise damaged(run / MEASURES)
    return measures if stored["sha256"] == read_info(run / WEIGHTS).get("sha256") else {}


def is_report(report: Any) -> bool:
    """Whether something is what `measure` returns: numbers by name, and words of what made them."""
    if not isinstance(report, dict):
        return False
    values = [value for name, value in report.items() if name.split(".")[-1] not in WORDS]
    return all(isinstance(value, int | float) for value in values)


@dataclass(frozen=True)
class Status:
    """How far a trial is: `done`, `failed`, `stopped` (it can go on), `new` or `unreadable`."""

    word: str
    note: str = ""  # where a run that was stopped goes on, or why one failed or cannot be read


def status(folder: Path, plan: Plan, trial: Trial) -> Status:
    """How far a trial is, as the files in its folder say. `ValueError` if one is damaged."""
    run = folder / trial.name
    measured = read_measures(run)
    if all(asked.key in measured for asked in plan.measurements()):
        return Status("done")
    if (run / FAILED).exists():
        return Status("failed", read_json(run / FAILED, "error")["error"])
    if (run / WEIGHTS).exists():
        return Status("stopped", "its measurements")
    if (run / STATE).exists():
        return Status("stopped", f"step {saved_step(run / STATE)}")
    return Status("new")

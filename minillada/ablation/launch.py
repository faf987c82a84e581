"""Running the jobs of an ablation: one after the other, side by side, or on a cluster.

Notable choices
- One job at a time runs in this process. More of them are processes of their own, started by
  submitit. It also writes what each of them prints to files, in the folder `jobs`.
- The cores are divided among the jobs that run at once, and GPUs are given to them in turn.
- On a cluster (SLURM) all jobs are one array, of which `jobs` run at once. This process waits for
  them; if it is ended, they go on.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from ..extras.packages import load_package
from ..measure.timing import quartiles
from ..model import Backbone
from ..settings import changed
from ..training.loop import fit
from ..training.train import Materials, make_loss, new_model, read_materials
from .job import Decoder, Job, measure
from .plan import Plan, Trial, lessons

JOBS = "jobs"  # the folder of submitit
EXECUTORS = ("local", "slurm")
TIMED_STEPS = 5  # from which the time of a whole training is estimated
FEW_SAMPLES = (20, 60)  # with each of these numbers a measurement is timed
MOST_TIMED = 3  # settings that are timed; the others are taken to be like their mean
CORES_OF_A_JOB = 4  # that a cluster is asked for
MINUTES = 7 * 24 * 60  # after which submitit stops a job of this machine


@dataclass(frozen=True)
class Launch:
    """Where jobs run, and how many at once."""

    folder: Path
    jobs: int = 1
    executor: str = "local"
    partition: str | None = None
    minutes: int = 240  # the limit of a job on a cluster
    device: str = "cpu"
    tensorboard: bool = False

    @property
    def threads(self) -> int | None:
        """Threads of a job; None where a cluster says how many cores it has."""
        return None if self.executor == "slurm" else max(1, cores() // self.jobs)

    def check(self) -> str | None:
        """A sentence to print if the jobs cannot run as asked. `ValueError` for what cannot be."""
        if self.executor not in EXECUTORS:
            raise ValueError(f"there is no executor {self.executor!r}; choose local or slurm")
        if self.partition and self.executor != "slurm":
            raise ValueError("--partition belongs to a cluster; add --executor slurm")
        if self.executor == "slurm":
            load_package("submitit", "ablate")
            for name in ("sbatch", "srun"):
                if shutil.which(name) is None:
                    raise ValueError(
                        f"there is no {name} here; start this where SLURM jobs are submitted"
                    )
        elif self.apart:
            load_package("submitit", "ablate")
            gpus(self.device)
        elif self.jobs > 1:
            return "submitit starts no processes on Windows, so the runs go one after the other"
        return None

    @property
    def apart(self) -> bool:
        """Whether jobs are processes of their own."""
        return self.executor == "slurm" or (self.jobs > 1 and sys.platform != "win32")

    def options(self) -> list[str]:
        """How the command line says all this; what is usual is left out."""
        words = []
        for name in ("jobs", "executor", "partition", "minutes", "device"):
            value = getattr(self, name)
            if value != getattr(Launch, name):
                words += [f"--{name}", str(value)]
        return words + ["--tensorboard"] * self.tensorboard

    def job(self, trial: Trial) -> Job:
        device = self.device
        if self.apart and device.startswith("cuda"):
            device = "cuda"  # such a process sees one GPU, whatever its number
        return Job(self.folder.resolve(), trial.name, device, self.threads, self.tensorboard)

    def run(self, trials: Sequence[Trial]) -> None:
        """Run the jobs of some trials, and wait until all have ended, however they ended."""
        jobs = [self.job(trial) for trial in trials]
        if not jobs:
            return
        if self.executor == "slurm":
            wait_for(submit_array(slurm(self), jobs))
        elif self.apart:
            run_side_by_side(self.folder / JOBS, jobs, self.jobs, gpus(self.device))
        else:
            for job in tqdm(jobs, "runs"):
                with thread_count(self.threads):
                    job()


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpus(device: str) -> list[int]:
    """The numbers of the GPUs that can be handed round; none for another kind of device.

    `ValueError` where GPUs are named in another way, because submitit takes numbers only.
    """
    if not device.startswith("cuda"):
        return []
    # Numbers count from the first GPU of the machine, also where only some of them may be used.
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip()
    parts = [part.strip() for part in named.split(",")] if named else []
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(
            f"CUDA_VISIBLE_DEVICES is {named}, and GPUs are handed round by number; set it to "
            "numbers, such as 0,1, or use --jobs 1"
        )
    numbers = [int(part) for part in parts] or list(range(torch.cuda.device_count()))
    index = torch.device(device).index
    return numbers if index is None else [numbers[index]]


@contextmanager
def thread_count(threads: int | None):
    """Threads of torch within the block."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or before)
        yield
    finally:
        torch.set_num_threads(before)


# --- submitit ------------------------------------------------------------------------------------


def run_side_by_side(
    folder: Path, jobs: Sequence[Callable[[], None]], at_once: int, numbers: Sequence[int] = ()
) -> None:
    """At most `at_once` jobs at a time, each a process of submitit; `numbers` are those of GPUs."""
    submitit = load_package("submitit", "ablate")
    # A job counts as done when its result is there, which is named after the number of its process.
    # These numbers come again: in a new container, the same ones each time.
    for old in folder.glob("*_result.pkl"):
        old.unlink()
    waiting = list(jobs)
    running: dict[int, Any] = {}  # place -> its job; a place has a GPU of its own
    bar = tqdm(total=len(waiting), desc="runs")
    try:
        while waiting or running:
            for place in range(at_once):
                if waiting and place not in running:
                    executor = submitit.LocalExecutor(folder)
                    executor.update_parameters(timeout_min=MINUTES, **gpu_of(place, numbers))
                    with deaf_to_interrupts():
                        running[place] = executor.submit(waiting.pop(0))
            for place, job in list(running.items()):
                if job.done():
                    del running[place]
                    bar.update()
            time.sleep(0.2)
    finally:
        # Ctrl-C, or an error: a job that is ended saves its state and goes on next time. SIGTERM is
        # passed on to it once. After `cancel` of submitit it would be killed within a second.
        for job in running.values():
            with suppress(ProcessLookupError):
                os.kill(int(job.job_id), signal.SIGTERM)
        bar.close()


@contextmanager
def deaf_to_interrupts():
    """Processes that are started inside never get a Ctrl-C: the one that starts them ends them.

    A terminal sends it to all. So a job would get several signals, and stop amid a step.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def gpu_of(place: int, numbers: Sequence[int]) -> dict[str, Any]:
    """The parameters of submitit that give a place one of the GPUs; none without GPUs."""
    if not numbers:
        return {}
    return {"gpus_per_node": 1, "visible_gpus": [numbers[place % len(numbers)]]}


def slurm(launch: Launch) -> Any:
    """The executor of submitit that asks a cluster for the jobs of a launch."""
    submitit = load_package("submitit", "ablate")
    executor = submitit.SlurmExecutor(launch.folder / JOBS)
    parameters: dict[str, Any] = {
        "job_name": "minillada",
        "time": launch.minutes,
        "cpus_per_task": CORES_OF_A_JOB,
        "array_parallelism": launch.jobs,
    }
    if launch.partition:
        parameters["partition"] = launch.partition
    if launch.device.startswith("cuda"):
        parameters["gpus_per_node"] = 1
    executor.update_parameters(**parameters)
    return executor


def submit_array(executor: Any, jobs: Sequence[Callable[[], None]]) -> list[Any]:
    """All jobs as one array of a cluster; submitit's handles. `ValueError` if it is refused."""
    utils = load_package("submitit.core.utils", "ablate")
    try:
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
    except utils.FailedJobError as error:  # what sbatch said
        raise ValueError(
            f"the cluster refused the jobs ({error}); change --partition, --minutes or --device"
        ) from None
    print(f"submitted {len(jobs)} jobs, the first is {submitted[0].job_id}", file=sys.stderr)
    return submitted


def wait_for(submitted: Sequence[Any]) -> None:
    """Wait until all jobs of a cluster have ended, however they ended."""
    bar, left = tqdm(total=len(submitted), desc="runs"), list(submitted)
    while left:
        time.sleep(1)
        still = [job for job in left if not job.done()]
        bar.update(len(left) - len(still))
        left = still
    bar.close()


# --- how long it takes ---------------------------------------------------------------------------


def seconds_of_step(trial: Trial, materials: Materials, device: str) -> float:
    """Seconds of a step from new weights: the median of `TIMED_STEPS` steps after the first."""
    count = TIMED_STEPS + 1  # the first one also warms up
    preset = changed(trial.preset, steps=max(trial.preset.training.steps, count))
    module = new_model(preset, device, materials.tokenizer)
    loss = make_loss(module, preset, materials)
    ends: list[float] = []

    def note_time(step: int) -> None:
        ends.append(time.perf_counter())

    fit(module, loss, preset.training, None, count, note_time, "timing")
    return quartiles([after - before for before, after in zip(ends, ends[1:])])[1]


def seconds_of_measuring(plan: Plan, trial: Trial, materials: Materials, device: str) -> float:
    """Seconds that all measurements of a run take, from a few samples of an untrained model.

    Two counts of samples tell what each sample takes apart from what each measurement takes.
    """
    module = new_model(trial.preset, device, materials.tokenizer)
    assert isinstance(module, Backbone) and materials.tokenizer
    about = lessons(trial.preset, plan.start)
    decoder = Decoder(module, materials.tokenizer, materials.vocab, about).eval()
    total = 0.0
    for asked in tqdm(plan.measurements(), "timing measurements", leave=False):
        seconds = []
        for count in FEW_SAMPLES:
            began = time.perf_counter()
            measure(decoder, replace(asked, count=count), trial.seed)
            seconds.append(time.perf_counter() - began)
        for_each = (seconds[1] - seconds[0]) / (FEW_SAMPLES[1] - FEW_SAMPLES[0])
        total += seconds[1] + max(for_each, 0.0) * (asked.count - FEW_SAMPLES[1])
    return total


class Estimate(NamedTuple):
    """Seconds on the clock for all runs of an ablation; jobs that run at once share them."""

    training: float
    measuring: float


def estimate(plan: Plan, trials: Sequence[Trial], launch: Launch) -> Estimate:
    """How long some trials take, from a few steps and samples of some of them.

    A run that was stopped counts whole. NaN if nothing could be timed.
    """
    # 1. one trial for each choice of settings, and of these the first, one in between, the last
    kinds = list({str(trial.settings): trial for trial in trials}.values())
    places = {(len(kinds) - 1) * k // (MOST_TIMED - 1) for k in range(MOST_TIMED)}
    # 2. what they read is read once, if it is the same
    known: dict[tuple, Materials] = {}
    reading: list[float] = []
    steps: list[float] = []
    measuring: list[float] = []
    with thread_count(launch.threads):
        for trial in [kinds[place] for place in sorted(places)]:
            key = trial.preset.tokenizer, trial.preset.text
            began = time.perf_counter()
            try:
                if key not in known:
                    known[key] = read_materials(trial.preset, launch.device)
                    reading.append(time.perf_counter() - began)
                steps.append(seconds_of_step(trial, known[key], launch.device))
                if not measuring:
                    measuring.append(seconds_of_measuring(plan, trial, known[key], launch.device))
            except Exception:
                continue  # this run will fail, and say so then: the others are not stopped
    if not measuring:
        return Estimate(math.nan, math.nan)
    # 3. means over what was timed, for all; every run reads by itself
    before, step = sum(reading) / len(reading), sum(steps) / len(steps)
    training = sum(before + step * trial.preset.training.steps for trial in trials)
    at_once = min(launch.jobs, len(trials))
    return Estimate(training / at_once, measuring[0] * len(trials) / at_once)

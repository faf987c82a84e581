"""How long a call takes, and how many passes of the model it needs.

Notable choices
- CUDA events on a GPU of CUDA, the wall clock elsewhere; always after a warm-up, always median and
  quartiles. Other GPUs are waited for before the clock is read.
- Passes are counted in rows: guidance forwards two or three rows for each answer, and they cost.
  A row that has finished counts no more, although its batch goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from ..guidance import Pruner
from ..rows import Step
from ..sampler import Loop, Recorder
from ..writer import Writer


class Timing(NamedTuple):
    """Seconds; `clock` says how they were taken."""

    median: float
    lower_quartile: float
    upper_quartile: float
    repeats: int
    clock: str
    peak_memory_mib: float | None  # of a GPU of CUDA; None elsewhere


def is_cuda(device: str | torch.device) -> bool:
    return torch.device(device).type == "cuda"


def clock(device: str | torch.device) -> str:
    """What `elapsed` measures with."""
    return "cuda events" if is_cuda(device) else "wall clock"


def finish(device: str | torch.device) -> None:
    """Wait until a device has done its work; a CPU always has."""
    place = torch.device(device)
    if place.type != "cpu":
        torch.accelerator.synchronize(place)


def card(device: str | torch.device) -> str | None:
    """The name of a graphics card, where PyTorch knows it; None for a CPU."""
    place = torch.device(device)
    if place.type not in ("cuda", "xpu"):
        return None
    return getattr(torch, place.type).get_device_name(place)


def elapsed(call: Callable[[], object], device: str | torch.device) -> float:
    """Seconds of one call."""
    if not is_cuda(device):
        finish(device)
        began = time.perf_counter()
        call()
        finish(device)
        return time.perf_counter() - began
    # A GPU works after the call has returned. Events on its stream time the work itself, and the
    # gaps in which it waits for the host.
    stream = torch.cuda.current_stream(device)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record(stream)
    call()
    end.record(stream)
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    shares = torch.tensor([0.25, 0.5, 0.75], dtype=torch.double)
    lower, median, upper = torch.tensor(values, dtype=torch.double).quantile(shares).tolist()
    return lower, median, upper


def measure(
    call: Callable[[], object], device: str | torch.device, warmup: int = 2, repeats: int = 7
) -> Timing:
    """Time `call` after `warmup` untimed runs."""
    for _ in range(warmup):
        call()
    finish(device)
    if is_cuda(device):
        torch.cuda.reset_peak_memory_stats(device)
    lower, median, upper = quartiles([elapsed(call, device) for _ in range(repeats)])
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if is_cuda(device) else None
    return Timing(median, lower, upper, repeats, clock(device), memory)


def speed_ratio(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    device: str | torch.device,
    pairs: int = 5,
) -> dict:
    """How many times as fast `ours` is as `theirs`: the median over pairs of calls, one of each.

    The calls of a pair follow each other, so what slows the machine down for a while slows both.
    """
    ours(), theirs()  # warm-up
    finish(device)
    our_seconds, their_seconds, ratios = [], [], []
    for _ in range(pairs):
        our_seconds.append(elapsed(ours, device))
        their_seconds.append(elapsed(theirs, device))
        ratios.append(their_seconds[-1] / our_seconds[-1])
    lower, ratio, upper = quartiles(ratios)
    return {
        "ratio": ratio,
        "ratio_quartiles": [lower, upper],
        "seconds_ours": quartiles(our_seconds)[1],
        "seconds_theirs": quartiles(their_seconds)[1],
        "pairs": pairs,
        "clock": clock(device),
    }


class Passes:
    """Rows that a backbone was asked about: one row in one forward pass counts 1.

    A step of decoding is one forward pass of its rows, in every branch of guidance. Rows that have
    finished do not count, so an answer counts the same alone and in company. The sampler takes this
    object as a `Recorder`, and decodes in the `usual` way, which may be another one or a `Pruner`.
    """

    def __init__(self, usual: Recorder | Pruner | None = None) -> None:
        self.rows, self.usual = 0, usual

    def attach(self, loop: Loop) -> Loop:
        """The same steps, watched."""
        if isinstance(self.usual, Recorder):
            loop = self.usual.attach(loop)
        elif self.usual:  # `sampler.generate` gives the branches no pruner beside a recorder
            loop.branches.pruner = self.usual
            self.usual.begin(len(loop.branches.prefix), loop.branches.prefix.device)
        return WatchedLoop(loop, self)


class WatchedLoop(Loop):
    """A loop that counts the rows which a step could change (`Step.confidence` is not 0)."""

    def __init__(self, loop: Loop, passes: Passes):
        super().__init__(loop.rows, loop.branches, loop.generators, loop.steps_per_block)
        self.loop, self.passes = loop, passes

    def enter(self, first: int) -> None:
        self.loop.enter(first)

    def step(self, number: int) -> Step | None:
        step = self.loop.step(number)
        if step is not None:
            busy = int((step.confidence != 0).any(1).sum())
            self.passes.rows += busy * self.branches.branch_count
        return step


@contextmanager
def counted(writer: Writer) -> Iterator[Passes]:
    """Count the passes of `writer` in the `with` block; decoding without a cache is not counted."""
    passes = writer.recorder = Passes(writer.recorder)
    try:
        yield passes
    finally:
        writer.recorder = passes.usual

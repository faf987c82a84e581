"""How long a call takes: CUDA events on a GPU, the wall clock on a CPU, always warm, always median and quartiles."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Timing(NamedTuple):
    """Seconds; `clock` says how they were taken; `peak_memory_mib` is GPU memory, None on a CPU, where torch cannot tell."""

    median: float
    lower_quartile: float
    upper_quartile: float
    repeats: int
    clock: str
    peak_memory_mib: float | None


def elapsed(call: Callable[[], object], device: str | torch.device) -> float:
    """Seconds of one call.

    GPU work is asynchronous: events on the stream around the call time the GPU, gaps in which it waits for the host included.
    """
    if torch.device(device).type != "cuda":
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    stream = torch.cuda.current_stream(device)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record(stream)
    call()
    end.record(stream)
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    return tuple(torch.tensor(values, dtype=torch.double).quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.double)).tolist())


def measure(call: Callable[[], object], device: str | torch.device, warmup: int = 2, repeats: int = 7) -> Timing:
    """Time `call` after `warmup` untimed runs."""
    cuda = torch.device(device).type == "cuda"
    for _ in range(warmup):
        call()
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    lower, median, upper = quartiles([elapsed(call, device) for _ in range(repeats)])
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if cuda else None
    return Timing(median, lower, upper, repeats, "cuda events" if cuda else "wall clock", memory)


def speed_ratio(ours: Callable[[], object], theirs: Callable[[], object], device: str | torch.device, pairs: int = 5) -> dict:
    """How many times as fast `ours` is as `theirs`: the median over pairs of calls, one of each, after a warm-up pair.

    The calls of a pair follow each other, so what slows the machine down for a while slows both.
    """
    ours(), theirs()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    seconds = [(elapsed(ours, device), elapsed(theirs, device)) for _ in range(pairs)]
    lower, ratio, upper = quartiles([b / a for a, b in seconds])
    return {
        "ratio": ratio,
        "ratio_quartiles": [lower, upper],
        "seconds_ours": quartiles([a for a, _ in seconds])[1],
        "seconds_theirs": quartiles([b for _, b in seconds])[1],
        "pairs": pairs,
        "clock": "cuda events" if torch.device(device).type == "cuda" else "wall clock",
    }

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


def measure(call: Callable[[], object], device: str | torch.device, warmup: int = 2, repeats: int = 7) -> Timing:
    """Time `call` after `warmup` untimed runs.

    GPU work is asynchronous: events on the stream around the call time the GPU, gaps in which it waits for the host included.
    """
    cuda = torch.device(device).type == "cuda"
    for _ in range(warmup):
        call()
    if cuda:
        torch.cuda.synchronize(device)
        stream = torch.cuda.current_stream(device)
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(repeats):
        if cuda:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record(stream)
            call()
            end.record(stream)
            end.synchronize()
            seconds.append(begin.elapsed_time(end) / 1000)
        else:
            began = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - began)
    lower, median, upper = torch.tensor(seconds, dtype=torch.double).quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.double)).tolist()
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if cuda else None
    return Timing(median, lower, upper, repeats, "cuda events" if cuda else "wall clock", memory)

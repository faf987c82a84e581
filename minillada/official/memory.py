"""What it costs to load the official backbone and to run it: seconds, memory, bytes read.

Notable choices
- Numbers are those of the Linux kernel for this process: `VmHWM` is the most memory that was ever
  resident. Of it, `RssAnon` is what cannot be dropped; the pages of mapped files can be.
- On a GPU, seconds lie between two events, and memory is what PyTorch has given out. What a pass
  takes on top of the loaded weights shows whether it copies experts.
- Files are dropped from the system's cache before each reading, so that reading and loading both
  come from the disk.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..measure.timing import clock, elapsed, is_cuda
from ..model import Backbone
from .backbone import as_dtype, check_mode, load_backbone
from .config import read_config
from .mapped import Recent, StoredExperts
from .shards import PIECE, stored_tensors


def kernel(name: str) -> int:
    """Bytes that the kernel reports for this process, for example `VmHWM`; Linux only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"this system does not report {name}")


def bytes_read() -> int:
    """Bytes that this process had fetched from the disk."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])


class Peak:
    """The most anonymous memory of this process, looked at twenty times a second."""

    def __init__(self) -> None:
        self.bytes, self.running = 0, True

    def watch(self) -> None:
        while self.running:
            self.bytes = max(self.bytes, kernel("RssAnon"))
            time.sleep(0.05)


@contextmanager
def watched() -> Iterator[Peak]:
    """A `Peak` that is looked at while the block runs."""
    peak = Peak()
    thread = threading.Thread(target=peak.watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        peak.running = False
        thread.join()


def drop_from_cache(paths: list[Path]) -> None:
    """Ask the system to forget what it has kept of files."""
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_once(paths: list[Path]) -> None:
    """Read files from their first byte to their last, and keep nothing."""
    buffer = bytearray(PIECE)
    for path in paths:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


class Took(NamedTuple):
    """Seconds by the clock, and of a processor: those compare also on a busy machine."""

    clock: float
    processor: float


def timed(call: Callable[[], Any]) -> tuple[Took, Any]:
    began, busy = time.perf_counter(), time.process_time()
    result = call()
    return Took(time.perf_counter() - began, time.process_time() - busy), result


def measure(
    folder: Path,
    device: str | torch.device = "cpu",
    tokens: int = 64,
    seed: int = 0,
    **options: Any,
) -> dict:
    """Load a checkpoint's backbone and run it; a dict of what this took.

    Meant for a fresh process. `options` are those of `load_backbone`. `ValueError` unless the
    system is Linux, and, before files are read, for options that cannot be used.
    """
    check_measurable(folder, device, tokens, options)
    stored = stored_tensors(folder)
    weights = sum(one.end - one.begin for one in stored)
    paths = sorted({one.path for one in stored})
    given = {name: value for name, value in options.items() if value}  # without what is off
    report = {"benchmark": "official", "device": str(device), **given, "weights_gb": weights / 1e9}
    report["resident_before_gb"] = kernel("VmRSS") / 1e9
    # 1. the same files, read without using them; not where experts stay in them
    if not {"mapped", "experts_on_gpu"} & given.keys():
        report |= reading_numbers(paths)
    # 2. loading
    drop_from_cache(paths)
    with watched() as loaded:
        loading, backbone = timed(lambda: load_backbone(folder, device, **options))
    peak = kernel("VmHWM")
    report |= {
        "layers": backbone.config.num_hidden_layers,
        "peak_loading_gb": peak / 1e9,
        "peak_loading_over_weights": peak / weights,
        "peak_anonymous_loading_gb": loaded.bytes / 1e9,
        "seconds_loading": loading.clock,
        "processor_seconds_loading": loading.processor,
        **gpu_numbers(device, "loading"),
    }
    # 3. forward passes
    drop_from_cache(paths)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(backbone.config.vocab_size, (1, tokens), generator=generator)
    with watched() as ran:
        report |= measure_forward(backbone, ids.to(device))
    return report | {
        "tokens": tokens,
        "peak_anonymous_forward_gb": ran.bytes / 1e9,
        "peak_anonymous_over_weights": max(loaded.bytes, ran.bytes) / weights,
        "peak_gb": kernel("VmHWM") / 1e9,
    }


def check_measurable(
    folder: Path, device: str | torch.device, tokens: int, options: dict[str, Any]
) -> None:
    """`ValueError` for what `measure` cannot do, from the small files alone."""
    if not sys.platform.startswith("linux"):
        raise ValueError("memory is measured on Linux only")
    modes = dict(options)
    as_dtype(modes.pop("dtype", "bfloat16"))
    check_mode(torch.device(device), **modes)
    context = read_config(folder).max_position_embeddings
    if not 1 <= tokens <= context:
        raise ValueError(f"the context has room for 1 to {context} tokens, not for {tokens}")


def reading_numbers(paths: list[Path]) -> dict:
    """What reading files once takes, from the disk."""
    drop_from_cache(paths)
    reading, _ = timed(lambda: read_once(paths))
    return {"seconds_reading": reading.clock, "processor_seconds_reading": reading.processor}


@torch.no_grad()
def measure_forward(backbone: Backbone, ids: Tensor) -> dict:
    """A forward pass, and on a GPU or with fetched experts a second one, which finds things ready.

    On a GPU of CUDA, seconds are those between two events.
    """
    device, disk = ids.device, bytes_read()
    recent = recent_experts(backbone)
    logits: list[Tensor] = []
    # `elapsed` waits for a GPU, `timed` adds the seconds of the processor.
    took, seconds = timed(lambda: elapsed(lambda: logits.append(backbone(ids)), device))
    report = {
        "clock": clock(device),
        "seconds_forward": seconds,
        "processor_seconds_forward": took.processor,
        "read_forward_gb": (bytes_read() - disk) / 1e9,
        "finite": bool(logits[0].isfinite().all()),
    }
    if recent is not None:
        report |= fetched_numbers(recent, seconds)
    if recent is not None or is_cuda(device):
        report["seconds_second_forward"] = elapsed(lambda: backbone(ids), device)
    return report | gpu_numbers(device, "forward")


def recent_experts(backbone: Backbone) -> Recent | None:
    """The experts that are kept on the GPU, if the backbone fetches experts."""
    for module in backbone.modules():
        if isinstance(module, StoredExperts):
            return module.recent
    return None


def fetched_numbers(recent: Recent, seconds: float) -> dict:
    """How many experts a pass of so many seconds has fetched, and how many bytes they are."""
    one = next(iter(recent.kept.values()))  # a pass has fetched at least one
    size = recent.fetched * sum(matrix.nbytes for matrix in one) / 1e9
    counts = {"experts_fetched": recent.fetched, "experts_found": recent.found}
    return counts | {"fetched_gb": size, "fetched_gb_a_second": size / seconds}


def gpu_numbers(device: str | torch.device, name: str) -> dict:
    """Memory of a GPU of CUDA since the last call: at most, and what is left of it."""
    if not is_cuda(device):
        return {}
    peak, now = torch.cuda.max_memory_allocated(device), torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return {f"gpu_peak_{name}_gb": peak / 1e9, f"gpu_after_{name}_gb": now / 1e9}

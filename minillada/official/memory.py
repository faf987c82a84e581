"""What it costs to load the official backbone and to run it once: seconds, memory, bytes read.

Notable choices
- Numbers are those of the Linux kernel for this process: `VmHWM` is the most memory that was ever
  resident. Of it, `RssAnon` is what cannot be dropped; the pages of mapped files can be.
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

from .backbone import load_backbone
from .shards import PIECE, stored_tensors


def kernel(name: str) -> int:
    """Bytes that the kernel reports for this process, for example `VmHWM`; Linux only."""
    if not Path("/proc/self/status").exists():
        raise ValueError("memory is measured on Linux only: this system has no /proc/self/status")
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
    """Seconds by the clock, and of a processor: on a busy machine only these can be compared."""

    clock: float
    processor: float


def timed(call: Callable[[], Any]) -> tuple[Took, Any]:
    clock, processor = time.perf_counter(), time.process_time()
    result = call()
    return Took(time.perf_counter() - clock, time.process_time() - processor), result


def measure(folder: Path, mapped: bool = False, tokens: int = 64, seed: int = 0) -> dict:
    """Load a checkpoint's backbone and run it once; a dict of what this took.

    Meant for a fresh process. `ValueError` unless the system is Linux.
    """
    if not sys.platform.startswith("linux"):
        raise ValueError("memory is measured on Linux only")
    stored = stored_tensors(folder)
    weights = sum(one.end - one.begin for one in stored)
    paths = sorted({one.path for one in stored})
    before = kernel("VmRSS")
    report = {"benchmark": "official", "mapped": mapped, "weights_gb": weights / 1e9}
    # 1. the same bytes without using them; experts that stay in their files are left out of this
    if not mapped:
        drop_from_cache(paths)
        reading, _ = timed(lambda: read_once(paths))
        report["seconds_reading"] = reading.clock
        report["processor_seconds_reading"] = reading.processor
    # 2. loading
    drop_from_cache(paths)
    with watched() as loaded:
        loading, backbone = timed(lambda: load_backbone(folder, mapped=mapped))
    peak = kernel("VmHWM")
    # 3. one forward pass
    drop_from_cache(paths)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(backbone.config.vocab_size, (1, tokens), generator=generator)
    disk = bytes_read()
    with watched() as ran, torch.no_grad():
        running, logits = timed(lambda: backbone(ids))
    return report | {
        "layers": backbone.config.num_hidden_layers,
        "resident_before_gb": before / 1e9,
        "peak_loading_gb": peak / 1e9,
        "peak_loading_over_weights": peak / weights,
        "peak_anonymous_loading_gb": loaded.bytes / 1e9,
        "seconds_loading": loading.clock,
        "processor_seconds_loading": loading.processor,
        "tokens": tokens,
        "seconds_forward": running.clock,
        "processor_seconds_forward": running.processor,
        "read_forward_gb": (bytes_read() - disk) / 1e9,
        "peak_anonymous_forward_gb": ran.bytes / 1e9,
        "peak_anonymous_over_weights": max(loaded.bytes, ran.bytes) / weights,
        "peak_gb": kernel("VmHWM") / 1e9,
        "finite": bool(logits.isfinite().all()),
    }

"""How much memory is free, and whether weights fit into it. Gigabytes are 10⁹ bytes.

Notable choices
- A system that has too little memory ends the program without a word, after a minute of reading. So
  a model that cannot fit is refused before its weights are read.
"""

from __future__ import annotations

import os
from itertools import chain
from typing import NamedTuple

import torch
from torch import nn


class Free(NamedTuple):
    """Gigabytes free on a machine; None: no GPU, or not known."""

    gpu: float | None
    ram: float | None


def linux_memory(name: str) -> float | None:
    """Gigabytes that the Linux kernel reports, for example `MemAvailable`; None elsewhere."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024 / 1e9
    except OSError:
        pass
    return None


def gpu_memory(device: torch.device) -> float:
    """Gigabytes free on a GPU of CUDA, with those that PyTorch keeps and does not use."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (torch.cuda.mem_get_info(device)[0] + unused) / 1e9


def free_memory() -> Free:
    """What is free now, on the first GPU and in main memory."""
    gpu = gpu_memory(torch.device("cuda", 0)) if torch.cuda.is_available() else None
    ram = linux_memory("MemAvailable")
    if ram is None and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        ram = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9  # macOS: all of it
    return Free(gpu, ram)


def check_room(module: nn.Module, place: torch.device) -> None:
    """`ValueError` if the weights of a module, still without memory, are larger than what is free.

    Only where that is known: on GPUs of CUDA, and in the main memory of Linux.
    """
    if place.type == "cpu":
        ram, swap = linux_memory("MemAvailable"), linux_memory("SwapFree")
        free = None if ram is None else ram + (swap or 0)
    elif place.type == "cuda" and torch.cuda.is_available():
        free = gpu_memory(place)
    else:
        free = None
    needed = sum(part.nbytes for part in chain(module.parameters(), module.buffers())) / 1e9
    if free is not None and needed > free:
        raise ValueError(
            f"the weights need {needed:.1f} GB, and {place} has {free:.1f} GB of memory free; "
            "`minillada official check` names ways to run that need less"
        )

"""Experts that stay in their files: mapped into memory, or fetched to a GPU when they are needed.

A mapped matrix looks like any other tensor. The system reads its pages from the file when they are
used for the first time, and may drop them again when memory is short. Nearly all weights of the
official model are experts, and a token uses 8 of 256 in each layer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..experts import Expert


class Recent:
    """Copies of the `size` experts that were used last, on a device, for all layers together."""

    def __init__(self, size: int, device: torch.device, dtype: torch.dtype):
        if size < 1:
            raise ValueError(f"at least one expert must have room on the GPU, got {size}")
        self.size, self.device, self.dtype = size, device, dtype
        self.kept: OrderedDict[tuple[int, int], Expert] = OrderedDict()  # oldest first
        self.fetched = self.found = 0  # how often an expert was copied, and how often not

    def fetch(self, layer: int, number: int, expert: Expert) -> Expert:
        """The copy of an expert. It may be overwritten when `size` others were fetched."""
        key = layer, number
        if key in self.kept:
            self.found += 1
            self.kept.move_to_end(key)
            return self.kept[key]
        self.fetched += 1
        if len(self.kept) < self.size:
            matrices = [matrix.to(self.device, self.dtype, copy=True) for matrix in expert]
            self.kept[key] = Expert(*matrices)
        else:
            # The memory of the one that was not used for the longest time serves again.
            _, oldest = self.kept.popitem(last=False)
            for slot, matrix in zip(oldest, expert):
                slot.copy_(matrix)
            self.kept[key] = oldest
        return self.kept[key]


class Fetched(Sequence[Expert]):
    """The experts of a layer, each fetched when it is asked for."""

    def __init__(self, experts: list[Expert], layer: int, recent: Recent):
        self.experts, self.layer, self.recent = experts, layer, recent

    def __len__(self) -> int:
        return len(self.experts)

    def __getitem__(self, number: Any) -> Any:
        return self.recent.fetch(self.layer, number, self.experts[number])


class StoredExperts(nn.Module):
    """What takes the place of `Experts` in a layer: no parameters, but views of files."""

    def __init__(self, experts: list[Expert], layer: int, recent: Recent | None = None):
        super().__init__()
        self.experts, self.layer, self.recent = experts, layer, recent

    def __len__(self) -> int:
        return len(self.experts)

    def apart(self) -> Sequence[Expert]:
        """The experts one by one."""
        if self.recent is None:
            return self.experts
        return Fetched(self.experts, self.layer, self.recent)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        """Called by `state_dict`: the names that `Experts` gives, and the views of the files."""
        for number, expert in enumerate(self.experts):
            for name, matrix in expert._asdict().items():
                destination[f"{prefix}{number}.{name}.weight"] = matrix

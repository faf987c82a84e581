"""Experts in 4 bits, through bitsandbytes: less than a third of the memory of bfloat16.

The numbers of a matrix are cut into blocks of 64. A block keeps its largest absolute number, and of
each number the nearest of 16 values between -1 and 1 that suit a normal distribution (NF4, QLoRA,
arXiv 2305.14314). That makes 4.5 bits a weight.

Notable choices
- Only rounding and its reverse are the library's. The matrix of an expert is turned into the
  model's type when a token uses it, as in `eight_bit.py`; the product is PyTorch's.
- Nothing is downloaded: the compiled code that bitsandbytes would fetch is not needed (`library`).
- bitsandbytes does this on CPUs and on GPUs. torchao 0.18 does not: on a CPU it keeps numbers of 4
  bits in 8, and for a GPU it needs a further package.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..experts import Expert
from ..extras.packages import load_package
from .eight_bit import RoundedExpert

BLOCK = 64  # numbers with one scale
KIND = "nf4"


def library() -> Any:
    """The functions of bitsandbytes. `ValueError`, with what to install, if it is missing."""
    if "bitsandbytes" not in sys.modules:
        # Where the package `kernels` is installed, too, bitsandbytes downloads compiled code and
        # runs it; where it is not, a hint asks for it. Nothing here needs that code.
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
        kernels = sys.modules.get("kernels")
        sys.modules["kernels"] = None  # type: ignore[assignment]  # importing it is an error now
        try:
            load_package("bitsandbytes", "four-bit")
        finally:
            del sys.modules["kernels"]
            if kernels is not None:
                sys.modules["kernels"] = kernels
    return load_package("bitsandbytes.functional", "four-bit")


class Packed(NamedTuple):
    """A matrix: two numbers in each byte `[out · in / 2]`, a scale for each block, its rows."""

    numbers: Tensor
    scales: Tensor
    rows: int

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """The rounded matrix `[out, in]`."""
        functional = library()
        # On a CPU the library (0.50) is right only where each row is whole blocks. So it is told
        # that a row is one block; the view below gives the real rows.
        shape = torch.Size((len(self.scales), BLOCK))
        about = functional.QuantState(
            self.scales, shape, dtype=dtype, blocksize=BLOCK, quant_type=KIND
        )
        return functional.dequantize_4bit(self.numbers[:, None], about).view(self.rows, -1)

    def __call__(self, x: Tensor, /) -> Tensor:
        return F.linear(x, self.matrix(x.dtype))


class FourBitExperts(nn.Module):
    """What takes the place of `Experts` in a layer: stacks of packed matrices.

    `ValueError` for matrices that are not whole blocks.
    """

    def __init__(self, count: int, hidden: int, inner: int):
        super().__init__()
        if hidden * inner % BLOCK:
            raise ValueError(f"matrices of {hidden} x {inner} numbers have no blocks of {BLOCK}")
        self.count = count
        self.rows = dict(zip(Expert._fields, (inner, inner, hidden)))  # of each matrix
        for name in Expert._fields:
            numbers = torch.empty(count, hidden * inner // 2, dtype=torch.uint8)
            self.register_buffer(name, numbers)
            self.register_buffer(name + "_scales", torch.empty(count, hidden * inner // BLOCK))

    def __len__(self) -> int:
        return self.count

    def put(self, name: str, first: int, rows: Tensor) -> None:
        """Round rows `[n, in]` and write them from row `first` of a stack on, all experts' rows
        counted one after the other. `ValueError` for rows that are not whole blocks.
        """
        if rows.numel() % BLOCK:
            raise ValueError(
                f"rows of {rows.shape[1]} numbers are no whole blocks of {BLOCK}; give bits=8"
            )
        functional = library()
        numbers, scales = self.get_buffer(name), self.get_buffer(name + "_scales")
        source = rows.to(numbers.device).reshape(-1, BLOCK)
        packed, state = functional.quantize_4bit(source, blocksize=BLOCK, quant_type=KIND)
        # In numbers of the stack: two of them share a byte, and a block shares a scale.
        start, end = first * rows.shape[1], first * rows.shape[1] + rows.numel()
        numbers.flatten()[start // 2 : end // 2] = packed.flatten()
        scales.flatten()[start // BLOCK : end // BLOCK] = state.absmax

    def apart(self) -> list[RoundedExpert]:
        """The experts one by one, as views."""
        stacks = []
        for name, rows in self.rows.items():
            numbers, scales = self.get_buffer(name), self.get_buffer(name + "_scales")
            stacks.append([Packed(*pair, rows) for pair in zip(numbers, scales)])
        return [RoundedExpert(*matrices) for matrices in zip(*stacks)]

"""Experts in 8 bits: half the memory of bfloat16, and nearly the same numbers.

A row of a matrix becomes whole numbers from -127 to 127 and one scale, the row's largest number
over 127. A product with the whole numbers, times the scale of each output, is the product with the
rounded matrix. Only experts are rounded: they hold 15 of the 16 billion weights.

Notable choices
- PyTorch alone does this; no further library is needed. The whole numbers of one expert are turned
  into the model's type when a token uses it, so a pass copies one matrix at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..experts import Expert


class Rounded(NamedTuple):
    """A matrix: whole numbers `[out, in]`, and a scale for each of its rows `[out]`."""

    numbers: Tensor
    scales: Tensor

    def __call__(self, x: Tensor, /) -> Tensor:
        return F.linear(x, self.numbers.to(x.dtype)) * self.scales.to(x.dtype)


Matrix = Callable[[Tensor], Tensor]  # [..., in] to [..., out]


class RoundedExpert(NamedTuple):
    """As `Expert`, but a matrix is called to multiply with it."""

    gate_proj: Matrix
    up_proj: Matrix
    down_proj: Matrix

    def __call__(self, x: Tensor, /) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Whole numbers of the shape of `rows` `[n, in]`, and scales `[n]`."""
    scales = rows.float().abs().amax(1).clamp_min(1e-30) / 127
    return (rows.float() / scales[:, None]).round().to(torch.int8), scales


class EightBitExperts(nn.Module):
    """What takes the place of `Experts` in a layer: stacks of rounded matrices."""

    def __init__(self, count: int, hidden: int, inner: int):
        super().__init__()
        self.count = count
        shapes = (inner, hidden), (inner, hidden), (hidden, inner)
        for name, (rows, columns) in zip(Expert._fields, shapes):
            numbers = torch.empty(count, rows, columns, dtype=torch.int8)
            self.register_buffer(name, numbers)
            self.register_buffer(name + "_scales", torch.empty(count, rows))

    def __len__(self) -> int:
        return self.count

    def put(self, name: str, first: int, rows: Tensor) -> None:
        """Round rows `[n, in]` and write them from row `first` of a stack on, all experts' rows
        counted one after the other.
        """
        numbers, scales = rounded(rows)
        self.get_buffer(name).flatten(0, 1)[first : first + len(rows)] = numbers
        self.get_buffer(name + "_scales").flatten()[first : first + len(rows)] = scales

    def apart(self) -> list[RoundedExpert]:
        """The experts one by one, as views."""
        stacks = []
        for name in Expert._fields:
            numbers, scales = self.get_buffer(name), self.get_buffer(name + "_scales")
            stacks.append([Rounded(*pair) for pair in zip(numbers.unbind(), scales.unbind())])
        return [RoundedExpert(*matrices) for matrices in zip(*stacks)]

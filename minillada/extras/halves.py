"""bfloat16, numbers of half the size of float32, on processors without instructions for them.

Most laptops have none. Their PyTorch multiplies matrices of bfloat16 by slow general code: on a
core with AVX2 it took 6 to 30 times as long as for float32 (docs/log.md).

Notable choices
- Training asks `has_bfloat16`, and computes in float32 where the answer is no.
- PyTorch's Muon works in bfloat16, and so does the official checkpoint unless float32 is asked
  for. Inside `quick_products` their products are computed in float32 and rounded at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Every function by which the package, diffusers or PyTorch's Muon multiplies matrices.
PRODUCTS: set[Callable] = {
    F.linear, F.conv2d, torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm,
    Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm, Tensor.addmm, Tensor.baddbmm,
}  # fmt: skip
PIECE = 2**19  # weights that are turned into float32 at once: 2 MB fit into a processor's cache
FEW = 5  # rows; with fewer, reading the weights takes most of the time, in the slow code as well


def has_bfloat16(device: str | torch.device) -> bool:
    """Whether PyTorch multiplies bfloat16 by instructions of this device."""
    kind = torch.device(device).type
    if kind == "cpu":  # PyTorch asks the same before it chooses its code
        return torch.backends.mkldnn.is_available() and bool(
            torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
    if kind == "cuda":  # cards before compute capability 8 imitate it
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return True


def quick_products(device: str | torch.device) -> AbstractContextManager:
    """What to compute in on a device: `Float32Products` on a CPU without bfloat16, else nothing."""
    slow = torch.device(device).type == "cpu" and not has_bfloat16(device)
    return Float32Products() if slow else nullcontext()


class Float32Products(TorchFunctionMode):
    """In this context, products of bfloat16 on a CPU are computed in float32, and then rounded.

    The slow code adds up in float32, too, so results differ by the order of additions alone.
    """

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = [part for part in (*args, *kwargs.values()) if isinstance(part, Tensor)]
        # With `out` the result belongs into a tensor of the caller, not into a wider copy of it.
        if function not in PRODUCTS or "out" in kwargs or not all(map(is_slow, given)):
            return function(*args, **kwargs)
        if function is F.linear:
            return linear(*args, **kwargs)
        named = {name: widened(part) for name, part in kwargs.items()}
        return function(*map(widened, args), **named).bfloat16()


def is_slow(part: Tensor) -> bool:
    return part.dtype == torch.bfloat16 and part.device.type == "cpu"


def widened(part: Any) -> Any:
    """A tensor in float32; anything else as it is."""
    return part.float() if isinstance(part, Tensor) else part


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear` of bfloat16 numbers, `[..., in]` to `[..., out]`, some rows of the weight at once.

    The weight as a whole would be a second, larger copy, made anew for every product.
    """
    count, width = weight.shape
    if input.numel() < FEW * width:
        return F.linear(input, weight, bias)
    rows = max(PIECE // width, 1)
    room = torch.empty(min(rows, count), width, device=weight.device)  # for all pieces in turn
    wide, output = input.float(), input.new_empty(*input.shape[:-1], count)
    for start in range(0, count, rows):
        these = slice(start, start + rows)
        piece = room[: count - start].copy_(weight[these])
        part = F.linear(wide, piece, None if bias is None else bias[these].float())
        output[..., these] = part  # rounded
    return output

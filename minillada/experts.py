"""The experts of a layer: many small SwiGLUs, and the weighted sum of those a token has chosen.

Notable choices
- All experts of a projection are one parameter `[E, out, in]`. A GPU multiplies all of them at
  once, and no forward pass copies weights to stack them.
- A state dict names every expert by itself, as the official checkpoint does: `3.up_proj.weight`.
- Products are in the type of the matrices, or in that of autocast. The weighted sum is in float32,
  or for float64 in float64, and then cast back, as in the official code.
- `combine_dense` is the formula. The other two ways compute only what was chosen, with the same
  result up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Expert(NamedTuple):
    """The matrices of one expert, `[out, in]`."""

    gate_proj: Tensor
    up_proj: Tensor
    down_proj: Tensor

    def __call__(self, x: Tensor, /) -> Tensor:
        """down(silu(gate(x)) * up(x)), from `[..., H]` to `[..., H]`."""
        inner = F.silu(F.linear(x, self.gate_proj)) * F.linear(x, self.up_proj)
        return F.linear(inner, self.down_proj)


class AnyExperts(Protocol):
    """What `combine` needs: `Experts`, or experts that are not in memory (`official/mapped.py`)."""

    def __len__(self) -> int: ...

    def apart(self) -> Sequence[Any]: ...  # each computes `[n, H]` from `[n, H]`


class Experts(nn.Module):
    """E experts, each projection in one parameter."""

    def __init__(self, count: int, hidden: int, inner: int):
        super().__init__()
        self.gate_proj = nn.Parameter(torch.empty(count, inner, hidden))
        self.up_proj = nn.Parameter(torch.empty(count, inner, hidden))
        self.down_proj = nn.Parameter(torch.empty(count, hidden, inner))
        self.initialise()

    def __len__(self) -> int:
        return len(self.gate_proj)

    def apart(self) -> list[Expert]:
        """The experts one by one; their matrices are views."""
        # The gradient of `unbind` is one stack. That of an index would be a stack for each expert.
        stacks = self.gate_proj.unbind(), self.up_proj.unbind(), self.down_proj.unbind()
        return [Expert(*matrices) for matrices in zip(*stacks)]

    @torch.no_grad()
    def initialise(self, std: float | None = None) -> None:
        """Random matrices: normally distributed, or without `std` those of a new `nn.Linear`."""
        if self.gate_proj.is_meta:
            return  # a meta tensor has no values to set
        # Expert by expert: a seed gives the numbers that separate modules would get.
        for expert in self.apart():
            for matrix in expert:
                if std is None:
                    nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))
                else:
                    nn.init.normal_(matrix, std=std)

    def by_name(self, prefix: str) -> dict[str, Tensor]:
        """Every matrix of every expert by its name in a state dict; the values are views."""
        found = {}
        for number, expert in enumerate(self.apart()):
            for name, matrix in expert._asdict().items():
                found[f"{prefix}{number}.{name}.weight"] = matrix
        return found

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        """Called by `state_dict`."""
        for key, matrix in self.by_name(prefix).items():
            destination[key] = matrix if keep_vars else matrix.detach()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *others: Any) -> None:
        """Called by `load_state_dict`: faults are appended to the last three lists."""
        _local_metadata, strict, missing, unexpected, errors = others
        known = self.by_name(prefix)
        missing += [key for key in known if key not in state_dict]
        if strict:
            unexpected += [key for key in state_dict if key.startswith(prefix) and key not in known]
        for key in known.keys() & state_dict.keys():
            found, matrix = state_dict[key], known[key]
            if found.shape != matrix.shape:
                errors.append(f"{key} has shape {list(found.shape)}, not {list(matrix.shape)}")
            elif matrix.is_meta:
                errors.append(f"{key} has no memory to be read into; call to_empty first")
            else:  # the stacks stay what they are, also with `assign=True`
                matrix.detach().copy_(found)


# --- the weighted sum ----------------------------------------------------------------------------

# The three ways to combine take experts, tokens x [T, H], and `chosen` and `weights` [T, k].


def combine_dense(experts: AnyExperts, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Σ_e w_e · expert_e(x) `[T, H]` over all experts, with w_e = 0 for those not chosen."""
    all_weights = weights.new_zeros(len(x), len(experts)).scatter(1, chosen, weights)  # [T, E]
    out = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float))
    for number, expert in enumerate(experts.apart()):
        out = out + all_weights[:, number, None] * expert(x)
    return out.to(x.dtype)


def sort_by_expert(chosen: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The T · k choices in the order of their experts `[T·k]`, and how many each expert has `[E]`.

    Choices are numbered token by token, k of token 0 first: choice i is one of token i // k.
    """
    flat = chosen.flatten()
    order = flat.argsort(stable=True)  # equal experts stay in the order of their tokens
    return order, torch.bincount(flat, minlength=count)


def combine_grouped(experts: AnyExperts, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """The same sum over the chosen experts alone: each takes its slice of the sorted choices."""
    order, counts = sort_by_expert(chosen, len(experts))
    tokens = order // chosen.shape[1]  # [T·k]
    sorted_weights = weights.flatten()[order, None]  # [T·k, 1]
    out = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float))
    single = experts.apart()  # indexed below: an expert on disk is read only if it is chosen
    end = 0  # of the expert's slice
    for number, count in enumerate(counts.tolist()):
        start, end = end, end + count
        if count == 0:
            continue  # nobody chose this expert
        these_tokens = tokens[start:end]
        # float32 times a smaller type is float32
        weighted = sorted_weights[start:end] * single[number](x[these_tokens])
        out.index_add_(0, these_tokens, weighted)
    return out.to(x.dtype)


def grouped_linear(rows: Tensor, stack: Tensor, ends: Tensor) -> Tensor:
    """Rows `[n, in]` times their matrices, `[n, out]`; the rows of expert e end before ends[e]."""
    # A transposed stack [E, in, out] is a view, and `to` copies only if the types differ.
    return F.grouped_mm(rows, stack.to(rows.dtype).transpose(1, 2), offs=ends)


def combine_at_once(experts: Experts, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """The same sum with three grouped products for all experts, in the type of `x`."""
    order, counts = sort_by_expert(chosen, len(experts))
    ends = counts.cumsum(0).int()  # where each expert's slice ends
    rows = x[order // chosen.shape[1]]  # [T·k, H]
    gate = grouped_linear(rows, experts.gate_proj, ends)  # [T·k, inner]
    up = grouped_linear(rows, experts.up_proj, ends)
    outputs = grouped_linear(F.silu(gate) * up, experts.down_proj, ends)  # [T·k, H]
    # `argsort` of an order undoes it. A sum over k has one order, so it can be repeated exactly.
    outputs = outputs[order.argsort()].unflatten(0, chosen.shape)  # [T, k, H]
    return (weights[..., None] * outputs).sum(1).to(x.dtype)


def combine(experts: AnyExperts, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """The fastest way that works here.

    Grouped products need bfloat16, a GPU of compute capability 8, and widths in multiples of 8.
    """
    if len(x) == 0:  # no rows: a dense sum uses every weight, so each has a gradient of 0
        return combine_dense(experts, x, chosen, weights)
    if not x.is_cuda or not hasattr(F, "grouped_mm") or not isinstance(experts, Experts):
        return combine_grouped(experts, x, chosen, weights)
    autocast = torch.is_autocast_enabled("cuda")
    dtype = torch.get_autocast_dtype("cuda") if autocast else x.dtype
    new_enough = torch.cuda.get_device_capability(x.device) >= (8, 0)
    aligned = all(width % 8 == 0 for width in experts.gate_proj.shape[1:])
    if dtype != torch.bfloat16 or not new_enough or not aligned:
        return combine_grouped(experts, x, chosen, weights)
    return combine_at_once(experts, x.to(dtype), chosen, weights).to(x.dtype)

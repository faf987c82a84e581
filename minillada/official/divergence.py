"""Where two backbones part: the outputs of all their modules, compared in the order of computation.

Two files of weights, two types or two implementations should give the same numbers. Where they do
not, the first module that differs is the place to look at: later ones may only follow from it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ..model import Backbone

Outputs = dict[str, Tensor]


@torch.no_grad()
def outputs(backbone: Backbone, ids: Tensor) -> Outputs:
    """What every module puts out for ids `[B, L]`, by its name and in the order of computation."""
    found: Outputs = {}

    def remember(name: str, module: nn.Module, inputs: object, out: object) -> None:
        # Of a router only the weights are kept: the numbers of experts are no floats.
        parts = out if isinstance(out, tuple) else (out,)
        for part in parts:
            if isinstance(part, Tensor) and part.is_floating_point():
                found[name] = part.float().cpu()

    hooks = []
    for name, module in backbone.named_modules():
        if name and not isinstance(module, nn.ModuleList):
            hooks.append(module.register_forward_hook(partial(remember, name)))
    try:
        backbone(ids.to(backbone.lm_head.weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def divergences(a: Backbone, b: Backbone, ids: Tensor) -> dict[str, float]:
    """Largest difference of two models at each module, as a share of the largest output there.

    The order is that of computation. Infinite where shapes differ, or where one holds NaN or
    infinity.
    """
    ours, theirs = outputs(a, ids), outputs(b, ids)
    shares = {}
    for name, out in ours.items():
        other = theirs.get(name)
        if other is None or other.shape != out.shape:
            shares[name] = float("inf")
            continue
        share = (out - other).abs().max() / out.abs().max().clamp_min(1e-30)
        shares[name] = float(share.nan_to_num(nan=float("inf")))
    return shares


def first_divergence(a: Backbone, b: Backbone, ids: Tensor, tolerance: float = 1e-4) -> str | None:
    """The first module whose outputs differ by more than `tolerance`; None if none do.

    In float32 rounding makes about 1e-6, in bfloat16 1e-2, and far more where it sends a token to
    another expert: choose a tolerance above it.
    """
    for name, share in divergences(a, b, ids).items():
        if share > tolerance:
            return name
    return None

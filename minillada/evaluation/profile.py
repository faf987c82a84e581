"""Where the time of decoding goes: `minillada bench sampler --profile`.

Notable choices
- All matrix products and all attention of one decoding are written down and then run again, alone.
  Both together are the limit: with these kernels no loop can be faster.
- CUDA graphs launch the same kernels, so their steps are timed, but not taken apart.
- Nothing traces the timed runs. A tracer costs time at every small operation, and would find more
  of the rest than there is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..measure import timing
from .bench import Decoding, Setting, graph_steps

KINDS: dict[Callable, str] = {F.linear: "products", F.scaled_dot_product_attention: "attention"}
if hasattr(F, "grouped_mm"):
    KINDS[F.grouped_mm] = "products"


class Calls(TorchFunctionMode):
    """In this context, calls of the kinds above are written down with their inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[str, list[Callable[[], Any]]] = {kind: [] for kind in KINDS.values()}
        self.known: dict[tuple, Callable[[], Any]] = {}

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in KINDS:
            # Inputs of equal shapes are kept once for each weight (in attention: buffer of keys):
            # fetching it from memory is part of the time. All inputs would not fit into memory.
            inputs = *args, *kwargs.values()
            shapes = tuple(part.shape for part in inputs if hasattr(part, "shape"))
            key = function, shapes, args[1].data_ptr()  # 1: the weight, or the keys
            if key not in self.known:
                self.known[key] = lambda: function(*args, **kwargs)
            self.made[KINDS[function]].append(self.known[key])
        return function(*args, **kwargs)

    @torch.no_grad()
    def again(self, kind: str) -> None:
        """All calls of a kind, and nothing else."""
        for call in self.made[kind]:
            call()


def profile_sampler(setting: Setting, length: int = 512, batch: int = 8) -> dict:
    """Shares of matrix products, attention and the rest, and how far decoding is from the limit."""
    decoding = Decoding(setting, length, batch)
    calls = Calls()
    with calls:
        steps = decoding.eager().forwards
    parts = {
        "whole": decoding.eager,
        "products": lambda: calls.again("products"),
        "attention": lambda: calls.again("attention"),
    }
    # The parts follow each other, so what slows the machine down for a while slows all of them.
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(setting.pairs + 1):
        for name, run in parts.items():
            seconds[name].append(timing.elapsed(run, setting.device))
    # The first run of each was the warm-up.
    whole, products, attention = (torch.tensor(taken[1:]) for taken in seconds.values())
    return {
        "benchmark": "sampler --profile",
        "share_products": middle(products / whole),
        "share_attention": middle(attention / whole),
        "share_rest": middle(1 - (products + attention) / whole),
        "times_the_limit": middle(whole / (products + attention)),
        "milliseconds_a_step": 1000 * middle(whole) / steps,
        **graph_steps(setting, decoding),
        "steps": steps,
        "new_tokens": length,
        "batch": batch,
        "runs": setting.pairs,
        "clock": timing.clock(setting.device),
        **setting.where(),
    }


def middle(values: Tensor) -> float:
    """The median of a few measurements."""
    return timing.quartiles(values.tolist())[1]

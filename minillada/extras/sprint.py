"""SPRINT: decode from a prefix cache that keeps only the important tokens (LLaDA2.0-Uni, arXiv 2604.20796). Training-free.

Importance of prefix token i:  α ‖k_i‖ / mean ‖k‖ + (1 − α) conf_i, with ‖k_i‖ averaged over layers and heads and conf_i the
probability of the model's best guess at that position. Each modality keeps its own fraction of its tokens; a fraction of 1 or
more pins it. The first `warmup` steps of a block see everything, the others the block and what was kept, at the original
positions. Each block chooses anew from the whole cache.

Notable choices
- Our prefix cache is exact and holds finished blocks only, so "rebuilding" it for the next block costs nothing.
- The released code sets pinned importances to infinity *before* it divides by the mean norm. The mean is then infinite, every
  other norm turns into 0, and only confidence ranks. `pin_slip` repeats that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..model import KVCache


def importance(norms: Tensor, confidence: Tensor, pinned: Tensor, alpha: float, pin_slip: bool = False) -> Tensor:
    """How much each prefix token matters, `[R, T]`; infinite where `pinned` (bool `[R, T]`)."""
    if pin_slip:
        norms = norms.masked_fill(pinned, math.inf)
    relative = norms / norms.mean(1, keepdim=True)  # ∞ / ∞ where pinned, which the last line overwrites
    return (alpha * relative + (1 - alpha) * confidence).masked_fill(pinned, math.inf)


def keep_mask(score: Tensor, image: Tensor, real: Tensor, keep_text: float, keep_image: float) -> Tensor:
    """Which tokens stay, bool `[R, T]`: of the `real` ones of each modality the best, ceil(fraction · count) of them."""
    kept = torch.zeros_like(real)
    for members, fraction in ((real & ~image, keep_text), (real & image, keep_image)):
        rank = score.masked_fill(~members, -math.inf).argsort(dim=1, descending=True, stable=True).argsort(1)
        kept |= members & (rank < (min(fraction, 1.0) * members.sum(1, keepdim=True) - 1e-6).ceil())
    return kept


@dataclass
class Sprint:
    """Settings, and what is known about the prefix while a generation runs. `is_image` bool `[V]` tells the modalities apart."""

    is_image: Tensor
    keep_text: float = 1.0
    keep_image: float = 0.8
    alpha: float = 0.5
    warmup: int = 1
    pin_slip: bool = False
    cache: KVCache | None = field(default=None, init=False)
    hidden: Tensor | None = field(default=None, init=False)  # [R, kept]: gathered only to make rows equally long
    image: Tensor | None = field(default=None, init=False)
    confidence: Tensor | None = field(default=None, init=False)

    def __post_init__(self):
        for name, value in (("text", self.keep_text), ("image", self.keep_image)):
            if not 0 < value <= 1:
                raise ValueError(f"the share of {name} tokens to keep must lie in (0, 1], got {value}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {self.alpha}")
        if self.warmup < 1:
            raise ValueError(f"the first step of a block fills the cache, so warmup must be at least 1, got {self.warmup}")

    def begin(self, rows: int, device: torch.device) -> None:
        """Forget the last generation."""
        self.cache, self.hidden = None, None
        self.image = torch.zeros(rows, 0, dtype=torch.bool, device=device)
        self.confidence = torch.zeros(rows, 0, device=device)

    def remember(self, logits: Tensor, ids: Tensor) -> None:
        """Note confidence and modality of tokens `[R, n]` that have just joined the prefix, from their logits `[R, n, V]`."""
        self.confidence = torch.cat([self.confidence, logits.softmax(-1).amax(-1)], 1)
        self.image = torch.cat([self.image, self.is_image.to(ids.device)[ids]], 1)

    def prune(self, full: KVCache, padding: Tensor) -> None:
        """Choose what to keep of the cache `full`; the first `padding` `[R, 1]` tokens of a row are none."""
        layers = [full.stored(layer) for layer in range(len(full.lengths))]
        norms = torch.stack([key.float().norm(dim=-1).mean(1) for key, _ in layers]).mean(0)
        real = torch.arange(norms.shape[1], device=norms.device) >= padding
        pinned = torch.where(self.image, self.keep_image >= 1, self.keep_text >= 1)
        kept = keep_mask(
            importance(norms, self.confidence, pinned, self.alpha, self.pin_slip), self.image, real, self.keep_text, self.keep_image
        )
        width = int(kept.sum(1).max()) if kept.numel() else 0
        index = kept.int().argsort(dim=1, descending=True, stable=True)[:, :width]
        self.hidden = ~kept.gather(1, index)
        self.cache = KVCache(len(layers))
        for layer, pair in enumerate(layers):
            chosen = [x.gather(2, index[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])) for x in pair]
            self.cache.extend(layer, *chosen, keep=width)

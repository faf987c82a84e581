"""SPRINT: decode from a prefix cache that keeps only the important tokens, without training.

(LLaDA2.0-Uni, arXiv 2604.20796.) Shapes: R rows, those of all guidance branches together, with T
prefix tokens. Importance of prefix token i:

    α ‖k_i‖ / mean ‖k‖ + (1 − α) conf_i

where ‖k_i‖ is averaged over the heads of a layer, and conf_i is the probability of the model's best
guess at that position. So each layer chooses for itself, as in the released code; the paper does
not say. Each modality keeps its own fraction of its tokens. The first `warmup` steps of a block see
everything; the others see the block and what was kept, at the original positions.

Notable choices
- Our prefix cache is exact and holds finished blocks only, so each block chooses anew from all of
  it, at no cost.
- The released code keeps one fraction (0.7) of all tokens, pinned ones first: by default all text.
- A modality with fraction 1 is pinned: its importance is infinite. The released code sets infinity
  in place of the norm, *before* it takes the mean. The mean is then infinite, every other norm
  turns into 0, and only the confidence ranks. `pin_slip` repeats that.
- The spine knows nothing of this file: `sampler.generate(..., cache=Sprint(...))`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..model import KVCache


def importance(
    norms: Tensor,
    confidence: Tensor,
    pinned: Tensor,
    alpha: float,
    pin_slip: bool = False,
    real: Tensor | None = None,
) -> Tensor:
    """How much each prefix token matters, `[R, T]`; infinite where `pinned` (bool `[R, T]`).

    Only the `real` places (bool `[R, T]`; None: all) count in the mean norm, padding does not.
    """
    if real is None:
        real = torch.ones_like(pinned)
    if pin_slip:
        norms = norms.masked_fill(pinned, math.inf)
    mean = norms.masked_fill(~real, 0).sum(1, keepdim=True) / real.sum(1, keepdim=True)  # [R, 1]
    # After the slip ∞ / ∞ is NaN at pinned tokens; the last line overwrites it.
    score = alpha * norms / mean + (1 - alpha) * confidence
    return score.masked_fill(pinned, math.inf)


def keep_mask(
    score: Tensor, image: Tensor, real: Tensor, keep_text: float, keep_image: float
) -> Tensor:
    """Which tokens stay, bool `[R, T]`: ceil(fraction · count) of each modality, the best.

    `image` tells images from text, `real` tells tokens from padding.
    """
    kept = torch.zeros_like(real)
    for members, fraction in ((real & ~image, keep_text), (real & image, keep_image)):
        ordered = score.masked_fill(~members, -math.inf)
        # `argsort` twice gives the ranks (`commit.choose_commits` says why).
        rank = ordered.argsort(dim=1, descending=True, stable=True).argsort(1)
        # 0.28 · 25 is rounded to a little more than 7, so `ceil` would give 8 without the margin.
        # Errors of Python's 64-bit numbers are below it; not every device has such numbers.
        counts = [math.ceil(fraction * n - 1e-6) for n in members.sum(1).tolist()]
        kept |= members & (rank < torch.tensor(counts, device=rank.device)[:, None])
    return kept


@dataclass
class Sprint:
    """Settings, and what is known about the prefix of R rows while a generation runs.

    `is_image` bool `[V]` says which ids are image codes. `ValueError` for settings out of range.
    """

    is_image: Tensor
    keep_text: float = 1.0  # share of the text tokens that stay
    keep_image: float = 0.8  # the same for image codes
    alpha: float = 0.5  # how much norms count, and not confidence
    warmup: int = 1  # first steps of a block, which see everything
    pin_slip: bool = False  # repeat the slip of the released code
    image: Tensor = field(init=False)  # bool [R, T]
    confidence: Tensor = field(init=False)  # [R, T]

    def __post_init__(self) -> None:
        for name, share in (("text", self.keep_text), ("image", self.keep_image)):
            if not 0 < share <= 1:
                raise ValueError(f"share of {name} tokens to keep must lie in (0, 1], got {share}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {self.alpha}")
        if self.warmup < 1:
            what = "warmup must be at least 1, because the first step of a block fills the cache"
            raise ValueError(f"{what}; got {self.warmup}")

    def begin(self, rows: int, device: torch.device) -> None:
        """Forget the last generation."""
        self.image = torch.zeros(rows, 0, dtype=torch.bool, device=device)
        self.confidence = torch.zeros(rows, 0, device=device)

    def remember(self, logits: Tensor, ids: Tensor) -> None:
        """Note confidence and modality of tokens `[R, n]` that have joined the prefix."""
        self.confidence = torch.cat([self.confidence, logits.softmax(-1).amax(-1)], 1)
        self.image = torch.cat([self.image, self.is_image.to(ids.device)[ids]], 1)

    def prune(self, full: KVCache, padding: Tensor) -> tuple[KVCache, Tensor]:
        """A shorter cache, and its places that hold no token (bool `[R, kept]`, for all layers).

        The first `padding` `[R, 1]` places of a row of the cache `full` are no tokens.
        """
        short = KVCache(len(full.lengths))
        real = torch.arange(self.image.shape[1], device=padding.device) >= padding  # [R, T]
        pinned = torch.where(self.image, self.keep_image >= 1, self.keep_text >= 1)
        hidden = real[:, :0]  # as long as there is no prefix
        for layer in range(len(full.lengths) if real.numel() else 0):
            # 1. The importance of every place: [R, T].
            key, value = full.stored(layer)  # [R, h, T, d]
            norms = key.float().norm(dim=-1).mean(1)
            score = importance(norms, self.confidence, pinned, self.alpha, self.pin_slip, real)
            kept = keep_mask(score, self.image, real, self.keep_text, self.keep_image)

            # 2. Gather what is kept. Rows that keep fewer take along places that are then hidden:
            # the last ones, in each layer alike, because every layer keeps equally many.
            width = int(kept.sum(1).max())
            index = kept.int().argsort(dim=1, descending=True, stable=True)[:, :width]  # [R, width]
            places = index[:, None, :, None].expand(-1, key.shape[1], -1, key.shape[3])
            short.extend(layer, key.gather(2, places), value.gather(2, places), keep=width)
            hidden = ~kept.gather(1, index)
        return short, hidden

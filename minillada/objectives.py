"""How the nats of masked tokens are weighed."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def right_entropy(logits: Tensor, answers: Tensor) -> Tensor:
    """Mean entropy, in nats, of the predictions `[N, V]` whose likeliest token is the answer `[N]`; 0 if there are none.

    The confidence-aware (CAP) term of LLaDA2.0: it sharpens what is right already, and leaves wrong predictions alone.
    """
    log_p = logits[logits.argmax(-1) == answers].log_softmax(-1)
    return -(log_p.exp() * log_p).sum() / max(len(log_p), 1)


def weigh_bound(masked: Tensor, targets: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    """1/t over the number of targets: with t uniform on [0, 1] a bound on −log p (LLaDA2.0, section 2)."""
    return 1 / rates, targets.sum()


def weigh_count(masked: Tensor, targets: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    """(m+1)/n for n masked of m targets: what 1/t is on average, once the mask is known and t, uniform on [0, 1], is not.

    t given n is Beta(n+1, m−n+1), whose mean of 1/t is (m+1)/n: the same expectation as `bound`, never a larger variance.
    """
    return (targets.sum(-1, keepdim=True) + 1) / masked.sum(-1, keepdim=True), targets.sum()


def weigh_uniform(masked: Tensor, targets: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    """The plain mean over masked tokens of the batch, as in the released trainer; bounds nothing."""
    return torch.ones_like(rates), masked.sum()


def weigh_reweighted(masked: Tensor, targets: Tensor, rates: Tensor) -> tuple[Tensor, Tensor]:
    """Σ β_j L_j / Σ β_j with β_j = 1/√n_j (LLaDA2.0-Uni), n_j the number of masked tokens of sample j.

    We read L_j as the *mean* over the n_j masked tokens of the sample, so a token counts β_j / n_j. The paper's formula
    does not say whether L_j is a mean or a sum.
    """
    n = masked.sum((1, 2), keepdim=True)
    return n**-1.5, (n[n > 0] ** -0.5).sum()


# name -> function(masked [B, L/L_B, L_B], targets [B, L/L_B, L_B], rates [B, L/L_B, 1]) -> (weight of a masked token,
# broadcastable to [B, L/L_B, L_B]; total). The loss is Σ weight · nats / total.
OBJECTIVES: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "bound": weigh_bound,
    "count": weigh_count,
    "uniform": weigh_uniform,
    "reweighted": weigh_reweighted,
}


def check_objective(
    objective: str,
    per: str,
    complementary: bool,
    mask_rate: tuple[float, float],
    confidence_weight: float,
    views: int,
    packed: bool,
    edit_noise: float = 0.0,
    text_weight: float = 1.0,
) -> None:
    """`ValueError` unless the settings of `block_diffusion_loss` name a loss that can be trained on."""
    low, high = mask_rate
    rules = [
        (objective in OBJECTIVES, f"unknown objective {objective!r}; choose one of {', '.join(OBJECTIVES)}"),
        (per in ("block", "sequence"), f"mask rates are drawn per 'block' or per 'sequence', not per {per!r}"),
        (0 <= low <= high <= 1, f"mask rates from {low} to {high} are no interval of probabilities; use 0 <= low <= high <= 1"),
        (high > 0, "a mask rate that is always 0 asks nothing; raise the second number of mask_rate"),
        (
            not (complementary and low == 1),
            "at mask rate 1 the complement masks nothing; lower the first number of mask_rate or turn complementary off",
        ),
        (confidence_weight >= 0, f"a confidence weight of {confidence_weight} would reward doubt; use 0 or more"),
        (views >= 1, f"{views} noisy views leave nothing to learn from; use 1 or more"),
        (
            not (packed and (per == "sequence" or objective == "reweighted")),
            "one rate or one weight a sequence needs one sequence a row; do not pack, or use mask_rate_per=block and another objective",
        ),
        (0 <= edit_noise <= 1, f"edit_noise is the share of visible tokens that are replaced; use 0 to 1, not {edit_noise}"),
        (0 < text_weight < math.inf, f"the weight of text tokens must be positive and finite, got {text_weight}"),
    ]
    for good, sentence in rules:
        if not good:
            raise ValueError(sentence)

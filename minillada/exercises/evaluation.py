"""exercises.evaluation"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..exercises.checking import attempt, same


def check_wilson(function: Callable) -> bool:
    """Notebook 12: `function(successes, n) -> (low, high)`, the 95 % Wilson interval of a fraction."""
    for successes, n in ((0, 20), (7, 10), (990, 1000), (50, 50)):
        p, z = torch.tensor(successes / n), 1.96
        spread = z * (p * (1 - p) / n + z**2 / (4 * n**2)).sqrt()
        plain = z * (p * (1 - p) / n).sqrt()
        centre, shrink, ends = p + z**2 / (2 * n), 1 + z**2 / n, torch.tensor([-1.0, 1.0])
        hints = {
            "that is the textbook interval p ± z √(p(1−p)/n); its width is 0 at 0 % and 100 %": p + ends * plain,
            "the width is right, but the centre is (p + z²/2n) / (1 + z²/n), not p": p + ends * spread / shrink,
            "both ends must be divided by 1 + z²/n": centre + ends * spread,
        }
        result = attempt(function, successes, n)
        if result is None or not same(result, (centre + ends * spread) / shrink, hints):
            return False
    print("correct: it never leaves [0, 1] and is never of width 0")
    return True


def check_frechet_diagonal(function: Callable) -> bool:
    """Notebook 12: `function(mean_a, var_a, mean_b, var_b) -> float`, each `[D]`, for Gaussians with independent dimensions."""
    generator = torch.Generator().manual_seed(12)
    for size in (1, 3, 8):
        a, b = torch.randn(2, size, generator=generator)
        u, v = torch.rand(2, size, generator=generator) * 3
        means, spreads = (a - b).square().sum(), (u.sqrt() - v.sqrt()).square().sum()
        hints = {
            "compare standard deviations, not variances: take the roots first": means + (u - v).square().sum(),
            "the means are compared, the spreads are not": means,
            "the spreads are compared, the means are not": spreads,
            "no root at the end: the Fréchet distance in use is the squared one": (means + spreads).sqrt(),
        }
        result = attempt(function, a, u, b, v)
        if result is None or not same(result, means + spreads, hints):
            return False
    print("correct: without correlations it is the squared distance of means and of standard deviations")
    return True


def check_bits_per_token(function: Callable) -> bool:
    """Notebook 12: `function(nats [B, L], real bool [B, L]) -> [B]`, bits per token of every sequence.

    `nats` holds −log p at every target, padding included, and 0 in the prompt; `real` marks the targets that are no padding.
    """
    position = torch.arange(12)
    real = (position >= 4) & (position < torch.tensor([12, 9, 6])[:, None])
    nats = 3 * torch.rand(3, 12, generator=torch.Generator().manual_seed(14)) * (position >= 4)
    total, count, ln2 = nats.sum(1), real.sum(1), math.log(2)
    hints = {
        "those are nats per token; a bit is ln 2 nats, so divide by ln 2": total / count,
        "a nat is more than a bit: divide by ln 2 instead of multiplying": total * ln2 / count,
        "the padding is predicted too, and its cost is part of what the sequence costs": (nats * real).sum(1) / ln2 / count,
        "divide by the tokens that carry something, not by all positions": total / ln2 / nats.shape[1],
        "those are bits per sequence; divide by its real tokens": total / ln2,
    }
    result = attempt(function, nats, real)
    if result is None or not same(result, total / ln2 / count, hints):
        return False
    print("correct: this is the unit of evaluate.likelihood")
    return True

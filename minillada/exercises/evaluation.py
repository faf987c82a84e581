"""Exercises of notebook 12, evaluation."""

import math

import torch

from ..exercises.checking import Case, Cases, exercise


@exercise("correct: it never leaves [0, 1], and its width is never 0")
def check_wilson() -> Cases:
    """`function(successes, n) -> (low, high)`: the 95 % Wilson interval of a fraction."""
    z, ends = 1.96, torch.tensor([-1.0, 1.0])
    for successes, n in ((0, 20), (7, 10), (990, 1000), (50, 50)):
        p = successes / n
        spread = ends * z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        plain = ends * z * math.sqrt(p * (1 - p) / n)
        centre, shrink = p + z**2 / (2 * n), 1 + z**2 / n
        mistakes = {
            "that is p ± z √(p(1−p)/n) of the textbooks; its width is 0 at 0 and 100 %": p + plain,
            "the width is right, but the centre is (p + z²/2n) / (1 + z²/n)": p + spread / shrink,
            "both ends must be divided by 1 + z²/n": centre + spread,
        }
        yield Case((successes, n), (centre + spread) / shrink, mistakes)


@exercise("correct: squared distance of the means plus that of the standard deviations")
def check_frechet_diagonal() -> Cases:
    """`function(mean_a, var_a, mean_b, var_b) -> float`: all `[D]`, independent dimensions."""
    generator = torch.Generator().manual_seed(12)
    for size in (1, 3, 8):
        a, b = torch.randn(2, size, generator=generator)
        u, v = torch.rand(2, size, generator=generator) * 3
        means, spreads = (a - b).square().sum(), (u.sqrt() - v.sqrt()).square().sum()
        of_variances = means + (u - v).square().sum()
        mistakes = {
            "compare standard deviations, not variances: take the roots first": of_variances,
            "the means are compared, the spreads are not": means,
            "the spreads are compared, the means are not": spreads,
            "no root at the end: the distance in use is the squared one": (means + spreads).sqrt(),
        }
        yield Case((a, u, b, v), means + spreads, mistakes)


@exercise("correct: this is the unit of likelihood.likelihood")
def check_bits_per_token() -> Cases:
    """`function(nats [B, L], real bool [B, L]) -> [B]`: bits per token of every sequence.

    `nats` holds −log p of all targets, padding included, and 0 in the prompt; `real` marks the
    targets that are no padding.
    """
    position = torch.arange(12)
    real = (position >= 4) & (position < torch.tensor([12, 9, 6])[:, None])
    generator = torch.Generator().manual_seed(14)
    nats = 3 * torch.rand(3, 12, generator=generator) * (position >= 4)
    total, count, ln2 = nats.sum(1), real.sum(1), math.log(2)
    real_nats = (nats * real).sum(1)
    mistakes = {
        "those are nats per token; a bit is ln 2 nats, so divide by ln 2": total / count,
        "a nat is more than a bit: divide by ln 2 instead of multiplying": total * ln2 / count,
        "padding is predicted too, and its nats are part of the cost": real_nats / ln2 / count,
        "divide by the real tokens, not by all positions": total / ln2 / nats.shape[1],
        "those are bits per sequence; divide by its real tokens": total / ln2,
    }
    yield Case((nats, real), total / ln2 / count, mistakes)

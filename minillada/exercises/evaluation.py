"""Exercises of notebook 12, evaluation."""

import math

import torch

from .checking import Case, Cases, Chance, exercise


@exercise("correct: it never leaves [0, 1], and its width is never 0")
def check_wilson(chance: Chance) -> Cases:
    """`function(successes, n) -> (low, high)`: the 95 % Wilson interval of a fraction."""
    z, ends = 1.96, torch.tensor([-1.0, 1.0])
    size = chance.whole(30, 500)
    random = size - chance.whole(1, 20), size
    for successes, n in ((0, 20), (7, 10), (990, 1000), (50, 50), random):
        p = successes / n
        spread = ends * z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        plain = ends * z * math.sqrt(p * (1 - p) / n)
        centre, shrink = p + z**2 / (2 * n), 1 + z**2 / n
        mistakes = {
            "that is p ± z √(p(1−p)/n) of the textbooks; its width is 0 at 0 and 100 %": p + plain,
            "the width is right, but the centre is (p + z²/2n) / (1 + z²/n)": p + spread / shrink,
            "both ends must be divided by 1 + z²/n": centre + spread,
            "half of the width is divided by 1 + z²/n, too": centre / shrink + spread,
            "before the division, the centre is p + z²/2n": (p + spread) / shrink,
            "the lower end comes first": (centre - spread) / shrink,
            "shares lie between 0 and 1; these are percent": 100 * (centre + spread) / shrink,
            "that is z = 2.58, of 99 %; here it is 95 %": interval(successes, n, 2.58),
            "that is the fraction itself; return both ends of its interval": p,
        }
        yield Case((successes, n), (centre + spread) / shrink, mistakes)


@exercise("correct: squared distance of the means plus that of the standard deviations")
def check_frechet_diagonal(chance: Chance) -> Cases:
    """`function(mean_a, var_a, mean_b, var_b) -> float`: all `[D]`, independent dimensions."""
    generator = chance.generator(12)
    for size in (1, 3, 8):
        a, b = torch.randn(2, size, generator=generator)
        u, v = torch.rand(2, size, generator=generator) * 3
        means, spreads = (a - b).square().sum(), (u.sqrt() - v.sqrt()).square().sum()
        of_variances = means + (u - v).square().sum()
        mistakes = {
            "compare standard deviations, not variances: take the roots first": of_variances,
            "the means are compared, the spreads are not": means,
            "the spreads are compared, the means are not": spreads,
            "no root at the end: the distance asked for is d²": (means + spreads).sqrt(),
            "add up over the features; that is their mean": (means + spreads) / size,
            "twice the root of the product is subtracted": spreads + means + (u * v).sqrt().sum(),
        }
        yield Case((a, u, b, v), means + spreads, mistakes)


@exercise("correct: this is the unit of likelihood.likelihood")
def check_bits_per_token(chance: Chance) -> Cases:
    """`function(nats [B, L], real bool [B, L]) -> [B]`: bits per token of every sequence.

    `nats` holds −log p of all targets, padding included, and 0 in the prompt; `real` marks the
    targets that are no padding.
    """
    position = torch.arange(12)
    real = (position >= 4) & (position < torch.tensor([12, 9, 6])[:, None])
    generator = chance.generator(14)
    nats = 3 * torch.rand(3, 12, generator=generator) * (position >= 4)
    total, count, ln2 = nats.sum(1), real.sum(1), math.log(2)
    real_nats = (nats * real).sum(1)
    mistakes = {
        "those are nats per token; a bit is ln 2 nats, so divide by ln 2": total / count,
        "a nat is more than a bit: divide by ln 2 instead of multiplying": total * ln2 / count,
        "padding is predicted too, and its nats are part of the cost": real_nats / ln2 / count,
        "divide by the real tokens, not by all positions": total / ln2 / nats.shape[1],
        "those are bits per sequence; divide by its real tokens": total / ln2,
        "that is one number for all; each sequence has its own": total.sum() / ln2 / count.sum(),
    }
    yield Case((nats, real), total / ln2 / count, mistakes)


def newcombe(a: tuple[float, float, float], b: tuple[float, float, float]) -> list[float]:
    """Ends of the interval of p_b − p_a, from (p, low, high) of each."""
    low = b[0] - a[0] - math.hypot(b[0] - b[1], a[2] - a[0])
    high = b[0] - a[0] + math.hypot(b[2] - b[0], a[0] - a[1])
    return [low, high]


@exercise("correct: and only where 0 lies outside may you claim a difference")
def check_difference(chance: Chance) -> Cases:
    """`function(successes_a, successes_b, n) -> (low, high)`: 95 % interval of p_b − p_a.

    Newcombe: with the observed share p̂ and Wilson's interval (l, u) of each, it reaches from
    p̂_b − p̂_a down by √((p̂_b − l_b)² + (u_a − p̂_a)²) and up by √((u_b − p̂_b)² + (p̂_a − l_a)²).
    """
    size = chance.whole(100, 900)
    random = size - 40, size - chance.whole(5, 30), size
    for a, b, n in ((540, 560, 600), (20, 35, 50), (45, 40, 50), random):
        first, second = ((k / n, *interval(k, n)) for k in (a, b))
        centre = second[0] - first[0]
        up = math.hypot(second[2] - second[0], first[0] - first[1])
        plain = 1.96 * math.sqrt(sum(p * (1 - p) / n for p in (first[0], second[0])))
        mistakes = {
            "the difference is p_b − p_a": newcombe(second, first),
            "where a is ahead, the difference is negative": (
                newcombe(*sorted((first, second), key=lambda ends: ends[0]))
            ),
            "with the lower end of b goes the upper end of a, and the other way round": (
                newcombe((first[0], first[2], first[1]), second)
            ),
            "distances add up in squares: the root of their sum": [
                second[1] - first[2],
                second[2] - first[1],
            ],
            "that is the textbook's interval; take the ends of Wilson's": [
                centre - plain,
                centre + plain,
            ],
            "downwards, take the lower end of b and the upper end of a": [centre - up, centre + up],
            "that is the interval of b alone": list(second[1:]),
            "that is the difference alone; return both ends of its interval": centre,
        }
        yield Case((a, b, n), newcombe(first, second), mistakes)


def interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval."""
    p, shrink = successes / n, 1 + z**2 / n
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (p + z**2 / (2 * n) - half) / shrink, (p + z**2 / (2 * n) + half) / shrink

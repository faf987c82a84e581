"""Confidence intervals."""

from __future__ import annotations

import math

from torch import Tensor


def wilson_ci95(successes: float, n: int) -> float:
    """Half-width of the Wilson score interval of a fraction; unlike the textbook one it is not 0 at 0 % or 100 %."""
    z, p = 1.96, successes / n
    return z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))


def fraction(name: str, hits: Tensor) -> dict:
    """`{name, name_ci95, name_n}` of a boolean tensor."""
    n, right = hits.numel(), float(hits.sum())
    return {name: right / n, f"{name}_ci95": wilson_ci95(right, n), f"{name}_n": n}


def mean_ci95(values: Tensor) -> tuple[float, float]:
    """Mean of `[N]` and the half-width of its 95 % interval."""
    return float(values.mean()), float(1.96 * values.std() / math.sqrt(len(values)))

"""How sure a number is: both ends of 95 % intervals, for shares and for means.

Notable choices
- A share has Wilson's interval. Its ends stay in [0, 1], and its width is not 0 at 0 % or 100 %.
- A mean has Student's interval, which is wider than the normal one when there are few values.
- `interval_of` reads a number back from a report, and old reports, which hold half-widths, as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

Z = 1.96  # 95 % of a normal distribution lie within so many standard deviations

# The same for Student's distribution with 1 to 8 degrees of freedom.
STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306)


class Interval(NamedTuple):
    """A measured value, both ends of its 95 % interval, and how many samples it comes from."""

    value: float
    low: float
    high: float
    n: int = 0  # 0 where a record does not say it

    @property
    def half(self) -> float:
        """Half of the width: the part after ±, where the interval is symmetric."""
        return (self.high - self.low) / 2

    def entries(self, name: str) -> dict:
        """`{name, name_low, name_high, name_n}`, as a report holds it."""
        ends = {f"{name}_low": self.low, f"{name}_high": self.high}
        return {name: self.value, **ends, f"{name}_n": self.n}

    def percent(self, digits: int = 2) -> str:
        """`99.30 % (98.6 to 99.7, n = 1,000)`"""
        ends = f"{100 * self.low:.1f} to {100 * self.high:.1f}"
        return f"{100 * self.value:.{digits}f} % ({ends}, n = {self.n:,})"


def wilson(successes: float, n: int) -> tuple[float, float]:
    """Both ends of the 95 % interval of a share (Wilson 1927): all p with |p̂ − p| ≤ z √(p(1−p)/n).

    Here p̂ is successes / n. `ValueError` without samples, or for more successes than samples.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes:g} successes of {n} samples are no share; count again")
    observed = successes / n
    shrink = 1 + Z**2 / n
    centre = (observed + Z**2 / (2 * n)) / shrink
    half = Z / shrink * math.sqrt(observed * (1 - observed) / n + Z**2 / (4 * n**2))
    # At 0 % and 100 % one end is the share itself; rounding must not move it past.
    return max(min(centre - half, observed), 0.0), min(max(centre + half, observed), 1.0)


def share(successes: float, n: int) -> Interval:
    """`successes` of `n` with Wilson's interval."""
    return Interval(successes / max(n, 1), *wilson(successes, n), n)


def fraction(name: str, hits: Tensor) -> dict:
    """`{name, name_low, name_high, name_n}` of a boolean tensor."""
    return share(float(hits.sum()), hits.numel()).entries(name)


def student_t(freedom: int) -> float:
    """How many standard errors reach to the end of a mean's 95 % interval: `freedom` is n − 1."""
    if freedom <= len(STUDENT_T):
        return STUDENT_T[freedom - 1]
    # The normal value and its first two corrections (Abramowitz & Stegun, 26.7.5).
    first = (Z**3 + Z) / (4 * freedom)
    second = (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
    return Z + first + second


def mean_interval(values: Tensor) -> Interval:
    """The mean of `[N]` with Student's interval. `ValueError` for fewer than 2 values."""
    n = values.numel()
    if n < 2:
        raise ValueError(f"an interval needs at least 2 values, got {n}; measure more")
    mean = float(values.double().mean())
    half = student_t(n - 1) * float(values.double().std()) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def next_interval(values: Tensor) -> Interval:
    """The mean of `[N]`, and where the next value lies in 95 % of cases: wider than the mean's.

    A new value has its own scatter besides that of the mean. `ValueError` for fewer than 2 values.
    """
    mean, low, _, n = mean_interval(values)
    half = (mean - low) * math.sqrt(n + 1)  # t s √(1 + 1/n), from t s / √n
    return Interval(mean, mean - half, mean + half, n)


def interval_of(report: Mapping, name: str) -> Interval:
    """A number of a report with its interval; both ends are computed where half-widths are stored.

    The fields beside `name` are called `name_low` and so on, or just `low` and so on.
    """

    def field(part: str) -> float | None:
        return report.get(f"{name}_{part}", report.get(part))

    value, low, high, n = report[name], field("low"), field("high"), field("n")
    half = field("ci95")
    if low is not None and high is not None:
        return Interval(value, low, high, int(n or 0))
    # In old reports only shares have a half-width and a count. The count gives Wilson's ends.
    if half is not None and n is not None:
        return share(round(value * n), int(n))
    return Interval(value, value - (half or 0.0), value + (half or 0.0))

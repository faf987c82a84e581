"""Numbers as words, pairs of numbers to be added, and sums counted on one's fingers.

Notable choices
- A thought counts on by ones, as on one's fingers. Every step is easy, and a pair of numbers that
  was never seen in training needs no new kind of step.
- The sums of some pairs (`HELD_OUT`) are never drawn or thought in training. They show whether a
  model adds or remembers. (`arithmetic`, an image and a word answered in a word, has all pairs.)
"""

from __future__ import annotations

from ..datasets.grammar import article
from ..datasets.mnist import DIGITS

TWO_FIGURES = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"
NUMBERS = (*DIGITS, *TWO_FIGURES.split())  # up to nine plus nine

# Unordered pairs of numbers whose sums a run neither draws nor thinks: as many of them as its
# `held_out` says, from the left. Every sum keeps other pairs, and every number other partners.
HELD_OUT = ((0, 5), (1, 6), (2, 4), (1, 3), (2, 3), (3, 4), (2, 6), (3, 5), (4, 5))

# Pairs whose sum can be drawn as one digit; pairs whose sum has a name, to count on by 0 to 9.
SUMS = [(a, b) for a in range(10) for b in range(10 - a)]
COUNTED = [(a, b) for a in range(len(NUMBERS)) for b in range(10) if a + b < len(NUMBERS)]


def is_held_out(a: int, b: int, held_out: int) -> bool:
    """Whether a and b, in any order, are one of the first `held_out` pairs of `HELD_OUT`."""
    return (min(a, b), max(a, b)) in HELD_OUT[:held_out]


def trained_pairs(pairs: list[tuple[int, int]], held_out: int) -> list[tuple[int, int]]:
    """The pairs without those that are held out."""
    return [(a, b) for a, b in pairs if not is_held_out(a, b, held_out)]


# Never drawn or thought by a run that holds out all of `HELD_OUT`, as `mnist-uni` does.
UNSEEN_SUMS = [(a, b) for a, b in SUMS if is_held_out(a, b, len(HELD_OUT))]


def least_held_out(info: dict) -> int:
    """The smallest `held_out` of a model's JSON and of the runs that it went on from.

    Runs of older versions, which do not say it, knew no sums: they hold out all.
    """
    least = len(HELD_OUT)
    while isinstance(info, dict) and "training" in info:
        least = min(least, info["training"].get("data", {}).get("held_out", least))
        info = info.get("start", {})  # the run before, as in `asking.check_learned`
    return least


def counting_trace(a: int, b: int) -> str:
    """a + b on one's fingers.

    3 + 2 is `three, two left; four, one left; five, zero left; a five`. Every step says all that
    the next one needs, also when to stop, so nothing about the pair has to be remembered.
    """
    steps = []
    for n in range(b + 1):
        steps.append(f"{NUMBERS[a + n]}, {NUMBERS[b - n]} left")
    steps.append(article(NUMBERS[a + b]))
    return "; ".join(steps)

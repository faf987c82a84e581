"""Numbers as words, and sums counted on one's fingers."""

from __future__ import annotations

from ..datasets.mnist import DIGITS

NUMBERS = (*DIGITS, "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen")


# Unordered pairs of numbers whose sums a run does not train, as many of them as its `held_out` says, from the left. Every sum keeps
# other pairs and every number other partners.
HELD_OUT = ((0, 5), (1, 6), (2, 4), (1, 3), (2, 3), (3, 4), (2, 6), (3, 5), (4, 5))


SUMS = [(a, b) for a in range(10) for b in range(10 - a)]  # whose result can be drawn as one digit


COUNTED = [(a, b) for a in range(len(NUMBERS)) for b in range(10) if a + b < len(NUMBERS)]  # whose result has a name


def counting_trace(a: int, b: int) -> str:
    """a + b on one's fingers: `three, two left; four, one left; five, zero left; a five` for 3 + 2.

    Every step says all that the next one needs, also when to stop, so nothing about the pair as a whole has to be remembered.
    """
    steps = [f"{NUMBERS[a + n]}, {NUMBERS[b - n]} left" for n in range(b + 1)]
    return "; ".join([*steps, article(NUMBERS[a + b])])


def is_held_out(a: int, b: int, held_out: int) -> bool:
    """Whether a + b is a sum of the first `held_out` pairs of `HELD_OUT`, in either order."""
    return (min(a, b), max(a, b)) in HELD_OUT[:held_out]


def article(word: str) -> str:
    """`a seven`, `an eight`, `an eleven`"""
    return f"an {word}" if word[0] == "e" else f"a {word}"

"""Task: which of two digits is larger?"""

from __future__ import annotations

from .base import Example, Picture, Source

COMPARE = ("which of the two is larger?", "which digit is larger, the first or the second?")
COMPARE_ANSWERS = ("the first", "the second", "neither")


def make_compare(source: Source) -> Example:
    """Two images; the digit of one is larger, or neither."""
    pool, rng = source.pool, source.rng
    # Each digit is as likely as any other; in MNIST itself, ones are the most frequent.
    a = pool.pick(rng, digit=source.some_digit())
    b = pool.pick(rng, digit=source.some_digit())
    first, second = pool.columns["digit"][a], pool.columns["digit"][b]
    if first > second:
        answer = COMPARE_ANSWERS[0]
    elif first < second:
        answer = COMPARE_ANSWERS[1]
    else:
        answer = COMPARE_ANSWERS[2]
    return Example("describe", [Picture(a), Picture(b), source.wording(COMPARE)], [answer])

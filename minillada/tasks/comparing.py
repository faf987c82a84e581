"""Tasks: which of two digits is larger, and which of two photos is brighter?"""

from __future__ import annotations

from .base import Example, Picture, Source
from .wordings import Wordings

COMPARE = Wordings(
    ("which of the two is larger?", "which digit is larger, the first or the second?"),
    more=(
        "which is larger?",
        "which one is larger?",
        "which digit is bigger?",
        "which of the two digits is bigger?",
        "which number is greater?",
        "which of them is the larger one?",
        "is the first or the second larger?",
        "which one is greater, the first or the second?",
        "say which of the two is larger.",
    ),
    new=(
        "which of the two numbers is larger?",
        "which one is bigger, the first or the second?",
        "is the first digit larger, or the second?",
        "find the larger of the two.",
    ),
)
COMPARE_ANSWERS = ("the first", "the second", "neither")
BRIGHTER = Wordings(
    ("which of the two is brighter?", "which photo is brighter, the first or the second?")
)
LEAST_DIFFERENCE = 0.1  # of mean luma; a smaller one is hard to see


def make_compare(source: Source) -> Example:
    """Two images; the digit of one is larger, or neither."""
    pool, rng = source.pool, source.rng
    # Each digit is as likely as any other; in MNIST itself, ones are the most frequent.
    a = pool.pick(rng, digit=source.some_label())
    b = pool.pick(rng, digit=source.some_label())
    first, second = pool.columns["digit"][a], pool.columns["digit"][b]
    if first > second:
        answer = COMPARE_ANSWERS[0]
    elif first < second:
        answer = COMPARE_ANSWERS[1]
    else:
        answer = COMPARE_ANSWERS[2]
    return Example("describe", [Picture(a), Picture(b), source.wording(COMPARE)], [answer])


def make_brighter(source: Source) -> Example:
    """Two photos, one of which is clearly brighter."""
    pool, rng = source.pool, source.rng
    luma = pool.measures["luma"]
    a, b = pool.pick(rng), pool.pick(rng)
    # More than half of all random pairs differ by so much.
    while abs(luma[a] - luma[b]) < LEAST_DIFFERENCE:
        a, b = pool.pick(rng), pool.pick(rng)
    answer = COMPARE_ANSWERS[0] if luma[a] > luma[b] else COMPARE_ANSWERS[1]
    return Example("describe", [Picture(a), Picture(b), source.wording(BRIGHTER)], [answer])

"""Tasks: describe an image, answer questions about one or two."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..datasets import captions
from ..datasets.mnist import DIGITS
from ..datasets.pool import Pool
from ..layout import DESCRIBE_QUESTION
from ..measure.judge import Judge
from ..tasks.base import Example, Marked, Picture, inputs, wording
from ..tasks.numbers import NUMBERS
from ..uni import Uni

# The first wording of a question is the one that is evaluated; instruction tuning adds the others.
QUESTIONS = {
    "digit": ("what digit is this?", "which digit do you see?", "name the digit."),
    "thickness": ("is it thick or thin?", "how thick is the stroke?"),
    "slant": ("which way does it lean?", "does it lean left, lean right or stand upright?"),
    "parity": ("is it even or odd?", "is this an odd number or an even one?"),
    "arithmetic": ("what is this digit plus {n}?", "add {n} to this digit."),
    "compare": ("which of the two is larger?", "which digit is larger, the first or the second?"),
}


THICKNESS_ANSWERS, SLANT_ANSWERS, PARITY_ANSWERS = captions.THICKNESS_WORDS, ("left", "upright", "right"), ("even", "odd")


COMPARE_ANSWERS = ("the first", "the second", "neither")


def describe(pool: Pool, rng: Random, varied: bool) -> Example:
    index = pool.pick(rng)
    return Example("describe", [Picture(index), DESCRIBE_QUESTION], [captions.caption(*pool.classes[index])])


def question(kind: str) -> Callable[[Pool, Random, bool], Example]:
    """Builder of examples that ask `QUESTIONS[kind]` about one image."""

    def build(pool: Pool, rng: Random, varied: bool) -> Example:
        # Some kinds of digit are rare; even classes keep a model from answering the frequent one.
        index = pool.pick(rng, digit=rng.randrange(10), thickness=rng.randrange(2))
        digit, thickness, slant = pool.classes[index]
        n = rng.randrange(10)
        answers = {
            "digit": DIGITS[digit],
            "thickness": THICKNESS_ANSWERS[thickness],
            "slant": SLANT_ANSWERS[slant],
            "parity": PARITY_ANSWERS[digit % 2],
            "arithmetic": NUMBERS[digit + n],
        }
        return Example("describe", [Picture(index), wording(rng, QUESTIONS[kind], varied).format(n=NUMBERS[n])], [answers[kind]])

    return build


def compare(pool: Pool, rng: Random, varied: bool) -> Example:
    """Two images, one of them larger or neither."""
    a, b = (pool.pick(rng, digit=rng.randrange(10)) for _ in range(2))
    first, second = pool.classes[a][0], pool.classes[b][0]
    answer = COMPARE_ANSWERS[0 if first > second else 1 if first < second else 2]
    return Example("describe", [Picture(a), Picture(b), wording(rng, QUESTIONS["compare"], varied)], [answer])


def mark_answers(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    answers = uni.answer(*inputs(pool, asked))
    right = [answer == e.response[0] for answer, e in zip(answers, asked, strict=True)]
    return Marked(asked, [[answer] for answer in answers], {"": right})


def mark_descriptions(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """The digit, and the whole caption."""
    marked = mark_answers(uni, judge, pool, asked, seed)
    digits = [captions.parse(a[0])[0] == captions.parse(e.response[0])[0] for a, e in zip(marked.answers, asked, strict=True)]
    return marked._replace(right={"": digits, "_exact": marked.right[""]})

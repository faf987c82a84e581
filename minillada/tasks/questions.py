"""Tasks: describe an image, and answer questions about it.

An answer is right if it is the right text, letter for letter.
"""

from __future__ import annotations

from ..datasets import captions
from ..datasets.mnist import DIGITS
from ..datasets.pool import Pool
from ..layout import DESCRIBE_QUESTION
from ..measure.judge import Judge
from ..uni import Uni
from .base import Example, Marked, Picture, Source, inputs
from .numbers import NUMBERS

# The first wording of a question is the one that is evaluated; instruction tuning adds the others.
QUESTIONS = {
    "digit": ("what digit is this?", "which digit do you see?", "name the digit."),
    "thickness": ("is it thick or thin?", "how thick is the stroke?"),
    "slant": ("which way does it lean?", "does it lean left, lean right or stand upright?"),
    "parity": ("is it even or odd?", "is this an odd number or an even one?"),
    "arithmetic": ("what is this digit plus {n}?", "add {n} to this digit."),
}

THICKNESS_ANSWERS = captions.THICKNESS_WORDS
SLANT_ANSWERS = ("left", "upright", "right")
PARITY_ANSWERS = ("even", "odd")


def make_describe(source: Source) -> Example:
    """An image and its whole caption."""
    columns, index = source.pool.columns, source.pool.pick(source.rng)
    text = captions.caption(
        columns["digit"][index], columns["thickness"][index], columns["slant"][index]
    )
    return Example("describe", [Picture(index), DESCRIBE_QUESTION], [text])


def make_question(kind: str, source: Source) -> Example:
    """An image and the question `QUESTIONS[kind]` about it."""
    pool, rng = source.pool, source.rng
    # Some kinds of digit are rare; even classes keep a model from answering the frequent one.
    index = pool.pick(rng, digit=source.some_digit(), thickness=rng.randrange(2))
    digit = pool.columns["digit"][index]
    n = source.some_digit()  # only "arithmetic" asks for it
    answers = {
        "digit": DIGITS[digit],
        "thickness": THICKNESS_ANSWERS[pool.columns["thickness"][index]],
        "slant": SLANT_ANSWERS[pool.columns["slant"][index]],
        "parity": PARITY_ANSWERS[digit % 2],
        "arithmetic": NUMBERS[digit + n],
    }
    # {n} stands in questions of arithmetic only; `format` leaves the others as they are.
    question = source.wording(QUESTIONS[kind]).format(n=NUMBERS[n])
    return Example("describe", [Picture(index), question], [answers[kind]])


def mark_answers(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Right is the right text, letter for letter."""
    images, questions = inputs(pool, asked)
    answers = uni.answer(images, questions)
    right = [answer == example.response[0] for answer, example in zip(answers, asked)]
    return Marked(asked, [[answer] for answer in answers], {"": right})


def mark_descriptions(
    uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int
) -> Marked:
    """Right is a caption with the right digit; `_exact` asks for the whole caption."""
    marked = mark_answers(uni, judge, pool, asked, seed)
    # The digit can be right although the rest is not: both are read from the text.
    right_digit = []
    for (answer,), example in zip(marked.answers, asked):
        said, true = captions.parse(str(answer)), captions.parse(str(example.response[0]))
        right_digit.append(said[0] == true[0])
    return marked._replace(right={"": right_digit, "_exact": marked.right[""]})

"""Tasks: sums with and without thinking, and drills for the links of a thought."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from ..datasets.pool import Pool
from ..measure.judge import Judge
from ..tasks.base import Example, Marked, Picture, wanted, wording
from ..tasks.numbers import NUMBERS, counting_trace
from ..uni import Uni

SUM = ("draw the sum of {a} and {b}", "draw {a} plus {b}")


COUNT_ON = (
    "what is the sum of {a} and {b}?", "what is {a} plus {b}?", "add {a} and {b}", "{a} and {b}", "{a} plus {b} is?",
    "how much is {a} and {b}?", "count on from {a} by {b}", "{b} more than {a}",
)  # fmt: skip


REPEAT = ("say {a} and {b}", "repeat {a}, {b}", "write {a}, then {b}")


def sums(thinking: bool, pairs: list[tuple[int, int]] | None = None) -> Callable[[Pool, Random, bool], Example]:
    """Builder of `draw the sum of … and …` for `pairs` of numbers or those of the pool, with a trace before the image or without."""

    def build(pool: Pool, rng: Random, varied: bool) -> Example:
        a, b = rng.choice(pairs or pool.sums)
        prompt = wording(rng, SUM, varied).format(a=NUMBERS[a], b=NUMBERS[b])
        result = Picture(pool.pick(rng, digit=a + b))
        return Example("think", [prompt], [counting_trace(a, b), result]) if thinking else Example("draw", [prompt], [result])

    return build


def count_on(pool: Pool, rng: Random, varied: bool) -> Example:
    """The same thoughts about numbers too large to be drawn as one digit. From these many pairs a model learns to begin with the numbers
    it is given, where from the few sums of digits it would remember the beginning of each."""
    a, b = rng.choice(pool.counted)
    return Example("think", [wording(rng, COUNT_ON, varied).format(a=NUMBERS[a], b=NUMBERS[b])], [counting_trace(a, b)])


def repeat(pool: Pool, rng: Random, varied: bool) -> Example:
    """Two numbers said again, as a thought begins with them. Any two: their sum is not asked for."""
    a, b = rng.choices(NUMBERS, k=2)
    return Example("think", [wording(rng, REPEAT, varied).format(a=a, b=b)], [f"{a}, {b}"])


def go_on(pool: Pool, rng: Random, varied: bool) -> Example:
    """A thought in which the numbers have slipped, at its beginning or later, to be finished: what is written counts, not what was asked.

    A thought of a trained pair can be concluded from the prompt, without reading it. For a new pair that is of no use; here it is wrong.
    Only trained pairs are asked about.
    """
    asked, (a, b) = rng.choice(pool.counted), rng.choice(pool.counted)
    own = counting_trace(*asked).split("; ")[: rng.randint(0, asked[1])]
    others = counting_trace(a, b).split("; ")[rng.randint(0, b) :]
    written = own + others[: rng.randint(1, len(others) - 1)]
    rest = others[len(written) - len(own) :]
    result = [Picture(pool.pick(rng, digit=a + b))] if a + b < 10 else []
    prompt = wording(rng, SUM + COUNT_ON, varied).format(a=NUMBERS[asked[0]], b=NUMBERS[asked[1]])
    return Example("think", [prompt], ["; ".join(written), "; " + "; ".join(rest), *result], given=1)


def mark_thinking(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """The image; and the trace, word for word."""
    texts, images = uni.think_and_draw([e.user[-1] for e in asked], seed=seed)
    right = (judge.classify(images) == wanted(pool, asked)[:, 0]).tolist()
    traces = [text == e.response[0] for text, e in zip(texts, asked, strict=True)]
    return Marked(asked, [list(pair) for pair in zip(texts, images, strict=True)], {"": right, "_trace": traces})

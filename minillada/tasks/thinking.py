"""Tasks: sums, drawn at once or after a thought, and drills for the links of a thought.

Notable choices
- Sums come without (`sum_direct`) and with thinking (`sum_thinking`). Both draw the result.
- A thought is a chain of steps. For a trained pair a model may ignore the chain and remember the
  result. Three drills teach the links one by one: to count on (`count_on`), to begin with the
  numbers that are asked for (`repeat`), and to read what is written (`go_on`).
"""

from __future__ import annotations

from ..datasets.pool import Pool
from ..measure.judge import Judge
from ..uni import Uni
from .base import Example, Marked, Picture, Source, texts_of, wanted
from .numbers import COUNTED, NUMBERS, SUMS, counting_trace, trained_pairs
from .wordings import Wordings

Pairs = list[tuple[int, int]]

SUM = Wordings(
    ("draw the sum of {a} and {b}", "draw {a} plus {b}"),
    more=(
        "draw {a} + {b}",
        "draw the sum {a} + {b}",
        "draw what {a} plus {b} is",
        "draw the result of {a} plus {b}",
        "draw how much {a} and {b} is",
        "add {a} and {b} and draw the result",
        "add {a} and {b}, then draw it",
        "what is {a} plus {b}? draw it",
        "show me the sum of {a} and {b}",
        "paint the sum of {a} and {b}",
        "show the result of {a} plus {b}",
        "show {a} + {b}",
        "paint the result of {a} + {b}",
        "how much is {a} plus {b}? draw it",
        "compute {a} plus {b}, then draw it",
        "add {a} to {b} and draw it",
        "the sum of {a} and {b}",
    ),
    new=(
        "show me {a} plus {b}",
        "draw the total of {a} and {b}",
        "draw the result of adding {a} and {b}",
        "calculate {a} plus {b} and draw the result",
        "what is the sum of {a} and {b}? draw it",
        "add {a} and {b} and show it",
        "paint {a} plus {b}",
    ),
)

COUNT_ON = Wordings(
    (
        "what is the sum of {a} and {b}?",
        "what is {a} plus {b}?",
        "add {a} and {b}",
        "{a} and {b}",
        "{a} plus {b} is?",
        "how much is {a} and {b}?",
        "count on from {a} by {b}",
        "{b} more than {a}",
    ),
    more=(
        "how much is {a} plus {b}?",
        "how much is {a} + {b}?",
        "the sum of {a} and {b} is?",
        "say what {a} plus {b} is",
    ),
    new=("what do you get for {a} plus {b}?", "calculate {a} plus {b}"),
)
SUM_OR_COUNT_ON = Wordings(
    SUM.plain + COUNT_ON.plain, SUM.more + COUNT_ON.more, SUM.new + COUNT_ON.new
)

REPEAT = Wordings(
    ("say {a} and {b}", "repeat {a}, {b}", "write {a}, then {b}"),
    more=("say {a}, {b}", "repeat {a} and {b}", "write {a} and {b}", "write {a}, {b}"),
    new=("say {a}, then {b}", "repeat {a}, then {b}"),
)


def make_sum_direct(source: Source, pairs: Pairs | None = None) -> Example:
    """`draw the sum of … and …` and the result, without the thought of `make_sum_thinking`."""
    example = make_sum_thinking(source, pairs)
    return example._replace(system="draw", response=example.response[-1:])


def make_sum_thinking(source: Source, pairs: Pairs | None = None) -> Example:
    """A sum of one of `pairs` (None: those that are trained), its thought and its image."""
    a, b = source.rng.choice(pairs or trained_pairs(SUMS, source.held_out))
    prompt = source.with_numbers(SUM, a, b)
    # The thought is part of the response: the model learns to write it, then to draw from it.
    result = Picture(source.pool.pick(source.rng, digit=a + b))
    return Example("think", [prompt], [counting_trace(a, b), result])


def make_count_on(source: Source) -> Example:
    """A thought as in `make_sum_thinking`, about one of many more pairs; nothing is drawn.

    From these many pairs a model learns to begin with the numbers it is given. From the few sums
    of digits it would remember how each begins.
    """
    a, b = source.rng.choice(trained_pairs(COUNTED, source.held_out))
    return Example("think", [source.with_numbers(COUNT_ON, a, b)], [counting_trace(a, b)])


def make_repeat(source: Source) -> Example:
    """Two numbers said again, as a thought begins with them. Any two: no sum is asked for."""
    a, b = source.rng.choices(range(len(NUMBERS)), k=2)
    prompt = source.with_numbers(REPEAT, a, b)
    return Example("think", [prompt], [f"{NUMBERS[a]}, {NUMBERS[b]}"])


def make_go_on(source: Source) -> Example:
    """A thought that slips from one pair to another, to be finished from what is written.

    A model may remember how the thought about a trained pair goes on, without reading it. It cannot
    remember a new pair. So here, what it remembers is wrong. Only trained pairs are asked about.
    """
    pool, rng = source.pool, source.rng
    pairs = trained_pairs(COUNTED, source.held_out)
    asked = rng.choice(pairs)
    a, b = rng.choice(pairs)
    # 1. the first steps of the thought that is asked for, often none
    own = counting_trace(*asked).split("; ")[: rng.randint(0, asked[1])]
    # 2. from there on, the thought about a + b, from any of its steps; at least one is written
    others = counting_trace(a, b).split("; ")[rng.randint(0, b) :]
    count = rng.randint(1, len(others) - 1)
    written, rest = own + others[:count], others[count:]
    # 3. the rest is the response, and the picture of the result if it is a digit
    response: list[str | Picture] = ["; ".join(written), "; " + "; ".join(rest)]
    if a + b < 10:
        response.append(Picture(pool.pick(rng, digit=a + b)))
    prompt = source.with_numbers(SUM_OR_COUNT_ON, *asked)
    return Example("think", [prompt], response, given=1)


def mark_thinking(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Right is a drawing of the right digit; `_trace`: the thought is right, word for word."""
    thoughts, images = uni.think_and_draw(texts_of(asked), seed=seed)
    drawn = (judge.classify(images) == wanted(pool, asked)).tolist()
    thought = [text == example.response[0] for text, example in zip(thoughts, asked)]
    answers: list = [[text, image] for text, image in zip(thoughts, images)]
    return Marked(asked, answers, {"": drawn, "_trace": thought})

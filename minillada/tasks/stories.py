"""Task: count in texts and images, in turn."""

from __future__ import annotations

from torch import Tensor

from ..datasets.pool import Pool
from ..measure.judge import Judge
from ..uni import Uni
from .base import Example, Marked, Picture, Source, texts_of
from .numbers import NUMBERS
from .wordings import Wordings

COUNT = Wordings(
    ("count from {a} to {b}", "show me {a} to {b}"),
    more=(
        "count up from {a} to {b}",
        "begin with {a} and count to {b}",
        "start at {a} and go on to {b}",
        "draw {a} to {b}",
        "draw the numbers from {a} to {b}",
        "show the digits from {a} to {b}",
        "show me all digits from {a} to {b}",
    ),
    new=(
        "count from {a} up to {b}",
        "start with {a} and count up to {b}",
        "draw all numbers from {a} to {b}",
        "show every digit from {a} to {b}",
    ),
)


def make_story(source: Source) -> Example:
    """Counting upwards: a word, its picture, the next word, …"""
    # Two different numbers, so that every story has at least two pictures.
    a, b = sorted(source.rng.sample(range(10), 2))
    response: list[str | Picture] = []
    for n in range(a, b + 1):
        response += [NUMBERS[n], Picture(source.pool.pick(source.rng, digit=n))]
    return Example("interleave", [source.with_numbers(COUNT, a, b)], response)


def mark_stories(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Right is a story whose texts and images are all right, with none left out or added."""
    stories = uni.interleave_all(texts_of(asked), seed=seed)
    right = []
    for story, example in zip(stories, asked):
        # Both are read aloud: a text as it is, an image as the name of its digit.
        said = []
        for part in story:
            if isinstance(part, Tensor):
                part = NUMBERS[int(judge.classify(part[None]))]
            said.append(part)
        true = []
        for wanted in example.response:
            if isinstance(wanted, Picture):
                wanted = NUMBERS[pool.columns["digit"][wanted.index]]
            true.append(wanted)
        # Equal lists have equal lengths: a part too many or too few is wrong, too.
        right.append(said == true)
    return Marked(asked, stories, {"": right})

"""Task: count in texts and images, in turn."""

from __future__ import annotations

from random import Random

from torch import Tensor

from ..datasets.pool import Pool
from ..measure.judge import Judge
from ..tasks.base import Example, Marked, Picture, wording
from ..tasks.numbers import NUMBERS
from ..uni import Uni

COUNT = ("count from {a} to {b}", "show me {a} to {b}")


def interleave(pool: Pool, rng: Random, varied: bool) -> Example:
    """Counting upwards: a word, its picture, the next word, …"""
    a, b = sorted(rng.sample(range(10), 2))
    response = [part for n in range(a, b + 1) for part in (NUMBERS[n], Picture(pool.pick(rng, digit=n)))]
    return Example("interleave", [wording(rng, COUNT, varied).format(a=NUMBERS[a], b=NUMBERS[b])], response)


def mark_stories(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """All texts and all images right, and nothing left out or added."""
    stories = uni.interleave_all([e.user[-1] for e in asked], seed=seed)
    right = []
    for story, e in zip(stories, asked, strict=True):
        read = [NUMBERS[int(judge.classify(part[None]))] if isinstance(part, Tensor) else part for part in story]
        right.append(read == [NUMBERS[pool.classes[part.index][0]] if isinstance(part, Picture) else part for part in e.response])
    return Marked(asked, stories, {"": right})

"""Task: draw a caption."""

from __future__ import annotations

from random import Random

from ..datasets import captions
from ..datasets.pool import Pool
from ..measure.judge import Judge
from ..tasks.base import Example, Marked, Picture, wanted
from ..uni import Uni


def draw(pool: Pool, rng: Random, varied: bool) -> Example:
    """A caption, in a fifth of the cases incomplete, and its image."""
    index = pool.pick(rng)
    digit, thickness, slant = pool.classes[index]
    left_out = rng.choice(("thickness", "slant", "both")) if varied and rng.random() < 0.2 else ""
    text = captions.caption(
        digit, None if left_out in ("thickness", "both") else thickness, None if left_out in ("slant", "both") else slant
    )
    return Example("draw", [text], [Picture(index)])


def mark_drawings(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    images = uni.draw([e.user[-1] for e in asked], seed=seed)
    return Marked(asked, [[image] for image in images], {"": (judge.classify(images) == wanted(pool, asked)[:, 0]).tolist()})

"""Task: draw a caption."""

from __future__ import annotations

from ..datasets import captions
from ..datasets.pool import Pool
from ..measure.judge import Judge
from ..uni import Uni
from .base import Example, Marked, Picture, Source, texts_of, wanted


def make_draw(source: Source) -> Example:
    """A caption and its image. In a fifth of the varied examples the caption is incomplete."""
    pool, rng = source.pool, source.rng
    index = pool.pick(rng)
    thickness: int | None = pool.columns["thickness"][index]
    slant: int | None = pool.columns["slant"][index]
    # A user may ask for "a seven" only: the model then chooses the rest by itself.
    if source.varied and rng.random() < 0.2:
        left_out = rng.choice(("thickness", "slant", "both"))
        if left_out != "slant":
            thickness = None
        if left_out != "thickness":
            slant = None
    text = captions.caption(pool.columns["digit"][index], thickness, slant)
    return Example("draw", [text], [Picture(index)])


def mark_drawings(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Right is a drawing in which the judge reads the wanted digit."""
    images = uni.draw(texts_of(asked), seed=seed)  # [N, C, H, W]
    right = (judge.classify(images) == wanted(pool, asked)).tolist()
    return Marked(asked, [[image] for image in images], {"": right})

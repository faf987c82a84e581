"""Task: draw a caption."""

from __future__ import annotations

from itertools import combinations

from ..datasets.mnist import DIGITS
from ..datasets.pool import Pool
from ..measure.judge import Judge
from ..uni import Uni
from .base import Example, Marked, Picture, Source, texts_of, wanted
from .wordings import Wordings

DRAW = Wordings(
    ("{caption}",),
    more=("write {caption}", "paint {caption}", "draw me {caption}"),
    new=("paint me {caption}", "make an image of {caption}", "the image of {caption}"),
)


def make_draw(source: Source) -> Example:
    """A caption and its image. In a fifth of the varied examples the caption is incomplete."""
    pool, rng = source.pool, source.rng
    index = pool.pick(rng)
    label = pool.columns[pool.label][index]
    classes: list[int | None] = [*pool.classes(index)]
    # A user may ask for "a seven" only: the model then chooses the rest by itself.
    others = range(1, len(classes))  # the label is column 0 and stays
    left_out = [columns for count in others for columns in combinations(others, count)]
    if left_out and source.varied and rng.random() < 0.2:
        for column in rng.choice(left_out):
            classes[column] = None
    caption = pool.data.grammar.caption(*classes)
    if source.many_wordings or source.new_wording:  # of digits alone (`Source`): maybe a numeral
        caption = caption.replace(DIGITS[label], source.numbers(label)[0])
    return Example("draw", [source.wording(DRAW).format(caption=caption)], [Picture(index)])


def mark_drawings(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Right is a drawing in which the judge reads the wanted class."""
    images = uni.draw(texts_of(asked), seed=seed)  # [N, C, H, W]
    right = (judge.classify(images) == wanted(pool, asked)).tolist()
    return Marked(asked, [[image] for image in images], {"": right})

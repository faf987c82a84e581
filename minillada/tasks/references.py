"""Task: an image made from two, the digit of one in the thickness of the other."""

from __future__ import annotations

from ..datasets.pool import Pool
from ..measure.judge import Judge
from ..uni import Uni
from .base import Example, Marked, Picture, Source, both
from .editing import mark_edits, pick_leaning_alike
from .wordings import Wordings

MULTI_REFERENCE = Wordings(
    (
        "the digit of the first with the thickness of the second",
        "draw the first as thick as the second",
    ),
    more=(
        "the digit of the first, but as thick as the second",
        "the first digit, as thick as the second",
        "make the first as thick as the second",
        "take the digit of the first and the thickness of the second",
        "write the first digit with the stroke of the second",
    ),
    new=(
        "give the first the thickness of the second",
        "draw the digit of the first as thick as the second",
        "use the digit of the first and the stroke of the second",
    ),
)


def make_multi_reference(source: Source) -> Example:
    """Digit and slant of the first image, thickness of the second."""
    pool, rng = source.pool, source.rng
    # Which image is meant is said in words only, so the model must keep the two apart.
    a = pool.pick(rng, digit=source.some_label())
    b = pool.pick(rng)
    digit, thickness = pool.columns["digit"][a], pool.columns["thickness"][b]
    result = Picture(pick_leaning_alike(pool, rng, a, digit, thickness))
    return Example("edit", [Picture(a), Picture(b), source.wording(MULTI_REFERENCE)], [result])


def mark_references(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Right is a drawing with the digit of the first and the thickness of the second image."""
    marked = mark_edits(uni, judge, pool, asked, seed)
    digit, thickness = marked.right[""], marked.right["_thickness"]
    right = {"": both(digit, thickness), "_digit": digit, "_thickness": thickness}
    return marked._replace(right=right)

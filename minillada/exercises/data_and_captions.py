"""Exercises of notebook 01, data and captions."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets import captions
from ..datasets.mnist import DIGITS
from ..exercises.checking import Case, exercise


def shear(image: Tensor, centre: tuple[Tensor | float, Tensor | float], over: str = "y") -> Tensor:
    """−cov(x, y) / var(`over`) of an image `[H, W]`, with x and y measured from `centre`."""
    y, x = torch.meshgrid(*(torch.arange(float(n)) for n in image.shape), indexing="ij")
    x, y = x - centre[0], y - centre[1]
    variance = (image * (y * y if over == "y" else x * x)).sum()
    return -(image * x * y).sum() / variance


@exercise("correct: it agrees with captions.slant")
def check_slant() -> Iterator[Case]:
    """`function(image [H, W]) -> degrees`: the lean from second moments, positive to the right."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        image = F.avg_pool2d(torch.rand(1, 40, 30, generator=generator), 5, 2)[0] ** 4 + torch.eye(
            18, 13
        )
        height, width = image.shape
        columns, rows = image.sum(0) / image.sum(), image.sum(1) / image.sum()
        mass = (columns * torch.arange(width)).sum(), (rows * torch.arange(height)).sum()
        middle = (width - 1) / 2, (height - 1) / 2
        lean = shear(image, mass)
        over_x = shear(image, mass, over="x")
        from_corner, from_middle = shear(image, (0.0, 0.0)), shear(image, middle)
        mistakes = {
            "the sign is wrong: rows count downwards, so leaning right makes cov(x, y) < 0": -lean,
            "divide by the variance of y, not of x: the angle is taken from vertical": over_x,
            "measure x and y from the centre of mass, not from the corner": from_corner,
            "measure from the centre of mass; the middle of the image is elsewhere": from_middle,
        }
        wrong = {hint: value.atan().rad2deg() for hint, value in mistakes.items()}
        wrong["that is the angle in radians; 180 degrees are π"] = lean.atan()
        wrong["that is the tangent of the angle; take the arc tangent, in degrees"] = lean
        yield Case((image,), lean.atan().rad2deg(), wrong)


def first_within(text: str, options: tuple[str, ...]) -> int | None:
    """The first option whose letters occur in the text, also within a longer word."""
    return next((i for i, option in enumerate(options) if option in text), None)


@exercise("correct: you can mark what a model writes")
def check_parse_caption() -> Iterator[Case]:
    """`function(text) -> (digit, thickness, slant)`: class numbers, None for what is left out."""
    partial = [captions.caption(7), captions.caption(8, slant=0), captions.caption(1, thickness=1)]
    others = ["a thick fourteen leaning right", "a thin seventeen standing upright"]
    for text in captions.all_captions() + partial + others:
        digit, thickness, slant = right = captions.parse(text)
        right_first = {None: None, 0: 0, 1: 2, 2: 2}[slant]
        letters = [first_within(text, options) for options in (DIGITS, captions.THICKNESS_WORDS)]
        mistakes = {
            "the letters of 'right' also occur in 'upright': compare whole words": (
                digit,
                thickness,
                right_first,
            ),
            "'fourteen' holds the letters of 'four': compare whole words": (*letters, slant),
            "what the caption leaves out is None, not 0": tuple(n or 0 for n in right),
            "what the caption leaves out is None, not -1": tuple(
                -1 if n is None else n for n in right
            ),
        }
        yield Case((text,), right, mistakes)

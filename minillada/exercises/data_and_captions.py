"""Exercises of notebook 01, data and captions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets import captions
from ..datasets.mnist import DIGITS
from .checking import Case, Cases, Chance, exercise


def shear(image: Tensor, centre: tuple[Tensor | float, Tensor | float], over: str = "y") -> Tensor:
    """−cov(x, y) / var(`over`) of an image `[H, W]`, with x and y measured from `centre`."""
    y, x = torch.meshgrid(*(torch.arange(float(n)) for n in image.shape), indexing="ij")
    x, y = x - centre[0], y - centre[1]
    variance = (image * (y * y if over == "y" else x * x)).sum()
    return -(image * x * y).sum() / variance


@exercise("correct: it agrees with captions.slant")
def check_slant(chance: Chance) -> Cases:
    """`function(image [H, W]) -> degrees`: the lean from second moments, positive to the right."""
    generator = chance.generator(1)
    for _ in range(4):
        noise = torch.rand(1, 40, 30, generator=generator)
        image = F.avg_pool2d(noise, 5, 2)[0] ** 4 + torch.eye(18, 13)  # a diagonal stroke
        height, width = image.shape
        columns, rows = image.sum(0) / image.sum(), image.sum(1) / image.sum()
        mass = (columns * torch.arange(width)).sum(), (rows * torch.arange(height)).sum()
        middle = (width - 1) / 2, (height - 1) / 2
        lean, over_x = shear(image, mass), shear(image, mass, over="x")
        from_corner, from_middle = shear(image, (0.0, 0.0)), shear(image, middle)
        mistakes = {
            "the sign is wrong: rows count downwards, so leaning right makes cov(x, y) < 0": -lean,
            "divide by the variance of y, not of x: the angle is from the vertical": over_x,
            "measure x and y from the centre of mass, not from the corner": from_corner,
            "measure from the centre of mass; the middle of the image is elsewhere": from_middle,
            "you let all pixels count alike, so nothing leans; weigh each with its ink": 0 * lean,
        }
        wrong = {hint: value.atan().rad2deg() for hint, value in mistakes.items()}
        wrong["that is the angle in radians; 180 degrees are π"] = lean.atan()
        wrong["that is the tangent of the angle; take the arc tangent, in degrees"] = lean
        yield Case((image,), lean.atan().rad2deg(), wrong)


def first_within(text: str, options: tuple[str, ...]) -> int | None:
    """The first option whose letters occur in the text, also within a longer word."""
    return next((i for i, option in enumerate(options) if option in text), None)


@exercise("correct: you can mark what a model writes")
def check_parse_caption(chance: Chance) -> Cases:
    """`function(text) -> (digit, thickness, slant)`: class numbers, None for what is left out."""
    partial = [captions.caption(7), captions.caption(8, slant=0), captions.caption(1, thickness=1)]
    others = ["a thick fourteen leaning right", "a thin seventeen standing upright"]
    # Without one of its parts, a caption is a text that was not shown before.
    random = [captions.caption(chance.whole(0, 9), slant=chance.whole(0, 2)) for _ in range(3)]
    for text in captions.all_captions() + partial + others + random:
        digit, thickness, slant = right = captions.parse(text)
        right_within = (digit, thickness, 2 if slant == 1 else slant)
        four_within = (first_within(text, DIGITS), thickness, slant)
        mistakes: dict[str, Any] = {
            "'upright' holds the letters of 'right': compare whole words": right_within,
            "'fourteen' holds the letters of 'four': compare whole words": four_within,
        }
        for absent in (0, -1):
            filled = [absent if number is None else number for number in right]
            mistakes[f"what the caption leaves out is None, not {absent}"] = filled
        untrue = [number or None for number in right]
        mistakes["class 0 is a class, but `if` takes 0 for False: compare with None"] = untrue
        mistakes["the slant is missing: three numbers were asked for"] = right[:2]
        mistakes["that is the digit alone: three numbers were asked for"] = digit
        yield Case((text,), right, mistakes)

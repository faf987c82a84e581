"""exercises.data_and_captions"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..datasets import captions
from ..exercises.checking import attempt, same


def check_slant(function: Callable) -> bool:
    """Notebook 01: `function(image [H, W]) -> degrees`, the lean of a digit from its second moments, positive to the right."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        image = F.avg_pool2d(torch.rand(1, 40, 30, generator=generator), 5, 2)[0] ** 4
        y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float) for n in image.shape), indexing="ij")
        mean = lambda v: (image * v).sum() / image.sum()  # noqa: E731, B023
        dx, dy = x - mean(x), y - mean(y)
        shear = -mean(dx * dy) / mean(dy * dy)
        hints = {
            "the sign is wrong: rows count downwards, so a digit that leans right has negative cov(x, y)": -shear.atan().rad2deg(),
            "that is the angle in radians; 180 degrees are π": shear.atan(),
            "that is the shear, the tangent of the angle; take the arc tangent, in degrees": shear,
            "divide by the variance of y, not of x: the angle is taken from vertical": (-mean(dx * dy) / mean(dx * dx)).atan().rad2deg(),
            "measure x and y from the centre of mass, not from the corner": (-mean(x * y) / mean(y * y)).atan().rad2deg(),
        }
        result = attempt(function, image)
        if result is None or not same(result, shear.atan().rad2deg(), hints):
            return False
    print("correct: it agrees with captions.slant")
    return True


def check_parse_caption(function: Callable) -> bool:
    """Notebook 01: `function(text) -> (digit, thickness, slant)` as class indices, `None` for what the caption leaves out."""
    partial = [captions.caption(7), captions.caption(8, slant=0), captions.caption(1, thickness=1), captions.caption(3, slant=1)]
    for text in captions.all_captions() + partial:
        result, expected = attempt(function, text), captions.parse(text)
        if result is None:
            return False
        if not isinstance(result, tuple | list) or len(result) != 3:
            print(f"return three values, digit, thickness and slant; yours is {result!r}")
            return False
        if tuple(result) == expected:
            continue
        print(f"for {text!r} the answer is {expected}, yours is {result}")
        if "upright" in text and tuple(result)[:2] == expected[:2]:
            print("hint: the letters of 'right' also occur in 'upright'; compare whole words")
        elif None in expected:
            print("hint: a caption may leave out thickness or slant; say None for it")
        return False
    print("correct: you can mark what a model writes")
    return True

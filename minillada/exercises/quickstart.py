"""exercises.quickstart"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..datasets import captions
from ..exercises.checking import attempt, same


def check_wishes(function: Callable) -> bool:
    """Notebook 00: `function() -> list[str]`, one caption of every digit, all thick and leaning left."""
    result = attempt(function)
    if result is None:
        return False
    for caption in [captions.caption(digit, thickness=1, slant=0) for digit in range(10)]:
        if not isinstance(result, list | tuple) or caption not in result:
            print(f"{caption!r} is missing; the answer is a list of ten strings, with digits as words and no full stop")
            return False
    print("correct: ten sentences the model can draw")
    return True


def check_code_count(function: Callable) -> bool:
    """Notebook 00: `function(image_size, patch_size) -> int`, how many codes a square image becomes."""
    for image_size, patch_size in ((32, 8), (32, 4), (1024, 32), (64, 64)):
        side = image_size // patch_size
        hints = {
            "that is the number of codes along one side; the grid has as many columns as rows": torch.tensor(side),
            "that is how many pixels one code stands for": torch.tensor(patch_size**2),
            "divide both sides of the image by the patch size, not only one": torch.tensor(image_size * side),
        }
        result = attempt(function, image_size, patch_size)
        if result is None or not same(result, torch.tensor(side**2), hints):
            return False
    print("correct: 16 codes for our 32-pixel digits, 1,024 for an official image of 1,024 pixels and patches of 32")
    return True

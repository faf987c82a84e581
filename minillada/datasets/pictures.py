"""Any picture file -> what a model reads."""

from __future__ import annotations

from pathlib import Path

import numpy
import torch
from PIL import Image, UnidentifiedImageError


def read_image(path: Path) -> torch.Tensor:
    """A picture file of 28 or 32 px as `[1, 1, 32, 32]`, bright digit on black."""

    if not path.exists():
        raise FileNotFoundError(f"no picture at {path}")
    try:
        with Image.open(path) as file:
            pixels = torch.from_numpy(numpy.array(file.convert("L"), dtype="float32") / 255)
    except (UnidentifiedImageError, OSError):
        raise ValueError(f"{path} is not a picture that can be read; use PNG") from None
    if tuple(pixels.shape) not in ((28, 28), (32, 32)):
        raise ValueError(
            f"{path} is {pixels.shape[1]} x {pixels.shape[0]} px; digits must be 28 x 28 or 32 x 32, white on black"
        )
    margin = (32 - pixels.shape[0]) // 2
    return torch.nn.functional.pad(pixels[None, None], (margin,) * 4)

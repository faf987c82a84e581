"""Captions measured from pixels and labels, such as `a thick seven leaning right`, so that every answer can be checked.

Notable choices
- Thickness and slant are continuous measurements cut at fixed thresholds (notebook 01 plots them). Of the training set
  49 % are thick; 23 % lean left, 49 % stand upright, 28 % lean right. Near a threshold a caption is a matter of a tenth of a pixel,
  which is what limits "whole caption right" to less than 100 %.
- The grammar is fixed: `a {thickness} {digit} {slant}`. Drawing prompts may leave attributes out: `a seven`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.mnist import DIGITS

THICKNESS_WORDS = ("thin", "thick")


THICKNESS_EDGE = 2.4  # pixels of mean stroke width; the training median is 2.39


SLANT_WORDS = ("leaning left", "standing upright", "leaning right")


SLANT_EDGES = (-5.0, 15.0)  # degrees from vertical, positive to the right; handwriting leans right on average


def stroke_width(images: Tensor) -> Tensor:
    """Mean stroke width in pixels `[B]` of bright strokes on black `[B, 1, H, W]`.

    A stroke of length l and width w has area l·w and, for l >> w, boundary length 2·l. Area is the sum of
    intensities; the boundary length is the total variation, so both count grey edge pixels by their share of ink.
    Edges are sharpened first, at twice the resolution: otherwise blur, which every decoder adds, would read as thickness.
    """
    images = F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    images = (2 * images - 0.5).clamp(0, 1)  # twice the contrast around mid-grey
    dx = images[..., :-1, 1:] - images[..., :-1, :-1]
    dy = images[..., 1:, :-1] - images[..., :-1, :-1]
    boundary = (dx**2 + dy**2).sqrt().sum((1, 2, 3))
    return images.sum((1, 2, 3)) / boundary.clamp_min(1e-6)  # 2 · area / boundary, halved back to original pixels


def slant(images: Tensor) -> Tensor:
    """Angle in degrees `[B]` between vertical and the digit's axis, from second moments; positive leans right."""
    height, width = images.shape[-2:]
    y = torch.arange(height, dtype=images.dtype, device=images.device).view(1, 1, -1, 1)
    x = torch.arange(width, dtype=images.dtype, device=images.device).view(1, 1, 1, -1)
    mass = images.sum((1, 2, 3), keepdim=True).clamp_min(1e-6)
    dx = x - (images * x).sum((1, 2, 3), keepdim=True) / mass
    dy = y - (images * y).sum((1, 2, 3), keepdim=True) / mass
    # Regression of x on y is the shear that would set the digit upright; rows count downwards, hence the sign.
    shear = -(images * dx * dy).sum((1, 2, 3)) / (images * dy * dy).sum((1, 2, 3)).clamp_min(1e-6)
    return shear.atan() * (180 / math.pi)


def attributes(images: Tensor) -> Tensor:
    """Class indices `[B, 2]` into `THICKNESS_WORDS` and `SLANT_WORDS`."""
    thickness = (stroke_width(images) >= THICKNESS_EDGE).long()
    angle = slant(images)
    return torch.stack([thickness, (angle >= SLANT_EDGES[0]).long() + (angle >= SLANT_EDGES[1]).long()], dim=1)


def caption(digit: int, thickness: int | None = None, slant: int | None = None) -> str:
    """The sentence for class indices; `None` leaves an attribute out."""
    words = ["a", None if thickness is None else THICKNESS_WORDS[thickness], DIGITS[digit]]
    words.append(None if slant is None else SLANT_WORDS[slant])
    text = " ".join(w for w in words if w)
    return text.replace("a eight", "an eight", 1)


def all_captions() -> list[str]:
    """Every full caption, in digit-major order: index `(digit * 2 + thickness) * 3 + slant`."""
    return [caption(d, t, s) for d in range(len(DIGITS)) for t in range(len(THICKNESS_WORDS)) for s in range(len(SLANT_WORDS))]


def caption_classes(images: Tensor, labels: Tensor) -> Tensor:
    """`[B, 3]`: digit, thickness and slant class of each image, from its label and its pixels."""
    return torch.cat([labels[:, None], attributes(images)], dim=1)


def describe_pixels(images: Tensor, labels: Tensor) -> list[str]:
    """The true caption of each image `[B, 1, H, W]` with digit labels `[B]`."""
    return [caption(*row) for row in caption_classes(images, labels).tolist()]


def parse(text: str) -> tuple[int | None, int | None, int | None]:
    """Digit, thickness and slant class named in `text`; `None` where a word is missing. The inverse of `caption`."""
    words = text.split()

    def find(options):
        return next((i for i, option in enumerate(options) if set(option.split()) <= set(words)), None)

    return find(DIGITS), find(THICKNESS_WORDS), find(SLANT_WORDS)

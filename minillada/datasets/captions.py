"""Captions of digits, measured from pixels and labels, so that every answer can be checked.

Notable choices
- Thickness and slant are continuous measurements, cut at fixed thresholds (notebook 01 plots them).
  Of the training set 49 % are thick; 23 % lean left, 49 % stand upright, 28 % lean right. Near a
  threshold, a hundredth of a pixel decides.
- The grammar is fixed: `a {thickness} {digit} {slant}`. A prompt may leave out the attributes.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .grammar import Grammar, article
from .images import check_floats
from .mnist import DIGITS

THICKNESS_WORDS = ("thin", "thick")
THICKNESS_EDGE = 2.4  # pixels of mean stroke width; the training median is 2.39

SLANT_WORDS = ("leaning left", "standing upright", "leaning right")
SLANT_EDGES = (-5.0, 15.0)  # degrees right of vertical; these digits lean right on average


def stroke_width(images: Tensor) -> Tensor:
    """Mean stroke width in pixels `[B]` of bright strokes on black `[B, 1, H, W]`.

    A stroke of length l and width w has the area l·w. If it is much longer than wide, its boundary
    has the length 2·l, so the width is 2 · area / boundary. The area is the sum of intensities, the
    boundary length the total variation. Both count grey edge pixels by their share of ink.
    """
    check_floats(images)
    # Edges are sharpened first, at twice the resolution. Otherwise blur, which our decoder adds,
    # would be measured as thickness.
    images = F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    images = (2 * images - 0.5).clamp(0, 1)  # twice the contrast around mid-grey
    dx = images[..., :-1, 1:] - images[..., :-1, :-1]
    dy = images[..., 1:, :-1] - images[..., :-1, :-1]
    boundary = (dx**2 + dy**2).sqrt().sum((1, 2, 3))
    # 2 · area / boundary, halved because pixels are half as wide here
    return images.sum((1, 2, 3)) / boundary.clamp_min(1e-6)


def slant(images: Tensor) -> Tensor:
    """Degrees `[B]` that a digit leans right of vertical, from the second moments of its ink."""
    check_floats(images)
    rows, x = (torch.arange(n, dtype=images.dtype, device=images.device) for n in images.shape[2:])
    y = rows[:, None]
    mass = images.sum((1, 2, 3), keepdim=True).clamp_min(1e-6)
    dx = x - (images * x).sum((1, 2, 3), keepdim=True) / mass
    dy = y - (images * y).sum((1, 2, 3), keepdim=True) / mass
    # Regression of x on y is the shear that would set the digit upright. Rows count downwards,
    # hence the sign.
    covariance = (images * dx * dy).sum((1, 2, 3))
    variance = (images * dy * dy).sum((1, 2, 3)).clamp_min(1e-6)
    return (-covariance / variance).atan() * (180 / math.pi)


def attributes(images: Tensor) -> Tensor:
    """Class indices `[B, 2]` into `THICKNESS_WORDS` and `SLANT_WORDS`."""
    thickness = (stroke_width(images) >= THICKNESS_EDGE).long()
    leaning = (slant(images)[:, None] >= images.new_tensor(SLANT_EDGES)).sum(1)
    return torch.stack([thickness, leaning], dim=1)


def caption(digit: int, thickness: int | None = None, slant: int | None = None) -> str:
    """The sentence for class indices; None leaves an attribute out."""
    words = [DIGITS[digit]]
    if thickness is not None:
        words.insert(0, THICKNESS_WORDS[thickness])
    if slant is not None:
        words.append(SLANT_WORDS[slant])
    return article(" ".join(words))


GRAMMAR = Grammar({"digit": DIGITS, "thickness": THICKNESS_WORDS, "slant": SLANT_WORDS}, caption)
all_captions = GRAMMAR.all_captions  # digit by digit: index `(digit * 2 + thickness) * 3 + slant`
parse = GRAMMAR.parse  # digit, thickness and slant class named in a text


def caption_classes(images: Tensor, labels: Tensor) -> Tensor:
    """`[B, 3]`: digit, thickness and slant class of each image, from its label and its pixels."""
    check_floats(images, labels)
    return torch.cat([labels[:, None], attributes(images)], dim=1)


def describe_pixels(images: Tensor, labels: Tensor) -> list[str]:
    """The true caption of each image `[B, 1, H, W]` with digit labels `[B]`."""
    return [caption(*row) for row in caption_classes(images, labels).tolist()]

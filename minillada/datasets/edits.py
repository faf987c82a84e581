"""Exact image operations and the instructions that ask for them, such as `make it thicker`, so that every edit can be checked.

Notable choices
- An operation maps pixels to pixels without chance: what an edited image should look like is known, not judged by taste.
- `thicker` and `thinner` move the edge of a stroke by half a pixel on either side: a maximum or minimum over the nearest
  neighbours at twice the resolution. Strokes that are thin already would vanish when thinned, so only thick ones are.
- Operations here are edits *by pixels*. Edits by label (`turn it into a four`) have many right answers and live in `examples`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 4  # pixels, half the side of a token: a shifted digit is not a shuffle of the same codes


def thicker(images: Tensor) -> Tensor:
    """Strokes of `[B, C, H, W]` about one pixel wider."""
    fine = F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    return F.avg_pool2d(F.max_pool2d(fine, 3, stride=1, padding=1), 2)


def thinner(images: Tensor) -> Tensor:
    """Strokes of `[B, C, H, W]` about one pixel narrower."""
    return 1 - thicker(1 - images)


def moved(down: int, right: int) -> Callable[[Tensor], Tensor]:
    """The operation that moves images by whole pixels; what leaves is lost, what enters is black."""

    def move(images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        canvas = F.pad(images, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
        top, left = max(-down, 0), max(-right, 0)
        return canvas[..., top : top + height, left : left + width]

    return move


# instruction -> operation on images [B, C, H, W] in [0, 1]
OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "make it thicker": thicker,
    "make it thinner": thinner,
    "mirror it": lambda images: images.flip(-1),
    "rotate it": lambda images: images.rot90(-1, (-2, -1)),  # a quarter turn clockwise
    "invert it": lambda images: 1 - images,
    "shift it left": moved(0, -SHIFT),
    "shift it right": moved(0, SHIFT),
    "shift it up": moved(-SHIFT, 0),
    "shift it down": moved(SHIFT, 0),
}


# What brings an edited image back, so that a judge of ordinary digits can read it; the others leave it readable as it is.
UNDO: dict[str, Callable[[Tensor], Tensor]] = {
    "mirror it": OPERATIONS["mirror it"],
    "rotate it": lambda images: images.rot90(1, (-2, -1)),
    "invert it": OPERATIONS["invert it"],
    "shift it left": moved(0, SHIFT),
    "shift it right": moved(0, -SHIFT),
    "shift it up": moved(SHIFT, 0),
    "shift it down": moved(-SHIFT, 0),
}


def apply(instructions: list[str | None], images: Tensor) -> Tensor:
    """Each image of `[B, C, H, W]` after its own instruction; None leaves it as it is. `ValueError` for an unknown instruction."""
    out = images.clone()
    for instruction in sorted({i for i in instructions if i is not None}):
        if instruction not in OPERATIONS:
            raise ValueError(f"no operation is called {instruction!r}; choose one of {', '.join(OPERATIONS)}")
        rows = torch.tensor([i == instruction for i in instructions])
        out[rows] = OPERATIONS[instruction](images[rows])
    return out

"""Exact image operations and the instructions that ask for them, such as `make it thicker`.

Notable choices
- An operation maps pixels to pixels without chance. So it is known what an edited image should
  look like, and every edit can be checked.
- `thicker` and `thinner` move the edge of a stroke by half a pixel on either side: a maximum or
  minimum over the nearest neighbours, at twice the resolution.
- These are edits *by pixels*. Edits by label (`turn it into a four`) have many right answers and
  stand in `tasks/editing.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from .colour import luma

TO_WHITE = 2 / 3  # what is left of the distance to white in a brighter picture
SHIFT = 4  # px, half the side of a digit's token; 8 would only move codes to other places


def thicker(images: Tensor) -> Tensor:
    """Strokes of `[B, C, H, W]` about one pixel wider."""
    fine = F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    return F.avg_pool2d(F.max_pool2d(fine, 3, stride=1, padding=1), 2)


def thinner(images: Tensor) -> Tensor:
    """Strokes of `[B, C, H, W]` about one pixel narrower."""
    return invert(thicker(invert(images)))


def mirror(images: Tensor) -> Tensor:
    return images.flip(-1)  # left and right change places


def rotate(images: Tensor) -> Tensor:
    """A quarter turn clockwise."""
    return images.rot90(-1, (-2, -1))


def rotate_back(images: Tensor) -> Tensor:
    return images.rot90(1, (-2, -1))


def invert(images: Tensor) -> Tensor:
    return 1 - images


def move(images: Tensor, down: int, right: int) -> Tensor:
    """Images moved by whole pixels; what leaves is lost, what enters is black."""
    height, width = images.shape[-2:]
    # Black is added on the side from which the image moves away, then the old size is cut out.
    canvas = F.pad(images, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
    top, left = max(-down, 0), max(-right, 0)
    return canvas[..., top : top + height, left : left + width]


shift_left, shift_right = partial(move, down=0, right=-SHIFT), partial(move, down=0, right=SHIFT)
shift_up, shift_down = partial(move, down=-SHIFT, right=0), partial(move, down=SHIFT, right=0)


def grey(images: Tensor) -> Tensor:
    """Red, green and blue alike, as bright as before: `[B, 3, H, W]`."""
    return luma(images).expand_as(images)


def brighten(images: Tensor) -> Tensor:
    """Every pixel nearer to white: the distance to white shrinks by a third."""
    return 1 - (1 - images) * TO_WHITE


def brighten_back(images: Tensor) -> Tensor:
    return (1 - (1 - images) / TO_WHITE).clamp(0, 1)


def shift_hue(images: Tensor) -> Tensor:
    """Hues a third of the circle further: red becomes green, green blue and blue red."""
    return images.roll(1, -3)


def shift_hue_back(images: Tensor) -> Tensor:
    return images.roll(-1, -3)


class Operation(NamedTuple):
    """What is done to images `[B, C, H, W]` in [0, 1], and what undoes it.

    `undo` brings an edited image back, so that a judge of ordinary images can read it. None: the
    judge reads the edited image as it is.
    """

    do: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor] | None = None


# instruction -> operation; these are for digits
OPERATIONS = {
    "make it thicker": Operation(thicker),
    "make it thinner": Operation(thinner),
    "mirror it": Operation(mirror, mirror),
    "rotate it": Operation(rotate, rotate_back),
    "invert it": Operation(invert, invert),
    "shift it left": Operation(shift_left, shift_right),
    "shift it right": Operation(shift_right, shift_left),
    "shift it up": Operation(shift_up, shift_down),
    "shift it down": Operation(shift_down, shift_up),
}

# The operations on colour photos.
COLOUR_OPERATIONS = {
    "mirror it": Operation(mirror, mirror),
    "make it grey": Operation(grey),
    "make it brighter": Operation(brighten, brighten_back),
    "invert it": Operation(invert, invert),
    "shift its hue": Operation(shift_hue, shift_hue_back),
}


def apply(instructions: Sequence[str | None], images: Tensor) -> Tensor:
    """Each image of `[B, C, H, W]` after its own instruction; None leaves it as it is.

    Raises `ValueError` for an unknown instruction, or unless there is one for each image.
    """
    out = images.clone()
    for name, rows in rows_of(instructions, images).items():
        out[rows] = operation(name).do(images[rows])
    return out


def undo(instructions: Sequence[str], images: Tensor) -> Tensor:
    """Edited images `[B, C, H, W]` brought back to where a judge can read them; errors as above."""
    out = images.clone()
    for name, rows in rows_of(instructions, images).items():
        back = operation(name).undo
        if back is not None:
            out[rows] = back(images[rows])
    return out


def rows_of(instructions: Sequence[str | None], images: Tensor) -> dict[str, list[int]]:
    """The rows of each instruction: images with the same one are edited together."""
    count = len(instructions)
    if count != len(images):
        raise ValueError(f"{count} instructions for {len(images)} images; give one for each")
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(instructions):
        if name is not None:
            rows.setdefault(name, []).append(row)
    return rows


def operation(instruction: str) -> Operation:
    """The operation that an instruction asks for; `ValueError` if there is none."""
    every = OPERATIONS | COLOUR_OPERATIONS  # a name in both is the same operation
    if instruction not in every:
        known = ", ".join(every)
        raise ValueError(f"no operation is called {instruction!r}; choose one of {known}")
    return every[instruction]

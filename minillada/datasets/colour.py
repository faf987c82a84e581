"""Captions of photos, measured from pixels and labels: `a dark photo of a ship, mostly blue`.

Notable choices
- Brightness is the mean `luma` (how bright a pixel looks), cut at the median of the training set.
  Colour is the mean colour of the outermost 4 px, where the background is.
- The colour is left unsaid for 46 % of the training images: those near to grey, and those between
  two colours (yellow, turquoise, purple). Of all, 26 % are brown, 15 % blue and 13 % green. Between
  two words lies a gap, so a small change of the picture seldom turns one into the other.
- Means survive the blur of a tokenizer; contrast or texture would not.
- Colour goes with class: of the ships 51 % are blue, of the deer 30 % green.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..asking import LUMA
from .cifar10 import CLASSES
from .grammar import Grammar, article
from .images import check_floats

BRIGHTNESS_WORDS = ("dark", "bright")
BRIGHTNESS_EDGE = 0.475  # of the mean luma: the median of the training set

COLOUR_WORDS = ("blue", "green", "brown", "")  # the last is left unsaid
UNSAID = 3
# Degrees of each word but the last. Red is 0, green 120, blue 240; brown: pink, red, dark orange.
HUES = ((175.0, 260.0), (65.0, 165.0), (-40.0, 55.0))
COLOURFUL = 0.06  # least distance from grey of a colour that is named; pure red has 1
BORDER = 4  # px: the frame in which colour is measured


def luma(images: Tensor) -> Tensor:
    """How bright each pixel looks: `[B, 1, H, W]` of `[B, 3, H, W]`."""
    check_floats(images)
    return (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def brightness(images: Tensor) -> Tensor:
    """Mean luma `[B]` of images `[B, 3, H, W]`."""
    return luma(images).mean((1, 2, 3))


def frame_colour(images: Tensor) -> Tensor:
    """Mean red, green and blue `[B, 3]` of the outermost `BORDER` pixels."""
    inside = images[..., BORDER:-BORDER, BORDER:-BORDER]
    outside = images.sum((2, 3)) - inside.sum((2, 3))
    return outside / (images[0, 0].numel() - inside[0, 0].numel())


def hue(colours: Tensor) -> tuple[Tensor, Tensor]:
    """Angle in degrees `[B]`, from -60 up to 300, and distance from grey `[B]` of `[B, 3]`.

    Red, green and blue are put 120 degrees apart on a circle, and their vectors are added.
    """
    red, green, blue = colours.unbind(1)
    x = red - (green + blue) / 2
    y = 0.75**0.5 * (green - blue)  # √0.75 is the sine of 120°
    angle = torch.rad2deg(torch.atan2(y, x))  # -180 to 180
    return torch.where(angle < -60, angle + 360, angle), torch.hypot(x, y)


def attributes(images: Tensor) -> Tensor:
    """Class indices `[B, 2]` into `BRIGHTNESS_WORDS` and `COLOUR_WORDS` of `[B, 3, H, W]`."""
    bright = (brightness(images) >= BRIGHTNESS_EDGE).long()
    angle, distance = hue(frame_colour(images))
    colour = torch.full_like(bright, UNSAID)
    for index, (low, high) in enumerate(HUES):
        colour[(angle >= low) & (angle < high) & (distance >= COLOURFUL)] = index
    return torch.stack([bright, colour], dim=1)


def caption(label: int, brightness: int | None = None, colour: int | None = None) -> str:
    """The sentence for class indices; None leaves an attribute out."""
    photo = "photo" if brightness is None else f"{BRIGHTNESS_WORDS[brightness]} photo"
    text = f"a {photo} of {article(CLASSES[label])}"
    word = "" if colour is None else COLOUR_WORDS[colour]
    return f"{text}, mostly {word}" if word else text


GRAMMAR = Grammar(
    {"label": CLASSES, "brightness": BRIGHTNESS_WORDS, "colour": COLOUR_WORDS}, caption
)


def caption_classes(images: Tensor, labels: Tensor) -> Tensor:
    """`[B, 3]`: label, brightness and colour class of each image."""
    check_floats(images, labels)
    return torch.cat([labels[:, None], attributes(images)], dim=1)


def describe_pixels(images: Tensor, labels: Tensor) -> list[str]:
    """The true caption of each image `[B, 3, H, W]` with labels `[B]`."""
    return [caption(*row) for row in caption_classes(images, labels).tolist()]

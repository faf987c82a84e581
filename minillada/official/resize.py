"""Photos brought to sizes that the official image tokenizer reads (LLaDA2.0-Uni, released code).

Notable choices
- To *understand* a photo its shape matters: keep the aspect ratio, limit the number of pixels.
- To *edit* a photo the result has the size of the input: choose one of a fixed list of sizes.
  The released script cuts the centre out of the photo without resizing it, so most of a large photo
  is lost. The serving code resizes the photo to cover that size first. Both are here.
- Sizes are (width, height) in pixels and multiples of 32: two codes of 16 pixels a step.
"""

from __future__ import annotations

import math

from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

STEP = 32
SMALLEST = 128**2  # pixels of a photo to understand, at least
LARGEST = 800**2  # and at most, which is 2,500 codes
LARGEST_OF_SEVERAL = 448**2  # where a prompt has several photos: 784 codes each
EDIT_SQUARES = (512 // STEP) ** 2  # squares of 32 x 32 pixels in a photo to edit, at most
EDIT_RATIO = 4  # of its long side to its short side, at most


def pixels(image: Image.Image) -> Tensor:
    """Bytes to `[3, H, W]`, float32 in [0, 1]."""
    return pil_to_tensor(image.convert("RGB")).float() / 255


def picture(image: Tensor) -> Image.Image:
    """`[3, H, W]` in [0, 1] to bytes; the inverse of `pixels`."""
    return to_pil_image((image * 255).round().byte())


def normalise(images: Tensor) -> Tensor:
    """[0, 1] to [-1, 1], in float32: mean and standard deviation are both 0.5."""
    return (images.float() - 0.5) / 0.5


# --- to understand -------------------------------------------------------------------------------


def understanding_size(width: int, height: int, images: int = 1) -> tuple[int, int]:
    """The size a photo should cover: near its own, in steps of 32, not too small or large."""
    check_size(width, height)
    largest = LARGEST if images == 1 else LARGEST_OF_SEVERAL
    # Python rounds halves to the even neighbour, here and in the released code.
    wide = max(STEP, round(width / STEP) * STEP)
    high = max(STEP, round(height / STEP) * STEP)
    if wide * high > largest:
        # Too large: shrink both sides by one factor, then round down so the limit holds.
        scale = math.sqrt(largest / (width * height))
        wide = max(STEP, math.floor(width * scale / STEP) * STEP)
        high = max(STEP, math.floor(height * scale / STEP) * STEP)
    elif wide * high < SMALLEST:
        scale = math.sqrt(SMALLEST / (width * height))
        wide = math.ceil(width * scale / STEP) * STEP
        high = math.ceil(height * scale / STEP) * STEP
    return wide, high


def for_understanding(image: Image.Image, images: int = 1) -> Image.Image:
    """A photo for a question. `images`: how many photos the prompt has.

    Where resizing makes the longer side too long by whole steps of 32, the released code keeps
    them. So the result can be larger than `understanding_size` says (narrow photos only).
    """
    wide, high = understanding_size(*image.size, images)
    covering = cover(image.convert("RGB"), wide, high)
    wide = max(wide, covering.width // STEP * STEP)
    high = max(high, covering.height // STEP * STEP)
    return centre(covering, wide, high)


# --- to edit -------------------------------------------------------------------------------------


def edit_sizes() -> list[tuple[int, int]]:
    """Every size a photo to edit may get, wide ones first.

    The released code walks along the border of "at most 256 squares": one square higher while that
    fits, else one square narrower. Smaller sizes inside the border are not in the list.
    """
    sizes = []
    wide, high = EDIT_SQUARES, 1
    while wide > 0:
        if max(wide, high) <= EDIT_RATIO * min(wide, high):
            sizes.append((wide * STEP, high * STEP))
        if wide * (high + 1) <= EDIT_SQUARES:
            high += 1
        else:
            wide -= 1
    return sizes


def edit_size(width: int, height: int) -> tuple[int, int]:
    """The size of the list whose shape is nearest; of equally near ones the widest."""
    check_size(width, height)

    def likeness(size: tuple[int, int]) -> tuple[float, tuple[int, int]]:
        across, down = size[0] / width, size[1] / height
        return min(across, down) / max(across, down), size  # 1 means the same shape

    return max(edit_sizes(), key=likeness)


def released_crop(image: Image.Image) -> Image.Image:
    """As the released script: the centre, not resized.

    A photo that is too small stands at the upper left, and the rest becomes black.
    """
    wide, high = edit_size(*image.size)
    return centre(image.convert("RGB"), wide, high)


def served_crop(image: Image.Image) -> Image.Image:
    """As the serving code: resize to cover the size, with Lanczos' filter; keep the centre."""
    size = edit_size(*image.size)
    return ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS)


# --- both ----------------------------------------------------------------------------------------


def cover(image: Image.Image, wide: int, high: int) -> Image.Image:
    """The photo, bicubically resized so that it just covers this size; its shape stays."""
    scale = max(wide / image.width, high / image.height)
    size = (round(image.width * scale), round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC)


def centre(image: Image.Image, wide: int, high: int) -> Image.Image:
    """The centre of a photo; what lies outside of it becomes black."""
    left = max(0, (image.width - wide) // 2)
    top = max(0, (image.height - high) // 2)
    return image.crop((left, top, left + wide, top + high))


def check_size(width: int, height: int) -> None:
    """`ValueError` for a photo without pixels or with one side over 200 times the other."""
    if min(width, height) < 1 or max(width, height) > 200 * min(width, height):
        raise ValueError(
            f"a photo of {width} x {height} pixels cannot be read; crop it to a usual shape"
        )

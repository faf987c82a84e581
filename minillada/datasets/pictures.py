"""Any picture file -> what a model reads: digits prepared the way MNIST was made, and photos.

Notable choices
- MNIST (LeCun et al. 1998): black ink on white paper, scaled into a box of 20 x 20 px with its
  proportions kept, centred by mass in 28 x 28 px, white on black. Other digits are prepared alike.
- A picture that looks like MNIST already is not touched, so a test image keeps every pixel.
- A photo is cut to a square around its middle and made small by averaging, as CIFAR-10 was.
- A grey photo, or a colourful picture of a digit, is converted, and a warning says so.
- A picture that 16 codes of the shipped tokenizer cannot give back, such as a word, is no digit.
- The header is checked before pixels are decoded: a small file can hold an enormous picture.
"""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import numpy
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ..checkpoint import load_model
from ..vq import ImageTokenizer

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
MEGAPIXELS = 50
WORK = 256  # pixels of the longer side while the ink is looked for
NO_DIGIT = "{path} shows no digit; write one with dark ink on light paper"
BOX, MNIST_SIZE, SIZE = 20, 28, 32  # px: the ink's box, an image of MNIST, what a model reads
MNIST_SIZES = ((MNIST_SIZE, MNIST_SIZE), (SIZE, SIZE))
BLACK = 0.1  # a border as dark as this is that of an MNIST image
# How uneven paper may be, as a share of how much ink differs from it. Scanned digits reach 0.06,
# and four of five photos are above 0.08 (docs/log.md).
UNEVEN = 0.08
# The largest mean squared difference of a digit from what its 16 codes give back, and the same as a
# share of the digit's mean square. Of scans and 8 x 8 digits 99.9 % are below both (docs/log.md).
MOST_WRONG, WRONG_SHARE = 0.0105, 0.2
MOST_TINT = 0.2  # mean difference of the channels up to which colour is the tint of paper


def read(path: str | Path, channels: int = 1, digits: bool = True) -> Tensor:
    """A picture file as `[channels, 32, 32]` in [0, 1]: a digit, bright on black, or a photo.

    3 channels: a photo. 1: a digit or, if not `digits`, any grey picture, cut as a photo is.
    Raises `FileNotFoundError` if there is no file, and `ValueError` if it is no picture, is too
    large, or shows no digit.
    """
    if channels not in (1, 3):
        raise ValueError(f"a picture is read with 1 channel or with 3, got {channels!r}")
    picture = open_picture(Path(path))
    if channels == 3:
        return read_photo(picture, path)
    return read_digit(picture, path) if digits else middle(to_grey(picture)[None])


def read_photo(picture: Image.Image, path: str | Path) -> Tensor:
    """The middle of a photo as `[3, 32, 32]`."""
    colours = to_tensor(to_rgb(picture))  # [3, H, W]
    if torch.equal(colours[0], colours[1]) and torch.equal(colours[1], colours[2]):
        warnings.warn(f"{path} is grey; this model reads colour, so it may be unsure", stacklevel=3)
    return middle(colours)


def middle(image: Tensor) -> Tensor:
    """The largest square in the middle of `[C, H, W]`, brought to `[C, 32, 32]`."""
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[:, top : top + side, left : left + side]
    if side == SIZE:
        return square.clone()  # every pixel of a CIFAR-10 image is kept
    mode = "area" if side > SIZE else "bilinear"
    return F.interpolate(square[None], (SIZE, SIZE), mode=mode)[0]


def read_mask(path: str | Path, digits: bool = True) -> Tensor:
    """A picture file as a mask, bool `[32, 32]`: True where it is white. Errors as in `read`.

    It may have any size, and is cut as a photo is. But a digit is moved and scaled by its ink,
    so its mask is one of the digit as it is read: 28 x 28 or 32 x 32 pixels, else `ValueError`.
    """
    grey = to_grey(open_picture(Path(path)))  # [H, W]
    if digits and tuple(grey.shape) not in MNIST_SIZES:
        height, width = grey.shape
        raise ValueError(
            f"{path} has {width} x {height} pixels; draw the mask of a digit in {SIZE} x {SIZE}, "
            "over the digit as it is read (`minillada describe --show-steps` shows it)"
        )
    mask = (pad(grey) if digits else middle(grey[None])[0]) > 0.5
    if not mask.any():
        kept = "" if digits else f" where the model looks: in its middle, as {SIZE} x {SIZE}"
        raise ValueError(f"{path} has no white pixels{kept}; make white what is to be filled in")
    return mask


def pad(grey: Tensor) -> Tensor:
    """28 x 28 px with a black border as `[32, 32]`; 32 x 32 px stay as they are."""
    return F.pad(grey, ((SIZE - grey.shape[0]) // 2,) * 4)


def colourfulness(picture: Image.Image) -> float:
    """Mean difference between the largest and the smallest channel, from 0 to 1."""
    if picture.mode[0] in "1LIF":  # grey, of any depth
        return 0.0
    colours = to_tensor(to_rgb(picture).resize((SIZE, SIZE)))  # [3, 32, 32], as they are seen
    return float((colours.amax(0) - colours.amin(0)).mean())


def steps(path: str | Path) -> dict[str, Tensor]:
    """How a picture file of a digit is read, step by step: images `[1, H, W]` by their names.

    The last one is what `read` gives. Errors are those of `read`, with one exception: ink that is
    no digit, such as a word, is shown as well.
    """
    return digit_steps(open_picture(Path(path)), path)


def read_digit(picture: Image.Image, path: str | Path) -> Tensor:
    """A digit as `[1, 32, 32]`, bright on black. `ValueError` if there is none."""
    if colourfulness(picture) > MOST_TINT:
        warnings.warn(f"{path} is coloured; this model reads grey digits alone", stacklevel=3)
    done = digit_steps(picture, path)
    image = done["what is read"]
    # There is no step "ink" for what looks like MNIST already: it is taken as it is.
    if "ink" in done and not is_digit(image):
        raise ValueError(NO_DIGIT.format(path=path))
    return image


def is_digit(image: Tensor) -> bool:
    """Whether the tokenizer of digits can say with its codes what `[1, 32, 32]` shows.

    It has seen digits alone. Of these its codes give back nearly every pixel.
    """
    tokenizer = digit_tokenizer()
    again = tokenizer.decode(tokenizer.encode(image[None]))[0]  # [1, 32, 32]
    wrong = float((again - image).square().mean())
    return wrong <= MOST_WRONG and wrong <= WRONG_SHARE * float(image.square().mean())


@functools.cache
def digit_tokenizer() -> ImageTokenizer:
    """The shipped tokenizer of digits."""
    return load_model("mnist-tokenizer", ImageTokenizer)[0]


def digit_steps(picture: Image.Image, path: str | Path) -> dict[str, Tensor]:
    """`steps` of a picture that is open already; `path` is its name in errors."""
    grey = to_grey(picture)
    done = {"brightness": grey}
    if not looks_like_mnist(grey):
        ink = find_ink(grey)
        if ink is None:
            raise ValueError(NO_DIGIT.format(path=path))
        done |= {"paper": paper(shrink(grey)), "ink": ink, "in its box": fit_into_box(ink)}
        grey = centre(done["in its box"])
    done["what is read"] = pad(grey)
    return {name: image[None] for name, image in done.items()}


def open_picture(path: Path) -> Image.Image:
    """The decoded picture, the right way up."""
    if not path.exists():
        raise FileNotFoundError(f"no picture at {path}")
    if not path.is_file():
        raise ValueError(f"{path} is not a file; give a picture, such as a PNG or JPEG")
    too_large = f"{path} has more than {MEGAPIXELS} megapixels; make it smaller first"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is lower
            file = Image.open(path, formats=FORMATS)  # reads the header only
        with file:
            if file.width * file.height > MEGAPIXELS * 10**6:
                raise Image.DecompressionBombError
            file.load()
            picture = upright(file)
    except Image.DecompressionBombError:
        raise ValueError(too_large) from None
    except PermissionError:
        raise ValueError(f"{path} may not be read; change its permissions") from None
    except Exception as error:  # decoders raise errors of every type for files that are damaged
        problem = f"{path} is not a picture that can be read ({type(error).__name__})"
        raise ValueError(f"{problem}; use PNG or JPEG") from None
    if picture.mode == "LAB":  # its numbers would be taken for red, green and blue
        raise ValueError(f"{path} has LAB colours; save it in RGB, as PNG or JPEG")
    return picture


def upright(picture: Image.Image) -> Image.Image:
    """A picture as its camera was held; one whose note about that is damaged stays as it is."""
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # the errors of such a note are of every type, too
        return picture


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture in 8 bits and three colours, whatever its depth; what is transparent is white."""
    if image.mode[0] in "IF":  # integers of 16 or 32 bits, or decimals
        grey = (to_grey(image) * 255).round().byte()
        return Image.fromarray(grey.numpy()).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")


def to_grey(image: Image.Image) -> Tensor:
    """Brightness `[H, W]` in [0, 1], whatever the depth; transparent parts become paper."""
    if image.mode[0] in "IF":  # integers of 16 or 32 bits, or decimals
        values = torch.from_numpy(numpy.array(image, dtype="float64"))
        values = values.nan_to_num(nan=0, posinf=0, neginf=0)  # NaN and infinity become black
        white = 65535.0 if image.mode.startswith("I;16") else white_of(float(values.max()))
        return (values / white).clamp(0, 1).float()
    if not image.has_transparency_data:
        return to_tensor(image.convert("L"))
    rgba = image.convert("RGBA")
    grey, opaque = to_tensor(rgba.convert("L")), to_tensor(rgba.getchannel("A"))
    # A cut-out of a page holds paper of its own: far from its edge there are two tones.
    clear = F.max_pool2d(1 - shrink(opaque)[None], (61, 1), stride=1, padding=(30, 0))
    clear = F.max_pool2d(clear, (1, 61), stride=1, padding=(0, 30))[0]  # within 30 px
    far = shrink(grey)[clear < 0.01]
    if len(far) and far.max() - far.min() > 0.25:
        under = float(far.median())
    else:  # ink alone: bright ink is seen on black paper only, and dark ink on white
        under = float((grey * opaque).sum() <= 0.5 * opaque.sum())
    return grey * opaque + under * (1 - opaque)


def to_tensor(image: Image.Image) -> Tensor:
    """A picture of 8 bits in [0, 1]: a grey one as `[H, W]`, one in colour as `[3, H, W]`."""
    values = torch.from_numpy(numpy.array(image, dtype="float32")) / 255
    return values if values.ndim == 2 else values.permute(2, 0, 1).contiguous()


def white_of(largest: float) -> float:
    """The value of white in a picture whose header does not say it."""
    return next((white for white in (1.0, 255.0, 65535.0) if largest <= white), largest)


def looks_like_mnist(grey: Tensor) -> bool:
    """Whether the picture has the size of an MNIST image, and its black border."""
    if tuple(grey.shape) not in MNIST_SIZES:
        return False
    return bool((border(grey) <= BLACK).float().mean() >= 0.9 and grey.max() > BLACK)


def border(grey: Tensor) -> Tensor:
    """The outermost pixels `[n]`."""
    return torch.cat([grey[0], grey[-1], grey[:, 0], grey[:, -1]])


def shrink(grey: Tensor) -> Tensor:
    """A picture `[H, W]` whose longer side has `WORK` px: noise is averaged away."""
    factor = WORK / max(grey.shape)
    shape = [max(1, round(side * factor)) for side in grey.shape]
    mode = "area" if factor < 1 else "bicubic"
    return F.interpolate(grey[None, None], shape, mode=mode)[0, 0]


def find_ink(grey: Tensor) -> Tensor | None:
    """How much ink there is, from 0 to 1, `[H, W]` as `shrink` makes it; None if there is none."""
    # 1. a size at which strokes are wide
    grey = shrink(grey)
    # 2. what differs from the paper, positive where there is ink
    difference = grey - paper(grey)
    difference = difference * polarity(difference)
    # 3. full ink is what differs by 3/4 of the most, and paper what differs by less than 1/4
    strongest = difference.quantile(0.999)
    noise = 1.5 * spread(difference)  # as a standard deviation, from a median distance
    if strongest < max(0.08, 4 * noise):
        return None
    ink = (2 * difference / strongest - 0.5).clamp(0, 1)
    ink = ink * largest_parts(ink)
    # 4. paper is even, whatever the light: in a photo of something else, the rest is not
    return None if unevenness(difference, ink) > UNEVEN * strongest else ink


def unevenness(difference: Tensor, ink: Tensor) -> float:
    """How uneven the paper is, far from ink and without noise: a standard deviation."""
    far = F.max_pool2d(ink[None], 9, stride=1, padding=4)[0] == 0  # no ink within 4 px
    smooth = F.avg_pool2d(difference[None], 9, stride=1, padding=4, count_include_pad=False)[0]
    return float(smooth[far].std()) if int(far.sum()) > 1 else 0.0


def paper(grey: Tensor) -> Tensor:
    """The brightness `[H, W]` of the paper below the ink: a smooth surface, for light is uneven.

    It begins as the median of the border. Then, five times, a surface of second degree is fitted to
    the pixels that are near the surface before.
    """
    height, width = grey.shape
    y = torch.linspace(-1, 1, height)[:, None].expand(height, width).flatten()
    x = torch.linspace(-1, 1, width)[None].expand(height, width).flatten()
    basis = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], dim=1)  # [H * W, 6]
    values = grey.flatten()
    surface = border(grey).median().expand_as(values)
    for _ in range(5):
        distance = (values - surface).abs()
        near = distance <= max(0.05, 2 * spread(distance.view(height, width)))
        surface = basis @ torch.linalg.lstsq(basis[near], values[near, None]).solution[:, 0]
    return surface.view(height, width)


def spread(difference: Tensor) -> float:
    """The median size of a difference from paper: of all pixels, or of the border if that is less.

    In a picture that is cut close to a thick digit, most pixels are ink.
    """
    return float(torch.minimum(difference.abs().median(), border(difference).abs().median()))


def polarity(difference: Tensor) -> int:
    """1 for ink that is brighter than the paper, -1 for darker ink: which of them differs more."""
    brighter = difference.clamp(min=0).square().sum()
    return 1 if brighter > difference.clamp(max=0).square().sum() else -1


def largest_parts(ink: Tensor) -> Tensor:
    """Where `[H, W]` ink belongs to a large part; parts below a tenth of the largest are specks."""
    # 1. cells of 4 x 4 px, numbered where they hold ink
    cells = F.max_pool2d((ink > 0).float()[None], 4, ceil_mode=True)
    numbers = (torch.arange(cells.numel()) + 1.0).view_as(cells) * cells
    # 2. the largest number in a part spreads from cell to cell, until every part has one number
    before = torch.zeros_like(numbers)
    while not torch.equal(numbers, before):
        before = numbers
        numbers = F.max_pool2d(numbers, 3, stride=1, padding=1) * cells
    # 3. parts with enough cells, as pixels again
    parts, sizes = numbers[numbers > 0].unique(return_counts=True)
    kept = torch.isin(numbers[0], parts[sizes >= 0.1 * sizes.max()])
    return kept.repeat_interleave(4, 0).repeat_interleave(4, 1)[: ink.shape[0], : ink.shape[1]]


def fit_into_box(ink: Tensor) -> Tensor:
    """The ink alone, scaled so that its longer side has 20 px; edges become grey."""
    rows, columns = ink.amax(1).nonzero(), ink.amax(0).nonzero()
    ink = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    factor = BOX / max(ink.shape)
    shape = [max(1, round(side * factor)) for side in ink.shape]
    return F.interpolate(ink[None, None], shape, mode="area")[0, 0]


def centre(ink: Tensor) -> Tensor:
    """Ink in the middle of `[28, 28]`, by its centre of mass."""
    height, width = ink.shape
    mass = ink.sum().clamp_min(1e-6)
    y = float((ink.sum(1) * torch.arange(height)).sum() / mass)
    x = float((ink.sum(0) * torch.arange(width)).sum() / mass)
    half = MNIST_SIZE / 2
    top = min(max(round(half - y), 0), MNIST_SIZE - height)
    left = min(max(round(half - x), 0), MNIST_SIZE - width)
    canvas = torch.zeros(MNIST_SIZE, MNIST_SIZE)
    canvas[top : top + height, left : left + width] = ink
    return canvas

"""What users ask of a model, checked and brought into one form: texts, images and codes.

Notable choices
- Texts are lower-cased, with single spaces, because our models have read no others. The vocabulary
  says so (`small_letters`); the official model reads every text as it is.
- Here, to read means to check and convert a value in memory. `datasets.pictures` reads files.
- A row is one question: a text, with the image or the images that it is about.
"""

from __future__ import annotations

import inspect
import re
import warnings

import numpy
import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import DESCRIBE_QUESTION, sides
from .vocab import Vocabulary
from .vq import Tokenizer, check_image_codes

Images = Tensor | numpy.ndarray | list  # a batch, or a list of images
# Words that models learned later than the vocabulary, which splits them into short pieces.
LATER_WORDS = "change flip instead paint picture push reflect repeat replace say slide write"
LUMA = (0.299, 0.587, 0.114)  # how bright red, green and blue look (ITU-R BT.601)

# --- the model -----------------------------------------------------------------------------------

# Which tasks of a mixture (`tasks.table`) teach what. A task that is not named here, because it is
# new, may teach anything. Thoughts and stories are one: both write first, and then draw.
TEACHING = {
    "draw": {"draw", "sum_direct"},
    "describe": {"describe"},
    "answer questions": {
        "digit", "thickness", "slant", "parity", "arithmetic", "compare",
        "label", "brightness", "colour", "kind", "brighter",
    },
    "edit": {"edit_operation", "edit_turn", "edit_digit", "edit_label", "multi_reference"},
    "write before it draws": {"sum_thinking", "count_on", "repeat", "go_on", "interleave"},
}  # fmt: skip


class NotLearned(ValueError):
    """A model is asked for something that its training did not prepare it for."""


def learned_tasks(info: dict) -> set[str]:
    """The tasks that a model learned, also in earlier runs; none if its JSON says nothing."""
    learned: set[str] = set()
    while isinstance(info, dict) and "training" in info:
        training = info["training"]
        # Older files keep the mixture beside the rest. Without one, a run learned these two tasks.
        mixture = training.get("data", training).get("mixture")
        learned |= {name for name, _ in mixture or [("draw", 1), ("describe", 1)]}
        info = info.get("start", {})  # the run before, from whose weights this one went on
    return learned


def check_learned(info: dict, wanted: str) -> None:
    """`NotLearned` if the JSON of a model says that it learned nothing of what is `wanted`."""
    learned = learned_tasks(info)
    other = {name for kind, names in TEACHING.items() if kind != wanted for name in names}
    # A file that says nothing about training is trusted.
    if learned and learned <= other:
        shipped = "'mnist-uni', or " if info.get("dataset", "mnist") == "mnist" else ""
        raise NotLearned(
            f"this model has not learned to {wanted}; load {shipped}a model whose mixture holds a "
            "task for it"
        )


# --- texts ---------------------------------------------------------------------------------------


def read_texts(texts: list[str], vocab: Vocabulary) -> list[str]:
    """The texts in the form that models know; one warning if some texts have no known word.

    `ValueError` unless `texts` is a list of strings that are not empty.
    """
    # A single string is a usual slip: the message shows how to mend it.
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        example = [texts] if isinstance(texts, str) and texts.strip() else ["a thick seven"]
        raise ValueError(f"texts must be a list of strings, for example {example}, got {texts!r}")
    read = []
    for text in texts:
        if not text.strip():
            raise ValueError("a text is empty; say what you want, for example 'a thick seven'")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(f"a text holds half a character: {text!r}; type it again")
        if vocab.small_letters:
            text = " ".join(text.lower().split())
            # The official question is the one text with a capital that our models have learned.
            text = DESCRIBE_QUESTION if text == DESCRIBE_QUESTION.lower() else text
        read.append(text)
    strange = [text for text in read if vocab.small_letters and not knows_a_word(vocab, text)]
    if strange:
        warn(f"this model knows no word of {strange[0]!r}: its answer will be meaningless")
    return read


def read_each(texts: str | list[str], rows: int, vocab: Vocabulary) -> list[str]:
    """One text for each row of images; a single string serves all rows."""
    if isinstance(texts, str):
        return read_texts([texts], vocab) * rows
    read = read_texts(texts, vocab)
    if len(read) != rows:
        raise ValueError(f"{len(read)} texts for {rows} images; give one for each, or one string")
    return read


def warn(message: str) -> None:
    """A warning that names the user's line: the nearest caller outside of this package."""
    # How many calls lie between depends on the task, so they are counted.
    level, frame = 1, inspect.currentframe()
    while frame and frame.f_globals["__name__"].startswith(f"{__package__}."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def knows_a_word(vocab: Vocabulary, text: str) -> bool:
    """Whether a word of 3 or more letters has pieces of 2 or more letters on average.

    Pieces are the parts of words that the vocabulary learned from the training texts. A strange
    word falls apart into single letters. The rule holds for nearly all training texts; words that
    it would miss stand in `LATER_WORDS`. Numerals count if the model learned them.
    """
    if vocab.numerals and re.search(r"\b[0-9]+\b", text):
        return True
    # `\w` without digits and `_` is a letter of any alphabet.
    for word in re.findall(r"[^\W\d_]{3,}", text):
        # Some words are whole pieces only at the start of a text, others only after a space.
        pieces = min(len(vocab.encode(word)), len(vocab.encode(" " + word)))
        if len(word) >= 2 * pieces or word in LATER_WORDS.split():
            return True
    return False


# --- images and codes ----------------------------------------------------------------------------


def read_image(image: Tensor | numpy.ndarray) -> Tensor:
    """Pixels of any float type, or bytes (0 to 255), as float32."""
    # 1. NumPy's floats (kind f) and bytes become tensors
    if isinstance(image, numpy.ndarray) and (image.dtype.kind == "f" or image.dtype == "uint8"):
        dtype = "float32" if image.dtype.kind == "f" else None  # torch knows some floats only
        image = torch.from_numpy(numpy.array(image, dtype, order="C"))  # those of PIL are read-only
    # 2. bytes count from 0 to 255; other integers are refused, since their range is unknown
    if isinstance(image, Tensor) and image.dtype == torch.uint8:
        return image.float() / 255
    if isinstance(image, Tensor) and image.is_floating_point():
        return image.float()
    kind = getattr(image, "dtype", type(image).__name__)
    raise ValueError(
        f"images are tensors or arrays of floats in [0, 1] or of bytes, got {kind}; "
        "`minillada.pictures.read` reads picture files"
    )


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Images `[B, C, H, W]` with the channels of a model: grey made coloured, or colour grey.

    Says so in a warning. Images of other channels stay as they are; the tokenizer refuses them.
    """
    if images.ndim != 4 or {images.shape[1], channels} != {1, 3}:
        return images
    if channels == 3:
        warn("this model reads colour: red, green and blue of a grey image are alike")
        return images.expand(-1, 3, -1, -1)
    warn("this model reads grey images: the colour of yours is left out")
    red, green, blue = images.split(1, dim=1)
    # The weights add up to 1. Written like this, white stays exactly 1.
    return blue + LUMA[0] * (red - blue) + LUMA[1] * (green - blue)


def read_images(images: Images, tokenizer: Tokenizer) -> Tensor:
    """A batch, or a list of images `[C, H, W]`, as float32 `[B, C, H, W]`.

    Grey and colour are converted into each other, with a warning (`to_channels`).
    `ValueError` for another size, for NaN and for values outside [0, 1].
    """
    # 1. one tensor: images are stacked, an empty list is an empty batch
    if isinstance(images, list | tuple):
        batch = [read_image(image) for image in images]
        sizes = sorted({tuple(image.shape) for image in batch})
        if len(sizes) > 1:
            raise ValueError(
                f"images of different sizes cannot be read together, got {sizes}; resize them first"
            )
        pixels = torch.stack(batch) if batch else torch.zeros(0, *tokenizer.image_shape)
    else:
        pixels = read_image(images)
    # 2. its channels, its shape and its values; an empty batch has no values to check
    pixels = to_channels(pixels, tokenizer.image_shape[0])
    if pixels.ndim != 4 or len(pixels):
        tokenizer.check_images(pixels)
    return pixels


def read_groups(images: Images, tokenizer: Tokenizer) -> list[Tensor]:
    """For each row its images, `[n, C, H, W]`; an item of `images` is one image or a tuple."""
    if not isinstance(images, list | tuple):
        return list(read_images(images, tokenizer).split(1))
    groups = [item if isinstance(item, list | tuple) else (item,) for item in images]
    if not all(groups):
        raise ValueError("a row has no image; give one, or a tuple of several, for each text")
    # All images are checked as one batch, and then go back to their rows.
    flat = read_images([image for group in groups for image in group], tokenizer)
    return list(flat.split([len(group) for group in groups]))


def read_mask(mask: Tensor | numpy.ndarray, rows: int, tokenizer: Tokenizer) -> Tensor:
    """Which codes are hidden, bool `[rows, h, w]`, from a mask of pixels or of codes.

    True is hidden. A mask is `[H, W]` for all images or `[rows, H, W]`, in pixels; or the same in
    codes. A code is hidden if one of its pixels is. `ValueError` for another type or shape.
    """
    if isinstance(mask, numpy.ndarray):
        mask = torch.from_numpy(numpy.array(mask, order="C"))
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = getattr(mask, "dtype", type(mask).__name__)
        raise ValueError(f"a mask holds True where to fill in, got {kind}; write `mask > 0`")
    grid, pixels = sides(tokenizer.grid), tuple(tokenizer.image_shape[1:])
    size, count = tuple(mask.shape[-2:]), mask.shape[0] if mask.ndim == 3 else 1
    if mask.ndim not in (2, 3) or size not in (grid, pixels) or count not in (1, rows):
        raise ValueError(
            f"a mask of {rows} images is [{pixels[0]}, {pixels[1]}] pixels or [{grid[0]}, "
            f"{grid[1]}] codes, or has one of these for each image; got {list(mask.shape)}"
        )
    # A mask of codes has this size already, and stays as it is.
    hidden = F.adaptive_max_pool2d(mask.view(-1, *size).float(), grid).bool()  # [1 or rows, h, w]
    return hidden.expand(rows, -1, -1)


def read_codes(codes: Tensor, tokenizer: Tokenizer) -> Tensor:
    """Codes `[B, h, w]`; `ValueError` unless they form grids of this tokenizer's codes."""
    height, width = sides(tokenizer.grid)
    if not isinstance(codes, Tensor) or codes.dtype != torch.long or codes.ndim != 3:
        raise ValueError(f"codes must be int64 of shape [B, {height}, {width}]; see `encode`")
    check_image_codes(codes, height, width, len(tokenizer.embedding))
    return codes

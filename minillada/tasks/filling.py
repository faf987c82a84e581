"""Tasks: fill in the hidden part of an image, and the missing words of a caption.

Notable choices
- Neither is trained: a masked model can do both (`minillada/filling.py`).
- A hidden half can be drawn in several ways. Right is a filled image in which the judge reads the
  digit that was there. `_empty` says if the judge reads it with the hidden part left empty: so
  much can be known without filling in. Style is measured on the filled image.
- With a caption only one label is right. Without one, the shown part alone must tell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..datasets.pool import Pool
from ..measure.judge import Judge
from ..uni import Uni
from .base import Example, Marked, Picture, Source, inputs, pictures_of, pixels, wanted
from .editing import mark_drawn

HOLES = ("upper half", "lower half", "left half", "right half", "middle")
BLANK = "___"


def hole(name: str, height: int, width: int) -> Tensor:
    """Bool `[height, width]`, True in the part of an image that a name of `HOLES` hides."""
    if name not in HOLES:
        raise ValueError(f"no part of an image is called {name!r}; choose from {', '.join(HOLES)}")
    hidden = torch.zeros(height, width, dtype=torch.bool)
    rows, columns = height // 2, width // 2
    if name == "upper half":
        hidden[:rows] = True
    elif name == "lower half":
        hidden[rows:] = True
    elif name == "left half":
        hidden[:, :columns] = True
    elif name == "right half":
        hidden[:, columns:] = True
    else:  # the middle: half of the height and half of the width
        hidden[rows // 2 : height - rows // 2, columns // 2 : width - columns // 2] = True
    return hidden


def make_inpaint(source: Source) -> Example:
    """An image, and the part of it that is hidden."""
    index = source.pool.pick(source.rng, **{source.pool.label: source.some_label()})
    return Example("draw", [Picture(index), source.rng.choice(HOLES)], [Picture(index)])


def make_inpaint_captioned(source: Source) -> Example:
    """The same, with the caption of the image."""
    example = make_inpaint(source)
    image, part = example.user
    [shown] = pictures_of(example.response)
    caption = source.pool.data.grammar.caption(*source.pool.classes(shown.index))
    return example._replace(user=[image, caption, part])


def make_infill(source: Source) -> Example:
    """An image and its caption, in which the words of one column are missing."""
    pool, rng = source.pool, source.rng
    index = pool.pick(rng, **{pool.label: source.some_label()})
    classes = pool.classes(index)
    caption, words = pool.data.grammar.caption(*classes), []
    for options, chosen in zip(pool.data.grammar.words.values(), classes):
        if options[chosen]:  # a grey photo has no word for its colour that could be missing
            words.append(options[chosen])
    text = caption.replace(rng.choice(words), BLANK)
    return Example("describe", [Picture(index), text], [caption])


def mark_inpainting(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Right is the label that was there; further scores are the columns of style and `_empty`."""
    images = torch.stack([pixels(pool, pictures_of(example.user)[0]) for example in asked])
    masks = torch.stack([hole(str(example.user[-1]), *images.shape[2:]) for example in asked])
    # A caption stands between the image and the name of the hole.
    captions = [str(example.user[1]) for example in asked if len(example.user) == 3]
    filled = uni.inpaint(images, masks, captions or None, seed=seed)
    marked = mark_drawn(judge, pool, asked, filled)
    # Empty is black paper in digits, and grey in photos.
    empty = images.masked_fill(masks[:, None], 0.0 if images.shape[1] == 1 else 0.5)
    marked.right["_empty"] = (judge.classify(empty) == wanted(pool, asked)).tolist()
    return marked


def mark_infilling(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Right is the caption, letter for letter; also a score for each column that was missing."""
    images, texts = inputs(pool, asked)
    said = uni.infill(texts, [image for (image,) in images])
    right: dict[str, list[bool]] = {"": []}
    for answer, example in zip(said, asked):
        hit = answer == example.response[0]
        right[""].append(hit)
        right.setdefault(f"_{missing_column(pool, example)}", []).append(hit)
    return Marked(asked, [[text] for text in said], right)


def missing_column(pool: Pool, example: Example) -> str:
    """The column whose words are missing in the text of an example of `make_infill`."""
    image, text = example.user
    parse = pool.data.grammar.parse
    shown, whole = parse(str(text)), parse(str(example.response[0]))
    [missing] = [name for name, a, b in zip(pool.columns, shown, whole) if a != b]
    return missing

"""Tasks: edits by pixels, such as `mirror it`, and by label, such as `turn it into a four`.

Notable choices
- An edit by pixels has one right result. It is done if the drawing is nearer to that result than
  to the result of any other operation, and than to the unchanged image. It is right if, in
  addition, the judge still reads the label (the digit, say) after the edit is undone.
- For a round zero, mirroring is nearly no change: operations whose exact results are within
  `DataSet.alike` of each other are not told apart.
- An edit by label is right if the judge reads the wanted label; style is a score of its own. The
  label is any of ten: one time in ten it is the one shown, and an unchanged image is right.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor

from ..datasets import edits
from ..datasets.grammar import article
from ..datasets.pool import Pool
from ..datasets.table import MNIST, DataSet
from ..measure.judge import Judge
from ..uni import Uni
from .base import Example, Marked, Picture, Source, both, inputs, pictures_of, wanted
from .wordings import Wordings

EDIT_DIGIT = Wordings(
    ("turn it into {digit}", "make it {digit}"),
    more=(
        "turn {it} into {digit}",
        "make {it} {digit}",
        "change {it} to {digit}",
        "change {it} into {digit}",
        "replace {it} by {digit}",
        "make {digit} out of {it}",
        "draw {digit} instead of {it}",
        "show {digit} instead",
        "write {digit} in the same style",
        "show {digit} in the same style",
        "turn {it} into the digit {number}",
        "make {it} the digit {number}",
        "convert {it} into {digit}",
        "redraw {it} as {digit}",
        "put {digit} instead of {it}",
        "write {digit}, not {it}",
    ),
    new=(
        "transform {it} into {digit}",
        "replace {it} with {digit}",
        "write {digit} instead of {it}",
        "draw {digit} in the same style",
        "change {it} into the digit {number}",
    ),
)
EDIT_LABEL = Wordings(EDIT_DIGIT.plain)  # for photos; some of `more` speak of a digit
IT = Wordings(
    ("it",),
    more=("this", "that", "the digit", "this digit", "the image", "this image", "the picture"),
    new=("this picture", "the number"),
)

TURNS = ("mirror it", "rotate it")  # hardest to learn: they move every code to another place

# Thickness 0 is thin, 1 is thick. Thin digits are thickened and thick ones thinned: if a thin one
# were thinned, its strokes would vanish.
BEFORE = {"make it thicker": {"thickness": 0}, "make it thinner": {"thickness": 1}}

ALIKE = MNIST.alike


def shifted(where: str) -> Wordings:
    """Ways to ask for a shift to a side, such as `left`; `{{it}}` leaves the field `{it}`."""
    return Wordings(
        (f"shift it {where}",),
        more=(
            f"shift {{it}} {where}",
            f"move {{it}} {where}",
            f"push {{it}} {where}",
            f"slide {{it}} {where}",
            f"shift {{it}} a little {where}",
            f"move {{it}} a little {where}",
            f"slide {{it}} a little {where}",
            f"move {{it}} a bit {where}",
            f"push {{it}} a bit {where}",
            f"slide {{it}} a bit {where}",
            f"move {{it}} a few pixels {where}",
            f"shift {{it}} some pixels {where}",
            f"push {{it}} slightly {where}",
        ),
        new=(
            f"bring {{it}} {where}",
            f"shift {{it}} a bit {where}",
            f"push {{it}} a little {where}",
            f"move {{it}} some pixels {where}",
        ),
    )


def stroked(verb: str, word: str, other: str) -> Wordings:
    """Ways to ask for other strokes: `thicken`, `thicker` and `bolder`, or the opposites."""
    return Wordings(
        (f"make it {word}",),
        more=(
            f"make {{it}} {word}",
            f"make {{it}} {other}",
            f"draw {{it}} {word}",
            f"show {{it}} {word}",
            f"{verb} {{it}}",
            f"{verb} the lines of {{it}}",
            f"make the strokes of {{it}} {word}",
            f"make the strokes of {{it}} {other}",
            f"give {{it}} {word} lines",
            f"give {{it}} a {word} line",
            f"draw {{it}} with {word} strokes",
            f"write {{it}} with a {word} pen",
        ),
        new=(
            f"make the lines of {{it}} {word}",
            f"give {{it}} {word} strokes",
            f"write {{it}} {word}",
        ),
    )


# operation -> ways to ask for it, for digits; the first one is the name of the operation
OPERATION_WORDINGS = {
    "make it thicker": stroked("thicken", "thicker", "bolder"),
    "make it thinner": stroked("thin", "thinner", "finer"),
    "mirror it": Wordings(
        ("mirror it",),
        more=(
            "mirror {it}",
            "flip {it}",
            "reflect {it}",
            "mirror {it} from left to right",
            "reflect {it} from left to right",
            "flip {it} sideways",
            "turn {it} into its mirror image",
            "draw the mirror image of {it}",
            "show {it} in a mirror",
            "show {it} as in a mirror",
            "make {it} mirrored",
            "draw {it} mirrored",
        ),
        new=(
            "flip {it} from left to right",
            "make a mirror image of {it}",
            "draw {it} as in a mirror",
        ),
    ),
    "rotate it": Wordings(
        ("rotate it",),
        more=(
            "rotate {it}",
            "turn {it} clockwise",
            "rotate {it} clockwise",
            "rotate {it} to the right",
            "turn {it} to the right",
            "turn {it} by 90 degrees",
            "turn {it} 90 degrees clockwise",
            "rotate {it} 90 degrees",
            "give {it} a quarter turn",
            "turn {it} by a quarter turn",
            "turn {it} clockwise by a quarter turn",
            "draw {it} rotated by 90 degrees",
        ),
        new=(
            "rotate {it} by 90 degrees",
            "rotate {it} by a quarter turn",
            "turn {it} clockwise by 90 degrees",
        ),
    ),
    "invert it": Wordings(
        ("invert it",),
        more=(
            "invert {it}",
            "invert the colours of {it}",
            "make a negative of {it}",
            "turn {it} into a negative",
            "draw the negative of {it}",
            "show {it} as a negative",
            "show {it} inverted",
            "swap black and white in {it}",
            "exchange black and white in {it}",
            "reverse black and white in {it}",
            "swap the colours of {it}",
            "make black white and white black",
        ),
        new=(
            "invert black and white in {it}",
            "turn {it} into its negative",
            "show the negative of {it}",
        ),
    ),
    "shift it left": shifted("left"),
    "shift it right": shifted("right"),
    "shift it up": shifted("up"),
    "shift it down": shifted("down"),
}


def make_edit_operation(source: Source, names: tuple[str, ...] = ()) -> Example:
    """An exact operation on pixels: one of `names`, or any that the data set has."""
    name = source.rng.choice(names or tuple(source.pool.data.operations))
    before = {source.pool.label: source.some_label()} | BEFORE.get(name, {})
    index = source.pool.pick(source.rng, **before)
    wordings = OPERATION_WORDINGS.get(name, Wordings((name,)))
    instruction = source.wording(wordings).format(it=source.noun(IT))
    return Example("edit", [Picture(index), instruction], [Picture(index, name)])


def make_edit_turn(source: Source) -> Example:
    """One of the operations that need the most practice."""
    return make_edit_operation(source, TURNS)


def pick_leaning_alike(pool: Pool, rng: Random, index: int, digit: int, thickness: int) -> int:
    """An image of a digit and a thickness that leans about as image `index` does."""
    like = {"digit": digit, "thickness": thickness, "slant": pool.columns["slant"][index]}
    return pool.pick_nearest(rng, index, "slant_degrees", **like)


def make_edit_digit(source: Source) -> Example:
    """A digit in the same style: any of the ten, one time in ten the one that is shown."""
    pool, rng = source.pool, source.rng
    index, digit = pool.pick(rng), source.some_label()
    [number] = source.numbers(digit)
    words = {"digit": article(number), "number": number, "it": source.noun(IT)}
    instruction = source.wording(EDIT_DIGIT).format(**words)
    result = pick_leaning_alike(pool, rng, index, digit, pool.columns["thickness"][index])
    return Example("edit", [Picture(index), instruction], [Picture(result)])


def make_edit_label(source: Source) -> Example:
    """A photo into one of any class, as bright and, if the pool has one, of the same colour."""
    pool, rng = source.pool, source.rng
    index, label = pool.pick(rng), source.some_label()
    _, brightness, colour = pool.classes(index)
    like: dict[str, int | None] = {"label": label, "brightness": brightness, "colour": colour}
    if not pool.kinds(**like):
        like["colour"] = None
    word = article(pool.data.grammar.words[pool.label][label])
    instruction = source.wording(EDIT_LABEL).format(digit=word)
    return Example("edit", [Picture(index), instruction], [Picture(pool.pick(rng, **like))])


def nearest_operation(
    drawn: Tensor, original: Tensor, instruction: str, data: DataSet = MNIST
) -> bool:
    """Whether the wanted result is nearer to `drawn` than that of any other operation.

    Both images are `[C, H, W]`; the instruction is the name of an operation.
    """
    result = edits.apply([instruction], original[None])[0]
    distance = (drawn - result).square().mean()
    for name in (*data.operations, None):  # None: nothing was done
        other = edits.apply([name], original[None])[0]
        alike = (other - result).square().mean() <= data.alike
        nearer = distance < (drawn - other).square().mean()
        if not (alike or nearer):
            return False
    return True


def judge_operations(
    judge: Judge, pool: Pool, asked: list[Example], results: Tensor
) -> tuple[list[bool], list[bool]]:
    """Whether results `[N, C, H, W]` of exact edits were done, and whether they kept the label."""
    images, _ = inputs(pool, asked)
    names = operations(asked)
    done = []
    for result, (original,), name in zip(results, images, names):  # one image a row
        done.append(nearest_operation(result, original, name, pool.data))
    # The judge knows ordinary images only, so a mirrored digit is mirrored back first.
    read = judge.classify(edits.undo(names, results))
    return done, (read == wanted(pool, asked)).tolist()


def operations(asked: list[Example]) -> list[str]:
    """The names of the exact edits that are asked for, in whatever words."""
    return [str(pictures_of(example.response)[-1].operation) for example in asked]


def mark_operations(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Right is an edit that was done (`_done`) and kept the label (such as `_digit_kept`)."""
    drawn = uni.edit(*inputs(pool, asked), seed=seed)
    done, kept = judge_operations(judge, pool, asked, drawn)
    # end of a score's name -> right or wrong for each example; "" is the task itself
    right = {"": both(done, kept), "_done": done, f"_{pool.label}_kept": kept}
    return Marked(asked, [[image] for image in drawn], right)


def mark_edits(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Right is the wanted label; the style has scores of its own (`mark_drawn`)."""
    return mark_drawn(judge, pool, asked, uni.edit(*inputs(pool, asked), seed=seed))


def mark_drawn(judge: Judge, pool: Pool, asked: list[Example], drawn: Tensor) -> Marked:
    """Right is the wanted label; each other column has a score, `_attributes` is all of these."""
    labels = judge.classify(drawn)
    # The style is measured on the drawing, with the same thresholds as for captions.
    measured = pool.data.classes(drawn, labels)  # [N, columns]
    style, parts = torch.ones(len(asked), dtype=torch.bool), {}
    for name, column in zip(pool.columns, measured.unbind(1)):
        if name != pool.label:
            same = column == wanted(pool, asked, name)
            style = style & same
            parts[f"_{name}"] = same.tolist()
    right = {"": (labels == wanted(pool, asked)).tolist(), "_attributes": style.tolist()}
    return Marked(asked, [[image] for image in drawn], right | parts)

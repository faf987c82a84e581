"""Tasks: edits by pixels, such as `mirror it`, and edits by label, such as `turn it into a four`.

Notable choices
- An edit by pixels has one right result. It is done if the drawing is nearer to that result than
  to the result of any other operation, and than to the unchanged image. It is right if, in
  addition, the judge still reads the digit after the edit is undone.
- For a round zero, mirroring is nearly no change: operations whose exact results are within
  `ALIKE` of each other are not told apart.
- An edit by label takes any image of the wanted digit and style as right.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor

from ..datasets import captions, edits
from ..datasets.mnist import DIGITS
from ..datasets.pool import Pool
from ..measure.judge import Judge
from ..uni import Uni
from .base import Example, Marked, Picture, Source, both, inputs, wanted

EDIT_DIGIT = ("turn it into {digit}", "make it {digit}")

# The two operations that move every code to another place are the hardest to learn.
TURNS = ("mirror it", "rotate it")

# Only thin digits (0) are thickened and only thick ones (1) thinned: a thin stroke would vanish.
THICKNESS_BEFORE = {"make it thicker": 0, "make it thinner": 1}

ALIKE = 0.01  # mean squared difference; a thick digit and its mirror image differ by about 0.1


def make_edit_operation(
    source: Source, names: tuple[str, ...] = tuple(edits.OPERATIONS)
) -> Example:
    """One of the exact operations on pixels."""
    name = source.rng.choice(names)
    thickness = THICKNESS_BEFORE.get(name)
    index = source.pool.pick(source.rng, digit=source.some_digit(), thickness=thickness)
    return Example("edit", [Picture(index), name], [Picture(index, name)])


def make_edit_turn(source: Source) -> Example:
    """One of the operations that need the most practice."""
    return make_edit_operation(source, TURNS)


def pick_leaning_alike(pool: Pool, rng: Random, index: int, digit: int, thickness: int) -> int:
    """An image of a digit and a thickness that leans about as image `index` does."""
    slant = pool.columns["slant"][index]
    return pool.pick_nearest(
        rng, index, "slant_degrees", digit=digit, thickness=thickness, slant=slant
    )


def make_edit_digit(source: Source) -> Example:
    """Another digit in the same style."""
    pool, rng = source.pool, source.rng
    # The wanted digit may be the one that is shown: then another image of it is right.
    index, digit = pool.pick(rng), source.some_digit()
    instruction = source.wording(EDIT_DIGIT).format(digit=captions.article(DIGITS[digit]))
    thickness = pool.columns["thickness"][index]
    result = pick_leaning_alike(pool, rng, index, digit, thickness)
    return Example("edit", [Picture(index), instruction], [Picture(result)])


def nearest_operation(drawn: Tensor, original: Tensor, instruction: str) -> bool:
    """Whether the wanted result is nearer to `drawn` than that of any other operation.

    Both images are `[C, H, W]`.
    """
    result = edits.apply([instruction], original[None])[0]
    distance = (drawn - result).square().mean()
    for name in (*edits.OPERATIONS, None):  # None: nothing was done
        other = edits.apply([name], original[None])[0]
        alike = (other - result).square().mean() <= ALIKE
        nearer = distance < (drawn - other).square().mean()
        if not (alike or nearer):
            return False
    return True


def mark_operations(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Right is an edit that was done (`_done`) and kept the digit (`_digit_kept`)."""
    images, instructions = inputs(pool, asked)
    drawn = uni.edit(images, instructions, seed=seed)
    done = []
    for result, (original,), instruction in zip(drawn, images, instructions):  # one image a row
        done.append(nearest_operation(result, original, instruction))
    # The judge knows ordinary digits only, so a mirrored digit is mirrored back first.
    read = judge.classify(edits.undo(instructions, drawn))
    kept = (read == wanted(pool, asked)).tolist()
    # end of a score's name -> right or wrong for each example; "" is the task itself
    right = {"": both(done, kept), "_done": done, "_digit_kept": kept}
    return Marked(asked, [[image] for image in drawn], right)


def mark_edits(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Right is the wanted digit; thickness, slant and both together are marked as parts."""
    images, instructions = inputs(pool, asked)
    drawn = uni.edit(images, instructions, seed=seed)
    # The style is measured on the drawing, with the same thresholds as for captions.
    digits = judge.classify(drawn) == wanted(pool, asked)
    measured = captions.attributes(drawn)  # [N, 2]: thickness, slant
    thickness = measured[:, 0] == wanted(pool, asked, "thickness")
    slant = measured[:, 1] == wanted(pool, asked, "slant")
    right = {
        "": digits.tolist(),
        "_attributes": torch.logical_and(thickness, slant).tolist(),
        "_thickness": thickness.tolist(),
        "_slant": slant.tolist(),
    }
    return Marked(asked, [[image] for image in drawn], right)

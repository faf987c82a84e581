"""Tasks: edits by pixels, edits by label, and several references."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import torch
from torch import Tensor

from ..datasets import captions, edits
from ..datasets.mnist import DIGITS
from ..datasets.pool import Pool
from ..measure.judge import Judge
from ..tasks.base import Example, Marked, Picture, inputs, wanted, wording
from ..uni import Uni

THICKEN, THIN = "make it thicker", "make it thinner"


EDIT_DIGIT = ("turn it into a {digit}", "make it a {digit}")


MULTI_REFERENCE = ("the digit of the first with the thickness of the second", "draw the first as thick as the second")


def operations(instructions: list[str]) -> Callable[[Pool, Random, bool], Example]:
    """Builder of exact operations on pixels; only thick digits are thinned, and only thin ones thickened."""

    def build(pool: Pool, rng: Random, varied: bool) -> Example:
        instruction = rng.choice(instructions)
        thickness = {THICKEN: 0, THIN: 1}.get(instruction)
        index = pool.pick(rng, digit=rng.randrange(10), thickness=thickness)
        return Example("edit", [Picture(index), instruction], [Picture(index, instruction)])

    return build


edit_operation = operations(list(edits.OPERATIONS))


def edit_digit(pool: Pool, rng: Random, varied: bool) -> Example:
    """Another digit in the same style."""
    index, digit = pool.pick(rng), rng.randrange(10)
    instruction = wording(rng, EDIT_DIGIT, varied).format(digit=DIGITS[digit]).replace("a eight", "an eight")
    return Example("edit", [Picture(index), instruction], [Picture(pool.pick_like(rng, index, digit, pool.classes[index][1]))])


def multi_reference(pool: Pool, rng: Random, varied: bool) -> Example:
    """Digit and slant of the first image, thickness of the second."""
    a, b = pool.pick(rng, digit=rng.randrange(10)), pool.pick(rng)
    result = Picture(pool.pick_like(rng, a, pool.classes[a][0], pool.classes[b][1]))
    return Example("edit", [Picture(a), Picture(b), wording(rng, MULTI_REFERENCE, varied)], [result])


ALIKE = 0.01  # mean squared difference; a thick digit and its mirror image differ by about 0.1


def nearest_operation(drawn: Tensor, original: Tensor, instruction: str) -> bool:
    """Whether no other operation on `original` `[C, H, W]` comes nearer to `drawn` than the one the instruction asks for."""
    exact = {name: operation(original[None])[0] for name, operation in edits.OPERATIONS.items()} | {"nothing": original}
    asked = exact[instruction]
    others = [e for e in exact.values() if (e - asked).square().mean() > ALIKE]
    distance = (drawn - asked).square().mean()
    return all(bool(distance < (drawn - other).square().mean()) for other in others)


def mark_operations(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    images, instructions = inputs(pool, asked)
    drawn = uni.edit(images, instructions, seed=seed)
    done = [nearest_operation(d, i[0], text) for d, i, text in zip(drawn, images, instructions, strict=True)]
    undone = torch.cat([edits.UNDO.get(text, lambda x: x)(d[None]) for d, text in zip(drawn, instructions, strict=True)])
    kept = (judge.classify(undone) == wanted(pool, asked)[:, 0]).tolist()
    return Marked(asked, [[d] for d in drawn], {"": [a and b for a, b in zip(done, kept, strict=True)], "_done": done, "_digit_kept": kept})


def mark_edits(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """The digit; thickness and slant of the wanted picture."""
    drawn = uni.edit(*inputs(pool, asked), seed=seed)
    want = wanted(pool, asked)
    kept = captions.attributes(drawn) == want[:, 1:]
    right = {"": judge.classify(drawn) == want[:, 0], "_attributes": kept.all(1), "_thickness": kept[:, 0], "_slant": kept[:, 1]}
    return Marked(asked, [[d] for d in drawn], {name: hits.tolist() for name, hits in right.items()})


def mark_references(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Digit of the first and thickness of the second, both."""
    marked = mark_edits(uni, judge, pool, asked, seed)
    both = [a and b for a, b in zip(marked.right[""], marked.right["_thickness"], strict=True)]
    return marked._replace(right={"": both, "_digit": marked.right[""], "_thickness": marked.right["_thickness"]})

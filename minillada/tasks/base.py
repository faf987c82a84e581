"""One example of every task, made from real images: what the user gives, and the response that pixels and labels prove right.

Notable choices
- An example is written in words and pictures, not in tokens: `layout.sequence` turns it into one sequence, `evaluate` reads the
  right answer off it. The images of training and test are two pools that never mix.
- An edit by pixels has one right result; an edit by label (`turn it into a four`) takes any image of the wanted kind as one.
- Sums come without (`sum_direct`) and with thinking (`sum_thinking`): the trace counts on its fingers, so that every step is easy
  and a pair of numbers never seen before needs nothing new. The sums of some pairs (`HELD_OUT`) are never trained on. Two drills
  teach the links of such a chain by themselves: to say the numbers asked for (`repeat`), and to read what is written (`go_on`).
- A share of the prompts is dropped, in part or whole, as guidance needs it: `drop`.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from ..datasets import edits
from ..datasets.pool import Pool


class Picture(NamedTuple):
    """An image of a pool by its index, after an instruction of `edits.OPERATIONS` (None: as it is)."""

    index: int
    operation: str | None = None


class Example(NamedTuple):
    """What the user gives and the right response, in order; None among the user's parts stands for `<uncondition>`."""

    system: str  # a key of `layout.SYSTEM_PROMPTS`
    user: list[str | Picture | None]
    response: list[str | Picture]
    given: int = 0  # so many parts of the response are only shown in training, not asked for


def wording(rng: Random, choices: tuple[str, ...], varied: bool) -> str:
    return rng.choice(choices) if varied else choices[0]


def drop(example: Example, rng: Random, rate: float) -> Example:
    """The example as a branch of guidance sees it, for a share `rate` of those that draw; the others unchanged.

    Drawing: no prompt. Thinking: neither prompt nor trace. Editing: no text, or no image. Interleaving: no words, or no images
    before the last, which alone is asked for: a story of words without images is nothing to learn.
    """
    if not isinstance(example.response[-1], Picture) or rng.random() >= rate:
        return example
    user, response = example.user, example.response
    if example.system == "edit":
        return example._replace(user=[*user[:-1], None] if rng.random() < 0.5 else user[-1:])
    if example.system == "interleave":
        words, pictures = ([part for part in response if isinstance(part, kind)] for kind in (str, Picture))
        if rng.random() < 0.5:
            n = rng.randint(2, len(words))
            return example._replace(response=[*words[:n], pictures[n - 1]], given=n)
        return example._replace(user=[None], response=pictures)
    return example._replace(user=[None], response=response[-1:], given=0)


class Marked(NamedTuple):
    """Examples of a task, what the model made of each (texts and images `[C, H, W]`), and which are right, for each score."""

    examples: list[Example]
    answers: list[list[str | Tensor]]
    right: dict[str, list[bool]]


def make(pool: Pool, build: Callable, n: int, seed: int) -> list[Example]:
    """`n` examples in the first wording."""
    rng = Random(seed)
    return [build(pool, rng, False) for _ in range(n)]


def pixels(pool: Pool, picture: Picture) -> Tensor:
    """`[C, H, W]`"""
    return edits.apply([picture.operation], pool.images.floats([picture.index]))[0]


def inputs(pool: Pool, asked: list[Example]) -> tuple[list[tuple[Tensor, ...]], list[str]]:
    """The images and the text that each example gives."""
    return [tuple(pixels(pool, part) for part in e.user if isinstance(part, Picture)) for e in asked], [e.user[-1] for e in asked]


def wanted(pool: Pool, asked: list[Example]) -> Tensor:
    """Digit, thickness and slant `[N, 3]` of the last picture of each response."""
    return torch.tensor([pool.classes[[part for part in e.response if isinstance(part, Picture)][-1].index] for e in asked])

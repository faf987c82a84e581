"""What every task is made of: examples, the source they are made from, marks, and helpers.

Notable choices
- An example is written in words and pictures, not in tokens. `training/stream.py` makes one
  sequence of ids of it; the marking takes the right answer from it.
- How an example is made and how answers to it are marked stand together, in one file of `tasks/`
  for each family of tasks. `table.TASKS` lists all of them.
- The images of training and of test are two pools that never mix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from ..datasets import edits
from ..datasets.pool import Pool
from ..datasets.table import MNIST
from ..measure.judge import Judge
from ..uni import Uni
from .numbers import NUMBERS
from .wordings import NUMERALS, Wordings


@dataclass(frozen=True)
class Picture:
    """An image of a pool, by its index, as it is or edited."""

    index: int
    operation: str | None = None  # an instruction of `DataSet.operations`


class Example(NamedTuple):
    """What the user gives and the right response, in order.

    None among the user's parts stands for `<uncondition>`, the absent condition of guidance.
    """

    system: str  # a key of `layout.SYSTEM_PROMPTS`
    user: list[str | Picture | None]
    response: list[str | Picture]
    given: int = 0  # so many first parts of the response count as prompt (`layout.sequence`)


class Marked(NamedTuple):
    """Examples of a task, what the model made of each, and which are right.

    An answer holds texts and images `[C, H, W]`. `right` has one list for each score: "" is the
    score of the task itself, further names ("_slant") follow the task's name in reports. `passes`:
    how many forward passes of one row an answer took on average; None if they were not counted.
    """

    examples: list[Example]
    answers: list[list[str | Tensor]]
    right: dict[str, list[bool]]
    passes: float | None = None


@dataclass(frozen=True)
class Source:
    """What examples are made from: images, random numbers and how much they vary.

    The sums of the first `held_out` pairs of `numbers.HELD_OUT` are not drawn or thought, unless a
    task names its pairs: so a trained model can be tested on sums that are new to it. `ValueError`
    for data other than MNIST with many or new wordings: these speak of digits.
    """

    pool: Pool
    rng: Random
    varied: bool = False  # whether wordings vary; if not, the first of each is taken
    held_out: int = 0
    many_wordings: bool = False  # all that are trained: `plain`, `more` and polite ones
    new_wording: bool = False  # only those that are never trained; it wins over `many_wordings`

    def __post_init__(self) -> None:
        if self.pool.data.name != MNIST.name and (self.many_wordings or self.new_wording):
            raise ValueError("only digits have more than plain wordings; turn many_wordings off")

    def wording(self, wordings: Wordings) -> str:
        """One of several ways to say the same."""
        if self.new_wording:
            return wordings.never_trained(self.rng)
        if self.many_wordings:
            return wordings.trained(self.rng)
        if self.varied and len(wordings.plain) > 1:  # no random number is taken without a choice
            return self.rng.choice(wordings.plain)
        return wordings.plain[0]

    def noun(self, wordings: Wordings) -> str:
        """One of several words for the same thing, such as `IT` in `editing.py`; never polite."""
        if self.new_wording:
            return self.rng.choice(wordings.plain + wordings.new)
        if self.many_wordings:
            return self.rng.choice(wordings.plain + wordings.more)
        return wordings.plain[0]

    def numbers(self, *values: int) -> list[str]:
        """Numbers as words; with many or new wordings, sometimes as numerals."""
        if (self.many_wordings or self.new_wording) and self.rng.random() < NUMERALS:
            return [str(n) for n in values]
        return [NUMBERS[n] for n in values]

    def with_numbers(self, wordings: Wordings, a: int, b: int) -> str:
        """One of several ways to say the same about two numbers."""
        first, second = self.numbers(a, b)
        return self.wording(wordings).format(a=first, b=second)

    def some_label(self) -> int:
        """A class of the label's column, such as a digit; each is as likely as any other."""
        return self.rng.randrange(len(self.pool.data.grammar.words[self.pool.label]))


# one example from a source
Make = Callable[[Source], Example]
# model, judge, pool of the pictures, examples that are asked, seed of what is drawn
Mark = Callable[[Uni, Judge, Pool, list[Example], int], Marked]


@dataclass(frozen=True)
class Task:
    """How one example is made, and how the answers to many are marked."""

    make: Make
    mark: Mark | None = None  # None: a drill, which is trained but not marked
    trained: bool = True  # False: asked in an evaluation only
    needs: str | None = None  # key of `asking.TEACHING`: what must be learned first; None: nothing
    draws: bool = True  # False: all answers are texts


def make_examples(make: Make, pool: Pool, count: int, seed: int) -> list[Example]:
    """`count` examples in the first wording (if the task has no other), no pair held out."""
    source = Source(pool, Random(seed))
    return [make(source) for _ in range(count)]


def make_in_new_wording(make: Make, source: Source) -> Example:
    """An example in a wording that is never trained."""
    return make(replace(source, new_wording=True))


def pictures_of(parts: Sequence[str | Picture | None]) -> list[Picture]:
    """The pictures among the parts of a user's turn or of a response."""
    return [part for part in parts if isinstance(part, Picture)]


def pixels(pool: Pool, picture: Picture) -> Tensor:
    """Pixels `[C, H, W]` of a picture, after its operation."""
    return edits.apply([picture.operation], pool.images.floats([picture.index]))[0]


def inputs(pool: Pool, asked: list[Example]) -> tuple[list[tuple[Tensor, ...]], list[str]]:
    """The images and the text that each example gives, as `Uni.answer` and `Uni.edit` take them."""
    images = []
    for example in asked:
        images.append(tuple(pixels(pool, picture) for picture in pictures_of(example.user)))
    return images, texts_of(asked)


def texts_of(asked: list[Example]) -> list[str]:
    """The text that each example ends its prompt with."""
    return [str(example.user[-1]) for example in asked]


def wanted(pool: Pool, asked: list[Example], column: str | None = None) -> Tensor:
    """The class `[N]` of the last picture of each response, in `column`; None: its label."""
    classes = pool.columns[column or pool.label]
    return torch.tensor([classes[pictures_of(example.response)[-1].index] for example in asked])


def both(first: list[bool], second: list[bool]) -> list[bool]:
    """For each example: whether it is right in both of two lists of marks."""
    return [a and b for a, b in zip(first, second)]

"""From classes to a sentence and back: the captions of any data set.

Notable choices
- What an image shows stands in columns, such as digit, thickness and slant. A grammar has the words
  of each column, and a function that writes a caption from one class of each.
- A class without a word ("") is one about which a caption says nothing, such as the colour of a
  grey picture. It stands last in its column: `parse` takes it where no other word is said.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grammar:
    """The words of the columns, the label's first, and the sentence that they make."""

    words: dict[str, tuple[str, ...]]  # column -> the word of each class
    caption: Callable[..., str]  # a class or None (left out) for each column -> the sentence

    def __post_init__(self) -> None:
        for text in self.all_captions():  # what users ask is brought into this form, too (`asking`)
            if text != " ".join(text.lower().split()):
                raise ValueError(f"write {text!r} in small letters, with single spaces")

    def all_captions(self) -> list[str]:
        """Every full caption; the classes of the last column change fastest."""
        classes = itertools.product(*(range(len(words)) for words in self.words.values()))
        return [self.caption(*row) for row in classes]

    def index(self, classes: Tensor) -> Tensor:
        """Row `[B]` in `all_captions` of classes `[B, columns]`."""
        row = torch.zeros_like(classes[:, 0])  # as hours, minutes and seconds become seconds
        for column, words in zip(classes.unbind(1), self.words.values()):
            row = row * len(words) + column
        return row

    def parse(self, text: str) -> tuple[int | None, ...]:
        """The class of each column that `text` names; None where a word is missing.

        The inverse of `caption`, with one exception: a column that has a class without a word, such
        as colour, gives this class and never None: the sentence is the same in both cases.
        """
        return tuple(find(options, words_of(text)) for options in self.words.values())


def words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def find(options: tuple[str, ...], words: set[str]) -> int | None:
    """Index of the option with the most words of those all of whose words are there, or None."""
    found = [index for index, option in enumerate(options) if words_of(option) <= words]
    return max(found, key=lambda index: len(words_of(options[index])), default=None)


def article(words: str) -> str:
    """`a seven`, `an eight`, `an airplane`: the words with their article."""
    # "one" is spoken "won": "a one". No other word of ours begins with i, o or u. 8 is "eight".
    return f"an {words}" if words[0] in "ae8" else f"a {words}"

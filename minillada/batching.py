"""Sequences of different lengths -> padded or packed batches.

Notable choices
- A sequence is filled up with end-of-text to whole blocks. The model is trained to predict this
  padding, too, as in the official training: it must know that nothing follows the end.
- A portion of a batch (`Portion`) may have no row: a batch can have fewer rows than portions.
- Packing puts several sequences into one row, so that less of a batch is padding. There, each
  sequence is called a document. Attention does not cross from one document to another.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .layout import TokenSequence
from .vocab import Vocabulary


class Batch(NamedTuple):
    """Rows of tokens; every field is `[B, L]`."""

    ids: Tensor
    targets: Tensor  # bool: True where training may mask (response and padding, never a prompt)
    real: Tensor  # bool: True for the response without padding; only this counts in accuracies
    # which document of its packed row a token is in: 0, 1, …; −1 behind the last. None: not packed
    documents: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        documents = None if self.documents is None else self.documents.to(device)
        return Batch(self.ids.to(device), self.targets.to(device), self.real.to(device), documents)


class Portion(NamedTuple):
    """Some of the rows of a training step, which are computed together.

    A portion belongs to one of several processes, or to one of several passes of a process. Rows
    are dealt like cards. Of three portions the first has rows 0, 3, 6, …, the second 1, 4, 7, …
    """

    number: int = 0  # of this portion
    of: int = 1  # how many portions there are
    first: int = 0  # number of rows in earlier batches of the step; dealing goes on from there

    def has(self, rows: Tensor) -> Tensor:
        """Which of the rows, given by their numbers in the batch, are in this portion; bool."""
        return (rows + self.first) % self.of == self.number


WHOLE = Portion()


def padded_length(length: int, multiple: int) -> int:
    """`length`, rounded up to a multiple of `multiple`."""
    return (length + multiple - 1) // multiple * multiple


def collate(sequences: list[TokenSequence], vocab: Vocabulary, multiple: int) -> Batch:
    """Pad to one length, a multiple of `multiple`: whole blocks of every block size in use."""
    # The tensors begin as padding, and each sequence is written into its row.
    length = padded_length(max(len(s.ids) for s in sequences), multiple)
    ids = torch.full((len(sequences), length), vocab.eos_id)
    targets = torch.zeros(len(sequences), length, dtype=torch.bool)
    real = torch.zeros(len(sequences), length, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        end = len(sequence.ids)
        ids[row, :end] = torch.tensor(sequence.ids)
        targets[row, sequence.prompt_length :] = True
        real[row, sequence.prompt_length : end] = True
    return Batch(ids, targets, real)


def by_shape(sequences: list[TokenSequence], vocab: Vocabulary, multiple: int) -> list[Batch]:
    """`collate` for sequences of many tasks, those of equal shapes together.

    A shape is the padded length and the block (of `multiple` tokens) in which the response begins.
    In one single batch, all rows would be padded to the longest sequence, and the noisy copy of
    every row would begin where the earliest response of any row does (`diffusion`).
    """
    groups: dict[tuple[int, int], list[TokenSequence]] = {}  # shape -> its sequences
    for sequence in sequences:
        shape = padded_length(len(sequence.ids), multiple), sequence.prompt_length // multiple
        groups.setdefault(shape, []).append(sequence)
    # Sorted, so that the order of the batches does not depend on the order of the sequences.
    return [collate(groups[shape], vocab, multiple) for shape in sorted(groups)]


def pack(sequences: list[TokenSequence], vocab: Vocabulary, length: int, block_size: int) -> Batch:
    """Sequences of any lengths in few rows of `length` tokens.

    Padding behind a sequence, to whole blocks, is a target, as in `collate`; at the end of a row it
    is not. `ValueError` for a sequence longer than a row, or rows that are not whole blocks.
    """
    if length % block_size:
        raise ValueError(f"rows of {length} tokens are no whole blocks of {block_size}; change one")
    # 1. the longest first, each into the first row that has room for it
    rows: list[list[TokenSequence]] = []
    free: list[int] = []  # number of free tokens in each row
    for sequence in sorted(sequences, key=lambda s: -len(s.ids)):
        size = padded_length(len(sequence.ids), block_size)
        if size > length:
            raise ValueError(
                f"a sequence of {size} tokens does not fit into rows of {length}; "
                "make the rows longer"
            )
        row = next((row for row, room in enumerate(free) if room >= size), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(length)
        rows[row].append(sequence)
        free[row] -= size

    # 2. all begins as the padding of a row: no target, and no document (−1)
    ids = torch.full((len(rows), length), vocab.eos_id)  # [B, L]
    targets = torch.zeros(len(rows), length, dtype=torch.bool)
    real = torch.zeros(len(rows), length, dtype=torch.bool)
    documents = torch.full((len(rows), length), -1)
    # 3. each sequence, padded to whole blocks, is written behind the one before it
    for row, together in enumerate(rows):
        begin = 0
        for number, sequence in enumerate(together):
            part = collate([sequence], vocab, block_size)
            here = slice(begin, begin + part.ids.shape[1])
            ids[row, here] = part.ids[0]
            targets[row, here] = part.targets[0]
            real[row, here] = part.real[0]
            documents[row, here] = number
            begin = here.stop
    return Batch(ids, targets, real, documents)

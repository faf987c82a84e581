"""Sequences of different lengths -> padded or packed batches.

Notable choices
- A sequence is filled up with end-of-text to whole blocks, and training asks for this padding, as
  the official training does: a model must know that nothing follows the end.
- Packing puts several sequences into one row, so that less of a batch is padding. `documents` says
  which tokens belong together; attention does not cross from one to another.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .layout import Sequence
from .vocab import Vocabulary


class Batch(NamedTuple):
    """Rows of tokens; every field is `[B, L]`."""

    ids: Tensor
    targets: Tensor  # what training may mask: response and padding, never a prompt
    real: Tensor  # the targets without padding: what accuracies count
    documents: Tensor | None = None  # number of the sequence in a packed row; −1 behind the last

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        documents = None if self.documents is None else self.documents.to(device)
        return Batch(self.ids.to(device), self.targets.to(device), self.real.to(device), documents)


def padded(length: int, multiple: int) -> int:
    """The next multiple that is not below a length."""
    return (length + multiple - 1) // multiple * multiple


def collate(sequences: list[Sequence], vocab: Vocabulary, multiple: int) -> Batch:
    """Pad to one length, the next multiple of `multiple` (normally the block size)."""
    length = padded(max(len(s.ids) for s in sequences), multiple)
    ids = torch.full((len(sequences), length), vocab.eos_id)
    targets = torch.zeros(len(sequences), length, dtype=torch.bool)
    real = torch.zeros(len(sequences), length, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        end = len(sequence.ids)
        ids[row, :end] = torch.tensor(sequence.ids)
        targets[row, sequence.prompt_length :] = True
        real[row, sequence.prompt_length : end] = True
    return Batch(ids, targets, real)


def by_shape(sequences: list[Sequence], vocab: Vocabulary, multiple: int) -> list[Batch]:
    """`collate` for sequences of many tasks, those of equal shapes together.

    A shape is the padded length and the block in which the response begins. In one batch, all
    sequences would be as long as the longest, and be asked over the range of all responses.
    """
    groups: dict[tuple[int, int], list[Sequence]] = {}
    for sequence in sequences:
        shape = padded(len(sequence.ids), multiple), sequence.prompt_length // multiple
        groups.setdefault(shape, []).append(sequence)
    return [collate(groups[shape], vocab, multiple) for shape in sorted(groups)]


def pack(sequences: list[Sequence], vocab: Vocabulary, length: int, block_size: int) -> Batch:
    """Sequences of any lengths in few rows of `length` tokens.

    What fills up a sequence to whole blocks is a target, as in `collate`; what fills up a row is
    not. `ValueError` for a sequence longer than a row, or rows that are not whole blocks.
    """
    if length % block_size:
        raise ValueError(
            f"block size {block_size} does not divide rows of {length} tokens; choose a multiple"
        )
    # 1. the longest first, each into the first row that has room for it
    rows: list[list[Sequence]] = []
    free: list[int] = []  # tokens of each row
    for sequence in sorted(sequences, key=lambda s: -len(s.ids)):
        size = padded(len(sequence.ids), block_size)
        if size > length:
            raise ValueError(
                f"a sequence of {size} tokens does not fit into rows of {length}; "
                "make the rows longer"
            )
        row = 0
        while row < len(rows) and free[row] < size:
            row += 1
        if row == len(rows):
            rows.append([])
            free.append(length)
        rows[row].append(sequence)
        free[row] -= size

    # 2. each sequence is written behind the one before it
    ids = torch.full((len(rows), length), vocab.eos_id)  # [B, L]
    targets = torch.zeros(len(rows), length, dtype=torch.bool)
    real = torch.zeros(len(rows), length, dtype=torch.bool)
    documents = torch.full((len(rows), length), -1)
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

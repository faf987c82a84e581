"""Sequences -> padded or packed batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .layout import Sequence
from .vocab import Vocabulary


class Batch(NamedTuple):
    """`ids` `[B, L]`; `targets` `[B, L]` marks what training may mask: response and padding; `real` leaves padding out.

    Where a row packs several sequences, `documents` `[B, L]` counts them; the unused rest of a row is document −1.
    """

    ids: Tensor
    targets: Tensor
    real: Tensor
    documents: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(*(None if part is None else part.to(device) for part in self))


def by_shape(sequences: list[Sequence], vocab: Vocabulary, multiple: int) -> list[Batch]:
    """`collate` for sequences of many tasks: one batch for each length and each first block of the response, in multiples of `multiple`.

    In one batch, all would be as long as the longest, and asked over the range of all responses.
    """
    groups: dict[tuple[int, int], list[Sequence]] = {}
    for s in sequences:
        groups.setdefault((-(-len(s.ids) // multiple), s.prompt_length // multiple), []).append(s)
    return [collate(group, vocab, multiple) for _, group in sorted(groups.items())]


def collate(sequences: list[Sequence], vocab: Vocabulary, multiple: int) -> Batch:
    """Pad with end-of-text to one length, the next multiple of `multiple` (normally the block size).

    The padding is supervised, as in the official training: a model must know that nothing follows the end.
    """
    length = -(-max(len(s.ids) for s in sequences) // multiple) * multiple
    ids = torch.tensor([s.ids + [vocab.eos_id] * (length - len(s.ids)) for s in sequences])
    position = torch.arange(length)
    prompt = torch.tensor([s.prompt_length for s in sequences])[:, None]
    end = torch.tensor([len(s.ids) for s in sequences])[:, None]
    return Batch(ids, position >= prompt, (position >= prompt) & (position < end))


def pack(sequences: list[Sequence], vocab: Vocabulary, length: int, block_size: int) -> Batch:
    """Sequences of any lengths in few rows of `length`: each, filled up to whole blocks, goes into the first row with room for it.

    What fills up a sequence is supervised as in `collate`; what fills up a row is not. `ValueError` for a sequence longer than a row.
    """
    if length % block_size:
        raise ValueError(f"block size {block_size} does not divide rows of {length} tokens; choose a multiple")
    rows: list[list[Batch]] = []
    for part in (collate([sequence], vocab, block_size) for sequence in sorted(sequences, key=lambda s: -len(s.ids))):
        size = part.ids.shape[1]
        if size > length:
            raise ValueError(f"a sequence of {size} tokens does not fit into rows of {length}; make the rows longer")
        room = (row for row in rows if sum(p.ids.shape[1] for p in row) + size <= length)
        row = next(room, None)
        if row is None:
            rows.append(row := [])
        row.append(part)
    ids, documents = torch.full((len(rows), length), vocab.eos_id), torch.full((len(rows), length), -1)
    targets, real = torch.zeros(2, len(rows), length, dtype=torch.bool)
    for r, row in enumerate(rows):
        end = 0
        for number, part in enumerate(row):
            here = slice(end, end := end + part.ids.shape[1])
            documents[r, here] = number
            ids[r, here], targets[r, here], real[r, here] = part.ids[0], part.targets[0], part.real[0]
    return Batch(ids, targets, real, documents)

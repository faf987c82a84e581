"""The rows that are being decoded, and what one step does to them.

Notable choices
- With an edit threshold below 1 (LLaDA2.1, arXiv 2602.08676) every pass may also rewrite tokens of
  the block. When no mask is left, passes go on until nothing changes.
- On a GPU, `if tensor.any()` waits until the tensor is computed. So a tensor is asked only where
  the settings do not tell already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .commit import Tokens, choose_commits, choose_edits, choose_tokens, commit_score, spread
from .config import SamplingConfig


class Step(NamedTuple):
    """One denoising step of the block at `start`; the tensors are `[B, block]`."""

    start: int  # of the block; in `Rows` and `Generation`, `start` is that of the answer
    ids: Tensor
    confidence: Tensor  # 0 at positions that this step could not change (see `Generation.passes`)
    committed: Tensor
    edited: Tensor


class Rows:
    """The state of the loop: `ids` `[B, total]` of all rows, and which rows are finished."""

    def __init__(
        self, prompt: Tensor, answer: Tensor, total: int, tokens: Tokens, config: SamplingConfig
    ):
        self.tokens, self.config = tokens, config
        self.start, self.end = prompt.shape[1], prompt.shape[1] + answer.shape[1]
        self.ids = torch.full((len(prompt), total), tokens.mask, device=prompt.device)
        self.ids[:, : self.start] = prompt
        self.ids[:, self.start : self.end] = answer
        # Whole blocks can be longer than the answer; `fill_tail` fills in their rest, too.
        index = torch.arange(total, device=prompt.device)
        is_answer = (index >= self.start) & ((index < self.end) | config.fill_tail)  # [total]
        self.free = is_answer & (self.ids == tokens.mask)  # [B, total], without given tokens
        self.done = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
        self.enter(0)  # so that all fields exist; the loop enters the blocks of the answer

    @property
    def is_random(self) -> bool:
        """Whether a step needs random numbers."""
        return self.config.temperature > 0 or self.config.strategy == "random"

    def blocks(self) -> range:
        """Where the blocks of the answer begin; the first may also hold the end of the prompt."""
        size = self.config.block_size
        if self.end == self.start:
            return range(0)  # an answer of length 0
        return range(self.start // size * size, self.end, size)

    def enter(self, first: int) -> None:
        """Begin with the block at position `first`."""
        self.first = first
        # Its positions; in `extras/graphs.py` a tensor.
        self.here: slice | Tensor = slice(first, first + self.config.block_size)
        # [B]: rows that may still be rewritten, and the passes they have begun without a mask
        self.unsettled = torch.full_like(self.done, self.config.edit_threshold < 1)
        self.passes_without_mask = torch.zeros_like(self.done, dtype=torch.long)

    def open_positions(self) -> tuple[Tensor, Tensor]:
        """Where the block may be filled and where it may be rewritten, bool `[B, block]`."""
        free = self.free[:, self.here] & ~self.done[:, None]
        masked = free & (self.ids[:, self.here] == self.tokens.mask)
        return masked, free & ~masked & self.unsettled[:, None]

    def write(self, step: Step) -> None:
        """Write the ids of a step, and find the rows that are settled or at their end."""
        had_masks = self.open_positions()[0].any(1)  # [B]
        self.ids[:, self.here] = step.ids
        # A block without masks is settled when a pass changed nothing, or when it has had
        # `post_steps` passes without a mask: two tokens may replace each other for ever.
        if self.config.edit_threshold < 1:
            self.passes_without_mask += ~had_masks
            changed = (step.committed | step.edited).any(1)
            again = changed & (self.passes_without_mask < self.config.post_steps)
            self.unsettled &= self.open_positions()[0].any(1) | again
        if self.tokens.eos is not None:  # a token that may still be rewritten ends nothing
            self.done |= self.tokens.ended(self.said()) & ~self.unsettled

    def said(self) -> Tensor:
        """The answer so far, `[B, length]`."""
        return self.ids[:, self.start : self.end]

    def answers(self) -> Tensor:
        """Ids `[B, length]`; every id after the first end becomes eos."""
        said = self.said()
        if self.tokens.eos is None:
            return said
        ends = self.tokens.is_end(said).long()
        # The sum counts the ends up to a position, itself included. Minus itself: those before.
        return said.masked_fill(ends.cumsum(1) - ends > 0, self.tokens.eos)


def decide(
    rows: Rows,
    logits: Tensor,
    count: int | Tensor,
    generators: Sequence[torch.Generator],
    where: Tensor | None = None,  # None: where ids may change; a CUDA graph asks everywhere
) -> Step:
    """The step that one pass leads to, from the logits `[N, V]` at `where` `[B, block]`."""
    config, ids = rows.config, rows.ids[:, rows.here]
    masked, editable = rows.open_positions()
    where = masked | editable if where is None else where
    streams: list[torch.Generator | None] = [None] * len(ids)  # None: the row samples nothing
    if rows.is_random:
        # A finished row samples nothing, so every row gets the numbers it would get alone.
        active = where.any(1).tolist()
        streams = [generator if busy else None for generator, busy in zip(generators, active)]
    # 1. a token for every open position, and which masked ones are committed
    tokens, confidence = choose_tokens(logits, config, streams, where)
    score = commit_score(config.strategy, logits, confidence, streams, where)
    commit = choose_commits(confidence, masked, count, config.threshold, score)
    edit = torch.zeros_like(commit)  # 2. which visible ones are rewritten
    if config.edit_threshold < 1 and editable.any():
        edits = choose_edits(logits, ids[where], editable[where], config.edit_threshold)
        likeliest, certainty, edit = (spread(part, where) for part in edits)
        tokens = torch.where(edit, likeliest, tokens)
        confidence = torch.where(masked, confidence, certainty)
    ids = torch.where(commit | edit, tokens, ids)  # 3. all others stay as they are
    return Step(rows.first, ids, confidence, commit, edit)

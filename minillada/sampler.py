"""Block decoding: append a block of masks, fill it step by step, go on.

The loop is that of LLaDA2.0 (arXiv 2512.15745).

Notable choices
- In each step a quota of the most confident positions is kept, or every position above the
  threshold if those are at least as many. What is kept is never masked again.
- With an edit threshold below 1 (LLaDA2.1, arXiv 2602.08676) every pass may also rewrite what the
  block already says. When no mask is left, passes go on until nothing changes.
- Finished blocks are final, so the prefix cache is exact: attention is block-causal, and keys and
  values of finished blocks cannot change. The released loop recomputes them in every step and gets
  the same tokens. The first step of a block forwards what was finished since the last block
  together with the new one, the following steps forward the block alone.
- Each row has its own random generator and stops by itself, so no row depends on the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .commit import (
    Tokens,
    choose_commits,
    choose_edits,
    choose_tokens,
    commit_score,
    quota,
    row_generators,
)
from .config import SamplingConfig
from .guidance import Pruner, guided_logits, open_branches
from .model import Backbone


class Step(NamedTuple):
    """One denoising step of the block at `start`; the tensors are `[B, block]`."""

    start: int
    ids: Tensor
    confidence: Tensor  # 0 where nothing was asked
    committed: Tensor
    edited: Tensor


class Generation(NamedTuple):
    """`ids` `[B, length]` after the prompt (eos behind an end), forward passes, and the steps."""

    ids: Tensor
    forwards: int
    steps: list[Step]

    @property
    def passes(self) -> Tensor:
        """How many forward passes each row needed, `[B]`; a row that is ready sits out the rest."""
        total = torch.zeros(len(self.ids), dtype=torch.long, device=self.ids.device)
        for step in self.steps:
            total += (step.confidence > 0).any(1)
        return total


class Rows:
    """Prompt and answer of every row, `ids` `[B, total]`, and how far the rows are."""

    def __init__(self, prompt: Tensor, length: int, total: int, tokens: Tokens, c: SamplingConfig):
        self.tokens, self.config = tokens, c
        self.start, self.end = prompt.shape[1], prompt.shape[1] + length
        self.ids = torch.full((len(prompt), total), tokens.mask, device=prompt.device)
        self.ids[:, : self.start] = prompt
        index = torch.arange(total, device=prompt.device)
        self.answer = (index >= self.start) & ((index < self.end) | c.fill_tail)  # [total]
        self.done = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
        self.enter(0)

    def blocks(self) -> range:
        """Where the blocks of the answer begin; the first one also holds the end of the prompt."""
        size = self.config.block_size
        return (
            range(self.start // size * size, self.end, size) if self.end > self.start else range(0)
        )

    def enter(self, first: int) -> None:
        """Begin with the block at position `first`."""
        self.first, self.here = first, slice(first, first + self.config.block_size)
        # Rows that may still be rewritten, and how many passes they made without a mask.
        self.unsettled = torch.full_like(self.done, self.config.edit_threshold < 1)
        self.post_steps = torch.zeros_like(self.done, dtype=torch.long)

    def asked(self) -> tuple[Tensor, Tensor]:
        """Where the block may be filled and where it may be rewritten, bool `[B, block]`."""
        own = self.answer[self.here] & ~self.done[:, None]
        masked = own & (self.ids[:, self.here] == self.tokens.mask)
        return masked, own & ~masked & self.unsettled[:, None]

    def write(self, step: Step) -> None:
        """Take over what a step says, and see which rows are settled or at their end."""
        had_masks = self.asked()[0].any(1)  # [B]
        self.ids[:, self.here] = step.ids
        # A block is settled when it has no mask and its last pass changed nothing, or after so
        # many passes without a mask.
        self.post_steps += ~had_masks
        changed = (step.committed | step.edited).any(1)
        again = changed & (self.post_steps < self.config.post_steps)
        self.unsettled &= self.asked()[0].any(1) | again
        if self.tokens.eos is not None:
            said = self.ids[:, self.start : self.end]
            self.done |= self.tokens.ended(said) & ~self.unsettled

    def answers(self) -> Tensor:
        """Ids `[B, length]`. What stands behind the first end is no answer: it becomes eos."""
        said = self.ids[:, self.start : self.end]
        if self.tokens.eos is None:
            return said
        ends = self.tokens.is_end(said).long()
        return said.masked_fill(ends.cumsum(1) - ends > 0, self.tokens.eos)


def plan(
    backbone: Backbone, prompt: Tensor, length: int, config: SamplingConfig
) -> tuple[int, int]:
    """How many tokens there will be, in whole blocks, and in how many steps a block is filled.

    `ValueError` if prompt and settings do not fit the model.
    """
    if length < 0:
        raise ValueError(f"length must be at least 0, got {length}")
    blocks = math.ceil((prompt.shape[-1] + length) / config.block_size)
    total, room = blocks * config.block_size, backbone.config.max_position_embeddings
    if total > room:
        raise ValueError(f"{total} tokens exceed the context of {room}; shorten prompt or length")
    backbone.check_ids(prompt)
    steps = min(config.steps, length // config.minimal_topk)
    if length and steps < 1:
        raise ValueError(
            f"minimal_topk {config.minimal_topk} leaves no step for {length} tokens; "
            "it must not be larger than the length"
        )
    return total, steps


@torch.no_grad()
def generate(
    backbone: Backbone,
    prompt: Tensor,
    length: int,
    config: SamplingConfig,
    tokens: Tokens,
    guidance: Sequence[Tensor] = (),
    generators: Sequence[torch.Generator] | None = None,
    cache: bool | Pruner = True,
) -> Generation:
    """Fill in `length` tokens after `prompt` `[B, P]`.

    `guidance` holds the prompts to compare with, `[1 or B, P']`: `(unconditional,)`, or
    `(no_text, no_image)` for editing. `generators` are those of the rows; without them row r uses
    seed r. `cache=False` is the reference mode: everything is recomputed in every step, as the
    released loop does, with the same tokens. A `Pruner` in its place shortens the cache, and the
    tokens may differ. `ValueError` if prompt, settings and model do not fit together.
    """
    # 1. Lay out whole blocks: the prompt, then masks.
    total, number_of_steps = plan(backbone, prompt, length, config)
    rows = Rows(prompt, length, total, tokens, config)
    if generators is None:
        generators = row_generators(0, len(prompt))
    if len(generators) != len(prompt):
        raise ValueError(f"{len(generators)} generators for {len(prompt)} rows; give one for each")
    branches = open_branches(backbone, prompt, config, tokens.mask, guidance, cache)
    steps: list[Step] = []

    # 2. Block after block, from the one in which the prompt ends.
    for first in rows.blocks():
        rows.enter(first)
        for number in itertools.count():
            masked, editable = rows.asked()  # [B, block]
            if not (masked | editable).any():
                break
            # 3. One forward pass for all branches, mixed by guidance.
            logits = guided_logits(branches.logits(rows.ids, first, number), config)
            logits = tokens.restrict(logits)  # [B, block, V]
            # 4. Choose tokens, keep the best of them, and write them down.
            count: int | Tensor = quota(config.block_size, number_of_steps, number)
            if config.adaptive:
                left = max(number_of_steps - number, 1)
                count = (masked.sum(1, keepdim=True) / left).ceil()  # [B, 1]
            steps.append(decide(rows, logits, count, generators))
            rows.write(steps[-1])
        # 5. Rows that are at their end need no further block.
        if rows.done.all():
            break
    return Generation(rows.answers(), len(steps), steps)


def decide(
    rows: Rows, logits: Tensor, count: int | Tensor, generators: Sequence[torch.Generator]
) -> Step:
    """What one pass makes of the block, from its logits `[B, n, V]`."""
    config, ids = rows.config, rows.ids[:, rows.here]
    masked, editable = rows.asked()
    # Rows that are ready draw no random numbers, as if they were alone.
    active = (masked | editable).any(1).tolist()
    source = [generator if busy else None for generator, busy in zip(generators, active)]
    tokens, confidence = choose_tokens(logits, config, source)
    score = commit_score(config.strategy, logits, confidence, source)
    commit = choose_commits(confidence, masked, count, config.threshold, score)
    edit = torch.zeros_like(commit)
    if editable.any():
        likeliest, certainty, edit = choose_edits(logits, ids, editable, config.edit_threshold)
        tokens = torch.where(edit, likeliest, tokens)
        confidence = torch.where(masked, confidence, certainty)
    ids = torch.where(commit | edit, tokens, ids)
    return Step(rows.first, ids, confidence * (masked | editable), commit, edit)

"""Block decoding (LLaDA2.0, arXiv 2512.15745): add a block of masks, fill it in steps, go on.

Notable choices
- Each step commits the most confident positions: as many as the quota says, or all above the
  threshold if those are at least as many. A committed position is never masked again.
- With an edit threshold below 1 (LLaDA2.1, arXiv 2602.08676) every pass may also rewrite tokens of
  the block. When no mask is left, passes go on until nothing changes.
- Attention is block-causal: a token sees its own block and earlier ones. So keys and values of a
  finished block cannot change, and the prefix cache that keeps them is exact. The released code
  computes them again in every step and gets the same tokens. The first step of a block also runs
  the block before it (now final), so that its keys enter the cache; later steps run it alone.
- Some tokens of the answer may be given. They are never masked, picked or rewritten: the others are
  filled in around them. A masked token sees those given in its own block and in earlier blocks, so
  `gather` moves the borders until as few blocks as possible hold the answer.
- Each row has its own random generator and stops by itself, so no row depends on the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .commit import (
    Tokens,
    choose_commits,
    choose_edits,
    choose_tokens,
    commit_score,
    quota,
    row_generators,
    spread,
)
from .config import SamplingConfig
from .guidance import Pruner, guided_logits, open_branches, padding_of
from .model import Backbone


class Step(NamedTuple):
    """One denoising step of the block at `start`; the tensors are `[B, block]`."""

    start: int
    ids: Tensor
    confidence: Tensor  # 0 at positions that this step could not change
    committed: Tensor
    edited: Tensor


class Generation(NamedTuple):
    """Ids `[B, length]` after the prompt (every id after the first end is eos), and the steps."""

    ids: Tensor
    forwards: int  # forward passes, the same number as steps
    steps: list[Step]

    @property
    def passes(self) -> Tensor:
        """How many forward passes each row needed, `[B]`; a finished row needs no more."""
        total = torch.zeros(len(self.ids), dtype=torch.long, device=self.ids.device)
        for step in self.steps:
            total += (step.confidence > 0).any(1)  # a row of zeros had nothing left to change
        return total


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
        self.enter(0)

    def blocks(self) -> range:
        """Where the blocks of the answer begin; the first may also hold the end of the prompt."""
        size = self.config.block_size
        if self.end == self.start:
            return range(0)  # an answer of length 0
        return range(self.start // size * size, self.end, size)

    def enter(self, first: int) -> None:
        """Begin with the block at position `first`."""
        self.first, self.here = first, slice(first, first + self.config.block_size)
        # [B]: rows that may still be rewritten, and the passes they have begun without a mask
        self.unsettled = torch.full_like(self.done, self.config.edit_threshold < 1)
        self.passes_without_mask = torch.zeros_like(self.done, dtype=torch.long)

    def open_positions(self) -> tuple[Tensor, Tensor]:
        """Where the block may be filled and where it may be rewritten, bool `[B, block]`."""
        own = self.free[:, self.here] & ~self.done[:, None]
        masked = own & (self.ids[:, self.here] == self.tokens.mask)
        return masked, own & ~masked & self.unsettled[:, None]

    def write(self, step: Step) -> None:
        """Write the ids of a step, and find the rows that are settled or at their end."""
        had_masks = self.open_positions()[0].any(1)  # [B]
        self.ids[:, self.here] = step.ids
        has_masks = self.open_positions()[0].any(1)
        # A block without masks is settled when a pass changed nothing, or when it has had
        # `post_steps` passes without a mask: two tokens may replace each other for ever.
        self.passes_without_mask += ~had_masks
        changed = (step.committed | step.edited).any(1)
        again = changed & (self.passes_without_mask < self.config.post_steps)
        self.unsettled &= has_masks | again
        if self.tokens.eos is not None:  # a token that may still be rewritten ends nothing
            said = self.ids[:, self.start : self.end]
            self.done |= self.tokens.ended(said) & ~self.unsettled

    def answers(self) -> Tensor:
        """Ids `[B, length]`; every id after the first end becomes eos."""
        said = self.ids[:, self.start : self.end]
        if self.tokens.eos is None:
            return said
        # The sum counts the ends up to a position, this one included, so that one is taken off.
        ends = self.tokens.is_end(said).long()
        return said.masked_fill(ends.cumsum(1) - ends > 0, self.tokens.eos)


def lay_out(
    prompt: Tensor, answer: int | Tensor, config: SamplingConfig, mask: int
) -> tuple[Tensor, Tensor, int]:
    """The padded prompt `[B, shift + P]`, the ids of the answer `[B, length]`, and the shift.

    An answer of which only the length is given is all masks.
    """
    if not isinstance(answer, Tensor):
        if answer < 0:
            raise ValueError(f"length must be at least 0, got {answer}")
        answer = torch.full((len(prompt), answer), mask, device=prompt.device)
    if len(answer) != len(prompt):
        raise ValueError(f"{len(answer)} answers for {len(prompt)} prompts; give one for each")
    shift = padding_of(prompt.shape[1], answer.shape[1], config)
    return F.pad(prompt, (shift, 0), value=mask), answer, shift


def plan(
    backbone: Backbone, prompt: Tensor, answer: Tensor, config: SamplingConfig
) -> tuple[int, int]:
    """The number of tokens in whole blocks, prompt included, and of steps that fill a block.

    `ValueError` if prompt, answer and settings do not fit the model.
    """
    length = answer.shape[1]
    blocks = math.ceil((prompt.shape[-1] + length) / config.block_size)
    total, room = blocks * config.block_size, backbone.config.max_position_embeddings
    if total > room:
        raise ValueError(f"{total} tokens exceed the context of {room}; shorten prompt or length")
    backbone.check_ids(prompt)
    backbone.check_ids(answer)
    steps = min(config.steps, length // config.minimal_topk)  # at least so many tokens a step
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
    answer: int | Tensor,
    config: SamplingConfig,
    tokens: Tokens,
    guidance: Sequence[Tensor] = (),
    generators: Sequence[torch.Generator] | None = None,
    cache: bool | Pruner = True,
) -> Generation:
    """Fill in so many tokens after `prompt` `[B, P]`, or the masks of an `answer` `[B, length]`.

    `guidance` holds the prompts to compare with, `[1 or B, P']`: `(unconditional,)`, or
    `(no_text, no_image)` for editing. `generators` are those of the rows; without them row r uses
    seed r. `cache=False` computes everything again in every step, as the released loop does; tokens
    are the same. With a `Pruner` they may differ. `ValueError` for settings that do not fit.
    """
    # 1. Lay out whole blocks: padding that moves their borders, the prompt, the answer.
    moved, answer, shift = lay_out(prompt, answer, config, tokens.mask)
    total, steps_per_block = plan(backbone, moved, answer, config)
    rows = Rows(moved, answer, total, tokens, config)
    if generators is None:
        generators = row_generators(0, len(prompt))
    if len(generators) != len(prompt):
        raise ValueError(f"{len(generators)} generators for {len(prompt)} rows; give one for each")
    branches = open_branches(backbone, prompt, config, tokens.mask, guidance, cache, shift)
    history: list[Step] = []

    # 2. Block after block, from the one in which the prompt ends.
    for first in rows.blocks():
        rows.enter(first)
        for step in itertools.count():
            masked, editable = rows.open_positions()  # [B, block]
            where = masked | editable  # the N positions that this step may change
            if not where.any():
                break
            # 3. One forward pass for all branches, mixed by guidance.
            logits = guided_logits(branches.logits(rows.ids, first, step, where), config)
            logits = tokens.restrict(logits)  # [N, V]
            # 4. Pick tokens, commit some of them, and write these down.
            count: int | Tensor = quota(config.block_size, steps_per_block, step)
            if config.adaptive:  # share out the masks that are really left
                left = max(steps_per_block - step, 1)
                count = (masked.sum(1, keepdim=True) / left).ceil()  # [B, 1]
            history.append(decide(rows, logits, count, generators))
            rows.write(history[-1])
        # 5. Rows that are at their end need no further block.
        if rows.done.all():
            break
    return Generation(rows.answers(), len(history), history)


def decide(
    rows: Rows, logits: Tensor, count: int | Tensor, generators: Sequence[torch.Generator]
) -> Step:
    """The step that one pass leads to, from the logits `[N, V]` of the open positions."""
    config, ids = rows.config, rows.ids[:, rows.here]
    masked, editable = rows.open_positions()
    where = masked | editable  # [B, block]
    # A finished row samples nothing, so every row gets the numbers it would get alone.
    active = where.any(1).tolist()
    source = [generator if busy else None for generator, busy in zip(generators, active)]
    # 1. a token for every open position, and which masked ones are committed
    tokens, confidence = choose_tokens(logits, config, source, where)
    score = commit_score(config.strategy, logits, confidence, source, where)
    commit = choose_commits(confidence, masked, count, config.threshold, score)
    edit = torch.zeros_like(commit)  # 2. which visible ones are rewritten
    if editable.any():
        edits = choose_edits(logits, ids[where], editable[where], config.edit_threshold)
        likeliest, certainty, edit = (spread(part, where) for part in edits)
        tokens = torch.where(edit, likeliest, tokens)
        confidence = torch.where(masked, confidence, certainty)
    ids = torch.where(commit | edit, tokens, ids)  # 3. all others stay as they are
    return Step(rows.first, ids, confidence, commit, edit)

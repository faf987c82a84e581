"""Block decoding (LLaDA2.0, arXiv 2512.15745): add a block of masks, fill it in steps, go on.

Notable choices
- Attention is block-causal: a token sees its own block and earlier ones. So keys and values of a
  finished block cannot change, and the prefix cache that keeps them is exact. The first step of a
  block also runs the block before it, now final, whose keys enter the cache; later steps do not.
- Some tokens of the answer may be given. They are never masked, picked or rewritten: the others are
  filled in around them. A masked token sees those given in its own block and in earlier blocks, so
  `gather` moves the borders until as few blocks as possible hold the answer.
- What a step does to its rows is in `rows.py`. A `Recorder` may run the steps in another way.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from .batching import padded_length
from .commit import Tokens, quota, row_generators
from .config import SamplingConfig
from .guidance import Branches, Pruner, guided_logits, open_branches, padding_of
from .model import Backbone
from .rows import Rows, Step, decide


class Generation(NamedTuple):
    """Ids `[B, length]` after the prompt (every id after the first end is eos), and the steps."""

    ids: Tensor
    steps: list[Step]
    start: int = 0  # position of the first of these ids: padding and prompt stand before it
    rows: Sequence[int] = ()  # which rows of a call these are, where it was cut into batches

    def place(self, row: int) -> int:
        """Where a row of the call stands in `ids`; `ValueError` for one of another batch."""
        if row not in self.rows:
            raise ValueError(f"row {row} is not in the batch whose steps are kept; trace it alone")
        return self.rows.index(row)

    @property
    def forwards(self) -> int:
        """How many forward passes there were: one for each step."""
        return len(self.steps)

    @property
    def passes(self) -> Tensor:
        """How many passes each row needed, `[B]`; all branches of guidance together are one."""
        total = torch.zeros(len(self.ids), dtype=torch.long, device=self.ids.device)
        for step in self.steps:
            total += (step.confidence > 0).any(1)  # a row of zeros had nothing left to change
        return total


def lay_out(
    prompt: Tensor, answer: int | Tensor, config: SamplingConfig, mask: int
) -> tuple[Tensor, Tensor, int]:
    """The padded prompt `[B, shift + P]`, the ids of the answer `[B, length]`, and the shift."""
    if not isinstance(answer, Tensor):
        if answer < 0:
            raise ValueError(f"length must be at least 0, got {answer}")
        answer = torch.full((len(prompt), answer), mask, device=prompt.device)  # nothing is given
    if len(answer) != len(prompt):
        raise ValueError(f"{len(answer)} answers for {len(prompt)} prompts; give one for each")
    shift = padding_of(prompt.shape[1], answer.shape[1], config)
    return F.pad(prompt, (shift, 0), value=mask), answer, shift


def plan(
    backbone: Backbone, prompt: Tensor, answer: Tensor, config: SamplingConfig, shift: int
) -> tuple[int, int]:
    """The number of tokens in whole blocks, prompt included, and of steps that fill a block.

    `ValueError` if prompt, answer and settings do not fit the model.
    """
    before, length = prompt.shape[1] - shift, answer.shape[1]  # `shift` is padding
    total = padded_length(shift + before + length, config.block_size)
    room = backbone.config.max_position_embeddings
    if total > room:
        way = "shorten one of them, or take a model with more max_position_embeddings"
        if before + length <= room:
            way = "choose a smaller block_size, or one that divides the context"
        raise ValueError(
            f"a prompt of {before} tokens and an answer of {length} exceed the context of {room}, "
            f"as they fill {total} in blocks of {config.block_size}; {way}"
        )
    backbone.check_ids(prompt)
    backbone.check_ids(answer)
    least = config.minimal_topk  # tokens per step, if the whole answer were one block
    steps = min(config.steps, length // least)
    if length and steps < 1:
        raise ValueError(f"minimal_topk {least} leaves no step for {length} tokens; lower it")
    return total, steps


@torch.no_grad()
def generate(
    backbone: Backbone,
    prompt: Tensor,
    answer: int | Tensor,
    config: SamplingConfig,
    tokens: Tokens,
    others: Sequence[Tensor] = (),
    generators: Sequence[torch.Generator] | None = None,
    cache: bool | Pruner | Recorder = True,
) -> Generation:
    """Write `answer` tokens after `prompt` `[B, P]`, or fill the masks of `answer` `[B, length]`.

    `others` are the prompts that guidance compares with, `[1 or B, P']`: `(unconditional,)`, or
    `(no_text, no_image)` for editing. `generators` are those of the rows; without them row r uses
    seed r. `cache=False` computes everything again in every step, as the released loop does; tokens
    are the same. With a `Pruner` they may differ. A `Recorder` makes the same steps faster on a
    GPU. `ValueError` for settings that do not fit.
    """
    # 1. Lay out whole blocks: padding that moves their borders, the prompt, the answer.
    padded, answer, shift = lay_out(prompt, answer, config, tokens.mask)
    total, steps_per_block = plan(backbone, padded, answer, config, shift)
    if generators is None:
        generators = row_generators(0, len(prompt))
    if len(generators) != len(prompt):
        raise ValueError(f"{len(generators)} generators for {len(prompt)} rows; give one for each")
    way = True if isinstance(cache, Recorder) else cache  # a recorder takes over below
    # Branches pad their prompts themselves, by `shift`. Of `rows.ids` they read the answer alone.
    branches = open_branches(backbone, prompt, config, tokens.mask, others, way, shift)
    rows = Rows(padded, answer, total, tokens, config)
    loop = Loop(rows, branches, generators, steps_per_block)
    if isinstance(cache, Recorder):
        loop = cache.attach(loop)

    # 2. Block after block, from the one in which the prompt ends.
    history: list[Step] = []
    for first in rows.blocks():
        loop.enter(first)
        for number in itertools.count():
            step = loop.step(number)
            if step is None:  # nothing in this block is left to change
                break
            history.append(step)
        # 3. Rows that are at their end need no further block.
        if loop.rows.done.all():
            break
    return Generation(loop.rows.answers(), history, padded.shape[1], range(len(prompt)))


@dataclass
class Loop:
    """A generation that is under way."""

    rows: Rows
    branches: Branches  # what the rows are predicted from
    generators: Sequence[torch.Generator]  # one for each row
    steps_per_block: int

    def enter(self, first: int) -> None:
        """Begin with the block at position `first`."""
        self.rows.enter(first)

    def step(self, number: int) -> Step | None:
        """The step of this number in its block, written down; None if nothing is left to do."""
        masked, editable = self.rows.open_positions()  # [B, block]
        where = masked | editable  # the N positions that this step may change
        if not where.any():
            return None
        # 1. One forward pass for all branches, mixed by guidance.
        logits = self.logits(number, where)
        # 2. Pick tokens, commit some of them, and write these down.
        count = self.count(masked, self.pace(number))
        step = decide(self.rows, logits, count, self.generators)
        self.rows.write(step)
        return step

    def logits(self, number: int, where: Tensor) -> Tensor:
        """Logits `[N, V]` of the tokens that may be written."""
        rows = self.rows
        branches = self.branches.logits(rows.ids, rows.first, number, where)
        return rows.tokens.restrict(guided_logits(branches, rows.config))

    def pace(self, number: int) -> int:
        """The quota, or with `adaptive` the steps left. It changes, so no CUDA graph records it."""
        if self.rows.config.adaptive:
            return max(self.steps_per_block - number, 1)
        return quota(self.rows.config.block_size, self.steps_per_block, number)

    def count(self, masked: Tensor, pace: int | Tensor) -> int | Tensor:
        """How many positions a step commits at least."""
        if self.rows.config.adaptive:  # share out the masks that are really left
            left = masked.sum(1, keepdim=True)  # [B, 1]
            return (left / pace).ceil().clamp_min(self.rows.config.minimal_topk)
        return pace


@runtime_checkable
class Recorder(Protocol):
    """What `generate` needs of an object that runs its steps otherwise (`extras/graphs.py`)."""

    def attach(self, loop: Loop) -> Loop:
        """A loop with the same steps."""

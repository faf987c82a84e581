"""Block decoding: append a block of masks, fill it step by step, make it final, go on (LLaDA2.0, arXiv 2512.15745).

Notable choices
- The commit rule is the official one: per step a quota of the most confident positions, or every position above the
  threshold if those are at least as many. What is committed is never masked again.
- With an edit threshold below 1 (LLaDA2.1) every pass may also rewrite what the block already says, and when no mask is
  left, passes go on until nothing changes. Finished blocks are final, so the cache stays exact.
- The prefix cache is exact. Attention is block-causal, so keys and values of finished blocks can never change; the
  released loop recomputes them at every step and gets the same tokens. The first step of a block forwards the blocks
  finished since the last one together with the new one; the following steps forward the block alone.
- Guidance runs all branches as one batch with one cache. The shorter prompts are padded on the left, their padding
  hidden from attention, and their real tokens count positions from 0, as the official code does.
- SPRINT prunes that cache (see `sprint`); everything else stays as it is.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from .commit import STRATEGIES, choose_commits, choose_edits, choose_tokens, commit_score, quota
from .config import SamplingConfig
from .extras.sprint import Sprint
from .guidance import Branches, combine
from .model import Backbone, KVCache


class Step(NamedTuple):
    """One denoising step, for plotting: `start` of the block, its `ids`, `confidence` (0 where nothing was asked) and
    which positions were `committed` and `edited`, each `[B, block]`."""

    start: int
    ids: Tensor
    confidence: Tensor
    committed: Tensor
    edited: Tensor


class Generation(NamedTuple):
    """`ids` `[B, length]` without the prompt (eos after the end), the number of forward passes, and the steps."""

    ids: Tensor
    forwards: int
    steps: list[Step]

    @property
    def passes(self) -> Tensor:
        """How many forward passes each row needed, `[B]`; a row that is ready early sits out the others of its batch."""
        return torch.stack([(step.confidence > 0).any(1) for step in self.steps]).sum(0)


def check_sampling(config: SamplingConfig) -> None:
    """`ValueError` in one sentence for settings that cannot decode."""
    rules = [
        (config.steps >= 1, f"steps must be at least 1, got {config.steps}"),
        (config.block_size >= 1, f"block size must be at least 1, got {config.block_size}"),
        (0 <= config.threshold <= 1, f"threshold must lie in [0, 1], got {config.threshold}"),
        (
            config.temperature == 0 or 1e-3 <= config.temperature < math.inf,
            f"temperature must be 0 (the most likely token) or at least 0.001 and finite, got {config.temperature}",
        ),
        (config.top_k is None or config.top_k >= 1, f"top_k must be at least 1, got {config.top_k}"),
        (config.top_p is None or 0 < config.top_p <= 1, f"top_p must lie in (0, 1], got {config.top_p}"),
        (math.isfinite(config.guidance), f"guidance must be a finite number, got {config.guidance}"),
        (math.isfinite(config.guidance_image), f"image guidance must be a finite number, got {config.guidance_image}"),
        (0 <= config.rescale <= 1, f"rescale must lie in [0, 1], got {config.rescale}"),
        (config.minimal_topk >= 1, f"minimal_topk must be at least 1, got {config.minimal_topk}"),
        (0 <= config.edit_threshold <= 1, f"edit threshold must lie in [0, 1], got {config.edit_threshold}"),
        (config.post_steps >= 0, f"post_steps must be at least 0, got {config.post_steps}"),
        (config.strategy in STRATEGIES, f"unknown strategy {config.strategy!r}; choose one of {', '.join(STRATEGIES)}"),
    ]
    for good, sentence in rules:
        if not good:
            raise ValueError(sentence)


def plan(backbone: Backbone, prompt: Tensor, length: int, config: SamplingConfig) -> tuple[int, int]:
    """How many tokens there will be, in whole blocks, and in how many steps a block is filled; `ValueError` if that cannot be."""
    check_sampling(config)
    backbone.check_ids(prompt)
    total = -(-(prompt.shape[1] + length) // config.block_size) * config.block_size
    if total > backbone.config.max_position_embeddings:
        raise ValueError(f"{total} tokens exceed the context of {backbone.config.max_position_embeddings}; shorten prompt or length")
    steps = min(config.steps, length // config.minimal_topk)
    if length and steps < 1:
        raise ValueError(f"minimal_topk {config.minimal_topk} leaves no step for {length} tokens; it must not be larger than the length")
    return total, steps


@torch.no_grad()
def generate(
    backbone: Backbone,
    prompt: Tensor,
    length: int,
    config: SamplingConfig,
    mask_id: int,
    eos_id: int | None = None,
    stop_id: int | None = None,
    allowed: Tensor | None = None,
    unconditional: Tensor | None = None,
    no_image: Tensor | None = None,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
    sprint: Sprint | None = None,
) -> Generation:
    """Fill in `length` tokens after `prompt` `[B, P]`.

    `eos_id`: a row ends when it is committed with no mask before it; at `stop_id`, too, as where text turns into an image.
    `allowed` bool `[V]` restricts the vocabulary.
    `unconditional` `[1 or B, P']`, P' <= P, is the guidance branch, used when `config.guidance` is not 1; with `no_image`, the
    third branch of editing, it is the one without text. `use_cache=False` is the reference mode: everything is recomputed at
    every step, as the released loop does; the tokens are the same. `sprint` prunes the cache, and the tokens may differ.
    """
    total, number_of_steps = plan(backbone, prompt, length, config)
    rows, start = prompt.shape
    end, block = start + length, config.block_size
    three_way = no_image is not None and config.guidance_image != 0
    prompts = [prompt]
    if unconditional is not None and (config.guidance != 1 or three_way):
        prompts += [unconditional, no_image] if three_way else [unconditional]
    if sprint and (three_way or not use_cache):
        raise ValueError("SPRINT prunes the prefix cache of at most two branches; use it with the cache and without three-way guidance")
    cache = KVCache(backbone.config.num_hidden_layers) if use_cache else None
    branches = Branches(backbone, prompts, config, mask_id, cache, sprint)
    canvas = torch.full((rows, total), mask_id, device=prompt.device)
    canvas[:, :start] = prompt
    index = torch.arange(total, device=prompt.device)
    answer = (index >= start) & ((index < end) | config.fill_tail)
    steps = []
    done = torch.zeros(rows, dtype=torch.bool, device=prompt.device)
    for first in range(start // block * block, end, block):
        here = slice(first, first + block)
        unsettled = torch.full_like(done, config.edit_threshold < 1)  # rows that may still be rewritten
        post_steps = torch.zeros(rows, dtype=torch.long, device=prompt.device)
        for step in itertools.count():  # the quotas of `number_of_steps` steps fill every block
            own = answer[here] & ~done[:, None]
            masked = (canvas[:, here] == mask_id) & own
            editable = own & ~masked & unsettled[:, None]
            if not (masked | editable).any():
                break
            logits = combine(branches.logits(canvas, first, step), config)
            logits[..., mask_id] = -math.inf
            if allowed is not None:
                logits = logits.masked_fill(~allowed.to(logits.device), -math.inf)
            count = quota(block, number_of_steps, step)
            if config.adaptive:
                count = -(-masked.sum(1, keepdim=True) // max(number_of_steps - step, 1))
            steps.append(decide(first, logits, canvas[:, here], masked, editable, count, config, generator))
            canvas[:, here] = steps[-1].ids
            post_steps += ~masked.any(1)
            changed = (steps[-1].committed | steps[-1].edited).any(1)
            unsettled &= ((canvas[:, here] == mask_id) & own).any(1) | changed & (post_steps < config.post_steps)
            if eos_id is not None:
                done |= ended(canvas[:, start:end], mask_id, eos_id, stop_id) & ~unsettled
        if done.all():
            break
    ids = canvas[:, start:end]
    if eos_id is not None:  # whatever stands behind the first end is not part of the answer
        stops = is_end(ids, eos_id, stop_id)
        ids = ids.masked_fill(stops.cumsum(1) - stops.long() > 0, eos_id)
    return Generation(ids, len(steps), steps)


def decide(
    start: int,
    logits: Tensor,
    ids: Tensor,
    masked: Tensor,
    editable: Tensor,
    count: int | Tensor,
    config: SamplingConfig,
    generator: torch.Generator | None,
) -> Step:
    """What one pass makes of the block `ids` `[B, n]` at `start`, from its logits `[B, n, V]`: commits where `masked`, edits where `editable`."""
    tokens, confidence = choose_tokens(logits, config, generator)
    score = commit_score(config.strategy, logits, confidence, generator)
    commit = choose_commits(confidence, masked, count, config.threshold, score)
    edit = torch.zeros_like(commit)
    if editable.any():
        likeliest, certainty, edit = choose_edits(logits, ids, editable, config.edit_threshold)
        tokens, confidence = torch.where(edit, likeliest, tokens), torch.where(masked, confidence, certainty)
    return Step(start, torch.where(commit | edit, tokens, ids), confidence * (masked | editable), commit, edit)


def is_end(ids: Tensor, eos_id: int, stop_id: int | None) -> Tensor:
    """Which ids end a row."""
    return (ids == eos_id) if stop_id is None else (ids == eos_id) | (ids == stop_id)


def ended(ids: Tensor, mask_id: int, eos_id: int, stop_id: int | None = None) -> Tensor:
    """Rows `[B]` of `[B, n]` that contain an end with no mask before it."""
    masks_before = (ids == mask_id).cumsum(1)
    return (is_end(ids, eos_id, stop_id) & (masks_before == 0)).any(1)

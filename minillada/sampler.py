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

from .config import SamplingConfig
from .masks import block_causal_mask
from .model import Backbone, KVCache
from .sprint import Sprint

STRATEGIES = ("low_confidence", "top_k_margin", "neg_entropy", "random", "left_to_right")


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


def quota(block_size: int, steps: int, step: int) -> int:
    """How many positions step `step` must commit: the block's share, the remainder going to the first steps."""
    return block_size // steps + (step < block_size % steps)


def choose_commits(confidence: Tensor, eligible: Tensor, count: int | Tensor, threshold: float, score: Tensor | None = None) -> Tensor:
    """The official commit rule, per row: all `eligible` positions above `threshold` if they are at least `count`,
    else the `count` (one number, or `[B, 1]`) best by `score`, which is the confidence if left out. All `[B, n]`."""
    score = (confidence if score is None else score).masked_fill(~eligible, -math.inf)
    confident = (confidence > threshold) & eligible
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    enough = confident.sum(1, keepdim=True) >= count
    return torch.where(enough, confident, rank < count) & eligible


def choose_edits(logits: Tensor, ids: Tensor, editable: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """LLaDA2.1: rewrite `editable` positions whose likeliest token is another one, with probability above `threshold`.

    Logits `[B, n, V]`, the others `[B, n]`; returns likeliest tokens, their probabilities, and where to rewrite. Also when tokens are
    committed by chance, edits are not: a sample would overwrite good tokens with other good ones for ever.
    """
    confidence, tokens = logits.softmax(-1).max(-1)
    return tokens, confidence, editable & (tokens != ids) & (confidence > threshold)


def commit_score(strategy: str, logits: Tensor, confidence: Tensor, generator: torch.Generator | None) -> Tensor:
    """What the quota ranks positions by, `[B, n]` from logits `[B, n, V]`; the threshold always looks at the confidence.

    `low_confidence` (so called because the least confident stay masked): probability of the chosen token;
    `top_k_margin`: lead of the best token over the second; `neg_entropy`: minus the entropy; `random`: no preference. These are
    SPRINT's. `left_to_right`: earlier positions first, so that with one token a step nothing is said before what it follows from.
    """
    if strategy == "low_confidence":
        return confidence
    if strategy == "top_k_margin":
        best = logits.softmax(-1).topk(2, dim=-1).values
        return best[..., 0] - best[..., 1]
    if strategy == "neg_entropy":
        return -torch.special.entr(logits.softmax(-1)).sum(-1)
    if strategy == "left_to_right":
        return -torch.arange(confidence.shape[1], device=confidence.device).expand_as(confidence).to(confidence.dtype)
    return torch.rand(confidence.shape, generator=generator).to(confidence.device)


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: u + s (c − u); scale 1 returns the conditional logits."""
    return conditional if scale == 1 else unconditional + scale * (conditional - unconditional)


def guide_edit(full: Tensor, no_text: Tensor, no_image: Tensor, scale_text: float, scale_image: float) -> Tensor:
    """Three-way guidance of editing: nt + s_text (full − nt) + s_image (nt − ni)."""
    return no_text + scale_text * (full - no_text) + scale_image * (no_text - no_image)


def rescale(guided: Tensor, conditional: Tensor, phi: float) -> Tensor:
    """φ z std(c) / std(z) + (1 − φ) z, std over the vocabulary: guidance overshoots, this takes the spread back; `[B, n, V]`."""
    spread = conditional.std(-1, keepdim=True) / (guided.std(-1, keepdim=True) + 1e-6)
    return phi * guided * spread + (1 - phi) * guided


def filter_logits(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Set to −inf all but the `top_k` best and all outside the smallest set holding probability `top_p`; `[..., V]`."""
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k, dim=-1).values[..., -1:], -math.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        drop = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= top_p)  # the best one always stays
        logits = logits.masked_fill(drop, -math.inf)
    return logits


def choose_tokens(logits: Tensor, config: SamplingConfig, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Token and its probability at every position, from logits `[B, n, V]`; temperature 0 takes the most likely."""
    if config.temperature == 0:
        confidence, tokens = logits.softmax(-1).max(-1)
        return tokens, confidence
    probabilities = filter_logits(logits / config.temperature, config.top_k, config.top_p).softmax(-1)
    # argmax of p / Exp(1) noise is a sample from p; the noise comes from the CPU so that every device draws the same.
    noise = torch.empty(probabilities.shape).exponential_(generator=generator).to(probabilities.device)
    tokens = (probabilities / noise.clamp_min(1e-20)).argmax(-1)
    return tokens, probabilities.gather(-1, tokens[..., None])[..., 0]


class Branches:
    """Logits of one block for all guidance branches, run as one batch of `G · B` rows over one prefix cache.

    Rows are ordered by branch, the conditional one first. A branch is the prompt `[B, P]` or a shorter one `[1 or B, P']`.
    """

    def __init__(
        self, backbone: Backbone, prompts: list[Tensor], config: SamplingConfig, pad_id: int, cache: KVCache | None, sprint: Sprint | None
    ):
        self.backbone, self.block, self.cache, self.sprint = backbone, config.block_size, cache, sprint
        rows, self.start = prompts[0].shape
        self.count = len(prompts)
        padded, padding = [], []
        for prompt in prompts:
            missing = self.start - prompt.shape[1]
            if missing < 0:
                raise ValueError(
                    "a guidance prompt is longer than the prompt; it is padded on the left to the same length, so it must not be"
                )
            filler = torch.full((rows, missing), pad_id, device=prompt.device)  # never seen: hidden by the attention mask
            padded.append(torch.cat([filler, prompt.expand(rows, -1)], 1))
            padding += [missing] * rows
        if sprint:
            sprint.begin(len(padding), prompts[0].device)
        self.prefix = torch.cat(padded)
        self.padding = torch.tensor(padding, device=self.prefix.device)[:, None]

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor | None:
        """Block-causal mask without the padding `[G · B or 1, Q, K]`, or None where everything may be seen."""
        if len(queries) <= self.block and not self.padding.any() and int(keys[-1]) // self.block == int(queries[0]) // self.block:
            return None
        mask = block_causal_mask(queries, keys, self.block)
        if self.padding.any():
            # A padding query must see something, if only itself.
            mask = mask & (keys >= self.padding)[:, None, :] | (queries[:, None] == keys)[None]
        return mask

    def logits(self, canvas: Tensor, first: int, step: int) -> list[Tensor]:
        """Logits `[B, block, V]` of the block at `first` for each branch; `canvas` `[B, ≥ first + block]` holds the ids so far."""
        last = first + self.block
        if self.sprint and step >= self.sprint.warmup:
            return self._pruned_logits(canvas, first, step)
        known = self.cache.length if self.cache else 0
        ids = torch.cat([self.prefix[:, known:], canvas[:, max(known, self.start) : last].repeat(self.count, 1)], 1)[:, : last - known]
        index = torch.arange(last, device=canvas.device)
        positions = (index[known:] - self.padding).clamp_min(0)
        mask = self.visible(index[known:], index)
        hidden = self.backbone.hidden_states(ids, mask, positions, self.cache, keep=first - known)
        if self.sprint and first > known:
            self.sprint.remember(self.backbone.logits(hidden[:, : first - known]), ids[:, : first - known])
        return list(self.backbone.logits(hidden[:, first - known :]).chunk(self.count))

    def _pruned_logits(self, canvas: Tensor, first: int, step: int) -> list[Tensor]:
        """The same from a cache that keeps only the positions SPRINT finds important, chosen once a block."""
        if step == self.sprint.warmup:
            self.sprint.prune(self.cache, self.padding)
        own = torch.arange(first, first + self.block, device=canvas.device)
        mask = None
        if self.sprint.hidden.any():
            mask = torch.cat([~self.sprint.hidden, torch.ones_like(self.sprint.hidden[:, :1]).expand(-1, self.block)], 1)[:, None].expand(
                -1, self.block, -1
            )
        hidden = self.backbone.hidden_states(
            canvas[:, first : first + self.block].repeat(self.count, 1), mask, own - self.padding, self.sprint.cache, keep=0
        )
        return list(self.backbone.logits(hidden).chunk(self.count))


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


def combine(branches: list[Tensor], config: SamplingConfig) -> Tensor:
    """One set of logits from those of one, two or three branches."""
    if len(branches) == 1:
        return branches[0]
    guided = guide(*branches, config.guidance) if len(branches) == 2 else guide_edit(*branches, config.guidance, config.guidance_image)
    return rescale(guided, branches[0], config.rescale) if config.rescale else guided


def is_end(ids: Tensor, eos_id: int, stop_id: int | None) -> Tensor:
    """Which ids end a row."""
    return (ids == eos_id) if stop_id is None else (ids == eos_id) | (ids == stop_id)


def ended(ids: Tensor, mask_id: int, eos_id: int, stop_id: int | None = None) -> Tensor:
    """Rows `[B]` of `[B, n]` that contain an end with no mask before it."""
    masks_before = (ids == mask_id).cumsum(1)
    return (is_end(ids, eos_id, stop_id) & (masks_before == 0)).any(1)

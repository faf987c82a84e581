"""Block decoding: append a block of masks, fill it step by step, make it final, go on (LLaDA2.0, arXiv 2512.15745).

Notable choices
- The commit rule is the official one: per step a quota of the most confident positions, or every position above the
  threshold if those are at least as many. What is committed is never masked again.
- The prefix cache is exact. Attention is block-causal, so keys and values of finished blocks can never change; the
  released loop recomputes them at every step and gets the same tokens. The first step of a block forwards the blocks
  finished since the last one together with the new one; the following steps forward the block alone.
- Guidance runs both branches as one batch. The unconditional prompt is shorter: it is padded on the left, its padding
  hidden from attention, and its real tokens count positions from 0, as the official code does.
- Positions of the last block beyond the requested length stay masked; the released loop fills and then cuts them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .config import SamplingConfig
from .masks import block_causal_mask
from .model import Backbone, KVCache


class Step(NamedTuple):
    """One denoising step, for plotting: `start` of the block, its `ids`, `confidence` (0 where nothing was asked) and
    which positions were `committed`, each `[B, block]`."""

    start: int
    ids: Tensor
    confidence: Tensor
    committed: Tensor


class Generation(NamedTuple):
    """`ids` `[B, length]` without the prompt (eos after the end), the number of forward passes, and the steps."""

    ids: Tensor
    forwards: int
    steps: list[Step]


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
    ]
    for good, sentence in rules:
        if not good:
            raise ValueError(sentence)


def quota(block_size: int, steps: int, step: int) -> int:
    """How many positions step `step` must commit: the block's share, the remainder going to the first steps."""
    return block_size // steps + (step < block_size % steps)


def choose_commits(confidence: Tensor, eligible: Tensor, count: int, threshold: float) -> Tensor:
    """The official commit rule, per row: all `eligible` positions above `threshold` if they are at least `count`,
    else the `count` most confident. Confidence and result `[B, n]`."""
    score = confidence.masked_fill(~eligible, -1.0)
    confident = score > threshold
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    enough = confident.sum(1, keepdim=True) >= count
    return torch.where(enough, confident, rank < count) & eligible


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: u + s (c − u); scale 1 returns the conditional logits."""
    return conditional if scale == 1 else unconditional + scale * (conditional - unconditional)


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


@torch.no_grad()
def generate(
    backbone: Backbone,
    prompt: Tensor,
    length: int,
    config: SamplingConfig,
    mask_id: int,
    eos_id: int | None = None,
    allowed: Tensor | None = None,
    unconditional: Tensor | None = None,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
) -> Generation:
    """Fill in `length` tokens after `prompt` `[B, P]`.

    `eos_id`: a row ends when it is committed with no mask before it. `allowed` bool `[V]` restricts the vocabulary.
    `unconditional` `[1, P']`, P' <= P, is the guidance branch, used when `config.guidance` is not 1.
    `use_cache=False` recomputes everything at every step, as the released loop does; the tokens are the same.
    """
    check_sampling(config)
    backbone.check_ids(prompt)
    rows, start = prompt.shape
    end, block = start + length, config.block_size
    total = -(-end // block) * block
    if total > backbone.config.max_position_embeddings:
        raise ValueError(f"{total} tokens exceed the context of {backbone.config.max_position_embeddings}; shorten prompt or length")
    device = prompt.device
    canvas = torch.full((rows, total), mask_id, device=device)
    canvas[:, :start] = prompt
    guided = config.guidance != 1 and unconditional is not None
    padding = torch.zeros(rows, 1, dtype=torch.long, device=device)
    prefix = canvas
    if guided:
        missing = start - unconditional.shape[1]
        if missing < 0:
            raise ValueError("the unconditional prompt is longer than the prompt; guidance pads it on the left, so it must not be")
        second = canvas.clone()
        second[:, :missing] = mask_id  # never seen: hidden by the attention mask
        second[:, missing:start] = unconditional
        prefix = torch.cat([canvas, second])
        padding = torch.cat([padding, padding + missing])
    index = torch.arange(total, device=device)
    positions = (index - padding).clamp_min(0)
    visible = block_causal_mask(index, index, block) & (index >= padding)[:, None, :]
    visible = visible | torch.eye(total, dtype=torch.bool, device=device)  # a padding query must see something, if only itself

    cache = KVCache(backbone.config.num_hidden_layers) if use_cache else None
    forwards, steps = 0, []
    done = torch.zeros(rows, dtype=torch.bool, device=device)
    for first in range(start // block * block, end, block):
        last = first + block
        inside = (index[first:last] >= start) & (index[first:last] < end)
        for step in range(config.steps):
            masked = (canvas[:, first:last] == mask_id) & inside & ~done[:, None]
            if not masked.any():
                break
            known = cache.length if cache else 0
            ids = torch.cat([prefix[:, known:start], canvas[:, max(known, start) :].repeat(1 + guided, 1)], 1)[:, : last - known]
            hidden = backbone.hidden_states(ids, visible[:, known:last, :last], positions[:, known:last], cache, keep=first - known)
            forwards += 1
            logits = backbone.logits(hidden[:, first - known :])
            if guided:
                logits = guide(*logits.chunk(2), config.guidance)
            logits[..., mask_id] = -math.inf
            if allowed is not None:
                logits = logits.masked_fill(~allowed.to(device), -math.inf)
            tokens, confidence = choose_tokens(logits, config, generator)
            commit = choose_commits(confidence, masked, quota(block, config.steps, step), config.threshold)
            canvas[:, first:last] = torch.where(commit, tokens, canvas[:, first:last])
            steps.append(Step(first, canvas[:, first:last].clone(), confidence * masked, commit))
            if eos_id is not None:
                done |= ended(canvas[:, start:end], mask_id, eos_id)
        if done.all():
            break
    ids = canvas[:, start:end]
    if eos_id is not None:  # whatever stands behind the first end of text is not part of the answer
        after = (ids == eos_id).cumsum(1) > 0
        ids = ids.masked_fill(after, eos_id)
    return Generation(ids, forwards, steps)


def ended(ids: Tensor, mask_id: int, eos_id: int) -> Tensor:
    """Rows `[B]` of `[B, n]` that contain an end of text with no mask before it."""
    masks_before = (ids == mask_id).cumsum(1)
    return ((ids == eos_id) & (masks_before == 0)).any(1)

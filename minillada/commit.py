"""Which tokens are kept in a step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .config import SamplingConfig

STRATEGIES = ("low_confidence", "top_k_margin", "neg_entropy", "random", "left_to_right")


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

"""Which tokens a decoding step chooses, and which of them are kept (LLaDA2.0, arXiv 2512.15745).

Notable choices
- Choosing a token and keeping it are two decisions: every position gets a token, the rule of
  `choose_commits` keeps some of them.
- The threshold always looks at the confidence, the probability of the chosen token. The strategies
  change only the order in which the quota takes positions.
- Random numbers are drawn on the CPU, so that every device gets the same ones, and from one
  generator a row, so that what a row gets does not depend on the other rows of its batch.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import SamplingConfig, Strategy

LARGEST_SEED = 2**31

# One for each row of a batch; None for a row that needs no random numbers now.
Generators = Sequence[torch.Generator | None]


@dataclass(frozen=True)
class Tokens:
    """The ids that the loop must know, and the ids that may be written (bool `[V]`; None: all)."""

    mask: int
    eos: int | None = None
    stop: int | None = None  # ends a row as well, for example where a text turns into an image
    allowed: Tensor | None = None

    def is_end(self, ids: Tensor) -> Tensor:
        """Which of the ids end a row."""
        end = torch.zeros_like(ids, dtype=torch.bool)
        for token in (self.eos, self.stop):
            if token is not None:
                end |= ids == token
        return end

    def ended(self, ids: Tensor) -> Tensor:
        """Rows `[B]` of `ids` `[B, n]` that contain an end with no mask before it."""
        masks_before = (ids == self.mask).cumsum(1)
        return (self.is_end(ids) & (masks_before == 0)).any(1)

    def restrict(self, logits: Tensor) -> Tensor:
        """Logits `[B, n, V]` that leave only allowed tokens to choose, and never the mask."""
        logits[..., self.mask] = -math.inf
        if self.allowed is not None:
            logits = logits.masked_fill(~self.allowed.to(logits.device), -math.inf)
        return logits


def quota(block_size: int, steps: int, step: int) -> int:
    """How many positions step `step` commits at least; the first steps take the remainder."""
    return block_size // steps + (step < block_size % steps)


def choose_commits(
    confidence: Tensor,
    eligible: Tensor,
    count: int | Tensor,
    threshold: float,
    score: Tensor | None = None,
) -> Tensor:
    """The official commit rule, for each row of `confidence` `[B, n]`; returns bool `[B, n]`.

    All `eligible` positions above `threshold` are kept if they are at least `count` (a number, or
    `[B, 1]`). Otherwise the `count` best by `score` are kept; without `score` by the confidence.
    """
    if score is None:
        score = confidence
    score = score.masked_fill(~eligible, -math.inf)
    confident = (confidence > threshold) & eligible
    # The inverse of a sorting order is the rank of each position: 0 is the best.
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    enough = confident.sum(1, keepdim=True) >= count  # [B, 1]
    return torch.where(enough, confident, rank < count) & eligible


def choose_edits(
    logits: Tensor, ids: Tensor, editable: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Where to rewrite a token (LLaDA2.1, arXiv 2602.08676), from logits `[B, n, V]`.

    An `editable` position is rewritten if its likeliest token is not the one in `ids` and has a
    probability above `threshold`. Returns the likeliest tokens, their probabilities and where to
    rewrite, each `[B, n]`. Edits are never sampled, even when commits are: a sample would replace
    good tokens by other good tokens, without an end.
    """
    confidence, tokens = logits.softmax(-1).max(-1)
    return tokens, confidence, editable & (tokens != ids) & (confidence > threshold)


def commit_score(
    strategy: Strategy, logits: Tensor, confidence: Tensor, generators: Generators
) -> Tensor:
    """What the quota ranks positions by: `[B, n]`, the highest first, from logits `[B, n, V]`.

    `low_confidence` is the probability of the chosen token (the least confident stay masked),
    `top_k_margin` the lead of the best token over the second, `neg_entropy` minus the entropy, and
    `random` prefers nothing; these four are SPRINT's (LLaDA2.0-Uni, arXiv 2604.20796).
    `left_to_right` prefers early positions: with one token a step, nothing is said too early.
    """
    if strategy == "low_confidence":
        return confidence
    if strategy == "top_k_margin":
        best = logits.softmax(-1).topk(2, dim=-1).values  # [B, n, 2]
        return best[..., 0] - best[..., 1]
    if strategy == "neg_entropy":
        return -torch.special.entr(logits.softmax(-1)).sum(-1)
    if strategy == "left_to_right":
        places = torch.arange(confidence.shape[1], device=confidence.device)
        return -places.to(confidence.dtype).expand_as(confidence)
    return exponential_noise(confidence.shape, generators).to(confidence.device)


def filter_logits(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Logits `[..., V]` with all but the best set to −inf.

    `top_k` keeps so many. `top_p` keeps the smallest set that holds this probability.
    """
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        # The probability in front of a token decides, so that the best token always stays.
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        drop = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(drop, -math.inf)
    return logits


def choose_tokens(
    logits: Tensor, config: SamplingConfig, generators: Generators
) -> tuple[Tensor, Tensor]:
    """A token and its probability at every position, each `[B, n]`, from logits `[B, n, V]`.

    Temperature 0 takes the most likely token. Otherwise row r samples with `generators[r]`.
    """
    if config.temperature == 0:
        confidence, tokens = logits.softmax(-1).max(-1)
        return tokens, confidence
    logits = filter_logits(logits / config.temperature, config.top_k, config.top_p)
    probabilities = logits.softmax(-1)
    # The largest p / e, with e from an exponential distribution, is a sample from p.
    noise = exponential_noise(probabilities.shape, generators).to(probabilities.device)
    tokens = (probabilities / noise.clamp_min(1e-20)).argmax(-1)
    return tokens, probabilities.gather(-1, tokens[..., None])[..., 0]


def exponential_noise(shape: torch.Size, generators: Generators) -> Tensor:
    """Exponentially distributed numbers `[B, ...]` on the CPU; rows without generator hold 1."""
    noise = torch.ones(shape)
    for row, generator in zip(noise, generators, strict=True):
        if generator is not None:
            row.exponential_(generator=generator)
    return noise


def row_generators(seed: int, rows: int) -> list[torch.Generator]:
    """A generator for each row: row r uses seed + r, so that it can be repeated alone.

    `ValueError` unless the seed is a whole number from 0 to `LARGEST_SEED`.
    """
    try:
        number = operator.index(seed)  # NumPy's integers count, too
    except TypeError:
        number = -1
    if not 0 <= number <= LARGEST_SEED:
        raise ValueError(f"a seed is a whole number from 0 to {LARGEST_SEED}, got {seed!r}")
    return [torch.Generator().manual_seed(number + row) for row in range(rows)]

"""Which tokens a decoding step picks, and which of them it commits (LLaDA2.0, arXiv 2512.15745).

Notable choices
- Picking and committing are two decisions. `choose_tokens` picks a token for every position that
  may change. Then `choose_commits` says which of them are committed: written, and never masked
  again. A masked position that is not committed stays masked, and its token is forgotten.
- Logits are costly, so only the N positions that a step may change have them: `[N, V]`, row after
  row. `where` (bool `[B, n]`) is True there. What is found is spread out to `[B, n]` again.
- The confidence of a position is the probability of its token. The threshold applies to it alone.
  The quota is the number of positions that a step commits at least. A strategy changes only the
  order in which the quota takes positions.
- Random numbers are drawn on the CPU, so that every device gets the same ones, and from one
  generator a row, so that what a row gets does not depend on the other rows of its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import LARGEST_SEED, SamplingConfig, Strategy
from .settings import as_python

# One for each row of a batch; None for a row that samples nothing in this step.
Generators = Sequence[torch.Generator | None]


@dataclass(frozen=True)
class Tokens:
    """The special ids that the loop in `sampler.py` must know, and which ids may be written."""

    mask: int
    eos: int | None = None  # the end of a text; without it no row ends early
    stop: int | None = None  # an image begins: it ends a row, too, if `eos` is not None
    allowed: Tensor | None = None  # bool [V]; None: all

    def is_end(self, ids: Tensor) -> Tensor:
        """Which of the ids end a row."""
        end = torch.zeros_like(ids, dtype=torch.bool)
        for token in (self.eos, self.stop):
            if token is not None:
                end |= ids == token
        return end

    def ended(self, ids: Tensor) -> Tensor:
        """Rows `[B]` of `ids` `[B, n]` that contain an end with no mask before it."""
        # While a mask stands before the end, that part of the answer is not written yet.
        masks_before = (ids == self.mask).cumsum(1)
        return (self.is_end(ids) & (masks_before == 0)).any(1)

    def restrict(self, logits: Tensor) -> Tensor:
        """Logits `[..., V]` with −inf for the mask and for every id that is not allowed.

        The argument is overwritten, because a copy costs memory; use the result only.
        """
        logits[..., self.mask] = -math.inf
        if self.allowed is not None:
            logits = logits.masked_fill(~self.allowed.to(logits.device), -math.inf)
        return logits


def quota(block_size: int, steps: int, step: int) -> int:
    """How many positions step number `step` of a block, from 0, commits at least."""
    # 16 positions in 6 steps: 3, 3, 3, 3, 2, 2. The size of the block counts, not of the answer: 4
    # tokens have at most 4 steps (`sampler.plan`), each with quota 16 / 4, so the first takes all.
    extra = 1 if step < block_size % steps else 0
    return block_size // steps + extra


def choose_commits(
    confidence: Tensor,
    eligible: Tensor,
    count: int | Tensor,
    threshold: float,
    score: Tensor | None = None,
) -> Tensor:
    """The official commit rule, for each row of `confidence` `[B, n]`; returns bool `[B, n]`.

    Only `eligible` positions can be committed: all that are more confident than `threshold`, and
    the `count` (a number, or `[B, 1]`) best by `score`. Without `score` the best are the most
    confident: if `count` positions or more exceed the threshold, exactly these are committed.
    """
    # 1. which positions are more confident than the threshold; at threshold 1 none is
    confident = confidence > threshold
    # 2. The rank of each position by score, 0 for the best. `argsort` lists the positions from best
    # to worst, and `argsort` of this list gives each its place. Those not eligible come last.
    score = (confidence if score is None else score).masked_fill(~eligible, -math.inf)
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    # 3. the official rule; `eligible`, because fewer than `count` may be left
    return (confident | (rank < count)) & eligible


def choose_edits(
    logits: Tensor, ids: Tensor, editable: Tensor, threshold: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Where to rewrite a token (LLaDA2.1, arXiv 2602.08676), from logits `[..., V]`.

    An `editable` position is rewritten if its likeliest token is not the one in `ids` and has a
    probability above `threshold`. Returns the likeliest tokens, their probabilities and where to
    rewrite, each of the shape of `ids`.
    """
    # Edits are never sampled, even if commits are: samples would replace good tokens by other good
    # tokens again and again, and the block would never come to rest.
    confidence, tokens = logits.softmax(-1).max(-1)
    return tokens, confidence, editable & (tokens != ids) & (confidence > threshold)


def commit_score(
    strategy: Strategy, logits: Tensor, confidence: Tensor, generators: Generators, where: Tensor
) -> Tensor:
    """The score `[B, n]` of positions; the quota takes the highest first.

    `logits` `[N, V]` are those at `where`, `confidence` `[B, n]` is that of the tokens picked. All
    strategies but `left_to_right` are those of SPRINT (LLaDA2.0-Uni, arXiv 2604.20796).
    """
    # The official name says what stays masked: the positions of low confidence.
    if strategy == "low_confidence":
        return confidence
    # How far the best token lies in front of the second.
    if strategy == "top_k_margin":
        best = logits.softmax(-1).topk(2, dim=-1).values  # [N, 2]
        return spread(best[:, 0] - best[:, 1], where)
    # Minus the entropy: high where few tokens share the probability.
    if strategy == "neg_entropy":
        return spread(-torch.special.entr(logits.softmax(-1)).sum(-1), where)
    # Early positions first: a conclusion cannot be written before its reasons.
    if strategy == "left_to_right":
        places = torch.arange(confidence.shape[1], device=confidence.device)
        return -places.to(confidence.dtype).expand_as(confidence)
    # "random"
    return exponential_noise(confidence.shape, generators).to(confidence.device)


def filter_logits(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Logits `[..., V]` with all but the best set to −inf.

    `top_k` is the number of tokens that stay. `top_p` is a probability: the smallest set of likely
    tokens with at least this probability stays.
    """
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        # A token is dropped if the tokens better than it already hold `top_p`. Nothing is better
        # than the best token, so this one always stays, even if float32 rounds `top_p` to 0.
        p = ordered.softmax(-1)
        before = p.cumsum(-1) - p
        drop = torch.zeros_like(logits).bool().scatter(-1, order, before >= max(top_p, 1e-30))
        logits = logits.masked_fill(drop, -math.inf)
    return logits


def choose_tokens(
    logits: Tensor, config: SamplingConfig, generators: Generators, where: Tensor
) -> tuple[Tensor, Tensor]:
    """A token and its probability at the N positions of `where`, from their logits `[N, V]`.

    Both are `[B, n]`, with 0 at the other positions. Temperature 0 takes the most likely token.
    Otherwise row r samples with `generators[r]`. The probability is after temperature and top-k/p.
    """
    if config.temperature == 0:
        confidence, tokens = logits.softmax(-1).max(-1)
        return spread(tokens, where), spread(confidence, where)
    logits = filter_logits(logits / config.temperature, config.top_k, config.top_p)
    probabilities = logits.softmax(-1)
    # The token with the largest p / e is a sample from p, if each e is exponentially distributed.
    # Each row draws numbers for all n positions, so that they do not depend on `where`.
    noise = exponential_noise(torch.Size([*where.shape, logits.shape[-1]]), generators)
    noise = noise[where.cpu()].to(logits.device)  # [N, V]
    tokens = (probabilities / noise.clamp_min(1e-20)).argmax(-1)
    confidence = probabilities.gather(-1, tokens[:, None])[:, 0]
    return spread(tokens, where), spread(confidence, where)


def spread(values: Tensor, where: Tensor) -> Tensor:
    """The N `values` where `where` `[B, n]` is True, and 0 elsewhere: `[B, n]`."""
    return values.new_zeros(where.shape).masked_scatter(where, values)


def exponential_noise(shape: torch.Size, generators: Generators) -> Tensor:
    """Exponentially distributed numbers `[B, ...]` on the CPU; rows without generator hold 1."""
    noise = torch.ones(shape, dtype=torch.float32, device="cpu")
    for row, generator in zip(noise, generators, strict=True):
        if generator is not None:
            # `row` is a view of `noise`, so this fills `noise`.
            row.exponential_(generator=generator)
    return noise


def row_generators(seed: int, rows: int) -> list[torch.Generator]:
    """A generator for each row: row r uses seed + r, so that it can be repeated alone.

    `ValueError` unless the seed is a whole number from 0 to `LARGEST_SEED`.
    """
    number = as_python(seed)  # NumPy's integers count, too
    if type(number) is not int or not 0 <= number <= LARGEST_SEED:
        raise ValueError(f"a seed is a whole number from 0 to {LARGEST_SEED}, got {seed!r}")
    return [torch.Generator().manual_seed(number + row) for row in range(rows)]

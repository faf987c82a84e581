"""Exercises of notebook 15, from autoregression to diffusion."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..exercises.checking import Case, exercise


@exercise("correct: it depends on the step alone, so a run that is resumed keeps to the schedule")
def check_block_size_at() -> Iterator[Case]:
    """`function(schedule, steps, step) -> int`, for pairs (share of the run, block size)."""
    schedule, steps = [(0.0, 4), (0.25, 16), (0.5, 48), (0.75, 16)], 8
    # One row a hint, with the block size of each of the eight steps.
    mistakes = {
        "an entry begins at its share of the run: at step 2 of 8, that of 0.25 has begun": (
            [4, 4, 4, 16, 16, 48, 48, 16]
        ),
        "that is the largest size so far; the schedule also goes back": [4, 4, 16, 16] + 4 * [48],
        "that is the next entry; you want the last one that has begun": (
            [16, 16, 48, 48, 16, 16, 16, 16]
        ),
        "that is the first entry; later ones may have begun": 8 * [4],
        "starts are shares of the run, not steps: compare with start * steps": [4] + 7 * [16],
    }
    for step, right in enumerate([4, 4, 16, 16, 48, 48, 16, 16]):
        wrong = {hint: sizes[step] for hint, sizes in mistakes.items()}
        yield Case((schedule, steps, step), right, wrong)


@exercise("correct: noise on the masked tokens only; known tokens stay exact")
def check_noisy_masks() -> Iterator[Case]:
    """`function(embedded [B, L, H], ids [B, L], mask_id, noise [B, L, H], std) -> [B, L, H]`."""
    generator = torch.Generator().manual_seed(15)
    embedded, noise = torch.randn(2, 3, 5, 4, generator=generator)
    ids, mask_id = torch.tensor([[7, 1, 7, 2, 3], [4, 7, 5, 7, 7], [1, 2, 3, 4, 5]]), 7
    masked = (ids == mask_id)[..., None]
    mistakes = {
        "tokens that are known must stay exactly as they are": embedded + 0.1 * noise,
        "the noise is on the known tokens; it belongs on the masked ones": (
            embedded + 0.1 * noise * ~masked
        ),
        "scale the noise by `std`": embedded + noise * masked,
        "add the noise, do not put it in the place of the embedding": (
            torch.where(masked, 0.1 * noise, embedded)
        ),
        "nothing has changed; is the result returned?": embedded,
    }
    right = embedded + 0.1 * noise * masked
    yield Case((embedded, ids, mask_id, noise, 0.1), right, mistakes)


@exercise("correct: chosen by validation, averaged without weights")
def check_merge_best() -> Iterator[Case]:
    """`function(weights [N, P], bits [N], k) -> [P]`: mean of the k rows with fewest bits."""
    generator = torch.Generator().manual_seed(16)
    weights, bits = (
        torch.rand(6, 5, generator=generator),
        torch.tensor([3.1, 2.8, 2.9, 2.6, 2.7, 3.0]),
    )
    order = bits.argsort()
    best, share = weights[order[:3]], 1 / bits[order[:3], None]
    mistakes = {
        "those are the worst ones: fewer bits are better": weights[order[-3:]].mean(0),
        "those are the last ones; choose by the bound": weights[-3:].mean(0),
        "that is the mean of all; take the best k": weights.mean(0),
        "that is their sum; divide by k": best.sum(0),
        "that is the best checkpoint alone": best[0],
        "every checkpoint counts the same: this mean is not weighted": (
            (best * share).sum(0) / share.sum()
        ),
    }
    yield Case((weights, bits, 3), best.mean(0), mistakes)

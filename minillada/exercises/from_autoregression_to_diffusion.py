"""`check_*` functions for the exercises about training recipes; they behave as those in `exercises`.

`tests/test_exercises_training.py` holds a correct and several wrong answers for every check.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..exercises.checking import attempt, same


def check_block_size_at(function: Callable) -> bool:
    """Notebook 15: `function(schedule, steps, step) -> int` for a list of pairs (share of the run at which it begins, block size)."""
    schedule, steps = [(0.0, 4), (0.25, 16), (0.5, 48), (0.75, 16)], 8
    expected = torch.tensor([4, 4, 16, 16, 48, 48, 16, 16])
    late = torch.tensor([4, 4, 4, 16, 16, 48, 48, 16])
    hints = {
        "an entry begins *at* its share of the run: at step 2 of 8, the one of 0.25 has begun": late,
        "that is the largest block size so far; the schedule also goes back": torch.tensor([4, 4, 16, 16, 48, 48, 48, 48]),
        "that is the entry that comes next; you want the last one that has begun": torch.tensor([16, 16, 48, 48, 16, 16, 16, 16]),
        "that is the first entry; it has begun, but so may have later ones": torch.full((8,), 4),
        "starts are shares of the run, not steps: compare with start * steps": torch.tensor([4] + [16] * 7),
    }
    answers = []
    for step in range(steps):
        if (answer := attempt(function, schedule, steps, step)) is None:
            return False
        answers.append(answer)
    if not same(answers, expected, hints):
        return False
    print("correct: a pure function of the step, so a run that is resumed keeps to it")
    return True


def check_noisy_masks(function: Callable) -> bool:
    """Notebook 15: `function(embedded [B, L, H], ids [B, L], mask_id, noise [B, L, H], std) -> [B, L, H]`."""
    generator = torch.Generator().manual_seed(15)
    embedded, noise = torch.randn(2, 3, 5, 4, generator=generator)
    ids, mask_id = torch.tensor([[7, 1, 7, 2, 3], [4, 7, 5, 7, 7], [1, 2, 3, 4, 5]]), 7
    masked = (ids == mask_id)[..., None]
    hints = {
        "tokens that are known must stay exactly as they are": embedded + 0.1 * noise,
        "the noise is on the known tokens; it belongs on the masked ones": embedded + 0.1 * noise * ~masked,
        "scale the noise by `std`": embedded + noise * masked,
        "add the noise, do not put it in the place of the embedding": torch.where(masked, 0.1 * noise, embedded),
        "nothing has changed; is the result returned?": embedded,
    }
    result = attempt(function, embedded.clone(), ids, mask_id, noise, 0.1)
    if result is None or not same(result, embedded + 0.1 * noise * masked, hints):
        return False
    print("correct: only what is asked becomes noisy, what is known stays exact")
    return True


def check_merge_best(function: Callable) -> bool:
    """Notebook 15: `function(weights [N, P], bits [N], k) -> [P]`, the mean of the k checkpoints with the best bound."""
    generator = torch.Generator().manual_seed(16)
    weights, bits = torch.rand(6, 5, generator=generator), torch.tensor([3.1, 2.8, 2.9, 2.6, 2.7, 3.0])
    order = bits.argsort()
    best = weights[order]
    hints = {
        "those are the worst ones: fewer bits are better": weights[order.flip(0)][:3].mean(0),
        "those are the last ones; choose by the bound": weights[-3:].mean(0),
        "that is the mean of all; take the best k": weights.mean(0),
        "that is their sum; divide by k": best[:3].sum(0),
        "that is the best checkpoint alone": best[0],
        "every checkpoint counts the same: this mean is not weighted": (best[:3] * (1 / bits[order][:3, None])).sum(0)
        / (1 / bits[order][:3]).sum(),
    }
    result = attempt(function, weights, bits, 3)
    if result is None or not same(result, best[:3].mean(0), hints):
        return False
    print("correct: chosen by validation, averaged without weights")
    return True

"""exercises.masked_diffusion"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from ..exercises.checking import attempt, known_mistake, same


def check_corrupt(function: Callable) -> bool:
    """Notebook 04: `function(ids [B, L], targets [B, L], rates [B], noise [B, L], mask_id) -> x_t [B, L]`."""
    generator = torch.Generator().manual_seed(4)
    ids, noise = torch.randint(9, (6, 6), generator=generator), torch.rand(6, 6, generator=generator)
    rates, targets = torch.linspace(0.2, 0.8, 6), torch.arange(6).expand(6, 6) >= 2
    hints = {
        "the prompt was masked as well; only targets may be": ids.masked_fill(noise < rates[:, None], 9),
        "a token is masked with probability t, that is when its noise is below t, not above": ids.masked_fill(targets & (noise >= rates[:, None]), 9),
        "every row has its own rate: rates[:, None] lines it up with the rows": ids.masked_fill(targets & (noise < rates), 9),
        "that masks every target; compare the noise with the rate": ids.masked_fill(targets, 9),
    }  # fmt: skip
    result = attempt(function, ids, targets, rates, noise, 9)
    if result is None or not same(result, ids.masked_fill(targets & (noise < rates[:, None]), 9), hints):
        return False
    print("correct: each target falls independently, with the probability of its row")
    return True


def check_weighted_loss(function: Callable) -> bool:
    """Notebook 04: `function(nats [B, L], masked bool [B, L], rates [B]) -> [B]`, one sample of the bound a row."""
    generator = torch.Generator().manual_seed(5)
    nats, rates = 3 * torch.rand(4, 7, generator=generator), torch.tensor([0.3, 0.5, 0.7, 0.9])
    masked = torch.rand(4, 7, generator=generator) < rates[:, None]
    total, count = (nats * masked).sum(1), masked.sum(1)
    hints = {
        "the weight 1/t is missing": total,
        "divide by the rate instead of multiplying": total * rates,
        "that is the mean over masked tokens, without 1/t: what the released trainer minimises, but no bound": total / count,
        "that is 1/t times the mean; a bound on −log p of the whole row needs the sum": total / count / rates,
        "only masked positions count: at the others the answer is in the input": nats.sum(1) / rates,
        "each row keeps its own number: sum over positions, not over rows": (total / rates).sum(),
    }
    result = attempt(function, nats, masked, rates)
    if result is None:
        return False
    if known_mistake(result, total / rates, hints) or not same(result, total / rates):
        return False
    print("correct: averaged over t and masks, this number bounds −log p(x) from above")
    return True


def check_enumerated_bound(function: Callable) -> bool:
    """Notebook 04: `function(nats_of, length) -> float`, the bound as a sum over all masks.

    `nats_of(masked bool [L]) -> [L]` gives −log p at masked positions and 0 elsewhere.
    """
    for length in (1, 2, 3, 4):
        table = 3 * torch.rand(2**length, length, generator=torch.Generator().manual_seed(length))
        table = table * torch.tensor([[bool(s >> i & 1) for i in range(length)] for s in range(2**length)])
        sizes = (table > 0).sum(1).clamp_min(1)
        choose = torch.tensor([math.comb(length, int(n)) for n in sizes])
        rows, nats_of = table.sum(1), lambda m, t=table: t[int((torch.as_tensor(m).long() * 2 ** torch.arange(len(m))).sum())]
        hints = {
            "a mask of n tokens shares the weight 1/n with all C(L, n) masks of its size: divide by both": (rows / sizes).sum(),
            "1/C(L, n) is there; the factor 1/n, which is the integral over t, is missing": (rows / choose).sum(),
            "masks of different sizes are not equally likely: the weight is 1/(n · C(L, n))": rows.mean(),
            "that adds up all masks without a weight": rows.sum(),
        }
        result = attempt(function, nats_of, length)
        if result is None or not same(result, (rows / sizes / choose).sum(), hints):
            return False
    print("correct: a sum over all masks, every one with the weight that the integral over t leaves")
    return True

"""Exercises of notebook 04, masked diffusion."""

import math
from itertools import product

import torch

from ..exercises.checking import Case, Cases, exercise


@exercise("correct: each target is masked independently, with the rate of its row")
def check_corrupt() -> Cases:
    """`function(ids [B, L], targets [B, L], rates [B], noise [B, L], mask_id) -> x_t [B, L]`."""
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(9, (6, 6), generator=generator)
    noise = torch.rand(6, 6, generator=generator)
    rates, targets = torch.linspace(0.2, 0.8, 6), torch.arange(6).expand(6, 6) >= 2
    low, low_by_column = noise < rates[:, None], noise < rates
    masked = {
        "the prompt was masked as well; only targets may be": low,
        "mask with probability t: where the noise is below t, not above": targets & ~low,
        "rates belong to rows: rates[:, None] lines them up": targets & low_by_column,
        "that masks every target; compare the noise with the rate": targets,
    }
    mistakes = {hint: ids.masked_fill(where, 9) for hint, where in masked.items()}
    yield Case((ids, targets, rates, noise, 9), ids.masked_fill(targets & low, 9), mistakes)


@exercise("correct: averaged over t and masks, this number bounds −log p(x) from above")
def check_weighted_loss() -> Cases:
    """`function(nats [B, L], masked bool [B, L], rates [B]) -> [B]`: a sample of the bound."""
    generator = torch.Generator().manual_seed(5)
    nats, rates = 3 * torch.rand(4, 7, generator=generator), torch.tensor([0.3, 0.5, 0.7, 0.9])
    masked = torch.rand(4, 7, generator=generator) < rates[:, None]
    total, count, length = (nats * masked).sum(1), masked.sum(1), nats.shape[1]
    right = total / rates
    mistakes = {
        "the weight 1/t is missing": total,
        "divide by the rate instead of multiplying": total * rates,
        "that is the mean over masked tokens; it is no bound": total / count,
        "that is 1/t times the mean; −log p of the whole row needs the sum": right / count,
        "the weight is 1/t, not L divided by the number of masks": total * length / count,
        "do not divide by L: the bound is on −log p of the whole row": right / length,
        "only masked positions count: elsewhere the input holds the answer": nats.sum(1) / rates,
        "each row keeps its own number: sum over positions, not over rows": right.sum(),
    }
    yield Case((nats, masked, rates), right, mistakes)


@exercise("correct: a sum over all masks, each with the weight that the integral over t leaves")
def check_enumerated_bound() -> Cases:
    """`function(nats_of, length) -> float`: the bound as a sum over all masks.

    `nats_of(masked bool [L]) -> [L]` gives −log p at masked positions and 0 elsewhere.
    """
    for length in (1, 2, 3, 4):
        generator = torch.Generator().manual_seed(length)
        masks = torch.tensor(list(product((False, True), repeat=length)))  # [2^L, L]
        table = 3 * torch.rand(masks.shape, generator=generator) * masks

        def nats_of(masked, masks=masks, table=table):
            return table[(masks == torch.as_tensor(masked).bool()).all(1)][0]

        nats, n = table.sum(1), masks.sum(1).clamp_min(1)
        ways = torch.tensor([math.comb(length, int(size)) for size in n])
        mistakes = {
            "all C(L, n) masks of n tokens share the weight 1/n: divide by both": (nats / n).sum(),
            "1/C(L, n) is there; 1/n, the integral over t, is missing": (nats / ways).sum(),
            "the sizes of masks are not equally likely: weigh by 1/(n · C(L, n))": nats.mean(),
            "that adds up all masks without a weight": nats.sum(),
        }
        yield Case((nats_of, length), (nats / n / ways).sum(), mistakes)

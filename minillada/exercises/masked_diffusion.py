"""Exercises of notebook 04, masked diffusion."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checking import Case, Cases, Chance, exercise


@exercise("correct: each target is masked independently, with the rate of its row")
def check_corrupt(chance: Chance) -> Cases:
    """`function(ids [B, L], targets [B, L], rates [B], noise [B, L], mask_id) -> x_t [B, L]`."""
    generator = chance.generator(4)
    ids = torch.randint(9, (6, 6), generator=generator)
    noise = torch.rand(6, 6, generator=generator)
    rates, targets = torch.linspace(0.2, 0.8, 6), torch.arange(6).expand(6, 6) >= 2
    noise[:, 4] = rates  # a noise as large as the rate hides nothing
    low, above, low_by_column = noise < rates[:, None], noise > rates[:, None], noise < rates
    masked = {
        "the prompt was masked as well; only targets may be": low,
        "hide a token where its noise is below the rate, not above": targets & above,
        "rates belong to rows: rates[:, None] lines them up": targets & low_by_column,
        "below the rate is <, not <=: at rate 0 no noise may hide a token": (
            targets & (noise <= rates[:, None])
        ),
        "that masks every target; compare the noise with the rate": targets,
    }
    mistakes = {hint: ids.masked_fill(where, 9) for hint, where in masked.items()}
    mistakes["nothing has changed; is the result returned?"] = ids
    yield Case((ids, targets, rates, noise, 9), ids.masked_fill(targets & low, 9), mistakes)


@exercise("correct: averaged over t and masks, this number bounds −log p(x) from above")
def check_weighted_loss(chance: Chance) -> Cases:
    """`function(nats [B, L], masked bool [B, L], rates [B]) -> [B]`: a sample of the bound."""
    generator = chance.generator(5)
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
        "each row sums its own masked tokens; `nats[masked]` holds those of all rows": (
            nats[masked].sum() / rates
        ),
        "each row keeps its own number: sum over positions, not over rows": right.sum(),
        "one number for each row: sum over its positions": nats * masked / rates[:, None],
    }
    yield Case((nats, masked, rates), right, mistakes)


def kept_places(joint: Tensor, kept: list[int]) -> Tensor:
    """p of the places in `kept`; the others have an axis of length 1."""
    others = [place for place in range(joint.ndim) if place not in kept]
    return joint.sum(others, keepdim=True) if others else joint


def written_in_groups(joint: Tensor, groups: list[list[int]], look: bool = True) -> Tensor:
    """q of each text, the shape of `joint`: places of a group do not know each other.

    Without `look`, they do not know earlier groups, either.
    """
    q = torch.ones_like(joint)
    known: list[int] = []
    for group in groups:
        for place in group:
            p = kept_places(joint, [*known, place] if look else [place])
            q = q * p / p.sum(place, keepdim=True)  # p(place | known)
        known += group
    return q


@exercise("correct: one place a step costs nothing; together they cost what they share")
def check_price(chance: Chance) -> Cases:
    """`function(joint, groups) -> float`: what the plan `groups` costs, in nats: Σ p log(p / r).

    `joint` `[V, V, ...]` has an axis a place and no zeros; `groups` is a list of lists of places.
    """
    generator = chance.generator(7)
    plans = ([[0, 1], [2]], [[2], [0, 1]], [[1, 3], [0], [2]], [[0, 1, 2]], [[1], [0], [2]])
    for groups in plans:
        places = sum(len(group) for group in groups)
        joint = (1.5 * torch.randn([3] * places, generator=generator)).flatten().softmax(0)
        joint = joint.view([3] * places)
        q = written_in_groups(joint, groups)
        ratio = (joint / q).log()
        blind = written_in_groups(joint, groups, look=False)
        right, world = (joint * ratio).sum(), -(joint * joint.log()).sum()
        mistakes = {
            "places of a later group know the earlier ones: condition on them": (
                joint * (joint / blind).log()
            ).sum(),
            "that is in bits; nats use the natural logarithm": right / math.log(2),
            "the other way round: the mean is over p, not over r": -(q * ratio).sum(),
            "each text counts with its probability; that is the plain mean": ratio.mean(),
            "that is the cross-entropy; subtract the entropy of p": right + world,
            "that is the entropy of p, whatever the plan": world,
            "the sign is wrong: writing in groups can only cost": -right,
            "the price is 0 only one by one: within a group nobody sees the others": 0.0,
        }
        different = {
            hint: wrong
            for hint, wrong in mistakes.items()
            if not torch.allclose(torch.as_tensor(wrong), right, atol=1e-3)
        }
        yield Case((joint, groups), right, different)


@exercise("correct: hidden tokens are revealed with (t − s)/t; what is known stays as it is")
def check_reverse_step(chance: Chance) -> Cases:
    """`function(ids [L], p [L, V], s, t, mask_id) -> [L, V]`: how x_s is distributed, given x_t.

    `p` is what the model says about the clean token; the mask has probability 0 in it.
    """
    generator = chance.generator(6)
    for s, t, mask_id in ((0.2, 0.5, 5), (0.0, 0.4, 2), (0.6, 0.9, 0)):
        p = torch.rand(6, 6, generator=generator)
        p[:, mask_id] = 0
        p /= p.sum(1, keepdim=True)
        words = torch.tensor([word for word in range(6) if word != mask_id])
        ids = words[torch.randint(5, (6,), generator=generator)]
        ids[[0, 3, 4]] = mask_id
        masked, known = (ids == mask_id)[:, None], F.one_hot(ids, 6).float()
        stays = F.one_hot(torch.tensor(mask_id), 6)
        right = torch.where(masked, (t - s) / t * p + s / t * stays, known)
        hidden_again = (1 - s) * known + s * stays
        last = torch.where(masked, (t - s) / t * p, known)
        last[masked[:, 0], -1] += s / t
        mistakes = {
            "the chances to stay hidden and to be revealed are exchanged": torch.where(
                masked, s / t * p + (1 - s / t) * stays, known
            ),
            "divide by t: the token is known to be hidden at rate t": torch.where(
                masked, (t - s) * p + (1 - t + s) * stays, known
            ),
            "that forgets x_t: a hidden token has noise below t, not anywhere below 1": torch.where(
                masked, (1 - s) * p + s * stays, known
            ),
            "a token that is known stays as it is; it is never hidden again": torch.where(
                masked, right, hidden_again
            ),
            "what is visible in x_t is visible in x_s: only hidden tokens may change": (
                torch.where(masked, right, (t - s) / t * known + s / t * stays)
            ),
            "the mask is the id `mask_id`, which need not be the last one": last,
            "only hidden tokens are sampled; a visible one stays": (t - s) / t * p + s / t * stays,
            "that is p, as at rate 0; at rate s some tokens are still hidden": p,
            "each row must add up to 1: what is not revealed stays the mask": torch.where(
                masked, (t - s) / t * p, known
            ),
        }
        # At s = 0 nothing is hidden, and some of these mistakes do not show.
        shown = {h: wrong for h, wrong in mistakes.items() if not torch.allclose(wrong, right)}
        yield Case((ids, p, s, t, mask_id), right, shown)

"""How the losses of the masked tokens become one training loss: four ways to weight them.

The loss of a token is −log p of the right token, in nats (units of the natural logarithm).

Notable choices
- An objective sees nats and a `View`, the noisy copies of a batch. It does not see the model.
- Every objective is one fraction over the whole batch; its docstring names both of its parts.
- Letters: B rows of L tokens, blocks of L_B tokens (the block size), K noisy copies of each row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class View(NamedTuple):
    """What the model is shown: K noisy copies of each of the B rows, those of one row together.

    One `View` holds all B·K copies. (In `masks`, a view is one of them: `Places.view` is the number
    of a copy.) K is `views` in the configuration, or twice as many with `complementary`.

    `noisy` `[B·K, L]` holds ids of which some are masked, and `masked` `[B·K, L]` says which.
    `rates` `[B·K, L/L_B]` holds the probability t with which each block was masked.
    """

    noisy: Tensor
    masked: Tensor
    rates: Tensor

    def repeat(self, rows: Tensor) -> Tensor:
        """Each of the `rows` `[B, …]` K times, in the order of the noisy copies: `[B·K, …]`."""
        return rows.repeat_interleave(len(self.masked) // len(rows), dim=0)  # B·K // B is K


def hide(ids: Tensor, masked: Tensor, block_size: int, mask_id: int) -> View:
    """The view of `ids` `[B, L]` in which exactly the tokens at `masked` `[B, L]` are masked.

    The rate of a block is the share of its tokens that are masked.
    """
    rates = masked.unflatten(1, (-1, block_size)).float().mean(-1)  # [B, L/L_B]
    return View(ids.masked_fill(masked, mask_id), masked, rates)


def with_inverses(view: View, ids: Tensor, targets: Tensor, mask_id: int) -> View:
    """Every copy followed by its inverse, which masks the `targets` that the copy shows.

    `ids` and `targets` are `[B·K, L]`, and the result has 2·K copies of a row. A pair masks every
    target exactly once. The rates of the inverse are 1 − t.
    """
    masked = targets & ~view.masked
    inverse = View(ids.masked_fill(masked, mask_id), masked, 1 - view.rates)
    # Of each of the three fields the rows in turn: copy 0, its inverse, copy 1, its inverse, …
    return View(*[torch.stack(pair, dim=1).flatten(0, 1) for pair in zip(view, inverse)])


def counts(flags: Tensor, view: View) -> Tensor:
    """How many `flags` `[B·K, L]` each block of the view holds, `[B·K, L/L_B]`."""
    return flags.unflatten(1, (view.rates.shape[1], -1)).sum(-1)


def at_masked(values: Tensor, view: View) -> Tensor:
    """For each of the N masked tokens the value of the block, or of the row, that it is in: `[N]`.

    `values` holds one value a block, `[B·K, L/L_B]`, or one a row, `[B·K, 1]`.
    """
    # The width of `values` tells how many tokens share one.
    block_size = view.masked.shape[1] // values.shape[1]
    return values.repeat_interleave(block_size, dim=1)[view.masked]


# Every objective takes the same inputs and returns the loss, a scalar:
#   nats     [N]       −log p of the N >= 1 masked tokens, in the order of `view.masked.nonzero()`
#   view               what was masked, and with which rates
#   targets  [B·K, L]  which tokens could have been masked


def weigh_bound(nats: Tensor, view: View, targets: Tensor) -> Tensor:
    """Numerator: nats / t, summed over masked tokens. Denominator: the number of targets.

    With t uniform on [0, 1] its mean over masks is a bound on −log p per target (section 2 of
    LLaDA2.0). For another interval, such as the default [0.05, 1], it is only close to one.
    """
    # A token is masked with probability t, so with the weight 1/t it counts 1 on average.
    return (nats / at_masked(view.rates, view)).sum() / targets.sum()


def weigh_count(nats: Tensor, view: View, targets: Tensor) -> Tensor:
    """Numerator: nats · (m + 1) / n, summed over masked tokens. Denominator: the number of targets.

    A token's block has m targets, and n of them are masked. Suppose that t was uniform on [0, 1]
    and that we see only the mask. Then t has the distribution Beta(n + 1, m − n + 1), and the mean
    of 1/t is (m + 1) / n. So the loss has the mean of `weigh_bound`, and its variance is never
    larger. With another interval of t, such as the default [0.05, 1], both hold only approximately.
    """
    # A block without a mask gives a division by 0, but no masked token reads its value.
    weights = (counts(targets, view) + 1) / counts(view.masked, view)  # [B·K, L/L_B]
    return (nats * at_masked(weights, view)).sum() / targets.sum()


def weigh_uniform(nats: Tensor, view: View, targets: Tensor) -> Tensor:
    """Numerator: nats, summed over masked tokens. Denominator: the number of masked tokens.

    The released trainer does this. Its mean over masks is not a bound on −log p.
    """
    return nats.sum() / len(nats)


def weigh_reweighted(nats: Tensor, view: View, targets: Tensor) -> Tensor:
    """Numerator: Σ_j β_j L_j over the rows j. Denominator: Σ_j β_j, β_j = 1/√n_j (LLaDA2.0-Uni).

    n_j is the number of masked tokens of row j, and L_j the *mean* of their nats: a token has the
    weight β_j / n_j. The paper's formula does not say whether L_j is a mean or a sum.
    """
    n = view.masked.sum(1, keepdim=True)  # [B·K, 1]
    beta = n**-0.5  # infinite for a row without masks, which is left out below
    return (nats * at_masked(beta / n, view)).sum() / beta[n > 0].sum()


OBJECTIVES: dict[str, Callable[[Tensor, View, Tensor], Tensor]] = {
    "bound": weigh_bound,
    "count": weigh_count,
    "uniform": weigh_uniform,
    "reweighted": weigh_reweighted,
}


def right_entropy(logits: Tensor, answers: Tensor) -> Tensor:
    """Mean entropy in nats of those predictions `[N, V]` whose likeliest token is the answer `[N]`.

    The confidence-aware (CAP) term of LLaDA2.0. The entropy Σ −p log p is 0 for a prediction that
    is certain, so right predictions become more certain. Where none is right, the term is 0.
    """
    right = logits.argmax(-1) == answers
    log_p = logits[right].log_softmax(-1)
    return -(log_p.exp() * log_p).sum() / max(len(log_p), 1)

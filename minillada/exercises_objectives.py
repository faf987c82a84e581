"""`check_*` functions for the exercises about objectives, views and experts (notebooks 05 and 06), in the form of `exercises`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .exercises import attempt, same
from .masks import CLEAN, block_diffusion_mask, training_places


def check_views_mask(function: Callable) -> bool:
    """Notebook 05: `function(length, block_size, views) -> bool [(K+1)·L, (K+1)·L]`, who sees whom in `[x_t¹ ; … ; x_tᴷ ; x_0]`."""
    for length, block_size, views in ((6, 2, 2), (4, 1, 3), (6, 3, 1), (4, 2, 3)):
        index = torch.arange(length)
        right = block_diffusion_mask(index, index, block_size, views)[0]
        view, block, _ = training_places(index, index, block_size, views)
        noisy_q, noisy_k, same_block = view[:, None] != CLEAN, view != CLEAN, block[:, None] == block
        hints = {
            "views must not see each other: the same block masked differently would give the answers away": right
            | (noisy_q & noisy_k & same_block),
            "clean never sees noisy, of no view": right | (~noisy_q & noisy_k & same_block),
            "a view must not see the clean copy of its own block, which holds the answers": right | (noisy_q & ~noisy_k & same_block),
            "every view has the clean copy as its context, not only the first": right & ~((view[:, None] > 0) & ~noisy_k),
            "queries are rows and keys are columns; yours is the other way round": right.T,
            "the clean copy comes last, behind all views": right.roll((length, length), (0, 1)),
        }
        result = attempt(function, length, block_size, views)
        if result is None or not same(result, right, hints):
            return False
    print("correct: K views, one context")
    return True


def check_reweighted(function: Callable) -> bool:
    """Notebook 05: `function(nats [B, L], masked bool [B, L]) -> loss`, Σ β_j L_j / Σ β_j with β_j = 1/√n_j and L_j the mean of sample j."""
    source = torch.Generator().manual_seed(5)
    for rows in (2, 3, 5):
        nats = 3 * torch.rand(rows, 9, generator=source)
        masked = torch.rand(rows, 9, generator=source) < torch.linspace(0.2, 0.9, rows)[:, None]
        masked[:, 0] = True
        n, total = masked.sum(1), (nats * masked).sum(1)
        mean, beta = total / n, n**-0.5
        hints = {
            "that is the mean over all masked tokens, which the released trainer takes": total.sum() / n.sum(),
            "that weighs all samples alike; β_j = 1/√n_j": mean.mean(),
            "that has β_j = 1/n_j; take the root": (mean / n).sum() / (1 / n).sum(),
            "that has β_j = √n_j: samples with few masks should count more, not less": (mean * n**0.5).sum() / (n**0.5).sum(),
            "L_j is the mean over the masked tokens of sample j, not their sum": (beta * total).sum() / beta.sum(),
            "divide by Σ β_j, not by the number of samples": (beta * mean).mean(),
            "average over the masked positions only": (beta * nats.mean(1)).sum() / beta.sum(),
        }
        result = attempt(function, nats, masked)
        if result is None or not same(result, (beta * mean).sum() / beta.sum(), hints):
            return False
    print("correct: a sample with few questions is heard, too, but not as loudly as one with many")
    return True


def check_expert_weights(function: Callable) -> bool:
    """Notebook 06: `function(scores [T, E], bias [E], k) -> [T, E]`, the weight of each expert for each token, without groups."""
    source = torch.Generator().manual_seed(6)
    for experts, k in ((6, 2), (8, 3), (5, 1), (4, 4)):
        scores, bias = torch.rand(7, experts, generator=source), torch.rand(experts, generator=source) - 0.5

        def weigh(values, by, k=k, scale=2.5):
            chosen = torch.zeros_like(values).scatter(1, by.topk(k, dim=1).indices, 1.0)
            return scale * values * chosen / (values * chosen).sum(1, keepdim=True)

        hints = {
            "the bias is forgotten: choose by scores + bias": weigh(scores, scores),
            "the bias steers the choice only; weigh by the scores alone": weigh(scores + bias, scores + bias),
            "the weights of a token must add up to 2.5": weigh(scores, scores + bias, scale=1.0),
            "divide by the sum over the chosen experts": 2.5 * scores * (weigh(scores, scores + bias) > 0),
            "divide by the sum over the chosen experts, not over all": 2.5
            * scores
            * (weigh(scores, scores + bias) > 0)
            / scores.sum(1, keepdim=True),
            "choose the largest k, not the smallest": weigh(scores, -scores - bias),
        }
        result = attempt(function, scores, bias, k)
        if result is None or not same(result, weigh(scores, scores + bias), hints):
            return False
    print("correct: chosen by s + b, weighed by s")
    return True

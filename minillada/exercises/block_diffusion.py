"""exercises.block_diffusion"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..exercises.checking import attempt, known_mistake, same
from ..masks import CLEAN, block_diffusion_mask, training_places


def check_offset_mask(function: Callable) -> bool:
    """Notebook 05: `function(noisy [N], clean [M], block_size) -> bool [N, M]`, the mask M_OBC."""
    for length, block in ((8, 2), (12, 4), (6, 1), (9, 3)):
        noisy, clean = torch.arange(length // 3, length), torch.arange(length)
        i, j = noisy[:, None], clean[None, :]
        hints = {
            "a noisy block must not see its own clean block, that is the answer: b(i) > b(j), not >=": i // block >= j // block,
            "compare blocks, not positions: a noisy token sees no clean token of its own block": i > j,
            "the other way round: noisy tokens see earlier clean blocks": i // block < j // block,
            "that is M_BD, the rule for noisy keys": i // block == j // block,
        }
        result = attempt(function, noisy, clean, block)
        if result is None or not same(result, i // block > j // block, hints):
            return False
    print("correct: noisy block b looks at clean blocks 0 to b − 1")
    return True


def check_shared_block(function: Callable) -> bool:
    """Notebook 05: `function(prompt_length, block_size) -> (block, tokens)`: the first block that generation fills, and how
    many prompt tokens stand in it."""
    for prompt, block in ((25, 16), (37, 16), (48, 16), (5, 32), (7, 1)):
        first, inside = divmod(prompt, block)
        hints = {
            "the last prompt token may end a block exactly; the first block to fill is P // L_B": torch.tensor([(prompt - 1) // block, inside]),
            "blocks are numbered from 0 and the shared one is not skipped: P // L_B, not rounded up": torch.tensor([-(-prompt // block), inside]),
            "the second number is P % L_B, the prompt tokens in that block; you counted the free places": torch.tensor([first, block - inside]),
            "the first number is the index of the block, not its first position": torch.tensor([first * block, inside]),
        }  # fmt: skip
        result = attempt(function, prompt, block)
        if result is None or not same(result, torch.tensor([first, inside]), hints):
            return False
    print("correct: the prompt's end is in the block that generation starts with, unless P is a multiple of L_B")
    return True


def check_positions(function: Callable) -> bool:
    """Notebook 05: `function(prompt_length, length, block_size) -> [N + M]`, positions of the trimmed `[x_t ; x_0]`."""
    for prompt, length, block in ((25, 48, 16), (4, 12, 4), (3, 8, 1), (2, 8, 8)):
        start, last = prompt // block * block, length - block
        noisy, clean = torch.arange(start, length), torch.arange(last)
        hints = {
            "both halves keep the positions of the sequence; the clean half starts again at 0": torch.cat([noisy, clean + length]),
            "positions count from 0 in the sequence, also when the first noisy blocks are left out": torch.cat([noisy - start, clean]),
            "the noisy half comes first: [x_t ; x_0]": torch.cat([clean, noisy]),
            "that numbers the input from 0 to its end; equal tokens must have equal positions": torch.arange(len(noisy) + last),
            "nothing was left out: drop noisy blocks without targets and the last clean block": torch.arange(length).repeat(2),
            "the noisy half starts at the block that holds the first target, not at the target": torch.cat([torch.arange(prompt, length), clean]),
        }  # fmt: skip
        right = torch.cat([noisy, clean])
        result = attempt(function, prompt, length, block)
        if result is None:
            return False
        if known_mistake(result, right, hints) or not same(result, right):
            return False
    print("correct: two halves, the same positions, and only the blocks that a loss depends on")
    return True


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

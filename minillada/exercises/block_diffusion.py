"""Exercises of notebook 05, block diffusion, and of the notebook on views and objectives."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..exercises.checking import Case, exercise


@exercise("correct: noisy block b looks at clean blocks 0 to b − 1")
def check_offset_mask() -> Iterator[Case]:
    """`function(noisy [N], clean [M], block_size) -> bool [N, M]`: the mask M_OBC."""
    for length, size in ((8, 2), (12, 4), (6, 1), (9, 3)):
        noisy, clean = torch.arange(length // 3, length), torch.arange(length)
        query, key = noisy[:, None] // size, clean // size  # numbers of blocks
        mistakes = {
            "a noisy block must not see its own clean block, the answer: > instead of >=": query
            >= key,
            "compare blocks, not positions": noisy[:, None] > clean,
            "the other way round: noisy tokens see earlier clean blocks": query < key,
            "that is M_BD, the rule for noisy keys": query == key,
        }
        yield Case((noisy, clean, size), query > key, mistakes)


@exercise("correct: unless P is a multiple of L_B, the prompt ends in the first block to fill")
def check_shared_block() -> Iterator[Case]:
    """`function(prompt_length, block_size) -> (block, tokens)`: the first block that generation
    fills, and how many prompt tokens stand in it.
    """
    for prompt, size in ((25, 16), (37, 16), (48, 16), (5, 32), (7, 1)):
        block, inside = divmod(prompt, size)
        mistakes = {
            "a prompt may end where a block ends: the first block to fill is P // L_B": (
                (prompt - 1) // size,
                inside,
            ),
            "blocks count from 0, and the shared one is not skipped: P // L_B, rounded down": (
                -(-prompt // size),
                inside,
            ),
            "the second number is P % L_B, the prompt tokens; you count the free places": (
                block,
                size - inside,
            ),
            "the first number is the index of the block, not its first position": (
                block * size,
                inside,
            ),
        }
        wrong = {hint: torch.tensor(answer) for hint, answer in mistakes.items()}
        yield Case((prompt, size), torch.tensor([block, inside]), wrong)


@exercise("correct: two halves, the same positions, and only the blocks that a loss depends on")
def check_positions() -> Iterator[Case]:
    """`function(prompt_length, length, block_size) -> [N + M]`: trimmed `[x_t ; x_0]`."""
    for prompt, length, size in ((25, 48, 16), (4, 12, 4), (3, 8, 1), (2, 8, 8)):
        start = prompt // size * size
        noisy, clean = torch.arange(start, length), torch.arange(length - size)
        late = torch.arange(prompt, length)
        mistakes = {
            "both halves keep their positions in the sequence; clean starts again at 0": (
                [noisy, clean + length]
            ),
            "count from 0 in the sequence, also where the first noisy blocks are left out": (
                [noisy - start, clean]
            ),
            "the noisy half comes first: [x_t ; x_0]": [clean, noisy],
            "equal tokens have equal positions; you number the input from 0 to its end": (
                [torch.arange(len(noisy) + len(clean))]
            ),
            "leave out noisy blocks without targets, and the last clean block": (
                [torch.arange(length), torch.arange(length)]
            ),
            "the noisy half starts with the block of the first target, not at it": [late, clean],
        }
        wrong = {hint: torch.cat(halves) for hint, halves in mistakes.items()}
        yield Case((prompt, length, size), torch.cat([noisy, clean]), wrong)


@exercise("correct: K views, one context")
def check_views_mask() -> Iterator[Case]:
    """`function(length, block_size, views) -> bool [(K+1)·L, (K+1)·L]`: who sees whom in
    `[x_t¹ ; … ; x_tᴷ ; x_0]`.
    """
    for length, size, views in ((6, 2, 2), (4, 1, 3), (6, 3, 1), (4, 2, 3)):
        copy = torch.arange(views + 1).repeat_interleave(length)
        block = torch.arange(length).repeat(views + 1) // size
        clean_key, clean_query = copy == views, copy[:, None] == views
        noisy_key, noisy_query = ~clean_key, ~clean_query
        same_block, earlier = block[:, None] == block, block[:, None] > block
        right = (copy[:, None] == copy) & same_block | clean_key & earlier
        mistakes = {
            "views must not see each other: the block masked differently gives answers away": (
                right | noisy_query & noisy_key & same_block
            ),
            "clean never sees noisy, of no view": right | clean_query & noisy_key & same_block,
            "a view must not see the clean copy of its own block, which holds the answers": (
                right | noisy_query & clean_key & same_block
            ),
            "every view has the clean copy as its context, not only the first": (
                right & ~((copy[:, None] > 0) & noisy_query & clean_key)
            ),
            "the clean copy sees its own earlier blocks, too": (
                right & ~(clean_query & clean_key & earlier)
            ),
            "queries are rows and keys are columns; yours is the other way round": right.T,
            "the clean copy comes last, behind all views": right.roll((length, length), (0, 1)),
        }
        yield Case((length, size, views), right, mistakes)


@exercise("correct: a sample with few masked tokens counts less, but more than its share of tokens")
def check_reweighted() -> Iterator[Case]:
    """`function(nats [B, L], masked bool [B, L]) -> loss`: Σ β_j L_j / Σ β_j with β_j = 1/√n_j,
    where L_j is the mean of sample j.
    """
    generator = torch.Generator().manual_seed(5)
    for rows in (2, 3, 5):
        nats = 3 * torch.rand(rows, 9, generator=generator)
        rates = torch.linspace(0.2, 0.9, rows)[:, None]
        masked = torch.rand(rows, 9, generator=generator) < rates
        masked[:, 0] = True
        n, total = masked.sum(1), (nats * masked).sum(1)
        mean, beta = total / n, n**-0.5
        everywhere = (beta * nats.mean(1)).sum() / beta.sum()
        mistakes = {
            "that is the mean over all masked tokens, as in the released trainer": (
                total.sum() / n.sum()
            ),
            "that weighs all samples alike; β_j = 1/√n_j": mean.mean(),
            "that has β_j = 1/n_j; take the root": (mean / n).sum() / (1 / n).sum(),
            "that has β_j = √n_j: samples with few masks should count more, not less": (
                (mean * n**0.5).sum() / (n**0.5).sum()
            ),
            "L_j is the mean over the masked tokens of sample j, not their sum": (
                (beta * total).sum() / beta.sum()
            ),
            "divide by Σ β_j, not by the number of samples": (beta * mean).mean(),
            "average over the masked positions only": everywhere,
        }
        yield Case((nats, masked), (beta * mean).sum() / beta.sum(), mistakes)

"""Exercises of notebook 06, block diffusion, and of the notebook on views and objectives."""

from typing import Any

import torch

from .checking import Case, Cases, Chance, exercise


@exercise("correct: noisy block b looks at clean blocks 0 to b − 1")
def check_offset_mask(chance: Chance) -> Cases:
    """`function(noisy [N], clean [M], block_size) -> bool [N, M]`: the mask M_OBC."""
    random_size = chance.whole(2, 9)
    random = random_size * chance.whole(3, 7), random_size
    for length, size in ((8, 2), (12, 4), (6, 1), (9, 3), random):
        noisy, clean = torch.arange(length // 3, length), torch.arange(1, length)
        query, key = noisy[:, None] // size, clean // size  # numbers of blocks
        row, column = torch.arange(len(noisy))[:, None] // size, torch.arange(len(clean)) // size
        mistakes = {
            "a noisy block must not see its own clean block, the answer: >, not >=": query >= key,
            "use the positions that are given, they need not start at 0": row > column,
            "compare blocks, not positions": noisy[:, None] > clean,
            "the other way round: noisy tokens see earlier clean blocks": query < key,
            "that is M_BD, the rule for noisy keys": query == key,
            "queries are rows and keys are columns; yours is the other way round": (query > key).T,
        }
        yield Case((noisy, clean, size), query > key, mistakes)


@exercise("correct: unless P is a multiple of L_B, the prompt ends in the first block to fill")
def check_shared_block(chance: Chance) -> Cases:
    """`function(prompt_length, block_size) -> (block, tokens)`: the first block that generation
    fills, and how many prompt tokens stand in it.
    """
    random = chance.whole(20, 90), chance.whole(3, 19)
    for prompt, size in ((25, 16), (37, 16), (48, 16), (5, 32), (7, 1), random):
        block, inside = divmod(prompt, size)
        before, up = (prompt - 1) // size, -(-prompt // size)
        blocks = {
            "a prompt may end where a block ends: then that block is full": before,
            "blocks count from 0, and the shared one is not skipped": up,
            "the first number is the index of the block, not its first position": block * size,
        }
        mistakes = {hint: torch.tensor([wrong, inside]) for hint, wrong in blocks.items()}
        free = "you count the free places; how many tokens of the prompt stand there?"
        mistakes[free] = torch.tensor([block, size - inside])
        mistakes["that is the block alone; return the tokens, too"] = torch.tensor(block)
        yield Case((prompt, size), torch.tensor([block, inside]), mistakes)


@exercise("correct: two halves, the same positions, and only the blocks that a loss depends on")
def check_positions(chance: Chance) -> Cases:
    """`function(prompt_length, length, block_size) -> [N + M]`: trimmed `[x_t ; x_0]`."""
    size = chance.whole(3, 7)
    random = chance.whole(1, 2 * size), 4 * size, size
    for prompt, length, size in ((25, 48, 16), (4, 12, 4), (3, 8, 1), (2, 8, 8), random):
        start = prompt // size * size
        noisy, clean = torch.arange(start, length), torch.arange(length - size)
        late, whole = torch.arange(prompt, length), torch.arange(length)
        counted = torch.arange(len(noisy) + len(clean))
        halves = {
            "the clean half keeps its positions in the sequence": [noisy, clean + length],
            "positions count from the start of the sequence": [noisy - start, clean],
            "the noisy half comes first: [x_t ; x_0]": [clean, noisy],
            "a token has the same position in both halves; you go on counting": [counted],
            "leave out noisy blocks without targets, and the last clean block": [whole, whole],
            "nobody reads the last clean block: leave it out, too": [noisy, whole],
            "noisy blocks of the prompt alone have no loss: leave them out, too": [whole, clean],
            "the noisy half starts where the block of the first target starts": [late, clean],
        }
        mistakes: dict[str, Any] = {hint: torch.cat(wrong) for hint, wrong in halves.items()}
        mistakes["those are two tensors; the input is one row: torch.cat"] = noisy, clean
        yield Case((prompt, length, size), torch.cat([noisy, clean]), mistakes)


@exercise("correct: K views, one context")
def check_views_mask(chance: Chance) -> Cases:
    """`function(length, block_size, views) -> bool [(K+1)·L, (K+1)·L]`: who sees whom in
    `[x_t¹ ; … ; x_tᴷ ; x_0]`.
    """
    size = chance.whole(2, 4)
    random = 3 * size, size, chance.whole(2, 4)
    for length, size, views in ((6, 2, 2), (4, 1, 3), (6, 3, 1), (4, 2, 3), random):
        copy = torch.arange(views + 1).repeat_interleave(length)
        block = torch.arange(length).repeat(views + 1) // size
        clean_key, clean_query = copy == views, copy[:, None] == views
        noisy_key, noisy_query = ~clean_key, ~clean_query
        same_block, earlier = block[:, None] == block, block[:, None] > block
        right = (copy[:, None] == copy) & same_block | clean_key & earlier
        among, clean_noisy = noisy_query & noisy_key, clean_query & noisy_key
        own_answers = noisy_query & clean_key & same_block
        own_past = noisy_query & (copy[:, None] == copy) & earlier
        clean_itself = clean_query & clean_key & same_block
        first_only = ~(noisy_query & clean_key & (copy[:, None] > 0))
        no_past = ~(clean_query & clean_key & earlier)
        mistakes = {
            "views must not see each other: they give answers away": right | among & same_block,
            "the clean copy sees no view": right | clean_noisy & same_block,
            "a view must not see its own clean block, which holds the answers": right | own_answers,
            "a view reads earlier blocks in the clean copy, not in itself": right | own_past,
            "the clean copy sees its own block, too": right & ~clean_itself,
            "every view has the clean copy as its context, not only the first": right & first_only,
            "the clean copy sees its own earlier blocks, too": right & no_past,
            "queries are rows and keys are columns; yours is the other way round": right.T,
            "the clean copy comes last, behind all views": right.roll((length, length), (0, 1)),
            "True means that it is seen, not that it is hidden": ~right,
        }
        yield Case((length, size, views), right, mistakes)


@exercise("correct: the fewer masked tokens a sample has, the more its mean counts")
def check_reweighted(chance: Chance) -> Cases:
    """`function(nats [B, L], masked bool [B, L]) -> loss`: Σ β_j L_j / Σ β_j with β_j = 1/√n_j,
    where L_j is the mean of sample j.
    """
    generator = chance.generator(5)
    for rows in (2, 3, 5):
        nats = 3 * torch.rand(rows, 9, generator=generator)
        rates = torch.linspace(0.2, 0.9, rows)[:, None]
        masked = torch.rand(rows, 9, generator=generator) < rates
        masked[:, 0] = True
        n, total = masked.sum(1), (nats * masked).sum(1)
        mean, beta = total / n, n**-0.5
        everywhere, sums = beta * nats.mean(1), beta * total
        pooled, growing = total.sum() / n.sum(), n**0.5 / (n**0.5).sum()
        mistakes = {
            "that is the mean over all masked tokens, as in the released trainer": pooled,
            "that weighs all samples alike; β_j = 1/√n_j": mean.mean(),
            "that has β_j = 1/n_j; take the root": (mean / n).sum() / (1 / n).sum(),
            "divide by Σ β_j, too": (beta * mean).sum(),
            "that has β_j = √n_j: few masks should count more, not less": (growing * mean).sum(),
            "L_j is the mean over masked tokens, not their sum": sums.sum() / beta.sum(),
            "divide by Σ β_j, not by the number of samples": (beta * mean).mean(),
            "average over the masked positions only": everywhere.sum() / beta.sum(),
            "that is the mean over all positions; only masked ones have a loss": nats.mean(),
        }
        yield Case((nats, masked), (beta * mean).sum() / beta.sum(), mistakes)


@exercise("correct: and no mask was built, so it also works for a million tokens")
def check_pairs(chance: Chance) -> Cases:
    """`function(lengths: list, block_size) -> int`: visible pairs in the mask of `[x_t ; x_0]`.

    The texts of these lengths are packed into one row, each filled up to whole blocks. Nothing is
    left out of the two halves.
    """
    random = [chance.whole(1, 30) for _ in range(3)]
    short = ([25, 40], 16), ([5], 4), ([3, 9, 4], 3), ([48], 1), (random, 4)
    # Building the last mask fails at once: a process has at most 2^47 bytes of addresses.
    for lengths, size in (*short, ([12_000_001], 16)):
        blocks = [-(-length // size) for length in lengths]
        total, half = sum(blocks), sum(m * (m + 1) // 2 for m in blocks)
        tokens = [m * size for m in blocks]
        cut = [length // size for length in lengths]
        pair = size**2  # pairs of tokens in a pair of blocks
        one_text = pair * total * (total + 1)
        rounded_down = pair * sum(m * (m + 1) for m in cut)
        causal = sum(n * (n + 1) for n in tokens)
        own_left_out = pair * sum(m * m for m in blocks)
        wrong = {
            "texts must not see each other: count each of them alone": one_text,
            "a text is filled up to whole blocks: round up": rounded_down,
            "noisy and clean tokens are queries: that is one half alone": pair * half,
            "those are all cells; most of them are masked": (2 * size * total) ** 2,
            "within a block a token sees all others, later ones too": causal,
            "noisy blocks see themselves, clean ones do, too, and the last clean one counts: "
            "one of these is missing": own_left_out,
            "that counts pairs of blocks; a pair of blocks holds block_size² of tokens": 2 * half,
        }
        right = 2 * pair * half
        # A wrong way may give the right number for one text or for blocks of one token.
        mistakes = {hint: value for hint, value in wrong.items() if value != right}
        yield Case((lengths, size), right, mistakes)

"""Exercises of notebook 15, from autoregression to diffusion."""

import torch

from .checking import Case, Cases, Chance, exercise

PAIR = "that is the pair of start and block size; return the size alone"


@exercise("correct: it depends on the step alone, so a run that is resumed keeps to the schedule")
def check_block_size_at(chance: Chance) -> Cases:
    """`function(schedule, steps, step) -> int`, for pairs (share of the run, block size)."""
    schedule, steps = [(0.0, 4), (0.25, 16), (0.5, 48), (0.75, 16)], 8
    # One row a hint, with the block size of each of the eight steps.
    mistakes = {
        "at step 2 of 8, the entry of 0.25 has begun": [4, 4, 4, 16, 16, 48, 48, 16],
        "at step 1 of 8, the entry of 0.25 has not begun yet": [4, 16, 16, 48, 48, 16, 16, 16],
        "that is the largest size so far; the schedule also goes back": [4, 4, 16, 16] + 4 * [48],
        "that is the next entry; take the last one that has begun": [16, 16, 48, 48] + 4 * [16],
        "that is the first entry; later ones may have begun": 8 * [4],
        "starts are shares of the run, not steps": [4] + 7 * [16],
    }
    for step, right in enumerate([4, 4, 16, 16, 48, 48, 16, 16]):
        wrong: dict = {hint: sizes[step] for hint, sizes in mistakes.items()}
        wrong[PAIR] = schedule[step // 2]
        yield Case((schedule, steps, step), right, wrong)
    # The second entry begins at step 2.4, rounded: 2. Starts at 1.6 and 2.6 tell int from round.
    late, early, _, following, first, of_steps = mistakes
    exact = "the start in steps is rounded: round(start * steps)"
    cut = "round(start * steps) also rounds up; int cuts off"
    for size in (16, chance.whole(5, 60)):
        entries = [(0.0, 4), (0.3, size)]
        wrong = dict.fromkeys((late, first, exact), 4)
        wrong[PAIR] = entries[1]
        yield Case((entries, steps, 2), size, wrong)
        for start, step in ((0.2, 1), (0.325, 2)):
            entries = [(0.0, 4), (start, size)]
            wrong = dict.fromkeys((early, following, of_steps, cut), size)
            wrong[PAIR] = entries[0]
            yield Case((entries, steps, step), 4, wrong)


@exercise("correct: noise on the masked tokens only; known tokens stay exact")
def check_noisy_masks(chance: Chance) -> Cases:
    """`function(embedded [B, L, H], ids [B, L], mask_id, noise [B, L, H], std) -> [B, L, H]`."""
    generator = chance.generator(15)
    tokens = torch.tensor([[7, 1, 7, 2, 3], [4, 7, 5, 7, 7], [1, 2, 3, 4, 5]])
    for ids, mask_id, std in ((tokens, 7, 0.1), (tokens % 7 + 20, 22, 0.3)):
        embedded, noise = torch.randn(2, 3, 5, 4, generator=generator)
        masked, scaled = (ids == mask_id)[..., None], std * noise
        mistakes = {
            "tokens that are known must stay exactly as they are": embedded + scaled,
            "the noise belongs on the masked tokens, not on the known": embedded + scaled * ~masked,
            "scale the noise by `std`": embedded + noise * masked,
            "scale the noise by the `std` that is given; it need not be 0.1": (
                embedded + 0.1 * noise * masked
            ),
            "add the noise to the embedding": torch.where(masked, scaled, embedded),
            "nothing has changed; is the result returned?": embedded,
        }
        right = embedded + scaled * masked
        named = {hint: wrong for hint, wrong in mistakes.items() if not wrong.equal(right)}
        yield Case((embedded, ids, mask_id, noise, std), right, named)


@exercise("correct: chosen by validation, and each counts the same")
def check_merge_best(chance: Chance) -> Cases:
    """`function(weights [N, P], bits [N], k) -> [P]`: mean of the k rows with fewest bits."""
    generator = chance.generator(16)
    for bits, k in (([3.1, 2.8, 2.9, 2.6, 2.7, 3.0], 3), ([2.7, 2.5, 2.9, 2.6, 2.4, 2.8, 3.0], 2)):
        weights, bound = torch.rand(len(bits), 5, generator=generator), torch.tensor(bits)
        order = bound.argsort()
        best, share = weights[order[:k]], 1 / bound[order[:k], None]
        mistakes = {
            "those are the worst ones: fewer bits are better": weights[order[-k:]].mean(0),
            "those are the last ones; choose by the bound": weights[-k:].mean(0),
            "those are the first ones; choose by the bound": weights[:k].mean(0),
            "that is the mean of all; take the best k": weights.mean(0),
            "take k of them, and not always three": weights[order[:3]].mean(0),
            "that is their sum; divide by k": best.sum(0),
            "divide by k, not by the number of all checkpoints": best.sum(0) / len(bits),
            "that is the best checkpoint alone": best[0],
            "every checkpoint counts the same: this mean is not weighted": (
                (best * share).sum(0) / share.sum()
            ),
        }
        yield Case((weights, bound, k), best.mean(0), mistakes)


@exercise("correct: late updates count less, as with a learning rate that falls")
def check_shares(chance: Chance) -> Cases:
    """`function(steps, saved: list) -> [steps]`: how much of each update is left in the mean.

    A checkpoint saved after n updates holds the updates 1 to n (entries 0 to n − 1). The mean
    of the checkpoints holds each update with a share between 0 and 1.
    """
    random = sorted({chance.whole(2, 9), 10, chance.whole(4, 8)})
    for steps, saved in ((6, [2, 4, 6]), (5, [5]), (8, [3, 4, 8]), (12, random)):
        update = torch.arange(steps)[:, None]
        ends = torch.tensor(saved)
        inside = update < ends  # [steps, checkpoints]
        right = inside.float().mean(1)
        mistakes = {
            "a checkpoint saved after n updates holds entry n − 1, and not entry n": (
                (update <= ends).float().mean(1)
            ),
            "a checkpoint saved after n updates holds entry n − 1, too": (
                (update < ends - 1).float().mean(1)
            ),
            "divide by the number of checkpoints, not of updates": inside.float().sum(1) / steps,
            "divide by the number of checkpoints: it is their mean": inside.float().sum(1),
            "the other way round: early updates are in every checkpoint": 1 - right,
            "shares need not add up to 1; in all checkpoints the share is 1": right / right.sum(),
            "a checkpoint holds all updates before it, not only its last one": (
                (update == ends - 1).float().mean(1)
            ),
        }
        named = {hint: wrong for hint, wrong in mistakes.items() if not wrong.equal(right)}
        yield Case((steps, saved), right, named)

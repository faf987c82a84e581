"""Exercises of notebook 08, sampling."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..exercises.checking import Case, exercise


@exercise("correct: all that is sure is committed, and never less than the share that is due")
def check_sprint_commits() -> Iterator[Case]:
    """`function(confidence [n], masked bool [n], steps_left, threshold) -> bool [n]`."""
    generator = torch.Generator().manual_seed(8)
    for threshold, steps_left in ((0.75, 3), (0.5, 2), (1.0, 4), (0.0, 5)):
        confidence = torch.rand(13, generator=generator)
        masked = torch.rand(13, generator=generator) < 0.7
        masked[0], confidence[0] = False, 0.999  # the surest position is already decided
        if threshold == 0.75:  # enough are surer than this one, which lies on the threshold
            masked[1:6], confidence[1:6] = True, torch.tensor([0.75, 0.8, 0.85, 0.9, 0.95])
        asked = confidence.masked_fill(~masked, -1.0)
        order, above, share = (
            asked.argsort(descending=True),
            asked > threshold,
            masked.sum() / steps_left,
        )
        due, too_few = order[: int(share.ceil())], order[: int(share.floor())]
        right = above.scatter(0, due, True)
        mistakes = {
            "positions that are not masked are decided already; they must stay False": (
                right | (confidence > threshold)
            ),
            "where few are sure, the surest must make up the share, or decoding may not end": above,
            "that is the share alone; commit everything above the threshold, too": (
                torch.zeros_like(above).scatter(0, due, True)
            ),
            "round the share up: with the floor, some are still masked after the last step": (
                above.scatter(0, too_few, True)
            ),
            "on the threshold is not above it: compare with >, not >=": (
                (asked >= threshold).scatter(0, due, True)
            ),
        }
        yield Case((confidence, masked, steps_left, threshold), right, mistakes)


@exercise("correct: a margin near 0 means the model hesitates between two tokens")
def check_margin() -> Iterator[Case]:
    """`function(logits [B, n, V]) -> [B, n]`: best probability minus the second best."""
    logits = 2 * torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(9))
    first, second = logits.softmax(-1).topk(2).values.unbind(-1)
    best, next_best = logits.topk(2).values.unbind(-1)
    mistakes = {
        "that is the probability of the best token alone; subtract the second best": first,
        "those are differences of logits; take the softmax first": best - next_best,
    }
    yield Case((logits,), first - second, mistakes)


@exercise("correct: that is how many tokens one forward pass is worth")
def check_tokens_per_forward() -> Iterator[Case]:
    """`function(committed bool [S, B, n]) -> [B]`: tokens per pass in which a row committed any."""
    share = torch.tensor([0.9, 0.5, 0.2])[None, :, None]
    committed = torch.rand(6, 3, 8, generator=torch.Generator().manual_seed(13)) < share
    committed[2:, 0] = committed[4:, 1] = False  # the first two rows are ready early
    tokens, passes = committed.sum((0, 2)), committed.any(2).sum(0)
    mistakes = {
        "a row that is ready early uses no later passes: do not divide by all of them": (
            tokens / len(committed)
        ),
        "that is the number of tokens; divide by passes": tokens,
        "that is the number of passes; you want tokens over passes": passes,
    }
    yield Case((committed,), tokens / passes, mistakes)

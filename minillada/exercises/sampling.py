"""Exercises of notebook 08, sampling."""

import math
from collections.abc import Callable

import torch

from .checking import Case, Cases, Chance, exercise


@exercise("correct: all that is sure is committed, and never less than the share that is due")
def check_sprint_commits(chance: Chance) -> Cases:
    """`function(confidence [n], masked bool [n], steps_left, threshold) -> bool [n]`."""
    generator = chance.generator(8)
    for threshold, steps_left in ((0.75, 3), (0.5, 2), (1.0, 4), (0.0, 5)):
        confidence = torch.rand(13, generator=generator)
        masked = torch.rand(13, generator=generator) < 0.7
        masked[0], confidence[0] = False, 0.999  # the surest position is already decided
        if threshold == 0.75:  # enough are surer than this one, which lies on the threshold
            masked[1:6], confidence[1:6] = True, torch.tensor([0.75, 0.8, 0.85, 0.9, 0.95])
        if threshold == 0.5:  # Two are sure, four are due: 8 / 2 leaves no rest.
            masked = (torch.arange(13) >= 1) & (torch.arange(13) <= 8)
            confidence[1:9] = confidence[1:9] / 2.1 + 0.51 * (torch.arange(8) < 2)
        if threshold == 1.0:  # The quota decides. 9 / 4 leaves a rest: 3 if rounded up, else 2.
            masked = (torch.arange(13) >= 1) & (torch.arange(13) <= 9)
        asked = confidence.masked_fill(~masked, -1.0)
        order, share = asked.argsort(descending=True), masked.sum() / steps_left
        above, sure, none = asked > threshold, confidence > threshold, torch.zeros_like(masked)
        due, floor = order[: int(share.ceil())], order[: int(share.floor())]
        right, on_it = above.scatter(0, due, True), asked >= threshold
        surest = confidence.argsort(descending=True)  # with those that are decided
        wide = order[: math.ceil(len(masked) / steps_left)]
        unsure = asked.masked_fill(above, -1.0).argsort(descending=True)[: int(share.ceil())]
        extra = none.scatter(0, unsure, True) & masked
        mistakes = {
            "what is not masked is decided already: it stays False": right | sure,
            "where few are sure, the surest must make up the share": above,
            "that is the share alone; add all above the threshold": none.scatter(0, due, True),
            "round the share up, or masks are left at the end": above.scatter(0, floor, True),
            "count the masked places for the share, not all places": above.scatter(0, wide, True),
            "what is sure counts towards the share; you add the share on top": right | extra,
            "on the threshold is not above it: >, not >=": on_it.scatter(0, due, True),
            "what is decided takes no part in the order": sure.scatter(
                0, surest[: int(share.ceil())], True
            ),
            "what is decided takes no part, neither in the order nor in the share": (
                sure.scatter(0, surest[: math.ceil(len(masked) / steps_left)], True)
            ),
        }
        yield Case((confidence, masked, steps_left, threshold), right, mistakes)


@exercise("correct: a margin near 0 means the model hesitates between two or more tokens")
def check_margin(chance: Chance) -> Cases:
    """`function(logits [B, n, V]) -> [B, n]`: best probability minus the second best."""
    logits = 2 * torch.randn(2, 5, 7, generator=chance.generator(9))
    logits[1, 3, :2] = 9.0  # two best tokens
    first, second = logits.softmax(-1).topk(2).values.unbind(-1)
    best, next_best = logits.topk(2).values.unbind(-1)
    places = logits.softmax(1).topk(2).values
    two, p = torch.stack([best, next_best], -1).softmax(-1), logits.softmax(-1)
    lower = p.masked_fill(p == first[..., None], 0.0).amax(-1)
    mistakes = {
        "where two tokens are the best, the second best is as likely: the margin is 0": (
            first - lower
        ),
        "the softmax goes over all tokens, not only over the two best": two[..., 0] - two[..., 1],
        "subtract the second best, not the least likely": first - p.amin(-1),
        "that is the probability of the best token alone; subtract the second best": first,
        "those are differences of logits or of log p; take those of p": best - next_best,
        "the other way round: the best minus the second best is positive": second - first,
        "that is a ratio; subtract": first / second,
        "the softmax goes over the tokens, the last dimension": places[..., 0] - places[..., 1],
    }
    yield Case((logits,), first - second, mistakes)


@exercise("correct: that is how many tokens one forward pass is worth")
def check_tokens_per_forward(chance: Chance) -> Cases:
    """`function(committed bool [S, B, n]) -> [B]`: tokens per pass in which a row committed any."""
    share = torch.tensor([0.9, 0.5, 0.2])[None, :, None]
    committed = torch.rand(6, 3, 8, generator=chance.generator(13)) < share
    committed[2:, 0] = committed[4:, 1] = False  # the first two rows are ready early
    committed[3, 2], committed[5, 2, 0] = False, True  # the third one pauses
    last = torch.tensor([2, 4, 6])
    tokens, passes = committed.sum((0, 2)), committed.any(2).sum(0)
    mistakes = {
        "a row that is ready early uses no later passes: count its own": tokens / len(committed),
        "leave out each pass in which the row committed nothing, not only the late ones": (
            tokens / last
        ),
        "that is the number of tokens; divide by passes": tokens,
        "that is the number of passes; you want tokens over passes": passes,
        "that is one number for all; each row has its own": tokens.sum() / len(committed),
    }
    yield Case((committed,), tokens / passes, mistakes)


def left_after(masks: int, steps: int, share: Callable[[float], float]) -> list[int]:
    """How many masks are left at the beginning and after each pass."""
    return [math.floor(masks * share(step / steps)) for step in range(steps + 1)]


def differences(left: list[int]) -> list[int]:
    return [before - after for before, after in zip(left[:-1], left[1:])]


def commits(masks: int, steps: int, after: Callable[[int, int, float], int]) -> list[int]:
    """How many tokens each pass commits; `after(left, masks, cosine)` says how many are left."""
    left = [masks]
    for step in range(1, steps + 1):
        left.append(after(left[-1], masks, math.cos(math.pi / 2 * step / steps)))
    return differences(left)


@exercise("correct: few tokens in the first passes, many in the last")
def check_cosine_schedule(chance: Chance) -> Cases:
    """`function(masks, steps) -> list`: how many tokens each pass commits, by MaskGIT's cosine.

    After pass s of S, `floor(masks * cos(π/2 * s/S))` masks are left.
    """
    for masks, steps in ((16, 4), (64, 8), (100, 5), (4, 8), (chance.whole(30, 90), 7)):
        left = left_after(masks, steps, lambda share: math.cos(math.pi / 2 * share))
        right = differences(left)
        kept = left_after(masks, steps, lambda share: 1 - math.sin(math.pi / 2 * share))
        linear = left_after(masks, steps, lambda share: 1 - share)
        half = left_after(masks, steps, lambda share: (1 + math.cos(math.pi * share)) / 2)
        mistakes = {
            "those are the masks that are left; return how many a pass commits": left[1:],
            "those are the masks that are left, from the start on; return differences": left,
            "that is how many are known in all; return how many a pass adds": [
                masks - number for number in left[1:]
            ],
            "the other way round: few tokens first, many at the end": differences(kept),
            "that is the even share; the cosine begins slowly": differences(linear),
            "a quarter of a wave: cos(π/2 · s/S), which is 0 at the end": differences(half),
            "the first pass is s = 1: before it, all are masked": [0] + right[:-1],
            "round down, not to the nearest": commits(
                masks, steps, lambda _, masks, c: round(masks * c)
            ),
            "the cosine is a share of all masks, not of those that are left": commits(
                masks, steps, lambda left, masks, c: math.floor(left * c)
            ),
            "the last cosine must not fall below 0, as it does in float32: use math.cos": [
                *right[:-1],
                right[-1] + 1,
            ],
            "the formula has no minimum: some passes commit nothing": commits(
                masks, steps, lambda left, masks, c: max(min(left - 1, math.floor(masks * c)), 0)
            ),
        }
        yield Case((masks, steps), right, mistakes)

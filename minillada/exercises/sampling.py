"""exercises.sampling"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..exercises.checking import attempt, same


def check_sprint_commits(function: Callable) -> bool:
    """Notebook 08: `function(confidence [n], masked bool [n], steps_left, threshold) -> bool [n]`, SPRINT's commit rule."""
    generator = torch.Generator().manual_seed(8)
    for threshold, steps_left in ((0.9, 3), (0.5, 2), (1.0, 4), (0.0, 5)):
        confidence, masked = torch.rand(13, generator=generator), torch.rand(13, generator=generator) < 0.7
        masked[0], confidence[0] = False, 0.999  # the surest position is already decided
        asked = confidence.masked_fill(~masked, -1.0)
        order, above, share = asked.argsort(descending=True), asked > threshold, masked.sum() / steps_left
        up, down = (above.scatter(0, order[: int(count)], True) for count in (share.ceil(), share.floor()))
        hints = {
            "positions that are not masked are decided already; they must stay False": up | (confidence > threshold),
            "when few are sure, the most confident ones must fill up the share, or decoding may never end": above,
            "round the share up: with the floor, some positions are still masked after the last step": down,
        }
        result = attempt(function, confidence, masked, steps_left, threshold)
        if result is None or not same(result, up, hints):
            return False
    print("correct: everything sure is committed, and never less than the share that must be")
    return True


def check_margin(function: Callable) -> bool:
    """Notebook 08: `function(logits [B, n, V]) -> [B, n]`, probability of the best token minus that of the second best."""
    logits = 2 * torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(9))
    best, values = logits.softmax(-1).topk(2).values, logits.topk(2).values
    hints = {
        "that is the probability of the best token alone; subtract the second best": best[..., 0],
        "those are differences of logits; take the softmax first": values[..., 0] - values[..., 1],
    }
    result = attempt(function, logits)
    if result is None or not same(result, best[..., 0] - best[..., 1], hints):
        return False
    print("correct: a margin near 0 means the model hesitates between two tokens")
    return True


def check_tokens_per_forward(function: Callable) -> bool:
    """Notebook 08: `function(committed bool [S, B, n]) -> [B]`, tokens a row committed per pass in which it committed any."""
    share = torch.tensor([0.9, 0.5, 0.2])[None, :, None]
    committed = torch.rand(6, 3, 8, generator=torch.Generator().manual_seed(13)) < share
    committed[2:, 0] = committed[4:, 1] = False  # the first two rows are ready early
    tokens, passes = committed.sum((0, 2)), committed.any(2).sum(0)
    hints = {
        "a row that is ready early does not use the later passes: do not divide by all of them": tokens / len(committed),
        "that is the number of tokens; divide by passes": tokens.float(),
        "that is the number of passes; you want tokens over passes": passes.float(),
    }
    result = attempt(function, committed)
    if result is None or not same(result, tokens / passes, hints):
        return False
    print("correct: that is how many tokens one look of the model is worth")
    return True

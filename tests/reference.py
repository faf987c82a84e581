"""Slow, obvious versions of what the package does fast; the tests compare the two."""

from __future__ import annotations

import math

import torch
from helpers import MASK

from minillada.config import SamplingConfig
from minillada.model import Backbone


def logits_of_prefix(backbone: Backbone, ids: list[int], block_size: int, shift: int = 0):
    """Logits `[L, V]` of a sequence by itself; blocks count `shift` tokens in front of it."""
    index = torch.arange(len(ids)) + shift
    mask = index[None, :, None] // block_size >= index[None, None, :] // block_size
    return backbone(torch.tensor([ids]), mask)[0]


@torch.no_grad()
def decode(
    backbone: Backbone,
    prompt: list[int],
    length: int,
    config: SamplingConfig,
    unconditional: list[int] | None = None,
) -> tuple[list[int], int]:
    """Greedy block decoding of one row, the whole prefix recomputed in every pass.

    Returns the answer and how many passes it took. The unconditional branch is an own forward of
    its unpadded tokens; its blocks fall where those of the prompt do.
    """
    start, end, size = len(prompt), len(prompt) + length, config.block_size
    total = math.ceil(end / size) * size
    last = total if config.fill_tail else end
    ids, passes = prompt + [MASK] * (total - start), 0
    steps = min(config.steps, length // config.minimal_topk)
    for first in range(start // size * size, end, size):
        own = [i for i in range(first, first + size) if start <= i < last]
        step, post_steps, changed = 0, 0, True
        while True:
            masked = [i for i in own if ids[i] == MASK]
            if not masked:
                post_steps += 1
                if config.edit_threshold == 1 or not changed or post_steps > config.post_steps:
                    break
            logits = logits_of_prefix(backbone, ids[: first + size], size)
            if unconditional is not None and config.guidance != 1:
                kept = unconditional[max(len(unconditional) - start, 0) :]
                shift = start - len(kept)
                answer = ids[start : first + size]
                other = logits_of_prefix(backbone, kept + answer, size, shift)
                for i in own:
                    u = other[i - shift]
                    logits[i] = u + config.guidance * (logits[i] - u)
            logits[:, MASK] = -math.inf
            best = {i: logits[i].softmax(-1).max(0) for i in own}

            # Commit all above the threshold if they are enough, else the quota's best.
            count = size // steps + (1 if step < size % steps else 0)
            if config.adaptive:
                count = math.ceil(len(masked) / max(steps - step, 1))
            chosen = [i for i in masked if best[i].values > config.threshold]
            if len(chosen) < count:
                chosen = sorted(masked, key=lambda i: -best[i].values)[:count]
            # Rewrite where another token is likely enough.
            for i in own:
                sure = best[i].values > config.edit_threshold
                if i not in masked and sure and best[i].indices != ids[i]:
                    chosen.append(i)
            for i in chosen:
                ids[i] = int(best[i].indices)
            step, passes, changed = step + 1, passes + 1, bool(chosen)
    return ids[start:end], passes


def commits(confidence: list[float], eligible: list[bool], count: int, threshold: float):
    """The places that one row commits, as a set."""
    places = [i for i, free in enumerate(eligible) if free]
    above = [i for i in places if confidence[i] > threshold]
    if len(above) >= count:
        return set(above)
    return set(sorted(places, key=lambda i: (-confidence[i], i))[:count])


def has_ended(row: list[int], eos: int) -> bool:
    """Whether a row holds an end of text with no mask before it."""
    for token in row:
        if token == MASK:
            return False
        if token == eos:
            return True
    return False

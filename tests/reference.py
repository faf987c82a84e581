"""Slow, obvious versions of what the package does fast; the tests compare the two."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from helpers import MASK
from torch.distributions import Categorical

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


# --- losses --------------------------------------------------------------------------------------


def block_logits(
    backbone: Backbone, row: torch.Tensor, noisy_row: torch.Tensor, block: int, size: int
):
    """Logits `[size, V]` of one block, from a forward on [clean prefix ; noisy block]."""
    start, stop = block * size, (block + 1) * size
    ids = torch.cat([row[:start], noisy_row[start:stop]])[None]
    mask = [[i // size >= j // size for j in range(stop)] for i in range(stop)]
    return backbone(ids, torch.tensor(mask)[None])[0, start:]


def block_nats(
    backbone: Backbone, row: torch.Tensor, noisy_row: torch.Tensor, block: int, size: int
):
    """−log p(x_i) `[size]` for every position of one block."""
    logits = block_logits(backbone, row, noisy_row, block, size)
    return F.cross_entropy(logits, row[block * size : (block + 1) * size], reduction="none")


def autoregressive_nats(backbone: Backbone, row: torch.Tensor) -> torch.Tensor:
    """−log p(x_i | x_<i) left to right: a causal forward on [x_<i ; mask] for each i."""
    nats = []
    for i in range(len(row)):
        ids = torch.cat([row[:i], torch.tensor([MASK])])[None]
        causal = torch.ones(i + 1, i + 1).tril().bool()[None]
        nats.append(F.cross_entropy(backbone(ids, causal)[0, i], row[i]))
    return torch.stack(nats)


def token_weight(objective: str, rate, m: int, n: int, in_row: int):
    """What the nats of a masked token count: n of the m targets of its block are masked."""
    if objective == "bound":
        return 1 / rate
    if objective == "count":
        return (m + 1) / n
    if objective == "uniform":
        return 1
    return in_row**-0.5 / in_row  # reweighted: β_j / n_j


def row_total(objective: str, targets: int, masked: int):
    """What a row adds to the denominator of the loss."""
    if objective == "uniform":
        return masked
    if objective == "reweighted":
        return masked**-0.5 if masked else 0
    return targets


def loss_by_formula(backbone, ids, targets, size, views, objective, confidence_weight):
    """Any objective as loops over views (noisy, masked, rates), rows, blocks and positions."""
    numerator, denominator, entropies = 0.0, 0.0, []
    for noisy, masked, rates in views:
        for row in range(len(ids)):
            in_row = int(masked[row].sum())
            denominator += row_total(objective, int(targets[row].sum()), in_row)
            for block in range(ids.shape[1] // size):
                first = block * size
                m = int(targets[row, first : first + size].sum())
                n = int(masked[row, first : first + size].sum())
                logits = block_logits(backbone, ids[row], noisy[row], block, size)
                for place in range(size):
                    if not masked[row, first + place]:
                        continue
                    answer = ids[row, first + place]
                    nats = F.cross_entropy(logits[place], answer)
                    weight = token_weight(objective, rates[row, block], m, n, in_row)
                    numerator = numerator + weight * nats
                    if logits[place].argmax() == answer:
                        entropies.append(Categorical(logits=logits[place]).entropy())
    loss = numerator / denominator
    if confidence_weight and entropies:
        loss = loss + confidence_weight * sum(entropies) / len(entropies)
    return loss

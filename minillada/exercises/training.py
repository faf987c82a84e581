"""Exercises of notebook 07, training."""

import math
from itertools import combinations
from typing import Any

import torch

from .checking import Case, Cases, Chance, exercise


def cosine(progress: float, peak: float, final: float) -> float:
    """From `peak` at progress 0 to `final * peak` at progress 1."""
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


@exercise("correct: this is optim.learning_rate")
def check_learning_rate(chance: Chance) -> Cases:
    """`function(step, steps, peak, warmup, final_fraction) -> float`: linear up, cosine down."""
    no_warmup = "the warm-up is missing"
    random = chance.whole(20, 30), 0.5 + chance.whole(0, 9) / 10, chance.whole(3, 7), 0.05
    for steps, peak, warmup, final in ((40, 1.0, 8, 0.1), (25, 3e-2, 5, 0.02), random):
        for step in range(steps):
            inputs = (step, steps, peak, warmup, final)
            from_zero = cosine(step / steps, peak, final)
            mistakes = {no_warmup: from_zero}
            if step < warmup:
                late = "the first step would learn nothing: step 0 has `peak / warmup` already"
                slow = "step `warmup - 1` has the peak already: divide by `warmup`"
                mistakes |= {late: peak * step / warmup, slow: peak * (step + 1) / (warmup + 1)}
                yield Case(inputs, peak * (step + 1) / warmup, mistakes)
                continue
            progress = (step - warmup) / (steps - warmup)
            mistakes |= {
                "the progress of the decay counts from the end of the warm-up": from_zero,
                "after the warm-up the rate should fall": peak,
                "the decay is a cosine, not a straight line": peak * (1 - (1 - final) * progress),
                "the end is final_fraction * peak; yours is 0": cosine(progress, peak, 0.0),
                "final_fraction is a share of the peak: multiply it by `peak`": cosine(
                    progress, peak, final / peak
                ),
                "the cosine ends at final_fraction * peak; yours goes to 0 and is cut off": max(
                    cosine(progress, peak, 0.0), final * peak
                ),
                "the lowest rate would come in step `steps`, one after the last": cosine(
                    (step - warmup) / (steps - 1 - warmup), peak, final
                ),
                "step `warmup` has the peak, too: the cosine begins there": cosine(
                    (step - warmup + 1) / (steps - warmup + 1), peak, final
                ),
            }
            yield Case(inputs, cosine(progress, peak, final), mistakes)


@exercise("correct: this is objectives.weigh_bound")
def check_loss_normalisation(chance: Chance) -> Cases:
    """`function(nats [B, L], masked [B, L], rates [B, L / block_size], targets [B, L], block_size)
    -> loss`.
    """
    generator = chance.generator(7)
    for size in (4, 8):
        nats = 6 * torch.rand(3, 16, generator=generator)
        targets = torch.arange(16) >= torch.tensor([[5], [9], [2]])
        rates = 0.2 + 0.6 * torch.rand(3, 16 // size, generator=generator)
        t = rates.repeat_interleave(size, dim=1)
        masked = targets & (torch.rand(3, 16, generator=generator) < t)
        kept, number, asked = nats * masked, targets.sum(), masked.sum()
        weighted, everywhere = (kept / t).sum(), (nats * targets / t).sum()
        tiled = (kept / rates.repeat(1, size)).sum() / number
        mistakes = {
            "the weight 1/t is missing": kept.sum() / number,
            "the weight is 1/t; yours is t: divide by the rate": (kept * t).sum() / number,
            "that is the mean over masked tokens, without 1/t; it is no bound": kept.sum() / asked,
            "1/t makes up for visible targets: divide by all targets": weighted / asked,
            "prompt tokens are never asked: divide by the number of targets": (kept / t).mean(),
            "each rate belongs to a whole block: repeat_interleave, not repeat": tiled,
            "only masked positions count; others show the answer": everywhere / number,
            "divide once, at the end; yours is the mean of one loss a sequence": (
                ((kept / t).sum(1) / targets.sum(1)).mean()
            ),
            "divide by the number of targets, not by the sum of the weights": (
                weighted / (masked / t).sum()
            ),
        }
        yield Case((nats, masked, rates, targets, size), weighted / number, mistakes)


NOISE = "one generator serves all steps: make one in each step, seeded with its number"
MOMENTUM = "the momentum is thrown away: go on from the one in the state"
RATE = "the learning rate starts again: it depends on the number of the step"
AGAIN = "the noise of a resumed run starts again: seed with the number of the step"
BEFORE = "the weight moves along the new momentum, not along the one before"


def toy_run(state: dict, end: int, slips: tuple[str, ...] = (), seed: int = 0) -> dict:
    """The toy training run from a state to step `end`, with some of the mistakes above."""
    weight, momentum = state["weight"], state["momentum"]
    if MOMENTUM in slips:
        momentum = torch.zeros(4)
    generator = torch.Generator().manual_seed(seed)
    for step in range(state["step"], end):
        since = step - state["step"]
        if NOISE not in slips:
            generator = torch.Generator().manual_seed(since if AGAIN in slips else step)
        before = momentum
        momentum = 0.9 * momentum + weight - torch.randn(4, generator=generator)
        along = before if BEFORE in slips else momentum
        weight = weight - 0.1 / (1 + (since if RATE in slips else step)) * along
    return {"step": end, "weight": weight, "momentum": momentum}


@exercise("correct: ten steps, stopped after four, end where ten steps in a row end")
def check_exact_resume(chance: Chance) -> Cases:
    """`function(state, end) -> state`: the toy training run that must not notice an interruption.

    `state` holds `step`, `weight` `[4]` and `momentum` `[4]`.
    """
    start: dict[str, Any] = {
        "step": 0,
        "weight": torch.randn(4, generator=chance.generator(8)),
        "momentum": torch.zeros(4),
    }
    for state, end in ((start, 4), (toy_run(start, 4), 10)):
        mistakes: dict[str, Any] = {}
        for count in (1, 2, 3):
            for slips in combinations((NOISE, MOMENTUM, RATE), count):
                mistakes["; ".join(slips)] = toy_run(state, end, slips)
        from_begin = "one generator serves all steps, seeded where the run begins: make one in each"
        done = toy_run(state, end)
        mistakes["return the whole state: step and momentum are needed, too"] = done["weight"]
        one_more = toy_run(state, end + 1)
        mistakes["that makes one step too many: `end` is how many are done"] = one_more
        mistakes["that makes one step too many: go up to, but not including, `end`"] = one_more | {
            "step": end
        }
        late = toy_run(state | {"step": state["step"] + 1}, end)
        mistakes["the first step is left out: state['step'] is the next one to make"] = late
        mistakes["the steps begin at 0 again: go on from state['step']"] = toy_run(
            state | {"step": 0}, end
        )
        for slip in (AGAIN, BEFORE):
            mistakes[slip] = toy_run(state, end, (slip,))
        mistakes[from_begin] = toy_run(state, end, (NOISE,), seed=state["step"])
        yield Case((state, end), done, mistakes)

"""exercises.training"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..exercises.checking import attempt, same


def check_learning_rate(function: Callable) -> bool:
    """Notebook 07: `function(step, steps, peak, warmup, final_fraction) -> float`, linear warm-up, then cosine decay."""
    for steps, peak, warmup, final in ((40, 1.0, 8, 0.1), (25, 3e-2, 5, 0.02)):
        when = torch.arange(steps).double()
        rising = peak * (when + 1) / warmup
        decay = lambda progress, peak=peak, final=final: peak * (final + (1 - final) * 0.5 * (1 + (torch.pi * progress).cos()))  # noqa: E731
        after, late = (when - warmup) / (steps - warmup), when >= warmup
        right = torch.where(late, decay(after), rising)
        hints = {
            "the first step would learn nothing: warm up with (step + 1) / warmup": torch.where(late, decay(after), peak * when / warmup),
            "the warm-up is missing": decay(when / steps),
            "the decay begins after the warm-up: its progress counts from there": torch.where(late, decay(when / steps), rising),
            "after the warm-up the rate should fall": rising.clamp_max(peak),
            "the decay is a cosine, not a straight line": torch.where(late, peak * (1 - (1 - final) * after), rising),
            "the rate should end near final_fraction * peak, yours goes to 0": torch.where(late, decay(after, final=0.0), rising),
        }
        results = []
        for step in range(steps):
            results.append(attempt(function, step, steps, peak, warmup, final))
            if results[-1] is None:
                return False
        if not same(results, right, hints):
            return False
    print("correct: this is optim.learning_rate")
    return True


def check_loss_normalisation(function: Callable) -> bool:
    """Notebook 07: `function(nats [B, L], masked [B, L], rates [B, L / block_size], targets [B, L], block_size) -> loss`."""
    generator = torch.Generator().manual_seed(7)
    for block_size in (4, 8):
        nats = 6 * torch.rand(3, 16, generator=generator)
        targets = torch.arange(16) >= torch.tensor([[5], [9], [2]])
        rates = 0.2 + 0.6 * torch.rand(3, 16 // block_size, generator=generator)
        t = rates.repeat_interleave(block_size, dim=1)
        masked = targets & (torch.rand(3, 16, generator=generator) < t)
        kept = nats * masked
        hints = {
            "the weight 1/t is missing": kept.sum() / targets.sum(),
            "that is the mean over masked tokens, without 1/t; it is not a bound on the likelihood": kept.sum() / masked.sum(),
            "1/t already makes up for visible targets: divide by all targets, not by masked ones": (kept / t).sum() / masked.sum(),
            "prompt tokens are never asked: divide by the number of targets, not by all positions": (kept / t).mean(),
            "each rate belongs to a whole block: repeat_interleave, not repeat": (kept / rates.repeat(1, block_size)).sum() / targets.sum(),
            "only masked positions count; visible ones were given away": (nats * targets / t).sum() / targets.sum(),
        }
        result = attempt(function, nats, masked, rates, targets, block_size)
        if result is None or not same(result, (kept / t).sum() / targets.sum(), hints):
            return False
    print("correct: this is the last line of diffusion.block_diffusion_loss")
    return True


def check_exact_resume(function: Callable) -> bool:
    """Notebook 07: `function(state, end) -> state`, the toy training run that must not notice an interruption.

    `state` holds `step`, `weight` `[4]`, `momentum` `[4]`; the noise of step n comes from a generator seeded with n.
    """

    def run(begin: dict, end: int, old_noise: bool, old_momentum: bool, old_rate: bool) -> dict:
        weight, momentum = begin["weight"], torch.zeros(4) if old_momentum else begin["momentum"]
        shared = torch.Generator().manual_seed(0)
        for step in range(begin["step"], end):
            noise = torch.randn(4, generator=shared if old_noise else torch.Generator().manual_seed(step))
            momentum = 0.9 * momentum + weight - noise
            weight = weight - 0.1 / (1 + step - (begin["step"] if old_rate else 0)) * momentum
        return {"step": end, "weight": weight, "momentum": momentum}

    start = {"step": 0, "weight": torch.tensor([1.0, -2.0, 0.5, 3.0]), "momentum": torch.zeros(4)}
    given = {"step": 0, "weight": start["weight"].clone(), "momentum": torch.zeros(4)}
    state = given
    for end in (4, 10):
        state = attempt(function, state, end)
        if state is None:
            return False
        if not isinstance(state, dict) or not {"step", "weight", "momentum"} <= state.keys() or state["step"] != end:
            print(f"return a dictionary with 'step' ({end} now), 'weight' and 'momentum': what the next piece needs")
            return False
    if given["step"] or not torch.equal(given["weight"], start["weight"]) or given["momentum"].any():
        print("the state you were given has changed; compute new tensors and return a new dictionary")
        return False
    slips = ("the noise of step n depends on when the run began", "the momentum is thrown away", "the learning rate starts again")
    flags = [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]
    ends = {f: run(run(start, 4, *f), 10, *f)["weight"] for f in flags}
    hints = {"; ".join(slip for slip, there in zip(slips, f, strict=True) if there): weight for f, weight in ends.items() if any(f)}
    if not same(state["weight"], ends[flags[0]], hints):
        return False
    print("correct: ten steps, stopped after four, end where ten steps in a row end")
    return True

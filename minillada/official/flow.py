"""Both samplers of the official painter: from noise to a picture along a velocity.

Notable choices
- Times and types are the official ones; the steps themselves are those of our own `flow.py`.
- The 50-step sampler takes Euler steps. Most of them are spent near the noise (`shifted`).
- The turbo sampler jumps to the picture that the velocity promises, then adds fresh noise for the
  next time. Its model is distilled for that (a consistency model); 8 evaluations are enough.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import flow
from ..flow import Velocity, shifted

SHIFT = 6.0  # of `shifted`: larger means more steps near the noise


def euler(velocity: Velocity, noise: Tensor, steps: int = 50) -> Tensor:
    """Follow the velocity from noise through `steps` points in time: `steps - 1` evaluations."""
    if steps < 2:
        raise ValueError(f"a picture needs at least 2 steps, got {steps}")
    times = shifted(torch.linspace(0, 1, steps, device=noise.device), SHIFT)
    return flow.euler(velocity, noise.float(), times)


def turbo(
    velocity: Velocity, noise: Tensor, steps: int = 8, generator: torch.Generator | None = None
) -> Tensor:
    """Jump to the picture and add fresh noise, `steps` times; the last jump stays.

    Noise and `generator` are on the CPU, as some devices have no float64; `velocity` may compute
    elsewhere.
    """
    if steps < 1:
        raise ValueError(f"a picture needs at least 1 step, got {steps}")
    times = torch.linspace(0, 1, steps + 1, dtype=torch.double)

    def fresh() -> Tensor:
        return torch.randn(noise.shape, generator=generator, dtype=torch.double)

    return flow.jumps(velocity, noise.double(), times, fresh)

"""Both samplers of the official painter: from noise to a picture along a velocity.

Notable choices
- `x_t = t x_1 + (1 - t) x_0` with noise x_0 and picture x_1, so the velocity is `x_1 - x_0`.
- The 50-step sampler takes Euler steps. Most of them are spent near the noise (`shifted`).
- The turbo sampler jumps to the picture that the velocity promises, then adds fresh noise for the
  next time. Its model is distilled for that (a consistency model); 8 evaluations are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x [B, C, H, W], t []) -> [B, C, H, W]
SHIFT = 6.0


def shifted(times: Tensor, shift: float = SHIFT) -> Tensor:
    """Times in [0, 1] moved towards 0, the noise; 0 and 1 stay."""
    return times / (times + shift - shift * times)


def euler(velocity: Velocity, noise: Tensor, steps: int = 50) -> Tensor:
    """Follow the velocity from noise through `steps` times, that is `steps - 1` evaluations."""
    if steps < 2:
        raise ValueError(f"a picture needs at least 2 steps, got {steps}")
    x = noise.float()
    times = shifted(torch.linspace(0, 1, steps, device=noise.device))
    for now, then in pairwise(times):
        x = x + (then - now) * velocity(x, now)
    return x


def turbo(
    velocity: Velocity, noise: Tensor, steps: int = 8, generator: torch.Generator | None = None
) -> Tensor:
    """Jump to the picture and add fresh noise, `steps` times; the last jump stays.

    `generator` is one of the CPU: the same noise on every device.
    """
    if steps < 1:
        raise ValueError(f"a picture needs at least 1 step, got {steps}")
    x = noise.double()
    times = torch.linspace(0, 1, steps + 1, dtype=torch.double, device=noise.device)
    for now, then in pairwise(times):
        picture = x + (1 - now) * velocity(x, now)
        fresh = torch.randn(x.shape, generator=generator, dtype=torch.double).to(x.device)
        x = then * picture + (1 - then) * fresh
    return x

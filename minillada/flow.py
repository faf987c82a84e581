"""Flow matching: from noise to a picture along a velocity, in many small steps or in a few jumps.

After Lipman et al. 2023 (arXiv 2210.02747); the official painter of LLaDA2.0-Uni uses it, too.

Notable choices
- A picture x_1 and noise x_0 are mixed, `x_t = t x_1 + (1 - t) x_0`: at t = 0 all is noise. (In
  `diffusion` it is the other way round: there, x_0 is clean.) Along this line the velocity is
  `x_1 - x_0`. Painting follows the expected velocity from t = 0 to 1.
- A network predicts ("says") the picture x̂_1. The velocity follows: `(x̂_1 - x) / (1 - t)`.
- A consistency model (arXiv 2303.01469) says where the path from x ends. So it can jump there, and
  a few jumps with fresh noise between them are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]  # (x [B, C, H, W], t []) -> [B, C, H, W]
Says = Callable[[Tensor, Tensor], Tensor]  # (x [B, C, H, W], t [B]) -> pictures x̂_1


def mix(picture: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """`x_t` of pictures and noise `[B, C, H, W]` at times t `[B]` or `[]`."""
    t = t.reshape(-1, 1, 1, 1)
    return t * picture + (1 - t) * noise


def shifted(times: Tensor, shift: float) -> Tensor:
    """Times in [0, 1] moved towards 0, the noise, if `shift` is larger than 1; 0 and 1 stay."""
    return times / (times + shift - shift * times)  # t / (1 - t) is divided by the shift


def euler(velocity: Velocity, noise: Tensor, times: Tensor) -> Tensor:
    """Follow the velocity from noise through the times `[N + 1]`, in N straight steps."""
    x = noise
    for now, then in pairwise(times):
        x = x + (then - now) * velocity(x, now)
    return x


def jumps(velocity: Velocity, noise: Tensor, times: Tensor, fresh: Callable[[], Tensor]) -> Tensor:
    """Jump to the end of the path, then back to the next time with fresh noise, and so on.

    For a consistency model, whose velocity points to the end. The last jump gets no noise.
    """
    x = noise
    for now, then in pairwise(times):
        picture = x + (1 - now) * velocity(x, now)  # exactly what our network says
        x = then * picture + (1 - then) * fresh()
    return x


def consistency_target(
    student: Says, teacher: Says, x: Tensor, now: Tensor, then: Tensor, substeps: int = 1
) -> Tensor:
    """What a student should say at x and the times `now` `[B]`: what it says later on the path.

    The teacher leads from x to the time `then` in `substeps` Euler steps, and the student speaks
    there. At `then = 1` the path has ended, and its point is the picture. So a student that says
    the same at every point of a path says the picture at its end. No gradient flows here.
    """
    column = (-1, 1, 1, 1)
    point, t, step = x, now, (then - now) / substeps
    with torch.no_grad():
        for _ in range(substeps):
            velocity = (teacher(point, t) - point) / (1 - t).view(column)
            point = point + step.view(column) * velocity
            t = t + step
        return torch.where(then.view(column) < 1, student(point, then), point)

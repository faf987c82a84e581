"""Exercises of notebook 11, the painter."""

import torch

from ..exercises.checking import Case, Cases, exercise


@exercise("correct: this is flow.mix, and the velocity along its line")
def check_line() -> Cases:
    """`function(picture, noise, t) -> (x_t, velocity)`, all of one shape; t is a number."""
    generator = torch.Generator().manual_seed(11)
    picture, noise = torch.randn(2, 3, 4, 4, generator=generator)
    for t in (0.25, 0.6):
        x, velocity = t * picture + (1 - t) * noise, picture - noise
        backwards = (1 - t) * picture + t * noise
        mistakes = {
            "t = 0 must be the noise and t = 1 the picture": (backwards, velocity),
            "the velocity points from the noise to the picture": (x, -velocity),
            "the velocity does not depend on t: along a line it is constant": (x, t * velocity),
            "that is how far it still is; divide by the time that is left": (
                x,
                (1 - t) * velocity,
            ),
        }
        yield Case((picture, noise, t), (x, velocity), mistakes)


def steady(x: torch.Tensor, t: float) -> torch.Tensor:
    """A velocity that depends on place and time."""
    return torch.sin(2 * x) + t


def walk(x: torch.Tensor, times: list[float], late: bool = False) -> torch.Tensor:
    """Euler's method; `late` asks for the velocity at the end of each step."""
    for now, then in zip(times[:-1], times[1:]):
        x = x + (then - now) * steady(x, then if late else now)
    return x


@exercise("correct: these are the steps of flow.euler")
def check_euler() -> Cases:
    """`function(velocity, noise, steps) -> end`; `velocity(x, t)` takes a number t."""
    noise = torch.randn(5, generator=torch.Generator().manual_seed(12))
    for steps in (1, 4, 10):
        times = [step / steps for step in range(steps + 1)]
        mistakes = {
            "ask for the velocity at the beginning of a step, not at its end": walk(
                noise, times, late=True
            ),
            "that is one step too few: N steps have N + 1 times": walk(noise, times[:-1]),
        }
        yield Case((steady, noise, steps), walk(noise, times), mistakes)


@exercise("correct: this is one jump of flow.jumps")
def check_jump() -> Cases:
    """`function(picture, fresh, then) -> x` at the time `then`, after a jump to `picture`."""
    picture, fresh = torch.randn(2, 6, generator=torch.Generator().manual_seed(13))
    for then in (0.25, 0.8):
        right = then * picture + (1 - then) * fresh
        mistakes = {
            "at time 1 nothing of the noise may be left: swap the weights": (
                (1 - then) * picture + then * fresh
            ),
            "the picture is weighted, too: x_t = t picture + (1 - t) noise": (
                picture + (1 - then) * fresh
            ),
        }
        yield Case((picture, fresh, then), right, mistakes)

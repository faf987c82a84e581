"""Exercises of notebook 11, the painter."""

import torch

from .checking import Case, Cases, Chance, exercise


@exercise("correct: this is flow.mix, and the velocity along its line")
def check_line(chance: Chance) -> Cases:
    """`function(picture, noise, t) -> (x_t, velocity)`, all of one shape; t is a number."""
    generator = chance.generator(11)
    picture, noise = torch.randn(2, 3, 1, 4, 4, generator=generator)
    for t in (0.25, 0.6):
        x, velocity = t * picture + (1 - t) * noise, picture - noise
        backwards = (1 - t) * picture + t * noise
        mistakes = {
            "t = 0 must be the noise and t = 1 the picture": (backwards, velocity),
            "the velocity points from the noise to the picture": (x, -velocity),
            "x_t comes first, then the velocity": (velocity, x),
            "the weights are t and 1 - t, without roots": (
                t**0.5 * picture + (1 - t) ** 0.5 * noise,
                velocity,
            ),
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


@exercise("correct: this is the way back of a jump in flow.jumps")
def check_jump(chance: Chance) -> Cases:
    """`function(picture, fresh, then) -> x` at the time `then`, after a jump to `picture`."""
    picture, fresh = torch.randn(2, 3, 1, 4, 4, generator=chance.generator(13))
    for then in (0.25, 0.8):
        right = then * picture + (1 - then) * fresh
        mistakes = {
            "at time 1 nothing of the noise may be left: swap the weights": (
                (1 - then) * picture + then * fresh
            ),
            "that is the picture at time 1; at the time `then` there is noise in it": picture,
            "the noise is weighted, too: at time 1 none of it is left": then * picture + fresh,
            "the picture is weighted, too: at time 0 nothing of it is there": (
                picture + (1 - then) * fresh
            ),
        }
        yield Case((picture, fresh, then), right, mistakes)


@exercise("correct: twice the work in a step, but twice the steps leave a quarter of the error")
def check_heun(chance: Chance) -> Cases:
    """`function(velocity, noise, steps) -> end`: Heun's method from t = 0 to 1.

    A step of size h goes along the mean of two velocities: here and now, and where Euler's step
    would end, at its time.
    """
    noise = torch.randn(5, generator=chance.generator(14))
    for steps in (1, 3, 10):  # ten times 0.1 is a little less than 1 where it is added up
        size, far = 1 / steps, ("second", "whole")
        ends = {name: noise for name in ("right", "euler", "sum", "early", "stay", "middle", *far)}
        for step in range(steps):
            t = step * size
            for name, x in ends.items():
                first = steady(x, t)
                ahead = x + {"stay": 0, "whole": 1}.get(name, size) * first
                second = steady(ahead, t if name == "early" else t + size)
                if name == "euler":
                    second = first
                if name == "sum":
                    second = second + first + second
                if name == "second":
                    first = second
                if name == "middle":
                    first = second = steady(x + size / 2 * first, t + size / 2)
                ends[name] = x + size * (first + second) / 2
        mistakes = {
            "that is Euler's method; ask for a second velocity where its step ends": "euler",
            "that goes along the sum of both velocities; take their mean": "sum",
            "the second velocity belongs to the time at the end of the step": "early",
            "the second velocity is asked where Euler's step ends, not where it begins": "stay",
            "that is the midpoint method; the second velocity stands at the end": "middle",
            "go along the mean of both velocities, not along the second alone": "second",
            "Euler's step has the size 1 / steps, also where it looks ahead": "whole",
        }
        wrong = {hint: ends[name] for hint, name in mistakes.items()}
        if steps == 10:
            right = ends["right"]
            ahead = right + size * steady(right, 1.0)
            more = right + size * (steady(right, 1.0) + steady(ahead, 1.0 + size)) / 2
            wrong["one step too many: sizes added up may end below 1; count the steps"] = more
        yield Case((steady, noise, steps), ends["right"], wrong)

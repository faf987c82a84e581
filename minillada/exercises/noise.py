"""Exercises of notebook 21, noise that is not a mask."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .checking import Case, Cases, Chance, exercise


def kernel(alpha: float | Tensor, pi: Tensor) -> Tensor:
    """`[V, V]`, row = token before: it stays with probability `alpha`, else it is drawn from pi."""
    return alpha * torch.eye(len(pi)) + (1 - alpha) * pi


def kinds_of_noise(generator: torch.Generator) -> list[Tensor]:
    """Uniform noise, masks, and noise that is neither: `[3]`, `[4]`, `[4]`."""
    some = torch.rand(4, generator=generator) + 0.1
    return [torch.full((3,), 1 / 3), torch.tensor([0.0, 0.0, 0.0, 1.0]), some / some.sum()]


def without_right(mistakes: dict[str, Tensor], right: Tensor) -> dict[str, Tensor]:
    """The mistakes that show: for some kinds of noise, a wrong way leads to the right answer."""
    return {
        hint: wrong
        for hint, wrong in mistakes.items()
        if wrong.shape != right.shape or not torch.allclose(wrong, right, atol=1e-3)
    }


@exercise("correct: many steps are one step of the same kind, with the product of all 1 − β")
def check_kernel(chance: Chance) -> Cases:
    """`function(betas [T], pi [V]) -> [V, V]`: all T steps as one matrix, row = token before.

    In step k a token is replaced with probability betas[k]; what replaces it is drawn from `pi`.
    """
    generator = chance.generator(1)
    for pi in kinds_of_noise(generator):
        betas = 0.1 + 0.3 * torch.rand(4, generator=generator)
        alpha = (1 - betas).prod()
        right = kernel(alpha, pi)
        others = alpha * torch.eye(len(pi)) + (1 - alpha) * pi * (1 - torch.eye(len(pi)))
        mistakes = {
            "rates do not add up: to stay, a token must stay in every step": kernel(
                1 - betas.sum(), pi
            ),
            "that is the chance to be replaced in every step; a token stays if no step does it": (
                kernel(betas.prod(), pi)
            ),
            "that is the last step alone": kernel(1 - betas[-1], pi),
            "that is the first step alone": kernel(1 - betas[0], pi),
            "alpha, the chance to stay, belongs to the identity": kernel(1 - alpha, pi),
            "a row is the token before, so each row adds up to 1; yours is transposed": right.T,
            "what is drawn may be the old token again: pi counts on the diagonal, too": others,
            "steps follow each other: multiply their matrices, do not average them": kernel(
                (1 - betas).mean(), pi
            ),
        }
        yield Case((betas, pi), right, without_right(mistakes, right))


@exercise("correct: Bayes, with the way from x_0 to x_s and the step from x_s to x_t")
def check_posterior(chance: Chance) -> Cases:
    """`function(x_t, x_0, alpha_s, alpha_t, pi [V]) -> [V]`: q(x_s | x_t, x_0) of one token."""
    generator = chance.generator(2)
    uniform, mask, some = kinds_of_noise(generator)
    for pi, x_t, x_0 in ((uniform, 1, 0), (uniform, 2, 2), (mask, 3, 1), (some, 0, 3)):
        alpha_s, alpha_t = 0.01 * chance.whole(60, 90), 0.01 * chance.whole(20, 50)
        way, step = kernel(alpha_s, pi), kernel(alpha_t / alpha_s, pi)
        joint = way[x_0] * step[:, x_t]
        right = joint / joint.sum()
        too_far, row = way[x_0] * kernel(alpha_t, pi)[:, x_t], way[x_0] * step[x_t]
        mistakes = {
            "divide by the sum over x_s: the chances must add up to 1": joint,
            "from s to t a token stays with alpha_t / alpha_s, not with alpha_t": (
                too_far / too_far.sum()
            ),
            "that forgets x_0: multiply by the way from x_0 to x_s": (
                step[:, x_t] / step[:, x_t].sum()
            ),
            "that forgets x_t: multiply by the step from x_s to x_t": way[x_0],
            "that is q(x_t | x_0); s lies between, and x_t is known": kernel(alpha_t, pi)[x_0],
            "the step goes from x_s to x_t: take column x_t of its matrix, not row x_t": (
                row / row.sum()
            ),
        }
        yield Case((x_t, x_0, alpha_s, alpha_t, pi), right, without_right(mistakes, right))


@exercise("correct: with these weights, masked tokens alone give the bound, for every schedule")
def check_step_weights(chance: Chance) -> Cases:
    """`function(alphas [T + 1]) -> [T]`: what the nats of a masked token weigh in each step.

    `alphas[k]` is the chance to be unmasked after k steps of noise; it falls, and begins at 1.
    """
    generator = chance.generator(3)
    for steps in (4, 6):
        inner = (0.05 + 0.9 * torch.rand(steps, generator=generator)).sort(descending=True)[0]
        alphas = torch.cat([torch.ones(1), inner])
        before, after = alphas[:-1], alphas[1:]
        right = (before - after) / (1 - after)
        mistakes = {
            "the noise grows with k: subtract the later alpha from the earlier one": -right,
            "it is known that the token is masked at step k: divide by that chance": before - after,
            "the token is masked after the step: divide by 1 - alphas[k], not 1 - alphas[k - 1]": (
                (before - after) / (1 - before)
            ),
            "alpha is the chance to be unmasked; divide by the chance to be masked": (
                (before - after) / after
            ),
            "that is the chance to stay masked; its nats count where it is revealed": 1 - right,
            "the first weight belongs to the first step of noise": right.flip(0),
        }
        yield Case((alphas,), right, mistakes)


class Row(NamedTuple):
    """One row with masks: where they are, the model's words, the visible words, and the mask."""

    masked: Tensor  # bool [L, 1]
    p: Tensor  # [L, V]
    known: Tensor  # [L, V], one-hot
    mask: Tensor  # [V], one-hot

    def step(self, reveal: float, sigma: float) -> Tensor:
        """Masked places are revealed with `reveal`; visible ones are hidden with `sigma`."""
        opened = reveal * self.p + (1 - reveal) * self.mask
        seen = (1 - sigma) * self.known + sigma * self.mask
        return torch.where(self.masked, opened, seen)


@exercise("correct: what is hidden again is made up for, so as many tokens are masked as before")
def check_remask_step(chance: Chance) -> Cases:
    """`function(ids [L], p [L, V], sigma, alpha_s, alpha_t, mask_id) -> [L, V]`: x_s given x_t.

    `p` is what the model says about the clean token; the mask has probability 0 in it.
    """
    generator, last = chance.generator(4), F.one_hot(torch.tensor(4), 5).float()
    settings = ((0.3, 0.6, 0.4, 4), (0.1, 0.9, 0.5, 2), (0.25, 0.5, 0.2, 0))
    for sigma, alpha_s, alpha_t, mask_id in settings:
        p = torch.rand(6, 5, generator=generator)
        p[:, mask_id] = 0
        p /= p.sum(1, keepdim=True)
        words = torch.tensor([word for word in range(5) if word != mask_id])
        ids = words[torch.randint(4, (6,), generator=generator)]
        ids[[1, 2, 5]] = mask_id
        masked, known = (ids == mask_id)[:, None], F.one_hot(ids, 5).float()
        row = Row(masked, p, known, F.one_hot(torch.tensor(mask_id), 5).float())
        reveal = (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t)
        plain = (alpha_s - alpha_t) / (1 - alpha_t)
        right = row.step(reveal, sigma)
        mistakes = {
            "sigma hides some tokens again, so more masked ones must be revealed than without it": (
                row.step(plain, sigma)
            ),
            "a visible token is hidden again with probability sigma": row.step(reveal, 0),
            "that is the step without remasking": row.step(plain, 0),
            "the chances to be revealed and to stay masked are exchanged": (
                row.step(1 - reveal, sigma)
            ),
            "a visible token that is not hidden again stays; it is not sampled anew": (
                row._replace(known=p).step(reveal, sigma)
            ),
            "divide by 1 - alpha_t: the token is known to be masked": (
                row.step(reveal * (1 - alpha_t), sigma)
            ),
            "sigma is about visible tokens; masked ones are revealed as the schedule wants": (
                row.step(1 - sigma, sigma)
            ),
            "the mask is the id `mask_id`, which need not be the last one": (
                row._replace(mask=last).step(reveal, sigma)
            ),
            "each row must add up to 1: what is not revealed stays the mask": torch.where(
                masked, reveal * p, right
            ),
        }
        inputs = (ids, p, sigma, alpha_s, alpha_t, mask_id)
        yield Case(inputs, right, without_right(mistakes, right))

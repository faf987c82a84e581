"""How noisy a gradient is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..training.loop import Loss


def noise_to_signal(gram: Tensor) -> float:
    """tr Cov(g) / ‖E g‖² of K random vectors, both parts unbiased, from their inner products `[K, K]`."""
    draws, total, own = len(gram), float(gram.sum()), float(gram.trace())
    return ((own - total / draws) / (draws - 1)) / ((total - own) / (draws * (draws - 1)))


def gradient_noise(module: nn.Module, loss: Loss, draws: int) -> tuple[float, float]:
    """How noisy the gradient of `loss(0)`, `loss(1)`, … is: its variance over the squared length of its mean, and a 95 % half-width.

    Losses differ in scale and in what they expect, so only the ratio can be compared. The interval is the jackknife's:
    leave out one draw at a time, all from the table of inner products.
    """
    if draws < 3:
        raise ValueError(f"{draws} gradients have no error bar; take at least 3 draws")
    parameters = [p for p in module.parameters() if p.requires_grad]
    rows = []
    for step in range(draws):
        gradients = torch.autograd.grad(loss(step)[0], parameters, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in gradients]))
    gram = torch.stack(rows)
    gram = (gram @ gram.T).double()
    keep = [[k for k in range(draws) if k != left_out] for left_out in range(draws)]
    jackknife = torch.tensor([noise_to_signal(gram[rows][:, rows]) for rows in keep])
    return noise_to_signal(gram), 1.96 * float((jackknife.var(correction=0) * (draws - 1)).sqrt())

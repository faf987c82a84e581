"""How noisy a gradient is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..measure.intervals import Interval, Z


def noise_to_signal(products: Tensor) -> float:
    """tr Cov(g) / ‖E g‖² of K random vectors, from their inner products `[K, K]`.

    In words: the variance, summed over all entries of a vector, over the squared length of the
    mean. Both are unbiased: the products of different vectors are ‖E g‖² on average.
    """
    count, total, own = len(products), float(products.sum()), float(products.trace())
    noise = (own - total / count) / (count - 1)
    signal = (total - own) / (count * (count - 1))
    return noise / signal


def gradient_noise(
    module: nn.Module, loss: Callable[[int], tuple[Tensor, dict]], draws: int
) -> Interval:
    """How noisy the gradient of `loss(0)`, `loss(1)`, … is: its variance over its squared mean.

    Losses differ in scale and in their mean, so only this ratio can be compared. The interval is
    the jackknife's: one of the `draws` gradients is left out at a time. `ValueError` for under 3.
    """
    if draws < 3:
        raise ValueError(f"{draws} gradients have no error bar; take at least 3 draws")
    parameters = [p for p in module.parameters() if p.requires_grad]
    rows = []
    for step in range(draws):
        gradients = torch.autograd.grad(
            loss(step)[0], parameters, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    stacked = torch.stack(rows)  # [draws, parameters]
    # All that is needed from here on; not every GPU has float64.
    products = (stacked @ stacked.T).cpu().double()

    leave_one_out = []
    for left_out in range(draws):
        kept = [draw for draw in range(draws) if draw != left_out]
        leave_one_out.append(noise_to_signal(products[kept][:, kept]))
    variance = torch.tensor(leave_one_out).var(correction=0) * (draws - 1)  # the jackknife's
    ratio, half = noise_to_signal(products), Z * float(variance.sqrt())
    return Interval(ratio, ratio - half, ratio + half, draws)

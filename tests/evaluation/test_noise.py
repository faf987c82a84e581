"""The noise of gradients whose variance is known."""

import pytest
import torch

from minillada.evaluation.noise import gradient_noise


def test_gradient_noise_of_known_gradients():
    """Gradients (1, ±1) have variance 1 + 1/(K−1) and a mean of squared length 1."""
    weight = torch.nn.Linear(2, 1, bias=False)
    measured = gradient_noise(
        weight, lambda step: ((weight.weight * torch.tensor([[1.0, (-1.0) ** step]])).sum(), {}), 40
    )
    signal = 1 - 1 / 39  # unbiased: the squared mean less its own noise
    assert measured.value == pytest.approx((40 / 39) / signal, rel=1e-5)
    assert measured.low < measured.value < measured.high and measured.n == 40
    # Beside a long mean a little noise is found, too, and what has no gradient adds nothing.
    weight.frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    weight.unused = torch.nn.Parameter(torch.ones(2))
    small = gradient_noise(
        weight,
        lambda step: ((weight.weight * torch.tensor([[1001.0, (-1.0) ** step]])).sum(), {}),
        40,
    )
    assert small.value == pytest.approx((40 / 39) / (1001**2 - 1 / 39), rel=1e-4)
    none = gradient_noise(weight, lambda step: (weight.weight.sum(), {}), 5)
    assert none.value == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="at least 3"):
        gradient_noise(weight, lambda step: (weight.weight.sum(), {}), 2)


def test_the_interval_is_that_of_the_jackknife():
    """Written from the definitions, with one draw left out at a time."""
    gradients = torch.randn(6, 3, dtype=torch.double) + 1
    weight = torch.nn.Linear(3, 1, bias=False, dtype=torch.double)

    def ratio(rows):
        spread = float(rows.var(0).sum())
        return spread / (float(rows.mean(0).square().sum()) - spread / len(rows))

    left = torch.tensor([ratio(gradients[torch.arange(6) != out]) for out in range(6)])
    half = 1.96 * float((5 / 6 * (left - left.mean()).square().sum()).sqrt())
    measured = gradient_noise(weight, lambda step: ((weight.weight * gradients[step]).sum(), {}), 6)
    whole = ratio(gradients)
    assert measured == pytest.approx((whole, whole - half, whole + half, 6), rel=1e-4)

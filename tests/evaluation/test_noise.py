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
    none = gradient_noise(weight, lambda step: (weight.weight.sum(), {}), 5)
    assert none.value == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="at least 3"):
        gradient_noise(weight, lambda step: (weight.weight.sum(), {}), 2)

"""The Fréchet distance against closed forms."""

import math

import pytest
import torch
from helpers import few, generator
from hypothesis import given
from hypothesis import strategies as st

from minillada.measure.frechet import frechet_distance


def gaussian(mean, covariance, n: int = 400, seed: int = 0) -> torch.Tensor:
    """Samples whose *sample* mean and covariance are exactly the given ones."""
    dim = len(mean)
    x = torch.randn(n, dim, generator=generator(seed), dtype=torch.double)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    return white @ torch.linalg.cholesky(
        torch.as_tensor(covariance, dtype=torch.double)
    ).T + torch.as_tensor(mean, dtype=torch.double)


@few
@given(
    means=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=3, max_size=3),
    spreads=st.lists(st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)), min_size=3, max_size=3),
)
def test_frechet_distance_of_diagonal_gaussians(means, spreads):
    """Σ (μ_a − μ_b)² + (σ_a − σ_b)²"""
    (ma, mb), (sa, sb) = (
        torch.tensor(means, dtype=torch.double).T,
        torch.tensor(spreads, dtype=torch.double).T,
    )
    a, b = gaussian(ma, (sa**2).diag(), seed=1), gaussian(mb, (sb**2).diag(), 300, seed=2)
    expected = float((ma - mb).square().sum() + (sa - sb).square().sum())
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-6)
    first = float((ma - mb)[0].square() + (sa - sb)[0].square())  # of a single feature
    assert frechet_distance(a[:, :1], b[:, :1]) == pytest.approx(first, abs=1e-6)


def test_frechet_distance_of_correlated_gaussians():
    """The trace of (A^½ B A^½)^½ through symmetric roots is another way to the same number."""
    roots = torch.randn(2, 5, 5, generator=generator(3), dtype=torch.double)
    covariance_a, covariance_b = (r @ r.T + 0.1 * torch.eye(5, dtype=torch.double) for r in roots)
    a, b = (
        gaussian([0, 1, 2, 3, 4], covariance_a, seed=1),
        gaussian([1, 1, 1, 1, 1], covariance_b, seed=2),
    )

    def root(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ values.clamp_min(0).sqrt().diag() @ vectors.T

    half = root(covariance_a)
    cross = torch.linalg.eigvalsh(half @ covariance_b @ half).clamp_min(0).sqrt().sum()
    expected = (1 + 0 + 1 + 4 + 9) + float(covariance_a.trace() + covariance_b.trace() - 2 * cross)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(a + 100, b + 100) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 2) == pytest.approx(5 * 4, rel=1e-6)


def test_frechet_distance_survives_dead_features():
    """A feature that is always 0, as a ReLU may give, makes the covariance singular."""
    a = torch.randn(50, 4, generator=generator())
    a[:, 2] = 0
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5) and math.isfinite(
        frechet_distance(a, torch.zeros(50, 4))
    )


def test_fewer_samples_than_features_give_a_number_and_one_is_refused():
    """At n <= D the covariance is singular."""
    reference = torch.randn(200, 20, generator=generator())
    few_rows = torch.randn(5, 20, generator=generator(1))
    assert math.isfinite(frechet_distance(few_rows, reference))
    with pytest.raises(ValueError, match="1 samples have no covariance"):
        frechet_distance(few_rows[:1], reference)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (torch.full((4, 3), float("nan")), "some are NaN or infinite"),
        (torch.full((4, 3), float("inf")), "some are NaN or infinite"),
        (torch.ones(4, 2), "N, D"),
        (torch.ones(4), "N, D"),
    ],
)
def test_features_that_have_no_distance_are_refused(other, reason):
    """NaN would end the whole process inside the library that finds eigenvalues."""
    for pair in ((other, torch.ones(4, 3)), (torch.ones(4, 3), other)):
        with pytest.raises(ValueError, match=reason):
            frechet_distance(*pair)

"""Fréchet distance."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to features `[N, D]` and `[M, D]` (Heusel et al. 2017).

    ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½); the trace of the square root is the sum of the roots of the eigenvalues
    of the product, which are real and not negative.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = (torch.atleast_2d(x.T.cov()) for x in (a, b))  # for one feature `cov` returns a number
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root)

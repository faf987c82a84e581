"""Fréchet distance: how far two sets of features are apart in mean and covariance."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to features `[N, D]` and `[M, D]`.

    ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), from Heusel et al. 2017 (arXiv 1706.08500).
    With fewer than D + 1 samples a covariance is singular: the distance still is a number, but it
    depends more on how many samples there are than on what they show. Compare equal counts only.
    `ValueError` for fewer than 2 samples, which have no covariance, for other widths, and for NaN.
    """
    if a.ndim != 2 or a.shape[1:] != b.shape[1:]:
        raise ValueError(f"features are [N, D] and [M, D], got {list(a.shape)}, {list(b.shape)}")
    if not (a.isfinite().all() and b.isfinite().all()):
        raise ValueError("features must be finite, and some are NaN or infinite; check the images")
    fewest = min(len(a), len(b))
    if fewest < 2:
        raise ValueError(f"{fewest} samples have no covariance; a Fréchet distance needs 2 or more")
    a, b = a.cpu().double(), b.cpu().double()  # not every GPU has float64
    # For a single feature `cov` returns a number.
    covariance_a = torch.atleast_2d(a.T.cov())  # [D, D]
    covariance_b = torch.atleast_2d(b.T.cov())
    # The trace of the root is the sum of the roots of the product's eigenvalues. These are real
    # and not negative; rounding may move them a little.
    eigenvalues = torch.linalg.eigvals(covariance_a @ covariance_b).real
    root = eigenvalues.clamp_min(0).sqrt().sum()
    means = (a.mean(0) - b.mean(0)).square().sum()
    return float(means + covariance_a.trace() + covariance_b.trace() - 2 * root)

"""How much of a codebook is used."""

from __future__ import annotations

import torch
from torch import Tensor


def codebook_usage(codes: Tensor, codebook_size: int) -> tuple[float, float]:
    """Share of the codebook that occurs, and perplexity, exp(entropy). `ValueError` for no code."""
    if not codes.numel() or codes.min() < 0 or codes.max() >= codebook_size:
        raise ValueError(f"codes must be 0 to {codebook_size - 1}, and at least one of them")
    share = torch.bincount(codes.flatten(), minlength=codebook_size).float() / codes.numel()
    entropy = torch.special.entr(share).sum()  # −p log p, which is 0 at p = 0
    # Of K equally frequent codes the entropy is log K, and the perplexity K.
    return float((share > 0).float().mean()), float(entropy.exp())

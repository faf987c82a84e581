"""How much of a codebook is used."""

from __future__ import annotations

import torch
from torch import Tensor


def codebook_usage(codes: Tensor, codebook_size: int) -> tuple[float, float]:
    """Share of codes that occur, and their perplexity, exp(entropy): at most `codebook_size`."""
    share = torch.bincount(codes.flatten(), minlength=codebook_size).float() / codes.numel()
    entropy = torch.special.entr(share).sum()  # −p log p, which is 0 at p = 0
    return float((share > 0).float().mean()), float(entropy.exp())

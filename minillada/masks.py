"""Attention masks of block diffusion (LLaDA2.0, arXiv 2512.15745). True means "may attend".

Notable choices
- Masks are dense boolean tensors built from positions alone; at our lengths they are small, run on every device and can
  be looked at. A block is counted from absolute position 0: b(k) = floor(k / L_B).
- The training mask takes the positions of its two halves, so a half may leave out blocks that nobody needs.
"""

from __future__ import annotations

import torch
from torch import Tensor


def block_causal_mask(queries: Tensor, keys: Tensor, block_size: int) -> Tensor:
    """`[1, Q, K]` for query positions `[Q]` and key positions `[K]`: own block and all earlier blocks are visible.

    Block size 1 gives the causal mask of autoregression, block size >= L full attention.
    """
    if block_size < 1:
        raise ValueError(f"block size must be at least 1, got {block_size}")
    return (queries[:, None] // block_size >= keys // block_size)[None]


def block_diffusion_mask(noisy: Tensor, clean: Tensor, block_size: int) -> Tensor:
    """`[1, N+M, N+M]` for the training input `[x_t ; x_0]` with positions `noisy` `[N]` and `clean` `[M]`.

    M_BD:  noisy sees noisy of its own block          b(i) = b(j)
    M_OBC: noisy sees clean of strictly earlier blocks b(i) > b(j)
    M_BC:  clean sees clean, block-causal              b(i) >= b(j)
    Clean never sees noisy: otherwise the context of later blocks would depend on what was masked.
    """
    if block_size < 1:
        raise ValueError(f"block size must be at least 1, got {block_size}")
    block = torch.cat([noisy, clean]) // block_size
    is_noisy = torch.arange(len(block), device=block.device) < len(noisy)
    query_block, key_block = block[:, None], block[None, :]
    query_noisy, key_noisy = is_noisy[:, None], is_noisy[None, :]
    diagonal = query_noisy & key_noisy & (query_block == key_block)
    offset_causal = query_noisy & ~key_noisy & (query_block > key_block)
    causal = ~query_noisy & ~key_noisy & (query_block >= key_block)
    return (diagonal | offset_causal | causal)[None]

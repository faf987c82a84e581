"""Attention masks of block diffusion (LLaDA2.0, arXiv 2512.15745). True means "may attend".

Notable choices
- Masks are dense boolean tensors built from positions alone; at our lengths they are small, run on every device and can
  be looked at. A block is counted from absolute position 0: b(k) = floor(k / L_B).
- The training mask takes the positions of its two halves, so a half may leave out blocks that nobody needs.
- Where most of a long mask is False, it is cut into slices of queries with only the keys they see: less to compute, same result.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def block_causal_mask(queries: Tensor, keys: Tensor, block_size: int) -> Tensor:
    """`[1, Q, K]` for query positions `[Q]` and key positions `[K]`: own block and all earlier blocks are visible.

    Block size 1 gives the causal mask of autoregression, block size >= L full attention.
    """
    if block_size < 1:
        raise ValueError(f"block size must be at least 1, got {block_size}")
    return (queries[:, None] // block_size >= keys // block_size)[None]


def block_diffusion_mask(noisy: Tensor, clean: Tensor, block_size: int, views: int = 1, documents: Tensor | None = None) -> Tensor:
    """`[1 or B, K·N+M, K·N+M]` for the training input `[x_t¹ ; … ; x_tᴷ ; x_0]`: K `views` at positions `noisy` `[N]`, one clean
    copy at positions `clean` `[M]`.

    M_BD:  noisy sees noisy of its own block and view  b(i) = b(j)
    M_OBC: noisy sees clean of strictly earlier blocks b(i) > b(j)
    M_BC:  clean sees clean, block-causal              b(i) >= b(j)
    Clean never sees noisy: otherwise the context of later blocks would depend on what was masked. For the same reason all
    views can share it. Where rows pack several texts, `documents` `[B, L]` says which one a position belongs to, and nobody
    sees another's.
    """
    if block_size < 1:
        raise ValueError(f"block size must be at least 1, got {block_size}")
    position = torch.cat([noisy.repeat(views), clean])
    block = position // block_size
    view = torch.cat([torch.arange(views).repeat_interleave(len(noisy)), torch.full((len(clean),), -1)]).to(block.device)
    query_block, key_block = block[:, None], block[None, :]
    query_noisy, key_noisy = view[:, None] >= 0, view[None, :] >= 0
    diagonal = query_noisy & (view[:, None] == view[None, :]) & (query_block == key_block)
    offset_causal = query_noisy & ~key_noisy & (query_block > key_block)
    causal = ~query_noisy & ~key_noisy & (query_block >= key_block)
    mask = (diagonal | offset_causal | causal)[None]
    if documents is not None:
        document = documents[:, position]
        mask = mask & (document[:, :, None] == document[:, None, :])
    return mask


class SlicedMask(NamedTuple):
    """A mask cut into pieces `(queries [q], keys [k], mask [1 or B, q, k])` that leave out keys which none of the queries sees.

    Every query is in one piece; `order` `[N]` puts the queries of all pieces, one after the other, back in their places.
    """

    pieces: list[tuple[Tensor, Tensor, Tensor]]
    order: Tensor


def slice_mask(mask: Tensor, positions: Tensor, size: int) -> SlicedMask:
    """Cut a mask `[1 or B, N, N]` into pieces of queries at neighbouring positions `[N]`, `size` positions a piece.

    Neighbours see much the same keys, whichever copy they stand in: a quarter of a long [x_t ; x_0] mask is True, and the
    pieces hold little more.
    """
    pieces = []
    for queries in ((positions // size == piece).nonzero().flatten() for piece in (positions // size).unique()):
        keys = mask[:, queries].any(dim=1).any(dim=0).nonzero().flatten()
        pieces.append((queries, keys, mask[:, queries][:, :, keys]))
    return SlicedMask(pieces, torch.cat([queries for queries, _, _ in pieces]).argsort())

"""Attention masks of block diffusion (LLaDA2.0, arXiv 2512.15745). True means "may attend".

Notable choices
- Masks are built from positions alone. Dense boolean ones are the reference: they run on every device and can be looked at.
  A block is counted from absolute position 0: b(k) = floor(k / L_B).
- The training mask takes the positions of its two halves, so a half may leave out blocks that nobody needs.
- One rule, `may_attend`, is the mask. It can be written out (`block_diffusion_mask`), written out in tiles of which the empty
  ones are skipped (`tiled_mask`), or handed to FlexAttention, which does the same inside a GPU kernel (`flex_mask`).
- A tile of the attention kernel is not a block of the diffusion: 64 or 128 positions, whatever L_B is.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask


def block_causal_mask(queries: Tensor, keys: Tensor, block_size: int) -> Tensor:
    """`[1, Q, K]` for query positions `[Q]` and key positions `[K]`: own block and all earlier blocks are visible.

    Block size 1 gives the causal mask of autoregression, block size >= L full attention.
    """
    if block_size < 1:
        raise ValueError(f"block size must be at least 1, got {block_size}")
    return (queries[:, None] // block_size >= keys // block_size)[None]


CLEAN = -1  # the `view` of the clean copy


class Places(NamedTuple):
    """Where the tokens of a training input stand: `view` `[N]` is the number of their noisy copy or `CLEAN`, `block` `[N]`,
    `document` `[1 or B, N]`, or None if a row holds only one text."""

    view: Tensor
    block: Tensor
    document: Tensor | None


def training_places(noisy: Tensor, clean: Tensor, block_size: int, views: int = 1, documents: Tensor | None = None) -> Places:
    """Places of `[x_t¹ ; … ; x_tᴷ ; x_0]`: K `views` at positions `noisy` `[N]`, one clean copy at positions `clean` `[M]`."""
    if block_size < 1:
        raise ValueError(f"block size must be at least 1, got {block_size}")
    position = torch.cat([noisy.repeat(views), clean])
    view = torch.arange(views, dtype=torch.int, device=position.device).repeat_interleave(len(noisy))
    view = torch.cat([view, view.new_full((len(clean),), CLEAN)])
    block = (position // block_size).int()
    return Places(view, block, None if documents is None else documents[:, position])


def may_attend(query: Places, key: Places) -> Tensor:
    """The rule, for places that broadcast against each other: the own block of the own copy, and earlier clean blocks.

    M_BD:  noisy sees noisy of its own block and view   b(i) = b(j)
    M_OBC: noisy sees clean of strictly earlier blocks  b(i) > b(j)
    M_BC:  clean sees clean, block-causal               b(i) >= b(j)
    Clean never sees noisy: otherwise the context of later blocks would depend on what was masked. For the same reason all views
    can share it. Where rows pack several texts, nobody sees another's.
    """
    own = (query.view == key.view) & (query.block == key.block)
    earlier = (key.view == CLEAN) & (query.block > key.block)
    return own | earlier if query.document is None else (own | earlier) & (query.document == key.document)


def pairs(places: Places, queries: slice) -> Tensor:
    """`may_attend` of some queries and all keys, `[1 or B, Q, N]`."""
    rows = Places(*(None if part is None else part[..., queries, None] for part in places))
    columns = Places(*(None if part is None else part[..., None, :] for part in places))
    mask = may_attend(rows, columns)
    return mask if mask.ndim == 3 else mask[None]


def block_diffusion_mask(noisy: Tensor, clean: Tensor, block_size: int, views: int = 1, documents: Tensor | None = None) -> Tensor:
    """The dense mask `[1 or B, K·N+M, K·N+M]` of `training_places`."""
    return pairs(training_places(noisy, clean, block_size, views, documents), slice(None))


class TiledMask(NamedTuple):
    """A mask cut into tiles of `size` x `size`. Row r holds the numbers of the key tiles which any of its queries sees, and the
    mask `[1 or B, q, k]` over these keys alone."""

    size: int
    rows: list[tuple[list[int], Tensor]]


def tiled_mask(places: Places, size: int) -> TiledMask:
    """The mask without its empty tiles; most of a long training mask is empty."""
    rows = []
    for start in range(0, len(places.view), size):
        mask = pairs(places, slice(start, start + size))
        seen = (mask.any(1).any(0).nonzero().flatten() // size).unique().tolist()
        tiles = mask.split(size, dim=2)
        rows.append((seen, torch.cat([tiles[number] for number in seen], dim=2)))
    return TiledMask(size, rows)


def flex_mask(places: Places):
    """The mask as FlexAttention's `BlockMask`, for `model.attend` on a GPU."""

    view, block, document = places

    def rule(b, head, q, k):  # numbers of a row, a head, a query and a key
        # Without documents b is not used: the kernel counts rows of the batch there, for which the mask has one entry.
        here, there = (Places(view[i], block[i], None if document is None else document[b, i]) for i in (q, k))
        return may_attend(here, there)

    return create_block_mask(rule, None if document is None else len(document), None, len(view), len(view), view.device)


# From this many tokens on, leaving tiles out saves more than it costs. On a CPU this was measured (docs/log.md); on a GPU, where the
# kernel must first be compiled, it is a guess.
TILE, TILES_FROM, FLEX_FROM = 64, 256, 2048


def training_mask(noisy: Tensor, clean: Tensor, block_size: int, views: int = 1, documents: Tensor | None = None):
    """`block_diffusion_mask` in the form that is cheapest to attend with: a dense tensor, a `TiledMask` or a `BlockMask`."""
    places = training_places(noisy, clean, block_size, views, documents)
    if places.view.is_cuda:
        return flex_mask(places) if len(places.view) >= FLEX_FROM else pairs(places, slice(None))
    return tiled_mask(places, TILE) if len(places.view) >= TILES_FROM else pairs(places, slice(None))

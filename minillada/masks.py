"""Who may attend to whom in block diffusion (LLaDA2.0, arXiv 2512.15745), and attention.

Notable choices
- A mask is built from positions alone. Blocks are counted from absolute position 0: position k is
  in block floor(k / L_B). So either half of a training input may leave out blocks nobody needs.
- One rule, `may_attend`, is the mask, in three forms. `block_diffusion_mask` is dense, True where
  a query sees a key: it runs everywhere and is the reference. `tiled_mask` leaves out empty tiles.
  `flex_mask` is for FlexAttention, which leaves them out inside a GPU kernel.
- A tile belongs to the attention kernel and not to the diffusion: 64 or 128 positions for any L_B.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

CLEAN = -1  # `Places.view` of the clean copy

# With so many tokens, leaving tiles out saves more than it costs. The CPU's number was measured
# (docs/log.md). On a GPU the kernel must be compiled first, and the number is a guess.
TILE, TILES_FROM, FLEX_FROM = 64, 256, 2048


def check_block_size(block_size: int) -> None:
    """`ValueError` unless a block holds at least one token."""
    if block_size < 1:
        raise ValueError(f"block size must be at least 1, got {block_size}")


def block_causal_mask(queries: Tensor, keys: Tensor, block_size: int) -> Tensor:
    """`[1, Q, K]` for positions `[Q]` and `[K]`: the own block and all earlier ones are visible.

    Block size 1 gives the causal mask of autoregression, block size >= L full attention.
    """
    check_block_size(block_size)
    query_block = queries[:, None] // block_size  # [Q, 1]
    key_block = keys // block_size  # [K]
    return (query_block >= key_block)[None]


class Places(NamedTuple):
    """Where the N tokens of a training input stand.

    `view` `[N]` is the number of their noisy copy, or `CLEAN`; `block` `[N]` is their block.
    `document` `[1 or B, N]` is their text, or None where every row holds one text.
    """

    view: Tensor
    block: Tensor
    document: Tensor | None

    def at(self, *index: Any) -> Places:
        """The same fields at some of the tokens; `index` is for the last dimensions."""
        document = None if self.document is None else self.document[:, *index]
        return Places(self.view[index], self.block[index], document)


def training_places(
    noisy: Tensor, clean: Tensor, block_size: int, views: int = 1, documents: Tensor | None = None
) -> Places:
    """Places of the input `[x_t¹ ; … ; x_tᴷ ; x_0]`, N = K · Q + M tokens.

    It holds K `views` of the positions `noisy` `[Q]` and one clean copy of `clean` `[M]`.
    `documents` `[B, L]` numbers the texts of packed rows.
    """
    check_block_size(block_size)
    position = torch.cat([noisy.repeat(views), clean])  # [N]
    number = torch.arange(views, dtype=torch.int, device=position.device)
    view = torch.cat([number.repeat_interleave(len(noisy)), number.new_full(clean.shape, CLEAN)])
    block = (position // block_size).int()  # [N]
    return Places(view, block, None if documents is None else documents[:, position])


def may_attend(query: Places, key: Places) -> Tensor:
    """Whether a query sees a key, for places that broadcast against each other.

    M_BD:  noisy sees noisy, in its own block and view   b(i) = b(j)
    M_OBC: noisy sees clean, in strictly earlier blocks  b(i) > b(j)
    M_BC:  clean sees clean, block-causal                b(i) >= b(j)
    Clean never sees noisy: the context of later blocks would depend on what was masked. So all
    views can share one clean copy. In packed rows nobody sees another text.
    """
    own = (query.view == key.view) & (query.block == key.block)
    earlier = (key.view == CLEAN) & (query.block > key.block)
    if query.document is None or key.document is None:
        return own | earlier
    return (own | earlier) & (query.document == key.document)


def dense_mask(places: Places, queries: slice = slice(None)) -> Tensor:
    """The mask of some of the tokens as queries and all N as keys, `[1 or B, Q, N]`."""
    mask = may_attend(places.at(queries, None), places.at(None, slice(None)))
    return mask if mask.ndim == 3 else mask[None]


def block_diffusion_mask(
    noisy: Tensor, clean: Tensor, block_size: int, views: int = 1, documents: Tensor | None = None
) -> Tensor:
    """The dense mask `[1 or B, N, N]` of `training_places`."""
    return dense_mask(training_places(noisy, clean, block_size, views, documents))


class TiledMask(NamedTuple):
    """A mask cut into tiles of `size` x `size` entries, of which the empty ones are left out.

    `rows` holds, for every row of tiles, the numbers of those key tiles which one of its queries
    sees, and the mask `[1 or B, q, k]` over the keys of these tiles.
    """

    size: int
    rows: list[tuple[list[int], Tensor]]


Mask = Tensor | TiledMask | BlockMask | None  # None: everybody sees everything


def tiled_mask(places: Places, size: int) -> TiledMask:
    """The mask in tiles. Most of a long training mask is empty."""
    rows = []
    for start in range(0, len(places.view), size):
        mask = dense_mask(places, slice(start, start + size))  # [1 or B, q, N]
        keys = mask.any(dim=1).any(dim=0).nonzero().flatten()  # keys that any query sees
        numbers = (keys // size).unique().tolist()
        tiles = mask.split(size, dim=2)  # [1 or B, q, size] each
        rows.append((numbers, torch.cat([tiles[number] for number in numbers], dim=2)))
    return TiledMask(size, rows)


def flex_mask(places: Places) -> BlockMask:
    """The mask as FlexAttention wants it."""
    view, block, document = places

    def rule(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """`may_attend` for the numbers of a row, a head, a query and a key."""
        # Without documents `row` is not used: it counts the batch, and the mask has one row.
        query_text = None if document is None else document[row, query]
        key_text = None if document is None else document[row, key]
        here = Places(view[query], block[query], query_text)
        return may_attend(here, Places(view[key], block[key], key_text))

    rows = None if document is None else len(document)
    return create_block_mask(rule, rows, None, len(view), len(view), view.device)


def training_mask(
    noisy: Tensor, clean: Tensor, block_size: int, views: int = 1, documents: Tensor | None = None
) -> Mask:
    """`block_diffusion_mask` in the form that is cheapest to attend with here."""
    places = training_places(noisy, clean, block_size, views, documents)
    if places.view.is_cuda and len(places.view) >= FLEX_FROM:
        return flex_mask(places)
    if not places.view.is_cuda and len(places.view) >= TILES_FROM:
        return tiled_mask(places, TILE)
    return dense_mask(places)


@functools.cache
def flex_kernel(cuda: bool) -> Any:
    """FlexAttention: compiled on a GPU; on a CPU its slow reference, which has no gradients."""
    return torch.compile(flex_attention) if cuda else flex_attention


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    """Attention output `[B, heads, L, head_dim]` for queries of that shape.

    `key` and `value` may have fewer heads, which are shared. `ValueError` for a tensor mask that
    is not boolean: numbers would be added to the scores.
    """
    if isinstance(mask, TiledMask):
        return attend_in_tiles(query, key, value, mask)
    if isinstance(mask, BlockMask):
        return flex_kernel(query.is_cuda)(query, key, value, block_mask=mask, enable_gqa=True)
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"an attention mask is boolean, got {mask.dtype}; use mask.bool()")
    mask = None if mask is None else mask[:, None]  # [B or 1, 1, L, T], for all heads
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)


def attend_in_tiles(query: Tensor, key: Tensor, value: Tensor, mask: TiledMask) -> Tensor:
    """`attend`, one row of tiles after the other, each with the keys that it sees."""
    queries = query.split(mask.size, dim=2)
    keys = key.split(mask.size, dim=2)  # tiles of the keys
    values = value.split(mask.size, dim=2)
    rows = []
    for number, (tiles, visible) in enumerate(mask.rows):
        seen_keys = torch.cat([keys[tile] for tile in tiles], dim=2)  # [B, n_kv, k, head_dim]
        seen_values = torch.cat([values[tile] for tile in tiles], dim=2)
        rows.append(attend(queries[number], seen_keys, seen_values, visible))  # dense, in this row
    return torch.cat(rows, dim=2)  # [B, heads, L, head_dim]

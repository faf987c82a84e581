"""Who may attend to whom in block diffusion (LLaDA2.0, arXiv 2512.15745), and attention.

Notable choices
- A mask is built from positions alone. Blocks of L_B tokens (the block size) are counted from
  absolute position 0: position k is in block floor(k / L_B).
- A training input holds noisy copies and a clean copy of a sequence (`training_places`). Because
  only absolute positions count, each copy may leave out blocks that are not needed.
- The training mask is one rule, `may_attend`, in three forms. `block_diffusion_mask` is dense, True
  where a query sees a key: it runs everywhere and is the reference. `tiled_mask` leaves out empty
  tiles. `flex_mask` is for FlexAttention (PyTorch's attention with a mask given as a function),
  which leaves them out inside a GPU kernel.
- `block_causal_mask` is for decoding, where there is no noisy copy.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

CLEAN = -1  # `Places.view` of the clean copy
TILE = 64  # queries and keys in a tile of `tiled_mask`; for speed, whatever L_B is

# Leaving tiles out has a cost of its own. It pays from so many tokens on:
TILES_FROM = 256  # on a CPU: measured (docs/log.md)
FLEX_FROM = 2048  # on a GPU, where the kernel must be compiled first: a guess


def check_block_size(block_size: int) -> None:
    """`ValueError` unless a block holds at least one token."""
    if block_size < 1:
        raise ValueError(f"block size must be at least 1, got {block_size}")


def block_causal_mask(queries: Tensor, keys: Tensor, block_size: int) -> Tensor:
    """`[1, Q, T]` for positions `[Q]` and `[T]`: a query's block and all earlier ones are visible.

    Block size 1 gives the causal mask of autoregression, block size >= L full attention.
    """
    check_block_size(block_size)
    query_block = queries[:, None] // block_size  # [Q, 1]
    key_block = keys // block_size  # [T]
    return (query_block >= key_block)[None]  # [1, Q, T]


class Places(NamedTuple):
    """Where the N tokens of a training input stand.

    `view` `[N]` is the number of their noisy copy, or `CLEAN`; `block` `[N]` is their block.
    `document` `[1 or B, N]` is their text, or None where every row holds one text.
    """

    view: Tensor
    block: Tensor
    document: Tensor | None

    def at(self, *index: Any) -> Places:
        """The same fields at some of the tokens: `index` selects in the dimension N.

        As in any index of a tensor, None adds a dimension: `at(queries, None)` gives a column.
        """
        # `document` has a dimension more, that of the rows, which stays whole.
        document = None if self.document is None else self.document[:, *index]
        return Places(self.view[index], self.block[index], document)


def training_places(
    noisy: Tensor, clean: Tensor, block_size: int, views: int = 1, documents: Tensor | None = None
) -> Places:
    """Places of the input `[x_t¹ ; … ; x_tᴷ ; x_0]`: x_t is noisy, x_0 clean, N = K · P + M.

    It holds K `views`, which are noisy copies of the positions `noisy` `[P]`, and one clean copy of
    the positions `clean` `[M]`. `documents` `[B, L]` numbers the texts of packed rows.
    """
    check_block_size(block_size)
    position = torch.cat([noisy.repeat(views), clean])  # [N]
    number = torch.arange(views, dtype=torch.int, device=position.device)
    # 0 … 0, 1 … 1, and so on for the noisy copies, then -1 for the clean one
    view = torch.cat([number.repeat_interleave(len(noisy)), number.new_full(clean.shape, CLEAN)])
    block = (position // block_size).int()  # [N]
    return Places(view, block, None if documents is None else documents[:, position])


def may_attend(query: Places, key: Places) -> Tensor:
    """Whether a query sees a key, for places that broadcast against each other.

    With b(i) the block of query i, b(j) that of key j, and the paper's names of the parts:
    M_BD  (block diagonal)       noisy sees noisy, in its own block and view   b(i) = b(j)
    M_OBC (offset block causal)  noisy sees clean, in strictly earlier blocks  b(i) > b(j)
    M_BC  (block causal)         clean sees clean                              b(i) >= b(j)
    Clean never sees noisy, because otherwise the context of later blocks would depend on what was
    masked. So all views can share one clean copy. In packed rows no token sees another text.
    """
    # `own` is M_BD and the diagonal of M_BC; `earlier` is M_OBC and the rest of M_BC.
    own = (query.view == key.view) & (query.block == key.block)
    earlier = (key.view == CLEAN) & (query.block > key.block)
    if query.document is None or key.document is None:
        return own | earlier
    return (own | earlier) & (query.document == key.document)


def dense_mask(places: Places, queries: slice = slice(None)) -> Tensor:
    """The mask of some of the tokens as queries and all N as keys, `[1 or B, Q, N]`."""
    # Fields of queries are columns [Q, 1], those of keys rows [1, N]; they compare to [Q, N].
    mask = may_attend(places.at(queries, None), places.at(None, slice(None)))
    return mask if mask.ndim == 3 else mask[None]  # with documents it is [B, Q, N] already


def block_diffusion_mask(
    noisy: Tensor, clean: Tensor, block_size: int, views: int = 1, documents: Tensor | None = None
) -> Tensor:
    """The dense mask `[1 or B, N, N]` of `training_places`."""
    return dense_mask(training_places(noisy, clean, block_size, views, documents))


class TiledMask(NamedTuple):
    """A mask cut into tiles of `size` x `size` entries, of which the empty ones are left out.

    A row of tiles is `size` queries, against all keys. `rows` holds for each row of tiles
    - the numbers of the key tiles that at least one of its queries sees,
    - and the mask `[1 or B, q, k]` over the keys of these tiles.
    """

    size: int
    rows: list[tuple[list[int], Tensor]]


class FlexMask(NamedTuple):
    """A mask for FlexAttention. Its import takes a second, so it is imported where it is used."""

    block_mask: Any  # PyTorch's `BlockMask`, whose blocks are tiles


Mask = Tensor | TiledMask | FlexMask | None  # None: every query sees every key


def tiled_mask(places: Places, size: int) -> TiledMask:
    """The mask in tiles. Most of a long training mask is empty."""
    rows = []
    for start in range(0, len(places.view), size):
        mask = dense_mask(places, slice(start, start + size))  # [1 or B, q, N]
        keys = mask.any(dim=1).any(dim=0).nonzero().flatten()  # keys that any query sees
        seen = (keys // size).unique().tolist()  # tiles; never none: a token sees its own block
        tiles = mask.split(size, dim=2)  # [1 or B, q, size] each
        rows.append((seen, torch.cat([tiles[tile] for tile in seen], dim=2)))
    return TiledMask(size, rows)


def flex_mask(places: Places) -> FlexMask:
    """The mask as FlexAttention wants it."""
    from torch.nn.attention.flex_attention import create_block_mask

    view, block, document = places

    def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """`may_attend` for the numbers of a row of the batch, a head, a query and a key."""
        # Without documents all rows share one mask, so `batch` is not used.
        query_text = None if document is None else document[batch, query]
        key_text = None if document is None else document[batch, key]
        here = Places(view[query], block[query], query_text)
        return may_attend(here, Places(view[key], block[key], key_text))

    batch_size = None if document is None else len(document)
    return FlexMask(create_block_mask(rule, batch_size, None, len(view), len(view), view.device))


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


@functools.cache  # so that it is compiled once
def flex_kernel(cuda: bool) -> Any:
    """FlexAttention: compiled on a GPU; on a CPU its slow reference, which has no gradients."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention) if cuda else flex_attention


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    """Attention output `[B, heads, L, head_dim]` for queries of that shape.

    `key` and `value` `[B, n_kv, T, head_dim]` may have fewer heads, which are shared. A tensor mask
    `[B or 1, L, T]` must be boolean, or `ValueError`: PyTorch would add its numbers to the scores.
    """
    if len(query) == 0:  # without rows no mask is needed, and plain products work on every device
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    if isinstance(mask, TiledMask):
        return attend_in_tiles(query, key, value, mask)
    if isinstance(mask, FlexMask):
        if torch.is_autocast_enabled(query.device.type):  # FlexAttention does not look at it
            dtype = torch.get_autocast_dtype(query.device.type)
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        kernel = flex_kernel(query.is_cuda)
        return kernel(query, key, value, block_mask=mask.block_mask, enable_gqa=True)
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"an attention mask is boolean, got {mask.dtype}; use mask.bool()")
    mask = None if mask is None else mask[:, None]  # [B or 1, 1, L, T], for all heads
    if query.is_cuda and (mask is not None or query.dtype == torch.float32):
        # The fused kernels of a GPU for masks and for float32 know no shared heads. PyTorch would
        # fall back to all L x T scores in float32, which take much more time and memory.
        sharing = query.shape[1] // key.shape[1]  # query heads that share a key head
        key, value = (heads.repeat_interleave(sharing, dim=1) for heads in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)


def attend_in_tiles(query: Tensor, key: Tensor, value: Tensor, mask: TiledMask) -> Tensor:
    """`attend`, one row of tiles after the other, each with the keys that it sees."""
    queries = query.split(mask.size, dim=2)
    keys = key.split(mask.size, dim=2)  # tiles of the keys
    values = value.split(mask.size, dim=2)
    outputs = []
    for number, (seen, dense) in enumerate(mask.rows):
        seen_keys = torch.cat([keys[tile] for tile in seen], dim=2)  # [B, n_kv, k, head_dim]
        seen_values = torch.cat([values[tile] for tile in seen], dim=2)
        # The mask of these keys is dense, so this call is plain attention.
        outputs.append(attend(queries[number], seen_keys, seen_values, dense))
    return torch.cat(outputs, dim=2)  # [B, heads, L, head_dim]

"""Every mask is compared with a double loop over queries and keys, after the paper's table."""

import itertools

import pytest
import torch
from helpers import few, many
from hypothesis import given
from hypothesis import strategies as st

from minillada.masks import (
    attend,
    block_causal_mask,
    block_diffusion_mask,
    flex_mask,
    tiled_mask,
    training_places,
)


def may_attend(
    query: int, query_is_noisy: bool, key: int, key_is_noisy: bool, block_size: int
) -> bool:
    """The table of LLaDA2.0, a row a case."""
    query_block, key_block = query // block_size, key // block_size
    if query_is_noisy and key_is_noisy:
        return query_block == key_block
    if query_is_noisy:
        return query_block > key_block
    if not key_is_noisy:
        return query_block >= key_block
    return False


positions = st.lists(st.integers(0, 19), unique=True, max_size=12).map(sorted)


@many
@given(noisy=positions, clean=positions, block_size=st.integers(1, 7))
def test_training_mask_is_the_double_loop(noisy, clean, block_size):
    both = [(i, True) for i in noisy] + [(i, False) for i in clean]
    expected = torch.tensor(
        [[may_attend(i, a, j, b, block_size) for j, b in both] for i, a in both], dtype=torch.bool
    )
    mask = block_diffusion_mask(
        torch.tensor(noisy, dtype=torch.long), torch.tensor(clean, dtype=torch.long), block_size
    )
    assert mask.dtype == torch.bool
    assert torch.equal(mask, expected.view(1, len(both), len(both)))


@many
@given(
    noisy=positions,
    clean=positions,
    block_size=st.integers(1, 7),
    views=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_views_and_documents_are_the_double_loop(noisy, clean, block_size, views, seed):
    """Views do not see each other, documents neither; all else is as with one of each."""
    document = torch.randint(0, 3, (2, 20), generator=torch.Generator().manual_seed(seed))
    every = [(i, view) for view in range(views) for i in noisy] + [(i, None) for i in clean]
    expected = torch.zeros(2, len(every), len(every), dtype=torch.bool)
    for row, (q, (i, a)), (k, (j, b)) in itertools.product(
        range(2), enumerate(every), enumerate(every)
    ):
        alone = a is None or b is None or a == b
        expected[row, q, k] = (
            alone
            and document[row, i] == document[row, j]
            and may_attend(i, a is not None, j, b is not None, block_size)
        )
    as_tensor = lambda values: torch.tensor(values, dtype=torch.long)  # noqa: E731
    assert torch.equal(
        block_diffusion_mask(as_tensor(noisy), as_tensor(clean), block_size, views, document),
        expected,
    )


@few
@given(
    noisy=positions,
    clean=positions,
    block_size=st.integers(1, 7),
    views=st.integers(1, 3),
    size=st.integers(1, 9),
)
def test_tiles_hold_every_true_entry_and_no_empty_tile_is_kept(
    noisy, clean, block_size, views, size
):
    where = [torch.tensor(values, dtype=torch.long) for values in (noisy, clean)]
    documents = torch.tensor([[0] * 7 + [1] * 13, [0] * 15 + [1] * 5])
    mask = block_diffusion_mask(*where, block_size, views, documents)
    tiled = tiled_mask(training_places(*where, block_size, views, documents), size)
    again, keys = torch.zeros_like(mask), torch.arange(mask.shape[1]).split(size)
    for number, (seen, piece) in enumerate(tiled.rows):
        assert all(tile.any() for tile in piece.split([len(keys[t]) for t in seen], dim=2)), (
            "a tile that nobody sees was kept"
        )
        queries = keys[number]
        again[:, queries[:, None], torch.cat([keys[t] for t in seen])] = piece
    assert torch.equal(again, mask)


@pytest.mark.parametrize(("views", "share"), [(1, 0.33), (4, 0.14)])
def test_the_tiles_of_a_long_training_mask_are_little_more_than_what_it_shows(views, share):
    index = torch.arange(512)
    mask = block_diffusion_mask(index, index, 16, views)
    tiled = tiled_mask(training_places(index, index, 16, views), 64)
    assert mask.sum() < sum(piece.numel() for _, piece in tiled.rows) < share * mask.numel()


@pytest.mark.parametrize("block_size", [1, 2, 3, 6])
def test_training_mask_of_full_halves_has_four_quarters(block_size):
    index = torch.arange(6)
    mask = block_diffusion_mask(index, index, block_size)[0]
    block = index // block_size
    assert torch.equal(mask[:6, :6], block[:, None] == block[None])  # M_BD
    assert torch.equal(mask[:6, 6:], block[:, None] > block[None])  # M_OBC
    assert torch.equal(mask[6:, 6:], block_causal_mask(index, index, block_size)[0])  # M_BC
    assert not mask[6:, :6].any()
    assert mask.any(1).all(), "a query that sees nothing would turn attention into NaN"


@many
@given(queries=positions, keys=positions, block_size=st.integers(1, 25))
def test_block_causal_mask_is_the_double_loop(queries, keys, block_size):
    expected = torch.tensor(
        [[i // block_size >= j // block_size for j in keys] for i in queries], dtype=torch.bool
    )
    mask = block_causal_mask(
        torch.tensor(queries, dtype=torch.long), torch.tensor(keys, dtype=torch.long), block_size
    )
    assert torch.equal(mask, expected.view(1, len(queries), len(keys)))


def test_block_size_one_is_causal_and_block_size_length_is_full():
    index = torch.arange(7)
    assert torch.equal(
        block_causal_mask(index, index, 1)[0], torch.ones(7, 7, dtype=torch.bool).tril()
    )
    for size in (7, 8, 100):
        assert block_causal_mask(index, index, size).all()


@pytest.mark.parametrize("build", [block_causal_mask, block_diffusion_mask])
@pytest.mark.parametrize("size", [0, -4])
def test_block_size_must_be_positive(build, size):
    with pytest.raises(ValueError, match="block size must be at least 1"):
        build(torch.arange(4), torch.arange(4), size)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("block_size", [1, 4, 48])
@pytest.mark.parametrize("packed", [False, True])
def test_attention_is_the_same_in_every_form_of_the_mask(block_size, packed):
    """150 tokens: no multiple of a tile. FlexAttention is tried in its slow form for CPUs."""
    source = torch.Generator().manual_seed(block_size)
    query, key, value = (torch.randn(3, heads, 150, 8, generator=source) for heads in (4, 2, 2))
    documents = (torch.arange(60) // torch.tensor([[20], [33], [60]])) if packed else None
    where = (torch.arange(10, 60), torch.arange(50), block_size, 2, documents)
    dense = block_diffusion_mask(*where)
    slow = (
        (query @ key.repeat_interleave(2, 1).transpose(2, 3) / 8**0.5)
        .masked_fill(~dense[:, None], float("-inf"))
        .softmax(-1)
    )
    expected, places = slow @ value.repeat_interleave(2, 1), training_places(*where)
    for form in (dense, tiled_mask(places, 32), flex_mask(places)):
        assert torch.allclose(attend(query, key, value, form), expected, atol=1e-5)


def test_a_gpu_is_told_of_every_tile_that_a_row_needs_and_of_no_other():
    """The kernel skips the others. Its slow form looks at no tile, so it would notice nothing."""
    index, documents = torch.arange(256), torch.arange(256) // torch.tensor([[256], [128], [64]])
    where = (index, index, 32, 1, documents)  # 512 tokens: 4 x 4 tiles of 128
    tiles = block_diffusion_mask(*where).unflatten(2, (4, 128)).unflatten(1, (4, 128))
    needed = tiles.any(4).any(2)  # [3, 4, 4]
    told = flex_mask(training_places(*where)).block_mask.to_dense()[:, 0].bool()
    assert torch.equal(told, needed) and not torch.equal(needed[0], needed[1])

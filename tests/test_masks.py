"""Every mask is compared with a double loop over (query, key) written from the table in the paper."""

import itertools

import pytest
import torch
from helpers import few, many
from hypothesis import given
from hypothesis import strategies as st

from minillada.masks import block_causal_mask, block_diffusion_mask, slice_mask


def may_attend(query: int, query_is_noisy: bool, key: int, key_is_noisy: bool, block_size: int) -> bool:
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
    expected = torch.tensor([[may_attend(i, a, j, b, block_size) for j, b in both] for i, a in both], dtype=torch.bool)
    mask = block_diffusion_mask(torch.tensor(noisy, dtype=torch.long), torch.tensor(clean, dtype=torch.long), block_size)
    assert mask.dtype == torch.bool
    assert torch.equal(mask, expected.view(1, len(both), len(both)))


@many
@given(noisy=positions, clean=positions, block_size=st.integers(1, 7), views=st.integers(1, 3), seed=st.integers(0, 99))
def test_views_and_documents_are_the_double_loop(noisy, clean, block_size, views, seed):
    """Views do not see each other, documents do not see each other; all else as with one of each."""
    document = torch.randint(0, 3, (2, 20), generator=torch.Generator().manual_seed(seed))
    every = [(i, view) for view in range(views) for i in noisy] + [(i, None) for i in clean]
    expected = torch.zeros(2, len(every), len(every), dtype=torch.bool)
    for row, (q, (i, a)), (k, (j, b)) in itertools.product(range(2), enumerate(every), enumerate(every)):
        alone = a is None or b is None or a == b
        expected[row, q, k] = alone and document[row, i] == document[row, j] and may_attend(i, a is not None, j, b is not None, block_size)
    as_tensor = lambda values: torch.tensor(values, dtype=torch.long)  # noqa: E731
    assert torch.equal(block_diffusion_mask(as_tensor(noisy), as_tensor(clean), block_size, views, document), expected)


@few
@given(length=st.integers(1, 24), size=st.integers(1, 9), rows=st.integers(1, 2), seed=st.integers(0, 99))
def test_slices_cover_every_true_entry_once(length, size, rows, seed):
    source = torch.Generator().manual_seed(seed)
    mask = (torch.rand(rows, length, length, generator=source) < 0.2) | torch.eye(length, dtype=torch.bool)
    sliced = slice_mask(mask, torch.randint(0, 12, (length,), generator=source), size)
    again = torch.zeros_like(mask)
    for queries, keys, piece in sliced.pieces:
        assert piece.any((0, 1)).all(), "a key that nobody sees was kept"
        again[:, queries[:, None], keys] = piece
    assert torch.equal(again, mask)
    order = torch.cat([queries for queries, _, _ in sliced.pieces])
    assert order[sliced.order].tolist() == list(range(length))


def test_slices_of_a_long_training_mask_hold_little_more_than_a_quarter():
    index = torch.arange(512)
    sliced = slice_mask(block_diffusion_mask(index, index, 16), index.repeat(2), 64)
    assert sum(piece.numel() for _, _, piece in sliced.pieces) < 0.35 * 1024**2


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
    expected = torch.tensor([[i // block_size >= j // block_size for j in keys] for i in queries], dtype=torch.bool)
    mask = block_causal_mask(torch.tensor(queries, dtype=torch.long), torch.tensor(keys, dtype=torch.long), block_size)
    assert torch.equal(mask, expected.view(1, len(queries), len(keys)))


def test_block_size_one_is_causal_and_block_size_length_is_full():
    index = torch.arange(7)
    assert torch.equal(block_causal_mask(index, index, 1)[0], torch.ones(7, 7, dtype=torch.bool).tril())
    for size in (7, 8, 100):
        assert block_causal_mask(index, index, size).all()


@pytest.mark.parametrize("build", [block_causal_mask, block_diffusion_mask])
@pytest.mark.parametrize("size", [0, -4])
def test_block_size_must_be_positive(build, size):
    with pytest.raises(ValueError, match="block size must be at least 1"):
        build(torch.arange(4), torch.arange(4), size)

"""Every mask is compared with a double loop over (query, key) written from the table in the paper."""

import pytest
import torch
from helpers import many
from hypothesis import given
from hypothesis import strategies as st

from minillada.masks import block_causal_mask, block_diffusion_mask


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

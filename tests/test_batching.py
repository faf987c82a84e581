"""Padded and packed batches hold every sequence once, whole, and marked as it should be."""

import pytest
import torch
from helpers import few, tiny_vocab
from hypothesis import given
from hypothesis import strategies as st

from minillada import batching
from minillada.batching import Portion, collate, pack
from minillada.layout import TokenSequence

vocab = tiny_vocab()


@few
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=5),
    multiple=st.integers(1, 8),
)
def test_collate_pads_with_supervised_end_of_text(sizes, multiple):
    sequences = [TokenSequence(list(range(30, 30 + p + r)), p) for p, r in sizes]
    batch = collate(sequences, vocab, multiple)
    longest = max(p + r for p, r in sizes)
    assert batch.ids.shape[1] % multiple == 0 and longest <= batch.ids.shape[1] < longest + multiple
    for row, (prompt, response) in enumerate(sizes):
        for i in range(batch.ids.shape[1]):
            inside = i < prompt + response
            assert batch.ids[row, i] == (30 + i if inside else vocab.eos_id)
            # response and padding, never the prompt
            assert bool(batch.targets[row, i]) == (i >= prompt)
            assert bool(batch.real[row, i]) == (prompt <= i and inside)


@few
@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=7),
    block_size=st.integers(1, 8),
    blocks=st.integers(0, 3),
)
def test_packed_rows_hold_every_sequence_once_and_whole(sizes, block_size, blocks):
    sequences = []
    for n, (prompt, rest) in enumerate(sizes, 1):
        sequences.append(TokenSequence(list(range(30 * n, 30 * n + prompt + rest)), prompt))
    singles = [collate([s], vocab, block_size) for s in sequences]
    longest = max(single.ids.shape[1] for single in singles)
    packed = pack(sequences, vocab, longest + blocks * block_size, block_size)
    found = []
    for ids, targets, real, documents in zip(*packed, strict=True):
        for number in range(int(documents.max()) + 1):
            place = (documents == number).nonzero().flatten()
            first, last = int(place[0]), int(place[-1])
            assert first % block_size == 0 and place.tolist() == list(range(first, last + 1))
            found.append((ids[place].tolist(), targets[place].tolist(), real[place].tolist()))
        rest = documents == -1
        assert not targets[rest].any() and not real[rest].any()
        assert (ids[rest] == vocab.eos_id).all()
    wanted = [(s.ids[0].tolist(), s.targets[0].tolist(), s.real[0].tolist()) for s in singles]
    assert sorted(found) == sorted(wanted)
    used = [int((row >= 0).sum()) for row in packed.documents]
    first = [int((row == 0).sum()) for row in packed.documents]
    for later in range(1, len(used)):
        # A row is opened only for a sequence that none of the rows before had room for.
        assert all(used[earlier] + first[later] > packed.ids.shape[1] for earlier in range(later))


def test_the_longest_come_first_each_into_the_first_row_that_has_room():
    """Rows of 12 tokens and blocks of 2: an odd sequence takes one token more."""
    sequences = [TokenSequence([40 + n] * n, 0) for n in (5, 7, 1, 3, 9, 1)]
    rows = [set(row.tolist()) - {vocab.eos_id} for row in pack(sequences, vocab, 12, 2).ids]
    assert rows == [{49, 41}, {47, 43}, {45, 41}]


def test_a_batch_moves_whole():
    batch = pack([TokenSequence([5] * 9, 2), TokenSequence([6] * 3, 1)], vocab, 16, 4)
    assert {field.device.type for field in batch.to("meta")} == {"meta"}
    for before, after in zip(batch, batch.to("cpu"), strict=True):
        assert torch.equal(before, after)
    assert batch._replace(documents=None).to("cpu").documents is None


def test_rows_are_dealt_like_cards():
    assert Portion(0, 3).has(torch.arange(7)).nonzero().flatten().tolist() == [0, 3, 6]
    # Two rows went before, to portions 0 and 1, so the first of these goes to portion 2.
    assert Portion(2, 3, first=2).has(torch.arange(5)).nonzero().flatten().tolist() == [0, 3]


def test_rows_that_cannot_be_packed():
    with pytest.raises(ValueError, match="rows of 10 tokens are no whole blocks of 4; change one"):
        pack([TokenSequence([5, 6], 1)], vocab, 10, 4)
    with pytest.raises(
        ValueError, match="a sequence of 12 tokens does not fit into rows of 8; make"
    ):
        pack([TokenSequence([5] * 9, 1)], vocab, 8, 4)


SIZES = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=12)


@few
@given(SIZES, st.sampled_from([1, 4, 8]))
def test_batches_by_shape_hold_every_sequence_once_and_no_needless_padding(sizes, multiple):
    sequences = []
    for n, (prompt, rest) in enumerate(sizes):
        sequences.append(TokenSequence([7 + n] * (prompt + rest), prompt))
    seen, shapes = [], []
    for batch in batching.by_shape(sequences, vocab, multiple):
        first = {int(row.nonzero()[0]) // multiple for row in batch.targets}
        assert len(first) == 1, "all responses begin in one block"
        shapes.append((batch.ids.shape[1], *first))
        for row in range(len(batch.ids)):
            number = int(batch.ids[row, 0]) - 7
            alone = collate([sequences[number]], vocab, multiple)
            assert torch.equal(batch.ids[row], alone.ids[0])
            assert torch.equal(batch.targets[row], alone.targets[0])
            assert torch.equal(batch.real[row], alone.real[0])
            seen.append(number)
    assert sorted(seen) == list(range(len(sequences)))
    assert len(set(shapes)) == len(shapes) and shapes == sorted(shapes)

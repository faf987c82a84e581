"""Prompts of any length in batches, and where a text ends because an image begins."""

from helpers import few, tiny_uni
from hypothesis import given
from hypothesis import strategies as st

from minillada import layout
from minillada.uni import THINK
from minillada.writer import equal_lengths

uni = tiny_uni()


@few
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=20), batch_size=st.integers(1, 5))
def test_equal_lengths_is_a_partition(lengths, batch_size):
    groups = equal_lengths([([0] * n, [0]) for n in lengths], batch_size)
    assert sorted(i for rows in groups for i in rows) == list(range(len(lengths)))
    for rows in groups:
        assert 1 <= len(rows) <= batch_size
        assert len({lengths[i] for i in rows}) == 1 and rows == sorted(rows)


def test_a_text_phase_ends_where_an_image_begins(monkeypatch):
    vocab = uni.vocab
    word, header = vocab.encode("two"), layout.image_header(vocab, 4, 4)
    code, eos = vocab.image_token_offset + 3, vocab.eos_id
    rows = [word + header + [eos], word + [eos] * 5, word + [code, *header], word * 3]
    monkeypatch.setattr(uni, "write", lambda *_, **__: (rows, None))
    texts, headers = uni.write_until_image([[]] * 4, 9, THINK)
    assert texts == [word, word, word, word * 3]
    assert headers == [header, [], [code, *header], []]

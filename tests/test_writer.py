"""Prompts of any length in batches, and where a text ends because an image begins."""

import pytest
import torch
from helpers import few, tiny_backbone, tiny_uni
from hypothesis import given
from hypothesis import strategies as st

from minillada import layout, writer
from minillada.commit import row_generators
from minillada.sampler import generate
from minillada.settings import changed
from minillada.uni import DRAW, THINK
from minillada.vocab import BOI
from minillada.writer import Writer, equal_lengths

uni = tiny_uni()


@few
@given(
    lengths=st.lists(st.tuples(*[st.integers(1, 3)] * 2), min_size=1, max_size=20),
    batch_size=st.integers(1, 5),
)
def test_equal_lengths_is_a_partition(lengths, batch_size):
    groups = equal_lengths([([0] * n, [0] * m) for n, m in lengths], batch_size)
    assert sorted(i for rows in groups for i in rows) == list(range(len(lengths)))
    for rows in groups:
        assert 1 <= len(rows) <= batch_size
        assert len({lengths[i] for i in rows}) == 1 and rows == sorted(rows)


@pytest.mark.parametrize("more", [-1, 1])
def test_a_backbone_and_codes_that_do_not_belong_together(more):
    other = tiny_backbone(vocab_size=uni.vocab.size + more)
    with pytest.raises(ValueError, match="load a tokenizer and a backbone that were trained toge"):
        Writer(other, uni.tokenizer, uni.vocab)


def test_settings_are_those_of_the_backbone_and_those_given():
    config = tiny_uni(block_size=8).sampling(DRAW, steps=None, temperature=0.0)
    assert config == changed(DRAW, block_size=8, temperature=0.0)
    assert uni.sampling(DRAW, block_size=2).block_size == 2


def test_a_recorder_runs_the_steps_unless_everything_is_computed_anew(monkeypatch):
    seen, config, rows = [], uni.sampling(DRAW, guidance=1.0), [([5, 6],), ([7, 8],)]

    def spy(*arguments):
        seen.append(arguments[-1])
        return generate(*arguments[:-1])

    monkeypatch.setattr(writer, "generate", spy)
    texts = []
    for recorder in (None, "a recorder"):
        monkeypatch.setattr(uni, "recorder", recorder)
        for cache in (True, False):
            texts.append(uni.write(rows, 9, config, uni.tokens(), cache=cache)[0])
    assert seen == [True, False, "a recorder", False]
    # Without generators row r uses seed r.
    texts.append(uni.write(rows, 9, config, uni.tokens(), row_generators(0, 2))[0])
    assert all(text == texts[0] for text in texts)


def test_given_answers_come_back_to_their_rows():
    """Prompts of other lengths run in other batches; the record is that of the first."""
    rows, config = [([5, 6],), ([5, 6, 7],), ([8, 9],)], uni.sampling(DRAW, guidance=1.0)
    given = torch.randint(5, 200, (3, 6)).index_fill(1, torch.tensor([1, 4]), uni.vocab.mask_id)
    together, record = uni.write(rows, given, config, uni.tokens(), row_generators(3, 3))
    assert record.rows == [0, 2] and record.ids.tolist() == [together[0], together[2]]
    for row in range(3):
        source = row_generators(3 + row, 1)
        alone, _ = uni.write(rows[row:][:1], given[row:][:1], config, uni.tokens(), source)
        assert alone[0] == together[row]


def test_a_text_phase_ends_where_an_image_begins(monkeypatch):
    vocab = uni.vocab
    word, header = vocab.encode("two"), layout.image_header(vocab, 4, 4)
    code, eos, begin = vocab.image_token_offset, vocab.eos_id, vocab.markup(BOI)[0]
    rows = [word + header + [eos], word + [eos] * 5, word + [code, *header], word * 3]
    rows.append([*word, begin, *word])
    configs = []
    monkeypatch.setattr(uni, "write", lambda *given: configs.append(given[2]) or (rows, None))
    texts, headers = uni.write_until_image([[]] * 5, 9, changed(THINK, block_size=3))
    assert texts == [word, word, word, word * 3, word]
    assert headers == [header, [], [code, *header], [], [begin]]
    assert configs == [changed(THINK, block_size=16)], "blocks are those of the backbone"

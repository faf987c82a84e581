"""One id space: any text comes back exactly, and nothing a user types becomes a special token."""

import os
import shutil
import sys

import pytest
import torch
from helpers import many, tiny_vocab
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as TextTokenizer
from tokenizers import models

from minillada import layout
from minillada.datasets import captions
from minillada.training import recipes
from minillada.vocab import (
    BOI,
    END_IMAGE,
    EOS,
    IMAGE,
    MASK,
    ROLES,
    SPECIAL_TOKENS,
    UNCONDITION,
    Vocabulary,
    load_vocabulary,
    size_token,
    special_tokens,
    text_info,
    text_path,
    train_bpe,
)

shipped = load_vocabulary(512)
vocabularies = pytest.mark.parametrize("vocab", [tiny_vocab(), shipped], ids=["tiny", "real"])
awkward = st.text() | st.lists(
    st.sampled_from(
        [*SPECIAL_TOKENS, "<code 3>", " ", "a", "<", "|", "\n", "é", "七", "🙂", "\x00"]
    )
).map("".join)


@vocabularies
@many
@given(text=awkward)
def test_any_string_comes_back_and_is_never_special(vocab, text):
    ids = vocab.encode(text)
    assert vocab.decode(ids) == text
    assert all(len(SPECIAL_TOKENS) <= i < vocab.image_token_offset for i in ids)


@vocabularies
def test_special_tokens_are_single_ids_in_markup_only(vocab):
    ids = [vocab.markup(token) for token in SPECIAL_TOKENS]
    assert ids == [[i] for i in range(len(SPECIAL_TOKENS))]
    assert vocab.eos_id == vocab.markup(EOS)[0] and vocab.mask_id == vocab.markup(MASK)[0]
    for token in SPECIAL_TOKENS:
        assert len(vocab.encode(token)) > 1
        assert vocab.decode(vocab.markup(token)) == token
    assert vocab.markup(f"a{IMAGE}b") == vocab.encode("a") + vocab.markup(IMAGE) + vocab.encode("b")


def test_the_special_tokens_are_the_official_ones():
    assert SPECIAL_TOKENS[:6] == [EOS, MASK, IMAGE, END_IMAGE, BOI, UNCONDITION]
    assert (EOS, IMAGE, END_IMAGE, BOI, UNCONDITION) == (
        "<|endoftext|>",
        "<|image|>",
        "<|/image|>",
        "<boi>",
        "<uncondition>",
    )
    assert list(ROLES.values()) == [
        "<role>SYSTEM</role>",
        "<role>HUMAN</role>",
        "<role>ASSISTANT</role>",
    ]
    assert size_token(4) == "<|reserved_token_4|>" and len(set(SPECIAL_TOKENS)) == 9 + 16


@vocabularies
def test_text_and_codes_divide_the_ids_between_them(vocab):
    assert vocab.image_token_offset == 1 + max(vocab._plain.get_vocab().values()), (
        "no gap between the last piece and the first code"
    )
    codes = torch.arange(vocab.codebook_size).view(1, -1)
    ids = vocab.image_ids(codes)
    assert ids == list(range(vocab.image_token_offset, vocab.size))
    assert torch.equal(vocab.codes(torch.tensor([ids])), codes)
    assert (
        vocab.is_image().nonzero().flatten().tolist() == ids and len(vocab.is_image()) == vocab.size
    )


def test_codes_are_written_in_raster_order():
    vocab = tiny_vocab()
    grid = torch.tensor([[3, 1, 4], [1, 5, 9]])
    assert [i - vocab.image_token_offset for i in vocab.image_ids(grid)] == [3, 1, 4, 1, 5, 9]


def test_decode_hides_nothing():
    vocab = tiny_vocab()
    ids = (
        vocab.markup(f"{IMAGE}{BOI}")
        + vocab.image_ids(torch.tensor([[0, 15]]))
        + vocab.encode("the thin")
        + vocab.markup(EOS)
    )
    assert vocab.decode(ids) == "<|image|><boi><code 0><code 15>the thin<|endoftext|>"
    assert vocab.decode(torch.tensor(ids)) == vocab.decode(iter(ids))


def test_the_shipped_pieces_are_those_of_the_corpus():
    again = train_bpe(recipes.bpe_corpus(), shipped.image_token_offset)
    vocab = Vocabulary(again, 512)
    for text in [*captions.all_captions(), *layout.SYSTEM_PROMPTS.values(), "never seen: 漢字"]:
        assert vocab.encode(text) == shipped.encode(text)
    assert shipped.image_token_offset == 384 and shipped.size == 896


def test_every_full_caption_has_equally_many_pieces():
    """Then drawing prompts need no padding, and `recipes.caption_table` is a rectangle."""
    lengths = {len(shipped.encode(c)) for c in captions.all_captions()}
    assert len(lengths) == 1


@pytest.mark.parametrize("bad", [-1, 10_000])
def test_ids_outside_the_vocabulary_are_refused(bad):
    vocab = tiny_vocab()
    with pytest.raises(
        ValueError, match=f"token id {bad} is outside the vocabulary of {vocab.size}"
    ):
        vocab.decode([5, bad])
    with pytest.raises(ValueError, match="outside the vocabulary"):
        vocab.decode([vocab.size])


@pytest.mark.parametrize("bad", [-1, 16])
def test_codes_outside_the_codebook_are_refused(bad):
    with pytest.raises(ValueError, match=r"image codes must lie in \[0, 16\)"):
        tiny_vocab().image_ids(torch.tensor([[0, bad]]))


def test_codes_are_whole_numbers():
    with pytest.raises(ValueError, match="image codes must be int64, got torch.float32"):
        tiny_vocab().image_ids(torch.zeros(2, 2))
    vocab, every = tiny_vocab(), torch.arange(16)
    assert torch.equal(vocab.codes(torch.tensor(vocab.image_ids(every))), every), "of any shape"


def test_text_ids_are_not_codes():
    vocab = tiny_vocab()
    for bad in (vocab.image_token_offset - 1, vocab.size):
        with pytest.raises(ValueError, match="not image codes"):
            vocab.codes(torch.tensor([vocab.image_token_offset, bad]))


def test_a_corpus_too_small_for_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"^these texts yield \d+ entries; set vocab_size to \d+$"):
        train_bpe(["ab"], 400)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no text pieces at .*git checkout"):
        load_vocabulary(16, tmp_path / "text.json")
    for content in ("", "{}", '{"version": "1.0"', "not json"):
        (tmp_path / "text.json").write_text(content)
        with pytest.raises(ValueError, match="text.json is not a file of text pieces"):
            load_vocabulary(16, tmp_path / "text.json")
    # pieces of another program, without ours, or without the free bytes
    for words in (["a b"], SPECIAL_TOKENS[:2], special_tokens(0)):
        bpe = TextTokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, words[0]))
        bpe.save(str(tmp_path / "text.json"))
        with pytest.raises(ValueError, match="text.json is not a file of .*there is no piece [<þ]"):
            load_vocabulary(16, tmp_path / "text.json")
    with pytest.raises(ValueError, match="mnist.json is not a file of text pieces.*git checkout"):
        load_vocabulary(16, "mnist")


@pytest.mark.skipif(sys.platform != "linux", reason="others know no such names")
def test_pieces_are_read_from_a_folder_named_in_an_old_encoding(tmp_path):
    folder = tmp_path / os.fsdecode(b"J\xf6rg")
    folder.mkdir()
    shutil.copy(text_path(), folder / "text.json")
    assert load_vocabulary(16, folder).size == load_vocabulary(16).size


def test_nobody_is_told_to_restore_a_file_of_their_own_with_git(tmp_path):
    (tmp_path / "text.json").write_text("{}")
    with pytest.raises(ValueError, match="minillada train mnist-text") as caught:
        load_vocabulary(16, tmp_path / "text.json")
    assert "git" not in str(caught.value)


def test_other_pieces_than_those_of_the_model_are_refused(tmp_path):
    for name in ("mnist-text", "mnist-uni-text"):
        shutil.copy(text_path(name), tmp_path / f"{name}.json")
    about = text_info(str(tmp_path / "mnist-text.json"))
    vocab = load_vocabulary(512, about["text"], about["text_sha256"])
    assert vocab.encode("a thick seven") == shipped.encode("a thick seven")
    shutil.copy(tmp_path / "mnist-uni-text.json", tmp_path / "mnist-text.json")
    assert about["text_sha256"] != text_info("mnist-uni-text")["text_sha256"]
    with pytest.raises(ValueError, match="mnist-text.json holds other text pieces than those"):
        load_vocabulary(512, about["text"], about["text_sha256"])


def test_names_of_pieces_hold_in_every_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist-text").mkdir()  # hides nothing
    assert text_info("mnist-text")["text"] == "mnist-text"
    (tmp_path / "run").mkdir()
    shutil.copy(text_path(), tmp_path / "run" / "text.json")
    for name in ("run", "run/text.json", "./run"):
        assert text_info(name)["text"] == str(tmp_path / "run" / "text.json")


def test_pieces_for_larger_images_keep_the_ids_of_the_others():
    pieces = train_bpe(["the thin thing"] * 9, 256 + len(special_tokens(64)) + 3, max_grid=64)
    large = Vocabulary(pieces, 16)
    assert special_tokens(64)[: len(SPECIAL_TOKENS)] == SPECIAL_TOKENS
    for n in range(1, 65):
        assert large.size_ids(n) == [SPECIAL_TOKENS.index(size_token(1)) + n - 1]
    for n in (0, -1, 65):
        sentence = f"sizes 1 to 64; train text pieces with more .*max_grid={max(n, 1)}`"
        with pytest.raises(ValueError, match=sentence):
            large.size_ids(n)


def test_pieces_for_smaller_images_are_enough(tmp_path):
    pieces = train_bpe(["the thin thing"] * 9, 256 + len(special_tokens(2)), max_grid=2)
    pieces.save(str(tmp_path / "text.json"))
    small = load_vocabulary(16, tmp_path / "text.json")
    assert small.size_ids(2) == [small.image_token_offset - 256 - 1]


@vocabularies
def test_the_piece_of_an_id_and_the_id_of_a_piece_are_inverse(vocab):
    for i in range(vocab.image_token_offset):
        assert vocab.token_id(vocab.token(i)) == i
    assert vocab.token(vocab.image_token_offset) == "" and vocab.token_id("no piece") is None


def test_text_leaves_out_codes_and_operations():
    vocab = tiny_vocab()
    text = vocab.is_text()
    assert (
        not (text & vocab.is_image()).any() and not text[[vocab.delete_id, vocab.insert_id]].any()
    )
    assert int(text.sum()) == vocab.image_token_offset - 2
    for byte, operation in ((0xFE, vocab.delete_id), (0xFF, vocab.insert_id)):
        with pytest.raises(UnicodeDecodeError):
            bytes([byte]).decode()  # so no text can contain it
        assert vocab.decode([operation]) == "\N{REPLACEMENT CHARACTER}"

"""Old codes and old pieces keep their rows in a new model."""

import warnings

import torch
from helpers import tiny_tokenizer

from minillada.extras import transfer
from minillada.vocab import load_vocabulary

TABLES = ("model.word_embeddings.weight", "lm_head.weight")


def test_a_larger_codebook_keeps_the_old_codes():
    old, new = tiny_tokenizer(0).state_dict(), tiny_tokenizer(1, codebook_size=20).state_dict()
    tensors = transfer.grown(old, new)
    for key in ("codebook.embedding", "codebook.sums", "codebook.counts"):
        assert torch.equal(tensors[key][:16], old[key])
        assert torch.equal(tensors[key][16:], new[key][16:])
    others = [key for key in old if not key.startswith("codebook.")]
    assert all(tensors[key] is old[key] for key in others)


def test_what_is_deeper_stays_new():
    old, new = tiny_tokenizer(0).state_dict(), tiny_tokenizer(1, depth=2).state_dict()
    tensors = transfer.grown(old, new)
    assert tensors.keys() == new.keys() and new.keys() - old.keys()
    assert all(tensors[key] is new[key] for key in new.keys() - old.keys())


def test_tokenizers_are_strange_unless_one_comes_from_the_other_or_both_from_a_third():
    third = {"sha256": "c"}
    first = {"sha256": "a", "start_sha256": "c", "start": third}
    second = {"sha256": "b", "start_sha256": "c", "start": third}
    apart = {"sha256": "d"}
    grandchild = {"sha256": "e", "start_sha256": "b", "start": second}
    pairs = [(first, first), (first, third), (third, second), (first, second)]
    for old, new in (*pairs, (grandchild, third), (grandchild, first)):
        assert not warnings_about(old, new) and not warnings_about(new, old)
    assert warnings_about(first, apart) and warnings_about(apart, second)
    # What a file does not say may have been the same.
    assert not warnings_about(first, {}) and not warnings_about({"sha256": "e", "start": {}}, first)


def warnings_about(old, new) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        transfer.warn_of_strange_codes("a model", old, new)
    return bool(caught)


def test_rows_follow_their_pieces_into_another_vocabulary():
    source, target = load_vocabulary(16), load_vocabulary(20, "mnist-uni-text")
    old = {key: torch.randn(source.size, 3) for key in TABLES}
    new = {key: torch.randn(target.size, 3) for key in TABLES}
    codebooks = [torch.nn.functional.normalize(torch.randn(n, 4), dim=1) for n in (16, 20)]
    moved = transfer.translated(old | {"other": 1}, new, (source, target), tuple(codebooks))
    assert moved["other"] == 1
    places = []
    for text in (" seven", " thick", "<|image|>", "<role>HUMAN</role>", "x", " image"):
        (before,), (after,) = source.markup(text), target.markup(text)
        places.append(before != after)
        for key in TABLES:
            assert torch.equal(moved[key][after], old[key][before]), text
    assert any(places), "some pieces must have moved for this to prove anything"
    fresh = []
    for i in range(target.image_token_offset):
        if source.token_id(target.token(i)) is None:
            fresh.append(i)
    assert len(fresh) > 50
    for key in TABLES:
        assert torch.equal(moved[key][fresh], new[key][fresh])
        for code, vector in enumerate(codebooks[1]):
            nearest = source.image_token_offset + int((codebooks[0] @ vector).argmax())
            row = moved[key][target.image_token_offset + code]
            assert torch.equal(row, old[key][nearest])

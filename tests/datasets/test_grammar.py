"""Sentences about images of any data set, and what they say."""

import pytest
import torch

from minillada.datasets.grammar import Grammar, article
from minillada.datasets.table import DATASETS

CLOTHES = ("shirt", "t-shirt", "ankle boot", "boot", "boot with laces")


@pytest.mark.parametrize("name", DATASETS)
def test_every_caption_is_read_back(name):
    grammar = DATASETS[name].grammar
    for number, caption in enumerate(grammar.all_captions()):
        assert grammar.index(torch.tensor([grammar.parse(caption)])).tolist() == [number]


def test_words_that_hold_each_other_are_told_apart():
    grammar = Grammar({"label": CLOTHES}, lambda kind: article(CLOTHES[kind]))
    for kind, caption in enumerate(grammar.all_captions()):
        assert grammar.parse(caption) == (kind,)
    assert grammar.parse("a hat") == (None,)


@pytest.mark.parametrize("word", ["T-shirt", "ankle  boot", "boot "])
def test_captions_are_in_the_form_that_models_read(word):
    """Requests are lower-cased: a model that learned "T-shirt" would be asked for another word."""
    with pytest.raises(ValueError, match="in small letters, with single spaces"):
        Grammar({"label": ("hat", word)}, lambda kind: f"a {('hat', word)[kind]}")

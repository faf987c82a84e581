"""What users type and show: every form that is read, and one sentence for every other."""

import math
import warnings
from random import Random

import numpy
import pytest
import torch
from helpers import mnist_test_images, real_images, tiny_tokenizer, tiny_uni
from PIL import Image

import minillada
from minillada.asking import (
    TEACHING,
    check_learned,
    knows_a_word,
    read_codes,
    read_each,
    read_groups,
    read_images,
    read_mask,
    read_texts,
)
from minillada.datasets.colour import luma
from minillada.datasets.pool import mnist_pool
from minillada.layout import DESCRIBE_QUESTION
from minillada.tasks.base import Source
from minillada.tasks.table import TASKS, TRAINED, trained
from minillada.vocab import load_vocabulary

VOCAB, TOKENIZER = load_vocabulary(16), tiny_tokenizer()
PIXELS = real_images(3).floats()

# --- texts ---------------------------------------------------------------------------------------


def test_texts_are_lower_cased_and_trimmed_but_never_replaced():
    assert read_texts([" A THICK seven\n"], VOCAB) == ["a thick seven"]
    assert read_texts(["the thicc sevn"], VOCAB) == ["the thicc sevn"]
    assert read_texts([], VOCAB) == []
    assert read_texts(["describe THE  image. "], VOCAB) == [DESCRIBE_QUESTION]
    assert read_texts(["a  thick\tseven\n standing"], VOCAB) == ["a thick seven standing"]


def test_a_single_text_serves_all_rows():
    assert read_each("A seven", 3, VOCAB) == ["a seven"] * 3
    assert read_each(["a seven", "a two"], 2, VOCAB) == ["a seven", "a two"]
    with pytest.raises(ValueError, match="2 texts for 3 images"):
        read_each(["a seven", "a two"], 3, VOCAB)


def test_one_warning_a_call_where_no_word_is_known():
    with pytest.warns(UserWarning, match="knows no word of 'xyzzy 7'") as seen:
        read_texts(["a seven", "XYZZY 7", "hello"], VOCAB)
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_texts(["a seven, please", DESCRIBE_QUESTION], VOCAB)


def test_a_warning_names_the_line_of_the_user():
    """Whether a task asks for itself or through others."""
    uni, coloured = tiny_uni(), torch.rand(1, 3, 32, 32)
    for ask in (
        lambda: uni.draw(["xyzzy"], steps=1),
        lambda: uni.draw_traced(["xyzzy"], steps=1),
        lambda: uni.describe(PIXELS, question="xyzzy"),
        lambda: uni.edit(PIXELS, "xyzzy", steps=1),
        lambda: uni.describe(coloured),
        lambda: uni.answer(list(coloured), "which digit is this?"),
    ):
        with pytest.warns(UserWarning, match="knows no word|the colour of yours") as seen:
            ask()
        assert {warning.filename for warning in seen} == {__file__}


def test_words_are_letters_and_at_least_three():
    assert knows_a_word(VOCAB, "seven") and knows_a_word(VOCAB, "draw a seven!")
    # Two letters are a piece of many words that a model does not know.
    assert not knows_a_word(VOCAB, "an an an") and not knows_a_word(VOCAB, "7 777")
    assert not knows_a_word(VOCAB, "七七七")


@pytest.fixture(scope="module")
def pool():
    return mnist_pool(mnist_test_images())


@pytest.mark.parametrize("name", TRAINED)
def test_what_was_trained_gives_no_warning(name, pool):
    vocab, rng = load_vocabulary(512, "mnist-uni-text"), Random(0)
    for _ in range(100):
        text = TASKS[name].make(Source(pool, rng, varied=True)).user[-1]
        assert knows_a_word(vocab, text)


@pytest.mark.parametrize("name", TRAINED)
def test_many_wordings_give_no_warning_where_they_were_trained(name, pool):
    vocab, rng = load_vocabulary(512, "mnist-uni-text"), Random(0)
    vocab.numerals = True
    for _ in range(200):
        text = TASKS[name].make(Source(pool, rng, many_wordings=True)).user[-1]
        assert knows_a_word(vocab, text)


def test_numerals_are_known_to_models_that_learned_them():
    assert minillada.load("mnist-uni").vocab.numerals
    vocab = minillada.load("mnist").vocab
    assert not vocab.numerals and not knows_a_word(vocab, "a 7")


@pytest.mark.parametrize("text", ["hello world", "a cat", "banana", "qwerty", "sieben", "ein haus"])
def test_strange_texts_are_found(text):
    for pieces in ("mnist-text", "mnist-uni-text"):
        assert not knows_a_word(load_vocabulary(512, pieces), text)


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "images",
    [
        PIXELS.double(),
        PIXELS.numpy(),
        PIXELS.numpy().astype(numpy.float64),
        PIXELS.numpy().astype(numpy.longdouble),
        PIXELS.numpy().astype(">f4"),
        list(PIXELS),
        [image.numpy() for image in PIXELS],
        tuple(PIXELS.double()),
    ],
)
def test_every_float_form_of_images_is_read(images):
    read = read_images(images, TOKENIZER)
    assert read.dtype == torch.float32 and torch.equal(read, PIXELS)


def test_bytes_are_divided_by_255():
    data = (PIXELS * 255).round().byte()
    for images in (data, data.numpy(), list(data)):
        assert torch.equal(read_images(images, TOKENIZER), data.float() / 255)


def test_arrays_that_must_not_be_changed_are_read_in_silence():
    """`numpy.asarray` of a picture is one. About such arrays torch warns: here always."""
    grey = numpy.asarray(Image.new("L", (32, 32), 51))
    hidden = numpy.asarray(Image.new("1", (32, 32), 1))
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert (read_images(grey[None, None], TOKENIZER) == 0.2).all()
            assert read_mask(hidden, 3, TOKENIZER).all()
    finally:
        torch.set_warn_always(False)


def test_half_precision_is_read():
    assert torch.allclose(read_images(PIXELS.half(), TOKENIZER), PIXELS, atol=1e-3)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (PIXELS[..., 2:30, 2:30], "images must have shape"),
        (PIXELS[0], r"images must have shape .*write image\[None\] for one image"),
        (PIXELS[0, 0], "images must have shape"),
        (PIXELS.repeat(1, 2, 1, 1), "images must have shape"),
        (torch.tensor(0.5), "images must have shape"),
        (PIXELS * 255, r"finite and in \[0, 1\]"),
        (PIXELS - 1, r"finite and in \[0, 1\]"),
        (PIXELS + math.nan, r"finite and in \[0, 1\]"),
        (PIXELS.long(), "of floats in .* or of bytes, got torch.int64"),
        (PIXELS > 0.5, "of floats in .* or of bytes, got torch.bool"),
        (numpy.array(["a"]), "of floats in .* or of bytes, got <U1"),
        (Image.new("L", (32, 32)), "got Image; `minillada.pictures.read`"),
        ([Image.new("L", (32, 32))], "got Image; `minillada.pictures.read`"),
        ("seven.png", "got str; `minillada.pictures.read`"),
        (None, "got NoneType"),
        (numpy.ones((1, 1, 32, 32), ">u2"), "of floats in .* or of bytes, got >u2"),
        (numpy.ones((1, 1, 32, 32), "int8"), "of floats in .* or of bytes, got int8"),
        ([PIXELS[0], PIXELS[0, :, :28]], "images of different sizes cannot be read together"),
    ],
)
def test_images_that_cannot_be_read(images, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_images(images, TOKENIZER)


def test_grey_and_colour_are_converted_and_it_is_said():
    colour, grey = tiny_tokenizer(channels=3), tiny_tokenizer()
    photos, digits = torch.rand(4, 3, 32, 32), torch.rand(4, 1, 32, 32)
    with pytest.warns(UserWarning, match="reads colour") as said:
        assert torch.equal(read_images(digits, colour), digits.expand(-1, 3, -1, -1))
    assert len(said) == 1, "one warning a call"
    with pytest.warns(UserWarning, match="reads grey images"):
        converted = read_images(list(photos), grey)
    assert torch.allclose(converted, luma(photos), atol=1e-6)
    white = torch.ones(1, 3, 32, 32)
    with pytest.warns(UserWarning, match="reads grey"):
        assert (read_images(white, grey) == 1).all()
    # What fits is not touched, and what is no picture is still refused.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(read_images(photos, colour), photos)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="finite and in"):
        read_images(photos * 255, grey)
    with pytest.raises(ValueError, match="images must have shape"):
        read_images(torch.rand(1, 2, 32, 32), grey)


def test_groups_of_images():
    a, b, c = PIXELS
    groups = read_groups([a, (b.numpy(), c.double())], TOKENIZER)
    assert [len(group) for group in groups] == [1, 2]
    assert torch.equal(torch.cat(groups), PIXELS)
    assert [len(group) for group in read_groups(PIXELS, TOKENIZER)] == [1, 1, 1]
    assert read_groups([], TOKENIZER) == []
    with pytest.raises(ValueError, match="a row has no image"):
        read_groups([a, ()], TOKENIZER)


@pytest.mark.parametrize(
    ("codes", "sentence"),
    [
        (torch.zeros(1, 3, 3, dtype=torch.long), r"grid, got \[1, 3, 3\]"),
        (torch.zeros(4, 4, dtype=torch.long), r"int64 of shape \[B, 4, 4\]"),
        (torch.zeros(1, 4, 4), r"int64 of shape \[B, 4, 4\]"),
        ([[0]], r"int64 of shape \[B, 4, 4\]"),
        (torch.full((1, 4, 4), 16), r"image codes must lie in \[0, 16\), got 16 to 16"),
        (torch.full((1, 4, 4), -1), r"image codes must lie in \[0, 16\)"),
    ],
)
def test_codes_that_cannot_be_read(codes, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_codes(codes, TOKENIZER)


# --- what a model has learned --------------------------------------------------------------------


def kinds_of(training: dict, **info) -> set[str]:
    """What a model with this training is not refused."""
    kinds = set()
    for kind in TEACHING:
        try:
            check_learned({"training": training} | info, kind)
        except ValueError as error:
            assert f"has not learned to {kind}; load 'mnist-uni'" in str(error)
        else:
            kinds.add(kind)
    return kinds


@pytest.mark.parametrize(
    ("training", "kinds"),
    [
        ({"steps": 9}, {"draw", "describe"}),
        ({"mixture": []}, {"draw", "describe"}),
        ({"mixture": [["draw", 1.0], ["describe", 1.0]]}, {"draw", "describe"}),
        ({"data": {"mixture": [["draw", 1.0]]}}, {"draw"}),
        ({"mixture": [["draw", 1.0], ["digit", 1.0]]}, {"draw", "answer questions"}),
        ({"data": {"mixture": [["edit_turn", 1.0]]}}, {"edit"}),
        (
            {"mixture": [["sum_thinking", 1.0], ["label", 1.0]]},
            {"answer questions", "write before it draws"},
        ),
        ({"mixture": [["a task of mine", 1.0]]}, {*TEACHING}),
    ],
)
def test_a_model_is_refused_what_it_never_learned(training, kinds):
    assert kinds_of(training) == kinds
    before = {"training": {"mixture": [["parity", 1.0]]}}  # an earlier stage counts as well
    assert kinds_of(training, start=before) == kinds | {"answer questions"}
    for kind in TEACHING:
        check_learned({}, kind)  # nothing is said about it


def test_the_shipped_model_of_digits_is_named_for_digits_alone():
    training = {"data": {"mixture": [["draw", 1.0]]}}
    for dataset in ("cifar10", "shapes"):  # of photos, and of a reader's own pictures
        with pytest.raises(ValueError, match="to describe; load a model whose mixture holds"):
            check_learned({"training": training, "dataset": dataset}, "describe")
    with pytest.raises(ValueError, match="to describe; load 'mnist-uni', or a model whose"):
        check_learned({"training": training, "dataset": "mnist"}, "describe")


def test_what_a_task_teaches_is_how_it_is_asked(pool):
    """A digit's tasks; those of photos are told from them by their names."""
    prompts = {"edit": {"edit"}, "write before it draws": {"think", "interleave"}}
    for name in TRAINED:
        example = TASKS[name].make(Source(pool, Random(0)))
        [kind] = [kind for kind, names in TEACHING.items() if name in names]
        assert example.system in prompts.get(kind, {"draw", "describe"})
    for name in trained("cifar10"):
        assert sum(name in names for names in TEACHING.values()) == 1

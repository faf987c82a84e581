"""A model draws and edits with the painter of its tokenizer, and with no other."""

from pathlib import Path

import numpy
import pytest
import torch

import minillada
from minillada.datasets import cifar10
from minillada.painting import load_painter


@pytest.fixture(scope="module")
def uni():
    return minillada.load("mnist")


def test_drawing_with_a_painter_keeps_the_codes(uni):
    drawn = uni.draw_traced(["a thick seven"] * 2, seed=3)
    painted = uni.draw(["a thick seven"] * 2, seed=3, painter="flow", painter_steps=2)
    assert torch.equal(uni.paint(drawn.codes, "conv"), drawn.images)
    torch.testing.assert_close(uni.paint(drawn.codes, "flow", 2, seed=3), painted)
    for name, turbo in (("flow", False), ("turbo", True)):
        assert load_painter(name, uni.info)[0].config.turbo == turbo
    assert not torch.equal(painted, drawn.images)


def test_an_edit_with_a_painter_keeps_the_codes():
    photos, uni = cifar10.load_cifar10_sample("test").floats([0, 1]), minillada.load("cifar")
    wish = dict(seed=3, steps=2)
    edited = uni.edit_traced(uni.shown(photos), "make it grey", **wish)
    assert torch.equal(uni.edit(photos, "make it grey", **wish), edited.images)
    painted = uni.edit(photos, "make it grey", painter="turbo", **wish)
    torch.testing.assert_close(painted, uni.paint(edited.codes, "turbo", seed=3))
    assert not torch.equal(painted, edited.images)


def test_a_painter_that_does_not_fit_is_refused_in_one_sentence(uni):
    codes = torch.zeros(1, 4, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="has no steps"):
        uni.paint(codes, "conv", steps=4)
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        uni.paint(codes, "flow", steps=0)
    for steps in (1.5, "4", True):
        with pytest.raises(ValueError, match=f"needs a whole number of steps, got {steps!r}"):
            uni.paint(codes, "flow", steps=steps)
    two = uni.paint(codes, "flow", steps=numpy.int64(2))
    assert torch.equal(two, uni.paint(codes, "flow", steps=2))
    with pytest.raises(FileNotFoundError, match="no weights called 'nobody'"):
        uni.paint(codes, "nobody")
    other = {"tokenizer": "mnist-uni-tokenizer", "tokenizer_sha256": "0" * 64}
    with pytest.raises(ValueError, match="paints the codes of mnist-tokenizer"):
        load_painter("mnist-painter", other)


def test_a_painter_that_cannot_be_used_is_refused_before_the_work(uni, monkeypatch):
    for method in ("draw_traced", "edit_traced", "encode"):
        monkeypatch.setattr(uni, method, lambda *_, **__: pytest.fail("something was done"))
    for wrong, sentence in (
        (dict(painter="turbo", painter_steps=0), "at least 1 step, got 0"),
        (dict(painter_steps=3), "the convolutional decoder has no steps"),
        (dict(painter="nosuch"), "no weights called 'nosuch'"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            uni.draw(["a two"], **wrong)
        with pytest.raises((ValueError, FileNotFoundError), match=sentence):
            uni.edit(torch.zeros(1, 1, 32, 32), "make it grey", **wrong)


@pytest.mark.parametrize("tokenizer", ["mnist-uni-tokenizer", "/somewhere/run/tokenizer"])
def test_a_tokenizer_without_a_shipped_painter_is_told_so(tokenizer):
    info = {"tokenizer": tokenizer, "tokenizer_sha256": "0" * 64}
    for name in ("flow", "turbo"):
        with pytest.raises(ValueError, match=f"no shipped painter for the codes of {tokenizer};"):
            load_painter(name, info)


def test_a_model_that_names_no_tokenizer_is_told_so(uni):
    nameless = minillada.Uni(uni.backbone, uni.tokenizer, uni.vocab)
    codes = torch.zeros(1, 4, 4, dtype=torch.long)
    for painter in ("flow", "mnist-painter"):
        with pytest.raises(ValueError, match="codes of an unknown tokenizer|those of an unknown"):
            nameless.paint(codes, painter)


def test_a_path_is_no_shipped_painter(uni, tmp_path, monkeypatch):
    """As in `load`: a name is a string, and a `Path` is a folder or a file."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no weights at .*/flow/weights.safetensors"):
        uni.paint(torch.zeros(1, 4, 4, dtype=torch.long), Path("flow"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_default_type_and_device_of_the_user_change_nothing(uni, dtype):
    def pictures():
        settings = dict(seed=1, steps=2, painter_steps=2)
        return [uni.draw(["a two"], painter=name, **settings) for name in ("flow", "turbo")]

    plain = pictures()
    described = uni.describe(plain[0])
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):  # stands for any other device than the model's
            assert all(map(torch.equal, pictures(), plain))
            assert uni.describe(plain[0]) == described
            assert uni.infill("a ___ two", plain[0])
    finally:
        torch.set_default_dtype(torch.float32)

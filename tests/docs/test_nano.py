"""`docs/nano.py` computes what the package computes: losses, gradients, drawings and captions."""

import copy

import pytest
import torch
from helpers import script

import minillada
from minillada.datasets.pool import stored_pool
from minillada.datasets.table import MNIST
from minillada.diffusion import masked_cross_entropy
from minillada.extras.transfer import start_image_rows
from minillada.masks import block_diffusion_mask
from minillada.objectives import View, weigh_bound
from minillada.presets import get_preset
from minillada.training.stream import mixture_batches

nano = script("docs/nano.py")


@pytest.fixture(scope="module")
def uni():
    return minillada.load("mnist")


@pytest.fixture(scope="module")
def model():
    return nano.load()


@pytest.mark.parametrize("size", [1, 4, 12])
def test_the_training_mask_is_that_of_the_package(size):
    places = torch.arange(12)
    assert torch.equal(nano.training_mask(12, size), block_diffusion_mask(places, places, size))


@pytest.mark.parametrize("size", [4, 16])
def test_loss_and_gradient_are_those_of_the_package(uni, model, size):
    pool, preset = stored_pool(MNIST, "train"), get_preset("mnist")
    for batch in mixture_batches(uni.tokenizer, uni.vocab, pool, preset, step=0):
        batch = batch._replace(**{name: getattr(batch, name)[:3] for name in ("ids", "targets")})
        torch.manual_seed(0)
        masked, t = nano.hide(batch.targets, size)
        view = View(batch.ids.masked_fill(masked, uni.vocab.mask_id), masked, t[:, ::size])
        nats = masked_cross_entropy(uni.backbone, batch, view, size)
        theirs = weigh_bound(nats, view, batch.targets)
        ours = nano.loss(model, batch.ids, batch.targets, masked, t, size, uni.vocab.mask_id)
        torch.testing.assert_close(ours, theirs)

        weights = dict(model.named_parameters())
        grads = torch.autograd.grad(ours, list(weights.values()), allow_unused=True)
        package = dict(uni.backbone.named_parameters())
        expected = torch.autograd.grad(theirs, [package[name] for name in weights])
        for name, mine, right in zip(weights, grads, expected):
            torch.testing.assert_close(mine, right, rtol=1e-3, atol=1e-5, msg=name)


def test_each_block_is_hidden_with_its_own_probability():
    torch.manual_seed(0)
    targets = torch.ones(200, 2000, dtype=torch.bool)
    targets[:, :10] = False
    masked, t = nano.hide(targets, 1000, low=0.5)
    blocks = t.view(200, 2, 1000)
    assert (blocks == blocks[..., :1]).all() and 0.5 <= t.min() < 0.52 and 0.98 < t.max() < 1
    assert not masked[:, :10].any()
    shares = masked.view(200, 2, 1000)[:, 1].float().mean(-1)  # the standard error is at most 0.016
    torch.testing.assert_close(shares, blocks[:, 1, 0], rtol=0, atol=0.07)


def test_image_rows_start_as_in_the_package(uni):
    names = "model.word_embeddings.weight", "lm_head.weight"
    package, ours = copy.deepcopy(uni.backbone), nano.load()
    for start, model in ((start_image_rows, package), (nano.start_image_rows, ours)):
        torch.manual_seed(0)
        start(model, uni.tokenizer.embedding, uni.vocab.image_token_offset)
    for name in names:
        assert torch.equal(ours.state_dict()[name], package.state_dict()[name])
        assert not torch.equal(ours.state_dict()[name], uni.backbone.state_dict()[name])


@pytest.mark.parametrize("caption", ["three", "a thick seven leaning right"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"guidance": 2.5, "steps": 5},
        {"guidance": 1.0, "threshold": 0.5},
        {"temperature": 0.0, "steps": 16},
    ],
)
def test_drawings_are_those_of_the_package(uni, model, caption, settings):
    expected = uni.draw_traced([caption] * 3, seed=4, **settings).codes
    codes = nano.draw(model, nano.Words(), caption, seed=4, count=3, **settings)
    assert torch.equal(codes, expected)


def test_captions_are_those_of_the_package(uni, model):
    codes = uni.draw_traced(["a thick seven leaning right", "a thin two", "eight"]).codes
    assert [nano.describe(model, nano.Words(), grid) for grid in codes] == uni.describe_codes(codes)


@pytest.mark.parametrize("arguments", [["a thin two"], ["--train", "2"]])
def test_the_script_saves_a_picture(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    nano.main(arguments)
    assert (tmp_path / "outputs" / "nano.png").stat().st_size > 1000
    said = capsys.readouterr().out
    assert ("the first one is a thin two" in said) == (arguments == ["a thin two"])

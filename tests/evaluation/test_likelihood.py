"""Bits per token against their definition, and the order of checkpoints."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers import generator, real_images, tiny_uni

from minillada import batching, layout
from minillada.datasets import captions, mnist
from minillada.datasets.images import Images
from minillada.datasets.table import CIFAR10, MNIST
from minillada.diffusion import nll_bound
from minillada.evaluation import likelihood
from minillada.measure.intervals import Interval, mean_interval, student_t
from minillada.presets import PRESETS
from minillada.settings import changed, to_dict


@pytest.mark.parametrize("block_size", [1, 16])
def test_bits_per_token_by_hand(block_size):
    """Nats of the whole response, padding included, over its real tokens."""
    uni, images = tiny_uni(block_size=block_size), real_images(6)
    codes = uni.encode(images.floats())
    texts = captions.describe_pixels(images.floats(), images.labels)
    texts[:2] = ["a one", "a thick seven leaning right"]  # lengths differ
    report = likelihood.likelihood(uni.backbone, uni.vocab, codes, texts, samples=3, seed=4)
    assert report.keys() == {"draw", "describe"}
    for task in report:
        if task == "draw":
            sequences = [
                layout.draw_sequence(uni.vocab, t, c) for t, c in zip(texts, codes, strict=True)
            ]
        else:
            sequences = [
                layout.describe_sequence(uni.vocab, c, t) for t, c in zip(texts, codes, strict=True)
            ]
        batch = batching.collate(sequences, uni.vocab, 16)
        source = generator(4)
        draws = [
            nll_bound(uni.backbone, batch, block_size, uni.vocab.mask_id, source) for _ in range(3)
        ]
        # At block size 1 the number is exact, and one sample is enough.
        nats = draws[0] if block_size == 1 else sum(draws) / 3
        lengths = torch.tensor([len(s.ids) - s.prompt_length for s in sequences])
        bits = nats / math.log(2) / lengths
        mean = float(bits.mean())
        half = math.sqrt(float(((bits - mean) ** 2).sum()) / 5 / 6) * student_t(5)
        assert report[task] == pytest.approx((mean, mean - half, mean + half, 6), rel=1e-4)


def test_spread_samples_are_taken_together():
    uni, codes = tiny_uni(), torch.randint(16, (4, 4, 4), generator=generator())
    texts, share = ["a one", "a thin two"] * 2, (uni.backbone, uni.vocab)
    bits = likelihood.bits_per_image(*share, codes, texts, 3, 7, spread=True)
    sequences = [layout.draw_sequence(uni.vocab, t, c) for t, c in zip(texts, codes, strict=True)]
    batch = batching.collate(sequences, uni.vocab, 16)
    nats = nll_bound(uni.backbone, batch, 16, uni.vocab.mask_id, generator(7), samples=3)
    torch.testing.assert_close(bits["draw"], nats / math.log(2) / batch.real.sum(1))
    means = likelihood.likelihood(*share, codes, texts, 3, 7, spread=True)
    assert means["draw"].value == pytest.approx(float(bits["draw"].mean()))


def test_images_are_measured_in_batches(monkeypatch):
    uni, codes = tiny_uni(block_size=1), torch.randint(16, (5, 4, 4), generator=generator())
    texts = ["a one", "a thin two", "a seven", "a thick seven leaning right", "a two"]

    def bits():
        return likelihood.bits_per_image(uni.backbone, uni.vocab, codes, texts, 1, 0)

    whole = bits()
    monkeypatch.setattr(likelihood, "BATCH_SIZE", 2)
    for task, values in bits().items():
        torch.testing.assert_close(values, whole[task])


def test_both_tasks_of_an_image_are_averaged_before_the_interval():
    bits = {"draw": torch.tensor([1.0, 2.0, 6.0]), "describe": torch.tensor([9.0, 8.0, 4.0])}
    found = likelihood.entries(bits, "_new")
    assert found["bits_per_token_new"] == 5 and found["bits_per_token_new_n"] == 3
    assert found["bits_per_token_new_low"] == found["bits_per_token_new_high"] == 5
    for name, task in (("image", "draw"), ("text", "describe")):
        name, wanted = f"bits_per_{name}_token_new", mean_interval(bits[task])
        assert {key: found[key] for key in found if name in key} == wanted.entries(name)


def test_a_model_is_measured_at_another_block_size_than_its_own():
    """The same weights with another `block_size` in their configuration give the same numbers."""
    uni, images = tiny_uni(block_size=16), real_images(4)
    codes = uni.encode(images.floats())
    texts = captions.describe_pixels(images.floats(), images.labels)

    def bits(backbone, **more):
        return likelihood.bits_per_image(backbone, uni.vocab, codes, texts, 2, 0, **more)

    own, asked = bits(uni.backbone), bits(uni.backbone, block_size=4)
    uni.backbone.config = changed(uni.backbone.config, block_size=4)
    as_own = bits(uni.backbone)
    for task in own:
        assert torch.equal(asked[task], as_own[task]) and not torch.equal(asked[task], own[task])


@pytest.mark.parametrize("block", [5, 7, 10, 24])
def test_every_block_size_can_be_measured(block):
    """Sequences are padded to whole blocks, whether or not these divide the usual length."""
    uni, codes = tiny_uni(), torch.zeros(2, 4, 4, dtype=torch.long)
    texts = ["a one"] * 2
    bits = likelihood.bits_per_image(uni.backbone, uni.vocab, codes, texts, 1, 0, block_size=block)
    assert all(values.isfinite().all() for values in bits.values())


def test_no_mask_sample_is_refused():
    uni = tiny_uni()
    codes = torch.zeros(2, 4, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="0 mask samples measure nothing"):
        likelihood.bits_per_image(uni.backbone, uni.vocab, codes, ["a one"] * 2, 0, 0)


@pytest.mark.parametrize(
    ("training", "share"),
    [
        ({}, 0.5),
        ({"draw_share": 1.0}, 1.0),
        ({"draw_share": 0.5, "mixture": []}, 0.5),
        ({"draw_share": 0.5, "mixture": [["draw", 3.0], ["describe", 1.0], ["digit", 9]]}, 0.75),
        (to_dict(PRESETS["mnist-cpu"].training), 1.0),
        (to_dict(PRESETS["mnist"].training), 0.5),
        ({"data": {"mixture": [["digit", 1.0]]}}, 0.5),
    ],
)
def test_share_of_drawing_in_old_and_new_records(training, share):
    assert likelihood.trained_share(training) == share


@pytest.mark.parametrize(
    ("share", "order"),
    [(1.0, [("a", 2.0), ("b", 3.0), ("c", 4.0)]), (0.5, [("b", 2.0), ("c", 2.5), ("a", 5.5)])],
)
def test_checkpoints_are_ranked_by_the_tasks_they_were_trained_on(monkeypatch, share, order):
    bits = {"a": (2.0, 9.0), "b": (3.0, 1.0), "c": (4.0, 1.0)}  # drawing, describing
    mixture = [["draw", share], ["describe", 1 - share]]
    info = {"training": {"data": {"mixture": mixture}}}

    def load(path, device):
        return SimpleNamespace(backbone=path, vocab=None, encode=lambda x: x, info=info)

    def measured(name, *rest, **named):
        assert rest[-2:] == (3, 5) and named == {"spread": True}, "the same masks for all"
        draw, describe = bits[name]
        return {"draw": Interval(draw, 0, 9), "describe": Interval(describe, 0, 9)}

    monkeypatch.setattr(likelihood, "load", load)
    monkeypatch.setattr(likelihood, "likelihood", measured)
    assert likelihood.rank_checkpoints(["c", "a", "b"], None, [], "cpu", 3, 5) == order


def test_validation_images_are_those_of_the_data_set():
    pixels = torch.randint(0, 256, (8005, 3, 32, 32), dtype=torch.uint8)
    photos = Images(pixels, torch.arange(8005) % 10)
    images, texts = likelihood.validation_images(2, replace(CIFAR10, load=lambda split: photos))
    assert torch.equal(images, photos.floats(slice(8000, 8002)))
    assert "airplane" in texts[0] and "automobile" in texts[1]


def test_no_image_behind_the_validation_images_is_taken(monkeypatch):
    monkeypatch.setattr(likelihood, "VALIDATION", slice(1, 4))
    images, texts = likelihood.validation_images(
        5, replace(MNIST, load=lambda split: real_images(6))
    )
    assert torch.equal(images, real_images(6).floats(slice(1, 4))) and len(texts) == 3


@pytest.mark.parametrize(("count", "first"), [(2, 4), (6, 0), (9, 0)])
def test_a_small_test_set_gives_its_last_images(count, first):
    images, texts = likelihood.validation_images(
        count, replace(MNIST, load=lambda split: real_images(6))
    )
    assert torch.equal(images, real_images(6).floats(slice(first, 6))) and len(texts) == 6 - first


def test_validation_images_are_no_reported_ones():
    images, texts = likelihood.validation_images(3)
    test = mnist.load_mnist("test")
    assert torch.equal(images, test.floats(slice(8000, 8003)))
    assert likelihood.VALIDATION.start >= 2000, "the first 2,000 are reported"
    assert texts == captions.describe_pixels(images, test.labels[8000:8003])

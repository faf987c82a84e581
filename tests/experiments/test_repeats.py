"""The recipes of `repeats` differ in their blocks alone, and its bits are those of the package."""

import pytest
import torch

from minillada import batching
from minillada.datasets import mnist
from minillada.evaluation import likelihood
from minillada.experiments import repeats
from minillada.experiments.results import load_result
from minillada.settings import plain_fields
from minillada.uni import load


def test_recipes_differ_in_blocks_masks_and_length():
    one, *others = [plain_fields(repeats.recipe(size, 0, 128, 40)) for size in repeats.EPOCHS]
    for other in others:
        assert {key for key in one if one[key] != other[key]} == {"block_size", "mask_rate"}


@pytest.mark.parametrize(("name", "samples"), [("mnist-ar", 1), ("mnist", 2)])
def test_bits_are_those_of_likelihood(name, samples):
    uni = load(name)
    images, texts = likelihood.captioned(mnist.load_mnist("test"), slice(0, 8))
    batch = batching.collate(repeats.sequences(uni, "test", 8), uni.vocab, 16)
    found = repeats.bits(uni.backbone, uni.vocab, batch, samples)
    codes = uni.encode(images)
    wanted = likelihood.bits_per_image(uni.backbone, uni.vocab, codes, texts, samples, 0, True)
    assert found == pytest.approx(float(wanted["draw"].mean()), abs=1e-4)


def test_curves_are_as_long_as_their_epochs():
    stored = load_result("repeats")
    for name, run in stored["few"].items():
        size = int(name.removeprefix("block ").split(",")[0])
        assert tuple(run["epochs"]) == repeats.EPOCHS[size]
        assert len(run["bits"]) == len(run["trained_bits"]) == len(run["epochs"])
    assert torch.tensor([run["parameters"] for run in stored["few"].values()]).unique().numel() == 1

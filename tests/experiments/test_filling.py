"""Autoregression fills in from what is before; 16 fillings are chosen by what the model says."""

import pytest
import torch

import minillada
from minillada import batching, diffusion, layout
from minillada.datasets.mnist import load_mnist
from minillada.experiments import filling
from minillada.experiments.results import load_result
from minillada.tasks.filling import hole

UPPER = hole("upper half", 4, 4)


@pytest.fixture(scope="module")
def ar():
    return minillada.load("mnist-ar")


@pytest.fixture(scope="module")
def codes(ar):
    return ar.encode(load_mnist("test").floats(slice(0, 3)))


def test_autoregression_does_not_see_what_comes_after_the_hole(ar, codes):
    others = torch.where(UPPER, codes, codes.flip(0))  # other lower halves
    filled = [ar.inpaint_traced(given, UPPER, seed=1).codes for given in (codes, others)]
    assert torch.equal(filled[0][:, UPPER], filled[1][:, UPPER])


def test_nats_of_codes_are_those_of_the_bound_without_the_end(ar, codes):
    nats = filling.nats_of_codes(ar, codes)
    sequences = [layout.draw_sequence(ar.vocab, None, grid) for grid in codes]
    batch = batching.collate(sequences, ar.vocab, 1)
    only_codes = batch.targets & ar.vocab.is_image()[batch.ids]
    mask, source = ar.vocab.mask_id, torch.Generator()
    bound = diffusion.nll_bound(ar.backbone, batch._replace(targets=only_codes), 1, mask, source)
    assert nats.shape == (3, 16)
    torch.testing.assert_close(nats.sum(1), bound)


def test_the_best_filling_is_the_likeliest_of_its_image(ar, codes):
    chosen = filling.rerank(ar, codes, UPPER, 4)["mnist-ar, best of 4"]
    assert torch.equal(chosen[:, ~UPPER], codes[:, ~UPPER])
    tries = ar.inpaint_traced(codes.repeat_interleave(4, 0), UPPER, seed=1).codes
    nats = filling.nats_of_codes(ar, tries).sum(1).view(3, 4)
    least = filling.nats_of_codes(ar, chosen).sum(1)
    torch.testing.assert_close(least, nats.amin(1))


def test_every_pass_of_one_image_is_counted(ar, codes):
    with filling.counting(ar.backbone) as cost:
        ar.inpaint_traced(codes[:1], UPPER, seed=1)
    # A pass for each hidden code; the prompt of 21 and seven codes are read once, 8 masks besides.
    assert cost == {"passes": 8, "positions": 21 + 7 + 8}
    assert "hidden_states" not in vars(ar.backbone)


def test_what_is_stored_fits_together():
    for part in load_result("filling")["without a caption"].values():
        one, best = part["mnist-ar, what is before"], part["mnist-ar, best of 16"]
        assert best["passes"] == one["passes"] + 1
        assert part["kept"]["digit"] >= max(way["digit"] for way in part.values())

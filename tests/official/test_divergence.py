"""Where two models part, on changes whose size is known."""

import copy

import pytest
import torch
from helpers import random_ids

from minillada.model import Backbone
from minillada.official.divergence import divergences, first_divergence
from minillada.official.sizes import TINY


@pytest.fixture
def pair():
    """A small backbone, its copy, and ids for both."""
    first = Backbone(TINY.backbone).requires_grad_(False).eval()
    first.lm_head.weight *= 1e-3  # small outputs count as much as large ones
    return first, copy.deepcopy(first), random_ids(2, 6, 500)


def test_a_difference_is_a_share_of_the_largest_output(pair):
    first, other, ids = pair
    other.lm_head.weight *= 1.5
    shares = divergences(first, other, ids)
    assert shares.pop("lm_head") == pytest.approx(0.5) and set(shares.values()) == {0}
    assert not any(module._forward_hooks for module in first.modules())  # nothing listens on


def test_what_is_tolerated(pair):
    first, other, ids = pair
    other.lm_head.weight *= 1 + 5e-4
    assert first_divergence(first, other, ids) == "lm_head"
    assert first_divergence(first, other, ids, tolerance=1e-3) is None


def test_no_numbers_are_infinitely_far(pair):
    first, other, ids = pair
    other.lm_head.weight[3] = torch.nan
    assert divergences(first, other, ids)["lm_head"] == float("inf")
    assert first_divergence(first, other, ids) == "lm_head"

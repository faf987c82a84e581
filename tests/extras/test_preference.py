"""DPO: its bound is that of the training loss, and its gradient has the right direction."""

import math

import torch
from helpers import MASK, generator, random_ids, tiny_backbone

from minillada.batching import Batch
from minillada.config import ObjectiveConfig
from minillada.diffusion import masked_cross_entropy, sample_view
from minillada.extras.preference import bound, preference_loss
from minillada.objectives import weigh_bound


def test_the_loss_compares_bounds_and_its_gradient_prefers_the_better_answer():
    model, frozen = tiny_backbone(0, block_size=4), tiny_backbone(0, block_size=4)
    every = torch.ones(2, 8, dtype=torch.bool)
    pair = [Batch(random_ids(2, 8, seed=seed), every, every) for seed in (1, 2)]
    view = sample_view(pair[0], 4, MASK, ObjectiveConfig(), generator())
    nats = masked_cross_entropy(model, pair[0], view, 4)
    assert torch.isclose(-bound(model, pair[0], view).mean() / 8, weigh_bound(nats, view, every))
    losses = []
    for step in range(4):
        loss = preference_loss(model, frozen, *pair, MASK, generator(step))
        loss.backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight -= 0.02 * weight.grad
                weight.grad = None
        losses.append(float(loss.detach()))
    # Its own copy prefers nothing, whatever is masked; then the loss falls.
    assert math.isclose(losses[0], math.log(2), rel_tol=1e-5) and losses[-1] < 0.5 * losses[0]
    assert all(weight.grad is None for weight in frozen.parameters())

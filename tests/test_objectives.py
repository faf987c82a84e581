"""Every objective against its formula in loops, on random nats; views that cover every target."""

import pytest
import torch
from helpers import MASK, few, generator, random_ids
from hypothesis import given
from hypothesis import strategies as st
from reference import row_total, token_weight
from torch.distributions import Categorical

from minillada.objectives import OBJECTIVES, View, hide, right_entropy, with_inverses


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
@few
@given(
    size=st.integers(1, 4),
    blocks=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_an_objective_is_one_fraction(objective, size, blocks, seed):
    source, shape = generator(seed), (3, size * blocks)
    targets = torch.rand(shape, generator=source) < 0.8
    masked = targets & (torch.rand(shape, generator=source) < 0.6)
    if not masked.any():
        return
    view = View(masked.long(), masked, 0.1 + 0.9 * torch.rand(3, blocks, generator=source))
    nats = torch.rand(int(masked.sum()), generator=source)
    numerator = denominator = 0.0
    for row in range(3):
        denominator += row_total(objective, int(targets[row].sum()), int(masked[row].sum()))
    for (row, place), cost in zip(masked.nonzero().tolist(), nats.tolist()):
        here = slice(place // size * size, place // size * size + size)
        m, n = int(targets[row, here].sum()), int(masked[row, here].sum())
        rate = float(view.rates[row, place // size])
        numerator += cost * token_weight(objective, rate, m, n, int(masked[row].sum()))
    loss = OBJECTIVES[objective](nats, view, targets)
    assert float(loss) == pytest.approx(numerator / denominator, rel=1e-4)


def test_count_is_the_mean_of_the_weight_of_bound_given_the_mask():
    """E[1/t | n of m masked] = (m + 1) / n for t uniform on [0, 1], by brute force over t."""
    t = (torch.arange(200_000, dtype=torch.double) + 0.5) / 200_000
    for m, n in ((1, 1), (4, 1), (4, 3), (16, 7)):
        likelihood = t**n * (1 - t) ** (m - n)
        masked = (torch.arange(m) < n)[None]
        view = View(masked.long(), masked, torch.ones(1, 1))
        first = (torch.arange(n) == 0).float()  # one masked token has 1 nat, the others none
        weight = m * OBJECTIVES["count"](first, view, torch.ones_like(masked))
        mean = float((likelihood / t).sum() / likelihood.sum())
        assert float(weight) == pytest.approx(mean, rel=1e-4)


def test_hidden_tokens_are_those_named_and_the_rate_is_their_share():
    ids, masked = random_ids(2, 6), torch.tensor([[1, 1, 0, 0, 0, 1], [0] * 6]).bool()
    view = hide(ids, masked, 3, MASK)
    assert torch.equal(view.noisy == MASK, masked) and torch.equal(view.masked, masked)
    assert torch.equal(view.noisy[~masked], ids[~masked])
    assert torch.allclose(view.rates, torch.tensor([[2 / 3, 1 / 3], [0, 0]]))


def test_a_copy_and_its_inverse_mask_every_target_once():
    ids = random_ids(3, 8)
    targets = torch.arange(8).expand(3, -1) >= 2
    view = hide(ids, targets & (ids % 2 > 0), 4, MASK)
    both = with_inverses(view, ids, targets, MASK)
    assert torch.equal(both.masked[::2], view.masked) and torch.equal(both.noisy[::2], view.noisy)
    assert torch.equal(both.masked[::2].int() + both.masked[1::2].int(), targets.int())
    assert torch.equal(both.noisy == MASK, both.masked)
    assert torch.allclose(both.rates[::2] + both.rates[1::2], torch.ones(3, 2))
    assert torch.equal(both.repeat(ids), ids.repeat_interleave(2, 0))


def test_right_entropy_leaves_wrong_predictions_alone():
    logits = torch.randn(20, 5, generator=generator()).requires_grad_()
    best = logits.argmax(-1)
    answers = torch.where(torch.arange(20) % 3 == 0, best, (best + 1) % 5)  # every third is right
    entropy = right_entropy(logits, answers)
    expected = Categorical(logits=logits[::3]).entropy().mean()
    assert torch.allclose(entropy, expected)
    fast, slow = (torch.autograd.grad(value, logits)[0] for value in (entropy, expected))
    assert slow[::3].abs().sum() > 0 and torch.allclose(fast, slow, atol=1e-6)
    assert float(right_entropy(logits[1:2].detach(), answers[1:2])) == 0

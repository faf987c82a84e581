"""Which tokens are chosen and kept: by hand, against loops, and sampled ones by their frequency."""

import math

import pytest
import reference
import torch
from helpers import generator, many
from hypothesis import given
from hypothesis import strategies as st

from minillada.commit import (
    Tokens,
    choose_commits,
    choose_edits,
    choose_tokens,
    commit_score,
    exponential_noise,
    filter_logits,
    quota,
    spread,
)
from minillada.config import SamplingConfig

# --- quota and commit rule -----------------------------------------------------------------------


@many
@given(block=st.integers(1, 64), steps=st.integers(1, 80))
def test_quotas_sum_to_the_block_and_the_first_steps_take_the_remainder(block, steps):
    quotas = [quota(block, steps, s) for s in range(steps)]
    assert sum(quotas) == block
    assert quotas == sorted(quotas, reverse=True)
    assert max(quotas) - min(quotas) <= 1


def test_quota_schedule_by_hand():
    assert [quota(16, 5, s) for s in range(5)] == [4, 3, 3, 3, 3]
    assert [quota(32, 32, s) for s in range(32)] == [1] * 32
    assert [quota(3, 5, s) for s in range(5)] == [1, 1, 1, 0, 0]


def commits(confidence, eligible, count, threshold):
    allowed = torch.tensor([eligible], dtype=torch.bool)
    chosen = choose_commits(torch.tensor([confidence]), allowed, count, threshold)
    return chosen[0].int().tolist()


def test_commit_rule_by_hand():
    some = [0.3, 0.99, 0.5, 0.97]
    everyone = [1, 1, 1, 1]
    # Two are above the threshold: with a quota of 1 or 2 all of them, not only the quota.
    assert commits(some, everyone, 1, 0.95) == [0, 1, 0, 1]
    assert commits(some, everyone, 2, 0.95) == [0, 1, 0, 1]
    # A quota of 3 is more than the threshold gives: the three most confident.
    assert commits(some, everyone, 3, 0.95) == [0, 1, 1, 1]
    # Nobody is confident enough: the quota alone.
    assert commits(some, everyone, 1, 0.999) == [0, 1, 0, 0]
    # What is not masked any more is never chosen, and does not count towards the quota.
    assert commits(some, [1, 0, 1, 1], 1, 0.95) == [0, 0, 0, 1]
    assert commits(some, [1, 0, 1, 1], 2, 0.95) == [0, 0, 1, 1]
    # Fewer left than the quota: all of them.
    assert commits(some, [1, 0, 0, 0], 3, 0.95) == [1, 0, 0, 0]
    assert commits(some, [0, 0, 0, 0], 2, 0.95) == [0, 0, 0, 0]
    # A quota of 0 waits unless somebody is confident.
    assert commits(some, everyone, 0, 0.999) == [0, 0, 0, 0]
    assert commits(some, everyone, 0, 0.98) == [0, 1, 0, 0]


def test_commit_rule_ties_and_edges_by_hand():
    everyone = [1, 1, 1, 1]
    assert commits([0.5, 0.5, 0.5, 0.5], everyone, 2, 0.9) == [1, 1, 0, 0]  # ties: left to right
    assert commits([0.5, 0.5, 0.5, 0.5], [0, 1, 1, 1], 2, 0.9) == [0, 1, 1, 0]
    assert commits([0.5, 0.7], [1, 1], 1, 0.5) == [0, 1]  # the threshold is not above itself
    assert commits([1.0, 1.0], [1, 1], 1, 1.0) == [1, 0]  # threshold 1 is never exceeded
    assert commits([0.0, 0.1], [1, 1], 1, 0.0) == [0, 1]
    assert commits([0.0, 0.0], [0, 1], 1, 0.5) == [0, 1]  # 0 still beats "not eligible"


@many
@given(
    data=st.data(),
    n=st.integers(1, 8),
    count=st.integers(0, 9),
    threshold=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)
def test_commit_rule_is_the_loop(data, n, count, threshold):
    one_value = st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.75, 1.0])
    values = [data.draw(st.lists(one_value, min_size=n, max_size=n)) for _ in range(3)]
    free = [data.draw(st.lists(st.booleans(), min_size=n, max_size=n)) for _ in range(3)]
    chosen = choose_commits(torch.tensor(values), torch.tensor(free), count, threshold)
    for row in range(3):
        expected = reference.commits(values[row], free[row], count, threshold)
        assert set(chosen[row].nonzero().flatten().tolist()) == expected


# --- strategies ----------------------------------------------------------------------------------


def test_commit_scores_by_hand():
    logits = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.5, 1e-9], [0.9, 0.05, 0.05]]).log()
    where = torch.tensor([[False, True, True, False, True]])  # three positions of five
    confidence = spread(logits.exp().amax(-1), where)

    def score(strategy, generators=()):
        return commit_score(strategy, logits, confidence, generators, where)

    assert torch.equal(score("low_confidence"), confidence)
    margin = torch.tensor([[0, 0.3, 0.0, 0, 0.85]])
    assert torch.allclose(score("top_k_margin"), margin, atol=1e-5)
    entropy = []
    for row in logits.exp().tolist():
        entropy.append(-sum(p * math.log(p) for p in row if p > 1e-8))
    expected = spread(-torch.tensor(entropy), where)
    assert torch.allclose(score("neg_entropy"), expected, atol=1e-5)
    assert score("left_to_right").tolist() == [[0, -1, -2, -3, -4]]
    one, same, other = (score("random", [generator(seed)]) for seed in (1, 1, 2))
    assert one.shape == (1, 5) and torch.equal(one, same) and not torch.equal(one, other)


def test_the_strategy_ranks_and_the_threshold_looks_at_the_confidence():
    confidence, margin = torch.tensor([[0.6, 0.5, 0.9]]), torch.tensor([[0.3, 0.0, 0.85]])
    everyone = torch.ones(1, 3, dtype=torch.bool)
    kept = choose_commits(confidence, everyone, 1, 0.55, margin)
    assert kept.tolist() == [[True, False, True]]
    kept = choose_commits(confidence, everyone, torch.tensor([[2]]), 0.95, margin)
    assert kept.tolist() == [[True, False, True]]


def test_a_strategy_never_holds_back_what_is_confident():
    """As in the released SPRINT: the best by score, and all above the threshold."""
    confidence, score = torch.tensor([[0.99, 0.5, 0.6, 0.7]]), torch.tensor([[0.1, 0.4, 0.3, 0.2]])
    everyone = torch.ones(1, 4, dtype=torch.bool)
    for count, kept in ((0, [1, 0, 0, 0]), (1, [1, 1, 0, 0]), (2, [1, 1, 1, 0])):
        chosen = choose_commits(confidence, everyone, count, 0.95, score)
        assert chosen[0].int().tolist() == kept


# --- edits ---------------------------------------------------------------------------------------


def test_edits_by_hand():
    rows = [[0.1, 0.6, 0.3], [0.1, 0.6, 0.3], [0.8, 0.1, 0.1], [0.0, 0.45, 0.55]]
    logits = torch.tensor([rows]).log()
    ids, editable = torch.tensor([[1, 2, 1, 0]]), torch.tensor([[True, True, False, True]])

    def edited(threshold):
        tokens, confidence, edit = choose_edits(logits, ids, editable, threshold)
        assert tokens.tolist() == [[1, 1, 0, 2]]
        assert torch.allclose(confidence, torch.tensor([[0.6, 0.6, 0.8, 0.55]]))
        return edit[0].int().tolist()

    # The first says the likeliest token already, the third may not be touched.
    assert edited(0.0) == edited(0.5) == [0, 1, 0, 1]
    assert edited(0.58) == [0, 1, 0, 0]
    assert edited(1.0) == [0, 0, 0, 0]
    # A threshold is not above itself, so at 1 a sure token stays, too.
    for logits, threshold in (([0.0, 0.0], 0.5), ([0.0, -math.inf], 1.0)):
        edit = choose_edits(torch.tensor([logits]), torch.ones(1), torch.tensor([True]), threshold)
        assert edit[1] == threshold and not edit[2]


def test_ids_that_may_not_be_written_have_no_probability():
    some = torch.tensor([True, False, True, True, False])
    for allowed, kept in ((None, [0, 1, 2, 4]), (some, [0, 2])):
        logits = Tokens(3, allowed=allowed).restrict(torch.zeros(2, 3, 5))
        assert logits.softmax(-1)[1, 2].nonzero().flatten().tolist() == kept
        assert (logits.isfinite() == logits[0, 0].isfinite()).all()


# --- choice of tokens ----------------------------------------------------------------------------


@many
@given(data=st.data(), k=st.none() | st.integers(1, 9), p=st.none() | st.floats(0.05, 1.0))
def test_filters_are_the_loop(data, k, p):
    size = 7
    whole = st.lists(st.integers(-40, 40), min_size=size, max_size=size, unique=True)
    values = [x / 10 for x in data.draw(whole)]
    order = sorted(range(size), key=lambda i: -values[i])
    kept = order[: k or size]  # top-k first, then top-p among the survivors
    if p is not None and p < 1:
        weights = {i: math.exp(values[i]) for i in kept}
        total, mass, nucleus = sum(weights.values()), 0.0, []
        for i in kept:
            if abs(mass / total - p) < 1e-5:
                return  # on the edge rounding decides
            if mass / total >= p:
                break
            nucleus.append(i)
            mass += weights[i]
        kept = nucleus
    result = filter_logits(torch.tensor(values), k, p)
    assert result.isfinite().nonzero().flatten().tolist() == sorted(kept)
    assert torch.equal(result[kept], torch.tensor(values)[kept])


def test_the_best_token_stays_however_small_top_p_is():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    kept = filter_logits(logits, top_k=None, top_p=1e-300)  # 0 in float32
    assert kept.isfinite().tolist() == [[False, True, False]]
    halves = filter_logits(torch.zeros(2), top_k=None, top_p=0.5)
    assert halves.isfinite().tolist() == [True, False], "the first holds 0.5 already"
    assert filter_logits(torch.tensor([40.0, 0.0]), None, 1.0).isfinite().all()


def test_filters_work_on_every_row_alone():
    logits = torch.tensor([[[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]]])
    one = filter_logits(logits, 1, None).isfinite()
    assert one.tolist() == [[[True, False, False], [False, True, False]]]
    most = filter_logits(logits, None, 0.8).isfinite()
    assert most.tolist() == [[[True, True, False], [False, True, True]]]
    assert torch.equal(filter_logits(logits, None, None), logits)


def test_temperature_zero_takes_the_most_likely_and_its_probability():
    config = SamplingConfig(temperature=0.0, top_k=2)
    logits = torch.randn(2, 9, generator=generator())
    where = torch.tensor([[False, True], [True, False]])
    tokens, confidence = choose_tokens(logits, config, (), where)
    assert torch.equal(tokens[where], logits.argmax(-1))
    assert torch.allclose(confidence[where], logits.softmax(-1).amax(-1))
    assert (tokens[~where] == 0).all() and (confidence[~where] == 0).all()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, None, None), (0.5, None, None), (2.0, 3, None), (0.5, None, 0.8)],
)
def test_tokens_are_sampled_with_their_probabilities(temperature, top_k, top_p):
    logits, samples = torch.tensor([2.0, 1.5, 0.0, -1.0, 1.0]), 20_000
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    where = torch.ones(1, samples, dtype=torch.bool)
    tokens, confidence = choose_tokens(logits.expand(samples, 5), config, [generator(3)], where)
    probabilities = filter_logits(logits / temperature, top_k, top_p).softmax(-1)
    assert torch.allclose(confidence, probabilities[tokens], atol=1e-6)
    possible = probabilities > 0
    counts = torch.bincount(tokens.flatten(), minlength=5).float()
    assert (counts[~possible] == 0).all()
    expected = samples * probabilities[possible]
    chi_square = float(((counts[possible] - expected) ** 2 / expected).sum())
    assert chi_square < 18.5  # the 0.1 % point with four degrees of freedom


def test_a_position_samples_the_same_whichever_others_are_asked():
    logits, config = torch.randn(2, 4, 9, generator=generator()), SamplingConfig(temperature=1.0)
    everywhere = torch.ones(2, 4, dtype=torch.bool)
    some = torch.tensor([[True, False, True, True], [False, False, True, False]])
    picked = []
    for where in (everywhere, some):
        rows = [generator(1), generator(2)]
        tokens, confidence = choose_tokens(logits[where], config, rows, where)
        score = commit_score("random", logits[where], confidence, rows, where)
        picked.append(torch.stack([tokens, confidence, score]))
    assert torch.equal(*(values[:, some] for values in picked))


def test_each_row_draws_from_its_own_generator():
    generators = [generator(1), generator(2), generator(3)]
    noise = exponential_noise(torch.Size([3, 4]), generators)
    for row, seed in enumerate((1, 2, 3)):
        assert torch.equal(noise[row], torch.empty(4).exponential_(generator=generator(seed)))
    # A row without a generator draws nothing.
    noise = exponential_noise(torch.Size([2, 4]), [None, generators[0]])
    assert (noise[0] == 1).all() and not (noise[1] == 1).any()

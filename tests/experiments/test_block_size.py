"""The recipes of the block sizes are as equal as notebook 16 says."""

import pytest

from minillada.ablation.plan import Trial
from minillada.ablation.statistics import work_of
from minillada.experiments import block_size as law
from minillada.experiments.results import load_result


def work(training):
    """Steps, and noisy sequences in each."""
    return work_of(Trial("", {}, 0, law.recipe(seed=0, **training)))


def test_autoregression_and_diffusion_predict_equally_many_tokens():
    low, high = law.recipe(4, seed=0).training.loss.mask_rate
    assert law.SHARE == pytest.approx((low + high) / 2)
    assert law.PRACTICE == pytest.approx(law.SHARE * law.STEPS, abs=0.5)
    assert law.SHARE * law.LONG == pytest.approx(law.STEPS, abs=0.5)
    alone = law.recipe(seed=0, **law.AUTOREGRESSION)
    assert alone.training.loss.mask_rate == (1.0, 1.0) and alone.training.steps == law.PRACTICE


def test_changes_do_the_work_of_the_plain_recipe():
    plain = law.LONG, law.BATCH
    for one in law.CLOSING:
        steps, sequences = work(one.settings["training"])
        if "start" in one.settings:
            before, rows = work(one.settings["start"])
            assert rows == sequences
            steps += before
        assert (steps, sequences) == plain, one.name


def test_the_mixture_is_one_model_for_all_sizes():
    trained = [one.settings["training"] for one in law.MIXTURE]
    assert all(training == law.MIXED for training in trained)
    assert {one.settings["measured"]["block_size"] for one in law.MIXTURE} == {1, *law.SIZES}


@pytest.mark.parametrize("size", law.CLOSED)
def test_quiet_mask_rates_are_those_with_the_least_noise(size):
    stored = load_result("block_size")["noise"]
    noise = {}
    for low, high in law.INTERVALS:
        noise[low, high] = stored[f"block {size}, {low} to {high}"]["noise"]
    assert min(noise, key=noise.__getitem__) == law.QUIET[size]

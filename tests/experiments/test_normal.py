"""The curves that notebook 07 holds a reader's own curve against."""

import pytest

from minillada.experiments import normal
from minillada.experiments.results import load_result
from minillada.presets import get_preset


def test_means_of_whole_windows():
    assert normal.means([1.0, 3.0, 5.0, 5.0, 9.0], 2) == [2.0, 5.0]


def test_five_seeds_are_stored_and_none_is_the_one_of_the_page():
    stored = load_result("normal")
    assert stored["preset"] == "mnist-cpu"
    assert len(stored["runs"]) == len(normal.SEEDS) == 5
    assert get_preset("mnist-cpu").training.seed not in normal.SEEDS


@pytest.mark.parametrize("curve", normal.CURVES)
def test_every_stored_curve_is_as_long_as_the_preset(curve):
    stored = load_result("normal")
    windows = get_preset("mnist-cpu").training.steps // stored["every"]
    assert {len(run[curve]) for run in stored["runs"].values()} == {windows}

"""Intervals against tables, against their definition, and against old reports."""

import json
import math

import pytest
import torch
from helpers import few
from hypothesis import given
from hypothesis import strategies as st

from minillada.files import WEIGHTS_DIR
from minillada.measure.intervals import (
    Interval,
    fraction,
    interval_of,
    mean_interval,
    next_interval,
    share,
    student_t,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (50, 100, 0.4038, 0.5962),
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (990, 1000, 0.9817, 0.9946),
    ],
)
def test_wilson_interval_of_the_tables(successes, n, low, high):
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-4)


@few
@given(n=st.integers(1, 20_000), part=st.floats(0, 1))
def test_both_ends_solve_the_equation_and_stay_in_the_unit_interval(n, part):
    successes = round(part * n)
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1 and low < high
    for end in (low, high):
        reach = 1.96 * math.sqrt(end * (1 - end) / n)
        assert abs(successes / n - end) == pytest.approx(reach, abs=1e-9)


def test_rounding_moves_no_end_past_the_share_itself():
    for n in range(1, 100):
        assert wilson(0, n)[0] == 0 and wilson(n, n)[1] == 1


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (5, 4), (-1, 4)])
def test_impossible_counts_are_refused(successes, n):
    for function in (wilson, share):
        with pytest.raises(ValueError, match="are no share"):
            function(successes, n)


def test_fraction_names_value_ends_and_count():
    report = fraction("hit", torch.tensor([True, False, True, True]))
    low, high = wilson(3, 4)
    assert report == {"hit": 0.75, "hit_low": low, "hit_high": high, "hit_n": 4}
    assert interval_of(report, "hit") == Interval(0.75, low, high, 4)
    assert share(3, 4).half == pytest.approx((high - low) / 2)
    assert fraction("hit", torch.tensor([[True, False], [True, True]])) == report
    assert interval_of(share(0, 4).entries("hit"), "hit") == share(0, 4)  # an end of 0 is an end
    assert interval_of({"hit": 1.0, "low": 0.0, "high": 2.0}, "hit") == Interval(1.0, 0.0, 2.0)


@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.706), (4, 2.776), (5, 2.571), (9, 2.262), (30, 2.042), (2000, 1.961)],
)
def test_students_quantiles_of_the_tables(freedom, value):
    assert student_t(freedom) == pytest.approx(value, rel=2e-3)


def test_mean_interval_by_hand():
    three = mean_interval(torch.tensor([1.0, 2.0, 3.0]))
    half = 4.303 / math.sqrt(3)
    assert three == pytest.approx((2.0, 2 - half, 2 + half, 3))
    assert three.half == pytest.approx(half)
    many = mean_interval(torch.arange(1000) % 2)  # whole numbers are accepted
    assert many.low == pytest.approx(0.5 - 1.962 * 0.50025 / math.sqrt(1000), abs=1e-4)
    with pytest.raises(ValueError, match="at least 2"):
        mean_interval(torch.tensor([1.0]))


def test_old_reports_get_both_ends():
    old_share = {"hit": 0.993, "hit_ci95": 0.0055, "hit_n": 1000}
    assert interval_of(old_share, "hit") == Interval(0.993, *wilson(993, 1000), 1000)
    assert interval_of(old_share, "hit").percent() == "99.30 % (98.6 to 99.7, n = 1,000)"
    old_score = {"accuracy": 1.0, "ci95": 0.004, "n": 500}
    assert interval_of(old_score, "accuracy") == share(500, 500)
    assert interval_of(old_score, "accuracy").percent(1) == "100.0 % (99.2 to 100.0, n = 500)"
    for hits, n, half in ((57, 100, 0.097), (2, 3, 0.533), (500, 500, 0.0)):  # rounded shares
        old_share = {"hit": round(hits / n, 4), "hit_ci95": half, "hit_n": n}
        assert interval_of(old_share, "hit") == share(hits, n)
    assert interval_of({"bits": 2.0, "bits_ci95": 0.5}, "bits") == Interval(2.0, 1.5, 2.5)
    assert interval_of({"bits": 2.0}, "bits") == Interval(2.0, 2.0, 2.0)


def test_a_count_alone_makes_no_share():
    """A distance stands beside the number of its pictures, and has no interval."""
    for distance in (0.9, 2.6):
        measured = interval_of({"frechet": distance, "frechet_n": 1000}, "frechet")
        assert measured == Interval(distance, distance, distance)


def test_the_shipped_records_can_be_read():
    metrics = json.loads((WEIGHTS_DIR / "mnist.json").read_text(encoding="utf-8"))["metrics"]
    scores = json.loads((WEIGHTS_DIR / "mnist-uni.json").read_text(encoding="utf-8"))["tasks"]
    shares = [interval_of(metrics, key) for key in metrics if key.endswith("_accuracy")]
    shares += [interval_of(score, "accuracy") for score in scores.values()]
    assert len(shares) > 20
    for one in shares:
        assert 0 <= one.low <= one.value <= one.high <= 1 and one.low < one.high


def test_the_next_value_lies_in_its_interval_as_often_as_promised():
    generator = torch.Generator().manual_seed(0)
    rounds, inside = 4000, 0
    for values in torch.randn(rounds, 6, generator=generator):
        _, low, high, n = next_interval(values[:5])
        assert n == 5
        inside += low <= float(values[5]) <= high
    assert abs(inside / rounds - 0.95) < 0.015


def test_the_next_value_scatters_more_than_the_mean():
    values = torch.tensor([1.0, 2.0, 4.0])
    mean, following = mean_interval(values), next_interval(values)
    # t s / √3 and t s √(1 + 1/3) differ by a factor of 2.
    assert following.half == pytest.approx(2 * mean.half)
    assert following.value == pytest.approx(mean.value)

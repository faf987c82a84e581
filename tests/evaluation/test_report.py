"""The tables of numbers: what is recorded reaches the bars, and is printed with both ends."""

import json

import pytest

from minillada.evaluation.report import MODEL_BARS, TASK_BARS, Bar, model_table, tasks_table
from minillada.evaluation.suite import SUITE
from minillada.files import WEIGHTS_DIR


def record(name: str) -> dict:
    return json.loads((WEIGHTS_DIR / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("bar", "text", "good", "bad"),
    [
        (Bar("", 0.985), "≥ 98.5 %", 0.985, 0.984),
        (Bar("", 22, unit="dB"), "≥ 22 dB", 24.7, 21.9),
        (Bar("", most=3, unit=""), "≤ 3", 3.0, 3.1),
    ],
)
def test_bars(bar, text, good, bad):
    assert str(bar) == text and bar.reached(good) and not bar.reached(bad)
    assert bar.reached(good - 1e-8) and bar.reached(good + 1e-8), "values go through float32"


def test_without_a_limit_a_number_is_reported():
    assert str(Bar("x")) == "reported" and Bar("x").reached(0)
    assert str(Bar("x", words="as `mnist`")) == "as `mnist`"


def test_the_shipped_models_reach_the_bars():
    metrics, scores = record("mnist")["metrics"], record("mnist-uni")["tasks"]
    assert not [name for name, bar in MODEL_BARS.items() if not bar.reached(metrics[name])]
    assert not [
        name for name, bar in TASK_BARS.items() if not bar.reached(scores[name]["accuracy"])
    ]
    thinking, direct = scores["sum_thinking_unseen"], scores["sum_direct_unseen"]
    assert thinking["accuracy"] >= direct["accuracy"] + 0.15
    assert scores["draw"]["accuracy"] >= metrics["draw_digit_accuracy"] - 0.01
    assert scores["describe"]["accuracy"] >= metrics["caption_digit_accuracy"] - 0.01


def test_every_task_has_a_row():
    assert set(SUITE) <= set(TASK_BARS)


def test_passes_stand_beside_what_depends_on_them():
    metrics = record("mnist")["metrics"] | {"draw_passes": 18.0, "caption_passes": 2.5}
    rows = model_table(metrics, MODEL_BARS).splitlines()
    assert sum("18.0 passes" in row for row in rows) == 3
    assert sum("2.5 passes" in row for row in rows) == 2
    scores = record("mnist-uni")["tasks"]
    scores["digit"] = {"accuracy": 0.9, "low": 0.85, "high": 0.94, "n": 500, "passes": 2.0}
    row = tasks_table(scores).splitlines()[2]
    assert row == "| what digit is this? | ≥ 98.5 % | 90.0 % (85.0 to 94.0, n = 500), 2.0 passes |"

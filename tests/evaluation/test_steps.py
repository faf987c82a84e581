"""The operations of a step are counted as a hand counts them."""

import pytest
import torch
from helpers import needs_fork, real_images, save_tiny_uni, use_digits
from tiny_runs import BACKBONE

from minillada.config import JudgeConfig, Preset, TextConfig, TrainingConfig
from minillada.evaluation import steps
from minillada.evaluation.bench import Setting
from minillada.measure.timing import Timing
from minillada.settings import changed
from minillada.training import loop


def test_operations_of_a_step_are_those_of_its_layers(monkeypatch):
    """A judge of width 8 on 2 images: convolutions and linear layers, times three for backward."""
    monkeypatch.setattr(steps, "product_rate", lambda dtype, device: 1e9)
    model = JudgeConfig(width=8)
    preset = Preset(
        name="tiny", kind="judge", model=model, training=TrainingConfig(batch_size=2, steps=30)
    )
    report = steps.bench_step(preset, Setting(), 2)
    # (pixels, channels in, channels out) of the convolutions, 3 x 3 each
    layers = [(32, 1, 8), (32, 8, 8), (16, 8, 16), (16, 16, 16), (8, 16, 32), (8, 32, 32)]
    forward = sum(2 * 9 * side * side * a * b for side, a, b in layers)
    forward += 2 * (4 * 32 * model.features + model.features * 10)
    first = 2 * 9 * 32 * 32 * 8  # nobody asks for the gradient of the images
    assert report["operations_a_step"] == 2 * (3 * forward - first)
    assert report["milliseconds_at_the_limit"] == pytest.approx(report["operations_a_step"] / 1e6)
    ratio = report["milliseconds_a_step"] / report["milliseconds_at_the_limit"]
    assert report["times_the_limit"] == pytest.approx(ratio)


def test_all_steps_are_timed_where_the_preset_has_fewer(monkeypatch):
    monkeypatch.setattr(steps, "product_rate", lambda dtype, device: 1e9)
    taken = []
    monkeypatch.setattr(steps.timing, "quartiles", lambda values: taken.extend(values) or (1, 2, 3))
    training = TrainingConfig(batch_size=2, steps=3)
    preset = Preset(name="tiny", kind="judge", model=JudgeConfig(width=8), training=training)
    report = steps.bench_step(preset, Setting(), 4)
    assert report["steps"] == len(taken) == 4
    # The quartiles are 1, 2 and 3 seconds.
    assert report["milliseconds_a_step"] == 2000
    assert report["milliseconds_quartiles"] == [1000, 3000]
    assert report["examples_per_second"] == 1


@pytest.mark.parametrize(
    ("asked", "known", "half"), [(False, True, False), (True, True, True), (True, False, False)]
)
def test_the_limit_is_that_of_the_type_that_is_trained_in(monkeypatch, asked, known, half):
    """A device without products of bfloat16 trains in float32, and has the limit of float32."""
    rates = {torch.float32: 1e9, torch.bfloat16: 4e9}
    monkeypatch.setattr(steps, "product_rate", lambda dtype, device: rates[dtype])
    monkeypatch.setattr(loop, "has_bfloat16", lambda device: known)
    training = TrainingConfig(batch_size=2, bfloat16=asked)
    preset = Preset(name="tiny", kind="judge", model=JudgeConfig(width=8), training=training)
    report = steps.bench_step(preset, Setting(), 1)
    rate = rates[torch.bfloat16 if half else torch.float32]
    assert report["operations_per_second_at_most"] == rate and report["bfloat16"] == half


@needs_fork
def test_batches_made_ahead_are_as_many_as_are_timed(monkeypatch, tmp_path):
    tokenizer = save_tiny_uni(tmp_path).parent / "tokenizer"
    use_digits(monkeypatch, real_images(40))
    monkeypatch.setattr(steps, "product_rate", lambda dtype, device: 1e9)
    preset = changed(BACKBONE, steps=3, workers=1, tokenizer=str(tokenizer))
    assert steps.bench_step(preset, Setting(), 4)["steps"] == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mixture": ()}, "has an empty mixture"),
        ({"mixture": (("nothing", 1.0),)}, "no task 'nothing' can be trained"),
        ({"accumulate": 2, "confidence_weight": 1.0}, "confidence_weight divides by"),
    ],
)
def test_what_no_run_can_be_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        steps.bench_step(changed(BACKBONE, **changes), Setting())


def test_text_pieces_have_no_steps():
    preset = Preset(name="pieces", kind="text", model=TextConfig())
    with pytest.raises(ValueError, match="learned without steps"):
        steps.bench_step(preset, Setting())


def test_the_rate_of_a_product_counts_multiplications_and_additions(monkeypatch):
    def measure(product, device, warmup, repeats):
        made.append(product())
        return Timing(4.0, 3, 5, repeats, "wall clock", None)

    made = []
    monkeypatch.setattr(steps.timing, "measure", measure)
    assert steps.product_rate(torch.float64, "cpu") == 2 * 2048**3 / 4
    assert made[0].shape == (2048, 2048) and made[0].dtype == torch.float64


def test_the_rate_is_that_of_the_type():
    assert steps.product_rate(torch.float32, "cpu") > 1e8

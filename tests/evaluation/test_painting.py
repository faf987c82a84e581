"""Painters are measured together with the decoder whose picture they start from."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers import generator, real_images

from minillada import checkpoint
from minillada.commands.measuring import print_metrics
from minillada.datasets import mnist
from minillada.datasets.table import CIFAR10, MNIST
from minillada.evaluation import painting
from minillada.evaluation.painting import evaluate_painter, load_pair
from minillada.files import WEIGHTS_DIR
from minillada.measure.frechet import frechet_distance
from minillada.measure.intervals import fraction, mean_interval

shipped = pytest.mark.skipif(
    not checkpoint.shipped("mnist-painter-turbo"), reason="the turbo painter is not shipped"
)


@pytest.fixture
def few_images(monkeypatch):
    """A test set that is measured quickly."""
    monkeypatch.setattr(mnist, "load_mnist", lambda split: real_images(64))


@shipped
def test_the_report_holds_what_was_asked_for(monkeypatch, few_images):
    monkeypatch.setattr("minillada.evaluation.painting.BATCH", 1)
    report = evaluate_painter("mnist-painter", samples=20)
    for name in ("judged_accuracy", "judged_accuracy_conv", "codes_kept"):
        assert report[f"{name}_low"] <= report[name] <= report[f"{name}_high"]
    assert report["judged_accuracy_n"] == 20 and report["codes_kept_n"] == 20
    assert report["steps"] <= 4 and report["speedup_over_50_steps"] > 1
    print_metrics(report)
    for name in ("frechet", "frechet_conv", "frechet_50_steps", "frechet_real"):
        assert report[name] > 0


@shipped
def test_either_painter_names_both():
    pairs = [load_pair(name, "cpu") for name in ("mnist-painter", "mnist-painter-turbo")]
    for name, value in pairs[0].turbo.state_dict().items():
        assert torch.equal(value, pairs[1].turbo.state_dict()[name])
    assert pairs[0].turbo.config.turbo and not pairs[1].flow.config.turbo


def copied(name: str, path):
    """A copy of shipped weights, such as the run of a user."""
    path.parent.mkdir(exist_ok=True)
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(WEIGHTS_DIR / f"{name}{suffix}", path.with_suffix(suffix))
    return path


@shipped
def test_the_data_set_is_the_one_that_was_trained_on(tmp_path):
    """Not that of the preset: `--set dataset=cifar10` may have changed it."""
    path = copied("mnist-painter", tmp_path / "p.safetensors")
    info = checkpoint.read_info(path)
    checkpoint.write_info(path, info | {"preset": "of my own", "dataset": "cifar10"})
    assert load_pair(path, "cpu").data is CIFAR10


def test_sixteen_pictures_are_timed_even_if_fewer_are_measured(monkeypatch):
    def ratio(quick, slow, device, pairs):
        quick(), slow()
        return {"ratio": 8.0, "seconds_ours": 1.0, "seconds_theirs": 9.0, "clock": "a clock"}

    seen = []
    monkeypatch.setattr(painting, "paint", lambda *about: seen.append(about))
    monkeypatch.setattr(painting.timing, "speed_ratio", ratio)
    few = torch.arange(3)[:, None, None].expand(3, 4, 4), torch.zeros(3, 1, 32, 32)
    assert painting.speed("flow", "turbo", *few) == {
        "speedup_over_50_steps": 8,
        "seconds_16_pictures": 1,
        "seconds_16_pictures_50_steps": 9,
        "clock": "a clock",
    }
    assert [painter for painter, _, _ in seen] == ["turbo", "flow"]
    for _, codes, sketch in seen:
        assert codes[:, 0, 0].tolist() == [0, 1, 2] * 5 + [0] and len(sketch) == 16


def test_every_number_is_that_of_its_own_pictures(monkeypatch):
    """Written from the definitions, with painters that change the sketch in a known way."""
    images, calls = real_images(30), []
    data = replace(MNIST, load=lambda split: images if split == "test" else None)
    chosen = torch.randperm(30, generator=generator(5))[:20]
    real, labels = images.floats(chosen), images.labels[chosen]
    turbo, flow = (SimpleNamespace(config=SimpleNamespace(painting_steps=n)) for n in (4, 50))

    def shown(some):
        return (some.mean((1, 2, 3)) * 40).long()[:, None, None], some * 0.7

    def paint(painter, codes, sketch, steps=None, seed=None):
        calls.append((painter, steps, seed, codes))
        return sketch + 0.01 if painter is turbo else sketch * 1.2

    judge = SimpleNamespace(
        # Right for pictures that are bright enough: a different number of each kind.
        classify=lambda some: torch.where(some.mean((1, 2, 3)) > 0.08, labels[: len(some)], -1),
        features=lambda some: some.flatten(1)[:, 300:330:9],
    )
    pair = SimpleNamespace(flow=flow, turbo=turbo, data=data, shown=shown)
    monkeypatch.setattr(painting, "load_pair", lambda name, device: pair)
    monkeypatch.setattr(painting, "load_judge", lambda device, name: judge)
    monkeypatch.setattr(painting, "paint", paint)
    monkeypatch.setattr(painting, "speed", lambda *about: {"timed": about[:2]})
    monkeypatch.setattr(painting, "MOST", 7)
    report = evaluate_painter("mine", samples=20, seed=5)
    codes, sketch = shown(real)
    painted, long = sketch + 0.01, sketch[:7] * 1.2
    kept = (shown(painted)[0] == codes).flatten(1).float().mean(1)
    assert 0 < kept.mean() < 1, "else it shows nothing"
    wanted = {
        "model": "mine", "seed": 5, "device": "cpu", "steps": 4, "timed": (flow, turbo),
        **fraction("judged_accuracy", judge.classify(painted) == labels),
        **fraction("judged_accuracy_conv", judge.classify(sketch) == labels),
        **fraction("judged_accuracy_50_steps", judge.classify(long) == labels[:7]),
        **mean_interval(kept).entries("codes_kept"),
        "psnr_db": pytest.approx(float(-10 * (painted - real).square().mean().log10())),
        "frechet_n": 7,
    }  # fmt: skip
    everything = judge.features(images.floats())
    parts = {"": painted, "_conv": sketch, "_real": real, "_50_steps": long}
    for end, part in parts.items():
        wanted[f"frechet{end}"] = frechet_distance(judge.features(part[:7]), everything)
    assert report == wanted
    assert [call[:3] for call in calls] == [(turbo, None, 5), (flow, 50, 5)]
    assert torch.equal(calls[0][3], codes) and torch.equal(calls[1][3], codes[:7])


def of_other_weights(path, field):
    """Let weights say that they belong to others."""
    info = checkpoint.read_info(path)
    del info["digest"]
    checkpoint.write_info(path, info | {field: "0" * 64})


@shipped
def test_a_turbo_painter_of_other_weights_is_refused(tmp_path):
    path = copied("mnist-painter-turbo", tmp_path / "mine.safetensors")
    of_other_weights(path, "source_sha256")
    with pytest.raises(ValueError, match="not distilled from these weights of mnist-painter;"):
        load_pair(path, "cpu")
    # Codes of another tokenizer mean something else.
    other = copied("mnist-painter", tmp_path / "other.safetensors")
    of_other_weights(other, "tokenizer_sha256")
    with pytest.raises(ValueError, match="paints the codes of another version of mnist-tokenizer"):
        load_pair(other, "cpu")
    # What is called like a turbo painter and is none, too.
    run = copied("mnist-painter", tmp_path / "p" / "weights.safetensors").parent
    copied("mnist-painter", tmp_path / "p-turbo" / "weights.safetensors")
    with pytest.raises(ValueError, match="p-turbo was not distilled from these weights"):
        load_pair(run, "cpu")


@shipped
def test_a_painter_of_a_user_is_measured_with_the_turbo_painter_beside_it(tmp_path):
    file = copied("mnist-painter", tmp_path / "p.safetensors")
    folder = copied("mnist-painter", tmp_path / "p" / "weights.safetensors").parent
    for name in (file, f"{folder}/"):
        assert load_pair(name, "cpu").turbo is None
    copied("mnist-painter-turbo", tmp_path / "p-turbo.safetensors")
    copied("mnist-painter-turbo", tmp_path / "p-turbo" / "weights.safetensors")
    for name in (file, f"{folder}/"):
        assert load_pair(name, "cpu").turbo.config.turbo


@shipped
def test_a_painter_alone_is_measured_and_printed(tmp_path, capsys, few_images):
    report = evaluate_painter(copied("mnist-painter", tmp_path / "p.safetensors"), samples=20)
    assert "frechet_50_steps" in report and "codes_kept" not in report
    print_metrics(report)
    assert f"frechet_real{report['frechet_real']:>39.4f}\n" in capsys.readouterr().out


@shipped
def test_codes_of_one_picture_are_one_sample(monkeypatch, few_images):
    """Half of the pictures keep all of their codes, the others none: 20 answers, not 320."""
    half = torch.arange(20)[:, None, None] % 2 == 0

    def shown(self, images):
        codes = torch.zeros(len(images), 4, 4, dtype=torch.long)
        seen.append(1)
        return codes + (half & (len(seen) > 1)), images

    seen = []
    monkeypatch.setattr(painting.Pair, "shown", shown)
    monkeypatch.setattr(painting, "speed", lambda *_: {})
    monkeypatch.setattr(painting, "paint", lambda painter, codes, sketch, *_, **__: sketch + 0.1)
    report = evaluate_painter("mnist-painter", samples=20)
    assert report["psnr_db"] == pytest.approx(20, abs=1e-3)  # a tenth off: -10 log10 of 0.01
    low, high = report["codes_kept_low"], report["codes_kept_high"]
    assert report["codes_kept"] == 0.5 and (high - low) / 2 == pytest.approx(0.24, abs=0.01)


def test_one_picture_is_no_sample():
    with pytest.raises(ValueError, match="at least 2 pictures, got 1"):
        evaluate_painter("mnist-painter", samples=1)

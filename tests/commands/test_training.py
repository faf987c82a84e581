"""The commands that make weights."""

import json

import pytest
import torch
from helpers import real_images, use_digits

from minillada import checkpoint
from minillada.extras import merging
from minillada.measure.judge import Judge
from minillada.model import Backbone
from minillada.training import train as train_module


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    use_digits(monkeypatch, real_images(200))


def test_train_writes_a_run_and_says_where(call, tmp_path):
    command = ["train", "mnist-judge", "--steps", 2, "--seed", 3, "--out", "here"]
    code, out, _ = call(*command, "--json")
    report = json.loads(out)
    assert code == 0 and report["out"] == "here" and report["step"] == 1 and report["loss"] > 0
    _, info = checkpoint.load_model(tmp_path / "here", Judge)
    assert info["training"]["steps"] == 2 and info["training"]["seed"] == 3
    code, out, _ = call(*command, "--resume")
    assert code == 0 and out == "finished in here; last step: none left to do\n"
    code, out, _ = call("train", "mnist-text")
    assert code == 0 and (tmp_path / "runs" / "mnist-text" / "text.json").exists()


def test_merge_averages_the_best_snapshots(call, refuse, run, tmp_path, monkeypatch):
    monkeypatch.undo()
    path = checkpoint.resolve(run)
    backbone, info = checkpoint.load_model(path, Backbone)
    head = backbone.lm_head.weight.detach().clone()
    # Never sure, cautious, and sure of what a random model does not know.
    for step, scale in ((1, 1e-3), (2, 0.5), (3, 4.0)):
        backbone.lm_head.weight.data = scale * head
        name = merging.snapshot_path(tmp_path / "kept", step)
        checkpoint.save_model(name, backbone, info | {"training": {"draw_share": 0.5}})
    kept, mean = tmp_path / "kept", tmp_path / "mean"
    _, out, _ = call("merge", kept, "--top", 2, "--samples", 3, "--out", mean, "--json")
    report = json.loads(out)
    assert list(report["bits"]) == [f"{kept}/step-00000{step}.safetensors" for step in (2, 1, 3)]
    merged, about = checkpoint.load_model(mean, Backbone)
    assert torch.allclose(merged.lm_head.weight, 0.2505 * head, rtol=1e-2)
    assert len(about["merged"]) == 2
    assert call("merge", kept, "--samples", 3, "--out", mean)[1].count("averaged") == 3
    sentence = refuse("merge", run, run, "--samples", 3)
    assert "2 checkpoints are too few to choose the best 3; keep more with" in sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mnits"], "unknown preset 'mnits'; choose one of"),
        (["mnist-judge", "--steps", "0"], "steps must be at least 1, got 0"),
        (["mnist-judge", "--seed", "-1"], "seed must be at least 0"),
        (["mnist-judge", "--resume", "--overwrite"], "choose one"),
        (["mnist-cpu", "--learning-rate", "nan"], "learning_rate must be a finite number"),
        (["mnist-cpu", "--set", "draw_share=0.5"], "there is no setting 'draw_share'"),
        (["mnist-cpu", "--set", "config=1"], "there is no setting 'config'"),
        (["mnist-cpu", "--set", "steps=5", "--steps", "3"], "the setting steps is given twice"),
        (["mnist", "--tokenizer", "nowhere"], "no weights called 'nowhere'"),
    ],
)
def test_bad_arguments(refuse, arguments, sentence):
    assert sentence in refuse("train", *arguments)


def test_a_loss_that_is_not_finite(call, monkeypatch, tmp_path):
    def broken(module, *rest):
        return lambda step: (module.head.bias.sum() * float("nan"), {})

    monkeypatch.setattr(train_module, "judge_loss", broken)
    code, out, err = call("train", "mnist-judge", "--out", "here")
    assert code == 2 and out == "" and "Traceback" not in err
    assert "minillada: the loss is nan at step 0; lower the learning rate" in err.splitlines()[-1]
    assert not (tmp_path / "here" / "weights.safetensors").exists()

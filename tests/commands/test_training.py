"""The commands that make weights."""

import json

import pytest
import torch
from helpers import real_images, save_tiny_uni, use_digits

from minillada import checkpoint
from minillada.commands import training
from minillada.datasets import cifar10
from minillada.datasets.images import Images
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


def save_snapshots(folder, run, **changes):
    """Never sure, cautious, and sure of what a random model does not know; their parent's head."""
    backbone, info = checkpoint.load_model(run, Backbone)
    head = backbone.lm_head.weight.detach().clone()
    about = info | {"training": {"draw_share": 0.5}} | changes
    for step, scale in ((1, 1e-3), (2, 0.5), (3, 4.0)):
        backbone.lm_head.weight.data = scale * head
        checkpoint.save_model(merging.snapshot_path(folder, step), backbone, about)
    return head


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_merge_averages_the_best_snapshots(call, refuse, run, tmp_path, monkeypatch):
    monkeypatch.undo()
    kept, mean = tmp_path / "kept", tmp_path / "mean"
    head = save_snapshots(kept, run)
    _, out, _ = call("merge", kept, "--top", 2, "--samples", 3, "--out", mean, "--json")
    report = json.loads(out)
    assert list(report["bits"]) == [f"{kept}/step-00000{step}.safetensors" for step in (2, 1, 3)]
    merged, about = checkpoint.load_model(mean, Backbone)
    assert torch.allclose(merged.lm_head.weight, 0.2505 * head, rtol=1e-2)
    assert len(about["merged"]) == 2
    again = call("merge", kept, "--samples", 3, "--out", mean, "--overwrite")
    assert again[1].count("averaged") == 3
    # A run, its file and a copy are one checkpoint, which would count three times.
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(checkpoint.resolve(run).read_bytes())
    checkpoint.write_info(copy, checkpoint.read_info(checkpoint.resolve(run)))
    sentence = refuse("merge", run, checkpoint.resolve(run), copy, "--samples", 3)
    assert "too few different checkpoints (1) to choose the best 3; keep more" in sentence


def test_merge_replaces_a_run_only_if_asked(call, refuse, run, tmp_path, monkeypatch):
    monkeypatch.undo()
    kept, old = tmp_path / "kept", tmp_path / "old"
    save_snapshots(kept, run)
    save_snapshots(old, run)
    (old / "metrics.jsonl").write_text("{}")
    monkeypatch.setattr(training.likelihood, "rank_checkpoints", None)  # refused before the work
    for out, sentence in (
        (old, "already holds a run; --overwrite replaces it, and --out names another folder"),
        (kept, "kept holds what is to be averaged; choose another folder"),
        (old / "metrics.jsonl", "cannot write to"),
    ):
        before = contents(old), contents(kept)
        assert sentence in refuse("merge", kept, "--samples", 3, "--out", out)
        assert before == (contents(old), contents(kept))
    monkeypatch.undo()
    code, *_ = call("merge", kept, "--top", 2, "--samples", 3, "--out", old, "--overwrite")
    assert code == 0
    assert sorted(contents(old)) == [".lock", "weights.json", "weights.safetensors"]


def test_encode_asks_before_the_work_where_it_may_write(refuse, tmp_path):
    (tmp_path / "file").touch()
    sentence = refuse("encode", "mnist", "--out", tmp_path / "file" / "columns.safetensors")
    assert "cannot write to the folder" in sentence and "another file with --out" in sentence


def test_merge_ranks_by_images_of_the_data_set(call, refuse, tmp_path, monkeypatch):
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    photos = Images(pixels, torch.tensor([0, 1, 2]))
    monkeypatch.setattr(cifar10, "load_cifar10", lambda split: photos)
    monkeypatch.setattr(training.likelihood, "VALIDATION", slice(0, 3))
    save_snapshots(tmp_path / "kept", save_tiny_uni(tmp_path, channels=3), dataset="cifar10")
    code, out, err = call("merge", "kept", "--samples", 2, "--out", "mean")
    assert code == 0 and out.count("averaged") == 3, err
    sentence = refuse("merge", "kept", "mnist", "--samples", 2, "--out", "other")
    assert "some checkpoints learned from cifar10, some from mnist; only" in sentence


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

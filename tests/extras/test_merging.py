"""A merge is the mean, weight by weight, and only of checkpoints of one model."""

import json

import pytest
import torch
from helpers import describe, tiny_backbone

from minillada import checkpoint
from minillada.extras import merging
from minillada.files import checksum
from minillada.model import Backbone


def save_steps(folder, count, **changes):
    """Random tiny backbones as the snapshots of one run; their paths and modules."""
    paths, modules = [], []
    for step in range(1, count + 1):
        module = tiny_backbone(step, **changes)
        path = merging.snapshot_path(folder, step)
        about = describe("backbone", module) | {"step": step, "tokenizer_sha256": "one"}
        checkpoint.save_model(path, module, about)
        paths.append(path)
        modules.append(module)
    return paths, modules


def make_older(path, change):
    """The JSON of an older version, without a digest, with a change."""
    info = json.loads(path.with_suffix(".json").read_text())
    del info["digest"]
    change(info)
    path.with_suffix(".json").write_text(json.dumps(info))


def test_a_merge_is_the_arithmetic_mean(tmp_path):
    paths, modules = save_steps(tmp_path, 3)
    merged, info = merging.merge(paths, Backbone)
    for key, value in merged.state_dict().items():
        slow = torch.zeros_like(value)
        for module in modules:
            slow += module.state_dict()[key] / 3
        assert torch.allclose(value, slow, atol=1e-6)
        assert not torch.equal(value, modules[0].state_dict()[key])
    assert [part["step"] for part in info["merged"]] == [1, 2, 3] and "step" not in info
    assert [part["sha256"] for part in info["merged"]] == [checksum(path) for path in paths]


def test_a_mean_has_no_scores_and_no_command_of_its_parts(tmp_path):
    paths, _ = save_steps(tmp_path, 2)
    own = {"metrics": {"draw_passes": 9.0}, "tasks": {"sum": {}}, "seconds": 9, "command": "train"}
    checkpoint.write_info(paths[0], checkpoint.read_info(paths[0]) | own)
    _, info = merging.merge(paths, Backbone)
    assert not info.keys() & own.keys() and info["tokenizer_sha256"] == "one"
    assert [part["command"] for part in info["merged"]] == ["train", None]


def test_the_mean_of_equal_weights_is_the_same(tmp_path):
    paths, modules = save_steps(tmp_path, 2)
    again, _ = merging.merge([paths[1]] * 4, Backbone)
    for key, value in again.state_dict().items():
        assert torch.equal(value, modules[1].state_dict()[key])


def test_what_cannot_be_merged(tmp_path):
    paths, _ = save_steps(tmp_path / "a", 2)
    other, _ = save_steps(tmp_path / "b", 1, hidden_size=24)
    with pytest.raises(ValueError, match="at least two checkpoints, got 1; keep some with"):
        merging.merge(paths[:1], Backbone)
    sentence = "step-000001.safetensors and .* differ in config; only checkpoints of the same model"
    with pytest.raises(ValueError, match=sentence):
        merging.merge([*paths, *other], Backbone)
    make_older(paths[1], lambda info: info.update(tokenizer_sha256="another"))
    with pytest.raises(ValueError, match="differ in tokenizer_sha256"):
        merging.merge(paths, Backbone)


def test_a_json_that_lacks_default_fields_is_no_other_model(tmp_path):
    paths, _ = save_steps(tmp_path, 2)
    make_older(paths[0], lambda info: info["config"].pop("num_experts"))
    _, info = merging.merge(paths, Backbone)
    assert len(info["merged"]) == 2


def test_a_json_that_does_not_say_its_tokenizer_may_be_of_the_same(tmp_path):
    paths, _ = save_steps(tmp_path, 2)
    make_older(paths[0], lambda info: info.pop("tokenizer_sha256"))
    assert len(merging.merge(paths, Backbone)[1]["merged"]) == 2


def test_snapshots_of_a_run_come_in_order(tmp_path):
    backbone = tiny_backbone()
    saved = tmp_path / "run" / "weights.safetensors"
    checkpoint.save_model(saved, backbone, describe("backbone", backbone))
    assert merging.snapshots(saved) == [saved] == merging.snapshots(saved.parent)
    paths = [merging.snapshot_path(saved.parent, step) for step in (90, 100, 1000, 100_000)]
    for path in reversed(paths):
        path.touch()
    assert merging.snapshots(saved.parent) == paths


def test_equal_checkpoints_are_taken_once(tmp_path):
    paths, modules = save_steps(tmp_path / "run", 2)
    copy = tmp_path / "copy.safetensors"
    checkpoint.save_model(copy, modules[1], describe("backbone", modules[1]))
    names = [tmp_path / "run", paths[0].parent / ".." / "run" / paths[0].name, paths[1], copy]
    assert merging.distinct(names) == paths


def test_a_folder_does_not_hide_shipped_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist").mkdir()
    merging.snapshot_path(tmp_path / "mnist", 1).touch()
    assert merging.snapshots("mnist") == [checkpoint.resolve("mnist")]

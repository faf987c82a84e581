"""Saving is all or nothing, and files that do not belong together are refused in one sentence."""

import json
import os

import pytest
import torch
from helpers import describe, tiny_backbone, tiny_config, tiny_judge, tiny_tokenizer

from minillada import checkpoint
from minillada.config import ModelConfig
from minillada.files import atomic, checksum
from minillada.measure.judge import Judge
from minillada.model import Backbone
from minillada.settings import from_dict, to_dict


@pytest.fixture
def saved(tmp_path):
    """Path of a tiny backbone's weights."""
    path = tmp_path / "weights.safetensors"
    backbone = tiny_backbone()
    checkpoint.save_model(path, backbone, describe("backbone", backbone))
    return path


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def rewrite(path, change):
    """Alter the JSON beside weights."""
    info = json.loads(path.with_suffix(".json").read_text())
    change(info)
    path.with_suffix(".json").write_text(json.dumps(info))


# --- writing -----------------------------------------------------------------------------------------------------------


def save_steps(folder, count, **changes):
    """Random tiny backbones as the snapshots of one run; their paths and modules."""
    paths, modules = [], [tiny_backbone(seed, **changes) for seed in range(count)]
    for step, module in enumerate(modules, 1):
        paths.append(checkpoint.snapshot_path(folder, step))
        checkpoint.save_model(paths[-1], module, describe("backbone", module) | {"step": step})
    return paths, modules


@pytest.mark.parametrize("error", [RuntimeError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "deep" / "x.txt"
    with atomic(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(type(error)), atomic(path) as temporary:
        temporary.write_text("half of the ne")
        raise error
    assert path.read_text() == "old" and files(path.parent) == ["x.txt"]


def break_after(monkeypatch, module, name, error):
    """Let `name` do its work, then fail: the worst moment."""
    original = getattr(module, name)

    def broken(*arguments, **named):
        if name != "replace":
            original(*arguments, **named)
        raise error

    monkeypatch.setattr(module, name, broken)


@pytest.mark.parametrize(("module", "name"), [(checkpoint, "save_file"), (os, "replace")])
@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_the_old_weights(saved, monkeypatch, module, name, error):
    before = {p: p.read_bytes() for p in saved.parent.iterdir()}
    break_after(monkeypatch, module, name, error)
    other = tiny_backbone(1)
    with pytest.raises(type(error)):
        checkpoint.save_model(saved, other, describe("backbone", other))
    assert {p: p.read_bytes() for p in saved.parent.iterdir()} == before
    monkeypatch.undo()
    restored, _ = checkpoint.load_model(saved, Backbone)
    assert torch.equal(restored.lm_head.weight, tiny_backbone().lm_head.weight)


def test_a_first_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    break_after(monkeypatch, checkpoint, "save_file", OSError("No space left on device"))
    with pytest.raises(OSError, match="No space"):
        checkpoint.save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2)})
    assert files(tmp_path) == []


def test_weights_without_their_new_json_are_noticed(saved, monkeypatch):
    """Interrupted between the two files: new weights beside the old JSON."""
    other = tiny_backbone(1)
    monkeypatch.setattr(checkpoint.json, "dumps", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_model(saved, other, describe("backbone", other))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="do not belong together"):
        checkpoint.load_model(saved, Backbone)


# --- reading -----------------------------------------------------------------------------------------------------------


def test_tensors_and_metadata_come_back_exactly(tmp_path):
    tensors = {
        "plain": torch.randn(3, 4),
        "sliced": torch.arange(12.0).view(3, 4)[:, 1:3],
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "count": torch.tensor(7),
        "low": torch.randn(3).bfloat16(),
        "gradient": torch.nn.Parameter(torch.ones(2)),
    }
    checkpoint.save_tensors(tmp_path / "x.safetensors", tensors, {"step": "3"})
    back, metadata = checkpoint.read_tensors(tmp_path / "x.safetensors")
    assert metadata == {"step": "3"} and back.keys() == tensors.keys()
    for key, value in tensors.items():
        assert back[key].dtype == value.dtype and torch.equal(back[key], value.detach())


@pytest.mark.parametrize(("kind", "module"), [("backbone", tiny_backbone(3)), ("judge", tiny_judge(3)), ("tokenizer", tiny_tokenizer(3))])
def test_every_kind_comes_back_exactly(tmp_path, kind, module):
    path = tmp_path / "weights.safetensors"
    checkpoint.save_model(path, module.train(), describe(kind, module) | {"note": "ünïcode"})
    for name in (path, str(path), tmp_path):
        back, info = checkpoint.load_model(name, kind)
        assert not back.training and back.config == module.config and info["note"] == "ünïcode"
        assert info["sha256"] == checksum(path)
        for (key, a), (other, b) in zip(module.state_dict().items(), back.state_dict().items(), strict=True):
            assert key == other and torch.equal(a, b)
    tensors, _ = checkpoint.read_tensors(path)
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float16}, "half the bytes"


def test_config_survives_json():
    config = tiny_config(partial_rotary_factor=0.25)
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1000, -1])
def test_truncated_weights_are_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ValueError, match="weights.safetensors is not a complete safetensors file .*restore or retrain"):
        checkpoint.load_model(saved, Backbone)


def test_foreign_weights_are_refused(saved):
    saved.write_bytes(b"PK\x03\x04 this is a zip file, or so it says" * 100)
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        checkpoint.load_model(saved, Backbone)


def test_one_altered_number_is_noticed(saved):
    raw = bytearray(saved.read_bytes())
    raw[-3] ^= 1
    saved.write_bytes(raw)
    with pytest.raises(ValueError, match="do not belong together .checksum differs.; restore or retrain both"):
        checkpoint.load_model(saved, Backbone)


def test_missing_files_are_named(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at .*other.safetensors; restore shipped ones"):
        checkpoint.load_model(tmp_path / "other.safetensors", Backbone)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no weights at .*empty"):
        checkpoint.load_model(tmp_path / "empty", Backbone)
    with pytest.raises(FileNotFoundError, match="no weights called 'mnits'; shipped: .*mnist-judge"):
        checkpoint.load_model("mnits", Backbone)
    saved.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match="weights.json is missing"):
        checkpoint.load_model(saved, Backbone)


@pytest.mark.parametrize("content", [b"", b'{"kind": "backb', b"\xff\xfe\x00", b"[]", b"null", b'"backbone"'])
def test_broken_json_is_refused(saved, content):
    saved.with_suffix(".json").write_bytes(content)
    with pytest.raises(ValueError, match="weights.json is not a valid JSON object; restore it"):
        checkpoint.load_model(saved, Backbone)


def test_weights_of_another_kind_are_refused(saved):
    with pytest.raises(ValueError, match="holds a backbone, not a judge"):
        checkpoint.load_model(saved, Judge)
    rewrite(saved, lambda info: info.pop("kind"))
    with pytest.raises(ValueError, match="holds a None, not a backbone"):
        checkpoint.load_model(saved, Backbone)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden_size": 32}, r"does not fit its configuration: 'lm_head.weight' has shape \[24, 16\], expected \[24, 32\]"),
        ({"vocab_size": 25}, "'lm_head.weight' has shape"),
        ({"num_hidden_layers": 3}, "tensor 'model.layers.2.attention.dense.weight' is missing"),
        ({"num_hidden_layers": 1}, "tensor 'model.layers.1.attention.dense.weight' is unexpected"),
        ({"dropout": 0.1}, "ModelConfig has no field 'dropout'"),
        ({"num_key_value_heads": 3}, "cannot share"),
        ({"num_key_value_heads": 0}, "must be"),
        ({"hidden_size": -4}, "must be"),
        ({"hidden_size": "large"}, "must be"),
        ({"vocab_size": None}, "must be"),
    ],
)
def test_configuration_of_another_model_is_refused(saved, change, sentence):
    rewrite(saved, lambda info: info["config"].update(change))
    with pytest.raises(ValueError, match=sentence):
        checkpoint.load_model(saved, Backbone)


def test_configuration_without_its_fields_is_refused(saved):
    rewrite(saved, lambda info: info["config"].pop("vocab_size"))
    with pytest.raises(ValueError, match="ModelConfig cannot be built from this file: .*vocab_size"):
        checkpoint.load_model(saved, Backbone)
    rewrite(saved, lambda info: info.update(config=[]))
    with pytest.raises(ValueError, match="backbone"):
        checkpoint.load_model(saved, Backbone)


def test_unknown_kind():
    with pytest.raises(ValueError, match="unknown kind of model 'decoder'; expected one of judge, tokenizer, backbone"):
        checkpoint.build("decoder", {})


# --- the mean of checkpoints -------------------------------------------------------------------------------------------


def test_a_merge_is_the_arithmetic_mean(tmp_path):
    paths, modules = save_steps(tmp_path, 3)
    merged, info = checkpoint.merge(paths, Backbone)
    for key, value in merged.state_dict().items():
        slow = torch.zeros_like(value)
        for module in modules:
            slow += module.state_dict()[key] / 3
        assert torch.allclose(value, slow, atol=1e-6) and not torch.equal(value, modules[0].state_dict()[key])
    assert [part["step"] for part in info["merged"]] == [1, 2, 3] and "step" not in info
    assert [part["sha256"] for part in info["merged"]] == [checksum(path) for path in paths]
    again, _ = checkpoint.merge([paths[1]] * 4, Backbone)
    assert all(torch.equal(value, modules[1].state_dict()[key]) for key, value in again.state_dict().items())


def test_what_cannot_be_merged(tmp_path):
    paths, _ = save_steps(tmp_path / "a", 2)
    other, _ = save_steps(tmp_path / "b", 1, hidden_size=24)
    with pytest.raises(ValueError, match="at least two checkpoints, got 1; keep some with"):
        checkpoint.merge(paths[:1], Backbone)
    with pytest.raises(ValueError, match="step-000001.safetensors and .* differ in config; only checkpoints of the same model"):
        checkpoint.merge([*paths, *other], Backbone)
    rewrite(paths[1], lambda info: info.update(tokenizer_sha256="another"))
    with pytest.raises(ValueError, match="differ in tokenizer_sha256"):
        checkpoint.merge(paths, Backbone)


def test_snapshots_of_a_run_come_in_order(saved, tmp_path):
    assert checkpoint.snapshots(saved) == [saved] == checkpoint.snapshots(saved.parent)
    paths = [checkpoint.snapshot_path(tmp_path, step) for step in (90, 100, 1000, 100_000)]
    for path in reversed(paths):
        path.touch()
    assert checkpoint.snapshots(tmp_path) == paths


def test_shipped_weights_load_and_fit_their_json():
    names = [p.stem for p in sorted(checkpoint.WEIGHTS_DIR.glob("*.safetensors"))]
    assert "mnist-judge" in names and checkpoint.shipped("mnist-judge") and not checkpoint.shipped("mnits")
    total = 0
    for name in names:
        module, info = checkpoint.load_model(name, checkpoint.read_info(checkpoint.resolve(name))["kind"])
        assert info["parameters"] == sum(p.numel() for p in module.parameters())
        assert all(value.isfinite().all() for value in module.state_dict().values())
        total += checkpoint.resolve(name).stat().st_size
    assert total <= 30e6, "a clone stays small: weigh what another model is worth"

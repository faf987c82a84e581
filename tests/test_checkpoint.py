"""Saving is all or nothing, and files that do not belong together are refused in one sentence."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from helpers import describe, tiny_backbone, tiny_config, tiny_judge, tiny_tokenizer
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from minillada import checkpoint
from minillada.config import ModelConfig
from minillada.files import WEIGHTS_DIR, checksum
from minillada.measure.judge import Judge
from minillada.model import Backbone
from minillada.painter import Painter
from minillada.settings import from_dict, to_dict
from minillada.vq import ImageTokenizer


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
    """Alter the JSON beside weights; it is one of an older version, without a digest."""
    info = json.loads(path.with_suffix(".json").read_text())
    info.pop("digest", None)
    change(info)
    path.with_suffix(".json").write_text(json.dumps(info))


def replace_tensors(path, change):
    """Alter the tensors of stored weights, with a JSON that certifies them."""
    tensors, _ = checkpoint.read_tensors(path)
    change(tensors)
    save_file(tensors, path)
    rewrite(path, lambda info: info.update(sha256=checksum(path)))


def test_tensors_that_were_read_are_no_views_of_their_file(saved):
    """Windows would not replace the file then, so no run could save its state after a resume."""
    tensors, _ = checkpoint.read_tensors(saved)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    size = saved.stat().st_size
    with open(saved, "r+b") as file:
        file.write(b"\x11" * size)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())


# --- writing -------------------------------------------------------------------------------------


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
    break_after(monkeypatch, checkpoint, "save_file", SafetensorError("No space left on device"))
    with pytest.raises(OSError, match=r"x.safetensors cannot be written: No space"):
        checkpoint.save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2)})
    assert files(tmp_path) == []


def test_a_new_json_without_its_weights_is_noticed(saved, monkeypatch):
    """Interrupted between the two files: the new JSON beside old weights."""
    other, replace = tiny_backbone(1), os.replace

    def dying(temporary, path):
        if path == saved:
            raise KeyboardInterrupt
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_model(saved, other, describe("backbone", other))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="do not belong together"):
        checkpoint.load_model(saved, Backbone)


def test_the_json_certifies_what_was_written_and_not_what_came_later(saved, monkeypatch):
    """Another process replaces the weights right after they got their name."""
    replace = os.replace

    def replace_then_disturb(source, target):
        replace(source, target)
        if target == saved:
            save_file({"other": torch.ones(1)}, target)

    monkeypatch.setattr(os, "replace", replace_then_disturb)
    backbone = tiny_backbone()
    checkpoint.save_model(saved, backbone, describe("backbone", backbone))
    with pytest.raises(ValueError, match="do not belong together"):
        checkpoint.load_model(saved, Backbone)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e5])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, value):
    """1e5 is finite, but not in float16."""
    backbone = tiny_backbone()
    backbone.lm_head.weight.data[3, 4] = value
    with pytest.raises(ValueError, match="'lm_head.weight' holds NaN, infinity or a number too"):
        checkpoint.save_model(tmp_path / "x.safetensors", backbone, describe("backbone", backbone))
    assert files(tmp_path) == []


# --- reading -------------------------------------------------------------------------------------


def test_tensors_and_metadata_come_back_exactly(tmp_path):
    tensors = {
        "plain": torch.randn(3, 4),
        "sliced": torch.arange(12.0).view(3, 4)[:, 1:3],
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "count": torch.tensor(7),
        "low": torch.randn(3).bfloat16(),
        "gradient": torch.nn.Parameter(torch.ones(2)),
    }
    path = tmp_path / "x.safetensors"
    checkpoint.save_tensors(path, tensors, {"step": "3"}, {"kind": "numbers"})
    assert checkpoint.read_info(path)["sha256"] == checksum(path)
    back, metadata = checkpoint.read_tensors(path)
    assert metadata == {"step": "3"} and back.keys() == tensors.keys()
    for key, value in tensors.items():
        assert back[key].dtype == value.dtype and torch.equal(back[key], value.detach())


KINDS = [(Backbone, tiny_backbone(3)), (Judge, tiny_judge(3)), (ImageTokenizer, tiny_tokenizer(3))]


@pytest.mark.parametrize(("cls", "module"), KINDS, ids=["backbone", "judge", "tokenizer"])
def test_every_kind_comes_back_exactly(tmp_path, cls, module):
    path = tmp_path / "weights.safetensors"
    about = describe(cls.kind, module) | {"note": "ünïcode", "numbers": {1: (0.1, None)}}
    checkpoint.save_model(path, module.train(), about)
    for name in (path, str(path), tmp_path):
        back, info = checkpoint.load_model(name, cls)
        assert not back.training and back.config == module.config
        assert info["note"] == "ünïcode" and info["numbers"] == {"1": [0.1, None]}
        assert info["sha256"] == checksum(path)
        assert list(back.state_dict()) == list(module.state_dict())
        for key, value in back.state_dict().items():
            assert torch.equal(value, module.state_dict()[key])
    tensors, _ = checkpoint.read_tensors(path)
    floats = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    assert floats == {torch.float16}, "half the bytes"


def test_config_survives_json():
    config = tiny_config(partial_rotary_factor=0.25)
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1000, -1])
def test_truncated_weights_are_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    sentence = "weights.safetensors is not a complete safetensors file; restore it .*or train again"
    with pytest.raises(ValueError, match=sentence):
        checkpoint.load_model(saved, Backbone)


def test_foreign_weights_are_refused(saved):
    saved.write_bytes(b"PK\x03\x04 this is a zip file, or so it says" * 100)
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        checkpoint.load_model(saved, Backbone)


def test_one_altered_number_is_noticed(saved):
    raw = bytearray(saved.read_bytes())
    raw[-3] ^= 1
    saved.write_bytes(raw)
    with pytest.raises(ValueError, match="do not belong together; restore"):
        checkpoint.load_model(saved, Backbone)


def test_missing_files_are_named(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at .*other.safetensors; restore"):
        checkpoint.load_model(tmp_path / "other.safetensors", Backbone)
    saved.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match="weights.json is missing"):
        checkpoint.load_model(saved, Backbone)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="somebody who may read anything")
@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_forbidden_file_is_not_called_missing(saved, suffix):
    saved.with_suffix(suffix).chmod(0)
    with pytest.raises(PermissionError, match=f"Permission denied: .*weights{suffix}"):
        checkpoint.load_model(saved, Backbone)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_others_may_read_what_was_saved(tmp_path):
    """The library that writes weights makes files that only their owner may read."""
    old = os.umask(0o022)
    try:
        checkpoint.save_model(
            tmp_path / "x.safetensors", tiny_judge(), describe("judge", tiny_judge())
        )
    finally:
        os.umask(old)
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o644, 0o644]


NESTED = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize(
    "content", [b"", b'{"kind": "backb', b"\xff\xfe\x00", b"[]", b"null", b'"backbone"', NESTED]
)
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


# --- the digest of the JSON ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"rope_theta": 100.0', '"rope_theta": 100.00000000000001'),
        ('"block_size": 4', '"block_size": 5'),
        ('"kind": "backbone"', '"kind": "judge"'),
        ('"rms_norm_eps"', '"rms_norm_epz"'),
        ('"parameters": ', '"parameters": 1'),
    ],
)
def test_a_changed_json_is_refused(saved, before, after):
    path = saved.with_suffix(".json")
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(ValueError, match="weights.json was changed after it was written .digest"):
        checkpoint.load_model(saved, Backbone)
    with pytest.raises(ValueError, match="was changed"):
        checkpoint.read_info(saved)


def test_results_may_be_added_to_a_json(saved):
    for name in ("metrics", "tasks"):
        info = checkpoint.read_info(saved) | {name: {"accuracy": 0.1, 3: float("nan")}}
        checkpoint.write_info(saved, info)
    _, info = checkpoint.load_model(saved, Backbone)
    assert info["metrics"]["accuracy"] == info["tasks"]["accuracy"] == 0.1


def test_a_json_of_an_older_version_needs_no_digest(saved):
    rewrite(saved, lambda info: info["config"].pop("num_experts"))
    module, info = checkpoint.load_model(saved, Backbone)
    assert module.config == tiny_config() and "digest" not in info


# --- configurations, sizes and types -------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"hidden_size": 32}, r"word_embeddings.weight' has shape \[24, 16\], expected \[24, 32\]"),
        ({"vocab_size": 25}, "'model.word_embeddings.weight' has shape"),
        ({"num_hidden_layers": 3}, "does not fit its configuration"),
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
    with pytest.raises(ValueError, match="weights.json: ModelConfig needs the field 'vocab_size'"):
        checkpoint.load_model(saved, Backbone)
    for config in ([], None, "large"):
        rewrite(saved, lambda info, config=config: info.update(config=config))
        with pytest.raises(ValueError, match="ModelConfig is made of fields by name, got"):
            checkpoint.load_model(saved, Backbone)


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": 4_000_000},
        {"hidden_size": 1_000_000},
        {"num_hidden_layers": 10_000},
        {"num_experts": 20_000, "n_group": 1, "topk_group": 1},
    ],
)
def test_sizes_are_not_believed(saved, change):
    """Refused before gigabytes are allocated, or minutes are spent on many parameters."""
    rewrite(saved, lambda info: info["config"].update(change))
    made = []
    hook = torch.nn.modules.module.register_module_parameter_registration_hook(
        lambda module, name, parameter: made.append(parameter)
    )
    with hook, pytest.raises(ValueError, match="does not fit its configuration"):
        checkpoint.load_model(saved, Backbone)
    assert made and all(parameter.is_meta for parameter in made)
    assert len(made) <= 1 + len(checkpoint.read_tensors(saved)[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_stored_weights_that_are_not_finite_are_refused(saved, value):
    def damage(tensors):
        tensors["model.norm.weight"][3] = value

    replace_tensors(saved, damage)
    with pytest.raises(
        ValueError, match="weights.safetensors: tensor 'model.norm.weight' holds NaN"
    ):
        checkpoint.load_model(saved, Backbone)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float64, torch.bfloat16])
def test_numbers_of_another_type_are_refused(saved, dtype):
    name = "model.norm.weight"
    replace_tensors(saved, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    with pytest.raises(ValueError, match=f"{name!r} has type {dtype}, expected torch.float32"):
        checkpoint.load_model(saved, Backbone)


def test_full_precision_may_be_stored(saved):
    def widen(tensors):
        for name in tensors:
            tensors[name] = tensors[name].float()

    replace_tensors(saved, widen)
    back, _ = checkpoint.load_model(saved, Backbone)
    assert torch.equal(back.lm_head.weight, tiny_backbone().lm_head.weight)


# --- names ---------------------------------------------------------------------------------------


def test_a_folder_does_not_hide_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist-judge").mkdir()
    assert checkpoint.resolve("mnist-judge") == WEIGHTS_DIR / "mnist-judge.safetensors"
    for suffix in (".safetensors", ".json"):
        shipped = WEIGHTS_DIR / f"mnist-judge{suffix}"
        shutil.copy(shipped, tmp_path / "mnist-judge" / f"weights{suffix}")
    assert checkpoint.resolve("mnist-judge") == WEIGHTS_DIR / "mnist-judge.safetensors"
    own = checkpoint.Path("mnist-judge/weights.safetensors")
    assert checkpoint.resolve("./mnist-judge") == own == checkpoint.resolve(own.parent)


def test_the_error_says_where_weights_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    place = tmp_path / "empty" / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match=f"no weights at {place}; shipped: .*mnist-judge"):
        checkpoint.load_model("empty", Backbone)
    with pytest.raises(
        FileNotFoundError, match="no weights called 'mnits'; shipped: .*mnist-judge"
    ):
        checkpoint.load_model("mnits", Backbone)


def test_full_names_hold_in_every_working_folder(saved, tmp_path, monkeypatch):
    assert checkpoint.full_name("mnist-judge") == "mnist-judge"
    monkeypatch.chdir(saved.parent.parent)
    for name in (saved.parent.name, f"{saved.parent.name}/weights.safetensors"):
        assert checkpoint.full_name(name) == str(saved)


def test_shipped_weights_load_and_fit_their_json():
    classes = {cls.kind: cls for cls in (Backbone, Judge, ImageTokenizer, Painter)}
    names = [path.stem for path in sorted(WEIGHTS_DIR.glob("*.safetensors"))]
    assert "mnist-judge" in names
    assert checkpoint.shipped("mnist-judge") and not checkpoint.shipped("mnits")
    total = 0
    for name in names:
        path = checkpoint.resolve(name)
        module, info = checkpoint.load_model(name, classes[checkpoint.read_info(path)["kind"]])
        assert info["parameters"] == sum(p.numel() for p in module.parameters())
        total += path.stat().st_size
    assert total <= 53e6, "a clone stays small: weigh what another model is worth"


def test_the_digest_of_tensors_sees_names_types_shapes_values_and_settings():
    tensors, settings = {"a": torch.zeros(2, 3), "b": torch.tensor(1)}, {"step": "1"}
    others = [
        ({"a": torch.zeros(2, 3), "c": torch.tensor(1)}, settings),
        ({"a": torch.zeros(2, 3).int(), "b": torch.tensor(1)}, settings),
        ({"a": torch.zeros(3, 2), "b": torch.tensor(1)}, settings),
        ({"a": torch.zeros(2, 3), "b": torch.tensor(2)}, settings),
        (tensors, {"step": "2"}),
    ]
    digests = {checkpoint.tensors_digest(*other) for other in [(tensors, settings), *others]}
    assert len(digests) == 6
    in_another_order = {"b": tensors["b"], "a": tensors["a"].bfloat16().float()}
    again = checkpoint.tensors_digest(in_another_order, settings)
    assert again == checkpoint.tensors_digest(tensors, settings)


# --- around a call -------------------------------------------------------------------------------


def test_another_thread_may_build_modules_meanwhile(saved, monkeypatch):
    build = checkpoint.build

    def meanwhile(cls, config):
        with ThreadPoolExecutor(1) as other:
            other.submit(lambda: [nn.Linear(1, 1) for _ in range(100)]).result()
        return build(cls, config)

    monkeypatch.setattr(checkpoint, "build", meanwhile)
    checkpoint.load_model(saved, Backbone)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_type_changes_nothing(tmp_path, dtype):
    path, tokenizer = tmp_path / "weights.safetensors", tiny_tokenizer()
    info = describe("tokenizer", tokenizer)
    checkpoint.save_tensors(path, tokenizer.state_dict(), info=info)  # in float32, as some are
    torch.set_default_dtype(dtype)
    try:
        module, _ = checkpoint.load_model(path, ImageTokenizer)
    finally:
        torch.set_default_dtype(torch.float32)
    for key, value in module.state_dict().items():
        assert value.equal(tokenizer.state_dict()[key]), key


def test_the_default_device_changes_nothing(saved):
    with torch.device("meta"):
        module, _ = checkpoint.load_model(saved, Backbone)
    assert module.lm_head.weight.device.type == "cpu"


@pytest.mark.parametrize("name", [None, 3, ["mnist"], b"mnist"])
def test_a_name_is_a_string_or_a_path(name):
    with pytest.raises(ValueError, match="a name is a string or a path, got"):
        checkpoint.load_model(name, Backbone)

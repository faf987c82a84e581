"""Headers against configurations: faults by name."""

import dataclasses
import importlib.util
import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from minillada.official import needs
from minillada.official.fabricate import vae_entries
from minillada.official.inspection import inspect
from minillada.official.painter import VAE_WEIGHTS, SigVQ, load_painter
from minillada.official.shards import INDEX
from minillada.official.sizes import TINY
from minillada.official.writing import write_json, write_safetensors

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None,
    reason='diffusers is not installed; run pip install "minillada[official]"',
)


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


def faults(folder, name):
    [part] = [part for part in inspect(folder) if part.name == name]
    return part.faults


@needs_diffusers
def test_a_complete_checkpoint_has_no_fault(checkpoint):
    parts = {part.name: part for part in inspect(checkpoint)}
    assert not any(part.faults for part in parts.values())
    state = {}
    for path in checkpoint.glob("model-*.safetensors"):
        state |= load_file(path)
    assert parts["backbone"].parameters == sum(tensor.numel() for tensor in state.values())


@pytest.mark.parametrize("layout", ["fused", "sibling"])
def test_other_layouts_have_no_fault(tmp_path, layout):
    from minillada.official.fabricate import fabricate

    kind = {"layout": "fused"} if layout == "fused" else {"sibling": True}
    fabricate(tmp_path / "new", parts=("backbone",), **kind)
    assert faults(tmp_path / "new", "backbone") == []


def test_faults_are_named(copy):
    path = copy / "model-00002-of-00003.safetensors"
    state = load_file(path)
    first, second, third = sorted(state)[:3]
    state["model.extra"] = state.pop(first)
    shape = list(state[second].shape)
    state[second] = state[second].flatten()[:3].clone()
    save_file(state, path)
    text = "\n".join(faults(copy, "backbone"))
    assert f"{first} is missing" in text and "model.extra is unexpected" in text
    assert f"{second} has shape [3], not {shape}" in text and third not in text
    assert "model.extra of model-00002-of-00003.safetensors is not in" in text


def test_a_tensor_that_is_not_where_the_index_says(copy):
    names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2)]
    one, two = (load_file(copy / name) for name in names)
    key = min(one)
    save_file(two | {key: one[key]}, copy / names[1])
    assert faults(copy, "backbone") == [f"{key} stands twice"]
    del one[key]
    save_file(one, copy / names[0])
    assert faults(copy, "backbone") == [f"{key} is in {names[1]}, not where {INDEX} says"]


def test_missing_broken_and_hostile_files(copy):
    (copy / "model-00001-of-00003.safetensors").unlink()
    (copy / "image_tokenizer" / "model.safetensors").write_bytes(b"\x08" + b"\0" * 30)
    (copy / "tokenizer.json").write_text("{}")
    assert "model-00001-of-00003.safetensors is missing" in faults(copy, "backbone")
    assert "not a complete safetensors file" in faults(copy, "image tokenizer")[0]
    assert "not a tokenizer file" in faults(copy, "text tokenizer")[0]
    index = copy / INDEX
    for where in ({"a": "../../etc/passwd"}, {"a": 3}, None):
        index.write_text(json.dumps({"weight_map": where}))
        [fault] = faults(copy, "backbone")
        assert "not a safetensors file beside it" in fault or "has no weight_map" in fault
    (copy / "image_tokenizer" / "preprocessor_config.json").write_text('{"patch_size": 14}')
    assert "patch_size must be 16" in faults(copy, "image tokenizer")[0]


def test_one_file_without_an_index_is_complete(copy):
    state = {}
    for path in sorted(copy.glob("model-*.safetensors")):
        state |= load_file(path)
        path.unlink()
    (copy / INDEX).unlink()
    save_file(state, copy / "model.safetensors")
    assert faults(copy, "backbone") == []


def test_a_configuration_that_asks_for_millions_of_tensors(copy):
    path = copy / "config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"num_hidden_layers": 9000}))
    [fault] = faults(copy, "backbone")
    assert "do they belong together?" in fault


def test_what_loading_refuses_is_a_fault(copy):
    """Sizes of which no layer can be built, although all shapes are as the configuration says."""
    path = copy / "config.json"
    values = json.loads(path.read_text()) | {"partial_rotary_factor": 0.4}
    del values["rope_parameters"]["partial_rotary_factor"]
    path.write_text(json.dumps(values))
    [fault] = faults(copy, "backbone")
    assert fault.startswith(f"{path}: 3 numbers of a head cannot turn in pairs")


def test_an_index_of_another_size(copy):
    path = copy / INDEX
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"metadata": {"total_size": 7}}))
    [fault] = faults(copy, "backbone")
    assert "speaks of 7 bytes" in fault


def test_fp8_is_refused_by_name(copy):
    path = copy / "model-00001-of-00003.safetensors"
    state = load_file(path)
    key = sorted(state)[0]
    state[key] = state[key].to(torch.float8_e4m3fn)
    save_file(state, path)
    [fault] = faults(copy, "backbone")
    assert key in fault and "F8_E4M3" in fault and "bfloat16 release" in fault


@needs_diffusers
def test_parts_of_different_models_are_named(copy):
    """Each is complete, so only a look at the others shows the fault."""
    path = copy / "image_tokenizer" / "sigvq_embedding.pt"
    torch.save(SigVQ(64, 16).state_dict(), path)
    for name in ("decoder", "decoder-turbo"):
        assert (
            "conditions of 32 features, and the painter's embedding makes 16"
            in faults(copy, name)[0]
        )
    torch.save(SigVQ(40, 32).state_dict(), path)
    assert faults(copy, "decoder") == []
    [fault] = faults(copy, "painter's embedding")
    assert "has 40 image codes, and" in fault and "has ids for 64" in fault
    config = copy / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"image_token_offset": 536}))
    assert "has 64 image codes, and" in faults(copy, "image tokenizer")[0]
    assert faults(copy, "painter's embedding") == []


@needs_diffusers
@pytest.mark.parametrize(
    ("lost", "faulty"),
    [
        ("config.json", ["backbone", "text tokenizer"]),
        ("image_tokenizer", ["image tokenizer", "painter's embedding"]),
        ("decoder-turbo", ["decoder-turbo"]),
        ("vae", ["vae"]),
    ],
)
def test_what_is_missing_is_compared_with_nothing(copy, lost, faulty):
    place = copy / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert [part.name for part in inspect(copy) if part.faults] == faulty


@needs_diffusers
@pytest.mark.parametrize("channels", [8, 32])
def test_a_vae_of_another_model_is_named(copy, channels):
    vae = TINY.vae | {"latent_channels": channels}
    write_json(copy / "vae" / "config.json", vae)
    entries = vae_entries(dataclasses.replace(TINY, vae=vae))
    write_safetensors(copy / "vae" / VAE_WEIGHTS, entries, seed=0)
    for name in ("decoder", "decoder-turbo"):
        [fault] = faults(copy, name)
        assert f"makes latents of 16 channels, and the VAE reads {channels}" in fault


@needs_diffusers
def test_two_names_for_one_tensor_and_one_without_a_shape(copy):
    (copy / "SHA256SUMS").unlink()
    path = copy / "decoder" / "model.safetensors"
    state = load_file(path)
    key = "semantic_embedder.1.weight"
    save_file(state | {"cap_embedder.1.weight": torch.zeros(48, 32)}, path)
    [fault] = faults(copy, "decoder")
    assert key in fault and fault.endswith("are the same tensor")
    with pytest.raises(ValueError, match="are the same tensor"):
        load_painter(copy)
    save_file(state | {key: torch.tensor(1.0)}, path)
    [fault] = faults(copy, "decoder")
    assert fault.endswith("has no matrix cap_embedder.1.weight; download it again")


@needs_diffusers
def test_without_diffusers_the_painter_is_counted(checkpoint, monkeypatch):
    before = inspect(checkpoint)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    after = inspect(checkpoint)
    assert [part.parameters for part in after] == [part.parameters for part in before]
    assert needs.needs_of(checkpoint, after) == needs.needs_of(checkpoint, before)
    notes = {part.name: part.note for part in after if part.note}
    assert list(notes) == ["decoder-turbo", "decoder", "vae"]
    assert "not checked" in notes["vae"] and "minillada[official]" in notes["vae"]


@needs_diffusers
def test_without_diffusers_a_decoder_that_lacks_a_tensor_is_counted(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    path = copy / "decoder" / "model.safetensors"
    state = load_file(path)
    lost = state.pop("semantic_embedder.1.weight").numel()  # the one that is compared with others
    before = {part.name: part.parameters for part in inspect(copy)}
    save_file(state, path)
    [decoder] = [part for part in inspect(copy) if part.name == "decoder"]
    assert decoder.parameters == before["decoder"] - lost
    assert decoder.note and not decoder.faults


@pytest.mark.parametrize("config", [None, "{", "[]"])
def test_a_folder_that_does_not_say_what_it_is_should_have_every_part(tmp_path, config):
    if config:
        (tmp_path / "config.json").write_text(config)
    parts = inspect(tmp_path)
    assert len(parts) == 7 and all(len(part.faults) == 1 for part in parts)
    assert "config.json" in parts[0].faults[0]


def test_without_diffusers_a_missing_painter_is_a_fault(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    shutil.copy(checkpoint / "config.json", tmp_path)
    parts = {part.name: part for part in inspect(tmp_path)}
    assert "holds no diffusion_pytorch_model" in parts["vae"].faults[0] and not parts["vae"].note

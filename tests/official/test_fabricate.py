"""Random checkpoints: official names, shapes and sizes; the same numbers in every layout."""

import json
import shutil
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from minillada.model import Backbone
from minillada.official import writing
from minillada.official.fabricate import (
    PARTS,
    check_disk,
    fabricate,
    shards_of,
    tokenizer_entries,
)
from minillada.official.inspection import wrong_digests
from minillada.official.names import backbone_entries, prefixed
from minillada.official.siglip import load_tokenizer
from minillada.official.sizes import FULL, TINY, sizes_of
from minillada.official.text import load_vocabulary
from minillada.official.writing import CHUNK, Entry, numbers, write_safetensors
from minillada.settings import changed


def shards(folder):
    state = {}
    for path in sorted(folder.glob("model-*.safetensors")):
        state |= load_file(path)
    return state


def count(entries):
    return sum(entry.count for entry in entries)


def test_the_full_size_is_the_official_one():
    entries = backbone_entries(FULL.backbone)
    assert count(entries) == 16_322_752_256
    # Derived by hand: embedding and head, attention, one dense layer, 19 layers of experts.
    wide, head = 2048, 128
    attention = (16 + 2 * 4) * head * wide + 16 * head * wide + 2 * head + 2 * wide
    sparse = 256 * wide + 256 + (256 + 1) * 3 * 512 * wide
    by_hand = 2 * 173_568 * wide + wide + 20 * attention + 3 * 5120 * wide + 19 * sparse
    assert count(entries) == by_hand
    assert sum(entry.bytes for entry in entries) == pytest.approx(32.646e9, rel=1e-4)
    fused = backbone_entries(FULL.backbone, "fused")
    assert count(fused) == count(entries)
    assert len(tokenizer_entries(FULL)) == 488


def test_the_full_size_comes_in_thirteen_files_of_about_equal_size():
    plan = shards_of(backbone_entries(FULL.backbone), FULL.shards)
    sizes = [sum(entry.bytes for entry in shard) for shard in plan]
    assert len(plan) == 13 and max(sizes) < 1.3 * min(sizes)
    assert [entry for shard in plan for entry in shard] == backbone_entries(FULL.backbone)
    assert len(shards_of([Entry("a", (3,)), Entry("b", (3,))], 5)) == 2  # no file is empty


def test_full_width_with_fewer_layers():
    few = backbone_entries(sizes_of("full", layers=8).backbone)
    assert sum(entry.bytes for entry in few) == pytest.approx(13e9, rel=0.06)
    layers = {entry.key.split(".")[2] for entry in few if ".layers." in entry.key}
    assert layers == {str(layer) for layer in range(8)}


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("model.word_embeddings.weight", (173_568, 2048)),
        ("lm_head.weight", (173_568, 2048)),
        ("model.layers.0.mlp.down_proj.weight", (2048, 5120)),
        ("model.layers.19.attention.query_key_value.weight", (3072, 2048)),
        ("model.layers.3.attention.key_layernorm.weight", (128,)),
        ("model.layers.1.mlp.gate.expert_bias", (256,)),
        ("model.layers.1.mlp.experts.255.up_proj.weight", (512, 2048)),
        ("model.layers.19.mlp.shared_experts.down_proj.weight", (2048, 512)),
    ],
)
def test_released_names_and_shapes(key, shape):
    assert {entry.key: entry.shape for entry in backbone_entries(FULL.backbone)}[key] == shape


def test_fused_and_prefixed_names():
    fused = {entry.key: entry.shape for entry in backbone_entries(FULL.backbone, "fused")}
    assert fused["model.layers.1.mlp.experts.gate_proj"] == (256, 512, 2048)
    assert fused["model.layers.1.mlp.experts.down_proj"] == (256, 2048, 512)
    assert prefixed("model.layers.0.x") == "model.language_model.layers.0.x"
    assert prefixed("lm_head.weight") == "model.lm_head.weight"


@pytest.mark.parametrize("shared", [1, 2])
def test_our_backbone_reads_the_released_names(shared):
    """The backbone of the spine is the official one, name for name."""
    config = changed(TINY.backbone, num_shared_experts=shared)
    with torch.device("meta"):
        state = Backbone(config).state_dict()
    entries = backbone_entries(config)
    assert {key: tuple(value.shape) for key, value in state.items()} == {
        entry.key: entry.shape for entry in entries
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same checkpoint in three layouts, and another one."""
    place = tmp_path_factory.mktemp("official")
    backbone = ("backbone",)
    fabricate(place / "released", parts=("backbone", "image_tokenizer"))
    fabricate(place / "fused", layout="fused", parts=backbone)
    fabricate(place / "sibling", sibling=True, layers=2, parts=backbone)
    fabricate(place / "other", seed=1, parts=("backbone", "image_tokenizer"))
    return place


def test_every_layout_holds_the_same_numbers(folders):
    released, fused = shards(folders / "released"), shards(folders / "fused")
    for key, tensor in fused.items():
        if ".experts." not in key:
            assert torch.equal(tensor, released[key])
            continue
        start, name = key.rsplit(".", 1)
        for expert, matrix in enumerate(tensor):
            assert torch.equal(matrix, released[f"{start}.{expert}.{name}.weight"])
    for key, tensor in shards(folders / "sibling").items():
        key = key.replace("language_model.", "").replace("model.lm_head", "lm_head")
        assert torch.equal(tensor, released[key])
    other = shards(folders / "other")
    assert other.keys() == released.keys()
    assert not any(torch.equal(other[key], released[key]) for key in released)
    for read, name in ((load_file, "model.safetensors"), (torch.load, "sigvq_embedding.pt")):
        one, two = (read(folders / n / "image_tokenizer" / name) for n in ("released", "other"))
        assert one.keys() == two.keys()
        assert not any(torch.equal(one[key], two[key]) for key in one)


def test_index_and_configuration(folders):
    for name in ("released", "fused", "sibling"):
        folder = folders / name
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        where = index["weight_map"]
        assert sorted(set(where.values())) == [path.name for path in sorted(folder.glob("model-*"))]
        for path in folder.glob("model-*"):
            assert {key for key in where if where[key] == path.name} == load_file(path).keys()
        state = shards(folder)
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in state.values())
        assert wrong_digests(folder) == []
    config = json.loads((folders / "released" / "config.json").read_text())
    assert config["model_type"] == "llada2_moe"
    assert config["architectures"] == ["LLaDA2MoeModelLM"]
    assert "tie_word_embeddings" not in config and config["max_position_embeddings"] == 8192
    assert (config["n_group"], config["topk_group"], config["use_qk_norm"]) == (4, 2, True)
    rope = {"rope_theta": 600_000, "rope_type": "default", "partial_rotary_factor": 0.5}
    assert config["rope_parameters"] == rope
    assert json.loads((folders / "fused" / "config.json").read_text())["model_type"] == (
        "llada2_moe_veomni"
    )


def test_types_and_spread(folders):
    state = shards(folders / "released")
    for key, tensor in state.items():
        wanted = torch.float32 if key.endswith("expert_bias") else torch.bfloat16
        assert tensor.dtype == wanted and tensor.isfinite().all()
    assert float(state["model.norm.weight"].float().mean()) == pytest.approx(1, abs=0.05)
    assert state["model.layers.1.mlp.gate.expert_bias"].abs().max() < 0.1
    embedding = state["model.word_embeddings.weight"].float()
    assert float(embedding.std()) == pytest.approx(32**-0.5, rel=0.05)
    assert float(embedding.mean()) == pytest.approx(0, abs=0.01)
    assert len({tensor.float().numpy().tobytes() for tensor in state.values()}) == len(state)


def test_numbers_begin_at_a_multiple_of_eight(tmp_path):
    for length in range(1, 9):
        write_safetensors(tmp_path / "x", [Entry(length * "a", (3,))], 0)
        assert int.from_bytes((tmp_path / "x").read_bytes()[:8], "little") % 8 == 0
    with safe_open(tmp_path / "x", "pt") as file:
        assert file.metadata() == {"format": "pt"}  # other libraries want to be told


def test_a_file_that_is_not_finished_is_not_there(tmp_path, monkeypatch):
    def full_disk(entry, seed):
        yield from numbers(entry, seed)
        raise OSError("No space left on device")

    monkeypatch.setattr(writing, "numbers", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_safetensors(tmp_path / "x.safetensors", [Entry("a", (3,))], 0)
    assert list(tmp_path.iterdir()) == []


def test_the_other_parts_can_be_loaded(folders):
    vocab = load_vocabulary(folders / "released")
    assert (vocab.size, vocab.image_token_offset, vocab.codebook_size) == (576, 512, 64)
    assert vocab.eos_id != 156_892 and vocab.size_ids(64)
    assert len(vocab.markup("<uncondition>")) > 1
    assert vocab.decode(vocab.encode("fox")) == "fox"
    tokenizer = load_tokenizer(folders / "released")
    assert tokenizer.encode(torch.rand(1, 3, 64, 96)).shape == (1, 4, 6)


def test_large_tensors_are_written_in_chunks(tmp_path):
    long = Entry("a.weight", (3, CHUNK // 2 + 1))
    parts = [len(some) for some in numbers(long, 0)]
    assert parts == [CHUNK, CHUNK // 2 + 3]
    write_safetensors(tmp_path / "x.safetensors", [Entry("b", (3,)), long], 0)
    state = load_file(tmp_path / "x.safetensors")
    assert state["a.weight"].shape == long.shape
    assert torch.equal(state["a.weight"].flatten(), torch.cat(list(numbers(long, 0))))
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_what_cannot_be_fabricated(tmp_path, monkeypatch):
    # The optional package counts as installed: a wrong name is the only fault.
    monkeypatch.setitem(sys.modules, "diffusers", ModuleType("diffusers"))
    (tmp_path / "something").write_text("")
    for place in (tmp_path, tmp_path / "something"):
        with pytest.raises(ValueError, match=f"{place.name} is not an empty folder"):
            fabricate(place)
    with pytest.raises(ValueError, match="no size 'medium'; choose from tiny, full"):
        fabricate(tmp_path / "new", "medium")
    with pytest.raises(ValueError, match="no part 'vqvae'"):
        fabricate(tmp_path / "new", parts=("vqvae",))
    with pytest.raises(ValueError, match="'released' or 'fused', not 'fussed'"):
        fabricate(tmp_path / "new", layout="fussed", parts=("backbone",))
    assert not (tmp_path / "new").exists() and PARTS[0] == "backbone"


def test_a_full_disk_is_noticed_before_it_is_filled(tmp_path, monkeypatch):
    free = 10**6

    def usage(place):
        assert place.exists()
        return SimpleNamespace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(ValueError, match=r"takes 32\.6 GB, and .* has 0\.0 GB free"):
        fabricate(tmp_path / "deep" / "new", "full", parts=("backbone",))
    assert not (tmp_path / "deep").exists()
    free = 32_700_000_000
    check_disk(tmp_path, FULL, ("backbone",))


def test_without_diffusers_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match="needs diffusers, which is not installed; run"):
        fabricate(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    fabricate(tmp_path / "new", parts=("backbone",))  # needs no painter
    assert (tmp_path / "new" / "tokenizer.json").exists()

"""The official backbone from its files: every layout, every mode, and what is refused."""

import json
import subprocess
import sys
import warnings

import pytest
import torch
from helpers import Kernels, random_ids
from safetensors.torch import load_file, save_file

from minillada.commit import Tokens
from minillada.config import SamplingConfig
from minillada.extras import halves
from minillada.official import backbone as backbone_file
from minillada.official import four_bit, free, load_backbone, shards
from minillada.official.backbone import as_dtype
from minillada.official.config import read_config
from minillada.official.fabricate import fabricate
from minillada.official.mapped import Recent, StoredExperts
from minillada.official.shards import INDEX
from minillada.official.sizes import TINY
from minillada.official.sums import SUMS, write_sums
from minillada.sampler import generate

FIRST, SECOND = (f"model-{number:05d}-of-00003.safetensors" for number in (1, 2))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same checkpoint in three layouts, with checksums."""
    place = tmp_path_factory.mktemp("official")
    fabricate(place / "released", parts=("backbone",))
    fabricate(place / "fused", layout="fused", parts=("backbone",))
    fabricate(place / "sibling", sibling=True, parts=("backbone",))
    return place


@pytest.fixture
def folder(tmp_path):
    """A checkpoint that a test may change; there are no checksums."""
    fabricate(tmp_path / "own", parts=("backbone",))
    (tmp_path / "own" / SUMS).unlink()
    return tmp_path / "own"


@pytest.fixture
def quiet():
    """No warning that checksums are missing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=f".*no {SUMS}")
        yield


def change(path, **values):
    """Change a JSON file; None removes a key."""
    content = json.loads(path.read_text())
    for key, value in values.items():
        content.pop(key, None)
        if value is not None:
            content[key] = value
    path.write_text(json.dumps(content))


def on_disk(folder):
    state = {}
    for path in sorted(folder.glob("model-*.safetensors")):
        state |= load_file(path)
    return state


# --- what is loaded ------------------------------------------------------------------------------


def test_weights_come_in_bit_for_bit(folders):
    backbone = load_backbone(folders / "released")
    state, stored = backbone.state_dict(), on_disk(folders / "released")
    assert state.keys() == stored.keys()
    assert all(torch.equal(state[key], stored[key]) for key in stored)
    assert not backbone.training and not any(p.requires_grad for p in backbone.parameters())
    assert backbone.model.layers[1].mlp.gate.expert_bias.dtype == torch.float32
    assert backbone.config.max_position_embeddings == 8192 and backbone.config.block_size == 32


def test_what_no_file_holds_begins_at_nothing(folders):
    torch.use_deterministic_algorithms(True)  # new memory is filled with the largest numbers
    try:
        backbone = load_backbone(folders / "released")
    finally:
        torch.use_deterministic_algorithms(False)
    assert not backbone.model.layers[1].mlp.gate.received.any()


@pytest.mark.parametrize("layout", ["fused", "sibling"])
def test_every_layout_is_the_same_model(folders, layout):
    ours, other = load_backbone(folders / "released"), load_backbone(folders / layout)
    state = other.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in ours.state_dict().items())


@pytest.mark.parametrize("layout", ["released", "fused", "sibling"])
@pytest.mark.parametrize("how", [{"mapped": True}, {"experts_on_gpu": 3}, {"experts_on_gpu": 99}])
def test_experts_in_their_files_are_the_same_model(folders, layout, how):
    ids = random_ids(2, 24, 500)
    ours, other = load_backbone(folders / "released"), load_backbone(folders / layout, **how)
    assert torch.equal(other(ids), ours(ids))
    assert other.state_dict().keys() == ours.state_dict().keys()
    # Only what is not an expert has memory of its own.
    routed = sum(p.numel() for name, p in ours.named_parameters() if ".experts." in name)
    total = sum(p.numel() for p in ours.parameters())
    assert sum(p.numel() for p in other.parameters()) == total - routed


def test_float32_is_bfloat16_with_more_digits(folders):
    ids = random_ids(1, 24, 500)
    exact = load_backbone(folders / "released", dtype="float32")
    assert exact.lm_head.weight.dtype == torch.float32
    rounded = load_backbone(folders / "released", dtype=torch.bfloat16)
    difference = (exact(ids) - rounded(ids)).abs()
    assert 0 < difference.max() < 0.05 * exact(ids).abs().max()
    # Fetched experts are converted.
    fetched = load_backbone(folders / "released", dtype="float32", experts_on_gpu=2)
    assert torch.equal(fetched(ids), exact(ids))


@pytest.mark.parametrize("how", [{}, {"mapped": True}, {"bits": 8}], ids=str)
def test_a_processor_without_bfloat16_computes_the_same_by_other_code(folders, monkeypatch, how):
    """Experts, attention and head multiply in float32 there; each result is rounded as usual."""
    backbone, ids = load_backbone(folders / "released", **how), random_ids(2, 32)
    logits, kernels = [], []
    for low in (True, False):
        monkeypatch.setattr(halves, "has_bfloat16", lambda device, low=low: low)
        with Kernels() as seen:
            logits.append(backbone(ids))
        kernels.append(seen.types.count(torch.bfloat16))
    assert (logits[0] - logits[1]).abs().max() < 0.05 * logits[0].std()
    assert kernels[1] < 0.1 * kernels[0]  # what is left are products with very few rows


def test_recently_used_experts_stay(folders):
    backbone = load_backbone(folders / "released", experts_on_gpu=2)
    experts = backbone.model.layers[1].mlp.experts
    assert isinstance(experts, StoredExperts) and len(experts) == 8
    recent, fetch = experts.recent, experts.apart()
    addresses = {fetch[number].up_proj.data_ptr() for number in (0, 1, 0, 2, 0, 2)}
    assert (recent.fetched, recent.found) == (3, 3) and list(recent.kept) == [(1, 0), (1, 2)]
    assert len(addresses) == 2  # expert 2 took the memory of expert 1
    assert torch.equal(fetch[1].up_proj, experts.experts[1].up_proj)
    with pytest.raises(ValueError, match="at least one expert must have room"):
        Recent(0, torch.device("cpu"), torch.float32)
    alone = Recent(1, torch.device("cpu"), torch.float32)
    assert torch.equal(alone.fetch(0, 0, experts.experts[1])[0], experts.experts[1][0].float())


@pytest.mark.parametrize("layout", ["released", "fused"])
def test_experts_in_eight_bits_are_nearly_the_same_model(folders, layout):
    ids = random_ids(2, 24, 500)
    exact = load_backbone(folders / layout, dtype="float32")
    backbone = load_backbone(folders / layout, dtype="float32", bits=8)
    experts = backbone.model.layers[2].mlp.experts
    for ours, theirs in zip(experts.apart(), exact.model.layers[2].mlp.experts.apart()):
        for (numbers, scales), matrix in zip(ours, theirs):
            assert numbers.dtype == torch.int8 and numbers.abs().amax(1).eq(127).all()
            error = (numbers * scales[:, None] - matrix).abs()
            assert (error <= scales[:, None] * 0.501).all()
    difference = (backbone(ids) - exact(ids)).abs().mean()
    assert 0 < difference < 0.03 * exact(ids).std()
    stacks = sum(experts.get_buffer(name).nbytes for name in ("gate_proj", "up_proj", "down_proj"))
    assert stacks == sum(p.numel() for p in exact.model.layers[2].mlp.experts.parameters())


@pytest.mark.parametrize("layout", ["released", "fused"])
def test_small_pieces_make_the_same_eight_bits(folders, monkeypatch, layout):
    """As of the real files, whose matrices are larger than a piece."""
    whole = load_backbone(folders / layout, bits=8).state_dict()
    monkeypatch.setattr(shards, "PIECE", 200)
    pieces = load_backbone(folders / layout, bits=8).state_dict()
    assert all(torch.equal(pieces[key], whole[key]) for key in whole)


def test_eight_bits_are_rounded_from_the_digits_of_the_file(folder, quiet):
    """Not from those of bfloat16, in which the rest of the model is."""
    matrix = torch.randn(16, 32)
    key = "model.layers.1.mlp.experts.4.up_proj.weight"
    rewrite(folder / SECOND, lambda state: state.update({key: matrix}))
    change(folder / INDEX, metadata={})
    experts = load_backbone(folder, bits=8).model.layers[1].mlp.experts
    numbers, scales = experts.apart()[4].up_proj
    assert ((numbers * scales[:, None] - matrix).abs() <= 0.501 * scales[:, None]).all()


@pytest.mark.parametrize("layout", ["released", "fused"])
def test_experts_in_four_bits_are_roughly_the_same_model(folders, layout):
    pytest.importorskip("bitsandbytes")
    ids = random_ids(2, 24, 500)
    exact = load_backbone(folders / layout, dtype="float32")
    backbone = load_backbone(folders / layout, dtype="float32", bits=4)
    experts, theirs = (model.model.layers[2].mlp.experts for model in (backbone, exact))
    for ours, right in zip(experts.apart(), theirs.apart()):
        for packed, matrix in zip(ours, right):
            error = (packed.matrix(torch.float32) - matrix).abs().flatten()
            # The widest gap between two of the 16 values is that from -1 to -0.696.
            assert (error <= 0.1525 * packed.scales.repeat_interleave(four_bit.BLOCK)).all()
            assert error.square().mean().sqrt() < 0.11 * matrix.square().mean().sqrt()
    # Three matrices that lose a tenth each make 0.17 of an expert's output; twice that is refused.
    difference = (backbone(ids) - exact(ids)).square().mean().sqrt()
    assert 0 < difference < 0.34 * exact(ids).std()
    stored = sum(buffer.nbytes for buffer in experts.buffers())
    assert stored == 4.5 / 8 * sum(p.numel() for p in theirs.parameters())


def test_four_bits_have_the_scales_of_the_file(folder, quiet):
    """With all its digits, not with those of bfloat16."""
    pytest.importorskip("bitsandbytes")
    matrix = torch.randn(16, 32)
    key = "model.layers.1.mlp.experts.4.up_proj.weight"
    rewrite(folder / SECOND, lambda state: state.update({key: matrix}))
    change(folder / INDEX, metadata={})
    packed = load_backbone(folder, bits=4).model.layers[1].mlp.experts.apart()[4].up_proj
    assert torch.equal(packed.scales, matrix.view(-1, four_bit.BLOCK).abs().amax(1))


def test_a_model_in_four_bits_writes(folders):
    pytest.importorskip("bitsandbytes")
    backbone = load_backbone(folders / "released", bits=4)
    config = SamplingConfig(block_size=32, steps=4)
    written = generate(backbone, random_ids(2, 8, 500), 32, config, Tokens(0, 1)).ids
    assert written.shape == (2, 32) and (written != 0).all()


def test_four_bits_need_a_package_and_whole_blocks(folders, monkeypatch):
    with monkeypatch.context() as hidden:
        for name in ("bitsandbytes", "bitsandbytes.functional"):  # a test above may have read both
            hidden.setitem(sys.modules, name, None)
        with pytest.raises(ValueError, match=r"needs bitsandbytes.*minillada\[four-bit\]"):
            load_backbone(folders / "released", bits=4)
    with pytest.raises(ValueError, match="matrices of 6 x 5 numbers have no blocks of 64"):
        four_bit.FourBitExperts(2, 6, 5)


def test_pieces_that_are_no_whole_blocks_are_refused():
    """A piece of a file is whole rows, and those of 96 numbers may end inside a block."""
    experts = four_bit.FourBitExperts(2, 96, 64)
    with pytest.raises(ValueError, match="rows of 96 numbers .* no whole blocks of 64"):
        experts.put("gate_proj", 0, torch.zeros(3, 96))


def test_four_bits_download_no_compiled_code(tmp_path):
    pytest.importorskip("bitsandbytes")
    (tmp_path / "kernels.py").write_text("print('the package of downloaded code was imported')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
    code += "from minillada.official.four_bit import library; library().quantize_4bit; "
    code += "import kernels"  # for others it is there as before
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("downloaded code") == 1 and "kernels" not in done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("how", "share"),
    [({"experts_on_gpu": 2}, 0.05), ({"bits": 8}, 0.1), ({"bits": 4}, 0.5)],
)
def test_modes_on_a_gpu(folders, how, share):
    if how.get("bits") == 4:
        pytest.importorskip("bitsandbytes")
    ids = random_ids(1, 24, 500).cuda()
    whole = load_backbone(folders / "released", device="cuda")(ids)
    other = load_backbone(folders / "released", device="cuda", **how)(ids)
    assert (whole - other).square().mean().sqrt() < share * whole.std()


def test_modes_that_do_not_exist(folders):
    with pytest.raises(ValueError, match="dtype is one of bfloat16, float32, not 'float8'"):
        load_backbone(folders / "released", dtype="float8")
    with pytest.raises(ValueError, match=r"mapped experts keep .* which is torch.bfloat16"):
        load_backbone(folders / "released", dtype="float32", mapped=True)
    with pytest.raises(ValueError, match="give experts_on_gpu"):
        load_backbone(folders / "released", device="cuda", mapped=True)
    with pytest.raises(ValueError, match="rounded to 8 or 4 bits, not to 5"):
        load_backbone(folders / "released", bits=5)
    for files in ({"mapped": True}, {"experts_on_gpu": 2}):
        with pytest.raises(ValueError, match="stay in their files cannot be rounded"):
            load_backbone(folders / "released", bits=8, **files)
    both = {"mapped": True, "experts_on_gpu": 2}
    backbone_file.check_mode(torch.device("cuda"), **both)  # they say the same
    assert as_dtype("float32") == torch.float32
    with pytest.raises(ValueError, match="experts_on_gpu must be at least 1"):
        load_backbone(folders / "released", experts_on_gpu=0)


def test_a_model_that_cannot_fit_is_refused_before_it_is_read(folders, monkeypatch):
    monkeypatch.setattr(free, "linux_memory", lambda name: 1e-4 if name == "MemAvailable" else 0.0)
    monkeypatch.setattr(backbone_file, "fill", None)
    with pytest.raises(ValueError, match=r"need 0.0 GB, and cpu has 0.0 GB .* official check"):
        load_backbone(folders / "released")
    monkeypatch.undo()
    # Experts that stay in their files need no room. Where nothing is known, nothing is refused.
    whole = sum(p.nbytes for p in load_backbone(folders / "released").parameters()) / 1e9
    monkeypatch.setattr(free, "linux_memory", lambda name: 0.8 * whole)
    load_backbone(folders / "released", mapped=True)
    monkeypatch.setattr(free, "linux_memory", lambda name: None)
    load_backbone(folders / "released")


def test_one_file_without_an_index(folder, tmp_path, quiet):
    state = on_disk(folder)
    (tmp_path / "single").mkdir()
    save_file(state, tmp_path / "single" / "model.safetensors")
    (tmp_path / "single" / "config.json").write_text((folder / "config.json").read_text())
    ids = random_ids(1, 24, 500)
    assert torch.equal(load_backbone(tmp_path / "single")(ids), load_backbone(folder)(ids))


def test_a_model_made_in_inference_mode_is_the_same(folders):
    """Its memory may be written to only in this mode, which other threads do not have."""
    with torch.inference_mode():
        inside = load_backbone(folders / "released").state_dict()
    outside = load_backbone(folders / "released").state_dict()
    assert all(torch.equal(inside[key], outside[key]) for key in outside)


def test_many_small_pieces_that_the_system_forgets(folders, monkeypatch):
    whole = load_backbone(folders / "released").state_dict()
    monkeypatch.setattr(shards, "PIECE", 100)
    monkeypatch.setattr(backbone_file, "would_fill_memory", lambda tensors: True)
    pieces = load_backbone(folders / "fused").state_dict()
    assert all(torch.equal(pieces[key], whole[key]) for key in whole)


# --- the configuration ---------------------------------------------------------------------------


def test_the_configuration_is_the_one_that_was_written(folder):
    assert read_config(folder) == TINY.backbone
    change(folder / "config.json", rope_theta=None, head_dim=None, block_size=7)
    assert read_config(folder) == TINY.backbone  # from rope_parameters; 32 / 4 = 8


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"model_type": "llama"}, "model_type is 'llama', and only 'llada2_moe' can be computed"),
        ({"use_qk_norm": False}, "use_qk_norm is False, and only True"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', and only 'silu'"),
        ({"rope_theta": 10000.0}, "rope_theta is both 10000.0 and 600000.0"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling is"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn', and only plain RoPE"),
        ({"rope_parameters": {"factor": 2}}, "not those of plain RoPE"),
        ({"quantization_config": {"quant_method": "fp8"}}, "stored rounded .'fp8'"),
        ({"num_experts": None}, "does not say num_experts"),
        ({"vocab_size": "many"}, "vocab_size must be a valid integer"),
        ({"head_dim": None, "num_attention_heads": 0}, "must be a positive whole number, got 0"),
        ({"head_dim": None, "hidden_size": "32"}, "hidden_size must be a positive whole number"),
        ({"moe_shared_expert_intermediate_size": 5}, "shared experts are 5 wide"),
    ],
)
def test_contradictions_are_refused(folder, values, sentence):
    change(folder / "config.json", **values)
    with pytest.raises(ValueError, match=sentence):
        read_config(folder)


def test_sizes_are_never_guessed(folder):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    sizes = ["vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "num_experts"]
    sizes += ["num_attention_heads", "num_key_value_heads", "moe_intermediate_size"]
    for key in (*sizes, "num_experts_per_tok"):
        path.write_text(json.dumps({name: values[name] for name in values if name != key}))
        with pytest.raises(ValueError, match=f"does not say {key}; download"):
            read_config(folder)


def test_every_other_computation_is_refused(folder):
    """Nothing of this changes a shape, so only the settings can tell."""
    path = folder / "config.json"
    values = json.loads(path.read_text())
    others = dict.fromkeys(("use_bias", "use_qkv_bias", "norm_head", "use_sliding_window"), True)
    others |= dict.fromkeys(("norm_topk_prob", "moe_router_enable_expert_bias"), False)
    others |= {"score_function": "softmax", "num_nextn_predict_layers": 1}
    for key, value in others.items():
        path.write_text(json.dumps(values | {key: value}))
        with pytest.raises(ValueError, match=f"{key} is {value!r}, and only"):
            read_config(folder)
    for kind in ({"rope_type": "yarn"}, {"type": "yarn"}):
        path.write_text(json.dumps(values | {"rope_parameters": kind}))
        with pytest.raises(ValueError, match="rope_type is 'yarn', and only plain RoPE"):
            read_config(folder)
    usual = {"num_nextn_predict_layers": 0, "score_function": "sigmoid", "norm_head": False}
    path.write_text(json.dumps(values | usual))
    assert read_config(folder) == TINY.backbone
    two = {"num_shared_experts": 2, "moe_shared_expert_intermediate_size": 32}  # 16 wide each
    path.write_text(json.dumps(values | two))
    assert read_config(folder).num_shared_experts == 2


def test_unknown_settings_are_named(folder):
    change(folder / "config.json", use_cache=True, turbo=True, warp=9)
    with pytest.warns(UserWarning, match="unknown settings turbo, warp are left out"):
        read_config(folder)


def test_a_tied_head_is_not_believed(folder, quiet):
    change(folder / "config.json", tie_word_embeddings=True)
    backbone = load_backbone(folder)
    assert not torch.equal(backbone.lm_head.weight, backbone.model.word_embeddings.weight)


# --- files ---------------------------------------------------------------------------------------


def rewrite(path, edit):
    """Read a shard, let `edit` change its tensors, write it again."""
    state = load_file(path)
    edit(state)
    save_file(state, path)


def refused(folder, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        load_backbone(folder)
    assert "\n" not in str(caught.value)


def test_missing_extra_and_misshapen_tensors_are_named(folder, quiet):
    rewrite(folder / FIRST, lambda state: state.pop("model.layers.0.mlp.up_proj.weight"))
    refused(folder, f"{FIRST} does not hold model.layers.0.mlp.up_proj.weight")
    index = json.loads((folder / INDEX).read_text())["weight_map"]
    del index["model.layers.0.mlp.up_proj.weight"]
    change(folder / INDEX, weight_map=index, metadata=None)
    refused(folder, "does not fit its configuration; missing: model.layers.0.mlp.up_proj.weight")
    change(folder / "config.json", vocab_size=577, num_hidden_layers=2)
    refused(folder, r"unexpected: model.layers.2.*misshapen: lm_head.weight \[576, 32\], not \[577")


def test_an_index_of_other_sizes(folder, quiet):
    size = json.loads((folder / INDEX).read_text())["metadata"]["total_size"]
    for total in (size - 1, size + 1):
        change(folder / INDEX, metadata={"total_size": total})
        refused(folder, f"speaks of {total} bytes, and its files hold {size}")


def test_files_that_would_fill_half_of_the_free_memory(tmp_path, monkeypatch):
    file = [shards.Stored(tmp_path, "a", (3,), torch.float32, 10**9, 4 * 10**9)]  # 3 GB
    for free_gb, fills in ((5.9, True), (6.1, False), (None, False)):
        monkeypatch.setattr(shards, "linux_memory", lambda name, found=free_gb: found)
        assert shards.would_fill_memory(file) is fills


def test_a_tensor_in_two_files(folder, quiet):
    """The index names it, but for the other file."""
    key = "model.word_embeddings.weight"
    again = load_file(folder / FIRST)[key]
    rewrite(folder / SECOND, lambda state: state.update({key: again}))
    refused(folder, f"{SECOND} holds, against the index, {key}; download {SECOND}")


@pytest.mark.parametrize(
    "name",
    [
        "../x.safetensors",
        "/x.safetensors",
        "a/x.safetensors",
        "a\\x.safetensors",
        "C:x.safetensors",
        "x\n.safetensors",
        "x.bin",
        3,
    ],
)
def test_an_index_that_leads_elsewhere_is_refused(folder, quiet, name):
    where = json.loads((folder / INDEX).read_text())["weight_map"]
    change(folder / INDEX, weight_map=where | {"lm_head.weight": name})
    refused(folder, "is not a safetensors file beside it")


def test_files_that_are_damaged(folder, quiet):
    path = folder / FIRST
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    refused(folder, "is not a complete safetensors file")
    path.write_bytes(whole[:4])
    refused(folder, "is not a complete safetensors file")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=FIRST):
        load_backbone(folder)
    path.write_bytes(whole)
    for index in ("{}", '{"weight_map": {}}', '{"weight_map": {"a": "b"}, "metadata": []}'):
        (folder / INDEX).write_text(index)
        refused(folder, "has no weight_map")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("how", [{}, {"mapped": True}])
def test_numbers_that_are_not_finite(folder, quiet, value, how):
    def edit(state):
        state["model.layers.1.mlp.experts.4.up_proj.weight"][3, 5] = value

    rewrite(folder / SECOND, edit)
    with pytest.raises(ValueError, match=r"experts.4.up_proj.weight holds NaN or infinity"):
        load_backbone(folder, **how)


@pytest.mark.parametrize("how", [{}, {"experts_on_gpu": 2}, {"bits": 8}])
def test_numbers_that_are_too_large_for_the_models_type(folder, quiet, how):
    """They are finite in a file of float64, and were infinite in the model."""
    change(folder / INDEX, metadata={})
    for key in ("lm_head.weight", "model.layers.1.mlp.experts.4.up_proj.weight"):
        path = folder / json.loads((folder / INDEX).read_text())["weight_map"][key]
        state = load_file(path)
        save_file(state | {key: state[key].double() * 1e100}, path)
        with pytest.raises(ValueError, match=f"{key} holds NaN or infinity"):
            load_backbone(folder, **how)
        save_file(state | {key: state[key].double()}, path)
        load_backbone(folder, **how)


def test_fp8_is_refused_by_name(folder, quiet):
    def edit(state):
        key = "model.layers.1.mlp.experts.4.up_proj.weight"
        state[key] = state[key].to(torch.float8_e4m3fn)

    rewrite(folder / SECOND, edit)
    refused(folder, r"experts.4.up_proj.weight is stored as F8_E4M3, and only")


def test_more_experts_than_files_hold(folder, quiet):
    change(folder / "config.json", num_experts=8_000)
    refused(folder, "holds 82 tensors, and its config.json asks for more than 48003")


def test_more_experts_than_a_stack_holds(tmp_path, quiet):
    fabricate(tmp_path / "own", layout="fused", parts=("backbone",))
    (tmp_path / "own" / SUMS).unlink()
    change(tmp_path / "own" / "config.json", num_experts=20_000)
    refused(tmp_path / "own", "more than 9, with 20000 experts a layer; do they belong together")


@pytest.mark.parametrize("how", [{}, {"mapped": True}])
def test_checksums_notice_a_flipped_bit(folder, how):
    write_sums(folder)
    content = bytearray((folder / FIRST).read_bytes())
    content[-100] ^= 1
    (folder / FIRST).write_bytes(content)
    with pytest.raises(ValueError, match=f"{FIRST} is not the file that {SUMS} describes"):
        load_backbone(folder, **how)


def test_checksums_of_small_files_and_their_lines(folder):
    write_sums(folder)
    assert (folder / SUMS).read_text().splitlines()[0].endswith("  config.json")
    load_backbone(folder)
    change(folder / "config.json", rms_norm_eps=1e-5)
    refused(folder, "config.json is not the file that")
    (folder / SUMS).write_text("nonsense\n")
    refused(folder, "has a line that is no checksum: 'nonsense'")
    (folder / SUMS).write_text(64 * "0" + " *other\n")
    refused(folder, f"{SUMS} does not name {FIRST}; make it again")


def test_without_checksums_it_is_said(folder):
    with pytest.warns(UserWarning, match=f"has no {SUMS}, so flipped bits"):
        load_backbone(folder)

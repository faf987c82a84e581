"""Random single faults in a checkpoint: each is refused in one sentence, or changes nothing.

200 in the files of the backbone, 60 in those of image tokenizer and painter.
"""

import json
import shutil
import struct
import warnings
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import load_file, save_file

from minillada.official import load_backbone
from minillada.official.fabricate import fabricate
from minillada.official.inspection import inspect_backbone, inspect_text, inspected
from minillada.official.painter import load_painter
from minillada.official.shards import INDEX
from minillada.official.siglip import load_tokenizer
from minillada.official.sums import SUMS, write_sums

CASES = 200


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A checkpoint without faults, with checksums, and its backbone."""
    folder = tmp_path_factory.mktemp("official") / "whole"
    fabricate(folder, parts=("backbone",))
    write_sums(folder)
    return folder, load_backbone(folder)


def shard_of(folder: Path, random: Random) -> Path:
    return random.choice(sorted(folder.glob("model-*.safetensors")))


def rewrite(folder: Path, random: Random, edit) -> None:
    """Let `edit` change the tensors of a shard, of which it gets one name."""
    path = shard_of(folder, random)
    state = load_file(path)
    edit(state, random.choice(sorted(state)))
    save_file(state, path)


def change(path: Path, edit) -> None:
    """Let `edit` change the content of a JSON file."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# --- faults --------------------------------------------------------------------------------------


def flip(path: Path, random: Random, end: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    place = random.randrange(end or len(content))
    content[place] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def a_bit(folder: Path, random: Random) -> None:
    """Anywhere, in any file: in a number most of the time."""
    flip(random.choice(sorted(folder.iterdir())), random)


def a_bit_of_numbers(folder: Path, random: Random) -> None:
    flip(shard_of(folder, random), random)


def a_bit_of_a_header(folder: Path, random: Random) -> None:
    path = shard_of(folder, random)
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    flip(path, random, 8 + length)


def a_bit_of_the_index(folder: Path, random: Random) -> None:
    flip(folder / INDEX, random)


def a_shorter_file(folder: Path, random: Random) -> None:
    path = random.choice([folder / INDEX, folder / "config.json", shard_of(folder, random)])
    content = path.read_bytes()
    path.write_bytes(content[: random.choice([random.randrange(len(content)), len(content) - 1])])


def a_longer_file(folder: Path, random: Random) -> None:
    path = shard_of(folder, random)
    path.write_bytes(path.read_bytes() + bytes(random.randrange(1, 99)))


def a_lost_file(folder: Path, random: Random) -> None:
    random.choice([folder / "config.json", shard_of(folder, random)]).unlink()


def exchanged_files(folder: Path, random: Random) -> None:
    one, other = random.sample(sorted(folder.glob("model-*.safetensors")), 2)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def another_name(folder: Path, random: Random) -> None:
    def edit(state, key):
        state[random.choice([key + "s", key[:-1], "x", "../" + key, ""])] = state.pop(key)

    rewrite(folder, random, edit)


def another_shape(folder: Path, random: Random) -> None:
    def edit(state, key):
        tensor = state[key]
        wrong = [tensor[1:], tensor[None], torch.cat([tensor, tensor]), tensor[..., :0]]
        state[key] = random.choice(wrong).contiguous()

    rewrite(folder, random, edit)


def another_type(folder: Path, random: Random) -> None:
    def edit(state, key):
        types = [torch.float32, torch.float64, torch.int8, torch.float8_e4m3fn, torch.bool]
        state[key] = state[key].to(random.choice(types))

    rewrite(folder, random, edit)


def a_number_that_is_none(folder: Path, random: Random) -> None:
    def edit(state, key):
        flat = state[key].view(-1)
        flat[random.randrange(len(flat))] = random.choice([float("nan"), float("inf")])

    rewrite(folder, random, edit)


def another_index(folder: Path, random: Random) -> None:
    def edit(index):
        where = index["weight_map"]
        key = random.choice(sorted(where))
        name = random.choice(sorted(set(where.values())))
        faults = [
            lambda: where.pop(key),
            lambda: where.update({key: "../" + name}),
            lambda: where.update({key: str(folder.parent / "secret.safetensors")}),
            lambda: where.update({key: random.choice([None, 7, [name], "", "config.json"])}),
            lambda: where.update({key: name}),
            lambda: where.update({key + ".more": name}),
            lambda: index.update(weight_map=random.choice([None, [], {}, "all"])),
            lambda: index.update(metadata={"total_size": random.randrange(10**6)}),
            lambda: index.update(metadata=[]),
        ]
        random.choice(faults)()

    change(folder / INDEX, edit)


def another_configuration(folder: Path, random: Random) -> None:
    sizes = [
        "vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads", "head_dim",
        "intermediate_size", "num_experts", "moe_intermediate_size", "num_shared_experts",
        "first_k_dense_replace",
    ]  # fmt: skip

    def edit(config):
        key = random.choice(sizes)
        wrong = [config[key] + 1, config[key] * 1000, -1, 0, "8", None, 10**30, [3], 2.5]
        config[key] = random.choice(wrong)

    change(folder / "config.json", edit)


WITH_SUMS = [a_bit, a_bit_of_numbers]
WITHOUT_SUMS = [
    a_bit_of_a_header, a_bit_of_the_index, a_shorter_file, a_longer_file, a_lost_file,
    exchanged_files, another_name, another_shape, another_type, a_number_that_is_none,
    another_index, another_configuration,
]  # fmt: skip
NUMBERS = [*WITH_SUMS, a_number_that_is_none]


@pytest.mark.parametrize("case", range(CASES))
def test_a_fault_is_refused_in_one_sentence_or_changes_nothing(whole, tmp_path, case):
    folder, intact = whole
    random = Random(case)
    faulty = tmp_path / "faulty"
    shutil.copytree(folder, faulty)
    # Every third fault is one that only checksums can notice. The others are noticed without.
    faults = WITH_SUMS if case % 3 == 0 else WITHOUT_SUMS
    if faults is WITHOUT_SUMS:
        (faulty / SUMS).unlink()
    fault = random.choice(faults)
    fault(faulty, random)
    inspections = [inspect_backbone, inspect_text]
    found = [inspected("", inspection, faulty)[0] for inspection in inspections]
    how = random.choice([{}, {"mapped": True}, {"experts_on_gpu": 2}])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            loaded = load_backbone(faulty, **how)
        except (ValueError, FileNotFoundError) as error:
            text = str(error)
            assert str(faulty) in text and "\n" not in text and len(text) < 1000
            # `check` reads headers alone, and names everything else that loading refuses.
            assert fault in NUMBERS or any(part.faults for part in found), text
            return
    assert loaded.config == intact.config
    state = loaded.state_dict()
    assert state.keys() == intact.state_dict().keys()
    for key, tensor in intact.state_dict().items():
        assert torch.equal(tensor, state[key].to(tensor.dtype)), key


def test_what_only_checksums_notice_is_said(whole, tmp_path):
    """Without them a flipped bit is another finite number, and the warning says so."""
    faulty = tmp_path / "faulty"
    shutil.copytree(whole[0], faulty)
    path = sorted(faulty.glob("model-*.safetensors"))[0]
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not the file that"):
        load_backbone(faulty)
    (faulty / SUMS).unlink()
    with pytest.warns(UserWarning, match="flipped bits in its files cannot be noticed"):
        load_backbone(faulty)


# --- image tokenizer and painter -----------------------------------------------------------------


def torn(path: Path, random: Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: random.randrange(len(content))])


def longer(path: Path, random: Random) -> None:
    path.write_bytes(path.read_bytes() + bytes(random.randrange(1, 99)))


def lost(path: Path, random: Random) -> None:
    path.unlink()


def wrong_tensor(path: Path, random: Random) -> None:
    """Another name, shape or type, or a number that is none; a JSON file loses its last bytes."""
    if path.suffix == ".json":
        return torn(path, random)
    is_pickle = path.suffix == ".pt"
    state = torch.load(path) if is_pickle else load_file(path)
    key = random.choice(sorted(state))
    nan = state[key].clone()
    nan.view(-1)[random.randrange(nan.numel())] = float("nan")
    eight_bits = state[key].to(torch.float8_e4m3fn)
    faults = [nan, state[key][None], state[key][:0]] + ([] if is_pickle else [eight_bits])
    state[random.choice([key, key, key + ".more"])] = random.choice(faults).clone().contiguous()
    torch.save(state, path) if is_pickle else save_file(state, path)


def parts_of(folder: Path, is_turbo: bool) -> list[dict[str, torch.Tensor]]:
    """What the image tokenizer and a painter consist of."""
    painter = load_painter(folder, is_turbo)
    networks = [load_tokenizer(folder), painter.sigvq, painter.transformer, painter.vae]
    return [network.state_dict() for network in networks]


@pytest.mark.parametrize("case", range(60))
def test_a_fault_in_another_part_is_refused_or_changes_nothing(checkpoint, tmp_path, case):
    pytest.importorskip("diffusers", reason='run pip install "minillada[official]"')
    random = Random(case)
    faulty = tmp_path / "faulty"
    shutil.copytree(checkpoint, faulty)
    is_turbo = random.random() < 0.5
    rooms = ["image_tokenizer", "decoder-turbo" if is_turbo else "decoder", "vae"]
    path = random.choice([path for room in rooms for path in sorted((faulty / room).iterdir())])
    # Every third is a bit that only a checksum can notice. The others are noticed without.
    if case % 3 == 0:
        flip(path, random)
    else:
        (faulty / SUMS).unlink()
        random.choice([torn, longer, lost, wrong_tensor])(path, random)
    try:
        found = parts_of(faulty, is_turbo)
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        assert str(faulty) in text and "\n" not in text and len(text) < 1000
        return
    assert case % 3, f"a flipped bit of {path.name} was not noticed"
    for state, intact in zip(found, parts_of(checkpoint, is_turbo)):
        assert state.keys() == intact.keys()
        assert all(torch.equal(state[key], intact[key]) for key in intact), path


def test_weights_without_a_checksum_are_named(checkpoint, tmp_path):
    """As on the hub, where someone gives checksums of the backbone alone."""
    folder = tmp_path / "partly"
    shutil.copytree(checkpoint, folder)
    lines = (folder / SUMS).read_text().splitlines(keepends=True)
    (folder / SUMS).write_text("".join(line for line in lines if "/" not in line))
    with pytest.warns(UserWarning, match="does not name image_tokenizer/model.safetensors, so"):
        load_tokenizer(folder)

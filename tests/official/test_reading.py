"""Files of a checkpoint: which is found, what is said of their tensors, and how they are taken."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from minillada.official.reading import (
    compare_shapes,
    configured,
    find,
    load_safetensors,
    read_json,
    renamed,
)
from minillada.official.siglip import QuantiserConfig

PATH = Path("weights")


def test_the_first_name_that_is_there_is_found(tmp_path):
    for name in ("second", "first"):
        (tmp_path / name).touch()
        assert find(tmp_path, "first", "second") == tmp_path / name
    with pytest.raises(FileNotFoundError, match="holds no third or fourth; pass the folder"):
        find(tmp_path, "third", "fourth")


def test_json_that_never_ends_is_refused(tmp_path):
    (tmp_path / "deep.json").write_text(100_000 * "[")
    with pytest.raises(ValueError, match="is not a JSON file"):
        read_json(tmp_path / "deep.json")


def test_settings_that_are_wrong_are_those_of_a_file():
    assert configured(QuantiserConfig, {"embed_dim": 7, "more": 1}, PATH).embed_dim == 7
    with pytest.raises(ValueError, match="^weights: embed_dim must be"):
        configured(QuantiserConfig, {"embed_dim": "many"}, PATH)
    with pytest.raises(ValueError, match="^weights has no settings for QuantiserConfig"):
        configured(QuantiserConfig, None, PATH)


def test_three_tensors_of_a_kind_are_named_and_the_others_counted():
    wanted = dict.fromkeys("abcde", (2,)) | {"x": (3, 4)}
    compare_shapes(wanted, wanted, PATH)
    with pytest.raises(ValueError) as caught:
        compare_shapes(wanted, {"x": (3, 5)} | dict.fromkeys("wvut", ()), PATH)
    assert str(caught.value) == (
        "weights does not fit its configuration; missing: a, b, c and 2 more; "
        "unexpected: t, u, v and 1 more; misshapen: x [3, 5], not [3, 4]"
    )


def test_new_names_lead_to_the_old_ones():
    assert renamed(["a.x", "a.y"], lambda key: key[2:], PATH) == {"x": "a.x", "y": "a.y"}
    with pytest.raises(ValueError, match="b.x and a.x are the same tensor"):
        renamed(["a.x", "b.x"], lambda key: key[2:], PATH)


@pytest.mark.parametrize("stored", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_module_takes_weights_of_every_type_and_is_frozen(tmp_path, stored):
    weight = torch.tensor([[0.5, -2.0, 3.0]])
    save_file({"old.weight": weight.to(stored)}, tmp_path / "w.safetensors")
    module = nn.Linear(3, 1, bias=False)
    rename = {"old.weight": "weight"}.__getitem__
    load_safetensors(module, tmp_path / "w.safetensors", "cpu", torch.bfloat16, rename)
    assert module.weight.dtype == torch.bfloat16 and torch.equal(module.weight.float(), weight)
    assert not module.training and not module.weight.requires_grad


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e39])
def test_one_number_that_is_none_is_refused(tmp_path, value):
    """Also one that is finite in the file, and too large for the model's type."""
    weight = torch.ones(1, 3, dtype=torch.float64)
    weight[0, 1] = value
    save_file({"weight": weight}, tmp_path / "w.safetensors")
    module = nn.Linear(3, 1, bias=False)
    with pytest.raises(ValueError, match="weight holds NaN or infinity"):
        load_safetensors(module, tmp_path / "w.safetensors", "cpu", torch.float32)

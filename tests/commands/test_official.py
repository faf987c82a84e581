"""The commands for the official checkpoint, on a tiny random one."""

import importlib.util
import json
import sys

import pytest
from PIL import Image

from minillada.official import resize
from minillada.official.calls import TEXT, Call
from minillada.official.fabricate import fabricate
from minillada.official.inspection import INDEX

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None,
    reason='diffusers is not installed; run pip install "minillada[official]"',
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("checkpoint") / "tiny"
    has_diffusers = importlib.util.find_spec("diffusers") is not None
    parts = {} if has_diffusers else {"parts": ("backbone", "image_tokenizer")}
    fabricate(place, **parts)
    return place


@pytest.fixture
def photo(tmp_path):
    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "photo.png")
    return "photo.png"


@needs_diffusers
def test_fabricate_check_and_info(call, refuse, tmp_path):
    options = ["--part", "backbone", "--part", "image_tokenizer", "--layers", 2]
    code, out, _ = call("official", "fabricate", "new", *options)
    assert code == 0 and out == "wrote new\n"
    code, out, _ = call("official", "info", "new", "--json")
    report = json.loads(out)
    assert code == 0 and report["num_hidden_layers"] == 2 and report["image codes"] == 64
    # Parts that are not there are faults.
    code, out, err = call("official", "check", "new", "--json")
    assert code == 2 and "decoder-turbo: " in err and json.loads(out)["faults"]


@needs_diffusers
def test_a_complete_checkpoint_passes(call, folder):
    code, out, _ = call("official", "check", folder, "--digests")
    assert code == 0 and out.count("complete") == 7 and "free now: " in out
    code, out, _ = call("official", "check", folder, "--json")
    report = json.loads(out)
    assert code == 0 and report["faults"] == [] and len(report["memory"]) == 7
    assert {"mode", "call", "gpu", "ram", "fits"} == set(report["memory"][0])


def test_memory_needs_no_checkpoint(call):
    code, out, _ = call("official", "memory")
    assert code == 0 and out.startswith("| `load(…)` with |") and "laptop, 16 GB" in out


@needs_diffusers
def test_draw_and_think(call, folder, tmp_path):
    options = ["--size", 32, "--steps", 1, "--painter-steps", 1]
    code, out, _ = call("official", "draw", folder, "a fox", *options, "--out", "fox.png")
    assert code == 0 and out == "saved fox.png\n"
    with Image.open(tmp_path / "fox.png") as image:
        assert image.size == (32, 32)


@needs_diffusers
def test_edit_think_and_interleave(call, folder, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(resize, "EDIT_CELLS", 4)  # small pictures, short texts
    monkeypatch.setattr(Call, "thinking", (8, TEXT))
    monkeypatch.setattr(Call, "telling", (8, TEXT))
    quick = ["--steps", 1, "--painter-steps", 1]
    options = ["--instruction", "make it red", "--crop", "released", "--out", "a.png", *quick]
    assert call("official", "edit", folder, photo, *options)[:2] == (0, "saved a.png\n")
    options = ["--size", 32, "--out", "b.png", *quick]
    code, out, _ = call("official", "think", folder, "meow", *options)
    assert code == 0 and out.endswith("saved b.png\n")
    options = ["--size", 32, "--images", 1, "--out", "story", *quick]
    assert call("official", "interleave", folder, "tell", *options)[0] == 0
    with Image.open(tmp_path / "a.png") as one, Image.open(tmp_path / "b.png") as other:
        assert max(one.size) == 128 and other.size == (32, 32)


def test_describe_and_answer(call, folder, photo):
    code, out, _ = call("official", "describe", folder, photo, "--length", 2)
    assert code == 0 and out.endswith("\n")
    options = ["--question", "what?", "--length", 2, "--dtype", "float32"]
    assert call("official", "answer", folder, photo, photo, *options)[0] == 0


def test_rounded_experts_answer(call, refuse, folder, photo, monkeypatch):
    asked = ["official", "describe", folder, photo, "--length", 2]
    assert call(*asked, "--bits", 8)[0] == 0
    assert "rounded to 8 or 4 bits, not to 3" in refuse(*asked, "--bits", 3)
    assert "cannot be rounded" in refuse(*asked, "--bits", 8, "--mapped")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    missing = refuse("official", "draw", "some/checkpoint", "a fox", "--bits", 4)
    assert 'needs bitsandbytes, which is not installed; run `pip install "minillada[' in missing


def test_groups_of_options_are_options(call):
    """Of each command the help names the shared options, and its arguments stand in order."""
    for command in ("draw", "describe", "answer", "edit", "think", "interleave"):
        code, out, _ = call("official", command, "--help")
        assert code == 0 and " ".join(out.split()[1:5]) == f"minillada official {command} [OPTIONS]"
        assert "--mapped" in out and "--experts-on-gpu" in out and "--bits" in out
        assert ("--painter-steps" in out) == (command not in ("describe", "answer"))


def test_what_cannot_be_done_is_one_sentence(refuse, folder, photo, tmp_path):
    refuse("official", "draw", "no-such-folder", "a fox")
    refuse("official", "describe", folder, "missing.png")
    (tmp_path / "text.png").write_text("no picture")
    refuse("official", "describe", folder, "text.png")
    refuse("official", "fabricate", folder)
    refuse("official", "check", tmp_path, "--digests")
    assert (folder / INDEX).is_file()

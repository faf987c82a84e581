"""The commands for the official checkpoint, on a tiny random one."""

import errno
import importlib.util
import io
import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from minillada import cli
from minillada.official import OfficialModel, resize
from minillada.official.fabricate import fabricate
from minillada.official.shards import INDEX
from minillada.official.sums import SUMS

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
    assert report["parameters of the image tokenizer"] == 45_840
    assert report["parameters of the decoder"] == "not complete"
    # Parts that are not there are faults.
    code, out, err = call("official", "check", "new", "--json")
    assert code == 2 and "decoder-turbo: " in err and json.loads(out)["faults"]


@needs_diffusers
def test_a_complete_checkpoint_passes(call, folder):
    code, out, _ = call("official", "check", folder, "--digests")
    assert code == 0 and out.count("complete") == 8 and "free now: " in out
    code, out, _ = call("official", "check", folder, "--json")
    report = json.loads(out)
    assert code == 0 and report["faults"] == [] and len(report["memory"]) == 7
    assert {"mode", "call", "gpu", "ram", "fits"} == set(report["memory"][0])


def test_faults_are_printed_also_where_checksums_are_missing(call, tmp_path):
    fabricate(tmp_path / "own", parts=("backbone",))
    (tmp_path / "own" / INDEX).write_text("{}")
    (tmp_path / "own" / SUMS).unlink()
    code, out, err = call("official", "check", "own", "--digests")
    assert code == 2 and "has no weight_map" in out and f"has no {SUMS}, so its bytes" in out
    assert err.startswith("minillada: backbone: ") and err.count("\n") == 1


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
    monkeypatch.setattr(resize, "EDIT_SQUARES", 4)  # small pictures
    quick = ["--steps", 1, "--painter-steps", 1]
    options = ["--instruction", "make it red", "--crop", "released", "--out", "a.png", *quick]
    assert call("official", "edit", folder, photo, *options)[:2] == (0, "saved a.png\n")
    options = ["--size", 32, "--length", 8, "--out", "b.png", *quick]
    code, out, _ = call("official", "think", folder, "meow", *options)
    assert code == 0 and out.endswith("saved b.png\n")
    options = ["--size", 32, "--length", 8, "--images", 1, "--out", "story", *quick]
    assert call("official", "interleave", folder, "tell", *options)[0] == 0
    with Image.open(tmp_path / "a.png") as one, Image.open(tmp_path / "b.png") as other:
        assert max(one.size) == 128 and other.size == (32, 32)


def test_a_full_disk_costs_no_text_of_a_story(call, folder, monkeypatch):
    class Full:
        def save(self, path, kind):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    story = ["First.", Full(), "Then.", Full()]
    monkeypatch.setattr(OfficialModel, "interleave", lambda *given, **named: story)
    code, out, err = call("official", "interleave", folder, "tell", "--out", "story")
    assert code == 2 and "No space left" in err
    first, second = (f"[{Path('story') / name}]" for name in ("1.png", "2.png"))
    assert out.split() == ["First.", first, "Then.", second]


def test_describe_and_answer(call, folder, photo):
    code, out, _ = call("official", "describe", folder, photo, "--length", 2)
    assert code == 0 and out.endswith("\n")
    options = ["--question", "what?", "--length", 2, "--dtype", "float32"]
    assert call("official", "answer", folder, photo, photo, *options)[0] == 0


def test_chat_with_one_question_and_line_by_line(call, refuse, tmp_path, monkeypatch):
    assert call("official", "fabricate", "text", "--size", "tiny-text")[:2] == (0, "wrote text\n")
    code, out, _ = call("official", "check", "text", "--json")
    assert code == 0 and len(json.loads(out)["parts"]) == 2
    code, out, _ = call("official", "info", "text", "--json")
    assert code == 0 and json.loads(out)["image codes"] == 0
    options = ["--length", 2, "--threshold", 0.7, "--edit-threshold", 0.5, "--system", "Be short."]
    code, out, _ = call("official", "chat", "text", "who?", *options)
    assert code == 0 and out.endswith("\n")
    # A line is a turn, and the model is given all turns so far.
    asked = []

    def chat(self, said, **wishes):
        asked.append((said, wishes))
        return f"answer {len(asked)}"

    monkeypatch.setattr(OfficialModel, "chat", chat)
    for end in ("", "\n  \nnot read\n"):
        asked.clear()
        monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo" + end))
        code, out, _ = call("official", "chat", "text", *options)
        assert code == 0 and out == "> answer 1\n> answer 2\n> "
        assert [said for said, _ in asked] == [["one"], ["one", "answer 1", "two"]]
    wishes = {"system": "Be short.", "length": 2, "threshold": 0.7, "edit_threshold": 0.5}
    assert asked[0][1] == wishes
    assert "cannot see or draw" in refuse("official", "draw", "text", "a fox")


def test_a_long_answer_keeps_its_lines_and_letters(call, folder, photo, monkeypatch):
    """What would move the cursor or hide something is escaped, and nothing else."""
    answer = "Zwei Kätzchen:\n\n\t- 白い\u3000猫 👩\u200d💻 C:\\new"
    monkeypatch.setattr(OfficialModel, "answer", lambda *given, **named: answer + "\x1b[2J\u202e\r")
    code, out, _ = call("official", "answer", folder, photo, "--question", "what?")
    assert code == 0 and out == answer + r"\x1b[2J\u202e\r" + "\n"


def test_names_of_a_foreign_file_cannot_move_the_cursor(call, tmp_path):
    fabricate(tmp_path / "own", parts=("backbone",))
    index = json.loads((tmp_path / "own" / INDEX).read_text())
    index["weight_map"]["\x1b[2Jevil"] = "model-00001-of-00003.safetensors"
    (tmp_path / "own" / INDEX).write_text(json.dumps(index))
    code, _, err = call("bench", "official", "own")
    assert code == 2 and "does not hold \\x1b[2Jevil" in err and "\x1b" not in err
    warning = cli.one_line("unknown\nsettings \x1b[1A", UserWarning, "config.py", 1)
    assert warning == "minillada: unknown settings \\x1b[1A\n"


def test_rounded_experts_answer(call, refuse, folder, photo, monkeypatch):
    asked = ["official", "describe", folder, photo, "--length", 2]
    assert call(*asked, "--bits", 8)[0] == 0
    assert "rounded to 8 or 4 bits, not to 3" in refuse(*asked, "--bits", 3)
    assert "cannot be rounded" in refuse(*asked, "--bits", 8, "--mapped")
    if importlib.util.find_spec("bitsandbytes"):
        assert call(*asked, "--bits", 4)[0] == 0
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    missing = refuse("official", "draw", "some/checkpoint", "a fox", "--bits", 4)
    assert 'needs bitsandbytes, which is not installed; run `pip install "minillada[' in missing


def test_groups_of_options_are_options(call):
    """Of each command the help names the shared options, and its arguments stand in order."""
    for command in ("chat", "draw", "describe", "answer", "edit", "think", "interleave"):
        code, out, _ = call("official", command, "--help")
        assert code == 0 and " ".join(out.split()[1:5]) == f"minillada official {command} [OPTIONS]"
        assert "--mapped" in out and "--experts-on-gpu" in out and "--bits" in out
        assert ("--painter-steps" in out) == (command not in ("chat", "describe", "answer"))


def test_what_cannot_be_done_is_one_sentence(refuse, folder, photo, tmp_path):
    refuse("official", "draw", "no-such-folder", "a fox")
    refuse("official", "describe", folder, "missing.png")
    (tmp_path / "text.png").write_text("no picture")
    refuse("official", "describe", folder, "text.png")
    refuse("official", "fabricate", folder)
    assert (folder / INDEX).is_file()


def test_what_is_refused_before_a_checkpoint_is_read(refuse, photo, tmp_path, monkeypatch):
    def read(*arguments, **options):
        raise AssertionError("the checkpoint was read")

    monkeypatch.setattr("minillada.official.load", read)
    (tmp_path / "file").write_text("")
    for command in ("draw", "think", "interleave"):
        assert "the text is empty" in refuse("official", command, "some/place", " ")
        assert "a multiple of 32" in refuse("official", command, "some/place", "x", "--size", 100)
    for command in ("draw", "think"):
        refuse("official", command, "some/place", "x", "--out", "x.gif")
    assert "is not a folder" in refuse("official", "interleave", "some/place", "x", "--out", "file")
    for command in ("draw", "think", "interleave"):
        few = ["some/place", "x", "--painter", "normal", "--painter-steps", 1]
        assert "normal painter must be at least 2" in refuse("official", command, *few)
    empty = ["--instruction", ""]
    assert "the text is empty" in refuse("official", "edit", "some/place", photo, *empty)
    empty = ["--question", ""]
    assert "the text is empty" in refuse("official", "answer", "some/place", photo, *empty)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    closed = refuse("official", "interleave", "some/place", "x", "--out", "story")
    assert "cannot write to the folder story" in closed


def test_the_bench_reads_as_the_other_commands(call, folder):
    """Also with experts that are fetched; on a CPU they come from the same files."""
    if not sys.platform.startswith("linux"):
        pytest.skip("asks the Linux kernel")
    options = ["--experts-on-gpu", 3, "--dtype", "float32", "--tokens", 8, "--json"]
    code, out, _ = call("bench", "official", folder, *options)
    report = json.loads(out)
    assert code == 0 and report["experts_on_gpu"] == 3 and report["clock"] == "wall clock"
    one = 3 * 16 * 32 * 4  # three matrices in float32
    assert report["fetched_gb"] == pytest.approx(report["experts_fetched"] * one / 1e9)
    assert report["fetched_gb"] / report["seconds_forward"] == report["fetched_gb_a_second"]

"""What a user can cause ends in one sentence and exit code 2; help is true on every terminal."""

import io
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers import save_tiny_uni

from minillada.datasets import mnist
from minillada.uni import Uni

COMMANDS = (
    "demo", "draw", "describe", "answer", "edit", "think", "interleave", "train", "merge",
    "evaluate", "info", "encode", "ablate",
)  # fmt: skip


def test_help_of_every_command_names_device_and_seed(call):
    code, whole, _ = call("--help")
    assert code == 0 and " | ".join(["interleave", "train", "encode"]) in " ".join(whole.split())
    for command in COMMANDS:
        code, out, _ = call(command, "--help")
        assert code == 0 and "--device" in out and "--seed" in out, command
        if command in ("train", "merge", "describe", "evaluate", "info"):
            assert "--json" in out, command
        assert whole.count(command) >= 2, f"the first lines leave out {command}"


def test_brackets_stay_in_help(call):
    assert '`pip install -e ".[bench]"`' in call("bench", "sampler", "--help")[1]


@pytest.mark.parametrize(
    "arguments",
    [["draw", "a seven", "--steps", "many"], ["fly"], ["draw"], ["draw", "a", "--colour", "red"]],
)
def test_arguments_that_cannot_be_read(call, arguments):
    code, out, err = call(*arguments)
    assert code == 2 and out == "" and "Traceback" not in err and err.strip()


def drawing(run, *options):
    return ["draw", "a two", "--steps", 1, "--count", 1, "--model", run, *options]


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(28, "No space left on device", "x.png"), "x.png: No space left on device"),
        (
            PermissionError(13, "Permission denied", "x.png"),
            "Permission denied; choose another place, or change",
        ),
        (OSError(30, "Read-only file system"), "Read-only file system"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "not enough"),
        (torch.OutOfMemoryError("CUDA out of memory."), "not enough memory"),
        (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "not valid UTF-8"),
        (ValueError("two\nlines"), "minillada: two lines"),
    ],
)
def test_errors_that_a_user_can_cause(refuse, run, monkeypatch, error, sentence):
    def fail(*arguments, **named):
        raise error

    monkeypatch.setattr(Uni, "draw", fail)
    assert sentence in refuse(*drawing(run))


def test_numbers_without_end_are_refused(call, run):
    for asked in (drawing(run, "--painter-steps", 10**30), ["bench", "train", "--batch", 10**30]):
        code, out, err = call(*asked)
        assert code == 2 and out == "" and "less than or equal to" in err


@pytest.mark.parametrize("error", [KeyError("x"), TypeError("x"), RuntimeError("shapes differ")])
def test_faults_of_the_program_keep_their_traceback(call, run, monkeypatch, error):
    def fail(*arguments, **named):
        raise error

    monkeypatch.setattr(Uni, "draw", fail)
    with pytest.raises(type(error)):
        call(*drawing(run))


def test_ctrl_c_says_so(call, run, monkeypatch, tmp_path):
    def interrupted(*arguments, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(Uni, "draw", interrupted)
    code, out, err = call(*drawing(run))
    assert code == 130 and out == "" and err.endswith("minillada: stopped\n")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_places_that_cannot_be_written(refuse, run, tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "there.png").write_text("keep me")
    assert "folder.png: it is a folder; choose another name" in refuse(
        *drawing(run, "--out", "folder.png")
    )
    assert "ame too long" in refuse(*drawing(run, "--out", "x" * 300 + ".png"))
    assert "file" in refuse(*drawing(run, "--out", "file/x.png"))
    if os.name != "nt":
        (tmp_path / "link.png").symlink_to(tmp_path / "there.png")
        assert "link.png is not a regular file" in refuse(*drawing(run, "--out", "link.png"))
        os.mkfifo(tmp_path / "pipe.png")
        assert "pipe.png is not a regular file" in refuse(*drawing(run, "--out", "pipe.png"))
        (tmp_path / "loop").symlink_to(tmp_path / "loop")
        loop = ["train", "mnist-cpu", "--start", run, "--out", "loop"]
        assert "folder loop; choose another folder with --out" in refuse(*loop)
    assert (tmp_path / "there.png").read_text() == "keep me"


def rename_a_field(weights, about):
    about.write_text(about.read_text().replace("hidden_size", "hidden"))


def take_other_weights(weights, about):
    shutil.copy(weights.parent.parent / "tokenizer" / weights.name, weights)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda w, j: w.write_bytes(w.read_bytes()[:-100]), "is not a complete safetensors file"),
        (lambda w, j: w.unlink(), "no weights"),
        (lambda w, j: j.unlink(), "weights.json is missing"),
        (lambda w, j: j.write_text("{"), "is not a valid JSON object"),
        (lambda w, j: j.write_text("[" * 100_000), "is not a valid JSON object"),
        (lambda w, j: j.write_bytes(b"\xff\xfe"), "is not a valid JSON object"),
        (rename_a_field, "was changed after"),
        (take_other_weights, "do not belong together"),
    ],
)
def test_damaged_weights(refuse, tmp_path, damage, sentence):
    run = save_tiny_uni(tmp_path)
    damage(run / "weights.safetensors", run / "weights.json")
    assert sentence in refuse("draw", "a seven", "--model", run)


def test_damaged_and_missing_data(refuse, monkeypatch, tmp_path):
    def no_network(*arguments, **named):
        raise OSError("no network")

    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(__path__=[]))
    fake = SimpleNamespace(MNIST=no_network)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", fake)
    monkeypatch.setattr(mnist, "DATA_DIR", tmp_path)
    command = ["train", "mnist-judge", "--out", tmp_path / "out"]
    assert "nor can it be downloaded (OSError); restore the shipped files" in refuse(*command)
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"altered")
    assert "train-images-idx3-ubyte.gz is damaged (wrong checksum)" in refuse(*command)


# --- a process of its own ------------------------------------------------------------------------


def process(arguments, folder):
    command = [sys.executable, "-m", "minillada", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=300)


def test_python_dash_m(tmp_path, run):
    """The installed entry, warnings and imports included."""
    bad = process(["draw", "", "--model", run], tmp_path)
    assert bad.returncode == 2 and bad.stdout == b""
    assert bad.stderr.startswith(b"minillada: a text is empty; say what you want")
    good = process(drawing(run, "--out", "one.png"), tmp_path)
    assert good.returncode == 0 and good.stdout.strip() == b"saved one.png"
    assert b"Traceback" not in good.stderr
    warned = process(["draw", "zebra", *drawing(run)[2:], "--out", "z.png"], tmp_path)
    assert warned.returncode == 0
    assert warned.stderr.startswith(b"minillada: this model knows no word of 'zebra'")
    assert (tmp_path / "one.png").stat().st_size > 100


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "latin-1"])
def test_terminals_that_cannot_show_everything(call, run, picture, monkeypatch, encoding):
    screen = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    for arguments in (["train", "--help"], ["describe", picture("画.png"), "--model", run]):
        code, _, err = call(*arguments)
        assert code == 0, err
    screen.flush()
    shown = screen.buffer.getvalue()
    assert b"--resume" in shown and b"?.png: " in shown

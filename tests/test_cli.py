"""The command line does what the functions do; what cannot work ends in one sentence and exit code 2, never in a traceback."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers import mnist_test_images, real_images, save_tiny_uni, tiny_judge, tiny_uni
from PIL import Image

import minillada
import minillada.evaluation.evaluate as evaluate_module
import minillada.uni as uni_module
from minillada import checkpoint, cli
from minillada.datasets import mnist, pictures
from minillada.datasets.pool import mnist_pool
from minillada.evaluation import suite
from minillada.extras import merging
from minillada.measure.judge import Judge
from minillada.model import Backbone
from minillada.presets import PRESETS
from minillada.show import grids
from minillada.training import train as train_module


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return save_tiny_uni(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def run(run_folder):
    """The path of a tiny run, as the command line takes it."""
    return str(run_folder)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run the command line in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["minillada", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def refuse(call, tmp_path):
    """Exit code 2 and, as the last line on stderr, one sentence; nothing on stdout and no file left behind."""

    def refuse(*arguments):
        before = sorted(tmp_path.rglob("*"))
        code, out, err = call(*arguments)
        assert code == 2, (code, out, err)
        assert out == "" and "Traceback" not in err
        sentence = err.strip().splitlines()[-1]
        assert sentence.startswith("minillada: ") and sum(line.startswith("minillada: ") for line in err.splitlines()) == 1
        assert [p for p in sorted(tmp_path.rglob("*")) if p.is_file()] == [p for p in before if p.is_file()]
        return sentence

    return refuse


def picture(path, size=28, mode="L", level=200):
    """A bar on black."""
    image = Image.new(mode, (size, size))
    image.paste(level if mode == "L" else (level,) * 3, (size // 2 - 2, 5, size // 2 + 1, size - 5))
    image.save(path)
    return path


# --- what works --------------------------------------------------------------------------------------------------------


def test_help_of_every_command_names_device_and_seed(call):
    for command in ("demo", "train", "merge", "draw", "describe", "answer", "edit", "think", "interleave", "evaluate", "info"):
        code, out, _ = call(command, "--help")
        assert code == 0 and "--device" in out and "--seed" in out, command
        if command in ("train", "merge", "describe", "evaluate", "info"):
            assert "--json" in out, command
        assert command in call("--help")[1]


def test_draw_saves_one_row_a_caption(call, run, tmp_path):
    code, out, _ = call("draw", "a seven", "a thick eight", "--count", 3, "--steps", 2, "--seed", 4, "--model", run)
    assert code == 0 and out == "saved outputs/draw.png\n"
    with Image.open(tmp_path / "outputs" / "draw.png") as image:
        assert image.size == (3 * (3 * 34 - 2), 3 * (2 * 34 - 2))
        expected = minillada.load(run).draw(["a seven"] * 3 + ["a thick eight"] * 3, seed=4, steps=2)
        small = grids.to_pil(grids.tile(expected, 3))
        assert image.tobytes() == small.resize(image.size, 0).tobytes()
    assert [p.name for p in (tmp_path / "outputs").iterdir()] == ["draw.png"]


def test_describe_reads_pictures_and_test_images(call, run, tmp_path):
    names = [str(picture(tmp_path / f"{size}.png", size)) for size in (28, 32)]
    code, out, _ = call("describe", *names, "--test", 3, "--seed", 1, "--model", run, "--json")
    report = json.loads(out)
    chosen = torch.randperm(10_000, generator=torch.Generator().manual_seed(1))[:3]
    assert code == 0 and list(report) == [*names, *(f"test image {i}" for i in chosen.tolist())]
    images = torch.cat([torch.stack([pictures.read(name) for name in names]), mnist_test_images().floats(chosen)])
    assert list(report.values()) == minillada.load(run).describe(images)
    code, out, _ = call("describe", names[0], "--model", run)
    assert code == 0 and out == f"{names[0]}: {report[names[0]]}\n"


def test_every_task_from_the_command_line(call, run, tmp_path, monkeypatch):
    monkeypatch.setattr(uni_module, "THINKING_LENGTH", 30)  # random weights never stop, and their context is short
    monkeypatch.setattr(uni_module, "MAX_IMAGES", 2)
    names = [str(picture(tmp_path / f"{level}.png", 28, level=level)) for level in (100, 200)]
    a, b = (pictures.read(name) for name in names)
    uni = minillada.load(run)
    code, out, _ = call("answer", *names, "--question", "why?", "--model", run)
    assert code == 0 and out.splitlines() == [f"{n}: {t}" for n, t in zip(names, uni.answer([a, b], "why?"), strict=True)]
    code, out, _ = call("answer", *names, "--together", "--question", "why?", "--model", run, "--json")
    assert code == 0 and json.loads(out) == uni.answer([(a, b)], "why?")
    code, out, _ = call("edit", *names, "--instruction", "mirror it", "--guidance-text", 3, "--guidance-image", 1, "--model", run)
    assert code == 0 and out == "saved outputs/edit.png\n"
    edited = grids.to_pil(grids.tile(uni.edit([a, b], "mirror it", guidance_text=3.0, guidance_image=1.0), 2))
    with Image.open(tmp_path / "outputs" / "edit.png") as image:
        assert image.tobytes() == edited.resize(image.size, 0).tobytes()
    code, out, _ = call("think", "draw one", "--model", run)
    assert code == 0 and out.splitlines() == [f"draw one: {uni.think_and_draw(['draw one'])[0][0]}", "saved outputs/think.png"]
    story = uni.interleave("count")
    code, out, _ = call("interleave", "count", "--model", run)
    assert code == 0 and out.splitlines()[0] == " ".join(part if isinstance(part, str) else "[image]" for part in story)


def test_tasks_are_marked_and_shown_on_pages(call, run, tmp_path, monkeypatch):
    small = mnist_pool(real_images(400))
    monkeypatch.setattr(suite, "unseen_pool", lambda: small)
    monkeypatch.setattr(suite, "SUITE", {name: suite.SUITE[name] for name in ("digit", "compare", "edit_digit", "draw")})
    code, out, _ = call("evaluate", run, "--suite", "tasks", "--samples", 5, "--pictures", "pages", "--json", "--record")
    report = json.loads(out)
    assert code == 0 and {"digit", "compare", "edit_digit", "edit_digit_attributes", "draw"} <= set(report)
    assert all(set(score) == {"accuracy", "low", "high", "n", "passes"} and score["n"] == 5 and 0 <= score["accuracy"] <= 1 for score in report.values())
    assert sorted(p.name for p in (tmp_path / "pages").iterdir()) == ["compare.png", "digit.png", "draw.png", "edit_digit.png"]
    info = checkpoint.read_info(checkpoint.resolve(run))
    assert info["tasks"] == report
    checkpoint.write_info(checkpoint.resolve(run), {k: v for k, v in info.items() if k != "tasks"})
    code, out, _ = call("evaluate", run, "--suite", "tasks", "--samples", 5)
    assert code == 0 and out.splitlines()[0].startswith("digit ") and "n = 5)" in out


def test_train_writes_a_run_and_says_where(call, monkeypatch, tmp_path):
    monkeypatch.setattr(mnist, "load_mnist", lambda split="train", root=None: real_images(200))
    code, out, _ = call("train", "mnist-judge", "--steps", 2, "--seed", 3, "--out", "here", "--json")
    report = json.loads(out)
    assert code == 0 and report["out"] == "here" and report["step"] == 1 and report["loss"] > 0
    _, info = checkpoint.load_model(tmp_path / "here", Judge)
    assert info["training"]["steps"] == 2 and info["training"]["seed"] == 3
    code, out, _ = call("train", "mnist-judge", "--steps", 2, "--seed", 3, "--out", "here", "--resume")
    assert code == 0 and out == "finished in here; last step: none left to do\n"
    code, out, _ = call("train", "mnist-text")
    assert code == 0 and (tmp_path / "runs" / "mnist-text" / "text.json").exists()


def test_merge_averages_the_best_snapshots(call, refuse, run, tmp_path):
    path = checkpoint.resolve(run)
    backbone, info = checkpoint.load_model(path, Backbone)
    head = backbone.lm_head.weight.detach().clone()
    for step, scale in ((1, 1e-3), (2, 0.5), (3, 4.0)):  # never sure, cautious, and sure of what a random model does not know
        backbone.lm_head.weight.data = scale * head
        checkpoint.save_model(merging.snapshot_path(tmp_path / "kept", step), backbone, info | {"training": {"draw_share": 0.5}})
    code, out, _ = call("merge", "kept", "--top", 2, "--samples", 3, "--out", "mean", "--json")
    report, order = json.loads(out), (2, 1, 3)
    assert code == 0 and list(report["bits"]) == [f"kept/step-00000{step}.safetensors" for step in order]
    merged, about = checkpoint.load_model(tmp_path / "mean", Backbone)
    assert torch.allclose(merged.lm_head.weight, 0.2505 * head, rtol=1e-2) and len(about["merged"]) == 2
    assert call("merge", "kept", "--samples", 3)[1].count("averaged") == 3
    assert "2 checkpoints are too few to choose the best 3; keep more with" in refuse("merge", run, run, "--samples", 3)


def test_info_lists_and_looks_up(call, run):
    code, out, _ = call("info", "--json")
    report = json.loads(out)
    assert code == 0 and report["presets"] == sorted(PRESETS) and report["shipped"]["mnist-judge"]["kind"] == "judge"
    code, out, _ = call("info", run, "--json")
    assert code == 0 and json.loads(out) == checkpoint.read_info(checkpoint.resolve(run))
    code, out, _ = call("info", "mnist-judge")
    assert code == 0 and "kind: judge" in out


def test_evaluate_prints_one_object_and_records_it(call, monkeypatch, tmp_path):
    run = save_tiny_uni(tmp_path)
    speed = {"batch": 16, "cached": {"median": 1.0, "clock": "wall clock"}, "cache_speedup": 2.0}
    report = {"model": "x", "draw_digit_accuracy": 0.9, "draw_digit_accuracy_low": 0.89, "draw_digit_accuracy_high": 0.91, "draw_digit_accuracy_n": 20, "timing": speed}
    seen = []
    monkeypatch.setattr(evaluate_module, "evaluate", lambda *arguments: seen.append(arguments) or report)
    code, out, _ = call("evaluate", run, "--samples", 50, "--seed", 2, "--json")
    assert code == 0 and json.loads(out) == report and seen == [(str(run), 50, 2, "cpu")]
    assert "metrics" not in checkpoint.read_info(run / "weights.safetensors")
    code, out, _ = call("evaluate", run, "--record")
    assert code == 0 and "0.9000   (0.8900 to 0.9100)" in out and "wall clock" in out
    assert checkpoint.read_info(run / "weights.safetensors")["metrics"] == report
    assert minillada.load(run).info["metrics"] == report, "the weights still load"


@pytest.mark.filterwarnings("ignore:Glyph")  # a random model writes control characters
def test_demo_saves_its_picture(call, monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "load", lambda name, device: tiny_uni())
    monkeypatch.setattr(checkpoint, "load_model", lambda name, kind: (tiny_judge(), {}))
    code, out, err = call("demo", "--seed", 1)
    assert code == 0 and "saved outputs/demo.png" in out and "notebooks" in out
    assert all(f" {word}" in out for word in mnist.DIGITS)
    with Image.open(tmp_path / "outputs" / "demo.png") as image:
        assert image.width > 300 and len(set(image.convert("L").tobytes())) > 20


# --- what does not -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "mnits"], "unknown preset 'mnits'; choose one of"),
        (["train", "mnist-judge", "--steps", "0"], "steps must be at least 1, got 0"),
        (["train", "mnist-judge", "--resume", "--overwrite"], "choose one"),
        (["train", "mnist", "--tokenizer", "nowhere"], "no weights called 'nowhere'"),
        (["draw", ""], "the caption is empty"),
        (["draw", "a seven", "   "], "the caption is empty"),
        (["draw", "a seven", "--steps", "0"], "steps must be at least 1, got 0"),
        (["train", "mnist-cpu", "--learning-rate", "nan"], "the learning rate must be positive and finite, got nan"),
        (["train", "mnist-cpu", "--draw-share", "1.5"], "the share that draws must lie in [0, 1], got 1.5"),
        (["draw", "a seven", "--guidance", "nan"], "guidance must be a finite number, got nan"),
        (["draw", "a seven", "--guidance", "inf"], "guidance must be a finite number, got inf"),
        (["draw", "a seven", "--temperature", "-1"], "temperature must be 0"),
        (["draw", "a seven", "--count", "0"], "count must be at least 1, got 0"),
        (["draw", "seven " * 300], "exceed the context"),
        (["draw", "a seven", "--model", "mnits"], "no weights called 'mnits'"),
        (["draw", "a seven", "--device", "nonsense"], "device 'nonsense' is not available here"),
        (["draw", "a seven", "--device", "cuda:99"], "device 'cuda:99' is not available here"),
        (["describe"], "nothing to describe; give picture files or --test N"),
        (["describe", "nowhere.png"], "no picture at nowhere.png"),
        (["describe", "."], ". is not a file; give a picture"),
        (["describe", "--test", "2", "--question", "why? " * 300], "exceed the context"),
        (["evaluate", "mnits"], "no weights called 'mnits'"),
        (["evaluate", "--samples", "3"], "3 samples say nothing"),
        (["info", "mnits"], "no weights called 'mnits'"),
    ],
)
def test_bad_arguments(refuse, run, monkeypatch, arguments, sentence):
    monkeypatch.setattr(mnist, "load_mnist", lambda split="train", root=None: real_images(200))
    if arguments[0] in ("draw", "describe") and "--model" not in arguments:
        arguments = [*arguments, "--model", run]
    assert sentence in refuse(*arguments)


@pytest.mark.parametrize("arguments", [["draw", "a seven", "--steps", "many"], ["fly"], ["draw"], ["draw", "a seven", "--colour", "red"]])
def test_arguments_that_cannot_be_read(call, arguments):
    code, out, err = call(*arguments)
    assert code == 2 and out == "" and "Traceback" not in err and err.strip()


def test_bad_pictures(refuse, run, tmp_path):
    Image.new("L", (40, 40), 255).save(tmp_path / "blank.png")
    assert "blank.png shows no digit" in refuse("describe", tmp_path / "blank.png", "--model", run)
    (tmp_path / "text.png").write_text("I am a picture")
    assert "text.png is not a picture that can be read" in refuse("describe", tmp_path / "text.png", "--model", run)
    whole = picture(tmp_path / "cut.png", 28).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert "cut.png is not a picture that can be read" in refuse("describe", tmp_path / "cut.png", "--model", run)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda w, j: w.write_bytes(w.read_bytes()[:-100]), "is not a complete safetensors file"),
        (lambda w, j: w.unlink(), "no weights at"),
        (lambda w, j: j.unlink(), "weights.json is missing"),
        (lambda w, j: j.write_text("{"), "is not a valid JSON object"),
        (lambda w, j: j.write_text(j.read_text().replace("hidden_size", "hidden")), "was changed after"),
        (lambda w, j: shutil.copy(w.parent.parent / "tokenizer" / w.name, w), "do not belong together"),
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
    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(MNIST=no_network))
    monkeypatch.setattr(mnist, "DATA_DIR", tmp_path)
    assert "nor can it be downloaded (OSError); restore the shipped files" in refuse("train", "mnist-judge", "--out", tmp_path / "out")
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"altered")
    assert "train-images-idx3-ubyte.gz is damaged (wrong checksum)" in refuse("train", "mnist-judge", "--out", tmp_path / "out")


def test_a_loss_that_is_not_finite(call, monkeypatch, tmp_path):
    monkeypatch.setattr(mnist, "load_mnist", lambda split="train", root=None: real_images(200))
    monkeypatch.setattr(train_module, "judge_loss", lambda module, *rest: lambda step: (module.head.bias.sum() * float("nan"), {}))
    code, out, err = call("train", "mnist-judge", "--out", "here")
    assert code == 2 and out == "" and "Traceback" not in err
    assert "minillada: the loss is nan at step 0; lower the learning rate" in err.splitlines()[-1]
    assert not (tmp_path / "here" / "weights.safetensors").exists()


def test_python_dash_m_in_a_process_of_its_own(tmp_path, run):
    """The installed entry, warnings and imports included."""
    bad = subprocess.run([sys.executable, "-m", "minillada", "draw", "", "--model", run], cwd=tmp_path, capture_output=True, text=True)
    assert bad.returncode == 2 and bad.stdout == ""
    assert bad.stderr == "minillada: the caption is empty; say what to draw, for example 'a thick seven leaning right'\n"
    good = subprocess.run(
        [sys.executable, "-m", "minillada", "draw", "a one", "--model", run, "--steps", "1", "--out", "one.png"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert good.returncode == 0 and good.stdout == "saved one.png\n" and "Traceback" not in good.stderr
    assert (tmp_path / "one.png").stat().st_size > 100


def test_tasks_that_cannot_be_done(refuse, run, tmp_path):
    one = picture(tmp_path / "one.png")
    assert "there is no suite 'all'; choose model or tasks" in refuse("evaluate", run, "--suite", "all")
    assert "no picture at nowhere.png" in refuse("answer", "nowhere.png", "--model", run)
    assert "instruction is empty" in refuse("edit", one, "--instruction", "", "--model", run)
    assert "guidance must be a finite number" in refuse("edit", one, "--instruction", "mirror it", "--guidance-text", "nan", "--model", run)
    assert "exceed the context" in refuse("answer", *[one] * 9, "--together", "--model", run)
    assert "no weights called 'mnist-unicorn'" in refuse("think", "a seven", "--model", "mnist-unicorn")

"""The commands that measure and look: results are printed before they are stored."""

import json
import re

import pytest
from helpers import real_images, save_tiny_uni, tiny_backbone

import minillada
from minillada import checkpoint
from minillada.commands import measuring
from minillada.datasets.pool import mnist_pool
from minillada.evaluation import bench, evaluate, suite
from minillada.presets import PRESETS

# A random model writes control characters, and its text pieces know few words.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Glyph"),
    pytest.mark.filterwarnings("ignore:this model knows no word"),
]

SPEED = {"batch": 16, "cached": {"median": 1.0, "clock": "wall clock"}, "cache_speedup": 2.0}
REPORT = {
    "model": "x",
    "draw_digit_accuracy": 0.9,
    "draw_digit_accuracy_low": 0.89,
    "draw_digit_accuracy_high": 0.91,
    "draw_digit_accuracy_n": 20,
    "draw_passes": 18.0,
    "timing": SPEED,
}


@pytest.fixture
def measured(monkeypatch):
    """Nothing is measured; the calls are kept."""
    seen = []

    def measure(*arguments):
        seen.append(arguments[:-1])
        arguments[-1].update(REPORT)

    monkeypatch.setattr(evaluate, "evaluate", measure)
    return seen


def metrics(run):
    return checkpoint.read_info(run / "weights.safetensors").get("metrics")


def test_evaluate_prints_one_object_and_records_it(call, measured, tmp_path):
    run = save_tiny_uni(tmp_path)
    code, out, _ = call("evaluate", run, "--samples", 50, "--seed", 2, "--json")
    assert code == 0 and json.loads(out) == REPORT
    assert measured == [(str(run), 50, 2, "cpu", None)]
    assert metrics(run) is None
    code, out, _ = call("evaluate", run, "--record")
    assert code == 0 and "wall clock" in out
    assert re.search(r"draw_digit_accuracy +0.9000   \(0.8900 to 0.9100\)", out)
    assert re.search(r"draw_passes +18.0000$", out, re.M)
    assert metrics(run) == REPORT
    assert minillada.load(run).info["metrics"] == REPORT, "the weights still load"


def test_the_longest_name_of_a_score_does_not_touch_its_number(capsys):
    score = {"accuracy": 1.0, "accuracy_low": 0.3, "accuracy_high": 1.0, "accuracy_n": 2}
    name = "edit_operation_new_wording_digit_kept"
    measuring.print_scores({name: score | {"passes": 8.5}})
    assert capsys.readouterr().out.split()[:2] == [name, "100.00"]


def test_some_measures_are_added_to_the_recorded_ones(call, measured, tmp_path):
    run = save_tiny_uni(tmp_path)
    path = run / "weights.safetensors"
    checkpoint.write_info(path, checkpoint.read_info(path) | {"metrics": {"frechet_n": 1}})
    only = ["--only", "drawing,timing", "--only", "variety"]
    assert call("evaluate", run, *only, "--record")[0] == 0
    assert measured[0][-1] == ["drawing", "timing", "variety"]
    assert metrics(run) == {"frechet_n": 1} | REPORT
    assert call("evaluate", run, "--record")[0] == 0
    assert metrics(run) == REPORT, "the whole measurement replaces the old one"


def test_numbers_of_another_seed_are_not_mixed(refuse, call, measured, few_tasks, tmp_path):
    run = save_tiny_uni(tmp_path)
    path = run / "weights.safetensors"
    known = {"seed": 0, "device": "cpu", "frechet_n": 1}
    checkpoint.write_info(path, checkpoint.read_info(path) | {"metrics": known})
    some = ["evaluate", run, "--only", "drawing", "--record"]
    assert "the recorded numbers have seed 0, not 7" in refuse(*some, "--seed", 7)
    assert not measured and metrics(run) == known
    assert call(*some)[0] == 0
    assert call("evaluate", run, "--record", "--seed", 7)[0] == 0, "all numbers are replaced"

    tasks = ["evaluate", run, "--suite", "tasks", "--samples", 2, "--record"]
    assert call(*tasks, "--only", "digit")[0] == 0
    assert "seed 0, not 7" in refuse(*tasks, "--only", "compare", "--seed", 7)
    assert call(*tasks, "--only", "compare")[0] == 0
    assert set(checkpoint.read_info(path)["tasks"]) == {"digit", "compare"}


def test_what_was_measured_is_printed_if_a_later_measure_fails(call, run, monkeypatch):
    def fail(subject):
        raise ValueError("it does not fit")

    monkeypatch.setattr(evaluate, "FEWEST_SAMPLES", 2)
    measures = {"drawing": lambda subject: {"draw_digit_accuracy": 0.5}, "variety": fail}
    monkeypatch.setattr(evaluate, "MEASURES", measures)
    code, out, err = call("evaluate", run, "--samples", 2)
    assert code == 2 and "it does not fit" in err
    assert re.search(r"draw_digit_accuracy +0.5000", out)


@pytest.mark.parametrize("as_json", [True, False])
def test_a_result_that_cannot_be_recorded_is_printed(
    call, measured, tmp_path, monkeypatch, as_json
):
    def full(path, info):
        raise OSError(28, "No space left on device", str(path))

    run = save_tiny_uni(tmp_path)
    monkeypatch.setattr(checkpoint, "write_info", full)
    code, out, err = call("evaluate", run, "--record", *["--json"] * as_json)
    assert code == 2 and "No space left on device" in err and "Traceback" not in err
    assert json.loads(out) == REPORT if as_json else "0.8900 to 0.9100" in out


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(
    refuse, measured, run, monkeypatch
):
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "cannot write to the folder" in refuse("evaluate", run, "--record")
    assert not measured


@pytest.fixture
def few_tasks(monkeypatch):
    small = mnist_pool(real_images(400))
    chosen = {name: suite.SUITE[name] for name in ("digit", "compare", "edit_digit", "draw")}
    monkeypatch.setattr(suite, "unseen_pool", lambda dataset: small)
    monkeypatch.setitem(suite.SUITES, "mnist", chosen)


def test_tasks_are_marked_and_shown_on_pages(call, few_tasks, tmp_path):
    run = save_tiny_uni(tmp_path)
    command = ["evaluate", run, "--suite", "tasks", "--samples", 5]
    code, out, _ = call(*command, "--pictures", "pages", "--json", "--record")
    report = json.loads(out)
    assert code == 0
    assert {"digit", "compare", "edit_digit", "edit_digit_attributes", "draw"} <= set(report)
    for score in report.values():
        assert set(score) == {"accuracy", "low", "high", "n", "passes"} and score["n"] == 5
        assert 0 <= score["low"] <= score["accuracy"] <= score["high"] <= 1
        assert score["passes"] > 0
    pages = sorted(path.name for path in (tmp_path / "pages").iterdir())
    assert pages == ["compare.png", "digit.png", "draw.png", "edit_digit.png"]
    assert checkpoint.read_info(run / "weights.safetensors")["tasks"] == report
    code, out, _ = call(*command, "--only", "digit")
    [line] = out.splitlines()
    assert code == 0 and line.startswith("digit ") and "n = 5)" in line and "passes" in line


def test_pages_that_cannot_be_saved_cost_no_scores(call, few_tasks, tmp_path, monkeypatch):
    def full(*about):
        raise OSError(28, "No space left on device", "pages/digit.png")

    run = save_tiny_uni(tmp_path)
    monkeypatch.setattr(measuring, "save_pages", full)
    tasks = ["evaluate", run, "--suite", "tasks", "--samples", 2, "--only", "digit"]
    code, out, err = call(*tasks, "--pictures", "pages", "--record")
    assert code == 2 and "n = 2)" in out and "Traceback" not in err
    assert list(checkpoint.read_info(run / "weights.safetensors")["tasks"]) == ["digit"]


def test_a_folder_of_pages_that_cannot_be_is_refused_before_the_work(refuse, run, tmp_path):
    (tmp_path / "pages").write_text("a file where a folder should be")
    for folder in ("pages", "pages/more"):
        sentence = refuse("evaluate", run, "--suite", "tasks", "--pictures", folder)
        assert f"cannot write to the folder {folder}; choose another" in sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["mnits"], "no weights called 'mnits'"),
        (["--samples", "3"], "3 samples say nothing"),
        (["--samples", "0"], "samples must be at least 1"),
        (["--suite", "tasks", "--samples", "0"], "samples must be at least 1"),
        (["--suite", "all"], "there is no suite 'all'; choose model or tasks"),
        (["--only", "speed"], "there is no measure 'speed'; choose from tokenizer, drawing"),
        (["--suite", "tasks", "--only", "sing"], "no task is called 'sing'"),
        (["--pictures", "pages"], "--pictures shows examples of tasks; add --suite tasks"),
        (["mnist-painter", "--only", "drawing"], "mnist-painter is a painter"),
        (["mnist-painter", "--suite", "tasks"], "mnist-painter is a painter"),
    ],
)
def test_bad_arguments(refuse, arguments, sentence):
    assert sentence in refuse("evaluate", *arguments)


@pytest.mark.parametrize("command", ["evaluate", "info", "draw"])
def test_unfinished_runs(refuse, tmp_path, command):
    folder = tmp_path / "stopped"
    backbone = tiny_backbone()
    checkpoint.save_tensors(folder / "state.safetensors", backbone.state_dict(), {"step": "120"})
    first = ["draw", "a two", "--model", folder] if command == "draw" else [command, folder]
    sentence = refuse(*first)
    assert "is not finished (it was stopped after step 120)" in sentence
    assert f"--out {folder} --resume`" in sentence and "snapshot" not in sentence
    (folder / "step-000100.safetensors").touch()
    assert f"take a snapshot: {folder / 'step-000100.safetensors'}" in refuse(*first)
    (folder / "state.safetensors").write_bytes(b"damaged")
    assert "stopped after step ?" in refuse(*first)


def test_info_lists_and_looks_up(call, run):
    code, out, _ = call("info", "--json")
    report = json.loads(out)
    assert code == 0 and report["presets"] == sorted(PRESETS)
    assert report["shipped"]["mnist-judge"]["kind"] == "judge"
    code, out, _ = call("info", run, "--json")
    assert code == 0 and json.loads(out) == checkpoint.read_info(checkpoint.resolve(run))
    code, out, _ = call("info", "mnist-judge")
    assert code == 0 and "kind: judge" in out
    code, out, _ = call("info", "mnist-cpu", "--json")  # a preset without weights
    assert code == 0 and json.loads(out)["training"]["steps"] > 0


def test_a_shipped_name_means_the_shipped_weights_in_every_folder(call, tmp_path):
    """`data/` itself holds a folder that is called `mnist`."""
    (tmp_path / "mnist-judge").mkdir()
    code, out, _ = call("info", "mnist-judge")
    assert code == 0 and "kind: judge" in out


def test_a_foreign_json_cannot_move_the_cursor(call, tmp_path):
    run = save_tiny_uni(tmp_path)
    path = run / "weights.safetensors"
    evil = {"\x1b[2Jcommand": "minillada\x1b]0;owned\x07 train\u202e", "config": {"\x9b1A": 1}}
    checkpoint.write_info(path, checkpoint.read_info(path) | evil)
    code, out, _ = call("info", run)
    assert code == 0 and r"\x1b[2Jcommand: minillada\x1b]0;owned\x07 train\u202e" in out
    assert all(letter.isprintable() for letter in out.replace("\n", ""))


def test_benchmarks_agree_with_the_plain_way(call):
    small = bench.Setting(pairs=1)
    assert bench.bench_train(small, length=32, batch=2, views=2)["equal"]
    assert bench.bench_moe(small, tokens=64)["equal"]
    with pytest.raises(ValueError, match="length must be a multiple of 16, got 40"):
        bench.bench_train(small, length=40)
    pytest.importorskip("diffusers")
    assert bench.bench_sampler(small, length=32, batch=2)["equal"]


def test_the_missing_peer_of_a_benchmark(refuse, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    assert 'install it with `pip install -e ".[bench]"`' in refuse("bench", "sampler")


def test_a_benchmark_is_printed(call, monkeypatch):
    monkeypatch.setattr(bench, "bench_moe", lambda setting: {"pairs": setting.pairs})
    assert call("bench", "moe", "--pairs", 4)[1] == "pairs: 4\n"
    assert json.loads(call("bench", "moe", "--json")[1]) == {"pairs": 15}
    assert measuring.bench is bench
    monkeypatch.setattr(measuring, "profile_sampler", lambda setting, length, batch: {"n": length})
    assert call("bench", "sampler", "--profile", "--length", 64)[1] == "n: 64\n"


def test_a_timed_step_has_the_seed_that_was_asked_for(call, refuse, monkeypatch):
    monkeypatch.setattr(
        measuring.training_steps, "bench_step", lambda preset, *rest: {"seed": preset.training.seed}
    )
    step = ["bench", "step", "cifar-features"]
    for given, seed in (([], 1), (["--seed", 2], 2), (["--set", "seed=3"], 3)):
        assert call(*step, *given)[1] == f"seed: {seed}\n"
    assert "seed is given twice" in refuse(*step, "--seed", 2, "--set", "seed=3")

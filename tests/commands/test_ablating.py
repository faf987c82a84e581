"""`minillada ablate` from the command line to its files."""

import csv
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from helpers import real_images, use_digits
from PIL import Image

from minillada.ablation import job as jobs
from minillada.ablation import launch
from minillada.commands import ablating

pytest.importorskip("pandas")
pytest.importorskip("scipy")
ROOT = Path(__file__).resolve().parents[2]
SMALL = ["hidden_size=16", "num_hidden_layers=1", "intermediate_size=16", "head_dim=8"]
COMMAND = ["ablate", "mnist-cpu", "--steps", 3, "--measure", "drawing:20", "--out", "ab"]
for text in [*SMALL, "batch_size=4"]:
    COMMAND += ["--set", text]
GRID = ["--vary", "block_size=8,16", "--vary", "sampling.guidance=1.0,2.0", "--seeds", 2]


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    use_digits(monkeypatch, real_images(40))
    # What is estimated is tested in tests/ablation/test_launch.py.
    monkeypatch.setattr(ablating, "estimate", lambda *about: launch.Estimate(1440.0, 180.0))


def test_an_ablation_goes_on_after_a_crash_and_reports(call, tmp_path, monkeypatch):
    trained = []
    train = jobs.train

    def counted(preset, run, *rest):
        trained.append(run.folder.name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(preset, run, *rest)

    # 1. ended at the third of four runs: a setting of decoding needs no training of its own
    monkeypatch.setattr(jobs, "train", counted)
    code, out, _ = call(*COMMAND, *GRID)
    assert code == 130 and "4 runs, about 27 min on" in out
    assert "3 of them for measuring (timed on a few steps and samples); 0 done, 4 to start" in out
    assert "equal work: 3 steps of 4 sequences; 9 forward passes a drawing; unequal" in out
    _, out, _ = call("ablate", "--report", "--out", "ab")
    assert "2 of 4 runs are not finished" in out
    # 2. the same command trains the other two
    code, out, _ = call(*COMMAND, *GRID)
    assert code == 0 and "2 done, 2 to start" in out
    assert sorted(trained[3:]) == ["block_size=16,seed=1", "block_size=8,seed=1"]
    assert "95 % over seeds (t)" in out and "within a seed (Wilson)" in out
    assert "≠ rows a pass" in out  # with and without a branch of guidance
    assert (
        "sampling.guidance 2.0 − 1.0" in out and " points, p = " in out and "2 comparisons" in out
    )
    assert "saved ab/{results.json, results.csv, plot.png, command.txt}" in out
    # 3. for machines: nothing is left to train
    code, out, _ = call(*COMMAND, *GRID, "--json")
    report = json.loads(out)
    assert len(trained) == 5 and report["unfinished"] == [] and report["failed"] == {}
    assert len(report["runs"]) == 8 and len(report["table"]) == 4
    run = report["runs"][1]
    assert run["settings"] == {"block_size": 8, "sampling.guidance": 2.0} and run["seed"] == 0
    assert report["commit"] == [run["measures"]["drawing_commit"]] and report["device"] == ["cpu"]
    assert run["passes"] == pytest.approx(9, abs=0.5) and run["measures"]["drawing_rows"] > 16
    assert report["table"][1]["settings"] == run["settings"]
    comparison = report["differences"][0]
    assert (
        comparison["setting"] == "block_size"
        and comparison["p_holm"] is None
        or (0 <= comparison["p_holm"] <= 1)
    )
    assert report == json.loads((tmp_path / "ab" / "results.json").read_text())
    # 4. the files
    with open(tmp_path / "ab" / "results.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 8 and lines[1]["sampling.guidance"] == "2.0"
    with Image.open(tmp_path / "ab" / "plot.png") as picture:
        assert picture.width > 300
    command = (tmp_path / "ab" / "command.txt").read_text()
    assert command.startswith("minillada ablate mnist-cpu --vary block_size=8,16 --vary")


def test_without_settings_that_vary_what_is_printed_is_what_is_stored(call, tmp_path):
    _, out, _ = call(*COMMAND, "--seeds", 1, "--json")
    assert json.loads(out) == json.loads((tmp_path / "ab" / "results.json").read_text())


def test_steps_may_vary(call, tmp_path):
    without_steps = [word for word in COMMAND if word not in ("--steps", 3)]
    code, out, _ = call(*without_steps, "--vary", "steps=2,3", "--seeds", 1)
    assert code == 0 and "1 comparison" in out
    report = json.loads((tmp_path / "ab" / "results.json").read_text())
    assert [row["settings"] for row in report["table"]] == [{"steps": 2}, {"steps": 3}]


def test_a_failing_run_stops_no_other(call, tmp_path, monkeypatch):
    train = jobs.train

    def broken(preset, *rest):
        if preset.model.block_size == 8:
            raise FloatingPointError("the loss is nan at step 1")
        return train(preset, *rest)

    monkeypatch.setattr(jobs, "train", broken)
    code, out, _ = call(*COMMAND, "--vary", "block_size=8,16", "--seeds", 1)
    assert code == 1 and "failed: block_size=8,seed=0: the loss is nan at step 1" in out
    assert "draw" in out and (tmp_path / "ab" / "results.csv").exists()


def test_a_run_that_cannot_be_read_hides_no_other(call, tmp_path):
    call(*COMMAND, "--seeds", 2)
    damaged = tmp_path / "ab" / "seed=0" / "weights.json"
    damaged.write_text(damaged.read_text()[:-5])
    why = "ab/seed=0/weights.json is not a valid JSON object; restore it"
    code, out, _ = call("ablate", "--out", "ab", "--report")
    assert code == 0 and "within a seed (Wilson)" in out and f"unreadable: seed=0: {why}" in out
    code, out, _ = call(*COMMAND, "--seeds", 2, "--json")
    report = json.loads(out)
    assert code == 1 and why in report["failed"]["seed=0"]
    assert [run["seed"] for run in report["runs"]] == [1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--vary", "blok_size=4"], "there is no setting 'blok_size'"),
        (["--vary", "block_size=4,x"], "block_size must be a valid integer, got 'x'"),
        (["--vary", "block_size=4,4"], "block_size has the value 4 twice"),
        (["--set", "steps=5", "--steps", "3"], "the setting steps is given twice"),
        (["--seeds", "0"], "seeds must be at least 1"),
        (["--measure", "beauty"], "there is no measure 'beauty'"),
        (["--passes", "0"], "different numbers from 1 to 10000"),
        (["--jobs", "0"], "jobs must be at least 1"),
        (["--executor", "cloud"], "no executor 'cloud'"),
        (["--report"], "holds no ablation"),
        (["--measure", "drawing:5000"], "drawing takes 20 to 1,000 samples"),
    ],
)
def test_bad_arguments(refuse, arguments, sentence):
    assert sentence in refuse("ablate", "mnist-cpu", "--out", "ab", *arguments)


def documented() -> list[list[str]]:
    """The words of every ablation that the guides name."""
    lines = []
    for guide in ("README.md", "docs/commands.md", "docs/TEACHING.md"):
        text = (ROOT / guide).read_text(encoding="utf-8")
        lines += re.findall(
            r"^minillada (ablate mnist-.*)$|`minillada (ablate mnist-.*?)`", text, re.M
        )
    return [shlex.split(line or quoted, comments=True) for line, quoted in lines]


def test_every_ablation_of_the_guides_can_be(call, monkeypatch):
    monkeypatch.setattr(launch.Launch, "check", lambda self: None)
    monkeypatch.setattr(launch.Launch, "run", lambda self, trials: None)
    for number, words in enumerate(documented()):
        code, _, err = call(*words, "--seeds", 1, "--out", f"documented-{number}")
        assert code == 1, (words, err)  # nothing ran, and nothing was refused
    assert number > 5


def test_a_measure_of_what_no_run_learns_is_refused_before_anything_is_trained(refuse):
    vary = ["--vary", "block_size=4,16", "--seeds", 1]
    for measure in ("digit:20", "describing:20", "editing:20"):
        sentence = refuse(*COMMAND, *vary, "--measure", measure)
        assert "not learned to" in sentence or "needs a model that learned" in sentence


def test_the_folder_of_another_ablation_is_kept(call, refuse, monkeypatch):
    monkeypatch.setattr(launch.Launch, "run", lambda self, trials: None)
    assert call(*COMMAND, "--seeds", 2)[0] == 1  # nothing ran
    sentence = refuse(*COMMAND, "--seeds", 1)
    assert "ab holds another ablation (seeds: [0, 1] before, [0] now)" in sentence


def test_runs_of_other_weights_are_not_added(call, refuse, monkeypatch, tmp_path):
    call(*COMMAND, "--seeds", 2)
    grown = ["--out", "st", "--start", "ab/seed=0"]
    monkeypatch.setattr(launch.Launch, "run", lambda self, trials: None)
    for seeds in (1, 2):  # the weights are the same
        assert call(*COMMAND, *grown, "--seeds", seeds)[0] == 1  # nothing ran
    shutil.copytree(tmp_path / "ab" / "seed=1", tmp_path / "ab" / "seed=0", dirs_exist_ok=True)
    sentence = refuse(*COMMAND, *grown, "--seeds", 3)
    assert "start=ab/seed=0 was replaced after this ablation began; put the old one" in sentence
    code, out, _ = call("ablate", "--out", "st", "--report")
    assert code == 0 and "2 of 2 runs are not finished" in out


def test_a_plan_that_cannot_run_is_not_written(refuse, call, monkeypatch, tmp_path):
    def interrupt(*about):
        raise KeyboardInterrupt

    heads = ["--vary", "num_attention_heads=4,2,3,8", "--seeds", 1]
    assert "3 query heads cannot share" in refuse(*COMMAND, *heads)
    assert not (tmp_path / "ab").exists()
    # Whatever comes before the first run leaves the folder free for a better plan, too.
    with monkeypatch.context() as patch:
        patch.setattr(ablating, "estimate", interrupt)
        assert call(*COMMAND, "--seeds", 1)[0] == 130
    monkeypatch.setattr(launch.Launch, "run", lambda self, trials: None)
    code, _, _ = call(*COMMAND, "--seeds", 2, "--jobs", 2, "--tensorboard")
    assert code == 1  # nothing ran
    command = (tmp_path / "ab" / "command.txt").read_text()
    assert command.endswith(" --out ab --jobs 2 --tensorboard\n")


def test_a_report_writes_nothing(call, tmp_path):
    call(*COMMAND, "--seeds", 1)
    files = [tmp_path / "ab" / name for name in ("results.json", "results.csv", "plot.png")]
    for file in files:
        file.unlink()
    files[0].mkdir()  # no file can replace it
    for command in (["ablate", "--out", "ab"], [*COMMAND, "--seeds", 1]):
        code, out, _ = call(*command, "--report")
        assert code == 0 and "within a seed (Wilson)" in out and "saved" not in out
    assert not files[1].exists() and not files[2].exists()


def test_a_missing_package_is_one_sentence(refuse, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    sentence = refuse(*COMMAND)
    assert 'needs pandas, which is not installed; run `pip install "minillada[ablate]"`' in sentence


def test_a_folder_in_the_place_of_a_result_is_refused_before_the_work(call, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "train", lambda *_: pytest.fail("a run was trained"))
    monkeypatch.setattr(launch.Launch, "run", lambda *_: None)
    call(*COMMAND)  # begins the ablation, and trains nothing
    monkeypatch.setattr(launch.Launch, "run", lambda *_: pytest.fail("the runs were started"))
    (tmp_path / "ab" / "results.csv").mkdir()
    code, _, err = call(*COMMAND)
    assert code == 2 and "ab/results.csv is not a regular file" in err

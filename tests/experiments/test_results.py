"""Stored results belong to the shipped weights, and can be read, listed and measured again."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from minillada.experiments import results, runner
from minillada.files import RESULTS_DIR
from minillada.presets import get_preset

SINGLE = {"gpu", "colour"}  # what single commands printed about what was there once
STORED = sorted(path.stem for path in RESULTS_DIR.glob("*.json"))
NAMES = [name for name in STORED if name not in SINGLE]
FOLDER = Path(runner.__file__).parent


def experiment(name: str) -> runner.Experiment:
    return importlib.import_module(f"minillada.experiments.{name}").EXPERIMENT


def test_every_experiment_has_stored_results_and_every_file_an_experiment():
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "runner", "results"}
    assert files == set(NAMES)


@pytest.mark.parametrize("name", STORED)
def test_results_belong_to_the_shipped_weights(name):
    """Fails when weights are replaced, but not measured again."""
    weights = results.read_result(results.result_path(name))["weights"]
    assert weights
    assert results.replaced_weights(weights) == []


def test_other_weights_are_noticed():
    stored = results.read_result(results.result_path("tokenizers"))["weights"]
    assert results.replaced_weights({**stored, "mnist-judge": "0" * 64}) == ["mnist-judge"]
    assert results.replaced_weights({"mnist-forgotten": "0" * 64}) == ["mnist-forgotten"]
    assert results.replaced_weights({"mnist-forgotten": "not shipped"}) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_head_says_what_made_the_results(name):
    stored = results.read_result(results.result_path(name))
    assert stored["experiment"] == name
    assert stored["commit"]
    words = shlex.split(stored["command"])
    # Commands of older commits name the script that stood in `tests/` then.
    module, script = f"minillada.experiments.{name}", f"tests/compare_{name}.py"
    assert words[:3] == ["python", "-m", module] or words[:2] == ["python", script]
    arguments = words[3:] if words[1] == "-m" else words[2:]
    options = runner.make_parser(experiment(name)).parse_args(arguments)
    assert runner.choose(experiment(name), options.parts, options.only)


@pytest.mark.parametrize("name", NAMES)
def test_every_point_is_stored_with_the_settings_of_today(name):
    stored = results.read_result(results.result_path(name))
    points = {point.name: point for point in experiment(name).points}
    assert len(points) == len(experiment(name).points)  # no name stands twice
    done = runner.stored_points(experiment(name), stored)
    assert done.keys() == points.keys() == stored["points"].keys()
    for key, point in points.items():
        assert done[key]["settings"] == json.loads(json.dumps(point.settings)), key
    assert results.load_result(name) == stored["results"]


@pytest.mark.parametrize("name", NAMES)
def test_the_sums_are_those_of_all_that_the_trained_presets_read(name):
    stored = results.read_result(results.result_path(name))
    for point in stored["points"].values():
        if "preset" in point["settings"]:
            preset = get_preset(point["settings"]["preset"])
            read = {preset.tokenizer, preset.teacher, preset.source} - {None}
            assert read <= stored["weights"].keys()


@pytest.mark.parametrize("name", sorted(SINGLE))
def test_every_single_command_says_what_it_was_and_has_a_result(name):
    stored = results.read_result(results.result_path(name))
    assert stored["experiment"] == name
    assert stored["machine"].keys() == {"card", "cards", "torch", "cpu_cores"}
    named = {f"{part}/{name}" for part, found in stored["results"].items() for name in found}
    assert named == stored["points"].keys()
    # Single commands were run on several days. The file names the commit of the first ones.
    assert next(iter(stored["points"].values()))["commit"] == stored["commit"]
    for point in stored["points"].values():
        assert re.fullmatch("[0-9a-f]{12}", point["commit"])
        assert point["settings"]["command"].startswith(
            ("minillada ", "torchrun ", "python -m pytest ", "no command: ")
        )
    for report in stored["results"].get("bench", {}).values():
        assert report["card"] == stored["machine"]["card"]


@pytest.mark.parametrize("name", NAMES)
def test_models_come_from_the_lab(name):
    """Weights that are opened in another way would not be noted."""
    source = (FOLDER / f"{name}.py").read_text()
    for forbidden in ("load_model(", "load_judge", "import load\n", "train.train("):
        assert forbidden not in source


@pytest.mark.parametrize("name", NAMES)
def test_help_works(name, capsys):
    with pytest.raises(SystemExit) as stop:
        runner.run(experiment(name), ["--help"])
    assert stop.value.code == 0
    assert f"python -m minillada.experiments.{name}" in capsys.readouterr().out


def test_the_command_line_lists_points():
    command = [sys.executable, "-m", "minillada.experiments.tokenizers", "--list"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["semantic", "pixels"])


def test_an_unknown_name_is_one_sentence_and_exit_code_2(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tokenizers", "--only", "vowels"])
    with pytest.raises(SystemExit) as stop:
        runner.main(experiment("tokenizers"))
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said == "tokenizers: there is no point 'vowels'; choose from: semantic; pixels\n"


def test_unknown_results_are_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="no results called 'taste'; stored: .*conversion"):
        results.load_result("taste")
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(ValueError, match="does not hold the results of an experiment"):
        results.read_result(tmp_path / "x.json")


def commit_all(folder: Path) -> str:
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)

    git("init")
    git("add", "-A")
    git("commit", "-m", "all")
    return results.git(folder, "rev-parse", "HEAD")[:12]


def test_the_commit_names_changes_and_is_unknown_without_git(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    assert results.current_commit(tmp_path) == "unknown"
    (tmp_path / "code.py").write_text("1")
    commit = commit_all(tmp_path)
    assert results.current_commit(tmp_path) == commit
    # The stored results change while an experiment runs; that is no change of the code.
    (tmp_path / "data" / "results").mkdir(parents=True)
    (tmp_path / "data" / "results" / "a.json").write_text("{}")
    assert results.current_commit(tmp_path) == commit
    (tmp_path / "code.py").write_text("2")
    assert results.current_commit(tmp_path) == f"{commit}+changes"
    # A package that is installed in the folder of another project has no commit.
    assert results.current_commit(inner) == "unknown"


def test_the_commit_is_known_in_every_folder(tmp_path):
    """Also where a terminal could not show the name of the folder, as on most of Windows."""
    folder = tmp_path / "Jörg – Müller"
    folder.mkdir()
    (folder / "code.py").write_text("1")
    commit = commit_all(folder)
    code = "import sys; from pathlib import Path; from minillada.experiments import results; "
    code += "print(results.current_commit(Path(sys.argv[1])))"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, folder], env=os.environ | plain, capture_output=True
    )
    assert done.stdout.decode().strip() == commit, done.stderr


def test_no_git_program(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert results.current_commit() == "unknown"


@pytest.mark.parametrize("content", ["[" * 100_000, "1" * 5_000, "[]", None])
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "x.json"
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    with pytest.raises(ValueError, match="x.json does not hold the results of an experiment"):
        results.read_result(path)

"""The runner: resuming, what is measured again, weights that are noted, runs that are kept."""

import json

import pytest
from helpers import save_tiny_uni

from minillada.experiments import results, runner
from minillada.experiments.runner import Experiment, Lab, Point, over_seeds
from minillada.presets import get_preset


class Toy:
    """An experiment that writes down what is measured, and fails at a wanted point."""

    def __init__(self, folder, broken=()):
        self.out, self.runs, self.measured = folder / "toy.json", folder / "runs", []
        self.broken = set(broken)

    def square(self, lab, number, seed=0):
        if number in self.broken:
            raise KeyboardInterrupt
        self.measured.append((number, seed))
        return {"square": number**2 + seed}

    def experiment(self, *numbers, seeds=None, factor=1):
        points = []
        for number in numbers:
            at = ("squares", f"of {number}")
            points.append(Point(at, self.square, {"number": number * factor}))
        if seeds:
            points = over_seeds(seeds, points)
        return Experiment("toy.py", "A toy.", points, {"squares": {"unit": "m"}})

    def run(self, experiment, *arguments):
        runner.run(experiment, ["--out", str(self.out), "--runs", str(self.runs), *arguments])
        return json.loads(self.out.read_text())


def test_a_crash_in_the_middle_loses_nothing(tmp_path):
    toy = Toy(tmp_path, broken=[3])
    experiment = toy.experiment(1, 2, 3, 4)
    with pytest.raises(KeyboardInterrupt):
        toy.run(experiment)
    assert json.loads(toy.out.read_text())["results"]["squares"]["of 2"] == {"square": 4}
    toy.broken.clear()
    stored = toy.run(experiment)
    assert toy.measured == [(1, 0), (2, 0), (3, 0), (4, 0)]  # each once
    assert list(stored["results"]["squares"]) == ["unit", "of 1", "of 2", "of 3", "of 4"]


def test_a_changed_setting_is_measured_again(tmp_path):
    toy = Toy(tmp_path)
    toy.run(toy.experiment(1, 2))
    stored = toy.run(toy.experiment(0, 1, factor=5))
    # "of 2" is no point any more.
    assert toy.measured == [(1, 0), (2, 0), (0, 0), (5, 0)]
    assert stored["results"] == {
        "squares": {"unit": "m", "of 0": {"square": 0}, "of 1": {"square": 25}}
    }
    assert stored["points"]["squares/of 1"]["settings"] == {"number": 5}


def test_tuples_in_settings_are_not_measured_again(tmp_path):
    measured = []

    def measure(lab, pair):
        measured.append(pair)
        return 1

    experiment = Experiment("toy.py", "", [Point(("a",), measure, {"pair": (1, (2, 3))})])
    toy = Toy(tmp_path)
    toy.run(experiment)
    toy.run(experiment)
    assert measured == [(1, (2, 3))]


def test_the_head_names_command_and_commit(tmp_path, monkeypatch):
    toy = Toy(tmp_path)
    monkeypatch.setattr(results, "current_commit", lambda: "abc")
    stored = toy.run(toy.experiment(1, 2), "--only", "squares/of 1")
    assert stored["experiment"] == "toy" and stored["commit"] == "abc"
    assert stored["command"].startswith("python -m minillada.experiments.toy --out")
    assert stored["command"].endswith("--only 'squares/of 1'")
    # Points keep the commit at which they were measured.
    monkeypatch.setattr(results, "current_commit", lambda: "abc+changes")
    stored = toy.run(toy.experiment(1, 2))
    assert stored["commit"] == "abc+changes"
    commits = [point["commit"] for point in stored["points"].values()]
    assert commits == ["abc", "abc+changes"]


def test_seeds_are_settings_and_part_of_the_name(tmp_path):
    toy = Toy(tmp_path)
    stored = toy.run(toy.experiment(2, 3, seeds=(0, 7)))
    assert toy.measured == [(2, 0), (3, 0), (2, 7), (3, 7)]
    assert stored["results"]["squares"]["of 3, seed 7"] == {"square": 16}


def test_parts_and_names_choose_points():
    def measure(lab):
        return 0

    points = [Point(at, measure, {}) for at in (("a", "x"), ("a", "y"), ("b",))]
    experiment = Experiment("toy.py", "", points)

    def names(parts, only=None):
        return [point.name for point in runner.choose(experiment, parts, only)]

    assert names([]) == ["a/x", "a/y", "b"]
    assert names(["a"]) == ["a/x", "a/y"]
    assert names([], ["b", "a/y"]) == ["a/y", "b"]
    with pytest.raises(ValueError, match="no part 'c'; choose from: a; b"):
        names(["c"])
    with pytest.raises(ValueError, match="no point 'a'; choose from: a/x; a/y; b"):
        names([], ["a"])
    # A point of a part that is not asked for: else nothing would be measured, without a word.
    with pytest.raises(ValueError, match="no point 'b'; choose from: a/x; a/y$"):
        names(["a"], ["b"])


def test_shipped_weights_are_noted_with_their_tokenizer(tmp_path):
    lab = Lab(tmp_path / "runs")
    lab.load("mnist")
    lab.judge()
    expected = ("mnist", "mnist-judge", "mnist-tokenizer")
    assert lab.weights == {name: results.shipped_sum(name) for name in expected}
    assert len(lab.weights["mnist"]) == 64


def test_weights_of_somebody_else_are_noted_as_not_shipped(tmp_path):
    run = save_tiny_uni(tmp_path / "elsewhere")
    lab = Lab(tmp_path / "runs")
    lab.note(run)
    assert lab.weights == {"run": "not shipped", "tokenizer": "not shipped"}
    own = Lab(tmp_path / "elsewhere")
    own.note(run)
    assert own.weights == {}


def test_results_of_replaced_weights_are_refused(tmp_path):
    toy = Toy(tmp_path)
    stored = toy.run(toy.experiment(1))
    stored["weights"] = {"mnist": "0" * 64}
    toy.out.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="other weights of mnist; .* --overwrite"):
        toy.run(toy.experiment(1, 2))
    assert toy.run(toy.experiment(1, 2), "--overwrite")["weights"] == {}
    assert toy.measured == [(1, 0), (1, 0), (2, 0)]


def test_overwriting_some_points_keeps_the_others(tmp_path):
    toy = Toy(tmp_path)
    before = toy.run(toy.experiment(1, 2))
    again = ("--overwrite", "--only", "squares/of 1")
    assert toy.run(toy.experiment(1, 2), *again)["results"] == before["results"]
    assert toy.measured == [(1, 0), (2, 0), (1, 0)]
    # What is kept and what is new must have been measured with the same weights.
    toy.out.write_text(json.dumps(before | {"weights": {"mnist": "0" * 64}}))
    with pytest.raises(ValueError, match="other weights of mnist; .* --overwrite alone"):
        toy.run(toy.experiment(1, 2), *again)


def test_a_file_without_the_result_of_a_point_is_refused(tmp_path):
    toy = Toy(tmp_path)
    stored = toy.run(toy.experiment(1))
    del stored["results"]["squares"]["of 1"]
    toy.out.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="lacks the result of squares/of 1; move it away"):
        toy.run(toy.experiment(1))


@pytest.mark.parametrize("words", [(), ("--overwrite",)])
def test_results_of_another_experiment_are_kept(tmp_path, words):
    toy = Toy(tmp_path)
    before = toy.run(toy.experiment(1))
    other = Experiment("other.py", "", [Point(("cubes",), toy.square, {"number": 3})])
    with pytest.raises(ValueError, match="holds results of the experiment toy; give another --out"):
        toy.run(other, *words)
    assert json.loads(toy.out.read_text()) == before and toy.measured == [(1, 0)]


@pytest.mark.parametrize("place", ["folder", "file/toy.json"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    toy = Toy(tmp_path)
    toy.out = tmp_path / place
    with pytest.raises(ValueError, match="choose another (name|place with --out)"):
        toy.run(toy.experiment(1))
    assert not toy.measured


def test_a_value_is_stored_before_it_is_printed(tmp_path, monkeypatch):
    def broken(*words, **how):
        raise BrokenPipeError

    toy = Toy(tmp_path)
    monkeypatch.setattr("builtins.print", broken)
    with pytest.raises(BrokenPipeError):
        toy.run(toy.experiment(1, 2))
    assert json.loads(toy.out.read_text())["results"]["squares"]["of 1"] == {"square": 1}


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "toy: stopped; the same command goes on (with --overwrite,"),
        (OSError(28, "No space left on device", "toy.json"), 2, "toy: [Errno 28] No space left"),
    ],
)
def test_no_traceback_ends_an_experiment(monkeypatch, capsys, error, code, sentence):
    def fail(*about):
        raise error

    monkeypatch.setattr(runner, "run", fail)
    with pytest.raises(SystemExit) as stop:
        runner.main(Experiment("toy.py", "", []))
    assert stop.value.code == code
    assert capsys.readouterr().err.startswith(sentence)


@pytest.fixture
def calls(monkeypatch):
    """Calls of `train`: the run, and what it starts from."""
    made = []
    monkeypatch.setattr(runner, "train", lambda preset, run, start: made.append((run, start)))
    return made


def test_a_run_is_named_after_its_point_and_goes_on(tmp_path, calls):
    lab = Lab(tmp_path)
    lab.point = Point(("runs", "t from [0, 1]"), None, {})
    for _ in range(2):
        folder = lab.train(get_preset("mnist-cpu"), start="mnist", snapshot_every=5)
    assert folder == tmp_path / "runs-t-from-0-1"
    [(run, start)] = calls  # the second point that asks finds it trained
    assert (run.folder, run.resume, run.overwrite) == (folder, True, False)
    assert (run.snapshot_every, start) == (5, "mnist")
    assert set(lab.weights) == {"mnist", "mnist-tokenizer"}


def test_overwriting_trains_each_run_once(tmp_path, calls):
    lab = Lab(tmp_path, overwrite=True)
    for _ in range(2):
        lab.train(get_preset("mnist-cpu"), "shared")
    [(run, _)] = calls
    assert (run.resume, run.overwrite) == (False, True)


def test_all_that_a_training_reads_is_noted(tmp_path, calls):
    lab = Lab(tmp_path)
    lab.train(get_preset("mnist-painter-turbo"), "jumps")
    assert set(lab.weights) == {"mnist-tokenizer", "mnist-features", "mnist-painter"}

"""A folder keeps its plan, goes on with it, and is refused to any other."""

import json
import shlex

import pytest

from minillada.ablation import folder as folders
from minillada.ablation.plan import Plan
from minillada.settings import changed, from_dict, to_dict


def test_a_folder_takes_more_seeds_and_measures_and_keeps_what_it_has(tmp_path):
    first = Plan(preset="mnist-cpu", varied=(("block_size", (4, 8)),), passes=(9,))
    folders.write_plan(first, tmp_path)
    more = changed(first, seeds=(0, 1, 2), measures=(("drawing", 600), ("likelihood", 100)))
    folders.check_same(more, tmp_path)
    # Runs and measurements that are there keep their names.
    names = [trial.name for trial in first.trials()]
    assert names == [trial.name for trial in more.trials()][: len(names)]
    assert {m.key for m in first.measurements()} < {m.key for m in more.measurements()}
    folders.write_plan(more, tmp_path)
    for less in (first, changed(more, measures=(("drawing", 700), ("likelihood", 100)))):
        with pytest.raises(ValueError, match="with more seeds or measures"):
            folders.check_same(less, tmp_path)
    with pytest.raises(ValueError, match="holds another ablation"):
        folders.check_same(changed(more, seeds=(0, 1, 2, 3), passes=(16,)), tmp_path)


def test_a_value_that_is_written_otherwise_keeps_the_names_of_the_folder(tmp_path):
    first = Plan(
        preset="mnist-cpu", fixed=(("sampling.guidance", 3),), varied=(("weight_decay", (0, 0.1)),)
    )
    folders.write_plan(first, tmp_path)
    more = changed(
        first,
        fixed=(("sampling.guidance", 3.0),),
        varied=(("weight_decay", (0.0, 0.1)),),
        seeds=(0, 1),
    )
    taken = folders.check_same(more, tmp_path)
    names = [trial.name for trial in first.trials()]
    assert [trial.name for trial in taken.trials()][:2] == names
    assert [m.key for m in taken.measurements()] == [m.key for m in first.measurements()]
    assert taken.seeds == (0, 1)


def test_a_plan_is_stored_and_other_plans_are_refused(tmp_path):
    plan = Plan(preset="mnist-cpu", varied=(("mask_rate", ((0.1, 1.0),)),), passes=(9,))
    assert from_dict(Plan, json.loads(json.dumps(to_dict(plan)))) == plan
    folders.check_same(plan, tmp_path / "new")
    folders.write_plan(plan, tmp_path)
    assert folders.read_plan(tmp_path) == plan
    folders.check_same(plan, tmp_path)
    other = Plan(preset="mnist-cpu", varied=(("mask_rate", ((0.2, 1.0),)),), passes=(9,))
    with pytest.raises(ValueError, match="holds another ablation .*0.1.* before.*choose another"):
        folders.check_same(other, tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / ".DS_Store").touch()  # macOS, where the folder was looked at
    folders.check_same(plan, tmp_path / "mine")
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds something else"):
        folders.check_same(plan, tmp_path / "mine")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="file is a file; choose another folder with --out"):
        folders.check_same(plan, tmp_path / "file")
    with pytest.raises(FileNotFoundError, match="holds no ablation"):
        folders.read_plan(tmp_path / "mine")
    folders.write_json(tmp_path / folders.PLAN, to_dict(plan) | {"seeds": []})
    with pytest.raises(ValueError, match="ablation.json holds no plan: seeds must have at least 1"):
        folders.read_plan(tmp_path)


def test_the_command_that_goes_on_is_stored_beside_the_plan(tmp_path):
    plan = Plan(preset="mnist-cpu")
    folders.write_plan(plan, tmp_path / "my runs", ["--jobs", "2"])
    words = shlex.split((tmp_path / "my runs" / "command.txt").read_text())
    assert words == [*plan.command().split(), "--out", str(tmp_path / "my runs"), "--jobs", "2"]


@pytest.mark.parametrize("text", ["[" * 100_000, None, "{}", '{"preset": "cifar", "digest": "0"}'])
def test_what_is_no_file_of_an_ablation_is_named(tmp_path, text):
    if text is None:
        (tmp_path / folders.PLAN).mkdir()
    else:
        (tmp_path / folders.PLAN).write_text(text)
    with pytest.raises(ValueError, match="ablation.json is damaged, .* move it away"):
        folders.read_plan(tmp_path)


def test_all_that_runs_start_from_must_stay_as_it_was(tmp_path, monkeypatch):
    now = {"start=a": "1", "text=b": "2"}
    monkeypatch.setattr(Plan, "read_sources", lambda plan: tuple(sorted(now.items())))
    asked = Plan(preset="mnist-cpu")
    plan = folders.check_sources(asked)
    assert plan.sources == (("start=a", "1"), ("text=b", "2"))
    # A new command knows no sources: those of the folder count.
    folders.write_plan(plan, tmp_path)
    assert folders.check_sources(folders.check_same(asked, tmp_path)) == plan
    for name in ("start=a", "text=b"):
        for changes in ({name: "3"}, {name: None}):
            now = {"start=a": "1", "text=b": "2"} | changes
            now = {name: value for name, value in now.items() if value}
            with pytest.raises(ValueError, match=f"{name} was replaced after this ablation began"):
                folders.check_sources(plan)

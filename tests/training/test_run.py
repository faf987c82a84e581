"""When a run saves, what it keeps of a log, and that two processes cannot share a folder."""

import json
import multiprocessing
import os
import platform
import sys

import pytest
from helpers import real_images, use_digits
from tiny_runs import JUDGE, SHORT, judge_run

from minillada import checkpoint
from minillada.datasets import mnist
from minillada.settings import changed
from minillada.training import run as run_module
from minillada.training import train
from minillada.training.loop import fit
from minillada.training.run import Run


def saved_steps(monkeypatch, tmp_path, steps, save_every=None):
    """After which steps of a run its state is saved."""
    saved = []
    monkeypatch.setattr(run_module, "save_state", lambda *given: saved.append(given[2]))
    module, loss = judge_run(SHORT.seed)
    fit(
        module, loss, changed(SHORT, steps=steps), Run(tmp_path / str(steps), save_every=save_every)
    )
    return saved


def test_state_is_saved_every_tenth_of_a_run_and_at_its_end(monkeypatch, tmp_path):
    assert saved_steps(monkeypatch, tmp_path, 3) == [1, 2, 3]
    assert saved_steps(monkeypatch, tmp_path, 25) == [*range(2, 25, 2), 25]
    assert saved_steps(monkeypatch, tmp_path, 7, save_every=5) == [5, 7]


def test_the_default_is_at_most_500_steps(tmp_path):
    module, _ = judge_run(SHORT.seed)
    for steps, expected in ((360, 36), (6000, 500), (5, 1)):
        run = Run(tmp_path)
        run.begin(None, changed(SHORT, steps=steps))
        assert run.state_every == expected


def test_settings_of_a_run_that_make_no_sense(tmp_path):
    for value in (0, 1.5, float("nan"), "1"):
        with pytest.raises(ValueError, match="save_every must be a whole number and at least 1"):
            Run(tmp_path, save_every=value)
    with pytest.raises(ValueError, match="--resume keeps a run and --overwrite replaces it"):
        Run(tmp_path, resume=True, overwrite=True)


@pytest.mark.parametrize("line", ["note: lunch", "[1, 2]", '{"step": "x"}', "{", "\udce9", ""])
def test_a_foreign_line_in_the_log_does_not_stop_a_run(tmp_path, line):
    module, loss = judge_run(SHORT.seed)
    fit(module, loss, SHORT, Run(tmp_path / "whole"))
    fit(*judge_run(SHORT.seed), SHORT, Run(tmp_path / "run"), stop_after=3)
    log = tmp_path / "run" / "metrics.jsonl"
    first, *rest = log.read_bytes().splitlines(keepends=True)
    foreign = line.encode(errors="surrogateescape") + b"\n"
    log.write_bytes(b"".join([first, foreign, *rest]))
    with pytest.warns(UserWarning, match="1 lines that no step wrote were left out"):
        fit(*judge_run(99), SHORT, Run(tmp_path / "run", resume=True))
    assert log.read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_folder_in_the_place_of_the_log_is_refused(tmp_path):
    fit(*judge_run(SHORT.seed), SHORT, Run(tmp_path), stop_after=3)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(ValueError, match="metrics.jsonl is not a regular file"):
        fit(*judge_run(SHORT.seed), SHORT, Run(tmp_path, resume=True))


@pytest.mark.skipif(os.name == "nt", reason="nobody can ask there whether a process lives")
def test_leftovers_of_a_killed_process_go_away(tmp_path):
    module, loss = judge_run(SHORT.seed)
    fit(module, loss, SHORT, Run(tmp_path), stop_after=3)
    dead = multiprocessing.Process(target=int)
    dead.start()
    dead.join()
    left = tmp_path / f".state.safetensors.{platform.node()}.{dead.pid}.part"
    left.write_bytes(b"half")
    fit(module, loss, SHORT, Run(tmp_path, resume=True))
    assert not left.exists()


# --- two processes -------------------------------------------------------------------------------


def train_and_wait(folder, began, go_on):
    """Train a judge; tell when the first step begins, and wait there."""
    mnist.load_mnist = lambda split="train", root=None: real_images(40)

    def waiting(module, images, config):
        def loss(step):
            began.set()
            go_on.wait(60)
            return judge_run(SHORT.seed)[1](step)

        return loss

    train.judge_loss = waiting
    train.train(JUDGE, folder)


def test_two_processes_cannot_train_into_one_folder(tmp_path, monkeypatch):
    use_digits(monkeypatch, real_images(40))
    context = multiprocessing.get_context("spawn")
    began, go_on = context.Event(), context.Event()
    other = context.Process(target=train_and_wait, args=(tmp_path, began, go_on))
    other.start()
    try:
        assert began.wait(120)
        for run in (Run(tmp_path), Run(tmp_path, resume=True), Run(tmp_path, overwrite=True)):
            with pytest.raises(ValueError, match="is in use by process"):
                train.train(JUDGE, run)
    finally:
        go_on.set()
        other.join(120)


def test_the_log_holds_one_json_object_a_step(tmp_path):
    module, loss = judge_run(SHORT.seed)
    records = fit(module, loss, SHORT, Run(tmp_path))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records


def test_seconds_of_earlier_parts_count(tmp_path, monkeypatch):
    use_digits(monkeypatch, real_images(40))
    train.train(JUDGE, tmp_path, stop_after=3)
    path = tmp_path / "state.safetensors"
    tensors, settings = checkpoint.read_tensors(path)
    settings["seconds"] = "100.0"
    settings.pop("digest")
    settings["digest"] = checkpoint.tensors_digest(tensors, settings)
    checkpoint.save_tensors(path, tensors, settings)
    train.train(JUDGE, Run(tmp_path, resume=True))
    assert checkpoint.read_info(tmp_path / "weights.json")["seconds"] >= 100


def test_tensorboard_shows_every_step_once(tmp_path):
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for stop in (3, None):  # stopped, and gone on with
        run = Run(tmp_path, resume=True, tensorboard=True)
        fit(*judge_run(SHORT.seed), SHORT, run, stop_after=stop)
    shown = loading.EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [entry.step for entry in shown] == [record["step"] for record in logged]
    losses = [record["loss"] for record in logged]
    assert [entry.value for entry in shown] == pytest.approx(losses)


def test_only_an_overwritten_run_loses_its_curves(tmp_path):
    old = tmp_path / "tensorboard" / "events.out.tfevents.1"
    old.parent.mkdir()
    old.touch()
    # A folder without a run may hold somebody's curves, and a run that goes on keeps its own.
    for stop, kept, how in (
        (1, True, {}),
        (2, True, {"resume": True}),
        (1, False, {"overwrite": True}),
    ):
        fit(*judge_run(SHORT.seed), SHORT, Run(tmp_path, **how), stop_after=stop)
        assert old.exists() == kept


def test_tensorboard_that_is_not_installed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ValueError, match=r"this needs tensorboard, .* \"minillada\[ablate\]\""):
        Run(tmp_path, tensorboard=True)

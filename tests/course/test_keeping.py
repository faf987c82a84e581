"""A run of `grade` that was interrupted: what is known is kept, and the next run goes on."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from minillada.commands import teaching
from minillada.course import grading, keeping, pages, processes, worker
from minillada.exercises.checking import Outcome

NAMES = ("ann", "bob", "cem")
STUB = "def my_tokens_per_forward(committed):\n    raise NotImplementedError"
RIGHT = "def my_tokens_per_forward(committed):\n"
RIGHT += "    return committed.sum((0, 2)) / committed.any(2).sum(0)"


class Class:
    """What the grades of a test came to."""

    graded: list[str] = []  # students, in their order
    stop_at: str | None = None  # the first student who is not graded


def hand_in(folder, name, source=STUB):
    folder.mkdir(exist_ok=True)
    cell = {"cell_type": "code", "source": source, "metadata": {}}
    (folder / f"{name}.ipynb").write_text(json.dumps({"cells": [cell]}))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A class of three, whose grades are made at once; `Class.graded` lists them."""
    for name in NAMES:
        hand_in(tmp_path / "in", name)
    monkeypatch.setattr(grading.processes, "preload", lambda imports: None)
    monkeypatch.setattr(Class, "graded", [])
    monkeypatch.setattr(Class, "stop_at", None)

    def grade(submission, page, limits):
        if Class.stop_at and submission.student >= Class.stop_at:
            raise KeyboardInterrupt
        Class.graded.append(submission.student)
        return grading.Grade(submission.student, ["right"] * len(page.exercises), ["a note"])

    monkeypatch.setattr(grading, "grade", grade)
    return tmp_path


def run(place, **options):
    options = {"notebook": "08", "csv": place / "grades.csv", "jobs": 1} | options
    teaching.grade(place / "in", **options)


def stopped_at(place, student, **options):
    Class.stop_at = student
    with pytest.raises(KeyboardInterrupt):
        run(place, **options)
    Class.stop_at = None
    return json.loads((place / "grades.csv.unfinished").read_text())


def rows(place):
    with (place / "grades.csv").open(encoding="utf-8-sig") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def test_the_same_command_goes_on_where_it_was_stopped(place, capsys):
    left = stopped_at(place, "bob")
    assert list(left["grades"]) == ["ann"] and not (place / "grades.csv").exists()
    said = capsys.readouterr()
    assert "grades.csv.unfinished: 1; the same command goes on\n" in said.err
    seed = said.out.split("--seed ")[1].strip()
    assert str(left["seed"]) == seed
    run(place)
    said = capsys.readouterr().out
    assert "graded before, and kept: 1 of 3\n" in said and f"--seed {seed}\n" in said
    assert Class.graded == list(NAMES)
    assert list(rows(place)) == list(NAMES) and rows(place)["ann"]["notes"] == "a note"
    assert [path.name for path in place.iterdir() if "grades" in path.name] == ["grades.csv"]
    run(place)
    assert Class.graded == 2 * list(NAMES), "a run that was finished leaves nothing behind"


def test_what_was_changed_since_then_is_graded_again(place):
    stopped_at(place, "cem")
    hand_in(place / "in", "ann", RIGHT)
    (place / "in" / "bob.ipynb").unlink()
    run(place)
    assert Class.graded == ["ann", "bob", "ann", "cem"] and list(rows(place)) == ["ann", "cem"]


def test_grades_of_another_run_are_neither_taken_nor_lost(place):
    seed = stopped_at(place, "bob")["seed"]
    before = (place / "grades.csv.unfinished").read_text()
    for options in ({"notebook": "13"}, {"seconds": 9.0}, {"memory": 500}, {"seed": seed + 1}):
        with pytest.raises(ValueError, match="holds the grades of a run that was stopped"):
            run(place, **options)
        assert (place / "grades.csv.unfinished").read_text() == before
    run(place, seed=seed, jobs=2)
    assert Class.graded == list(NAMES)


def test_a_run_that_was_killed_goes_on_with_its_seed(place, monkeypatch):
    """It had no time to store it: while students are graded, no program of theirs can read it."""
    with monkeypatch.context() as patch:
        patch.setattr(keeping.Kept, "__exit__", lambda *about: None)
        assert stopped_at(place, "bob", seed=7)["seed"] is None
    with pytest.raises(ValueError, match="with the --seed that it printed, or delete"):
        run(place)
    run(place, seed=7)
    assert Class.graded == list(NAMES)


def test_a_run_that_goes_on_hides_its_seed_again(place, monkeypatch):
    assert stopped_at(place, "bob", seed=7)["seed"] == 7
    with monkeypatch.context() as patch:
        patch.setattr(keeping.Kept, "__exit__", lambda *about: None)
        assert stopped_at(place, "bob")["seed"] is None
    with monkeypatch.context() as patch:
        patch.setattr(keeping, "ROUNDS", 1)
        with pytest.raises(ValueError, match="was stopped"):
            run(place, seed=7)


def test_no_program_of_a_student_writes_a_grade(place):
    left = stopped_at(place, "bob")
    left["grades"]["ann"]["marks"][0] = "wrong"
    (place / "grades.csv.unfinished").write_text(json.dumps(left))
    with pytest.raises(ValueError, match="of a run that was stopped"):
        run(place)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"grades": [], "seed": 1}', "[" * 100_000])
def test_a_file_that_is_damaged_is_named(place, text):
    (place / "grades.csv.unfinished").write_text(text)
    with pytest.raises(ValueError, match="unfinished is no file of kept grades, or damaged"):
        run(place)
    assert not Class.graded


def test_a_full_disk_costs_no_grade_that_was_stored(place, monkeypatch, capsys):
    real, tries = keeping.atomic, []

    def atomic(path):
        tries.append(path)
        if len(tries) > 1:
            raise OSError(28, "No space left on device")
        return real(path)

    monkeypatch.setattr(keeping, "atomic", atomic)
    with pytest.raises(OSError, match="No space"):
        run(place, seed=7)
    assert len(tries) == 3, "the last one is to store the seed"
    said = capsys.readouterr().err
    assert "grades.csv.unfinished: 1; the same command with --seed 7 goes on" in said
    monkeypatch.setattr(keeping, "atomic", real)
    run(place, seed=7)
    assert Class.graded.count("ann") == 1 and len(rows(place)) == 3


def test_a_table_that_cannot_be_written_costs_no_grade(place, monkeypatch):
    def fails(*about):
        raise OSError("full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(grading, "save_csv", fails)
        run(place)
    assert len(json.loads((place / "grades.csv.unfinished").read_text())["grades"]) == 3
    run(place)
    assert Class.graded == list(NAMES) and len(rows(place)) == 3


@pytest.fixture
def short():
    """A folder with a short name, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        yield Path(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no forkserver")
def test_a_folder_that_holds_no_socket_is_named(monkeypatch):
    """As where TMPDIR is longer than the name of a socket may be."""
    from multiprocessing import forkserver

    def fails():
        raise OSError("AF_UNIX path too long")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(forkserver, "ensure_running", fails)
    with pytest.raises(ValueError, match=r"cannot hold a socket .*; set TMPDIR to one"):
        processes.preload([])
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_signal_ends_the_run_and_its_students_soon(tmp_path, short):
    endless = STUB.replace("raise NotImplementedError", "while True:\n        pass")
    hand_in(tmp_path / "in", "ann")
    hand_in(tmp_path / "in", "bob", endless)
    words = f"grade {tmp_path}/in --notebook 08 --csv {tmp_path}/grades.csv --jobs 1 --seconds 600"
    temporary = short
    process = subprocess.Popen(
        [sys.executable, "-m", "minillada", *words.split()],
        env=os.environ | {"TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    )
    kept = tmp_path / "grades.csv.unfinished"
    until = time.monotonic() + 600  # ends only what hangs
    while not kept.exists() or not list(temporary.glob("grade-*/out/loaded.json")):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=300)[1]  # the endless loop has 600 s
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in said and "grades.csv.unfinished: 1; " in said
    assert isinstance(json.loads(kept.read_text())["seed"], int)
    assert not list(temporary.glob("grade-*"))


def test_a_disk_that_is_full_costs_no_student_a_mark(monkeypatch):
    """A process says that its answers cannot be stored; alone and still so, the run is stopped."""
    assert processes.ending(worker.NO_ROOM) == processes.FULL
    lost = ([[Outcome(failure=f"your function {processes.FULL}")]], [], processes.FULL)
    monkeypatch.setattr(grading, "attempt", lambda *about: lost)
    page = grading.Page.read(pages.notebook_of("08"), 3)
    one = grading.Submission("ann", [STUB])
    assert grading.graded(one, page, grading.Limits()).lost
    # A student may have filled the disk. Where there is room without it, the mark stays.
    kept = []
    [grade] = grading.grade_all([one], page, grading.Limits(), keep=kept.append)
    assert grade.points == 0 and kept == [grade]

    def fails():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(grading.tempfile, "TemporaryFile", fails)
    with pytest.raises(OSError, match="no room for the answers of students") as error:
        grading.grade_all([one], page, grading.Limits())
    assert error.value.filename == grading.tempfile.gettempdir()


def test_a_process_without_room_says_so(monkeypatch):
    codes = []
    monkeypatch.setattr(worker, "confine", lambda job: None)
    monkeypatch.setattr(worker.os, "_exit", codes.append)
    for number in (28, 122):

        def fails(job, number=number):
            raise OSError(number, "full")

        monkeypatch.setattr(worker, "answer_all", fails)
        worker.serve(None)
    assert codes[::2] == [worker.NO_ROOM] * 2

"""Grading: sixty submissions, ten of them hostile, and every one gets what it deserves."""

import csv
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minillada.commands import teaching
from minillada.course import editions, grading, pages, processes, worker
from minillada.exercises.checking import TAKES_LONGER, Outcome, call, difference

STUB = "def {}({}):\n    raise NotImplementedError"
MARGIN = """
def my_margin(logits):
    best = logits.softmax(-1).topk(2).values
    return best[..., 0] - best[..., 1]
"""
TOKENS = """
def my_tokens_per_forward(committed):
    return committed.sum((0, 2)) / committed.any(2).sum(0)
"""
COUNT = """
def my_code_count(image_size, patch_size):
    side = image_size // patch_size
    return side * side
"""
IMPORTS = (
    "import torch\nfrom minillada.exercises.sampling import check_margin, check_tokens_per_forward"
)


def notebook(*cells):
    """A notebook of code cells; a pair is a cell with the tag `solution`."""
    entries = []
    for cell in cells:
        tags = ["solution"] if isinstance(cell, tuple) else []
        source = cell[0] if isinstance(cell, tuple) else cell
        kind = "markdown" if source.startswith("#") else "code"
        entries.append({"cell_type": kind, "source": source, "metadata": {"tags": tags}})
    return {"cells": entries, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}


def page_of(tmp_path, seed=11):
    path = tmp_path / "page" / "05_page.ipynb"
    path.parent.mkdir(exist_ok=True)
    handed_out = notebook(
        IMPORTS,
        "## Exercise 1 (easy): the margin",
        STUB.format("my_margin", "logits"),
        "check_margin(my_margin)",
        "### Solution",
        (MARGIN.strip() + "\n\n\nassert check_margin(my_margin)",),
        "## Exercise 2 (medium): tokens",
        STUB.format("my_tokens_per_forward", "committed"),
        "exercises.check_tokens_per_forward(my_tokens_per_forward);",
        "## Exercise 3 (easy): codes",
        STUB.format("my_code_count", "image_size, patch_size"),
        "check_code_count(my_code_count)",
    )
    path.write_text(json.dumps(handed_out))
    return grading.Page.read(path, seed)


def hand_in(folder, name, *cells):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.ipynb").write_text(json.dumps(notebook(*cells)))


def grades_of(folder, page, seconds=3.0, memory=600_000_000):
    found = grading.submissions(folder, page, "05")
    grades = grading.grade_all(found, page, grading.Limits(seconds, memory))
    return {grade.student: grade for grade in grades}


WRONG_MARGIN = "def my_margin(logits):\n    return logits.softmax(-1).amax(-1)"
# name -> (cells, words of the first mark, points); two of three exercises are right below
HOSTILE = {
    "endless": (
        ["def my_margin(logits):\n    while True:\n        pass", TOKENS, COUNT],
        "longer than 3 seconds (line ",
        2,
    ),
    "endless-in-c": (
        ["def my_margin(logits):\n    return 7 ** (7 ** (7 ** 7))", TOKENS, COUNT],
        "too long",
        2,
    ),
    "redefines-check": (
        [
            "check_margin = lambda f: True",
            "from minillada.exercises import checking\nfrom minillada import exercises",
            "def my_margin(logits):\n"
            "    torch.isclose = lambda *a, **k: torch.ones(1) > 0\n"
            "    checking.difference = lambda *a: None\n"
            "    return 0 * logits.sum(-1)",
            TOKENS,
            COUNT,
        ],
        "the values are wrong",
        2,
    ),
    "exits": (
        ["import os\ndef my_margin(logits):\n    os._exit(0)", TOKENS, COUNT],
        "ended the process (exit code 0)",
        2,
    ),
    "exits-at-once": (
        ["import os\ndef my_margin(logits, x=os._exit(3)):\n    return 1", TOKENS, COUNT],
        "reading your definitions ended the process (exit code 3)",
        0,
    ),
    "memory-bomb": (
        ["def my_margin(logits):\n    return torch.ones(10**12)", TOKENS, COUNT],
        "memory",
        2,
    ),
    "deletes-files": (
        [
            "import os, pathlib, shutil",
            "def my_margin(logits):\n"
            "    for path in ['.', '..', os.path.expanduser('~')]:\n"
            "        shutil.rmtree(path, ignore_errors=True)\n"
            "    return logits",
            TOKENS,
            COUNT,
        ],
        "",
        0,
    ),
    "seeds": (
        [
            "import random\ntorch.manual_seed(0)",
            "def my_margin(logits):\n"
            "    torch.manual_seed(0)\n"
            "    random.seed(0)\n"
            "    from minillada.exercises.sampling import check_margin\n"
            "    return check_margin.cases(0)[0].right",
            TOKENS,
            COUNT,
        ],
        "the values are wrong",
        2,
    ),
    "prints-a-gigabyte": (
        [
            "def my_margin(logits):\n"
            "    for _ in range(1000):\n        print('x' * 10**6)\n"
            "    best = logits.softmax(-1).topk(2).values\n"
            "    return best[..., 0] - best[..., 1]",
            TOKENS,
            COUNT,
        ],
        "right",
        3,
    ),
    "kills-its-parent": (
        [
            "import os, signal",
            "def my_margin(logits):\n    os.kill(os.getppid(), signal.SIGKILL)\n    return logits",
            TOKENS,
            COUNT,
        ],
        "",
        2,
    ),
}


def test_sixty_submissions_of_which_ten_are_hostile(tmp_path):
    page, folder = page_of(tmp_path), tmp_path / "handed in"
    for number in range(25):
        hand_in(folder, f"good-{number:02d}", IMPORTS, MARGIN, TOKENS, COUNT)
    for number in range(15):
        hand_in(folder, f"wrong-{number:02d}", IMPORTS, WRONG_MARGIN, TOKENS, COUNT)
    for number in range(10):
        hand_in(folder, f"half-{number:02d}", STUB.format("my_margin", "logits"), COUNT)
    for name, (cells, _, _) in HOSTILE.items():
        hand_in(folder, name, IMPORTS, *cells)
    grades = grades_of(folder, page)
    assert len(grades) == 60
    for name, one in grades.items():
        if name.startswith("good"):
            assert one.marks == ["right"] * 3, (name, one)
        elif name.startswith("wrong"):
            hint = "that is the probability of the best token alone; subtract the second best"
            assert one.marks == [hint, "right", "right"], (name, one)
        elif name.startswith("half"):
            assert one.marks[0].startswith("not done yet") and one.points == 1, (name, one)
            assert one.marks[1] == "there is no function my_tokens_per_forward in your notebook"
        else:
            _, words, points = HOSTILE[name]
            assert words in one.marks[0], (name, one)
            assert one.points == points, (name, one)
            assert name == "prints-a-gigabyte" or one.marks[0] != "right"


def test_a_copy_of_the_printed_solution_is_not_the_students_answer(tmp_path):
    page, folder = page_of(tmp_path), tmp_path / "handed in"
    printed = MARGIN.strip() + "\n\n\nassert check_margin(my_margin)"
    hand_in(folder, "tagged", IMPORTS, STUB.format("my_margin", "logits"), (printed,))
    hand_in(folder, "untagged", IMPORTS, STUB.format("my_margin", "logits"), printed)
    grades = grades_of(folder, page)
    for one in grades.values():
        assert one.marks[0].startswith("not done yet")
    assert not grades["tagged"].notes, "it is the notebook as we print it"
    assert grades["untagged"].notes == ["copies of printed solutions that do not count: 1"]


def test_without_fork(tmp_path, monkeypatch):
    """As on Windows: a new process that imports everything itself."""
    monkeypatch.setattr(processes, "context", lambda: multiprocessing.get_context("spawn"))
    page = page_of(tmp_path)
    submission = grading.Submission("ann", [IMPORTS, WRONG_MARGIN, TOKENS, COUNT])
    one = grading.grade(submission, page, grading.Limits())
    assert one.points == 2 and "subtract the second best" in one.marks[0]


def test_the_command(tmp_path):
    """The whole way, with the notebook as it is handed out."""
    handed_out = editions.student(pages.read_json(pages.notebook_of("08")))
    editions.save(handed_out, tmp_path / "in" / "ann.ipynb")
    (tmp_path / "in" / "bob").mkdir()
    for name in ("bob/answers.pdf", "eve.py", ".DS_Store"):  # these two sent something else
        (tmp_path / "in" / name).write_text("?")
    words = f"grade {tmp_path}/in --notebook 08 --csv {tmp_path}/grades.csv --seed 3 --jobs 1"
    done = subprocess.run(
        [sys.executable, "-m", "minillada", *words.split()], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "1 submission, 0.0 of" in done.stdout and "--seed 3" in done.stdout
    assert "not graded: bob, eve.py\n" in done.stdout
    (row,) = csv.DictReader((tmp_path / "grades.csv").open(encoding="utf-8-sig"))
    assert row["student"] == "ann" and row["points"] == "0" and "not done yet" in row["feedback"]
    with pytest.raises(FileNotFoundError, match="there is no notebook '99'"):
        pages.notebook_of("99")


def test_what_is_not_a_function_is_not_run(tmp_path):
    page, folder = page_of(tmp_path), tmp_path / "handed in"
    cells = ["raise SystemExit", "%matplotlib inline\nSCALE = 1.0\nx = print(1 / 0)"]
    margin = MARGIN.replace("best[..., 0]", "SCALE * best[..., 0]")
    below = STUB.format("my_margin", "logits")
    broken = "def my_margin(logits:\n"
    hand_in(folder, "ann", *cells, margin, below, broken, TOKENS, COUNT, "import nothing_there")
    one = grades_of(folder, page)["ann"]
    assert one.marks == ["right"] * 3
    assert any("cannot be read ('(' was never closed, line 1: `def" in note for note in one.notes)
    assert any("nothing_there" in note for note in one.notes)


def built(*cells, asked=()):
    """The names that a process takes from these cells, and its notes."""
    tasks = [worker.Task(name, []) for name in asked]
    return worker.build(worker.Job([], list(cells), tasks, Path(), 1.0, 10**9))


def test_a_line_that_begins_with_a_percent_sign_may_be_python():
    source = """
def rest(a, b):
    return (
        a
        % b
    )
"""
    names, notes = built(source)
    assert names["rest"](7, 4) == 3 and not notes
    names, notes = built("%matplotlib inline\n" + source + "\n!ls\nrest?", "%%time\nSIDE = 4")
    assert names["rest"](7, 4) == 3 and names["SIDE"] == 4 and not notes


def test_what_only_the_compiler_refuses_costs_its_own_statement():
    good = "def f(n):\n    return n"
    names, notes = built(f"{good}\ndef g(n):\n    return n\n    break", "class A:\n    continue")
    assert names["f"](2) == 2 and "g" not in names
    assert len(notes) == 2 and "'break' outside loop (<cell 1>, line 5)" in notes[0]


def test_an_answer_that_ends_in_not_implemented_error_takes_its_place():
    wrong = "def f(n):\n    return 0"
    right = "def f(n):\n    if n > 0:\n        return n + 1\n    raise NotImplementedError('n')"
    stub = 'def f(n):\n    """What is asked."""\n    raise NotImplementedError'
    names, _ = built(wrong, right, stub)
    assert names["f"](1) == 2


def test_constants_may_have_a_type_and_arithmetic():
    cell = "Z: float = 1.96\nTHIRD = 1 / 3\nROOT = 2**-0.5\nSEEN = set()\nINF = -float('inf')"
    names, notes = built(cell + "\ndef f(z=Z):\n    return z", "later: int\nx = print(1 / 0)")
    assert names["f"]() == 1.96 and names["THIRD"] == 1 / 3 and names["SEEN"] == set()
    assert names["INF"] < 0 and "x" not in names and not notes


@pytest.mark.parametrize(
    ("before", "two"),
    [
        ("import math\nTWO = int(math.log2(4))", "TWO"),
        ("from math import log as ln\nLN2 = ln(2)", "int(1 + LN2 / LN2)"),
        ("ONE: int = 1\nTWO = ONE + 1", "TWO"),
        ("SIZES = {}\nSIZES['top'] = ONE = 1", "SIZES['top'] + ONE"),
        ("class Size:\n    top = 2\nTWO = Size.top", "TWO"),
        ("TWO = torch.tensor([1, 2], dtype=torch.int64)", "int(TWO[1])"),
    ],
)
def test_constants_may_be_made_of_what_has_a_name(before, two):
    names, notes = built("import torch", before, f"def f():\n    return {two}", asked=["f"])
    assert names["f"]() == 2 and not notes


def test_an_answer_may_be_another_function_under_its_name():
    helper = "def helper(k, n):\n    return k * n"
    names, notes = built(STUB.format("f", "n"), helper, "def g(n):\n    return 3 * n", "f = g")
    assert names["f"](2) == 6 and not notes
    names, notes = built("from functools import partial", helper, "f = partial(helper, k=3)")
    assert names["f"](n=2) == 6 and not notes


@pytest.mark.parametrize(
    "cell",
    [
        "f = helper(3)",
        "sizes = max([1], key=helper)",
        "helper(1)[0] = 1",
        "x = list(map(helper, y))",
    ],
)
def test_no_function_of_a_student_is_called_for_a_constant(cell):
    helper = "y = [1]\nran = []\ndef helper(n):\n    ran.append(n)\n    return ran"
    names, _ = built(helper, cell)
    assert names["ran"] == []


@pytest.mark.parametrize(
    "cell",
    [
        "scale = measured(3)",
        "scale *= 2",
        "if True:\n    def helper():\n        return 1",
        "with open('x') as scale:\n    pass",
        "for scale in found:\n    pass",
        "scale = 1 / 0",
    ],
)
def test_a_note_names_what_an_answer_needs_and_was_not_run(cell):
    """But nothing else that was left out, and no local name that reads alike."""
    cells = [
        "def f(n):\n    return helper() * n",
        "def helper():\n    return scale",
        "n = print(7)\nother = print(8)\nf(1)",
        "def free():\n    return other",
    ]
    _, notes = built(*cells, cell, asked=["f"])
    line = cell.splitlines()[0]
    why = "ZeroDivisionError: division by zero" if "/ 0" in cell else worker.NOT_TAKEN
    assert notes == [f"code cell 5: `{line}` was not run ({why})"]
    _, notes = built(*cells, cell, "scale = 1\ndef helper():\n    return scale", asked=["f"])
    assert not notes, "what is bound again is not missed"


def test_a_note_says_why_a_function_or_an_import_is_missing():
    """Its default needs what was left out, so that is named as well."""
    left_out, function = "side = torch.ones(3)", "def f(n, side=side):"
    gone = "import nothing_there"
    _, notes = built(left_out, gone, f"{function}\n    return n", asked=["f"])
    assert f"code cell 1: `{left_out}` was not run ({worker.NOT_TAKEN})" in notes
    words = "was not run (NameError: name 'side' is not defined)"
    assert f"code cell 3: `{function}` {words}" in notes
    assert any(note.startswith(f"code cell 2: `{gone}` was not run (Module") for note in notes)


def test_a_note_says_that_the_last_of_two_answers_counts():
    one, two = "def f(n):\n    return n", "def f(n):\n    return 2 * n"
    names, notes = built(STUB.format("f", "n"), one, STUB.format("f", "n"), asked=["f"])
    assert names["f"](1) == 1 and not notes, "a stub is no answer"
    names, notes = built(one, two, asked=["f"])
    assert names["f"](1) == 2
    assert notes == ["f is defined more than once; the last one counts"]


def test_an_answer_that_cannot_be_read_is_told_from_one_that_is_not_there(tmp_path):
    broken = "def my_margin(logits)\n    return 1"
    one = grading.grade(
        grading.Submission("ann", [IMPORTS, broken]), page_of(tmp_path), grading.Limits()
    )
    assert one.marks[0] == "there is no function my_margin in your notebook; see the notes"
    assert one.notes == [
        "code cell 2 cannot be read (expected ':', line 1: `def my_margin(logits)`)"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is watched, not limited")
def test_memory_that_an_answer_keeps_costs_no_other_exercise(tmp_path):
    greedy = """
kept = []
def my_margin(logits):
    while True:
        kept.append(torch.ones(5_000_000))
"""
    submission = grading.Submission("ann", [IMPORTS, greedy, TOKENS, COUNT])
    limits = grading.Limits(memory=300_000_000)
    one = grading.grade(submission, page_of(tmp_path), limits)
    words = "your function needs more memory than it may have (line 3 of my_margin: `kept.append("
    assert one.marks[0].startswith(words)
    assert one.marks[1:] == ["right", "right"]


def test_a_note_outlives_the_process_that_wrote_it(tmp_path):
    """The exercise below it ends the process, and a fresh one does not need what was left out."""
    margin = MARGIN.replace("best[..., 1]", "scale * best[..., 1]")
    ends = "import os\ndef my_tokens_per_forward(committed):\n    os._exit(0)"
    cells = [IMPORTS, "scale = torch.ones(1)", margin, ends, COUNT]
    one = grading.grade(grading.Submission("ann", cells), page_of(tmp_path), grading.Limits())
    assert "'scale' is not defined" in one.marks[0] and one.marks[2] == "right"
    assert any("`scale = torch.ones(1)` was not run" in note for note in one.notes)


def test_a_set_is_no_list_for_the_grader_either():
    """As in the notebook, where a check says "of type set, a list was expected"."""
    answer = worker.restored(worker.plain({1, 2}, {}), {})
    assert type(answer).__name__ == "set" and not hasattr(answer, "__len__")


def test_a_whole_number_without_end_is_marked_as_in_the_notebook(tmp_path):
    worker.save(Outcome(10**5000), tmp_path, "0-0")
    outcome = grading.outcome_of(tmp_path, "0-0")
    assert difference(outcome.answer, 7) == difference(10**5000, 7)


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (".to_sparse()", None),
        (".double()", None),
        (".to(torch.complex64)", "with complex numbers, real ones were expected"),
        (".to(torch.complex128) + 5j", "with complex numbers, real ones were expected"),
    ],
)
def test_tensors_of_every_kind_are_marked_as_in_the_notebook(tmp_path, ending, words):
    right = torch.eye(3)
    answer = eval(f"right{ending}", {"torch": torch, "right": right})
    worker.save(Outcome(answer), tmp_path, "0-0")
    for outcome in (Outcome(answer), grading.outcome_of(tmp_path, "0-0")):
        assert outcome.failure is None
        found = difference(outcome.answer, right)
        assert found is None if words is None else words in found


def test_folders_of_students_and_files_that_are_no_notebooks(tmp_path):
    page, folder = page_of(tmp_path), tmp_path / "handed in"
    for name in ("ann", "bob", "eve"):
        (folder / name / "week").mkdir(parents=True)
    hand_in(folder / "ann" / "week", "05_page", MARGIN)
    hand_in(folder / "ann" / "week", "06_other", WRONG_MARGIN)
    hand_in(folder / "bob" / "week", "renamed", WRONG_MARGIN)
    (folder / "eve" / "05_page.ipynb").write_text("[" * 100_000)
    (folder / "number.ipynb").write_text('{"cells": [' + 5_000 * "1" + "]}")
    (folder / "__MACOSX").mkdir()  # as in a zip that macOS made
    (folder / "__MACOSX" / "._05_page.ipynb").write_bytes(b"\0\5\x16\7")
    found = {one.student: one for one in grading.submissions(folder, page, "05")}
    assert found["ann"].cells == [MARGIN] and found["bob"].cells == [WRONG_MARGIN]
    assert "is not a notebook" in found["eve"].problem
    assert "is not a notebook" in found["number"].problem
    assert found.keys() == {"ann", "bob", "eve", "number"}
    assert grading.grade(found["eve"], page, grading.Limits()).points == 0
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        grading.submissions(tmp_path / "nowhere", page, "05")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no notebook"):
        grading.submissions(tmp_path / "empty", page, "05")


def test_csv_and_feedback(tmp_path):
    page = page_of(tmp_path)
    grades = [
        grading.Grade("=ann", ["right", "right", "the sign is\x07wrong"]),
        grading.Grade("../bob", ["right"] * 3, ["=code cell 3", "cannot be read"]),
    ]
    grading.save_csv(grades, page, tmp_path / "grades.csv")
    rows = list(csv.DictReader((tmp_path / "grades.csv").open(encoding="utf-8-sig")))
    assert [row["points"] for row in rows] == ["2", "3"]
    assert (tmp_path / "grades.csv").read_bytes().startswith(b"\xef\xbb\xbfstudent,points,")
    assert rows[0]["student"] == "'=ann", "no spreadsheet takes a name for a formula"
    assert rows[0]["check_margin"] == "1" and rows[0]["check_code_count"] == "0"
    lines = rows[0]["feedback"].split(" | ")
    assert lines[2] == "Exercise 3 (easy): codes (my_code_count): the sign is wrong"
    assert rows[1]["notes"] == "'=code cell 3 | cannot be read" and rows[1]["of"] == "3"
    for text, cell in (("@a", "'@a"), ("-a", "'-a"), ("+a", "'+a"), ("a=b", "a=b"), ("\ta", " a")):
        assert grading.harmless(text) == cell
    grading.save_feedback(grades, page, tmp_path / "feedback")
    names = sorted(path.name for path in (tmp_path / "feedback").iterdir())
    assert names == [".._bob.txt", "_ann.txt"]
    text = (tmp_path / "feedback" / "_ann.txt").read_text(encoding="utf-8")
    assert text.startswith("'=ann\nRight: 2 of 3 exercises.\n\nExercise 1 ")
    text = (tmp_path / "feedback" / ".._bob.txt").read_text(encoding="utf-8")
    assert text.endswith("\n\nNote: =code cell 3\nNote: cannot be read\n")


def test_one_submission_does_not_end_the_grading_of_the_class(tmp_path, monkeypatch):
    page, folder = page_of(tmp_path), tmp_path / "in"
    notes = "def my_margin(x):\n    open('../out/loaded.json', 'w').write('{\"notes\": 5}')"
    hand_in(folder, "notes", IMPORTS, notes, TOKENS, COUNT)
    hand_in(folder, "good", IMPORTS, MARGIN, TOKENS, COUNT)
    grades = grades_of(folder, page)
    assert grades["notes"].points == 2 and grades["good"].points == 3
    real = grading.attempt

    def attempt(submission, *rest):
        if submission.student == "notes":
            raise RuntimeError("nobody thought of this")
        return real(submission, *rest)

    monkeypatch.setattr(grading, "attempt", attempt)
    grades = grades_of(folder, page)
    assert grades["notes"].marks == [grading.NOT_GRADED] * 3 and grades["good"].points == 3
    assert grades["notes"].notes == ["RuntimeError: nobody thought of this"]


def attempts(monkeypatch, *found):
    """What each process of a submission returns, in turn; the exercises that they begin with."""
    left, begun = list(found), []
    monkeypatch.setattr(
        grading, "attempt", lambda one, page, first, limits: begun.append(first) or left.pop(0)
    )
    return begun


def test_an_exercise_of_a_process_that_was_lost_is_tried_once_more(tmp_path, monkeypatch):
    page, right = page_of(tmp_path), [Outcome(case.right) for case in page_of(tmp_path).cases[2]]
    one = grading.Submission("ann", [], notes=("a note of reading",))
    lost, wrong = f"ended the process {processes.LOST}", [Outcome(failure="no")]
    begun = attempts(
        monkeypatch,
        ([wrong, wrong], ["a", "b"], lost),
        ([wrong, right], ["b", "c"], "was done"),
    )
    grade = grading.graded(one, page, grading.Limits())
    assert begun == [0, 1] and grade.marks == ["no", "no", "right"] and grade.lost
    assert grade.notes == ["a note of reading", "a", "b", "c"]
    # Where it is the only one, it counts; where nothing could be read, nothing is tried again.
    begun = attempts(monkeypatch, ([wrong], [], lost), ([], [], "ended"))
    grade = grading.graded(one, page, grading.Limits())
    assert begun == [0, 1] and grade.marks == ["no", *["reading your definitions ended"] * 2]
    # What is no notebook has no process, and keeps its note.
    none = grading.Submission("bob", [], "no notebook", ("a note of reading",))
    grade = grading.graded(none, page, grading.Limits())
    assert grade == grading.Grade("bob", ["no notebook"] * 3, ["a note of reading"])


def test_a_process_gets_the_exercises_that_are_left_and_leaves_nothing(tmp_path, monkeypatch):
    def run(job):
        jobs.append(job)
        (job.folder / "out" / "loaded.json").write_text(json.dumps({"notes": ["x" * 5000] * 30}))
        for name, answer in (("0-0", 1), ("1-0", 2)):
            worker.save(Outcome(answer), job.folder / "out", name)
        return "took too long"

    jobs, page = [], page_of(tmp_path)
    monkeypatch.setattr(processes, "run", run)
    one = grading.Submission("ann", ["cell"])
    outcomes, notes, end = grading.attempt(one, page, 1, grading.Limits(4.0, 10**6))
    [job] = jobs
    assert [task.function for task in job.tasks] == ["my_tokens_per_forward", "my_code_count"]
    for task, cases in zip(job.tasks, page.cases[1:], strict=True):
        assert task.inputs == [case.inputs for case in cases]
    assert (job.imports, job.cells) == (page.imports, ["cell"])
    assert (job.seconds, job.memory) == (4.0, 10**6)
    assert not job.folder.exists()
    # What was answered before the end is kept.
    ended = Outcome(failure="your function took too long")
    assert outcomes == [[Outcome(1)], [Outcome(2), ended]]
    assert end == "took too long" and notes == ["x" * worker.LONGEST_TEXT] * 20


def test_an_exercise_ends_with_its_first_failure_and_a_process_with_its_time(tmp_path):
    worker.save(Outcome(failure="no"), tmp_path, "0-0")
    worker.save(Outcome(2), tmp_path, "0-1")
    worker.save(Outcome(failure=f"{TAKES_LONGER} 3 seconds"), tmp_path, "1-0")
    worker.save(Outcome(4), tmp_path, "2-0")
    tasks = [worker.Task("f", [(), ()]), worker.Task("g", [()]), worker.Task("h", [()])]
    first, second = grading.collected(tmp_path, tasks, "ended")
    assert first == [Outcome(failure="no")] and second[0].ran_out


def test_only_plain_files_of_some_size_are_read(tmp_path, monkeypatch):
    """A link may lead to an answer of another student, and a pipe never ends."""
    (tmp_path / "a.json").write_text('{"failure": "' + 5000 * "x" + '"}')
    assert grading.outcome_of(tmp_path, "a").failure == "x" * worker.LONGEST_TEXT
    for name, text in (("list", "[]"), ("deep", "[" * 100_000), ("half", "{")):
        (tmp_path / f"{name}.json").write_text(text)
        assert grading.json_in(tmp_path / f"{name}.json") is None
    assert grading.plain_file(tmp_path) is None
    if hasattr(os, "O_NOFOLLOW"):
        (tmp_path / "link.json").symlink_to(tmp_path / "a.json")
        os.mkfifo(tmp_path / "pipe.json")
        for name in ("link", "pipe"):
            assert grading.plain_file(tmp_path / f"{name}.json") is None
            assert grading.outcome_of(tmp_path, name) is None
    monkeypatch.setattr(grading, "LARGEST_ANSWER", 5010)
    assert grading.plain_file(tmp_path / "a.json") is None


def test_a_lost_submission_is_graded_again_alone(tmp_path, monkeypatch):
    def once(submission, *rest):
        asked.append(submission.student)
        return grading.Grade(submission.student, [], lost=asked.count("bob") == 1)

    asked, page = [], page_of(tmp_path)
    found = [grading.Submission(name, []) for name in ("ann", "bob")]
    # What fails in a way that nobody thought of is lost, too.
    monkeypatch.setattr(grading, "graded", None)
    assert grading.grade(found[0], page, grading.Limits()).lost
    monkeypatch.setattr(grading, "grade", once)
    grades = grading.grade_all(found, page, grading.Limits(), jobs=1)
    assert [one.student for one in grades] == ["ann", "bob"] and not any(one.lost for one in grades)
    assert asked[:2] == ["ann", "bob"] and asked.count("bob") == 2


def test_what_cannot_be_compared_is_wrong_and_no_mark_is_too_long(monkeypatch):
    def fails(*about):
        raise ValueError("no numbers")

    monkeypatch.setattr(grading, "diagnosis", lambda *about: "x" * 5000)
    assert grading.mark([], [], "f") == "x" * worker.LONGEST_TEXT
    monkeypatch.setattr(grading, "diagnosis", fails)
    assert grading.mark([], [], "f") == "your answer cannot be compared with the right one"


def test_notes_of_reading_stand_behind_the_note_of_choosing(tmp_path):
    page, folder = page_of(tmp_path), tmp_path / ".ipynb_checkpoints" / "in"
    printed = MARGIN.strip() + "\n\n\nassert check_margin(my_margin)"
    (folder / "ann").mkdir(parents=True)
    hand_in(folder / "ann", "05_page", "# words", STUB.format("my_margin", "logits"), printed)
    hand_in(folder / "ann", "05_page-Copy1", MARGIN)
    [ann] = grading.submissions(folder, page, "05")
    assert ann.cells == [STUB.format("my_margin", "logits")], "words are no code"
    assert ann.notes[0].startswith("graded: ") and ann.notes[1].startswith("copies of printed")


def test_an_error_that_speaks_of_time_costs_no_other_exercise(tmp_path):
    """A process ends itself after a call that could not be stopped, and only then."""

    def fails():
        raise ValueError("no list may be longer than 3")

    worker.save(call(fails, ()), tmp_path, "0-0")
    worker.save(Outcome(4), tmp_path, "1-0")
    tasks = [worker.Task("f", [()]), worker.Task("g", [()])]
    first, second = grading.collected(tmp_path, tasks, "ended the process")
    assert "ValueError" in first[0].failure and second == [Outcome(4)]


def test_every_name_is_graded_or_named(tmp_path):
    page, folder = page_of(tmp_path), tmp_path / "in"
    (folder / "zoe" / ".ipynb_checkpoints").mkdir(parents=True)
    (folder / "bob.ipynb").mkdir()
    hand_in(folder / "zoe" / ".ipynb_checkpoints", "05_page-checkpoint", MARGIN)
    hand_in(folder, "ann", MARGIN)
    assert [one.student for one in grading.submissions(folder, page, "05")] == ["ann"]
    assert grading.without_notebook(folder) == ["bob.ipynb", "zoe"]


def test_the_ending_of_a_file_may_be_in_capitals(tmp_path):
    page, folder = page_of(tmp_path), tmp_path / "in"
    hand_in(folder, "ann", MARGIN)
    (folder / "ann.ipynb").rename(folder / "ann.IPYNB")
    (ann,) = grading.submissions(folder, page, "05")
    assert ann.student == "ann" and ann.cells == [MARGIN]
    assert grading.without_notebook(folder) == []


def test_files_of_another_notebook_do_not_lower_the_mean(tmp_path):
    """A folder may hold the files of a whole week."""
    page, folder = page_of(tmp_path), tmp_path / "in"
    for name in ("ann_05", "bob_05"):
        hand_in(folder, name, MARGIN)
    hand_in(folder, "ann_06", "def my_other(x):\n    return x")
    found = grading.submissions(folder, page, "05")
    marks = {"ann_05": [grading.RIGHT] * 3, "ann_06": ["another"] * 3, "bob_05": ["wrong"] * 3}
    grades = [grading.Grade(one.student, marks[one.student]) for one in found]
    words = "3 submissions, 1.5 of 3 exercises right on average"
    left = ", without 1 of another notebook or damaged"
    assert grading.summary(grades, found, 3) == words + left
    assert grading.summary(grades[:1], found[:1], 3) == (
        "1 submission, 3.0 of 3 exercises right on average"
    )
    other = grading.summary(grades[1:2], found[1:2], 3)
    assert other == "1 submission, none of which is this notebook"


def test_of_several_notebooks_the_nearest_to_the_top_counts(tmp_path):
    page, folder = page_of(tmp_path), tmp_path / "in"
    (folder / "ann" / "old").mkdir(parents=True)
    hand_in(folder / "ann", "05_page", MARGIN)
    hand_in(folder / "ann", "05_page-Copy1", WRONG_MARGIN)
    hand_in(folder / "ann" / "old", "05_page", WRONG_MARGIN)
    hand_in(folder / "bob", "06_other", COUNT)
    ann, bob = grading.submissions(folder, page, "05")
    assert ann.cells == [MARGIN]
    second, third = Path("ann", "05_page-Copy1.ipynb"), Path("ann", "old", "05_page.ipynb")
    note = f"graded: {Path('ann', '05_page.ipynb')}; not graded: {second}, {third}"
    assert ann.notes == (note,)
    note = f"graded: {Path('bob', '06_other.ipynb')}, whose name does not begin with 05"
    assert bob.notes == (note,)


def test_a_file_and_a_folder_of_one_student_are_both_named(tmp_path):
    """The file bears the student's name; other notebooks of the course are no doubt."""
    page, folder = page_of(tmp_path), tmp_path / "in"
    (folder / "ann").mkdir(parents=True)
    hand_in(folder, "ann", MARGIN)
    hand_in(folder / "ann", "05_page", STUB.format("my_margin", "logits"))
    hand_in(folder / "ann", "04_other", COUNT)
    (folder / "bob").mkdir()
    hand_in(folder / "bob", "05_page", MARGIN)
    hand_in(folder / "bob", "04_a", COUNT)  # stands first in the folder
    hand_in(folder / "cem", "05_page", MARGIN)
    hand_in(folder / "cem", "mine", WRONG_MARGIN)  # of no other notebook
    ann, bob, cem = grading.submissions(folder, page, "05")
    assert ann.cells == [MARGIN]
    assert ann.notes == (f"graded: ann.ipynb; not graded: {Path('ann', '05_page.ipynb')}",)
    assert bob.cells == [MARGIN] and not bob.notes
    note = f"graded: {Path('cem', '05_page.ipynb')}; not graded: {Path('cem', 'mine.ipynb')}"
    assert cem.cells == [MARGIN] and cem.notes == (note,)


def test_another_notebook_and_what_was_not_run_are_named(tmp_path, capsys):
    handed_out = editions.student(pages.read_json(pages.notebook_of("08")))
    editions.save(handed_out, tmp_path / "in" / "ann.ipynb")
    names = "my_slant", "my_parse"
    hand_in(tmp_path / "in", "bob", *(STUB.format(name, "x") for name in names))
    hand_in(tmp_path / "in", "eve", "my_parse = found(my_slant)")
    teaching.grade(tmp_path / "in", "01", tmp_path / "grades.csv")
    printed = capsys.readouterr().out
    assert f"look at these yourself, {tmp_path / 'grades.csv'} says why: ann, eve\n" in printed
    row, *_ = csv.DictReader((tmp_path / "grades.csv").open(encoding="utf-8-sig"))
    words = "ann.ipynb names none of my_slant, my_parse; is it another notebook?"
    assert row["points"] == "0" and words in row["feedback"]


def test_students_stand_in_the_order_of_a_list_of_names(tmp_path):
    for name in ("bob", "Cem", "ann"):
        hand_in(tmp_path / "in", name, MARGIN)
    found = grading.submissions(tmp_path / "in", page_of(tmp_path), "05")
    assert [one.student for one in found] == ["ann", "bob", "Cem"]


def test_feedback_of_one_student_never_replaces_that_of_another(tmp_path):
    page = page_of(tmp_path)
    marks = ["right", "right", "ValueError: \ud83d"]
    names = ("case a", "case_a", "Case_A", "case_a-2")
    grading.save_feedback([grading.Grade(name, marks) for name in names], page, tmp_path / "out")
    written = {path.name: path.read_text("utf-8") for path in (tmp_path / "out").iterdir()}
    assert grading.feedback_files(["Ann", "ann"]) == ["Ann.txt", "ann-2.txt"]
    assert sorted(written) == ["Case_A-3.txt", "case_a-2-2.txt", "case_a-2.txt", "case_a.txt"]
    assert written["case_a-2.txt"].startswith("case_a\n") and "Error: ?" in written["case_a.txt"]


def refused(tmp_path, **options):
    """The sentence of `minillada grade`, for options that are refused before any work."""
    hand_in(tmp_path / "in", "ann", MARGIN)
    options = {"notebook": "05", "csv": tmp_path / "grades.csv"} | options
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        teaching.grade(tmp_path / "in", **options)
    return str(error.value)


def test_what_the_command_refuses_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "grade_all", None)
    (tmp_path / "file").write_text("keep me")
    (tmp_path / "folder.csv").mkdir()
    assert "not a regular file" in refused(tmp_path, csv=tmp_path / "folder.csv")
    assert "place with --feedback" in refused(tmp_path, feedback=tmp_path / "file")
    assert "place with --csv" in refused(tmp_path, csv=tmp_path / "file" / "grades.csv")
    assert "at most 3,600, got inf" in refused(tmp_path, seconds=float("inf"))
    assert "got 0.5" in refused(tmp_path, seconds=0.5)
    for number in ("/", "?5", "1*", ""):
        assert "there is no notebook" in refused(tmp_path, notebook=number)
    assert (tmp_path / "file").read_text() == "keep me"


def test_grades_replace_neither_submissions_nor_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "grade_all", None)
    grading.check_places(tmp_path / "in", tmp_path / "GRADES.CSV", tmp_path / "out")
    assert "grades.csv, not " in refused(tmp_path, csv=tmp_path / "in" / "ann.ipynb")
    assert "grades.csv, not " in refused(tmp_path, csv=tmp_path / "out" / "ann.txt")
    same = tmp_path / "out.csv"
    assert "a folder of its own" in refused(tmp_path, csv=same, feedback=same)
    assert "a folder of its own" in refused(tmp_path, csv=same, feedback=same / "texts")
    assert "a folder of its own" in refused(tmp_path, feedback=tmp_path / "in" / ".." / "in")
    (tmp_path / "out" / "ann.txt").mkdir(parents=True)
    assert "not a regular file" in refused(tmp_path, feedback=tmp_path / "out")
    assert json.loads((tmp_path / "in" / "ann.ipynb").read_text())["cells"]


def test_a_long_name_of_a_student_becomes_a_file(tmp_path):
    names = ["ü" * 120, "ü" * 120 + "x"]
    grades = [grading.Grade(name, ["right"] * 3) for name in names]
    grading.save_feedback(grades, page_of(tmp_path), tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_the_seed_is_printed_before_grades_can_be_lost(tmp_path, monkeypatch, capsys):
    """And a folder that is not there yet is no reason to refuse."""

    def fails(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(grading, "grade_all", fails)
    hand_in(tmp_path / "in", "ann", MARGIN)
    with pytest.raises(OSError, match="full"):
        teaching.grade(tmp_path / "in", "5", tmp_path / "new" / "grades.csv", seed=3)
    assert "--seed 3\n" in capsys.readouterr().out


def test_equal_seeds_give_equal_inputs(tmp_path):
    first, again, other = (page_of(tmp_path, seed).cases[2][-1].inputs for seed in (1, 1, 2))
    assert first == again != other


CHECKED = [p for p in sorted(pages.NOTEBOOKS.glob("*.ipynb"))]


@pytest.mark.parametrize("path", CHECKED, ids=[path.stem for path in CHECKED])
def test_printed_solutions_need_nothing_of_their_page(path, tmp_path):
    """Each solution passes with hidden inputs, from its imports and functions alone."""
    page = grading.Page.read(path, seed=5)
    cells = pages.cells_of(pages.read_json(path))
    own = [cell.source for cell in cells if cell.kind == "code" and cell.solution]
    processes.preload(page.imports)
    one = grading.grade(grading.Submission("ann", own), page, grading.Limits(seconds=20.0))
    assert one.marks == ["right"] * len(page.exercises), one
    stubs = [cells[exercise.stub].source for exercise in page.exercises]
    one = grading.grade(grading.Submission("bob", stubs), page, grading.Limits(seconds=20.0))
    assert one.points == 0 and all(mark.startswith("not done yet") for mark in one.marks), one


def test_a_server_that_ends_while_a_process_is_asked_for_costs_nobody(monkeypatch, tmp_path):
    failures = [EOFError("unexpected EOF"), BrokenPipeError()]
    real = processes.context().Process.start

    def start(process):
        if failures:
            raise failures.pop()
        real(process)

    monkeypatch.setattr(processes.context().Process, "start", start)
    hand_in(tmp_path / "in", "good", IMPORTS, MARGIN, TOKENS, COUNT)
    grades = grades_of(tmp_path / "in", page_of(tmp_path))
    assert not failures
    assert grades["good"].points == 3


def test_a_folder_in_the_place_of_an_answer_costs_no_other_exercise(tmp_path):
    folder = "import os\ndef my_margin(logits):\n    os.mkdir('../out/0-0.json')\n    return logits"
    submission = grading.Submission("ann", [IMPORTS, folder, TOKENS, COUNT])
    one = grading.grade(submission, page_of(tmp_path), grading.Limits())
    assert one.marks[0] != "right" and one.marks[1:] == ["right", "right"]

"""Editions: nothing is given away, everything still runs, and nbgrader accepts its source."""

import ast
import builtins
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from minillada.course import editions, pages

PATHS = sorted(pages.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
NAMED = (ast.FunctionDef, ast.ClassDef, ast.ExceptHandler)
every_notebook = pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])


def names(cells, store):
    """Names that code cells bind (`store`) or read, each with the index of the cell."""
    found = []
    for index, cell in enumerate(cells):
        tree = pages.parsed(cell.source) if cell.kind == "code" else ast.Module([], [])
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                if isinstance(node.ctx, ast.Store) is store:
                    found.append((node.id, index))
            elif store and isinstance(node, NAMED):
                found.append((node.name, index))
            elif store and isinstance(node, ast.arg):
                found.append((node.arg, index))
            elif store and isinstance(node, ast.alias):
                found.append(((node.asname or node.name).split(".")[0], index))
    return found


@every_notebook
def test_students_get_everything_but_the_solutions(path):
    notebook = pages.read_json(path)
    made = editions.student(notebook)
    nbformat.validate(nbformat.from_dict(made))
    before, after = pages.cells_of(notebook), pages.cells_of(made)
    assert [c for c in before if not c.solution and not pages.is_solution_heading(c)] == after
    assert pages.asked(before) and len(pages.asked(after)) == len(pages.asked(before))
    text = json.dumps(made)
    for exercise in pages.asked(before):
        for index in exercise.solutions:
            assert json.dumps(before[index].source)[1:-1] not in text
    counts = [c["execution_count"] for c in made["cells"] if c["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))


@every_notebook
def test_no_heading_is_left_alone(path):
    """Below each heading stands something before a heading of the same or a higher level."""
    alone, last = [], None
    for cell in pages.cells_of(editions.student(pages.read_json(path))):
        lines = cell.source.splitlines() if cell.kind == "markdown" else ["code"]
        for line in lines:
            level = len(line) - len(line.lstrip("#"))
            if level and line[level : level + 1] == " ":
                if last and level <= last[0]:
                    alone.append(last[1])
                last = level, line
            elif line.strip():
                last = None
    assert not alone and last is None


@every_notebook
def test_nothing_that_stays_needs_a_solution(path):
    """No name that a student's notebook reads is bound in a solution alone."""
    cells = pages.cells_of(editions.student(pages.read_json(path)))
    bound = {name for name, _ in names(cells, store=True)} | set(dir(builtins))
    missing = {name for name, _ in names(cells, store=False)} - bound
    assert not missing - {"get_ipython", "display"}


def test_the_student_edition_runs_from_top_to_bottom(tmp_path):
    path = pages.notebook_of("03")
    editions.save(editions.student(pages.read_json(path)), tmp_path / path.name)
    notebook = nbformat.read(tmp_path / path.name, as_version=4)
    place = {"metadata": {"path": str(pages.NOTEBOOKS)}}
    NotebookClient(notebook, timeout=300, resources=place, kernel_name="python3").execute()
    said = json.dumps(notebook)
    assert said.count("not done yet") == len(pages.asked(pages.cells_of(pages.read_json(path))))


@every_notebook
def test_instructors_get_minutes_and_common_mistakes(path):
    notebook = pages.read_json(path)
    made = editions.instructor(notebook, path.stem[:2])
    nbformat.validate(nbformat.from_dict(made))
    cells, checks = pages.cells_of(made), pages.all_checks()
    exercises = pages.asked(pages.cells_of(notebook))
    assert sum(cell.solution for cell in cells) == sum(
        cell.solution for cell in pages.cells_of(notebook)
    )
    remarks = [cell.source for cell in cells if f"{editions.TOLD} About" in cell.source]
    assert len(remarks) == len(exercises)
    for exercise, remark in zip(exercises, remarks):
        assert " minutes" in remark
        for case in checks[exercise.check].cases():
            assert all(f"- {hint}" in remark for hint in case.mistakes)


@every_notebook
def test_one_exercise_is_an_experiment_with_a_conclusion(path):
    cells = pages.cells_of(pages.read_json(path))
    text = "\n".join(cell.source for cell in cells if cell.kind == "markdown")
    assert path.stem < "04" or "(an experiment" in text


def asked_below(text):
    """The exercise that is asked below this text."""
    cells = [
        pages.Cell("markdown", text, False),
        pages.Cell("code", "def f(x):\n    raise NotImplementedError", False),
        pages.Cell("code", "exercises.check_f(f);", False),
        pages.Cell("markdown", "### Solution", False),
        pages.Cell("code", "def f(x):\n    return x", True),
    ]
    (exercise,) = pages.asked(cells)
    return exercise


@pytest.mark.parametrize("level", ["easy", "medium", "hard", "experiment"])
def test_headings_name_number_and_level(level):
    words = f"an {level}" if level == "experiment" else level
    exercise = asked_below(f"## Exercise 3 ({words}): some words\n\nDo it (or not).")
    assert exercise.title == f"Exercise 3 ({words}): some words" and exercise.level == level
    assert (exercise.check, exercise.function) == ("check_f", "f")
    assert exercise.solutions == (4,)


@pytest.mark.parametrize("text", ["Do it (easy).", "## Exercise 3\n\n(easy) Do it.", "# (hard)"])
def test_an_exercise_without_number_and_level_is_refused(text):
    with pytest.raises(ValueError, match=r"such as `## Exercise 2 \(medium\): hue`"):
        asked_below(text)


def test_discussion_questions_come_from_the_guide(tmp_path):
    guide = tmp_path / "TEACHING.md"
    guide.write_text(
        "# Teaching\n\n| week | notebooks |\n|---|---|\n| 1 | 00–02 | x |\n| 2 | 03, 04 | y |\n\n"
        "## Week 1: codes\n\n**To discuss**\n\n1. Why codes?\n2. Why\n   so few?\n\n"
        "**Goals**\n\n1. none\n\n## Week 2: masks\n\n**To discuss**\n\n1. What is a mask?\n",
        encoding="utf-8",
    )
    assert editions.discussion("01", guide) == ["Why codes?", "Why so few?"]
    assert editions.discussion("04", guide) == ["What is a mask?"]
    assert editions.discussion("06", guide) == []
    assert editions.discussion("06", tmp_path / "none.md") == []
    made = editions.instructor(pages.read_json(PATHS[0]), "01", guide)
    assert "1. Why codes?" in made["cells"][1]["source"]


def test_the_guide_has_five_questions_for_every_notebook_of_the_six_weeks():
    for number in [*range(14), 15]:
        assert len(editions.discussion(f"{number:02d}")) == 5


def graded(notebook):
    """Answers and checks of an nbgrader source, in order."""
    cells = [cell for cell in notebook["cells"] if "nbgrader" in cell["metadata"]]
    return [cell["source"] for cell in cells]


@every_notebook
def test_nbgrader_source_holds_solutions_between_marks(path):
    notebook = pages.read_json(path)
    made = editions.nbgrader(notebook, seed=7)
    nbformat.validate(nbformat.from_dict(made))
    cells = pages.cells_of(notebook)
    namespace: dict = {}
    for statement in pages.imports_of([cell for cell in cells if not cell.solution]):
        exec(statement, namespace)
    sources = graded(made)
    assert len(sources) == 2 * len(pages.asked(cells))
    for answer, check in zip(sources[::2], sources[1::2]):
        assert answer.count("### BEGIN SOLUTION") == answer.count("### END SOLUTION") == 1
        exec(answer, namespace)
        exec(check, namespace)  # its last line asserts that hidden inputs are answered right
        first, rest = answer.split("    ### BEGIN SOLUTION")
        stub = first + "    raise NotImplementedError()" + rest.split("### END SOLUTION")[1]
        exec(stub, namespace)
        with pytest.raises(AssertionError):
            exec(check, namespace)
        exec(answer, namespace)


def test_all_editions_of_all_notebooks(tmp_path):
    made = editions.make(tmp_path / "editions", seed=1)
    for kind in ("student", "instructor"):
        stored = sorted(path.stem for path in (tmp_path / "editions" / kind).iterdir())
        assert stored == made == [path.stem for path in PATHS]
    source = tmp_path / "editions" / "nbgrader" / "source"
    assert sorted(path.name for path in source.iterdir()) == made
    with pytest.raises(FileNotFoundError, match="no notebook"):
        editions.make(tmp_path, seed=1, folder=tmp_path)


def test_links_lead_to_the_same_files(tmp_path):
    target = tmp_path / "deep" / "deeper" / "00.ipynb"
    editions.save({"cells": [editions.markdown("[words](../docs/glossary.md)", "a")]}, target)
    link = json.loads(target.read_text())["cells"][0]["source"].split("(")[1].rstrip(")")
    assert (target.parent / link).resolve() == (pages.NOTEBOOKS.parent / "docs/glossary.md")


def nbgrader(folder, *words):
    """Call nbgrader in a course folder."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    settings = {"JUPYTER_CONFIG_DIR": str(folder / "config"), "PATH": programs}
    return subprocess.run(
        [sys.executable, "-m", "nbgrader", *words],
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.skipif(
    importlib.util.find_spec("nbgrader") is None,
    reason='nbgrader is not installed: pip install -e ".[course]"',
)
def test_nbgrader_hands_out_and_grades(tmp_path):
    path = pages.notebook_of("03")
    source = editions.nbgrader(pages.read_json(path), seed=7)
    editions.save(source, tmp_path / "source" / "week" / path.name)
    made = nbgrader(tmp_path, "generate_assignment", "week", "--create")
    assert made.returncode == 0, made.stderr
    released = (tmp_path / "release" / "week" / path.name).read_text(encoding="utf-8")
    assert "BEGIN SOLUTION" not in released and "hidden_check" not in released
    assert "NotImplementedError" in released
    # one student answers everything, the other nothing
    handed_in = {"ann": source, "bob": json.loads(released)}
    for name, notebook in handed_in.items():
        editions.save(notebook, tmp_path / "submitted" / name / "week" / path.name)
    done = nbgrader(tmp_path, "autograde", "week", "--create")
    assert done.returncode == 0, done.stderr
    exported = nbgrader(tmp_path, "export")
    assert exported.returncode == 0, exported.stderr
    rows = (tmp_path / "grades.csv").read_text().splitlines()
    columns = rows[0].split(",")
    scores = {}
    for row in rows[1:]:
        values = dict(zip(columns, row.split(",")))
        scores[values["student_id"]] = float(values["score"])
    assert scores == {"ann": len(pages.asked(pages.cells_of(pages.read_json(path)))), "bob": 0}

"""Editions: nothing is given away, everything still runs, and nbgrader accepts its source."""

import builtins
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from helpers import names_of_cell
from nbclient import NotebookClient

from minillada.course import editions, grading, pages

PATHS = sorted(pages.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
ALWAYS_THERE = set(dir(builtins)) | {"get_ipython", "display"}
every_notebook = pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])


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


def taken_from_solutions(cells):
    """Names that a cell for students reads, and whose value comes from a solution alone, or above.

    A function may read what a cell below it binds.
    """
    names = [names_of_cell(cell.source if cell.kind == "code" else "") for cell in cells]
    kept = ALWAYS_THERE.union(*(n.bound for n, c in zip(names, cells) if not c.solution))
    last, found = {}, set()
    for index, cell in enumerate(cells):
        for name in names[index].read - names[index].bound:
            solved = name in last and cells[last[name]].solution
            if not cell.solution and (solved or name not in kept):
                found.add((index, name))
        last |= dict.fromkeys(names[index].bound, index)
    return found


@every_notebook
def test_nothing_that_stays_needs_a_solution(path):
    """Students have the stubs, which answer nothing: no cell of theirs may go on with an answer."""
    assert not taken_from_solutions(pages.cells_of(pages.read_json(path)))


def test_what_is_taken_from_a_solution_is_found():
    cells = [
        pages.Cell("code", "import torch\ndef f(x):\n    raise NotImplementedError", False),
        pages.Cell("code", "def f(x):\n    return x\nscale = torch.ones(2)", True),
        pages.Cell("code", "def g(scale):\n    return scale, f(1)", False),
        pages.Cell("code", "scale = 3\nprint(scale, unknown)", False),
    ]
    assert taken_from_solutions(cells) == {(2, "f"), (3, "unknown")}


def test_on_a_host_the_first_cell_fetches_the_package(tmp_path, monkeypatch):
    notebook = pages.read_json(PATHS[0])
    made = editions.hosted(notebook, PATHS[0].name, "ann/my.course")
    nbformat.validate(nbformat.from_dict(made))
    title, badges, fetch, *rest = made["cells"]
    assert [title, *rest] and len(rest) == len(editions.student(notebook)["cells"]) - 1
    file = f"github/ann/my.course/blob/main/editions/student/{PATHS[0].name}"
    assert file in badges["source"] and badges["source"].count("[![") == 2
    # Only the notebook is there, so what it links to is named on GitHub.
    page = {"cells": [editions.markdown("[the log](../docs/log.md#here)", "a")]}
    text = editions.hosted(page, "01.ipynb", "ann/my.course")["cells"][0]["source"]
    assert text == "[the log](https://github.com/ann/my.course/blob/main/docs/log.md#here)"
    # Where the package is there already, nothing happens; else it is cloned, then installed.
    asked = []

    class Shell:
        def system(self, command):
            asked.append(command)

        def run_line_magic(self, name, words):
            asked.append(f"%{name} {words}")

    shell = {"get_ipython": Shell}
    exec(fetch["source"], dict(shell))
    assert asked == []
    exec(fetch["source"].replace('"minillada"', '"not_there"'), dict(shell))
    first, second = asked
    assert first.endswith("https://github.com/ann/my.course minillada")
    assert second == "%run minillada/binder/host.py"
    # A clone that is there, but not installed, is a folder that Python takes for a package.
    (tmp_path / "only_cloned").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    exec(fetch["source"].replace('"minillada"', '"only_cloned"'), dict(shell))
    assert asked[2:] == [first, second] and first.startswith("test -d minillada || git clone")
    assert (pages.NOTEBOOKS.parent / "binder" / "host.py").is_file()
    with pytest.raises(ValueError, match="write OWNER/NAME"):
        editions.hosted(notebook, PATHS[0].name, "https://github.com/ann/course")


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
    cells = pages.cells_of(made)
    exercises = pages.asked(pages.cells_of(notebook))
    assert sum(cell.solution for cell in cells) == sum(
        cell.solution for cell in pages.cells_of(notebook)
    )
    remarks = [cell.source for cell in cells if f"{editions.TOLD} About" in cell.source]
    assert len(remarks) == len(exercises)
    for check, remark in zip(pages.checks_of(exercises), remarks):
        assert " minutes" in remark
        for case in check.cases():
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


def test_a_check_needs_a_stub_and_must_be_there():
    text = pages.Cell("markdown", "## Exercise 1 (easy): words", False)
    check = pages.Cell("code", "check_nosuch(my_answer)", False)
    with pytest.raises(ValueError, match=r"no cell above `check_nosuch\(my_answer\)` defines"):
        pages.asked([text, check])
    stub = pages.Cell("code", "def my_answer(x):\n    raise NotImplementedError", False)
    with pytest.raises(ValueError, match="holds a check called 'check_nosuch'"):
        pages.checks_of(pages.asked([text, stub, check]))


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


@pytest.mark.parametrize(
    "damage",
    [
        lambda cells: cells.append(3),
        lambda cells: cells[-1].pop("metadata"),
        lambda cells: cells[-1].pop("cell_type"),
        lambda cells: cells[-1].update(source=None),
        lambda cells: cells[-1].update(source=[1]),
        lambda cells: cells[-1].update(source="\ud800"),
        lambda cells: cells[-1].update(cell_type="code", source="def ("),
        lambda cells: cells[-1].update(cell_type="code", source="a\0"),
    ],
)
def test_a_damaged_cell_is_named_before_any_edition_is_written(tmp_path, damage):
    (tmp_path / "in").mkdir()
    for path in PATHS[:2]:
        notebook = pages.read_json(path)
        if path == PATHS[1]:
            damage(notebook["cells"])
        (tmp_path / "in" / path.name).write_text(json.dumps(notebook))
    named = f"{PATHS[1].name}: cell {len(notebook['cells'])} is damaged or no Python"
    with pytest.raises(ValueError, match=named):
        editions.make(tmp_path / "out", 1, tmp_path / "in")
    with pytest.raises(ValueError, match=named):
        grading.Page.read(tmp_path / "in" / PATHS[1].name, 1)
    assert not (tmp_path / "out").exists()


def test_all_editions_of_all_notebooks(tmp_path):
    made = editions.make(tmp_path / "editions", seed=1)
    for kind in ("student", "instructor"):
        folder = tmp_path / "editions" / kind
        assert sorted(path.stem for path in folder.glob("*.ipynb")) == made
        # Students who copy this folder have the words, too.
        assert (folder / "glossary.md").read_bytes() == editions.GLOSSARY.read_bytes()
        text = (folder / PATHS[0].name).read_text(encoding="utf-8")
        assert "](glossary.md" in text and "docs/glossary.md" not in text
    assert made == [path.stem for path in PATHS]
    for path in (tmp_path / "editions").rglob("*.ipynb"):
        for cell in pages.cells_of(pages.read_json(path)):
            links = re.findall(r"\]\(([\w./-]+)[#)]", cell.source * (cell.kind == "markdown"))
            assert not [link for link in links if not (path.parent / link).exists()], path
    source = tmp_path / "editions" / "nbgrader" / "source"
    assert sorted(path.name for path in source.iterdir()) == made
    assert all((source / name / "glossary.md").is_file() for name in made)
    with pytest.raises(FileNotFoundError, match="no notebook"):
        editions.make(tmp_path, seed=1, folder=tmp_path)


def test_links_lead_to_the_same_files(tmp_path):
    target = tmp_path / "deep" / "deeper" / "00.ipynb"
    editions.save({"cells": [editions.markdown("[log](../docs/log.md#here)", "a")]}, target)
    link = json.loads(target.read_text())["cells"][0]["source"].split("(")[1].split("#")[0]
    assert (target.parent / link).resolve() == (pages.NOTEBOOKS.parent / "docs/log.md")


def test_links_to_another_drive_of_windows(tmp_path, monkeypatch):
    def relpath(path, start):
        raise ValueError("path is on mount 'C:', start on mount 'D:'")

    monkeypatch.setattr(editions.os.path, "relpath", relpath)
    editions.save(
        {"cells": [editions.markdown("[words](../docs/x.md)", "a")]}, tmp_path / "a.ipynb"
    )
    root = pages.NOTEBOOKS.parent.resolve().as_uri()
    assert f"[words]({root}/docs/x.md)" in (tmp_path / "a.ipynb").read_text(encoding="utf-8")


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

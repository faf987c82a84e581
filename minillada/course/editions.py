"""Editions of a notebook: for students, for instructors, and as a source for nbgrader.

Notable choices
- There is one notebook. Each edition is made from it and never edited, so none can be out of date.
- The student edition keeps every figure, so that it can be read before it is run.
- A notebook may leave its folder together with the glossary, which lies beside it.
- Minutes of an exercise follow from its difficulty; common mistakes are the hints of its check.
- nbgrader wants solution and stub in one cell, with marks between them. What a solution needs
  besides its function (an import, a helper) moves into the function, because everything between
  the marks is taken out for students.
"""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

from ..exercises.checking import Exercise
from ..files import DATA_DIR, atomic
from .pages import (
    NOTEBOOKS,
    Asked,
    Cell,
    asked,
    cells_of,
    checks_of,
    is_solution_heading,
    parsed,
    read_page,
)
from .worker import is_constant

TEACHING = DATA_DIR.parent / "docs" / "TEACHING.md"
GLOSSARY = DATA_DIR.parent / "docs" / "glossary.md"
MINUTES = {"easy": 5, "medium": 15, "hard": 30, "experiment": 45}
SCHEMA = 3  # of nbgrader's metadata
TOLD = "**For the instructor.**"
FOLDED = "jp-MarkdownHeadingCollapsed"  # by this, JupyterLab folds what is below a heading
# What the student edition for a host says below its title.
BADGES = """\
[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]\
(https://colab.research.google.com/github/{place})
[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]\
(https://kaggle.com/kernels/welcome?src=https://github.com/{place})"""
FETCH = """\
# Colab and Kaggle: fetches minillada, and keeps their PyTorch. Elsewhere this does nothing.
import importlib.util

package = importlib.util.find_spec("minillada")
if package is None or package.origin is None:  # not there, or not more than the folder of a clone
    clone = "git clone -q --depth 1 https://github.com/{repository} minillada"
    get_ipython().system("test -d minillada || " + clone)
    get_ipython().run_line_magic("run", "minillada/binder/host.py")"""


def markdown(source: str, name: str) -> dict[str, Any]:
    """A new cell of text."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def code(source: str, name: str, metadata: dict[str, Any]) -> dict[str, Any]:
    """A new cell of code that was not run yet."""
    made = markdown(source, name) | {"cell_type": "code", "metadata": metadata}
    return made | {"execution_count": None, "outputs": []}


def renumbered(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with its code cells counted from 1, where they have been run."""
    count = 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            if cell.get("execution_count") is not None:
                cell["execution_count"] = count
    return notebook


# --- students -------------------------------------------------------------------------------------


def left_out(cells: list[Cell]) -> set[int]:
    """Cells that students do not get: solutions, and headings with nothing else below them."""
    return {index for index, cell in enumerate(cells) if cell.solution or is_solution_heading(cell)}


def student(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook without solutions; `hosted` adds what Colab and Kaggle need."""
    made = copy.deepcopy(notebook)
    gone = left_out(cells_of(notebook))
    made["cells"] = [cell for index, cell in enumerate(made["cells"]) if index not in gone]
    return renumbered(made)


def hosted(notebook: dict[str, Any], name: str, repository: str) -> dict[str, Any]:
    """The student edition with badges, and a first cell that installs what a host lacks.

    `repository` is OWNER/NAME on GitHub; the notebook `name` lies there in `editions/student`.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"{repository!r} is no repository of GitHub; write OWNER/NAME")
    place = f"{repository}/blob/main/editions/student/{name}"
    home = f"https://github.com/{repository}/blob/main"
    made = student(notebook)
    for cell in made["cells"]:
        if cell["cell_type"] == "markdown":  # the host has no other file of the clone
            cell["source"] = "".join(cell["source"]).replace("](../", f"]({home}/")
    fetch = code(FETCH.format(repository=repository), "fetch", {})
    made["cells"][1:1] = [markdown(BADGES.format(place=place), "badges"), fetch]
    return renumbered(made)


# --- instructors ----------------------------------------------------------------------------------


def remarks(exercise: Asked, check: Exercise) -> str:
    """What an instructor should know about an exercise."""
    hints: dict[str, None] = {}  # a dictionary keeps the order
    for case in check.cases():
        hints |= dict.fromkeys(case.mistakes)
    head = f"{TOLD} About {MINUTES[exercise.level]} minutes. Common mistakes, and what the check "
    head += f"`{exercise.check}` says about them:\n"
    return "\n".join([head, *(f"- {hint}" for hint in hints)])


def discussion(number: str, guide: Path = TEACHING) -> list[str]:
    """Questions of docs/TEACHING.md for the week of a notebook.

    A row `| 2 | 03, 04, 05 | …` of its table names the week. The questions are the numbered list
    below the words "To discuss" in the section `## Week 2: …`; each stands in asterisks, with what
    a good answer holds behind it.
    """
    if not guide.is_file():
        return []
    questions: list[str] = []
    week = None
    of_week = wanted = False
    for line in guide.read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| *(\d+) *\| *([\d, –-]+)\|", line)
        if row and week is None and number in numbers_in(row.group(2)):
            week = row.group(1)
        elif line.startswith("## "):
            of_week, wanted = line.startswith(f"## Week {week}:"), False
        elif line.startswith("#") or line.startswith("**"):
            wanted = of_week and "discuss" in line.lower()
        elif wanted and (found := re.match(r"\d+\. +(.+)", line)):
            questions.append(found.group(1))
        elif wanted and questions and line.startswith("  "):
            questions[-1] += " " + line.strip()
    # The guide lies in docs/, a notebook beside that folder.
    return [re.sub(r"\]\((?=[\w./-]+\.md)", "](../docs/", one) for one in questions]


def numbers_in(text: str) -> set[str]:
    """Numbers of notebooks that a text names: "03–05, 08" -> 03, 04, 05, 08."""
    numbers = set()
    for first, last in re.findall(r"\b(\d\d)(?:\s*[–-]\s*(\d\d))?\b", text):
        numbers |= {f"{n:02d}" for n in range(int(first), int(last or first) + 1)}
    return numbers


def instructor(notebook: dict[str, Any], number: str, guide: Path = TEACHING) -> dict[str, Any]:
    """The notebook with solutions open, and remarks at every exercise."""
    made = copy.deepcopy(notebook)
    exercises = asked(cells_of(notebook))
    cells = made["cells"]
    for cell in cells:
        cell["metadata"].pop(FOLDED, None)
    counted = enumerate(zip(exercises, checks_of(exercises)), start=1)
    # From the end, so that places in front of an insertion stay what they are.
    for count, (exercise, check) in reversed(list(counted)):
        cells.insert(exercise.stub, markdown(remarks(exercise, check), f"remarks-{count}"))
    if questions := discussion(number, guide):
        lines = "\n".join(f"1. {question}" for question in questions)
        cells.insert(1, markdown(f"{TOLD} Discuss:\n\n{lines}", "discussion"))
    return renumbered(made)


# --- nbgrader -------------------------------------------------------------------------------------


def marked_solution(solutions: list[str], function: str) -> str:
    """The solution cells of an exercise as one, with nbgrader's marks around the body."""
    head, before, body = [], [], []
    for solution in solutions:
        lines = solution.splitlines()
        for node in parsed(solution).body:
            if isinstance(node, ast.FunctionDef) and node.name == function:
                first = node.body[0].lineno - 1
                # Comments in front of the first statement belong to the body.
                while lines[first - 1].strip().startswith("#"):
                    first -= 1
                head = lines[node.lineno - 1 : first]
                body = lines[first : node.end_lineno]
            elif needed(node):
                text = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                before += textwrap.indent(text, "    ").splitlines()
    if not head:
        raise ValueError(f"the solution defines no function {function}")
    marked = ["    ### BEGIN SOLUTION", *before, *body, "    ### END SOLUTION"]
    return "\n".join([*head, *marked])


def needed(node: ast.stmt) -> bool:
    """Whether a function may need a statement beside it: a helper, an import or a constant."""
    if isinstance(node, ast.Assign):
        return is_constant(node.value, {})
    return isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom)


def nbgrader(notebook: dict[str, Any], seed: int) -> dict[str, Any]:
    """The notebook as nbgrader's source: one point for each exercise, hidden inputs from `seed`."""
    made = copy.deepcopy(notebook)
    cells = cells_of(notebook)
    gone = left_out(cells)
    exercises = asked(cells)
    for number, (exercise, check) in enumerate(zip(exercises, checks_of(exercises)), start=1):
        made["cells"][exercise.stub] = answer_cell(cells, exercise, number)
        hidden = [
            cells[exercise.checking].source,
            "### BEGIN HIDDEN TESTS",
            f"from {check.make.__module__} import {exercise.check} as hidden_check",
            "",
            f"assert hidden_check({exercise.function}, seed={seed})",
            "### END HIDDEN TESTS",
        ]
        metadata = about(f"check-{number}", graded=True)
        test = code("\n".join(hidden), f"check-{number}", metadata)
        made["cells"][exercise.checking] = test
    made["cells"] = [cell for index, cell in enumerate(made["cells"]) if index not in gone]
    return made


def answer_cell(cells: list[Cell], exercise: Asked, number: int) -> dict[str, Any]:
    """The cell a student fills in; imports that stand with the stub stay in front."""
    stub = cells[exercise.stub].source
    front = []
    for node in parsed(stub).body:
        if not (isinstance(node, ast.FunctionDef) and node.name == exercise.function):
            front += stub.splitlines()[node.lineno - 1 : node.end_lineno] + [""]
    solved = [cells[i].source for i in exercise.solutions if cells[i].kind == "code"]
    answer = marked_solution(solved, exercise.function)
    metadata = about(f"answer-{number}", graded=False)
    return code("\n".join([*front, answer]), f"answer-{number}", metadata)


def about(name: str, graded: bool) -> dict:
    """nbgrader's metadata of a test that gives one point, or of the answer that it tests."""
    facts: dict[str, Any] = {"grade": graded, "grade_id": name, "locked": graded}
    facts |= {"schema_version": SCHEMA, "solution": not graded, "task": False}
    return {"nbgrader": facts | ({"points": 1} if graded else {})}


# --- files ----------------------------------------------------------------------------------------


def save(notebook: dict[str, Any], path: Path) -> None:
    """Write a notebook as nbformat does; its links lead to the same files from the new place.

    But the glossary is expected beside it: students get no other file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    home = NOTEBOOKS.parent.resolve()
    try:
        root = Path(os.path.relpath(home, path.parent.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        root = home.as_uri()
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            source = "".join(cell["source"])
            source = source.replace(f"](../docs/{GLOSSARY.name}", f"]({GLOSSARY.name}")
            source = source.replace("](../", f"]({root}/")
            if path.parent.name == path.stem:  # as in nbgrader's source: a folder a notebook
                source = re.sub(r"\]\((\d\d_\w+)\.ipynb", r"](../\1/\1.ipynb", source)
            cell["source"] = source
    text = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True)
    with atomic(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def make(
    out: Path, seed: int, folder: Path = NOTEBOOKS, repository: str | None = None
) -> list[str]:
    """All editions of all notebooks in a folder; the names of the notebooks."""
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not paths:
        raise FileNotFoundError(f"there is no notebook in {folder}")
    made: dict[Path, dict[str, Any]] = {}  # all of them, before the first one is written
    for path in paths:
        notebook = read_page(path)
        if repository is None:
            for_students = student(notebook)
        else:
            for_students = hosted(notebook, path.name, repository)
        made[out / "student" / path.name] = for_students
        made[out / "instructor" / path.name] = instructor(notebook, path.stem[:2])
        if asked(cells_of(notebook)):
            made[out / "nbgrader" / "source" / path.stem / path.name] = nbgrader(notebook, seed)
    for place, edition in made.items():
        save(edition, place)
        shutil.copyfile(GLOSSARY, place.parent / GLOSSARY.name)
    return [path.stem for path in paths]

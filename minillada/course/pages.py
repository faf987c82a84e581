"""A notebook as a course sees it: which cells ask, check and solve an exercise.

Notable choices
- Nothing but the notebook itself is read. A check is a cell that calls `check_x(my_x)`, a solution
  is a cell with the tag `solution`. What is shown to a reader is also what is graded.
- Notebooks of students are not trusted: `cells_of` reads them without running or parsing code.
"""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import re
from pathlib import Path
from typing import NamedTuple

from IPython.core.inputtransformer2 import TransformerManager

from ..exercises.checking import Exercise
from ..files import DATA_DIR

NOTEBOOKS = DATA_DIR.parent / "notebooks"
LARGEST = 50_000_000  # bytes of a notebook that is read; ours have at most one million


class Asked(NamedTuple):
    """One exercise of a page; cells are given by their index."""

    title: str  # what its heading says: "Exercise 2 (medium): hue"
    level: str  # "medium"
    check: str  # name of the check: "check_margin"
    function: str  # what the student writes: "my_margin"
    question: int  # the text with the heading
    stub: int  # the function that is to be written
    checking: int  # the call of the check
    solutions: tuple[int, ...]  # text and code


class Cell(NamedTuple):
    """A cell of a notebook: its text and what the editions must know about it."""

    kind: str  # "code" or "markdown"
    source: str
    solution: bool


def notebook_of(number: str, folder: Path = NOTEBOOKS) -> Path:
    """The notebook with a number ("05" or "5"), or `FileNotFoundError`."""
    found = {path.stem.split("_")[0]: path for path in sorted(folder.glob("*_*.ipynb"))}
    path = found.get(number) or found.get(f"0{number}")
    if path is None:
        names = ", ".join(found)
        raise FileNotFoundError(f"there is no notebook {number!r} in {folder}; choose: {names}")
    return path


def read_json(path: Path) -> dict:
    """A notebook file as a dictionary; `ValueError` in one sentence if it is none."""
    if path.is_file() and path.stat().st_size > LARGEST:
        raise ValueError(f"{path.name} is larger than {LARGEST // 1_000_000} MB")
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(notebook["cells"], list):
            return notebook
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        pass
    raise ValueError(f"{path.name} is not a notebook; save it again in JupyterLab")


def read_page(path: Path) -> dict:
    """One of our notebooks, as `read_json`. `ValueError` names the first cell that is damaged."""
    notebook = read_json(path)
    for number, cell in enumerate(notebook["cells"], start=1):
        try:
            cell["metadata"].keys()
            source = "".join(cell["source"])
            source.encode()
            if cell["cell_type"] == "code":
                parsed(source)
        except (AttributeError, KeyError, TypeError, SyntaxError, ValueError) as error:
            raise ValueError(
                f"{path.name}: cell {number} is damaged or no Python ({error}); mend it"
            ) from None
    return notebook


def cells_of(notebook: dict) -> list[Cell]:
    """The cells; what has no text, or text of the wrong kind, counts as an empty cell."""
    cells = []
    for entry in notebook["cells"]:
        entry = entry if isinstance(entry, dict) else {}
        source = entry.get("source", "")
        source = "".join(map(str, source)) if isinstance(source, list) else str(source)
        metadata = entry.get("metadata")
        tags = metadata.get("tags") if isinstance(metadata, dict) else None
        solution = isinstance(tags, list) and "solution" in tags
        cells.append(Cell(str(entry.get("cell_type")), source, solution))
    return cells


def python_of(source: str) -> str:
    """A cell as Python: what only IPython reads (`%time`, `!ls`, `name?`) becomes calls.

    What is Python already stays as it is: there, `%` may begin a line of a long expression.
    """
    try:
        ast.parse(source)
    except SyntaxError:
        # IPython would turn a cell that begins with `%%time` into a call, with the cell as a text:
        # no function in it would be found.
        source = re.sub(r"\A\s*%%.*", "", source)
        return TransformerManager().transform_cell(source)
    return source


def parsed(source: str) -> ast.Module:
    """The code of a cell; `SyntaxError` if it is neither Python nor for IPython."""
    return ast.parse(python_of(source))


def check_call(source: str) -> tuple[str, str] | None:
    """Names of check and function, if a cell says `check_x(my_x)`."""
    for node in parsed(source).body:
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call):
            continue
        call = node.value
        name = ast.unparse(call.func).split(".")[-1]
        if name.startswith("check_") and len(call.args) == 1 and isinstance(call.args[0], ast.Name):
            return name, call.args[0].id
    return None


def defines(source: str, name: str) -> bool:
    """Whether a cell defines a function of this name."""
    body = parsed(source).body
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in body)


def asked(cells: list[Cell]) -> list[Asked]:
    """The exercises of one of our notebooks, in their order.

    `ValueError` where a check has no stub above it, and as in `heading_of`.
    """
    found: list[Asked] = []
    question = 0
    for index, cell in enumerate(cells):
        if cell.kind == "markdown" and not cell.solution and not is_solution_heading(cell):
            question = index
        if cell.kind != "code" or cell.solution:
            continue
        names = check_call(cell.source)
        if names is None:
            continue
        check, function = names
        stubs = [i for i in range(index) if is_stub(cells[i], function)]
        if not stubs:
            raise ValueError(f"no cell above `{check}({function})` defines {function}; add one")
        solutions = []
        for later in range(index + 1, len(cells)):
            if cells[later].solution:
                solutions.append(later)
            elif not is_solution_heading(cells[later]):
                break
        title, level = heading_of(cells[question].source)
        places = (question, stubs[-1], index, tuple(solutions))
        found.append(Asked(title, level, check, function, *places))
    return found


def is_stub(cell: Cell, function: str) -> bool:
    """Whether the function that a student is to write stands in this cell."""
    return cell.kind == "code" and not cell.solution and defines(cell.source, function)


def is_solution_heading(cell: Cell) -> bool:
    """Whether nothing but `### Solution` stands in a cell."""
    return cell.kind == "markdown" and re.fullmatch(r"#+ Solution", cell.source.strip()) is not None


def heading_of(markdown: str) -> tuple[str, str]:
    """Title and level of a question; the level is easy, medium, hard or experiment.

    `ValueError` if there is no heading, or if it names no level.
    """
    heading = r"^## (Exercise \d+ \((?:an )?(easy|medium|hard|experiment)\): .+)$"
    found = re.search(heading, markdown, re.MULTILINE)
    if found is None:
        raise ValueError(
            "the text above an exercise has no heading that names its level; begin it with a line "
            "such as `## Exercise 2 (medium): hue`"
        )
    return found.group(1), found.group(2)


def checks_of(exercises: list[Asked]) -> list[Exercise]:
    """The check of each exercise; `ValueError` if the package has none of its name."""
    checks: dict[str, Exercise] = {}
    package = Exercise.__module__.rpartition(".")[0]  # "minillada.exercises"
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{found.name}")
        checks |= {name: one for name, one in vars(module).items() if isinstance(one, Exercise)}
    for exercise in exercises:
        if exercise.check not in checks:
            raise ValueError(f"no file of {package} holds a check called {exercise.check!r}")
    return [checks[exercise.check] for exercise in exercises]


def imports_of(cells: list[Cell]) -> list[str]:
    """The import statements of a page, solutions included, one text each."""
    lines = []
    for cell in cells:
        if cell.kind == "code":
            for node in parsed(cell.source).body:
                if isinstance(node, ast.Import | ast.ImportFrom):
                    lines.append(ast.unparse(node))
    return lines

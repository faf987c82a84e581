"""Notebooks are committed executed and readable.

That their cells still run and still print the same is nbval's part.
"""

import copy
import re
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
MARKER = "# NBVAL_CHECK_OUTPUT"

sys.path.insert(0, str(NOTEBOOKS))
import refresh  # noqa: E402

every_notebook = pytest.mark.parametrize("path", PATHS, ids=[p.stem for p in PATHS])


def read(path):
    """The notebook and its code cells."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


@every_notebook
def test_every_code_cell_was_run_in_order(path):
    _, code = read(path)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), (
        f"run `python notebooks/refresh.py {path.name}`"
    )


@every_notebook
def test_outputs_can_be_committed(path):
    notebook, _ = read(path)
    assert refresh.problems(notebook) == []
    assert path.stat().st_size <= refresh.MAX_BYTES
    cleaned = copy.deepcopy(notebook)
    refresh.clean(cleaned)
    assert cleaned == notebook, (
        f"metadata or widgets are left in it: run `python notebooks/refresh.py {path.name}`"
    )


@every_notebook
def test_at_least_three_cells_are_checked(path):
    _, code = read(path)
    checked = [cell for cell in code if MARKER in cell.source]
    assert len(checked) >= 3
    for cell in checked:
        assert cell.source.splitlines()[0] == MARKER, "the marker is the first line, alone"
        text = "\n".join(map(refresh.text_of, cell.outputs))
        # nbval compares text only, and compares nothing at all where no output is stored
        assert text.strip(), f"nothing to compare:\n{cell.source}"
        assert "<Figure" not in text and "<IPython" not in text, (
            f"a picture is never compared:\n{cell.source}"
        )
        # more digits than four differ between processors and numbers of threads
        assert not re.search(r"\d\.\d{5,}|\d\.\d+e[-+]\d", text), (
            f"round what is printed:\n{cell.source}\n{text}"
        )


@every_notebook
def test_cells_are_short(path):
    _, code = read(path)
    assert not [cell.source for cell in code if len(cell.source.splitlines()) > 25]
    assert not [cell.source for cell in code if not cell.source.strip()], "an empty cell"


@every_notebook
def test_begins_with_a_title(path):
    notebook, _ = read(path)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")


BAD_OUTPUTS = {
    "standard error": nbformat.v4.new_output("stream", name="stderr", text="careful"),
    "raised ValueError": nbformat.v4.new_output(
        "error", ename="ValueError", evalue="no", traceback=[]
    ),
    "a path of this machine": nbformat.v4.new_output(
        "stream", name="stdout", text=f"saved {NOTEBOOKS}/x.png"
    ),
    "a memory address": nbformat.v4.new_output(
        "execute_result", data={"text/plain": "<object at 0x7f3a>"}
    ),
    "at most": nbformat.v4.new_output("display_data", data={"image/png": "A" * refresh.MAX_BYTES}),
}


@pytest.mark.parametrize("complaint", BAD_OUTPUTS)
def test_refresh_refuses_what_should_not_be_committed(complaint):
    good = nbformat.v4.new_output("stream", name="stdout", text="[8, 1, 32, 32]\n")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("x", outputs=[good], execution_count=1)]
    )
    assert refresh.problems(notebook) == []
    notebook.cells[0].outputs.append(BAD_OUTPUTS[complaint])
    (problem,) = refresh.problems(notebook)
    assert complaint in problem


def test_refresh_leaves_the_file_alone_when_a_cell_fails(tmp_path):
    path = tmp_path / "broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    (problem,) = refresh.refresh(path, timeout=60)
    assert "ZeroDivisionError" in problem
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_text_stays_before_its_picture():
    def text(words):
        return nbformat.v4.new_output("stream", name="stdout", text=words)

    picture = nbformat.v4.new_output("display_data", data={"image/png": "A"})
    outputs = refresh.joined([text("one\n"), text("two\n"), picture, text("three\n"), picture])
    assert outputs == [text("one\ntwo\n"), picture, text("three\n"), picture]


def test_refresh_twice_gives_the_same_bytes(tmp_path):
    path = tmp_path / "good.ipynb"
    sources = [
        "import sys\nprint(len(sys.argv) > 0)",
        "import ipywidgets\nipywidgets.IntSlider()",
        "print('once')\nprint('twice')",
    ]
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]),
        path,
    )
    assert refresh.refresh(path, timeout=60) == []
    first = path.read_bytes()
    assert b"widget-view" not in first and b"once" in first
    assert refresh.refresh(path, timeout=60) == []
    assert path.read_bytes() == first

"""Notebooks are committed executed and readable.

That their cells still run and still print the same is nbval's part.
"""

import ast
import copy
import html
import re
import statistics
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


def names(tree, kind):
    return {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, kind)}


def sections(path):
    """`(heading, code)` of every cell of code, in order."""
    heading, found = "", []
    for cell in read(path)[0].cells:
        if cell.cell_type == "code":
            found.append((heading, ast.parse(cell.source)))
        elif cell.source.startswith("## "):
            heading = cell.source.splitlines()[0]
    return found


@every_notebook
def test_no_loop_spoils_a_name_that_an_earlier_section_took_over(path):
    """Whoever runs one cell of that section again would get another result without a word."""
    written_in, taken_over = {}, {}  # name -> section that writes it, and that only reads it
    for heading, tree in sections(path):
        loops = [part.target for part in tree.body if isinstance(part, ast.For)]
        for name in {name for target in loops for name in names(target, ast.Store)}:
            assert taken_over.get(name, heading) == heading, f"{name} of {taken_over[name]}"
        own = names(tree, ast.Store)
        arguments = {part.arg for part in ast.walk(tree) if isinstance(part, ast.arg)}
        for name in names(tree, ast.Load) - own - arguments:
            if written_in.get(name, heading) != heading:
                taken_over[name] = heading
        written_in |= dict.fromkeys(own, heading)


@every_notebook
def test_a_notebook_is_no_longer_than_a_session(path):
    notebook, _ = read(path)
    prose = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert sum(len(text.split()) for text in prose) <= 3500, "delete what is said twice"


@every_notebook
def test_header_and_cells_have_the_new_form(path):
    """As CONTRIBUTING.md says: what a reader needs to know first, and cells that a slide holds."""
    notebook, code = read(path)
    header = notebook.cells[0].source
    for part in ("You will be able to", "Before", "Minutes", "Machine", "Next"):
        assert f"**{part}**" in header, part
    assert refresh.MACHINE.search(header), "refresh.py finds no `**Machine**: about 20 s`"
    lengths = [len(cell.source.splitlines()) for cell in code]
    assert max(lengths) <= 12 and statistics.median(lengths) <= 6
    lines = [line for cell in code for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > 100] == []


@every_notebook
def test_every_figure_has_an_alt_text(path):
    """Stored with the picture, and once more below it: JupyterLab only reads the second."""
    for cell in read(path)[1]:
        for output, after in zip(cell.outputs, [*cell.outputs[1:], {}]):
            if "image/png" in output.get("data", {}):
                alt = output.metadata["image/png"]["alt"]
                assert html.escape(alt) in after["data"]["text/html"], cell.source


EXERCISE = re.compile(r"## Exercise (\d+) \((?:easy|medium|hard|an experiment)\): \S.*")


@every_notebook
def test_headings_of_exercises_have_one_form(path):
    """`## Exercise 2 (medium): the loss of a batch`, counted from 1; the editions read them."""
    counted = []
    for cell in read(path)[0].cells:
        lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
        for line in lines:
            if re.match(r"(#+ |\*\*)Exercise", line):
                found = EXERCISE.fullmatch(line)
                assert found, line
                counted.append(int(found[1]))
    assert counted == list(range(1, len(counted) + 1)) and counted


NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Numbers of these are no results: code, formulas, links, references to other places.
NO_RESULT = re.compile(
    r"`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\]\([^)]*\)"
    r"|(?i:notebooks?|sections?|exercises?) \d+(?: (?:to|and) \d+)*",
    re.DOTALL,
)


def numbers(text):
    return {number.replace(",", "") for number in NUMBER.findall(text)}


def unsupported(cells):
    """Numbers in the paragraph after cells tagged `quoted` that their outputs do not show."""
    shown, missing = set(), set()
    for cell in cells:
        if cell.cell_type == "code":
            if "quoted" in cell.metadata.get("tags", []):
                shown |= numbers("\n".join(map(refresh.text_of, cell.outputs)))
            continue
        if shown:
            prose = NO_RESULT.sub(" ", cell.source.split("\n\n")[0])
            missing |= numbers(prose) - shown
        shown = set()
    return missing


@every_notebook
def test_numbers_in_prose_are_those_of_the_cell_above(path):
    assert unsupported(read(path)[0].cells) == set()


def test_a_wrong_number_in_prose_is_found():
    cell = nbformat.v4.new_code_cell("x", metadata={"tags": ["quoted"]})
    cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="right: 97.5%, n 1000\n")]
    for prose, wrong in (
        ("97.5 % of 1,000 are right (notebook 05, `x[3]`).\n\n## 7. Next", set()),
        ("79.5 % are right.", {"79.5"}),
    ):
        assert unsupported([cell, nbformat.v4.new_markdown_cell(prose)]) == wrong


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


@pytest.mark.parametrize(
    ("before", "seconds", "after"),
    [(20, 26, 20), (20, 14, 20), (20, 27, 30), (20, 13, 15), (0, 2, 5)],
)
def test_refresh_writes_the_seconds_it_measures(before, seconds, after):
    form = "# 00\n\n**Machine**: about {} s on a laptop."
    cells = [nbformat.v4.new_markdown_cell(form.format(before))]
    notebook = nbformat.v4.new_notebook(cells=cells)
    refresh.write_seconds(notebook, seconds)
    assert notebook.cells[0].source == form.format(after)


def test_refresh_finds_what_a_shell_of_windows_leaves_as_it_is():
    first = str(refresh.FOLDER / "00_quickstart.ipynb")
    assert refresh.named([str(refresh.FOLDER / "0[0]_*.ipynb"), "no.ipynb"]) == [
        Path(first), Path("no.ipynb"),
    ]  # fmt: skip


def test_the_readme_shows_the_times_of_the_headers():
    readme = refresh.README.read_text(encoding="utf-8")
    assert readme == refresh.readme_with_all_times(), "run `python notebooks/refresh.py --readme`"
    row = "| [00](notebooks/00.ipynb) | draw | 1 | 2 |\n"
    header = "**Minutes**: about 50 of yours\n\n**Machine**: about 20 s"
    assert refresh.with_times(row, "00.ipynb", header) == row.replace("1 | 2", "50 | 20")
    assert refresh.with_times(row, "01.ipynb", header) == row


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

"""Slides out of the notebooks, readable offline: `make slides`, or `python docs/slides/make.py`.

Without an argument, all notebooks; the pages go to `docs/_build/slides`. The notebooks themselves
hold no mark of slides: the rules below cut them where they are.

Notable choices
- A section (`##`) begins a slide to the right, a part of it a slide below. A part ends where the
  page is full, and where an explanation begins that does not belong to the figure above it.
- Code is shown where it is the point: where it defines something, and where it prints what is
  checked. The code that draws a figure is hidden, and so are imports.
- A cell that is longer than a page is cut: its code first, then its figures, as many as fit.
- Exercises become one slide each, with the stub. Checks and solutions are left out.
- reveal.js and MathJax are copied beside the pages from PyPI packages: no network is needed.
"""

import argparse
import base64
import importlib.util
import math
import re
import shutil
import struct
from pathlib import Path

import nbformat
from nbconvert import SlidesExporter
from nbconvert.preprocessors import Preprocessor
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
OUT = FOLDER.parent / "_build" / "slides"
LINE = 35  # pixels a line of text takes on a slide of 1280 x 720
PAGE = 18.0  # lines that fit, the line above them that says where we are not counted
CODE = 0.75  # a line of code is lower
HEAD = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Slides</title>
<meta name="viewport" content="width=device-width">
<style>:root { color-scheme: light dark; } body { font: 18px/1.6 system-ui, sans-serif; }
body { max-width: 40em; margin: auto; padding: 1em; }</style>
<h1>Slides</h1><p>→ goes to the next section, ↓ or the space bar to the next slide, Esc shows them
all.</p>"""
HEADING = re.compile(r"^(#{1,6}) ")
TABLE_CODE = re.compile(r"(?<=<code>)[^<]*(?=</code>(?:(?!<t[dh]|</table).)*</td>)", re.S)
MARKER = re.compile(r"^# NBVAL_CHECK_OUTPUT\n", re.M)


# --- how much space something takes --------------------------------------------------------------


def lines_of_text(text: str) -> float:
    """How many lines of a slide a paragraph, list, table or formula takes."""
    if HEADING.match(text):
        return 2.2
    if text.startswith("$$"):
        return 3.0
    if text.startswith("|"):  # long cells of a table are broken into lines of about 45 letters
        rows = text.splitlines()
        return sum(max(len(cell) / 45 for cell in row.split("|")) + 1 for row in rows)
    return sum(math.ceil(max(len(line), 1) / 92) for line in text.splitlines()) + 0.5


def picture(output: NotebookNode) -> bytes | None:
    """The PNG of an output, if it has one."""
    data = output.get("data", {}).get("image/png")
    return base64.b64decode(data) if data else None


def lines_of_picture(png: bytes) -> float:
    """How many lines a picture takes: it is 700 to 1,240 pixels wide and at most 470 high."""
    width, height = struct.unpack(">II", png[16:24])  # as the PNG's header says
    shown = min(max(width, 700), 1240)
    return min(height * shown / width, 470) / LINE + 0.3


def lines_of_cell(cell: NotebookNode) -> float:
    """How many lines of a slide a code cell takes, with what it printed and drew."""
    total = 0.0
    if not cell.metadata.get("transient"):
        total += CODE * len(cell.source.splitlines()) + 0.6
    for output in cell.outputs:
        png = picture(output)
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        total += lines_of_picture(png) if png else CODE * len(text.splitlines()) + 0.3
    return total


def cut_to_pages(cell: NotebookNode) -> list[NotebookNode]:
    """The cell, as several if it is longer than a page: code first, then its outputs in order."""
    if lines_of_cell(cell) <= PAGE:
        return [cell]
    outputs, cell.outputs = cell.outputs, []
    parts = [cell]
    for output in outputs:
        parts[-1].outputs.append(output)
        if lines_of_cell(parts[-1]) > PAGE:
            output = parts[-1].outputs.pop()
            rest = nbformat.v4.new_code_cell("", outputs=[output])
            rest.metadata["transient"] = {"remove_source": True}
            parts.append(rest)
    return [part for part in parts if part.outputs or not part.metadata.get("transient")]


# --- the rules -----------------------------------------------------------------------------------


def paragraphs(text: str) -> list[str]:
    """Parts of a Markdown cell; code and formulas stay whole, a list keeps its introduction."""
    parts: list[str] = []
    fenced = False
    for line in text.splitlines():
        # An empty line ends a paragraph, a heading is one of its own. In code, both are code.
        new = not parts or (not fenced and (not line.strip() or HEADING.match(line)))
        if new or (parts and HEADING.match(parts[-1])):
            parts.append("")
        parts[-1] += line + "\n"
        if line.startswith("```") or line.strip() == "$$":
            fenced = not fenced
    return [part.strip("\n") for part in parts if part.strip()]


def links_to_pages(text: str) -> str:
    """Links to other notebooks and to documents as links to their slides and pages of the site."""
    text = re.sub(r"\]\(([\w.-]+)\.ipynb", r"](\1.html", text)
    return re.sub(r"\]\(\.\./([\w./-]+)\.(md|ipynb)", r"](../html/\1.html", text)


def is_shown(source: str, figure: bool) -> bool:
    """Whether code is the point of its cell."""
    if re.search(r"^(def |class |@)", source, re.M):
        return len(source.splitlines()) <= 18
    return not figure and not source.startswith(("import ", "from "))


class Cut(Preprocessor):
    """Gives every part of a notebook its place: a slide to the right, one below, or the same."""

    def preprocess(self, notebook, resources):
        self.cells: list[NotebookNode] = []
        self.room = 0.0
        self.exercise = self.skipping = False
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                self.add_words(links_to_pages(cell.source))
            elif cell.cell_type == "code" and not self.skipping:
                self.add_code(cell)
        notebook.cells = with_titles(self.cells)
        return notebook, resources

    def place(self, cell: NotebookNode, kind: str, lines: float) -> None:
        """Add a cell; `kind` is "slide", "subslide" or "-", the same slide as the cell before."""
        last = self.cells[-1] if self.cells else None
        headed = last and last.cell_type == "markdown" and HEADING.match(last.source)
        # A heading is never left alone: a table below it may be too long and is scrolled then.
        if kind == "-" and lines > self.room and not headed:
            kind = "subslide"
            # Words that end with a colon move on to the slide of what they introduce.
            if last and last.source.endswith(":") and last.metadata.slideshow.slide_type == "-":
                last.metadata.slideshow.slide_type = "subslide"
                kind, self.room = "-", PAGE - lines_of_text(last.source)
        if kind != "-":
            self.room = PAGE
        self.room -= lines
        cell.metadata["slideshow"] = {"slide_type": kind}
        self.cells.append(cell)

    def add_words(self, text: str) -> None:
        """A Markdown cell: its paragraphs, as many on a slide as fit."""
        parts = paragraphs(text)
        if not parts:
            return
        heading = HEADING.match(parts[0])
        title = parts[0].lower() if heading else ""
        self.skipping = "solution" in title  # until the next words
        if heading:
            self.exercise = "exercise" in title or (self.exercise and len(heading[1]) > 2)
        if self.skipping:
            return
        # A short remark stays with the figure that it explains; all else begins a new slide.
        kind = "-" if sum(map(lines_of_text, parts)) <= 5 and self.room < PAGE else "subslide"
        for part in parts:
            level = HEADING.match(part)
            if level:
                kind = "slide" if len(level[1]) <= 2 else "subslide"
            self.place(nbformat.v4.new_markdown_cell(part), kind, lines_of_text(part))
            kind = "-"

    def add_code(self, cell: NotebookNode) -> None:
        """A code cell: what it shows, and its code if that is the point."""
        source = MARKER.sub("", cell.source)
        stub = "NotImplementedError" in source
        if (self.exercise and not stub) or "solution" in cell.metadata.get("tags", []):
            return
        shown = is_shown(source, any(map(picture, cell.outputs)))
        if not shown and not cell.outputs:
            return
        outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        new = nbformat.v4.new_code_cell(source, outputs=outputs)
        if not shown:
            new.metadata["transient"] = {"remove_source": True}
        for part in cut_to_pages(new):
            self.place(part, "-", lines_of_cell(part))


def with_titles(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells, and above each slide without a heading the section that it belongs to."""
    result: list[NotebookNode] = []
    section = ""
    for cell in cells:
        heading = cell.cell_type == "markdown" and HEADING.match(cell.source)
        if heading:
            section = cell.source.splitlines()[0].strip("# ")
        elif cell.metadata.slideshow.slide_type != "-":
            title = nbformat.v4.new_markdown_cell(f'<p class="where">{section}</p>')
            title.metadata["slideshow"] = dict(cell.metadata.slideshow)
            cell.metadata.slideshow.slide_type = "-"
            result.append(title)
        result.append(cell)
    return result


def export(path: Path, folder: Path) -> Path:
    """Write the slides of one notebook; returns the page."""
    exporter = SlidesExporter(
        template_name=FOLDER.name,
        extra_template_basedirs=[str(FOLDER.parent)],
        reveal_url_prefix="reveal",
        reveal_theme="white",
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    # The exporter reads the places that `Cut` gives, so cutting comes first.
    notebook, _ = Cut().preprocess(nbformat.read(path, as_version=4), {})
    text, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    page = folder / f"{path.stem}.html"
    page.write_text(TABLE_CODE.sub(narrow, text), encoding="utf-8")
    return page


def narrow(code: re.Match) -> str:
    """Code in a table: lines may break inside a long name, else the table is wider than a slide.

    Markdown needs `\\|` for a bar there, and nbconvert leaves the backslash.
    """
    return re.sub(r"([_.(])(?=\w)", r"\1<wbr>", code[0].replace("\\|", "|"))


def copy_libraries(folder: Path) -> None:
    """reveal.js and MathJax, from the packages that bring them."""
    for package, place, target in (
        ("sphinx_revealjs", "_static/revealjs/dist", "reveal/dist"),
        ("sphinx_revealjs", "_static/revealjs/plugin/notes", "reveal/plugin/notes"),
        ("sphinx-mathjax-offline", "static/mathjax/tex-svg.js", "mathjax/tex-svg.js"),
    ):
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            raise SystemExit(
                'slides need more packages: pip install -e ".[docs]" -c constraints.txt'
            )
        source = Path(found.origin).parent / place
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if source.is_dir() else shutil.copyfile
        if not (folder / target).exists():
            copy(source, folder / target)


def main() -> None:
    parser = argparse.ArgumentParser(description="slides out of the notebooks, readable offline")
    parser.add_argument("notebooks", nargs="*", type=Path, help="all, if none is named")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args()
    for path in chosen.notebooks:
        if not path.is_file():
            parser.error(f"there is no notebook at {path}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    copy_libraries(chosen.out)
    links = []
    for path in chosen.notebooks or sorted((ROOT / "notebooks").glob("*.ipynb")):
        page = export(path, chosen.out)
        source = "".join(cell.source for cell in nbformat.read(path, as_version=4).cells[:1])
        title = source.split("\n")[0].strip("# ") or path.stem
        links.append(f'<li><a href="{page.name}">{title}</a></li>')
        print(f"wrote {page}")
    if not chosen.notebooks:
        text = f"{HEAD}<ul>{''.join(links)}</ul></html>"
        (chosen.out / "index.html").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

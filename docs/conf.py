"""How `make docs` builds the site with Sphinx: from the stored outputs, and readable offline.

Notable choices
- The source folder is the repository, so a link that works on GitHub works on the site, too.
- Nothing is executed: notebooks show the outputs that are stored in them.
- MathJax comes from a PyPI package and is copied into the site; formulas need no network.
- One page of the reference a row of the README's table, with the files in that table's order. The
  pages are written when the site is built (`docs/api/`, ignored by git).
- "Notebook 03" becomes a link wherever it stands. In the files it is plain text, because the
  glossary and the notebooks of a course are also read in other folders.
"""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the reference describes this copy, whatever else is installed

project = "minillada"
author = "the minillada contributors"
project_copyright = f"2026, {author}"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "data/README.md",
    "docs/**.md",
    "notebooks/*.ipynb",
]
# Folders that need not be searched. Those that start with a dot hold caches.
exclude_patterns = [".*", "docs/_build", "minillada", "tests", "outputs", "runs", "data/*/**"]

html_theme = "furo"
html_title = "minillada"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which a browser forbids for local files
html_show_sourcelink = False
html_search_scorer = str(ROOT / "docs" / "search.js")
html_additional_pages = {"index": "redirect.html"}  # a visitor opens index.html, not docs/
templates_path = ["_templates"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show the solution"  # nothing else is hidden
nb_code_prompt_hide = "Hide the solution"
nb_ipywidgets_js = {}  # sliders need a running kernel; a page shows the stored picture
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = True
# Formulas come out as SVG, which needs no font files.
mathjax_path = "mathjax/tex-svg.js"
mathjax3_config = {"svg": {"fontCache": "global"}}

default_role = "code"  # docstrings write code between single backticks
autodoc_inherit_docstrings = False  # those of torch use directives of their own
add_module_names = False
autodoc_default_options = {"exclude-members": "model_config"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88


# --- the reference --------------------------------------------------------------------------------


def table_of_files() -> dict[str, list[str]]:
    """Pages of the reference: the spine, then one a room, each with its files in order."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## The package")[1].split("\n## ")[0]
    pages: dict[str, list[str]] = {"spine": []}
    for place, text in re.findall(r"^\| `([^`]+)` \| (.*) \|$", section, re.M):
        if place.endswith("/"):
            pages[place.strip("/")] = [place + name for name in re.findall(r"`(\w+\.py)`", text)]
        elif not place.startswith(("__", "cli")):
            pages["spine"].append(place)
    return pages


def page_of_files(name: str, files: list[str]) -> str:
    """One page: a heading and the docstrings of every file."""
    text = f"# {name}\n\n"
    for file in files:
        module = "minillada." + file.removesuffix(".py").replace("/", ".")
        module = module.removesuffix(".__init__")
        text += f"## `{file}`\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n"
        text += "   :undoc-members:\n   :show-inheritance:\n   :ignore-module-all:\n```\n\n"
    return text


def write_reference(app: Sphinx) -> None:
    """Write `docs/api/*.md`; a page that is as before keeps its date and is not built again."""
    folder = ROOT / "docs" / "api"
    folder.mkdir(exist_ok=True)
    pages = table_of_files()
    wanted = {f"{name}.md": page_of_files(name, files) for name, files in pages.items()}
    names = "\n".join(pages)
    wanted["index.md"] = f"# Reference\n\n```{{toctree}}\n:maxdepth: 2\n\n{names}\n```\n"
    for old in folder.glob("*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def plain_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Our docstrings as reStructuredText wants them: the same lines, and empty ones around blocks.

    A list begins after an empty line, an indented block outside of a list is shown as it is
    written, and | and * outside of code are only letters.
    """
    result: list[str] = []
    in_list = in_block = False
    for line in lines:
        item = re.match(r"(- |\d\. )", line) is not None
        indented = line.startswith("  ")
        if line.strip() and not indented:
            if (item and not in_list) or in_block:
                result.append("")
            in_list, in_block = item, False
        elif indented and not in_list and not in_block:
            result += ["", "::", ""]
            in_block = True
        if not in_block:
            parts = re.split(r"(`[^`]*`)", line)
            line = "".join(p if p[:1] == "`" else re.sub(r"([|*])", r"\\\1", p) for p in parts)
        result.append(line)
    lines[:] = [*result, ""]


NOTEBOOKS = {path.name[:2]: path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
# Where no link may stand: blocks of code, code, links, headings.
CLOSED = re.compile(r"(^```.*?^```|`[^`\n]+`|\[[^\]]*\]\([^)]*\)|^#.*?$)", re.M | re.S)
NAMED = re.compile(r"\b[Nn]otebooks?\s\d\d\b(?:(?:\s\([^()]*\))?(?:,| and| or| to)\s\d\d\b)*")
JOINED = re.compile(r"(?<=[≥≤]) | (?=%)")


def linked(text: str) -> str:
    """Markdown in which "notebook 03" and "notebooks 05 (backbone) and 08" are links to pages.

    And no line ends between a number and its sign.
    """

    def link(found: re.Match) -> str:
        target = NOTEBOOKS.get(found[0][-2:])
        return f"[{found[0]}](/notebooks/{target})" if target else found[0]

    def links(found: re.Match) -> str:
        return re.sub(r"(?:[Nn]otebooks?\s)?\b\d\d\b(?![^(]*\))", link, found[0])

    parts = CLOSED.split(text)  # every second part is closed
    parts[::2] = [JOINED.sub("\xa0", NAMED.sub(links, part)) for part in parts[::2]]
    return "".join(parts)


def tidied(app: Sphinx, name: str, source: list[str]) -> None:
    """Pages as readers want them: links to notebooks, which have no mark for the tests, one title,
    alt texts, and solutions that are shown only when asked for."""
    if not name.startswith("notebooks/"):
        source[0] = linked(source[0])
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
        solution = "solution" in cell["metadata"].get("tags", [])
        if cell["cell_type"] == "markdown":
            text = linked(re.sub(r"^# Second", "## Second", cell["source"], flags=re.M))
            opened = "<details>\n<summary>Show the solution</summary>\n\n"
            cell["source"] = f"{opened}{text}\n\n</details>" if solution else text
        elif cell["cell_type"] == "code":
            if solution:
                cell["metadata"]["tags"].append("hide-cell")
            cell["source"] = cell["source"].removeprefix("# NBVAL_CHECK_OUTPUT\n")
            # MyST-NB takes the alt text from the cell, our notebooks store it with the picture.
            pictures = [o.get("metadata", {}).get("image/png", {}) for o in cell["outputs"]]
            alts = [picture["alt"] for picture in pictures if "alt" in picture]
            if alts:
                cell["metadata"]["mystnb"] = {"image": {"alt": "; ".join(alts)}}
    source[0] = json.dumps(notebook)


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Put the formula renderer where the pages look for it."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    if exception is None and app.builder.format == "html":
        source = Path(package.origin).parent / "static" / "mathjax" / "tex-svg.js"
        target = Path(app.outdir) / "_static" / "mathjax" / "tex-svg.js"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", write_reference)
    app.connect("source-read", tidied)
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("build-finished", copy_mathjax)

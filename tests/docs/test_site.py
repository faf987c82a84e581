"""The site is whole: its reference lists every file, and its pages are right in a real browser."""

import ast
import importlib.util
import inspect
import io
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
pytest.importorskip("furo", reason="the site needs the packages of the extra `docs`")
from docutils.core import publish_doctree  # noqa: E402
from sphinx.ext.autodoc import preserve_defaults  # noqa: E402

PAGES = ["docs/index", "docs/TEACHING", "docs/glossary", "notebooks/04_masked_diffusion"]
PAGES += ["notebooks/08_sampling"]
PACKAGE = ROOT / "minillada"
FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.fixture(scope="session")
def conf():
    """`docs/conf.py` as a module."""
    spec = importlib.util.spec_from_file_location("site_conf", ROOT / "docs/conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_lists_every_file(conf):
    listed = {file for files in conf.table_of_files().values() for file in files}
    files = {path.relative_to(PACKAGE).as_posix() for path in FILES}
    plain = {f for f in files if not f.rsplit("/", 1)[-1].startswith("__") and f != "cli.py"}
    assert plain <= listed


def test_docstrings_become_lists_and_blocks(conf):
    lines = [
        "What it does, p(a | b, *c):",
        "    s = |x|",
        "Notable choices",
        "- one `a|b`",
        "  more",
        "- two",
    ]
    conf.plain_docstring(None, "module", "name", None, None, lines)
    assert lines == [
        *("What it does, p(a \\| b, \\*c):", "", "::", "", "    s = |x|", "", "Notable choices"),
        *("", "- one `a|b`", "  more", "- two", ""),
    ]


def test_notebooks_that_are_named_become_links(conf):
    text = "Notebook 03. `notebook 04`, notebooks 05 (≥ 16 %) and\n08, [notebook 06](x); "
    text += "notebook 77"
    assert conf.linked(f"# Notebook 07\n{text}") == (
        "# Notebook 07\n[Notebook 03](/notebooks/03_one_vocabulary.ipynb). `notebook 04`, "
        "[notebooks 05](/notebooks/05_backbone.ipynb) (≥\xa016\xa0%) and\n"
        "[08](/notebooks/08_sampling.ipynb), "
        "[notebook 06](x); notebook 77"
    )


def test_a_heading_of_the_reference_is_the_name_of_a_file(conf):
    page = conf.page_of_files("presets", ["presets/__init__.py"])
    assert "\n## `presets/__init__.py`\n" in page, "without quotes, init is in bold letters"


def documented(path: Path) -> list[tuple[str, str]]:
    """Names and docstrings of a file's module, classes, functions and methods."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    nodes = [tree, *tree.body, *(part for owner in classes for part in owner.body)]
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    shown = [node for node in nodes if isinstance(node, kinds)]
    return [(getattr(node, "name", path.name), ast.get_docstring(node) or "") for node in shown]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_docstrings_can_be_read_by_the_site(conf, path):
    """What docutils complains about is a warning of `make docs`, which then fails."""
    for name, text in documented(path):
        lines = text.splitlines()
        conf.plain_docstring(None, "module", name, None, None, lines)
        complaints = io.StringIO()
        settings = {"warning_stream": complaints, "report_level": 2}
        publish_doctree("\n".join(lines), settings_overrides=settings)
        assert not complaints.getvalue(), f"{name}: {complaints.getvalue()}"


COMMANDS = sorted((ROOT / "minillada" / "commands").glob("[a-z]*.py"))


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_the_site_can_show_the_defaults_of_every_command(path):
    """As Sphinx reads them, from the source; what fails there is a warning of `make docs`."""
    module = importlib.import_module(f"minillada.commands.{path.stem}")
    app = SimpleNamespace(config=SimpleNamespace(autodoc_preserve_defaults=True))
    for command in list(vars(module).values()):
        if inspect.isfunction(command) and command.__module__ == module.__name__:
            attributes = dict(vars(command))
            preserve_defaults.update_defvalue(app, command, False)
            # Typer would read the signature that Sphinx leaves here, in all tests that follow.
            vars(command).clear()
            vars(command).update(attributes)


def test_every_page_of_the_site_is_in_its_contents():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert path.stem == "index" or re.search(rf"^{path.stem}$", index, re.M), path.name


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site of five pages, built as `make docs` does; all pages would take a minute more."""
    folder = tmp_path_factory.mktemp("site")
    chosen = [next(ROOT.glob(f"{page}.*")).relative_to(ROOT).as_posix() for page in PAGES]
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-c", str(ROOT / "docs")]
    command += ["-D", f"include_patterns={','.join(chosen)}", "-d", str(folder / "trees")]
    done = subprocess.run([*command, str(ROOT), str(folder / "html")], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return folder / "html"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_in_the_browser(site, open_page, name):
    page = open_page(site / f"{name}.html")
    page.wait_for_function("!window.MathJax || MathJax.startup?.promise")
    page.evaluate("window.MathJax && MathJax.startup.promise")
    # Figures far below are loaded when they come into view.
    broken = """async () => {
        for (const image of document.images) { image.loading = "eager"; await image.decode() }
        return [...document.images].filter(image => image.naturalWidth == 0).length
    }"""
    assert page.evaluate(broken) == 0
    formulas = page.locator(".math").count()
    assert page.locator("mjx-container").count() >= formulas
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0
    if name.startswith("notebooks"):
        assert formulas > 5 and page.locator(".cell_output img").count() > 5
        alts = page.eval_on_selector_all(".cell_output img", "all => all.map(one => one.alt)")
        assert not [alt for alt in alts if not alt or alt.endswith(".png")]
    assert "NBVAL" not in page.locator("article").inner_text()
    # A dollar left in a text is a formula that was not read; those of commands stay.
    page.eval_on_selector_all("pre", "all => all.forEach(block => block.remove())")
    assert "$" not in page.locator("article").inner_text()


@pytest.mark.parametrize("width", [390, 1320, 1400, 1900])
def test_no_page_is_wider_than_the_window(site, open_page, width):
    page = open_page(site / "notebooks/08_sampling.html")
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = "all => Math.max(...all.map(one => one.getBoundingClientRect().right))"
    assert page.eval_on_selector_all("article img, article table, article pre", found) <= width
    if width > 1312:  # below, the list of headings opens with a button
        assert page.locator(".toc-drawer").bounding_box()["width"] >= 200


def test_a_solution_is_shown_when_asked_for(site, open_page):
    page = open_page(site / "notebooks/08_sampling.html")
    solutions = page.locator("details", has=page.get_by_text("Show the solution", exact=True))
    assert solutions.count() >= 5
    body = solutions.first.locator("> :not(summary)").first
    assert not body.is_visible()
    solutions.first.locator("summary").click()
    assert body.is_visible()


def test_searching_needs_no_server(site, open_page):
    page = open_page(site / "search.html")
    page.goto(page.url + "?q=quota")
    page.wait_for_selector("#search-results li a")
    # The word is explained first, and leads on to its notebook.
    first = page.locator("#search-results li a").first
    assert first.get_attribute("href").endswith("docs/glossary.html#quota")
    first.click()
    page.locator("#quota a[href*=sampling]").wait_for(state="attached")

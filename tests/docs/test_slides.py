"""Slides are cut at headings, hide what is not the point, and need no network."""

import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

NOTEBOOK = Path(__file__).resolve().parent.parent.parent / "notebooks" / "08_sampling.ipynb"
# A PNG's header is enough: 1,000 x 100 pixels.
PNG = "iVBORw0KGgoAAAANSUhEUgAAA+gAAABk"
# A slide has a height only while it is shown.
HEIGHTS = """Reveal.getSlides().map(slide => {
    const place = Reveal.getIndices(slide);
    Reveal.slide(place.h, place.v);
    return slide.scrollHeight;
})"""


def printed(text):
    return new_output("stream", name="stdout", text=text)


def drawn():
    return new_output("display_data", data={"image/png": PNG})


def cut(slides, cells):
    """The cells on the slides, as (kind, source) pairs, without the titles above them."""
    notebook, _ = slides.Cut().preprocess(new_notebook(cells=cells), {})
    kinds = [(c.metadata.slideshow.slide_type, c.source) for c in notebook.cells]
    return [kind for kind in kinds if "class=" not in kind[1]], notebook.cells


def test_headings_begin_slides_and_long_texts_are_cut(slides):
    text = "## Two\n\n" + "\n\n".join(["a sentence of some words " * 15] * 4)
    found, cells = cut(slides, [new_markdown_cell("# One\n\nwords"), new_markdown_cell(text)])
    assert [kind for kind, source in found if source.startswith("#")] == ["slide", "slide"]
    titles = [cell for cell in cells if "class=" in cell.source]
    assert titles and all(">Two<" in cell.source for cell in titles)
    assert all(cell.metadata.slideshow.slide_type == "subslide" for cell in titles)


def test_code_is_shown_where_it_is_the_point(slides):
    cells = [
        new_markdown_cell("## One"),
        new_code_cell("import torch"),
        new_code_cell("def slowly(x):\n    return x"),
        new_code_cell("# NBVAL_CHECK_OUTPUT\nprint(1)", outputs=[printed("1\n")]),
        new_code_cell("show(figure)", outputs=[drawn()]),
        new_code_cell("classes = [1]", outputs=[drawn()]),
    ]
    _, cells = cut(slides, cells)
    code = [cell for cell in cells if cell.cell_type == "code"]
    hidden = [cell.source for cell in code if cell.metadata.get("transient")]
    assert hidden == ["show(figure)", "classes = [1]"]
    assert [cell.source for cell in code if cell.source not in hidden] == [
        "def slowly(x):\n    return x",
        "print(1)",
    ]


def test_code_in_a_text_is_not_cut(slides):
    code = "```sh\nmake demo\n\n# draws ten digits\nmake test\n```"
    assert slides.paragraphs(f"Type:\n\n{code}\n\nWait.") == ["Type:", code, "Wait."]


def test_a_notebook_may_begin_with_code_or_hold_an_empty_cell(slides):
    cells = [new_code_cell("print(1)", outputs=[printed("1\n")]), new_markdown_cell("")]
    found, _ = cut(slides, cells)
    assert found == [("-", "print(1)")]


def test_a_notebook_that_is_not_there_is_named(slides, tmp_path, monkeypatch, capsys):
    words = ["make.py", str(tmp_path / "gone.ipynb"), "--out", str(tmp_path / "slides")]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as error:
        slides.main()
    assert error.value.code == 2 and "there is no notebook at" in capsys.readouterr().err
    assert not (tmp_path / "slides").exists()


def test_solutions_and_checks_are_left_out(slides):
    solution = new_code_cell("def f():\n    return 42")
    solution.metadata["tags"] = ["solution"]
    cells = [
        new_markdown_cell("## Exercises\n\n**Exercise 1**"),
        new_code_cell("def f():\n    raise NotImplementedError"),
        new_code_cell("check_f(f)", outputs=[printed("not done yet")]),
        new_markdown_cell("### Solution"),
        solution,
        new_markdown_cell("**Exercise 2**"),
        new_code_cell("def g():\n    raise NotImplementedError"),
    ]
    found, _ = cut(slides, cells)
    text = "\n".join(source for _, source in found)
    assert "Exercise 2" in text and text.count("NotImplementedError") == 2
    assert "42" not in text and "check_f" not in text and "Solution" not in text


def test_words_stay_with_what_they_introduce(slides):
    filled = "\n\n".join(["a sentence"] * 9)
    code = new_code_cell("\n".join(["x = 1"] * 12), outputs=[printed("1\n" * 4)])
    found, _ = cut(slides, [new_markdown_cell(f"## One\n\n{filled}\n\nSlowly:"), code])
    assert [kind for kind, _ in found[-2:]] == ["-", "-"]
    assert found[-2][1] == "Slowly:"


def test_a_cell_longer_than_a_slide_is_cut(slides):
    code = "def shown(x):\n" + "\n".join(["    x = 1"] * 9)
    outputs = [output for k in range(5) for output in (printed(f"{k}\n"), drawn())]
    _, cells = cut(slides, [new_markdown_cell("## One"), new_code_cell(code, outputs=outputs)])
    parts = [cell for cell in cells if cell.cell_type == "code"]
    assert [part.source for part in parts] == [code, ""]
    assert sum((part.outputs for part in parts), []) == outputs
    assert all(slides.lines_of_cell(part) <= slides.PAGE for part in parts)


def test_a_comment_is_not_a_heading(slides):
    code = "# a comment\n" + "x = 1\n" * 10
    twice = [new_code_cell(code, outputs=[printed("1\n")]) for _ in range(2)]
    _, cells = cut(slides, [new_markdown_cell("## One\n\nwords"), *twice])
    # The second cell does not fit below the first: it begins a slide, with a title above it.
    assert "class=" in cells[-2].source and cells[-1].source == code


def test_code_in_a_table_breaks_inside_long_names(slides, tmp_path):
    cell = new_markdown_cell(
        "a `b.c_d` b\n\n| h | i |\n|---|---|\n| `a.b_c` and `<\\|x\\|>` | `d` |"
    )
    path = tmp_path / "one.ipynb"
    nbformat.write(new_notebook(cells=[cell]), path)
    page = slides.export(path, tmp_path).read_text(encoding="utf-8")
    assert "<code>b.c_d</code>" in page and "<code>a.<wbr>b_<wbr>c</code>" in page
    assert "<code>&lt;|x|&gt;</code>" in page and "<code>d</code>" in page


def test_links_lead_to_slides_and_to_the_site(slides):
    text = "[a](05_backbone.ipynb) [b](../docs/glossary.md#mask) [c](#here)"
    expected = "[a](05_backbone.html) [b](../html/docs/glossary.html#mask) [c](#here)"
    assert slides.links_to_pages(text) == expected


@pytest.fixture(scope="module")
def page(slides, tmp_path_factory):
    pytest.importorskip("sphinx_revealjs", reason="slides need the extra `docs`")
    folder = tmp_path_factory.mktemp("slides")
    slides.copy_libraries(folder)
    return slides.export(NOTEBOOK, folder)


def test_a_page_names_only_files_beside_it(page):
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r'<(?:script|link)[^>]*? (?:src|href)="([^"]+)"', text))
    assert names and all((page.parent / name).is_file() for name in names)
    assert "NotImplementedError" in text


def test_slides_in_the_browser(page, open_page):
    shown = open_page(page)
    shown.wait_for_function("window.Reveal && Reveal.isReady() && window.MathJax?.startup?.promise")
    shown.evaluate("MathJax.startup.promise")
    assert shown.locator("mjx-merror").count() == 0 and shown.locator("mjx-container").count() > 20
    # What a figure shows is said to screen readers, and not printed below it.
    assert shown.locator(".jp-sr-only").first.bounding_box()["width"] <= 1
    shown.keyboard.press("ArrowRight")
    assert shown.evaluate("Reveal.getIndices().h") == 1
    heights = shown.evaluate(HEIGHTS)
    assert len(heights) > 30 and min(heights) > 0
    # What is longer than a slide can be scrolled; that is for wide tables. Here they all fit.
    assert max(heights) <= 720

"""The tables of docs/numbers.md are those of what is recorded, and are written whole."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def numbers():
    """`docs/numbers.py`, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("numbers", ROOT / "docs" / "numbers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_what_is_recorded(numbers):
    (place,) = numbers.PLACE.finditer(numbers.PAGE.read_text(encoding="utf-8"))
    assert place[2] == numbers.numbers(), "run `python docs/numbers.py`"


@pytest.fixture
def page(numbers, tmp_path, monkeypatch):
    place = tmp_path / "numbers.md"
    place.write_text("a\n<!-- numbers:begin -->\nold\n<!-- numbers:end -->\n", encoding="utf-8")
    monkeypatch.setattr(numbers, "PAGE", place)
    return place


def test_the_tables_are_written_between_the_marks(numbers, page):
    numbers.main()
    tables = numbers.numbers()
    expected = f"a\n<!-- numbers:begin -->\n{tables}<!-- numbers:end -->\n"
    assert page.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(("broken", "sentence"), [("page", "no place"), ("record", "'metrics'")])
def test_what_cannot_be_written_is_one_sentence(
    numbers, page, monkeypatch, capsys, broken, sentence
):
    if broken == "page":
        page.write_text("nothing", encoding="utf-8")
    else:
        monkeypatch.setattr(numbers.checkpoint, "read_info", lambda path: {})
    before = page.read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        numbers.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and sentence in said and said.count("\n") == 1
    assert page.read_text(encoding="utf-8") == before

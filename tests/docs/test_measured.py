"""The tables of docs/numbers.md are those of what is recorded, and are written whole."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import script

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def measured():
    """`docs/measured.py`, which is no part of the package."""
    return script("docs/measured.py")


def test_the_page_shows_what_is_recorded(measured):
    (place,) = measured.PLACE.finditer(measured.PAGE.read_text(encoding="utf-8"))
    assert place[2] == measured.numbers(), "run `python docs/measured.py`"


def test_the_script_starts():
    """Its folder comes first where Python looks for modules, so no file there may hide one."""
    command = [sys.executable, ROOT / "docs" / "measured.py", "--help"]
    assert "All measured numbers" in subprocess.run(command, capture_output=True, text=True).stdout


@pytest.fixture
def page(measured, tmp_path, monkeypatch):
    place = tmp_path / "numbers.md"
    place.write_text("a\n<!-- numbers:begin -->\nold\n<!-- numbers:end -->\n", encoding="utf-8")
    monkeypatch.setattr(measured, "PAGE", place)
    return place


def test_the_tables_are_written_between_the_marks(measured, page):
    measured.main()
    written = measured.numbers()
    expected = f"a\n<!-- numbers:begin -->\n{written}<!-- numbers:end -->\n"
    assert page.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize(("broken", "sentence"), [("page", "no place"), ("record", "'metrics'")])
def test_what_cannot_be_written_is_one_sentence(
    measured, page, monkeypatch, capsys, broken, sentence
):
    if broken == "page":
        page.write_text("nothing", encoding="utf-8")
    else:
        monkeypatch.setattr(measured.checkpoint, "read_info", lambda path: {})
    before = page.read_text(encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        measured.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and sentence in said and said.count("\n") == 1
    assert page.read_text(encoding="utf-8") == before

"""The minutes of the teaching guide are those of the notebooks."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HEAD = re.compile(r"and (\d+) for the second reading")
ROW = re.compile(r"second reading \*\*(\d+)\*\* more")


@pytest.fixture(scope="module")
def minutes():
    """`docs/minutes.py`, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("minutes", ROOT / "docs" / "minutes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_guide_shows_the_minutes_of_the_notebooks(minutes):
    shown = minutes.PLACE.search(minutes.GUIDE.read_text(encoding="utf-8"))[0]
    assert minutes.table() in shown, "run `python docs/minutes.py`"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_head_states_the_second_reading_as_the_guide_does(minutes, path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    stated, counted = HEAD.search("".join(cells[0]["source"])), ROW.search(minutes.row(path))
    if stated:
        assert abs(int(stated[1]) - int(counted[1])) <= 3
    else:
        assert not counted or int(counted[1]) <= 16, "a long second reading is stated in the head"

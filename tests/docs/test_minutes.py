"""The minutes of the teaching guide are those of the notebooks."""

import json
import re
from pathlib import Path

import pytest
from helpers import script

from minillada.course.editions import MINUTES

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
HEAD = re.compile(r"and (\d+) for the second reading")
ROW = re.compile(r"second reading \*\*(\d+)\*\* more")


@pytest.fixture(scope="module")
def minutes():
    """`docs/minutes.py`, which is no part of the package."""
    return script("docs/minutes.py")


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


def test_the_guide_adds_up_the_minutes_for_solving_exercises(minutes):
    """In week 2 and 5 they are more than the hours at home; without experiments they fit."""
    guide = minutes.GUIDE.read_text(encoding="utf-8")
    of_week = []
    for weekly in re.findall(r"^\| [1-6] \| ([\d, ]+) \|", guide, re.M):
        levels = []
        for number in weekly.split(", "):
            (path,) = (path for path in NOTEBOOKS if path.stem.startswith(number))
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            text = "\n".join("".join(cell["source"]) for cell in cells)
            levels += re.findall(r"^## Exercise \d+ \((?:an )?(\w+)\)", text, re.M)
        of_week.append(levels)
    sums = [sum(MINUTES[level] for level in levels) for levels in of_week]
    shown = f"{', '.join(map(str, sums[:-1]))} and {sums[-1]} minutes in weeks 1 to 6"
    assert shown in guide
    left = [sum(MINUTES[level] for level in of_week[i] if level != "experiment") for i in (1, 4)]
    assert f"and {left[0]} and {left[1]} minutes are left" in guide
    assert [i + 1 for i, total in enumerate(sums) if total > 200] == [2, 5]

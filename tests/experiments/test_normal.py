"""The curves that notebooks 04, 07 and 11 hold a reader's own curve against."""

from pathlib import Path

import nbformat
import pytest
from helpers import needed_cells

from minillada.experiments import normal
from minillada.experiments.results import load_result
from minillada.presets import get_preset

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def test_means_of_whole_windows():
    assert normal.means([1.0, 3.0, 5.0, 5.0, 9.0], 2) == [2.0, 5.0]


def test_five_seeds_are_stored_and_none_is_the_one_of_the_page():
    stored = load_result("normal")
    assert stored["preset"] == "mnist-cpu"
    assert len(stored["runs"]) == len(normal.SEEDS) == 5
    assert get_preset("mnist-cpu").training.seed not in normal.SEEDS


@pytest.mark.parametrize("curve", normal.CURVES)
def test_every_stored_curve_is_as_long_as_the_preset(curve):
    stored = load_result("normal")
    windows = get_preset("mnist-cpu").training.steps // stored["every"]
    assert {len(run[curve]) for run in stored["runs"].values()} == {windows}


@pytest.mark.parametrize(
    ("part", "curves", "steps"),
    [("captions", ("loss",), 300), ("painter", ("velocity", "features"), 120)],
)
def test_the_other_notebooks_have_five_seeds_too(part, curves, steps):
    runs = load_result("normal")[part]
    assert len(runs) == 5
    for run in runs.values():
        assert {name: len(run[name]) for name in curves} == dict.fromkeys(curves, steps // 10)


def test_the_small_model_of_captions_is_that_of_notebook_04():
    """The same losses, step by step: notebook 04 has the seed 0."""
    found = normal.learn_captions(None, every=1, steps=2, length=8, seed=0)["loss"]
    notebook = nbformat.read(NOTEBOOKS / "04_masked_diffusion.ipynb", as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    (training,) = [k for k, source in enumerate(sources) if "records = fit(" in source]
    sources[training] = sources[training].replace("steps=300", "steps=2").split("history =")[0]
    namespace: dict = {}
    for place in needed_cells(sources, [training]):
        exec(sources[place], namespace)
    assert [round(record["loss"], 4) for record in namespace["records"]] == found

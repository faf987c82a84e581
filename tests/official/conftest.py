"""One tiny checkpoint for all tests that only read it."""

import importlib.util

import pytest

from minillada.official.fabricate import PARTS, fabricate

HAS_DIFFUSERS = importlib.util.find_spec("diffusers") is not None


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Every part; without `diffusers` only those that can be made without it."""
    folder = tmp_path_factory.mktemp("official") / "tiny"
    fabricate(folder, parts=PARTS if HAS_DIFFUSERS else ("backbone", "image_tokenizer"))
    return folder

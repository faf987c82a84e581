"""A tiny ablation: few images, a small model, a handful of steps."""

import pytest
from helpers import real_images, use_digits

from minillada.ablation.plan import Plan

# A `mnist-cpu` that trains in a moment; it reads the shipped tokenizer.
TINY = (
    ("hidden_size", 16), ("num_hidden_layers", 1), ("intermediate_size", 16), ("head_dim", 8),
    ("batch_size", 4), ("steps", 4),
)  # fmt: skip


@pytest.fixture
def few_images(monkeypatch):
    use_digits(monkeypatch, real_images(40))


@pytest.fixture
def plan():
    """Makes a plan of the tiny `mnist-cpu`."""

    def plan(**values):
        values = {"measures": (("drawing", 20),), "passes": (9,)} | values
        return Plan(preset="mnist-cpu", fixed=TINY + values.pop("fixed", ()), **values)

    return plan

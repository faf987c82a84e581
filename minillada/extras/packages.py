"""Packages that only some commands need, loaded when they are used."""

from __future__ import annotations

import importlib
from types import ModuleType


def load_package(name: str, extra: str) -> ModuleType:
    """The module `name`. `ValueError`, with what to install, if its package is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.split(".")[0]
        raise ValueError(
            f'this needs {package}, which is not installed; run `pip install "minillada[{extra}]"`'
        ) from None

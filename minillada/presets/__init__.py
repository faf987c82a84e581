"""Every preset by name, and settings as they are typed.

A preset is data, not code: a model, a training run and what it reads.
`minillada train mnist` needs no further flags. A checkpoint stores the name of its preset, the
model and the training beside its weights.
"""

from __future__ import annotations

import json
from typing import Any

from ..config import Preset
from ..settings import as_tuples
from .cifar import CIFAR
from .mnist import MNIST
from .painters import PAINTERS
from .uni import UNI

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (*MNIST, *UNI, *CIFAR, *PAINTERS)}


def get_preset(name: str) -> Preset:
    """The preset called `name`. `ValueError` lists the known names."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(sorted(PRESETS))}")
    return PRESETS[name]


def read_settings(texts: list[str], **options: Any) -> dict[str, Any]:
    """Values by name from texts such as `steps=10` or `mask_rate=[0.1, 1.0]`; values are JSON.

    `options` are settings that have a flag of their own, such as `--steps`; None: it was not given.
    `ValueError` for a name given twice.
    """
    values = {name: value for name, value in options.items() if value is not None}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ValueError(f"a setting is written NAME=VALUE, got {text!r}")
        if name in values:
            raise ValueError(f"the setting {name} is given twice; give it once")
        try:
            values[name] = as_tuples(json.loads(value))
        except (json.JSONDecodeError, RecursionError):
            # No JSON: a word without quotation marks, for example optimizer=muon.
            values[name] = value
    return values

"""Every preset by name. A preset is data, not code: a model, a training run and what it reads.

`minillada train mnist` needs no further flags. A checkpoint stores its preset beside its weights.
"""

from __future__ import annotations

from ..config import Preset
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

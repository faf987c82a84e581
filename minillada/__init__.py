"""minillada: learn, teach and experiment with unified discrete diffusion language models.

`minillada.load("mnist")` returns a model that draws digits from captions and describes images. The
files are meant to be read in the order of the table "The package" in the README.
"""

import importlib
import os
from types import ModuleType

# Threads of OpenMP that wait for work keep their core busy for a while. Two programs on the same
# cores then take each other's time. With this number they soon sleep, and one program alone is as
# fast as before. It is read when torch is loaded: after `import torch` it changes nothing.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from .config import SamplingConfig
from .presets import PRESETS, get_preset
from .uni import Uni, best_device, load

__version__ = "0.1.0"
__all__ = ["PRESETS", "SamplingConfig", "Uni", "best_device", "get_preset", "load"]


# Imported when they are first named: few readers need them.
LATE = {"official": ".official", "pictures": ".datasets.pictures"}


def __getattr__(name: str) -> ModuleType:
    """`minillada.official.load(…)`, `minillada.pictures.read(…)`."""
    if name in LATE:
        return importlib.import_module(LATE[name], __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

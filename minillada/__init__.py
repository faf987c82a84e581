"""minillada: learn, teach and experiment with unified discrete diffusion language models.

`minillada.load("mnist")` returns a model that draws digits from captions and describes images. The
files are meant to be read in the order of the table "The package" in the README.
"""

from .config import SamplingConfig
from .presets import PRESETS, get_preset
from .uni import Uni, load

__version__ = "0.1.0"
__all__ = ["PRESETS", "SamplingConfig", "Uni", "get_preset", "load"]

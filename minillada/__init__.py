"""minillada: learn, teach and experiment with unified discrete diffusion language models.

`minillada.load("mnist")` returns a model that draws digits from captions and describes images; the modules are meant
to be read in the order the README gives: data, captions, vq, vocab, layout, masks, diffusion, model, sampler, tasks.
"""

from .config import PRESETS, SamplingConfig, get_preset
from .tasks import Uni, load

__version__ = "0.1.0"
__all__ = ["PRESETS", "SamplingConfig", "Uni", "get_preset", "load"]

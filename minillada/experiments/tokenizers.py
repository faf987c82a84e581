"""Does it matter for drawing what the image tokenizer was trained for?

Trains the `mnist-cpu` backbone once on each image tokenizer, all else equal, and measures how well
it draws. A few minutes on one core; notebook 02 shows the result. With several seeds, and intervals
over them, `minillada ablate mnist-cpu --vary tokenizer=mnist-tokenizer,mnist-tokenizer-pixels
--measure drawing:1000` asks the same.
"""

from __future__ import annotations

from ..evaluation import evaluate
from ..presets import get_preset
from ..settings import changed
from .runner import Experiment, Lab, Point, main

TOKENIZERS = {"semantic": "mnist-tokenizer", "pixels": "mnist-tokenizer-pixels"}
COMMON = {"steps": 400, "batch_size": 64, "prompts": 1000, "guidance": 3.0}


def draw(
    lab: Lab, tokenizer: str, steps: int, batch_size: int, prompts: int, guidance: float
) -> dict:
    """How often a backbone trained on this tokenizer draws what is asked."""
    settings = {"tokenizer": tokenizer, "steps": steps, "batch_size": batch_size}
    uni = lab.load(lab.train(changed(get_preset("mnist-cpu"), **settings)))
    return evaluate.evaluate_drawing(uni, lab.judge(), prompts, seed=0, guidance=guidance)


POINTS = []
for name, tokenizer in TOKENIZERS.items():
    POINTS.append(Point((name,), draw, {"tokenizer": tokenizer, **COMMON}))
EXPERIMENT = Experiment(__file__, __doc__, POINTS)

if __name__ == "__main__":
    main(EXPERIMENT)

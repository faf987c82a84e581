"""How does the short training of notebook 07 go, and how much does it differ from run to run?

Trains the preset `mnist-cpu` with five seeds and stores the means of ten steps each of its curves,
and what the finished model draws. Notebook 07 draws the band of these runs under the reader's own
curve, which has the seed 0. About a quarter of an hour on one core.
"""

from __future__ import annotations

import json
from typing import Any

from ..evaluation import evaluate
from ..measure.intervals import interval_of
from ..presets import get_preset
from ..settings import changed
from ..training.run import LOG
from .runner import Experiment, Lab, Point, main, over_seeds

PRESET, EVERY = "mnist-cpu", 10
CURVES = ("loss", "masked_nats", "grad_norm")
PROMPTS, GUIDANCE = 300, 3.0
SEEDS = range(1, 6)  # notebook 07 itself trains with the seed 0


def means(values: list[float], every: int) -> list[float]:
    """The mean of each `every` values in a row; what is left over at the end is not used."""
    starts = range(0, len(values) - every + 1, every)
    return [round(sum(values[start : start + every]) / every, 4) for start in starts]


def learn(lab: Lab, preset: str, every: int, prompts: int, guidance: float, seed: int) -> dict:
    """The curves of one training, and the share of its drawings that the judge calls right."""
    folder = lab.train(changed(get_preset(preset), seed=seed))
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    found: dict[str, Any] = {}
    for curve in CURVES:
        found[curve] = means([record[curve] for record in records], every)
    # The prompts are the same for every seed: what differs is the training.
    drawn = evaluate.evaluate_drawing(lab.load(folder), lab.judge(), prompts, 1, guidance=guidance)
    for part in ("digit", "thickness", "slant"):
        name = f"draw_{part}_accuracy"
        found |= interval_of(drawn, name).entries(name)
    return found


SETTINGS = {"preset": PRESET, "every": EVERY, "prompts": PROMPTS, "guidance": GUIDANCE}
POINTS = over_seeds(SEEDS, [Point(("runs", PRESET), learn, SETTINGS)])
EXPERIMENT = Experiment(__file__, __doc__, POINTS, {"preset": PRESET, "every": EVERY})

if __name__ == "__main__":
    main(EXPERIMENT)

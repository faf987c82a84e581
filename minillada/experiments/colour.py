"""How well does the backbone of photos draw and describe after every 1,000 steps of its training?

Trains `cifar` (an hour and a half on one core), with codes of moved and mirrored images, and
measures every snapshot.
"""

from __future__ import annotations

from ..datasets.table import CIFAR10
from ..evaluation.evaluate import evaluate_describing, evaluate_drawing
from ..extras.merging import snapshot_path
from ..measure.judge import Judge
from ..presets import get_preset
from ..settings import changed
from .runner import Experiment, Lab, Point, main

STEPS, EVERY = 7000, 1000
PROMPTS, IMAGES = 50, 200
DRAWING = {"steps": 12, "guidance": 10.0, "strategy": "random"}


def measure(lab: Lab, steps: int, prompts: int, images: int) -> dict:
    """Draw balanced prompts and describe the first test images with one snapshot."""
    preset = changed(get_preset("cifar"), steps=STEPS, fresh_codes=True)
    folder = lab.train(preset, "cifar", snapshot_every=EVERY)
    uni = lab.load(snapshot_path(folder, steps))
    judge, test = lab.module(CIFAR10.judge, Judge), CIFAR10.load("test")
    chosen = slice(0, images)
    drawn = evaluate_drawing(uni, judge, prompts, 0, CIFAR10, **DRAWING)
    described = evaluate_describing(uni, test.floats(chosen), test.labels[chosen], CIFAR10)
    return drawn | described


def point(steps: int) -> Point:
    settings = {"steps": steps, "prompts": PROMPTS, "images": IMAGES}
    return Point(("snapshots", f"{steps} steps"), measure, settings)


FACTS = {"steps": STEPS, "prompts": PROMPTS, "images": IMAGES, "drawing": DRAWING}
POINTS = [point(steps) for steps in range(EVERY, STEPS + 1, EVERY)]
EXPERIMENT = Experiment(__file__, __doc__, POINTS, FACTS)

if __name__ == "__main__":
    main(EXPERIMENT)

"""How well does a backbone of photos draw, describe and edit after every 1,000 steps?

- `snapshots`: the training of `cifar` (two hours on one core), with codes of moved and mirrored
  images.
- `two rounds`: RoPE turns all numbers, with base 100, and a short first round of mostly exact
  edits comes before a training on every task with more edits than `cifar` has. Its weights are not
  shipped.
"""

from __future__ import annotations

from pathlib import Path

from ..datasets.table import CIFAR10
from ..evaluation.evaluate import evaluate_describing, evaluate_drawing, evaluate_editing
from ..extras.merging import snapshot_path
from ..measure.judge import Judge
from ..presets import get_preset
from ..settings import changed
from .runner import Experiment, Lab, Point, main

STEPS, EVERY = 7000, 1000
PROMPTS, IMAGES = 50, 200
DRAWING = {"steps": 12, "guidance": 10.0, "strategy": "random"}

# The two rounds.
COPYING_STEPS, SECOND_STEPS, EDITS = 400, 6000, 60
TURNING = {"rope_theta": 100.0, "partial_rotary_factor": 1.0}
COPYING = (("draw", 1.0), ("edit_operation", 2.0))
EVERYTHING = (
    ("draw", 4.2), ("describe", 3.2), ("label", 1.0), ("brightness", 0.15), ("colour", 0.25),
    ("kind", 0.15), ("brighter", 0.1), ("edit_operation", 2.4), ("edit_label", 0.7),
)  # fmt: skip
EDITING = {"steps": 8, "guidance": 6.0, "strategy": "random", "temperature": 0.7}


def draw_and_describe(lab: Lab, path: Path, prompts: int, images: int) -> dict:
    """Draw balanced prompts, and describe the first test images."""
    uni, judge, test = lab.load(path), lab.module(CIFAR10.judge, Judge), CIFAR10.load("test")
    chosen = slice(0, images)
    drawn = evaluate_drawing(uni, judge, prompts, 0, CIFAR10, **DRAWING)
    described = evaluate_describing(uni, test.floats(chosen), test.labels[chosen], CIFAR10)
    return drawn | described


def measure(lab: Lab, steps: int, prompts: int, images: int) -> dict:
    """One snapshot of the training of `cifar`."""
    preset = changed(get_preset("cifar"), steps=STEPS, fresh_codes=True)
    folder = lab.train(preset, "cifar", snapshot_every=EVERY)
    return draw_and_describe(lab, snapshot_path(folder, steps), prompts, images)


def measure_two(lab: Lab, steps: int, prompts: int, images: int, edits: int) -> dict:
    """One snapshot of the second round. It is asked to edit, too."""
    plain = changed(get_preset("cifar"), **TURNING)
    first = lab.train(changed(plain, steps=COPYING_STEPS, mixture=COPYING), "first")
    preset = changed(plain, steps=SECOND_STEPS, mixture=EVERYTHING, fresh_codes=True)
    folder = lab.train(preset, "second", start=str(first), snapshot_every=EVERY)
    path = snapshot_path(folder, steps)
    uni, judge = lab.load(path), lab.module(CIFAR10.judge, Judge)
    uni.info["editing"] = EDITING
    edited = evaluate_editing(uni, judge, edits, 0, CIFAR10)
    return draw_and_describe(lab, path, prompts, images) | edited


def point(steps: int) -> Point:
    settings = {"steps": steps, "prompts": PROMPTS, "images": IMAGES}
    return Point(("snapshots", f"{steps} steps"), measure, settings)


def point_of_two(steps: int) -> Point:
    settings = {"steps": steps, "prompts": PROMPTS, "images": IMAGES, "edits": EDITS}
    return Point(("two rounds", f"{steps} steps"), measure_two, settings)


FACTS = {"steps": STEPS, "prompts": PROMPTS, "images": IMAGES, "drawing": DRAWING}
POINTS = [point(steps) for steps in range(EVERY, STEPS + 1, EVERY)]
POINTS += [point_of_two(steps) for steps in range(EVERY, SECOND_STEPS + 1, EVERY)]
EXPERIMENT = Experiment(__file__, __doc__, POINTS, FACTS)

if __name__ == "__main__":
    main(EXPERIMENT)

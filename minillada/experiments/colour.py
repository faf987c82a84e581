"""How well does the backbone of photos draw, describe and edit while it is trained?

- `first round`: the preset `cifar` on a GPU. The shipped weights are those after 1,400 of its 2,000
  steps, the last ones that were saved before the time on the GPU was over.
- `second round`: 1,200 smaller steps from there on a CPU, with a learning rate that falls to
  a fiftieth. Its weights are not shipped.
"""

from __future__ import annotations

from ..config import Preset
from ..datasets.table import CIFAR10
from ..evaluation.evaluate import evaluate_describing, evaluate_drawing, evaluate_editing
from ..extras.merging import snapshot_path
from ..measure.judge import Judge
from ..presets import get_preset
from ..settings import changed
from .runner import Experiment, Lab, Point, main

STOPPED, EVERY = 1400, 200
PROMPTS, IMAGES, EDITS = 100, 500, 60
DRAWING = {"steps": 12, "guidance": 5.0, "strategy": "random"}
EDITING = {"steps": 8, "guidance": 2.0, "strategy": "random"}


def second() -> Preset:
    """The second round: batches an eighth as large."""
    return changed(
        get_preset("cifar"), steps=1200, batch_size=64, learning_rate=5e-4, warmup_steps=20, seed=1,
        fresh_codes=True, moves=0, workers=0,
    )  # fmt: skip


def measure(
    lab: Lab, steps: int, again: int, prompts: int, images: int, edits: int
) -> dict[str, object]:
    """The model after `steps` of the first round and, if not 0, `again` of the second."""
    folder = lab.train(get_preset("cifar"), "first", snapshot_every=EVERY)
    if again:
        start = str(snapshot_path(folder, STOPPED))
        folder = lab.train(second(), "second", start=start, snapshot_every=EVERY)
    uni = lab.load(snapshot_path(folder, again or steps))
    judge, test = lab.module(CIFAR10.judge, Judge), CIFAR10.load("test")
    chosen = slice(0, images)
    drawn = evaluate_drawing(uni, judge, prompts, 0, CIFAR10, **DRAWING)
    described = evaluate_describing(uni, test.floats(chosen), test.labels[chosen], CIFAR10)
    uni.info["editing"] = EDITING
    return drawn | described | evaluate_editing(uni, judge, edits, 0, CIFAR10)


def point(part: str, steps: int, again: int = 0) -> Point:
    settings = {
        "steps": steps, "again": again, "prompts": PROMPTS, "images": IMAGES, "edits": EDITS
    }  # fmt: skip
    return Point((part, f"{again or steps} steps"), measure, settings)


FACTS = {
    "prompts": PROMPTS, "images": IMAGES, "edits": EDITS, "drawing": DRAWING, "editing": EDITING
}  # fmt: skip
POINTS = [point("first round", steps) for steps in (1200, STOPPED)]
POINTS += [point("second round", STOPPED, again) for again in (400, 800, 1200)]
EXPERIMENT = Experiment(__file__, __doc__, POINTS, FACTS)

if __name__ == "__main__":
    main(EXPERIMENT)

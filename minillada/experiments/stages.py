"""When is each task learned? Every task through the stages of `mnist-uni`, all but the last.

Trains the stages as data/README.md does, keeps the weights every 1,000 steps and marks them. Some
hours on one core; notebook 10 shows the result.
"""

from __future__ import annotations

from pathlib import Path

from ..evaluation import suite
from ..extras import merging
from ..presets import get_preset
from ..settings import changed
from .runner import Experiment, Lab, Point, main
from .sizes import accuracies

EVERY, SAMPLES = 1000, 60
STAGES = (
    "mnist-uni-multitask",
    "mnist-uni-instruct",
    "mnist-uni-reason",
    "mnist-uni-style",
    "mnist-uni-drills",
)


def train_stage(lab: Lab, stage: str) -> Path:
    """The run of a stage. It starts from the stage before, and the first from `mnist`."""
    number = STAGES.index(stage)
    start = str(train_stage(lab, STAGES[number - 1])) if number else "mnist"
    preset = changed(get_preset(stage), bfloat16=True)
    return lab.train(preset, stage, start=start, snapshot_every=EVERY)


def measure(lab: Lab, stage: str, step: int, samples: int) -> dict[str, float]:
    """The share of right answers of every task after `step` steps of a stage."""
    run = train_stage(lab, stage)
    last = step == get_preset(stage).training.steps
    uni = lab.load(run if last else merging.snapshot_path(run, step))
    return accuracies(lab, uni, suite.unseen_pool(), samples)


POINTS = []
for stage in STAGES:
    end = get_preset(stage).training.steps
    # after every so many steps, and after the last
    for step in (*range(EVERY, end, EVERY), end):
        settings = {"stage": stage, "step": step, "samples": SAMPLES}
        POINTS.append(Point(("stages", stage, str(step)), measure, settings))
EXPERIMENT = Experiment(__file__, __doc__, POINTS, {"samples": SAMPLES})

if __name__ == "__main__":
    main(EXPERIMENT)

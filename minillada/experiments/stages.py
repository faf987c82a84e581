"""Follow every task through the stages of `mnist-uni`, and store the curves in `data/weights/stages.json`.

`python tests/compare_stages.py` trains the stages as data/README.md does, keeps the weights every 1,000 steps and lets `suite` mark
them. It takes some hours on one core and may be interrupted: what lies in `runs/stages` is not trained again,
what the file holds is not measured again. Name a stage to follow only that one. Notebook 09 shows the result.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .. import checkpoint
from ..evaluation import suite
from ..files import RESULTS_DIR, atomic
from ..measure.judge import load_judge
from ..presets import get_preset
from ..settings import changed
from ..tasks.table import TRAINED
from ..training import train
from ..training.run import Run
from ..uni import load

EVERY, SAMPLES, FOLDER, RESULT = 1000, 60, Path("runs/stages"), RESULTS_DIR / "stages.json"


# preset -> weights it starts from
STAGES = {
    "mnist-uni-multitask": "mnist",
    "mnist-uni-instruct": str(FOLDER / "mnist-uni-multitask"),
    "mnist-uni-reason": str(FOLDER / "mnist-uni-instruct"),
    "mnist-uni-style": str(FOLDER / "mnist-uni-reason"),
    "mnist-uni": str(FOLDER / "mnist-uni-style"),
}


def trained(name: str) -> dict[int, Path]:
    """Weights after every so many steps of a stage, and after the last; it is trained if its folder does not hold them yet."""
    preset, run = get_preset(name), FOLDER / name
    preset = changed(preset, bfloat16=True)
    if not (run / "weights.safetensors").exists():
        train.train(preset, Run(run, resume=True, snapshot_every=EVERY), start=STAGES[name])
    steps = preset.training.steps
    return {step: checkpoint.snapshot_path(run, step) for step in range(EVERY, steps, EVERY)} | {steps: run / "weights.safetensors"}


if __name__ == "__main__":
    judge = load_judge()
    pool = suite.unseen_pool()
    report = json.loads(RESULT.read_text()) if RESULT.exists() else {"samples": SAMPLES, "stages": {}}
    for name in sys.argv[1:] or STAGES:
        curve = report["stages"].setdefault(name, {})
        for step, path in trained(name).items():
            if str(step) not in curve:
                marked = suite.run(load(path), judge, pool, SAMPLES, tasks=[task for task in TRAINED if task in suite.SUITE])
                curve[str(step)] = {score: value["accuracy"] for score, value in suite.scores(marked).items()}
                print(name, step, curve[str(step)], flush=True)
                with atomic(RESULT) as temporary:
                    temporary.write_text(json.dumps(report, indent=2) + "\n")

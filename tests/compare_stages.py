"""Follow every task through the stages of `mnist-uni`, and store the curves in `data/weights/stages.json`.

`python tests/compare_stages.py` trains the stages as data/README.md does, stops every 1,000 steps and lets `suite` mark the
model. It takes some hours on one core and may be interrupted: what lies in `runs/stages` is not trained again,
what the file holds is not measured again. Name a stage to follow only that one. Notebook 09 shows the result.
"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from minillada import checkpoint, data, examples, suite, tasks, train
from minillada.config import get_preset

EVERY, SAMPLES, FOLDER, RESULT = 1000, 60, Path("runs/stages"), data.WEIGHTS_DIR / "stages.json"
# preset -> weights it starts from
STAGES = {
    "mnist-uni-multitask": "mnist",
    "mnist-uni-instruct": str(FOLDER / "mnist-uni-multitask"),
    "mnist-uni": str(FOLDER / "mnist-uni-instruct"),
}


def stops(name: str) -> list[int]:
    """The steps of a stage after which the model is marked."""
    steps = get_preset(name).training.steps
    return [*range(EVERY, steps, EVERY), steps]


def state(name: str, step: int) -> Path:
    """The training state of a stage after a step, trained up to there if it is not kept yet."""
    path, run = FOLDER / f"{name}-{step}.safetensors", FOLDER / name
    if not path.exists():
        preset = get_preset(name)
        preset = replace(preset, training=replace(preset.training, bfloat16=True))
        train.train(preset, run, resume=step > EVERY, stop_after=step, start=STAGES[name])
        shutil.copyfile(run / "state.safetensors", path)
    return path


def load(name: str, path: Path) -> tasks.Uni:
    """The model in a training state."""
    preset = get_preset(name)
    tokenizer, _ = checkpoint.load_model(preset.tokenizer, "tokenizer")
    backbone = train.new_model(preset, "cpu")
    tensors = {k.removeprefix("model."): v for k, v in checkpoint.read_tensors(path)[0].items() if k.startswith("model.")}
    checkpoint.load_tensors(backbone, tensors, path)
    return tasks.Uni(backbone, tokenizer, train.load_vocabulary(tokenizer.config.codebook_size, preset.text)).eval()


if __name__ == "__main__":
    judge, _ = checkpoint.load_model("mnist-judge", "judge")
    pool = suite.test_pool()
    report = json.loads(RESULT.read_text()) if RESULT.exists() else {"samples": SAMPLES, "stages": {}}
    for name in sys.argv[1:] or STAGES:
        curve = report["stages"].setdefault(name, {})
        for step in stops(name):
            uni = load(name, state(name, step))
            if str(step) not in curve:
                marked = suite.run(uni, judge, pool, SAMPLES, tasks=[task for task in examples.TASKS if task in suite.SUITE])
                curve[str(step)] = {score: value["accuracy"] for score, value in suite.scores(marked).items()}
                print(name, step, curve[str(step)], flush=True)
                with checkpoint.atomic(RESULT) as temporary:
                    temporary.write_text(json.dumps(report, indent=2) + "\n")

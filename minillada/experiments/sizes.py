"""Train models of four sizes on every task, equally long, and store how well they do in `data/weights/sizes.json`.

`python tests/compare_sizes.py` trains each from nothing on the mixture of `mnist-uni-style` and marks it. It takes about an hour and a half
on one core and may be interrupted: finished runs in `runs/sizes` are not trained again. Notebook 09 shows the result.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from .. import diffusion
from ..datasets.pool import Pool
from ..evaluation import suite
from ..files import RESULTS_DIR, atomic
from ..measure.judge import load_judge
from ..presets import get_preset
from ..settings import changed
from ..tasks.base import Picture, make_examples
from ..tasks.table import TASKS, TRAINED
from ..training import train
from ..training.loop import step_generator
from ..training.run import Run
from ..training.stream import encode_pictures, write_example
from ..uni import Uni, load

STEPS, SAMPLES, ROWS, DRAWS = 1500, 300, 64, 4


FOLDER, RESULT = Path("runs/sizes"), RESULTS_DIR / "sizes.json"


# Widths and depths that grow together, as is usual; 160 x 5 is the shipped size.
SIZES = {
    f"{width} x {layers}": dict(hidden_size=width, num_hidden_layers=layers, intermediate_size=inner)
    for width, layers, inner in ((64, 3, 176), (96, 4, 272), (160, 5, 448), (224, 6, 640))
}


def trained(changes: dict, run: Path) -> Uni:
    preset = get_preset("mnist-uni-style")
    settings = changed(preset.training, steps=STEPS, bfloat16=True)
    preset = changed(preset, model=changed(preset.model, **changes), training=settings)
    if not (run / "weights.safetensors").exists():
        train.train(preset, Run(run, resume=True))
    return load(run)


@torch.no_grad()
def nats(uni: Uni, pool: Pool, task: str) -> float:
    """Mean nats of a masked token of the response, on test images, over mask rates as in training."""
    chosen = make_examples(TASKS[task].make, pool, ROWS, seed=0)
    pictures = [part for example in chosen for part in example.user + example.response if isinstance(part, Picture)]
    codes = encode_pictures(uni.tokenizer, pool.images, pictures, None)
    total, config = 0.0, get_preset("mnist-uni-style").training
    for draw in range(DRAWS):
        for batch in train.layout.by_shape([write_example(uni.vocab, example, codes) for example in chosen], uni.vocab, 16):
            _, metrics = diffusion.block_diffusion_loss(
                uni.backbone, batch, uni.vocab, 16, changed(config.loss, objective="uniform"), step_generator(1, draw)
            )
            total += metrics["masked_nats"] * len(batch.ids) / ROWS / DRAWS
    return total


if __name__ == "__main__":
    judge = load_judge()
    pool = suite.unseen_pool()
    report = {"steps": STEPS, "samples": SAMPLES, "sizes": {}}
    for name, changes in SIZES.items():
        uni = trained(changes, FOLDER / name.replace(" ", ""))
        marked = suite.run(uni, judge, pool, SAMPLES, tasks=[task for task in TRAINED if task in suite.SUITE])
        report["sizes"][name] = {
            "parameters": uni.info["parameters"],
            "seconds": uni.info["seconds"],
            "nats": {task: nats(uni, pool, task) for task in TRAINED},
            "accuracy": {score: value["accuracy"] for score, value in suite.scores(marked).items()},
        }
        print(name, report["sizes"][name], flush=True)
        with atomic(RESULT) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")

"""What does a larger model of every task do better, trained equally long?

Trains four sizes from nothing on the mixture of `mnist-uni-style` and marks them. About an hour and
a half on one core; notebook 10 shows the result.
"""

from __future__ import annotations

import torch

from .. import batching, diffusion
from ..datasets.pool import Pool
from ..evaluation import suite
from ..presets import get_preset
from ..settings import changed
from ..tasks.base import Picture, make_examples
from ..tasks.table import TASKS, TRAINED
from ..training.loop import step_generator
from ..training.stream import encode_pictures, write_example
from ..uni import Uni
from .runner import Experiment, Lab, Point, main

STEPS, SAMPLES = 1500, 300
ROWS, SAMPLED_MASKS = 64, 4  # of which nats are the mean
# Width, layers and inner width grow together, as is usual. 160 x 5 is the shipped size.
SIZES = ((64, 3, 176), (96, 4, 272), (160, 5, 448), (224, 6, 640))


@torch.no_grad()
def nats(uni: Uni, pool: Pool, task: str) -> float:
    """Mean nats of a masked token of the response, on test images, at the rates of training."""
    examples = make_examples(TASKS[task].make, pool, ROWS, seed=0)
    parts = [part for example in examples for part in example.user + example.response]
    pictures = [part for part in parts if isinstance(part, Picture)]
    codes = encode_pictures(uni.tokenizer, pool.images, pictures, generator=None)  # not moved
    sequences = [write_example(uni.vocab, example, codes) for example in examples]
    objective = changed(get_preset("mnist-uni-style").training.loss, objective="uniform")
    total = 0.0  # nats of a masked token, summed over rows
    for number in range(SAMPLED_MASKS):
        for batch in batching.by_shape(sequences, uni.vocab, 16):
            generator = step_generator(1, number)
            _, metrics = diffusion.block_diffusion_loss(
                uni.backbone, batch, uni.vocab, 16, objective, generator
            )
            total += metrics["masked_nats"] * len(batch.ids)
    return total / ROWS / SAMPLED_MASKS


def accuracies(lab: Lab, uni: Uni, pool: Pool, samples: int) -> dict[str, float]:
    """The share of right answers of every trained task that is marked."""
    tasks = [task for task in TRAINED if task in suite.SUITE]
    marked = suite.run(uni, lab.judge(), pool, samples, tasks=tasks)
    return {score: value["accuracy"] for score, value in suite.scores(marked).items()}


def measure(lab: Lab, hidden_size: int, layers: int, inner: int, steps: int, samples: int) -> dict:
    """Train one size; its cost, nats of every task and the share of right answers."""
    preset = changed(
        get_preset("mnist-uni-style"),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        intermediate_size=inner,
        steps=steps,
        bfloat16=True,
    )
    uni, pool = lab.load(lab.train(preset)), suite.unseen_pool()
    return {
        "parameters": uni.info["parameters"],
        "seconds": uni.info["seconds"],
        "nats": {task: nats(uni, pool, task) for task in TRAINED},
        "accuracy": accuracies(lab, uni, pool, samples),
    }


def point(hidden_size: int, layers: int, inner: int) -> Point:
    size = {"hidden_size": hidden_size, "layers": layers, "inner": inner}
    settings = {**size, "steps": STEPS, "samples": SAMPLES}
    return Point(("sizes", f"{hidden_size} x {layers}"), measure, settings)


FACTS = {"steps": STEPS, "samples": SAMPLES}
EXPERIMENT = Experiment(__file__, __doc__, [point(*size) for size in SIZES], FACTS)

if __name__ == "__main__":
    main(EXPERIMENT)

"""Does a model draw what is asked more often, once it was told which of its drawings are right?

A model draws every caption many times, without guidance. Pairs of one caption, a drawing that shows
all that is asked and one that does not, train a copy of it by DPO (`extras/preference.py`). For
comparison, another copy is trained as usual on the right drawings of the same pairs. `told` does it
with digits, `photos` with photos, each with three seeds. Besides what is drawn, it is measured how
varied the drawings are, and whether the model still describes and edits.

The classifier that chooses the pairs is not the judge that marks the result: who only learned to
please the first would gain less by the second. About 30 minutes on one core; docs/log.md shows the
result.
"""

from __future__ import annotations

import copy
from random import Random
from typing import Any

import torch
from torch import Tensor

from .. import batching, layout
from ..config import ObjectiveConfig, TrainingConfig
from ..datasets.table import MNIST, data_set_of
from ..diffusion import block_diffusion_loss
from ..evaluation import evaluate
from ..extras.preference import preference_loss
from ..measure.judge import Judge
from ..settings import changed
from ..training.loop import batch_indices, fit, step_generator
from ..uni import Uni
from .block_size import bits_on_test
from .runner import Experiment, Lab, Point, main, over_seeds

SEEDS = (0, 1, 2)
MARKED = {"prompts": 1000, "images": 300}
PHOTOS = {**MARKED, "model": "cifar"}
STEPS, BATCH, RATE = 200, 16, 1e-4  # BATCH: pairs of a step
PAIRS_SEED = 1_000_000  # from here on, so that what is marked is drawn with other random numbers

Pair = tuple[str, Tensor, Tensor]  # a caption, the codes [h, w] of the better and the worse drawing


@torch.no_grad()
def find_pairs(uni: Uni, teacher: Judge, tries: int, seed: int) -> list[Pair]:
    """`tries` drawings of each caption; each right one beside a wrong one, while there are both."""
    data = data_set_of(uni.info)
    captions = data.grammar.all_captions()
    asked = [caption for caption in captions for _ in range(tries)]
    drawn = uni.draw_traced(asked, seed=PAIRS_SEED + seed * len(asked), guidance=1.0)
    classes = data.classes(drawn.images, teacher.classify(drawn.images))  # [N, columns]
    # For each drawing the number of the caption that would be true of it.
    shown = data.grammar.index(classes).view(-1, tries)
    codes = drawn.codes.unflatten(0, (-1, tries))
    pairs = []
    for number, caption in enumerate(captions):
        right = shown[number] == number
        for better, worse in zip(codes[number, right], codes[number, ~right]):
            pairs.append((caption, better, worse))
    Random(seed).shuffle(pairs)
    return pairs


def train(uni: Uni, pairs: list[Pair], by_dpo: bool, steps: int, seed: int) -> list[float]:
    """Train the backbone of `uni` in place, by DPO or on the better drawings; the losses."""
    backbone, frozen = uni.backbone, copy.deepcopy(uni.backbone)
    block, objective = backbone.config.block_size, ObjectiveConfig()

    def batch(captions: tuple[str, ...], codes: tuple[Tensor, ...]) -> batching.Batch:
        rows = [layout.draw_sequence(uni.vocab, *row) for row in zip(captions, codes)]
        return batching.collate(rows, uni.vocab, block)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        source = step_generator(seed, step)
        chosen = [pairs[i] for i in batch_indices(len(pairs), BATCH, step, seed)]
        captions, better, worse = zip(*chosen)
        right = batch(captions, better)
        if not by_dpo:
            return block_diffusion_loss(backbone, right, uni.vocab, block, objective, source)
        both = right, batch(captions, worse)
        return preference_loss(backbone, frozen, *both, uni.vocab.mask_id, source), {}

    config = changed(TrainingConfig(), steps=steps, learning_rate=RATE, warmup_steps=10)
    return [record["loss"] for record in fit(backbone, loss, config)]


def measured(lab: Lab, uni: Uni, prompts: int, images: int) -> dict[str, Any]:
    """What is drawn without guidance and with the usual one, and what the model does besides."""
    data = data_set_of(uni.info)
    judge, test = lab.module(data.judge, Judge), data.load("test")
    report: dict[str, Any] = {}
    if data is MNIST:
        report = bits_on_test(uni, uni.backbone.config.block_size, images, samples=4)
    else:
        report = evaluate.evaluate_editing(uni, judge, images, 0, data)
    described = test.floats(slice(0, images)), test.labels[:images]
    report |= evaluate.evaluate_describing(uni, *described, data)
    for name, settings in (("alone", {"guidance": 1.0}), ("guided", {})):
        report[name] = evaluate.evaluate_drawing(uni, judge, prompts, 0, data, **settings)
        report[name] |= evaluate.evaluate_variety(uni, judge, test, prompts, 0, data, **settings)
    return report


def before(lab: Lab, prompts: int, images: int, model: str = "mnist") -> dict[str, Any]:
    """The shipped model."""
    return measured(lab, lab.load(model), prompts, images)


def told(
    lab: Lab,
    by_dpo: bool,
    steps: int,
    tries: int,
    prompts: int,
    images: int,
    seed: int,
    model: str = "mnist",
) -> dict[str, Any]:
    """A copy that was told, in one of the two ways."""
    uni = lab.load(model)
    pairs = find_pairs(uni, lab.module(f"{model}-features", Judge), tries, seed)
    losses = train(uni, pairs, by_dpo, steps, seed)
    last = sum(losses[-20:]) / len(losses[-20:])
    report = measured(lab, uni, prompts, images)
    return {"pairs": len(pairs), "first_loss": losses[0], "last_loss": last, **report}


WAYS = {"DPO": True, "on the right drawings": False}
POINTS = [Point(("before",), before, MARKED), Point(("photos", "before"), before, PHOTOS)]
TOLD, PHOTOS_TOLD = [], []
for name, way in WAYS.items():
    TOLD.append(Point(("told", name), told, {"by_dpo": way, "steps": STEPS, "tries": 32, **MARKED}))
    photos = {"by_dpo": way, "steps": 120, "tries": 32, **PHOTOS}
    PHOTOS_TOLD.append(Point(("photos", name), told, photos))
POINTS += over_seeds(SEEDS, TOLD) + over_seeds(SEEDS, PHOTOS_TOLD)
EXPERIMENT = Experiment(__file__, __doc__, POINTS, {"steps": STEPS, "batch": BATCH, "rate": RATE})

if __name__ == "__main__":
    main(EXPERIMENT)

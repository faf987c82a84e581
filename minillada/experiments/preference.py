"""Does a model draw what is asked more often, once it was told which of its drawings are right?

A model draws every caption many times, without guidance. Pairs of one caption, a drawing that shows
all that is asked and one that does not, train a copy of it by DPO (`extras/preference.py`). For
comparison, another copy is trained as usual on the right drawings of the same pairs. `told` does it
with digits, `photos` with photos, three seeds each. A third copy, with digits only, goes on drawing
while it learns: a drawing is rewarded with 1 if it is right (`by_reward`). Besides what is drawn,
it is measured how varied the drawings are, and whether the model still describes and edits.

A preference need not be about right and wrong. In `taste`, of two drawings of "a seven" the thicker
one is the better one: how soon is that learned, and is "a thin seven" still thin then? In `both`,
pairs about thin digits say that there the thinner one is better.

The classifier that chooses the pairs is not the judge that marks the result: who only learned to
please the first would gain less by the second. About four hours on one core; docs/log.md shows the
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
from ..datasets import captions
from ..datasets.table import MNIST, data_set_of
from ..diffusion import block_diffusion_loss, sample_view
from ..evaluation import evaluate
from ..extras.preference import bound, preference_loss
from ..measure.intervals import fraction
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
TRAINING = changed(TrainingConfig(), learning_rate=RATE, warmup_steps=10)
BETA = 0.1  # as in LLaDA2.0
TASTED = 24  # drawings of a caption that show whether the taste was learned
PAIRS_SEED = 1_000_000  # from here on, so that what is marked is drawn with other random numbers

Pair = tuple[str, Tensor, Tensor]  # a caption, the codes [h, w] of the better and the worse drawing


@torch.no_grad()
def find_pairs(uni: Uni, teacher: Judge, tries: int, seed: int) -> list[Pair]:
    """`tries` drawings of each caption; each right one beside a wrong one, while there are both."""
    data = data_set_of(uni.info)
    texts = data.grammar.all_captions()
    asked = [text for text in texts for _ in range(tries)]
    drawn = uni.draw_traced(asked, seed=PAIRS_SEED + seed * len(asked), guidance=1.0)
    classes = data.classes(drawn.images, teacher.classify(drawn.images))  # [N, columns]
    # For each drawing the number of the caption that would be true of it.
    shown = data.grammar.index(classes).view(-1, tries)
    codes = drawn.codes.unflatten(0, (-1, tries))
    pairs = []
    for number, text in enumerate(texts):
        right = shown[number] == number
        for better, worse in zip(codes[number, right], codes[number, ~right]):
            pairs.append((text, better, worse))
    Random(seed).shuffle(pairs)
    return pairs


def stroke_pairs(uni: Uni, tries: int, seed: int, thin: bool = False) -> list[Pair]:
    """Of `tries` drawings of a digit the thickest beside the thinnest, and so on to the middle.

    The thicker one is better. If digits are asked to be `thin`, it is worse.
    """
    texts = [captions.caption(digit, 0 if thin else None) for digit in range(10)]
    asked = [text for text in texts for _ in range(tries)]
    drawn = uni.draw_traced(asked, seed=PAIRS_SEED + seed * len(asked), guidance=1.0)
    order = captions.stroke_width(drawn.images).view(-1, tries).argsort(1)  # thin to thick
    codes = drawn.codes.unflatten(0, (-1, tries))
    pairs = []
    for number, text in enumerate(texts):
        for low, high in zip(order[number, : tries // 2], order[number].flip(0)):
            better, worse = (low, high) if thin else (high, low)
            pairs.append((text, codes[number, better], codes[number, worse]))
    Random(seed).shuffle(pairs)
    return pairs


def train(
    uni: Uni, pairs: list[Pair], by_dpo: bool, steps: int, seed: int, beta: float = BETA
) -> list[float]:
    """Train the backbone of `uni` in place, by DPO or on the better drawings; the losses."""
    backbone, frozen = uni.backbone, copy.deepcopy(uni.backbone)
    block, objective = backbone.config.block_size, ObjectiveConfig()

    def batch(texts: tuple[str, ...], codes: tuple[Tensor, ...]) -> batching.Batch:
        rows = [layout.draw_sequence(uni.vocab, *row) for row in zip(texts, codes)]
        return batching.collate(rows, uni.vocab, block)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        source = step_generator(seed, step)
        chosen = [pairs[i] for i in batch_indices(len(pairs), BATCH, step, seed)]
        texts, better, worse = zip(*chosen)
        right = batch(texts, better)
        if not by_dpo:
            return block_diffusion_loss(backbone, right, uni.vocab, block, objective, source)
        both = right, batch(texts, worse)
        return preference_loss(backbone, frozen, *both, uni.vocab.mask_id, source, beta), {}

    return [record["loss"] for record in fit(backbone, loss, changed(TRAINING, steps=steps))]


def by_reward(uni: Uni, teacher: Judge, group: int, steps: int, seed: int) -> list[float]:
    """Train the backbone of `uni` in place by policy gradient; the mean rewards of the steps.

    A step draws a few captions `group` times. The advantage of a drawing is its reward minus the
    mean of its group, as in GRPO (arXiv 2402.03300) without the division by the deviation. The loss
    is −advantage · bound: the gradient of the bound stands for that of log p. Each drawing is used
    once, so there is no ratio to clip; and there is no reference.
    """
    data, backbone = data_set_of(uni.info), uni.backbone
    texts, block = data.grammar.all_captions(), backbone.config.block_size

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        # 1. drawings, and which of them show what was asked
        chosen = batch_indices(len(texts), 2 * BATCH // group, step, seed)
        numbers = [number for number in chosen for _ in range(group)]
        first = PAIRS_SEED + (seed * steps + step) * len(numbers)
        drawn = uni.draw_traced([texts[n] for n in numbers], seed=first, guidance=1.0)
        classes = data.classes(drawn.images, teacher.classify(drawn.images))
        reward = (data.grammar.index(classes) == torch.tensor(numbers)).float()  # [N]
        advantage = reward.view(-1, group) - reward.view(-1, group).mean(1, keepdim=True)
        # 2. right ones become more probable, wrong ones of the same caption less
        rows = [layout.draw_sequence(uni.vocab, texts[n], c) for n, c in zip(numbers, drawn.codes)]
        batch = batching.collate(rows, uni.vocab, block)
        source, mask = step_generator(seed, step), uni.vocab.mask_id
        bounds = bound(backbone, batch, sample_view(batch, block, mask, ObjectiveConfig(), source))
        return -(advantage.flatten() * bounds).mean(), {"reward": float(reward.mean())}

    return [record["reward"] for record in fit(backbone, loss, changed(TRAINING, steps=steps))]


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


def rewarded(
    lab: Lab, group: int, steps: int, prompts: int, images: int, seed: int
) -> dict[str, Any]:
    """A copy that was rewarded for right drawings."""
    uni = lab.load("mnist")
    rewards = by_reward(uni, lab.module("mnist-features", Judge), group, steps, seed)
    first, last = (sum(part) / len(part) for part in (rewards[:20], rewards[-20:]))
    return {"first_reward": first, "last_reward": last, **measured(lab, uni, prompts, images)}


def strokes(lab: Lab, uni: Uni) -> dict[str, Any]:
    """How often drawings are thick if the caption leaves it open, and if it asks for thin ones."""
    judge, report = lab.module(MNIST.judge, Judge), {}
    digits = torch.arange(10).repeat_interleave(TASTED)
    for name, thickness in (("open", None), ("thin", 0)):
        texts = [captions.caption(digit, thickness) for digit in digits.tolist()]
        for way, guidance in (("alone", 1.0), ("guided", 2.0)):
            drawn = uni.draw(texts, seed=0, guidance=guidance)
            widths = captions.stroke_width(drawn)
            thick = widths >= captions.THICKNESS_EDGE
            report[f"{name}, {way}"] = {
                **fraction("thick", thick),
                **fraction("digit", judge.classify(drawn) == digits),
                "width": float(widths.mean()),
                "width_deviation": float(widths.std()),
            }
    return report


def shipped_taste(lab: Lab) -> dict[str, Any]:
    """What the shipped model draws."""
    return strokes(lab, lab.load("mnist"))


def taste(
    lab: Lab, steps: int, beta: float, tries: int, seed: int, both: bool = False
) -> dict[str, Any]:
    """A copy that was told that thick is better, or `both`: only where thin is not asked."""
    uni = lab.load("mnist")
    pairs = stroke_pairs(uni, tries, seed)
    if both:
        pairs += stroke_pairs(uni, tries, seed, thin=True)
        Random(seed).shuffle(pairs)
    losses = train(uni, pairs, True, steps, seed, beta)
    return {"first_loss": losses[0], "last_loss": losses[-1], **strokes(lab, uni)}


WAYS = {"DPO": True, "on the right drawings": False}
POINTS = [Point(("before",), before, MARKED), Point(("photos", "before"), before, PHOTOS)]
TOLD, PHOTOS_TOLD = [], []
for name, way in WAYS.items():
    TOLD.append(Point(("told", name), told, {"by_dpo": way, "steps": STEPS, "tries": 32, **MARKED}))
    photos = {"by_dpo": way, "steps": 120, "tries": 32, **PHOTOS}
    PHOTOS_TOLD.append(Point(("photos", name), told, photos))
# Groups of 8: 32 drawings a step, as many as the pairs of a step hold. Digits alone.
TOLD.append(Point(("told", "by reward"), rewarded, {"steps": STEPS, "group": 8, **MARKED}))
TASTE = []
for steps, beta in ((20, BETA), (40, BETA), (80, BETA), (160, BETA), (160, 0.5)):
    settings = {"steps": steps, "beta": beta, "tries": 16}
    TASTE.append(Point(("taste", f"{steps} steps, beta {beta}"), taste, settings))
BOTH = {"steps": 160, "beta": BETA, "tries": 16, "both": True}
TASTE.append(Point(("both", "160 steps"), taste, BOTH))
POINTS += [Point(("taste", "before"), shipped_taste, {})] + over_seeds(SEEDS, TASTE)
POINTS += over_seeds(SEEDS, TOLD + PHOTOS_TOLD)
EXPERIMENT = Experiment(__file__, __doc__, POINTS, {"steps": STEPS, "batch": BATCH, "rate": RATE})

if __name__ == "__main__":
    main(EXPERIMENT)

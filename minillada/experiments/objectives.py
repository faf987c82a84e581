"""Which objective has the quieter gradient, and what does a short run learn with each?

Measures the noise of gradients on two models, then trains the `mnist-cpu` backbone a short time
with each objective, and with the four of `objectives.py` two more times (`seeds`). About half an
hour on one core; notebook 14 shows the result.

Where an objective names no mask rates, the noise has those of `ObjectiveConfig`, [0.05, 1], and the
training has those of `mnist-cpu`, [0.3, 1]. Complementary pairs have [0.05, 0.95] in both.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import batching, diffusion
from ..config import ObjectiveConfig
from ..evaluation import evaluate, likelihood
from ..evaluation.noise import gradient_noise
from ..presets import get_preset
from ..settings import changed
from ..training import train
from ..training.loop import step_generator
from ..uni import Uni
from .block_size import drawings
from .runner import Experiment, Lab, Point, main, over_seeds

ROWS, MASKS = 16, 32  # of the noise: rows in the batch, and gradients with masks of their own
STEPS, PROMPTS, GUIDANCE, IMAGES = 240, 600, 3.0, 300
MODELS = {"mnist-cpu, untrained": "mnist-cpu", "mnist, trained": "mnist"}
# The complement's rates, 1 − t, must lie in the same interval.
MIRRORED = (0.05, 0.95)

NOISE: dict[str, dict[str, Any]] = {
    "bound, t from [0, 1]": {"mask_rate": (0.0, 1.0)},
    "count, t from [0, 1]": {"objective": "count", "mask_rate": (0.0, 1.0)},
    "bound": {},
    "count": {"objective": "count"},
    "bound, one t a sequence": {"mask_rate_per": "sequence"},
    "bound, complementary": {"complementary": True, "mask_rate": MIRRORED},
    "bound + confidence": {"confidence_weight": 2.0},
    "uniform": {"objective": "uniform"},
    "uniform, complementary": {
        "objective": "uniform",
        "complementary": True,
        "mask_rate": MIRRORED,
    },
    "reweighted": {"objective": "reweighted"},
}
ONLY_NOISE = ("bound, t from [0, 1]", "count, t from [0, 1]")
RUNS = {name: changes for name, changes in NOISE.items() if name not in ONLY_NOISE}
RUNS["uniform, t from [0.3, 0.8]"] = {"objective": "uniform", "mask_rate": (0.3, 0.8)}


def noise(lab: Lab, model: str, rows: int, masks: int, **objective: Any) -> dict[str, float]:
    """Noise-to-signal of the gradient of one objective over random masks."""
    uni = lab.load("mnist")  # its tokenizer and vocabulary serve both models
    batch, _, _ = drawings(uni, rows)
    backbone: Any = uni.backbone
    if model != "mnist":
        backbone = train.new_model(get_preset(model), "cpu", uni.tokenizer)
    config = ObjectiveConfig(**objective)
    # Every objective forwards each row twice; complements do so by themselves.
    if not config.complementary:
        ids, targets, real, _ = batch  # each [rows, L]
        batch = batching.Batch(ids.repeat(2, 1), targets.repeat(2, 1), real.repeat(2, 1))

    def loss(step: int):
        generator = step_generator(0, step)
        return diffusion.block_diffusion_loss(backbone, batch, uni.vocab, 16, config, generator)

    return gradient_noise(backbone, loss, masks).entries("noise")


@torch.no_grad()
def confidence(uni: Uni, batch: batching.Batch) -> dict[str, dict]:
    """How sure the model is of its guesses where half of the codes are masked, right and wrong.

    For each a histogram of the probability of the likeliest token, in ten bins, and its mean.
    """
    generator = torch.Generator().manual_seed(0)
    rates = torch.full((len(batch.ids), batch.ids.shape[1] // 16), 0.5)  # [B, blocks of 16]
    view = diffusion.corrupt(batch.ids, batch.targets, rates, 16, uni.vocab.mask_id, generator)
    # Image codes only: the end of the sequence is always the same.
    masked = view.masked & (batch.ids >= uni.vocab.image_token_offset)
    view = view._replace(masked=masked)
    logits = diffusion.masked_logits(uni.backbone, batch, view, 16)
    best, token = logits.softmax(-1).max(-1)
    right = token == batch.ids[masked]
    report = {}
    for name, part in (("right", best[right]), ("wrong", best[~right])):
        report[name] = {"mean": float(part.mean()), "counts": part.histc(10, 0, 1).int().tolist()}
    return report


def short_run(
    lab: Lab, steps: int, prompts: int, guidance: float, images: int, **objective: Any
) -> dict[str, Any]:
    """What `mnist-cpu` draws after a short run with an objective, and its bound on test images."""
    if objective.get("complementary"):
        objective["batch_size"] = 24  # half of `mnist-cpu`: as many noisy copies
    uni = lab.load(lab.train(changed(get_preset("mnist-cpu"), steps=steps, **objective)))
    batch, codes, texts = drawings(uni, images)
    bits = likelihood.likelihood(
        uni.backbone, uni.vocab, codes, texts, samples=4, seed=0, spread=True
    )
    drawn = evaluate.evaluate_drawing(uni, lab.judge(), prompts, seed=0, guidance=guidance)
    own = bits["draw"].entries("bits_per_image_token")
    return {**drawn, **own, "confidence": confidence(uni, batch)}


SIZES = {"steps": STEPS, "prompts": PROMPTS, "guidance": GUIDANCE, "images": IMAGES}
POINTS = []
for label, model in MODELS.items():
    for name, objective in NOISE.items():
        settings = {"model": model, "rows": ROWS, "masks": MASKS, **objective}
        POINTS.append(Point(("noise", label, name), noise, settings))
for name, objective in RUNS.items():
    POINTS.append(Point(("runs", name), short_run, {**SIZES, **objective}))
AGAIN = []  # `runs` have seed 0
for name in ("bound", "count", "uniform", "reweighted"):
    AGAIN.append(Point(("seeds", name), short_run, {**SIZES, **RUNS[name]}))
POINTS += over_seeds((1, 2), AGAIN)
FACTS = {"noise_draws": MASKS, "noise_rows": ROWS, "steps": STEPS, "guidance": GUIDANCE}
EXPERIMENT = Experiment(__file__, __doc__, POINTS, FACTS)

if __name__ == "__main__":
    main(EXPERIMENT)

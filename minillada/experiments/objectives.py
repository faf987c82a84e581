"""Compare training objectives, and store the result in `data/weights/objectives.json`.

`python tests/compare_objectives.py` measures gradient noise on two models and trains the `mnist-cpu` backbone a short time
with each objective, all else equal. It takes about a quarter of an hour on one core; notebook 05 shows the result.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .. import batching, diffusion, layout
from ..config import ObjectiveConfig
from ..datasets import captions, mnist
from ..evaluation import evaluate, likelihood
from ..evaluation.noise import gradient_noise
from ..files import RESULTS_DIR, atomic
from ..measure.judge import load_judge
from ..presets import get_preset
from ..settings import changed
from ..training import train
from ..training.loop import step_generator
from ..training.run import Run
from ..uni import load

ROWS, DRAWS = 16, 32


STEPS, PROMPTS, GUIDANCE, IMAGES = 240, 600, 3.0, 300


MIRRORED = (0.05, 0.95)  # with the complement's rates, 1 − t, an interval of its own mirror image


NOISE = {
    "bound, t from [0, 1]": dict(mask_rate=(0.0, 1.0)),
    "count, t from [0, 1]": dict(objective="count", mask_rate=(0.0, 1.0)),
    "bound": {},
    "count": dict(objective="count"),
    "bound, one t a sequence": dict(mask_rate_per="sequence"),
    "bound, complementary": dict(complementary=True, mask_rate=MIRRORED),
    "bound + confidence": dict(confidence_weight=2.0),
    "uniform": dict(objective="uniform"),
    "uniform, complementary": dict(objective="uniform", complementary=True, mask_rate=MIRRORED),
    "reweighted": dict(objective="reweighted"),
}


# A complementary batch holds half the rows, so that every run forwards equally many sequences.
RUNS = {
    "bound": {},
    "count": dict(objective="count"),
    "bound, one t a sequence": dict(mask_rate_per="sequence"),
    "bound, complementary": dict(complementary=True, batch_size=24, mask_rate=MIRRORED),
    "bound + confidence": dict(confidence_weight=2.0),
    "uniform": dict(objective="uniform"),
    "uniform, complementary": dict(objective="uniform", complementary=True, batch_size=24, mask_rate=MIRRORED),
    "uniform, t from [0.3, 0.8]": dict(objective="uniform", mask_rate=(0.3, 0.8)),
    "reweighted": dict(objective="reweighted"),
}


def drawings(uni, count: int):
    """A batch of `count` test images as drawing tasks, and their captions."""
    test = mnist.load_mnist("test")
    texts = captions.describe_pixels(test.floats(slice(0, count)), test.labels[:count])
    codes = uni.encode(test.floats(slice(0, count)))
    return batching.collate([layout.draw_sequence(uni.vocab, t, c) for t, c in zip(texts, codes, strict=True)], uni.vocab, 16), codes, texts


def noise(backbone, batch, vocab, **settings) -> dict:
    """Noise-to-signal of one objective over random masks; every objective forwards each row twice."""
    config = ObjectiveConfig(**settings)
    if not config.complementary:
        batch = batching.Batch(*(part.repeat(2, 1) for part in batch[:3]))

    def loss(step):
        return diffusion.block_diffusion_loss(backbone, batch, vocab, 16, config, step_generator(0, step))

    return gradient_noise(backbone, loss, DRAWS).entries("noise")


@torch.no_grad()
def confidence(backbone, batch, vocab) -> dict:
    """How sure the model is where half of the codes are masked: histograms of the likeliest token's probability, right and wrong."""
    rates = torch.full((len(batch.ids), batch.ids.shape[1] // 16), 0.5)
    view = diffusion.corrupt(batch.ids, batch.targets, rates, 16, vocab.mask_id, torch.Generator().manual_seed(0))
    masked = view.masked & (batch.ids >= vocab.image_token_offset)  # image codes; the end of the sequence is always the same
    best, token = diffusion.masked_logits(backbone, batch, view._replace(masked=masked), 16).softmax(-1).max(-1)
    right = token == batch.ids[masked]
    parts = {"right": best[right], "wrong": best[~right]}
    return {name: {"mean": float(part.mean()), "counts": part.histc(10, 0, 1).int().tolist()} for name, part in parts.items()}


if __name__ == "__main__":
    judge = load_judge()
    report: dict = {"noise": {}, "runs": {}, "noise_draws": DRAWS, "noise_rows": ROWS, "steps": STEPS, "guidance": GUIDANCE}
    trained = load("mnist")
    batch, _, _ = drawings(trained, ROWS)
    untrained = train.new_model(get_preset("mnist-cpu"), "cpu", trained.tokenizer)
    for name, backbone in (("mnist-cpu, untrained", untrained), ("mnist, trained", trained.backbone)):
        report["noise"][name] = {kind: noise(backbone, batch, trained.vocab, **settings) for kind, settings in tqdm(NOISE.items())}
        print(name, json.dumps(report["noise"][name], indent=1))
    preset = get_preset("mnist-cpu")
    for number, (name, changes) in enumerate(RUNS.items()):
        run = Path("runs") / f"compare-objective-{number}"
        train.train(changed(preset, steps=STEPS, **changes), Run(run, resume=True))
        uni = load(run)
        batch, codes, texts = drawings(uni, IMAGES)
        bits = likelihood.likelihood(uni.backbone, uni.vocab, codes, texts, 4, 0, spread=True)["draw"]
        report["runs"][name] = {
            **evaluate.evaluate_drawing(uni, judge, PROMPTS, seed=0, guidance=GUIDANCE),
            **bits.entries("bits_per_image_token"),
            "confidence": confidence(uni.backbone, batch, uni.vocab),
        }
        print(name, report["runs"][name], flush=True)
        with atomic(RESULTS_DIR / "objectives.json") as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")

"""What helps when the autoregressive `mnist-ar` becomes a block diffusion model?

- `gradients`: noise on the mask embedding in the first steps;
- `curves`: schedules of the block size against training from scratch, at equal compute;
- `merge`: the mean of the best checkpoints;
- `live`: the short conversion of notebook 15 with other seeds, to see what is normal.

About twenty minutes on one core; notebook 15 shows the result.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from ..config import Preset
from ..datasets import mnist
from ..datasets.pool import mnist_pool
from ..evaluation import evaluate, likelihood
from ..extras import merging
from ..measure.intervals import mean_interval
from ..measure.judge import Judge
from ..model import Backbone
from ..presets import get_preset
from ..settings import changed
from ..training import recipes, train
from ..training.distributed import Loss
from ..training.loop import fit
from ..uni import Uni
from ..vocab import load_vocabulary
from ..vq import ImageTokenizer
from .normal import logged, means
from .runner import Experiment, Lab, Point, main, over_seeds

SEEDS = (0, 1)
NOISE_SEEDS = 3
BATCH, STEPS, MEASURE_EVERY, PROMPTS, IMAGES = 32, 240, 60, 300, 300
NOISE_STEPS, SNAPSHOT_EVERY, HELD_OUT_IMAGES = 30, 20, 500
BEST = (2, 3, 5)  # so many checkpoints are averaged
SCHEDULES = {
    "WSD": get_preset("mnist-wsd").training.block_schedule,
    "growing, then 16": ((0.0, 4), (0.1, 8), (0.2, 16)),
    "16 at once": (),
    "from scratch": (),
}


def conversion(steps: int, seed: int, **changes: Any) -> Preset:
    """`mnist-wsd` in few steps: the recipe of every conversion here but for `changes`."""
    short = {"batch_size": BATCH, "warmup_steps": 20, "bfloat16": True}
    return changed(get_preset("mnist-wsd"), steps=steps, seed=seed, **short, **changes)


def loss_of(module: Backbone, tokenizer: ImageTokenizer, preset: Preset) -> Loss:
    vocab = load_vocabulary(tokenizer.config.codebook_size)
    pool = mnist_pool(mnist.load_mnist("train"))
    return recipes.backbone_loss(module, tokenizer, vocab, pool, preset)


def gradients(lab: Lab, noise: float, known: bool, steps: int, seeds: int) -> dict[str, list]:
    """Loss and gradient norm of the first steps at block size 16, means over seeds.

    `known` keeps the embedding of the mask that `mnist-ar` learned. Other autoregressive models
    never read a mask.
    """
    tokenizer = lab.module("mnist-tokenizer", ImageTokenizer)
    mask_id = load_vocabulary(tokenizer.config.codebook_size).mask_id
    runs = []
    for seed in range(seeds):
        backbone = lab.module("mnist-ar", Backbone)
        if not known:
            # What weight decay leaves of the row of a token that was never read.
            backbone.model.word_embeddings.weight.data[mask_id] = 0.0
        preset = conversion(steps, seed, block_schedule=(), mask_noise=noise)
        runs.append(fit(backbone, loss_of(backbone, tokenizer, preset), preset.training))
    report = {}
    for key in ("loss", "grad_norm"):
        series = torch.tensor([[record[key] for record in run] for run in runs])  # [seeds, steps]
        report[key] = series.mean(0).tolist()
    return report


class Meter:
    """What a model can do at the working block size, and what its training has cost so far."""

    def __init__(self, uni: Uni, judge: Judge, prompts: int, images: int):
        self.uni, self.judge, self.prompts = uni, judge, prompts
        self.images, self.texts = likelihood.validation_images(images)
        self.positions, self.seconds, self.began = 0, 0.0, time.perf_counter()
        self.points: list[dict] = []
        uni.backbone.model.word_embeddings.register_forward_pre_hook(self.count)

    def count(self, embedding: nn.Module, inputs: tuple[Tensor]) -> None:
        """Add the positions of a forward pass, if it belongs to training."""
        if embedding.training:
            self.positions += inputs[0].numel()

    def __call__(self, step: int) -> None:
        if step % MEASURE_EVERY:
            return
        # The clock stands still while the model is measured.
        self.seconds += time.perf_counter() - self.began
        self.uni.eval()
        uni, codes = self.uni, self.uni.encode(self.images)
        bits = likelihood.bits_per_image(
            uni.backbone, uni.vocab, codes, self.texts, 2, 0, spread=True
        )
        both = (bits["draw"] + bits["describe"]) / 2
        point = {"step": step, "positions": self.positions, "seconds": self.seconds}
        point |= mean_interval(both).entries("bits_per_token")
        point |= mean_interval(bits["draw"]).entries("bits_per_image_token")
        point |= evaluate.evaluate_drawing(uni, self.judge, self.prompts, seed=0)
        self.points.append(point)
        self.uni.backbone.train()
        self.began = time.perf_counter()


def curve(
    lab: Lab, schedule: tuple, scratch: bool, steps: int, prompts: int, images: int, seed: int
) -> list[dict]:
    """Bound and drawing accuracy along one run, always measured at block size 16."""
    tokenizer = lab.module("mnist-tokenizer", ImageTokenizer)
    preset = conversion(steps, seed, block_schedule=schedule)
    backbone: Any = train.new_model(preset, "cpu", tokenizer)
    if not scratch:
        backbone.load_state_dict(lab.module("mnist-ar", Backbone).state_dict())
    uni = Uni(backbone, tokenizer, load_vocabulary(tokenizer.config.codebook_size))
    meter = Meter(uni, lab.judge(), prompts, images)
    meter(0)
    loss = loss_of(backbone, tokenizer, preset)
    fit(backbone, loss, preset.training, after_step=meter)
    return meter.points


def mean_and_half(values: Tensor) -> tuple[float, float]:
    """Mean of `[N]` and half of the width of its interval."""
    interval = mean_interval(values)
    return interval.value, interval.half


def merge(
    lab: Lab, final_lr_fraction: float, snapshot_every: int, steps: int, images: int, seed: int
) -> dict[str, Any]:
    """The mean of the best snapshots of a run against the best and the last one."""
    settings = {"steps": steps, "final_lr_fraction": final_lr_fraction, "seed": seed}
    preset = changed(get_preset("mnist-cpu"), bfloat16=True, **settings)
    paths = merging.snapshots(lab.train(preset, snapshot_every=snapshot_every))
    ranked = likelihood.rank_checkpoints(paths, *likelihood.validation_images(200))
    best = [path for path, _ in ranked]
    candidates = {"last": lab.module(paths[-1], Backbone), "best": lab.module(best[0], Backbone)}
    for count in BEST:
        candidates[f"mean of {count}"] = merging.merge(best[:count], Backbone)[0]
    # Neither the validation images nor those of docs/numbers.md.
    test = mnist.load_mnist("test")
    held_out, texts = likelihood.captioned(test, slice(9000, 9000 + images))
    uni = lab.load(paths[-1])
    codes = uni.encode(held_out)
    bits = {}
    for name, module in candidates.items():
        both = likelihood.bits_per_image(module, uni.vocab, codes, texts, 4, 0, spread=True)
        bits[name] = both["draw"]
    # Gains are paired: the same image and the same masks for both.
    gains = {name: mean_and_half(bits["best"] - values) for name, values in bits.items()}
    return {
        "ranked_steps": [int(path.stem.removeprefix("step-")) for path in best],
        "bits": {name: mean_and_half(values) for name, values in bits.items()},
        "gain_over_best": gains,
    }


def live(lab: Lab, every: int, steps: int, batch: int, warmup: int, seed: int) -> list[float]:
    """The loss of a conversion that draws only, as means of `every` steps."""
    short = {"steps": steps, "batch_size": batch, "warmup_steps": warmup, "seed": seed}
    preset = changed(get_preset("mnist-wsd"), mixture=(("draw", 1.0),), **short)
    folder = lab.train(preset, start="mnist-ar")
    return means(logged(folder, "loss"), every)


GRADIENTS = []
for noise in (0.0, 0.1):
    for word, known in (("known", True), ("forgotten", False)):
        settings = {"noise": noise, "known": known, "steps": NOISE_STEPS, "seeds": NOISE_SEEDS}
        GRADIENTS.append(Point(("gradients", f"mask {word}, noise {noise}"), gradients, settings))
COMMON = {"steps": STEPS, "prompts": PROMPTS, "images": IMAGES}
CURVES = []
for name, schedule in SCHEDULES.items():
    start = {"schedule": schedule, "scratch": name == "from scratch"}
    CURVES.append(Point(("curves", "runs", name), curve, {**start, **COMMON}))
MERGING = {"snapshot_every": SNAPSHOT_EVERY, "steps": STEPS, "images": HELD_OUT_IMAGES}
MERGES = []
for name, fraction in (("constant", 1.0), ("decaying", 0.02)):
    settings = {"final_lr_fraction": fraction, **MERGING}
    MERGES.append(Point(("merge", "runs", name), merge, settings))
LIVE = {"every": 5, "steps": 100, "batch": 24, "warmup": 10}
LIVES = [Point(("live", "runs", "loss"), live, LIVE)]
FACTS = {
    "gradients": {"steps": NOISE_STEPS, "seeds": NOISE_SEEDS},
    "curves": {"batch": BATCH, **COMMON},
    "merge": MERGING,
    "live": LIVE,
}
POINTS = [*GRADIENTS, *over_seeds(SEEDS, CURVES), *over_seeds(SEEDS, MERGES)]
POINTS += over_seeds(range(1, 6), LIVES)  # notebook 15 itself has the seed 0
EXPERIMENT = Experiment(__file__, __doc__, POINTS, FACTS)

if __name__ == "__main__":
    main(EXPERIMENT)

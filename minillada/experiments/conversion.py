"""Convert the autoregressive `mnist-ar` into a block diffusion model, and store what helps in `data/weights/conversion.json`.

`python tests/compare_conversion.py` does three things, or those that are named: `gradients` (noise on the mask embedding),
`curves` (block-size schedules against training from scratch at equal compute) and `merge` (the mean of the best
checkpoints). All of it takes about twenty minutes on one core; notebook 15 shows the result.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from .. import checkpoint
from ..datasets import captions, mnist
from ..evaluation import evaluate, likelihood
from ..files import RESULTS_DIR, atomic
from ..measure.intervals import mean_interval
from ..measure.judge import load_judge
from ..model import Backbone
from ..presets import get_preset
from ..settings import changed
from ..training import recipes, train
from ..training.loop import fit
from ..training.run import Run
from ..uni import Uni, load
from ..vocab import load_vocabulary
from ..vq import ImageTokenizer

RESULT = RESULTS_DIR / "conversion.json"


SEEDS = (0, 1)


BATCH, STEPS, MEASURE_EVERY, PROMPTS, IMAGES = 32, 240, 60, 300, 300


NOISE_STEPS, NOISE_SEEDS = 30, 3


SNAPSHOT_EVERY, BEST = 20, (2, 3, 5)


GROWING = ((0.0, 4), (0.1, 8), (0.2, 16))


SCHEDULES = {"WSD": get_preset("mnist-wsd").training.block_schedule, "growing, then 16": GROWING, "16 at once": (), "from scratch": ()}


def conversion(steps: int, seed: int, **changes):
    """`mnist-wsd` in few steps: the recipe of every run here but for `changes`."""
    preset = get_preset("mnist-wsd")
    warmup = dict(warmup_steps=20, bfloat16=True)
    return changed(preset, steps=steps, batch_size=BATCH, seed=seed, **warmup | changes)


def gradients(loss_of, vocab) -> dict:
    """Loss and gradient norm of the first steps at block size 16, with and without noise, with the mask known and forgotten."""
    report = {"steps": NOISE_STEPS, "seeds": NOISE_SEEDS}
    for noise in (0.0, 0.1):
        for known in (True, False):
            records = []
            for seed in range(NOISE_SEEDS):
                backbone, _ = checkpoint.load_model("mnist-ar", Backbone)
                if not known:  # what weight decay leaves of a row that no input ever used
                    backbone.model.word_embeddings.weight.data[vocab.mask_id] = 0.0
                preset = conversion(NOISE_STEPS, seed, block_schedule=(), mask_noise=noise)
                records.append(fit(backbone, loss_of(backbone, preset), preset.training))
            series = {key: torch.tensor([[r[key] for r in run] for run in records]).mean(0).tolist() for key in ("loss", "grad_norm")}
            report[f"mask {'known' if known else 'forgotten'}, noise {noise}"] = series
    return report


class Meter:
    """Positions that a model is asked to forward in training, and what it can do at the working block size."""

    def __init__(self, module, tokenizer, vocab, judge):
        self.module, self.positions, self.seconds, self.began, self.points = module, 0, 0.0, time.perf_counter(), []
        self.uni, self.judge = Uni(module, tokenizer, vocab), judge
        self.images, self.texts = likelihood.validation_images(IMAGES)
        module.model.word_embeddings.register_forward_pre_hook(self.count)

    def count(self, embedding, inputs) -> None:
        self.positions += inputs[0].numel() * embedding.training

    def __call__(self, step: int) -> None:
        if step % MEASURE_EVERY:
            return
        self.seconds += time.perf_counter() - self.began
        self.uni.eval()
        codes = self.uni.encode(self.images)
        bits = likelihood.bits_per_image(self.module, self.uni.vocab, codes, self.texts, 2, 0, spread=True)
        point = {"step": step, "positions": self.positions, "seconds": self.seconds}
        for name, values in (("token", (bits["draw"] + bits["describe"]) / 2), ("image_token", bits["draw"])):
            point |= mean_interval(values).entries(f"bits_per_{name}")
        self.points.append(point | evaluate.evaluate_drawing(self.uni, self.judge, PROMPTS, seed=0))
        self.module.train()
        self.began = time.perf_counter()


def curves(loss_of, tokenizer, vocab, report: dict) -> dict:
    """Bound and drawing accuracy along each run, always measured at block size 16."""
    judge = load_judge()
    report |= {"batch": BATCH, "steps": STEPS, "prompts": PROMPTS, "images": IMAGES, "runs": report.get("runs", {})}
    for seed in SEEDS:
        for name, schedule in SCHEDULES.items():
            preset = conversion(STEPS, seed, block_schedule=schedule)
            module = train.new_model(preset, "cpu", tokenizer)
            if name != "from scratch":
                module.load_state_dict(checkpoint.load_model("mnist-ar", Backbone)[0].state_dict())
            meter = Meter(module, tokenizer, vocab, judge)
            meter(0)
            fit(module, loss_of(module, preset), preset.training, description=name, after_step=meter)
            report["runs"][f"{name}, seed {seed}"] = meter.points
            print(name, seed, json.dumps(meter.points[-1]), flush=True)
            yield


def mean_and_half(values: torch.Tensor) -> tuple[float, float]:
    """Mean of `[N]` and half of the width of its interval."""
    interval = mean_interval(values)
    return interval.value, interval.half


def merge(report: dict) -> dict:
    """The mean of the k best snapshots against the best and the last one, at a constant and at a decaying learning rate."""
    test = mnist.load_mnist("test")
    held_out = test.floats(slice(9000, 9500))  # neither validation nor the images of the README's table
    texts = captions.describe_pixels(held_out, test.labels[9000:9500])
    preset = get_preset("mnist-cpu")
    report |= {"snapshot_every": SNAPSHOT_EVERY, "steps": STEPS, "images": len(texts), "runs": {}}
    for seed in SEEDS:
        for name, fraction in (("constant", 1.0), ("decaying", 0.02)):
            settings = dict(steps=STEPS, seed=seed, bfloat16=True, final_lr_fraction=fraction)
            run = Path("runs") / f"compare-merge-{name}-{seed}"
            train.train(changed(preset, **settings), Run(run, resume=True, snapshot_every=SNAPSHOT_EVERY))
            paths = checkpoint.snapshots(run)
            ranked = [path for path, _ in likelihood.rank_checkpoints(paths, *likelihood.validation_images(200))]
            uni = load(paths[-1])
            candidates = {"last": checkpoint.load_model(paths[-1], Backbone)[0], "best": checkpoint.load_model(ranked[0], Backbone)[0]}
            candidates |= {f"mean of {k}": checkpoint.merge(ranked[:k], Backbone)[0] for k in BEST}
            codes = uni.encode(held_out)
            bits = {
                key: likelihood.bits_per_image(module, uni.vocab, codes, texts, 4, 0, spread=True)["draw"]
                for key, module in candidates.items()
            }
            report["runs"][f"{name}, seed {seed}"] = {
                "ranked_steps": [int(path.stem.removeprefix("step-")) for path in ranked],
                "bits": {key: mean_and_half(values) for key, values in bits.items()},
                "gain_over_best": {key: mean_and_half(bits["best"] - values) for key, values in bits.items()},  # paired by image
            }
            print(name, seed, report["runs"][f"{name}, seed {seed}"], flush=True)
            yield


if __name__ == "__main__":
    parts = sys.argv[1:] or ["gradients", "curves", "merge"]
    tokenizer, _ = checkpoint.load_model("mnist-tokenizer", ImageTokenizer)
    vocab, images = load_vocabulary(tokenizer.config.codebook_size), mnist.load_mnist("train")

    def loss_of(module, preset):
        return recipes.backbone_loss(module, tokenizer, vocab, images, preset)

    report = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for part in parts:
        report[part] = {}
        progress = {
            "gradients": lambda: [report.update(gradients=gradients(loss_of, vocab))],
            "curves": lambda: curves(loss_of, tokenizer, vocab, report["curves"]),
            "merge": lambda: merge(report["merge"]),
        }[part]()
        for _ in progress:  # after every run, so that an interruption loses little
            with atomic(RESULT) as temporary:
                temporary.write_text(json.dumps(report, indent=2) + "\n")

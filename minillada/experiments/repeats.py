"""Who profits more from seeing the same images again, autoregression or diffusion?

Prabhudesai et al. (arXiv 2507.15857) find that with little text, read many times, masked diffusion
ends up better than autoregression. Here the small model of `block_size.py` learns to draw from few
images, with block sizes 1 (autoregression), 16 and 48 (a whole sequence), three seeds each. Nothing
is moved and no caption loses words, so every epoch shows the same sequences. The learning rate
stays after the warm-up: no point of a curve is the end of a schedule.

- `few`: bits per token of new images and of images of the training, after more and more epochs.

About ten minutes on one core; notebook 16 shows the result.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .. import batching, layout
from ..config import Preset
from ..datasets import mnist
from ..diffusion import block_diffusion_loss, nll_bound
from ..evaluation import likelihood
from ..model import Backbone
from ..training.loop import batch_indices, fit, step_generator
from ..training.train import new_model
from ..uni import Uni
from ..vocab import Vocabulary
from ..writer import BATCH_SIZE
from . import block_size as law
from .runner import Experiment, Lab, Point, main, over_seeds

SEEDS = (0, 1, 2)
IMAGES = 128
# block size -> the epochs after which it is measured; at block 1 the bits only rise after 10
EPOCHS = {1: (5, 10, 15, 20), law.WHOLE: (10, 20, 30, 40, 60), 16: (10, 20, 30, 40, 60)}
BATCH = 16
MEASURED = {"test": 200, "trained": 64, "samples": 2}


def recipe(block_size: int, seed: int, images: int, epochs: int) -> Preset:
    """The small model of `block_size.py`, with a learning rate that stays after the warm-up."""
    steps = epochs * (images // BATCH)
    own: dict[str, Any] = {"steps": steps, "batch_size": BATCH, "final_lr_fraction": 1.0}
    return law.recipe(seed=seed, **law.plain(block_size), **own)


def sequences(uni: Uni, split: str, count: int) -> list[layout.TokenSequence]:
    """The first `count` images of a split as drawing tasks, with all words of their captions."""
    images, texts = likelihood.captioned(mnist.load_mnist(split), slice(0, count))
    grids = uni.encode(images)
    return [layout.draw_sequence(uni.vocab, text, grid) for text, grid in zip(texts, grids)]


def bits(backbone: Backbone, vocab: Vocabulary, batch: batching.Batch, samples: int) -> float:
    """Mean bits per token of the rows; the masks are the same in every call."""
    size, source, nats = backbone.config.block_size, torch.Generator().manual_seed(0), []
    for part in torch.arange(len(batch.ids)).split(BATCH_SIZE):
        rows = batching.Batch(batch.ids[part], batch.targets[part], batch.real[part])
        times = 1 if size == 1 else samples  # at block size 1 nothing is random
        nats.append(nll_bound(backbone, rows, size, vocab.mask_id, source, times))
    return float((torch.cat(nats) / math.log(2) / batch.real.sum(1)).mean())


def learn(
    lab: Lab, images: int, block_size: int, epochs: tuple[int, ...], measured: dict, seed: int
) -> dict[str, Any]:
    """Train one model, and measure it whenever it has seen its images so many times."""
    uni = lab.load("mnist")  # for its tokenizer and its vocabulary
    preset = recipe(block_size, seed, images, max(epochs))
    backbone = new_model(preset, "cpu", uni.tokenizer)
    assert isinstance(backbone, Backbone)
    # 1. All rows are padded alike, for every block size: 48 tokens hold the longest.
    seen = sequences(uni, "train", images)
    new = batching.collate(sequences(uni, "test", measured["test"]), uni.vocab, law.WHOLE)
    old = batching.collate(seen[: measured["trained"]], uni.vocab, law.WHOLE)

    def loss(step: int):
        index = batch_indices(images, BATCH, step, seed)
        batch = batching.collate([seen[i] for i in index], uni.vocab, law.WHOLE)
        source, objective = step_generator(seed, step), preset.training.loss
        return block_diffusion_loss(backbone, batch, uni.vocab, block_size, objective, source)

    # 2. The curves: one entry for each number of epochs.
    report: dict[str, Any] = {"parameters": sum(p.numel() for p in backbone.parameters())}
    report |= {"epochs": list(epochs), "bits": [], "trained_bits": []}
    marks = {epoch * (images // BATCH) for epoch in epochs}

    def measure(done: int) -> None:
        if done in marks:
            backbone.eval()
            report["bits"].append(bits(backbone, uni.vocab, new, measured["samples"]))
            report["trained_bits"].append(bits(backbone, uni.vocab, old, measured["samples"]))
            backbone.train()

    fit(backbone, loss, preset.training, after_step=measure)
    return report


RECIPES = []
for size, epochs in EPOCHS.items():
    settings = {"images": IMAGES, "block_size": size, "epochs": epochs, "measured": MEASURED}
    RECIPES.append(Point(("few", f"block {size}"), learn, settings))
POINTS = over_seeds(SEEDS, RECIPES[:2]) + over_seeds(SEEDS, RECIPES[2:])
FACTS = {"seeds": SEEDS, "batch": BATCH, "images": IMAGES}
EXPERIMENT = Experiment(__file__, __doc__, POINTS, FACTS)

if __name__ == "__main__":
    main(EXPERIMENT)

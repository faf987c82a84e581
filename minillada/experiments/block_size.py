"""What does a block cost, and what closes the gap to autoregression?

A small model learns to draw and to describe with blocks of 1, 2, 4, 16 and 48 tokens, three
seeds each. Block size 1 is autoregression, and 48 is a whole sequence.

- `noise`: how noisy the gradient is for each interval of mask rates, by block size;
- `law`: every block size, for as many steps; autoregression also for as many predicted tokens;
- `longer`: block sizes 1, 4 and 16 in up to four times the steps;
- `closing`: one change at a time at block sizes 4 and 16;
- `mixture`: one model of all block sizes, measured at each of them.

About fifty minutes on one core; notebook 16 shows the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from .. import batching, layout
from ..config import ObjectiveConfig, Preset
from ..datasets import mnist
from ..diffusion import block_diffusion_loss
from ..evaluation import evaluate, likelihood
from ..evaluation.noise import gradient_noise
from ..measure.intervals import interval_of
from ..presets import get_preset
from ..settings import changed
from ..training.loop import step_generator
from ..uni import Uni
from .normal import logged, means
from .runner import Experiment, Lab, Point, main, over_seeds

SEEDS = (0, 1, 2)
STEPS, BATCH = 240, 32
MEASURED = {"images": 300, "samples": 4, "prompts": 120}
BEGINNING, EVERY = 100, 10  # of the loss: so many first steps are stored, as means
TOGETHER = (1, 2, 4)  # tokens that a pass of drawing commits
GUIDANCE = 3.0
WHOLE = 48  # tokens: no sequence is longer
BOTH = (("draw", 1.0), ("describe", 1.0))
SIZES = (2, 4, 16, WHOLE)
CLOSED = (4, 16)  # block sizes at which changes are tried
ALL_TOKENS = (1.0, 1.0)  # the mask rates of autoregression: every token is predicted
# On average a diffusion model predicts this share of the tokens: the mean of its mask rates.
SHARE = 0.525
PRACTICE = round(SHARE * STEPS)  # steps of autoregression that predict as many tokens
ROWS, MASKS = 16, 24  # of the noise: rows in the batch, and gradients with masks of their own
INTERVALS = ((0.0, 1.0), (0.05, 1.0), (0.3, 0.8), (0.45, 0.95), (0.5, 1.0))
# For each block size the interval with the quietest gradient (`noise`).
QUIET = {4: (0.5, 1.0), 16: (0.5, 1.0)}
QUIET_SHARE = 0.75  # of the tokens are predicted then


def recipe(block_size: int, seed: int, **changes: Any) -> Preset:
    """The small model of this experiment; `changes` are settings of its training."""
    width = {"hidden_size": 64, "num_hidden_layers": 3, "head_dim": 16, "intermediate_size": 176}
    common = {"mixture": BOTH, "mask_rate": (0.05, 1.0), "batch_size": BATCH, "steps": STEPS}
    settings = {**width, **common, **changes}
    return changed(get_preset("mnist-cpu"), block_size=block_size, seed=seed, **settings)


def train(lab: Lab, training: dict[str, Any], seed: int, start: str | None = None) -> Path:
    """The folder of a run with these settings. They are its name, so that points can share it."""
    words = [f"{name}={value}" for name, value in {**training, "seed": seed}.items()]
    if start:
        words.append("started")
    return lab.train(recipe(seed=seed, **training), " ".join(words), start)


def drawings(uni: Uni, count: int, multiple: int = 16) -> tuple[batching.Batch, Tensor, list[str]]:
    """The first `count` test images as drawing tasks; their codes `[count, h, w]` and captions.

    Every model sees the same images. Rows are padded to a `multiple` of tokens.
    """
    images, texts = likelihood.captioned(mnist.load_mnist("test"), slice(0, count))
    codes = uni.encode(images)
    sequences = [layout.draw_sequence(uni.vocab, text, grid) for text, grid in zip(texts, codes)]
    return batching.collate(sequences, uni.vocab, multiple), codes, texts


def bits_on_test(uni: Uni, block_size: int, images: int, samples: int) -> dict[str, Any]:
    """Bits per token on the first test images.

    The masks are those of seed 0 whatever the training's seed was, and so are the random numbers of
    `drawn_right`. So two runs of a block size differ by their training alone, and no interval over
    seeds covers the choice of the masks; `samples` of them for each image keep it small.
    """
    _, codes, texts = drawings(uni, images)
    bits = likelihood.bits_per_image(
        uni.backbone, uni.vocab, codes, texts, samples, 0, spread=True, block_size=block_size
    )
    return likelihood.entries(bits)


def drawn_right(lab: Lab, uni: Uni, prompts: int) -> dict[str, Any]:
    """Drawings with 1, 2 and 4 tokens a forward pass, as far as a block holds so many."""
    tokens, block = uni.tokenizer.grid**2, uni.backbone.config.block_size
    report = {}
    for together in TOGETHER:
        if together > block:
            continue
        sampling: dict[str, Any] = {"steps": min(block, tokens) // together, "guidance": GUIDANCE}
        # In a block larger than the image, each step takes its part of the codes that are left.
        sampling["adaptive"] = block > tokens
        marked = evaluate.evaluate_drawing(uni, lab.judge(), prompts, seed=0, **sampling)
        # Guidance takes a second row in each pass.
        forwards = marked["draw_passes"] / 2
        entry = interval_of(marked, "draw_digit_accuracy").entries("digit")
        report[str(together)] = entry | {"forwards": forwards, "each": tokens / forwards}
    return report


def answers(lab: Lab, uni: Uni, block_size: int, prompts: int) -> dict[str, Any]:
    """What the model draws and says with this block size, and what an answer costs."""
    uni.backbone.config = changed(uni.backbone.config, block_size=block_size)
    test = mnist.load_mnist("test")
    shown, labels = test.floats(slice(0, prompts)), test.labels[:prompts]
    described = evaluate.evaluate_describing(uni, shown, labels)
    return {"drawing": drawn_right(lab, uni, prompts), "describing": described}


def learn(
    lab: Lab, training: dict, measured: dict, seed: int, start: dict | None = None
) -> dict[str, Any]:
    """Train one recipe, and measure it. With `prompts` 0 nothing is drawn or described.

    `start` is the recipe that it starts from. `measured["block_size"]` may differ from the model's
    own, if it has learned a mixture of sizes. `loss` of the report is the beginning of the curve.
    """
    begun = str(train(lab, start, seed)) if start else None
    folder = train(lab, training, seed, begun)
    uni = lab.load(folder)
    report = {"seconds": uni.info["seconds"], "parameters": uni.info["parameters"]}
    report["loss"] = means(logged(folder, "loss")[:BEGINNING], EVERY)
    size, prompts = measured["block_size"], measured["prompts"]
    report |= bits_on_test(uni, size, measured["images"], measured["samples"])
    return report | (answers(lab, uni, size, prompts) if prompts else {})


def noise(lab: Lab, training: dict, rates: tuple, rows: int, masks: int) -> dict[str, float]:
    """Noise-to-signal of the gradient on random masks, with mask rates from this interval."""
    uni = lab.load(train(lab, training, seed=0))
    size = training["block_size"]
    batch, _, _ = drawings(uni, rows, max(size, 16))
    objective = ObjectiveConfig(mask_rate=rates)

    def loss(step: int):
        source = step_generator(0, step)
        return block_diffusion_loss(uni.backbone, batch, uni.vocab, size, objective, source)

    return gradient_noise(uni.backbone, loss, masks).entries("noise")


# --- what is measured ----------------------------------------------------------------------------


def point(at: tuple[str, str], training: dict, size: int, prompts: int, **more: Any) -> Point:
    """A recipe, measured at one block size."""
    measured = {**MEASURED, "block_size": size, "prompts": prompts}
    return Point(at, learn, {"training": training, "measured": measured, **more})


def plain(size: int) -> dict[str, Any]:
    """The usual recipe of a block size."""
    return {"block_size": size, "mask_rate": ALL_TOKENS} if size == 1 else {"block_size": size}


AUTOREGRESSION = {**plain(1), "steps": PRACTICE}
PROMPTS = MEASURED["prompts"]
LAW = [point(("law", "1, as many predictions"), AUTOREGRESSION, 1, PROMPTS)]
for size in (1, *SIZES):
    LAW.append(point(("law", str(size)), plain(size), size, PROMPTS))

# In LONG steps diffusion predicts as much as autoregression in STEPS. The last two runs have the
# predictions of diffusion in LONGEST steps, and of quiet mask rates in LONG steps.
LONG, LONGEST = round(STEPS / SHARE), 4 * STEPS
LENGTHS = [(size, steps) for steps in (LONG, LONGEST) for size in CLOSED]
LENGTHS += [(1, round(SHARE * LONGEST)), (1, round(QUIET_SHARE * LONG))]
LONGER = []
for size, steps in LENGTHS:
    training = {**plain(size), "steps": steps}
    LONGER.append(point(("longer", f"{size}, {steps} steps"), training, size, PROMPTS))

# name -> settings by block size, and the recipe that it starts from
CHANGES: dict[str, tuple[dict[int, dict], dict | None]] = {
    "quiet mask rates": ({n: {"steps": LONG, "mask_rate": QUIET[n]} for n in CLOSED}, None),
    "from autoregression": ({n: {"steps": LONG - STEPS} for n in CLOSED}, plain(1)),
}
CLOSING = []
for name, (by_size, start) in CHANGES.items():
    for size, changes in by_size.items():
        at, training = ("closing", f"{name}, block {size}"), {"block_size": size, **changes}
        begun = {"start": start} if start else {}
        CLOSING.append(point(at, training, size, 0, **begun))

MIXED = {"block_size": 16, "block_sizes": (1, *SIZES), "steps": LONG}
MIXTURE = [point(("mixture", str(size)), MIXED, size, 0) for size in (1, *SIZES)]
NOISE = []
for size in (*CLOSED, WHOLE):
    for rates in INTERVALS:
        settings = {"training": plain(size), "rates": rates, "rows": ROWS, "masks": MASKS}
        name = f"block {size}, {rates[0]} to {rates[1]}"
        NOISE.append(Point(("noise", name), noise, settings))
FACTS = {
    "steps": STEPS,
    "practice": PRACTICE,
    "batch": BATCH,
    "seeds": SEEDS,
    "whole": WHOLE,
    "every": EVERY,
}
POINTS = [*over_seeds(SEEDS, LAW), *NOISE]
for one in (*LONGER, *CLOSING, *MIXTURE):
    POINTS += over_seeds(SEEDS, [one])  # all seeds of a change before the next one begins
EXPERIMENT = Experiment(__file__, __doc__, POINTS, FACTS)

if __name__ == "__main__":
    main(EXPERIMENT)

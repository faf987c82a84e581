"""Bits per token: how probable a model finds real images and their captions.

Notable choices
- Both tasks are measured on the same images: drawing (codes after a caption) and describing.
- Numerator: nats of all targets, the padding behind the end included. Denominator: real response
  tokens only.
- Diffusion gives an upper bound (`diffusion.nll_bound`). At block size 1 it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import batching, layout
from ..datasets.images import Images
from ..datasets.table import MNIST, DataSet
from ..diffusion import nll_bound
from ..extras.conversion import LEAST_PADDING
from ..measure.intervals import Interval, mean_interval
from ..model import Backbone
from ..uni import load
from ..vocab import Vocabulary
from ..writer import BATCH_SIZE

# Test images that choose among checkpoints. The reported bound is measured on the first 2,000.
VALIDATION = slice(8000, 9000)


def bits_per_image(
    backbone: Backbone,
    vocab: Vocabulary,
    codes: Tensor,
    texts: list[str],
    samples: int,
    seed: int,
    spread: bool = False,
    block_size: int | None = None,
) -> dict[str, Tensor]:
    """Bits per token of each image `[N]`, by task: `{"draw": …, "describe": …}`.

    `codes` `[N, h, w]`. Each sequence is masked `samples` times at random. With `spread` these
    samples are stratified (`nll_bound`): the same expectation, and less noise. docs/numbers.md is
    measured without it. `block_size` is the model's own, if not given.
    `ValueError` for less than 1 sample.
    """
    if samples < 1:
        raise ValueError(f"{samples} mask samples measure nothing; take at least 1")
    block = block_size or backbone.config.block_size
    if block == 1:
        samples = 1  # exact: every token is masked alone
    together = samples if spread else 1  # so many in each call of `nll_bound`
    # Whole blocks. The small sizes that divide `LEAST_PADDING` are measured with equal padding.
    multiple = math.lcm(block, LEAST_PADDING) if block < LEAST_PADDING else block

    result = {}
    for task in ("draw", "describe"):
        # 1. one sequence for each image, padded to whole blocks
        sequences = []
        for text, grid in zip(texts, codes.cpu()):
            if task == "draw":
                sequences.append(layout.draw_sequence(vocab, text, grid))
            else:
                sequences.append(layout.describe_sequence(vocab, grid, text))
        batch = batching.collate(sequences, vocab, multiple)
        # 2. nats [N], the mean over the mask samples
        generator = torch.Generator().manual_seed(seed)
        nats = []
        for part in torch.arange(len(sequences)).split(BATCH_SIZE):
            rows = batching.Batch(batch.ids[part], batch.targets[part], batch.real[part])
            rows = rows.to(backbone.lm_head.weight.device)
            bounds = []
            for _ in range(samples // together):
                bounds.append(nll_bound(backbone, rows, block, vocab.mask_id, generator, together))
            nats.append(torch.stack(bounds).mean(0).cpu())
        # 3. bits for each real response token
        result[task] = torch.cat(nats) / math.log(2) / batch.real.sum(1)
    return result


def entries(bits: dict[str, Tensor], end: str = "") -> dict[str, float]:
    """What a report holds of `bits_per_image`: means and intervals, with `end` behind their names.

    Both tasks use the same images, and an image that is hard to draw may be hard to describe. So
    the two tasks of each image are averaged first, and the interval is taken over images.
    """
    average = (bits["draw"] + bits["describe"]) / 2
    return {
        **mean_interval(average).entries(f"bits_per_token{end}"),
        **mean_interval(bits["draw"]).entries(f"bits_per_image_token{end}"),
        **mean_interval(bits["describe"]).entries(f"bits_per_text_token{end}"),
    }


def likelihood(
    backbone: Backbone,
    vocab: Vocabulary,
    codes: Tensor,
    texts: list[str],
    samples: int,
    seed: int,
    spread: bool = False,
) -> dict[str, Interval]:
    """Mean of `bits_per_image`, by task; the interval covers images and mask samples alike."""
    bits = bits_per_image(backbone, vocab, codes, texts, samples, seed, spread)
    return {task: mean_interval(values) for task, values in bits.items()}


def captioned(
    images: Images, chosen: Tensor | slice, data: DataSet = MNIST
) -> tuple[Tensor, list[str]]:
    """The chosen ones of some images, `[N, C, H, W]`, and their true captions."""
    shown = images.floats(chosen)
    classes = data.classes(shown, images.labels[chosen])
    return shown, [data.grammar.caption(*row) for row in classes.tolist()]


def validation_images(count: int, data: DataSet = MNIST) -> tuple[Tensor, list[str]]:
    """`count` images `[count, C, H, W]` with captions: `VALIDATION`, or the last of a small set."""
    test = data.load("test")
    first = min(VALIDATION.start, max(len(test.labels) - count, 0))
    return captioned(test, slice(first, min(first + count, VALIDATION.stop)), data)


def trained_share(training: dict) -> float:
    """The share of drawing among drawing and describing, in the `training` of a weights' JSON.

    Older JSONs say it as `draw_share`; newer ones hold the weights of all tasks.
    """
    mixture = training.get("data", training).get("mixture")
    if not mixture:
        return float(training.get("draw_share", 0.5))
    drawing, describing = (dict(mixture).get(task, 0.0) for task in ("draw", "describe"))
    return drawing / (drawing + describing) if drawing + describing else 0.5


def rank_checkpoints(
    paths: Sequence[Path],
    images: Tensor,
    texts: list[str],
    device: str = "cpu",
    samples: int = 2,
    seed: int = 0,
) -> list[tuple[Path, float]]:
    """Checkpoints with their bits per token on images `[N, C, H, W]`, the best first.

    The images must be new to all of them. All see the same masks, so their order is much surer
    than each number.
    """
    ranked = []
    for path in tqdm(paths, desc="validating", leave=False):
        uni = load(path, device)
        codes = uni.encode(images)
        by_task = likelihood(uni.backbone, uni.vocab, codes, texts, samples, seed, spread=True)
        # A task that was never trained says nothing about the weights.
        share = trained_share(uni.info.get("training", {}))
        bits = share * by_task["draw"].value + (1 - share) * by_task["describe"].value
        ranked.append((path, bits))
    return sorted(ranked, key=lambda entry: entry[1])

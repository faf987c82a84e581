"""Bits per token."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import batching, layout
from ..datasets import captions, mnist
from ..diffusion import nll_bound
from ..measure.intervals import mean_ci95
from ..model import Backbone
from ..uni import BATCH_SIZE, load
from ..vocab import Vocabulary


def bits_per_image(
    backbone: Backbone, vocab: Vocabulary, codes: Tensor, texts: list[str], samples: int, seed: int, spread: bool = False
) -> dict[str, Tensor]:
    """Bits per token of each image `[N]`, for drawing and for describing: `{"draw": …, "describe": …}`.

    The padding behind the end of a sequence is predicted too and its cost counted, but not its tokens: what a sequence
    costs in all, over the tokens that carry something. `spread` takes the mask samples together (`diffusion.nll_bound`):
    the same expectation with less noise. The recorded numbers were drawn without it.
    """
    block = backbone.config.block_size
    samples = samples if block > 1 else 1  # exact at block size 1
    together = samples if spread else 1
    result = {}
    for task, build in (("draw", layout.draw_sequence), ("describe", layout.describe_sequence)):
        sequences = [build(vocab, t, c) if task == "draw" else build(vocab, c, t) for c, t in zip(codes.cpu(), texts, strict=True)]
        batch = batching.collate(sequences, vocab, max(block, 16))
        generator = torch.Generator().manual_seed(seed)
        nats = []
        for part in torch.arange(len(sequences)).split(BATCH_SIZE):
            rows = batching.Batch(batch.ids[part], batch.targets[part], batch.real[part]).to(codes.device)
            bounds = [nll_bound(backbone, rows, block, vocab.mask_id, generator, together) for _ in range(samples // together)]
            nats.append(torch.stack(bounds).mean(0).cpu())
        result[task] = torch.cat(nats) / math.log(2) / batch.real.sum(1)
    return result


def likelihood(
    backbone: Backbone, vocab: Vocabulary, codes: Tensor, texts: list[str], samples: int, seed: int, spread: bool = False
) -> dict[str, tuple[float, float]]:
    """Mean of `bits_per_image` with the half-width of its 95 % interval, which covers images and mask samples alike."""
    return {task: mean_ci95(bits) for task, bits in bits_per_image(backbone, vocab, codes, texts, samples, seed, spread).items()}


# Test images that choose among checkpoints. The reported bound is measured on others, the first 2,000.
VALIDATION = slice(8000, 9000)


def validation_images(count: int) -> tuple[Tensor, list[str]]:
    """The first `count` images `[count, C, H, W]` of `VALIDATION` and their captions."""
    test = mnist.load_mnist("test")
    chosen = torch.arange(VALIDATION.start, VALIDATION.stop)[:count]
    return test.floats(chosen), captions.describe_pixels(test.floats(chosen), test.labels[chosen])


def rank_checkpoints(
    paths: list[Path], images: Tensor, texts: list[str], device: str = "cpu", samples: int = 2, seed: int = 0
) -> list[tuple[Path, float]]:
    """Checkpoints with their bound on images they were not trained on, `[N, C, H, W]`, in bits per token; the best come first.

    All see the same masks, so their order is much surer than each number.
    """
    bits = {}
    for path in tqdm(paths, desc="validating", leave=False):
        uni = load(path, device)
        by_task = likelihood(uni.backbone, uni.vocab, uni.encode(images), texts, samples, seed, spread=True)
        share = uni.info["training"]["draw_share"]  # a task that was never trained says nothing about the weights
        bits[path] = share * by_task["draw"][0] + (1 - share) * by_task["describe"][0]
    return sorted(bits.items(), key=lambda entry: entry[1])

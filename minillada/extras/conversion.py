"""The block size while training: the WSD schedule of a conversion, or a mixture of sizes.

LLaDA2.0 (arXiv 2512.15745), section 3. An autoregressive model is a block diffusion model of block
size 1. The conversion trains it on blocks that grow until one block is the whole sequence
(warm-up), stays there (stable), and returns to the block size of its later use (decay).

BlockGen (arXiv 2606.02241): one model learns a mixture of block sizes and decodes with any of them.

Notable choices
- The block size of a step depends on the step and the seed alone, so a run that is stopped and
  resumed keeps to it.
- A block size that no sequence exceeds stands for L, the whole sequence. Training is plain masked
  diffusion then, and `diffusion.masked_logits` needs no clean half: there are no earlier blocks.
- Noise is added to the embedding of masked tokens by a hook, so that neither the model nor the loss
  knows of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..config import ModelConfig, Preset, TrainingConfig
from ..model import Backbone

LEAST_PADDING = 16  # tokens: the usual block size; sequences are padded to a multiple of it


def model_of(preset: Preset) -> ModelConfig:
    """The sizes of the backbone that a preset trains. `ValueError` if it trains something else."""
    if not isinstance(preset.model, ModelConfig):
        raise ValueError(f"{preset.name} is a {preset.kind}, which has no blocks")
    return preset.model


def block_size_at(preset: Preset, step: int) -> int:
    """L_B at a training step: that of the last entry of `block_schedule` which has begun.

    With `block_sizes` it is one of these, each as likely. Without both it is the model's own.
    """
    size, training = model_of(preset).block_size, preset.training
    if training.block_sizes:
        # Each seed and step make a text of their own; two different pairs can have one sum.
        return random.Random(f"{training.seed} {step}").choice(training.block_sizes)
    # Entries are in order, so the last one that has begun wins.
    for start, scheduled in training.block_schedule:
        if round(start * training.steps) <= step:
            size = scheduled
    return size


def padding_multiple(preset: Preset) -> int:
    """Sequences padded to a multiple of this hold whole blocks at every step.

    For a block size below `LEAST_PADDING` it is a common multiple of both, so that models that are
    compared learn the same padding.
    """
    model, training = model_of(preset), preset.training
    multiple = model.block_size
    if multiple < LEAST_PADDING:
        multiple = math.lcm(multiple, LEAST_PADDING)
    scheduled = [size for _, size in training.block_schedule]
    for size in (*scheduled, *(training.block_sizes or ())):
        if size < model.max_position_embeddings:  # others stand for L
            multiple = math.lcm(multiple, size)
    return multiple


def check_block_sizes(preset: Preset) -> None:
    """`ValueError` unless a mixture holds the block size of later use, and no schedule is set."""
    sizes = preset.training.block_sizes
    if not sizes:
        return
    own = model_of(preset).block_size
    if own not in sizes:
        raise ValueError(
            f"block_sizes has {', '.join(map(str, sizes))}, but the model is used with block size "
            f"{own}; add it to the mixture"
        )
    if preset.training.block_schedule:
        raise ValueError("block_schedule and block_sizes both set the block size; choose one")


def check_block_schedule(preset: Preset) -> None:
    """`ValueError` unless a schedule goes from 0 forward to the block size of later use."""
    schedule = preset.training.block_schedule
    if not schedule:
        return
    own = model_of(preset).block_size
    starts = [start for start, _ in schedule]
    sizes = [size for _, size in schedule]
    # Each entry begins later than the one before, and within the run.
    if starts[0] != 0 or starts != sorted(set(starts)) or starts[-1] >= 1:
        raise ValueError(
            "block_schedule must begin at 0 and go forward, staying below 1; "
            f"it begins at {', '.join(map(str, starts))}"
        )
    if min(sizes) < 1:  # the upper end is free: large sizes stand for the whole sequence
        raise ValueError(f"block sizes are at least 1, block_schedule has {min(sizes)}")
    if sizes[-1] != own:
        raise ValueError(
            f"block_schedule ends at {sizes[-1]}, but the model is used with block size {own}; "
            "end with it"
        )


def mask_noise_at(config: TrainingConfig, step: int) -> float:
    """Standard deviation of the noise on the mask embedding; it falls to 0 during the warm-up."""
    return config.mask_noise * max(0.0, 1 - step / max(config.optim.warmup_steps, 1))


@contextmanager
def noisy_mask_embedding(
    backbone: Backbone, mask_id: int, std: float, generator: torch.Generator
) -> Iterator[None]:
    """Inside, the embedding of every masked token gets Gaussian noise of its own.

    An autoregressive model never met the mask, so weight decay has shrunk its row to 0. RMSNorm
    divides by the length of its input, so its gradient grows as 1/length, up to 1/√eps. Noise keeps
    the length away from 0 until the row has grown.
    """
    if not std:  # no noise: no random numbers are taken
        yield
        return

    def add_noise(module, inputs, embedded):
        noise = std * torch.randn(embedded.shape, generator=generator).to(embedded)
        return embedded + noise * (inputs[0] == mask_id)[..., None]  # [B, L, H]

    handle = backbone.model.word_embeddings.register_forward_hook(add_noise)
    try:
        yield
    finally:
        handle.remove()

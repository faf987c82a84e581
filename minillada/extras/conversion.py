"""From autoregression to block diffusion: the WSD schedule of the block size (LLaDA2.0, arXiv 2512.15745, section 3).

An autoregressive model is a block diffusion model of block size 1. The conversion trains it on blocks that grow until one
block is the whole sequence (warm-up), stays there (stable), and returns to the block size it will be used with (decay).

Notable choices
- The schedule is a pure function of the step, so a run that is stopped and resumed keeps to it.
- A block size that no sequence exceeds stands for L. Training then is plain masked diffusion, and `diffusion.masked_logits`
  leaves out the clean half of `[x_t ; x_0]` by itself: no earlier block is left that could ask for it.
- Noise goes onto the embedding of masked tokens through a hook, so neither the model nor the loss knows of it.
"""

from __future__ import annotations

import math
from contextlib import contextmanager

import torch

from ..config import Preset, TrainingConfig
from ..model import Backbone


def block_size_at(preset: Preset, step: int) -> int:
    """L_B of training step `step`: the last entry of `block_schedule` that has begun, or the model's own without a schedule."""
    config = preset.training
    begun = [size for start, size in config.block_schedule if round(start * config.steps) <= step]
    return begun[-1] if begun else preset.model.block_size


def padding_multiple(preset: Preset) -> int:
    """Sequences padded to a multiple of this hold whole blocks at every step; at block size 1 it is 16, as for the other models."""
    model = preset.model
    sizes = [size for _, size in preset.training.block_schedule if size < model.max_position_embeddings]
    return math.lcm(model.block_size if model.block_size > 1 else 16, *sizes)


def check_block_schedule(preset: Preset) -> None:
    """`ValueError` unless the schedule begins at 0, goes forward and ends at the block size the model is used with."""
    schedule = preset.training.block_schedule
    if not schedule:
        return
    if preset.kind != "backbone":
        raise ValueError(f"{preset.name} is a {preset.kind}, which has no blocks; leave block_schedule out")
    if any(len(entry) != 2 for entry in schedule):
        raise ValueError("an entry of block_schedule is a pair: the share of the run at which it begins, and its block size")
    starts, sizes = zip(*schedule, strict=True)
    if starts[0] != 0 or list(starts) != sorted(set(starts)) or starts[-1] >= 1:
        raise ValueError(f"block_schedule must begin at 0 and go forward, staying below 1; it begins at {', '.join(map(str, starts))}")
    if any(not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"block sizes are whole numbers from 1 on, block_schedule has {', '.join(map(str, sizes))}")
    if sizes[-1] != preset.model.block_size:
        raise ValueError(
            f"block_schedule ends at {sizes[-1]}, but the model is used with block size {preset.model.block_size}; end with it"
        )


def mask_noise_at(config: TrainingConfig, step: int) -> float:
    """Standard deviation of the noise on the mask embedding: falls linearly to 0 while the learning rate warms up."""
    return config.mask_noise * max(0.0, 1 - step / max(config.optim.warmup_steps, 1))


@contextmanager
def noisy_mask_embedding(backbone: Backbone, mask_id: int, std: float, generator: torch.Generator):
    """Within, every masked token is embedded with Gaussian noise of its own.

    A model that never met the mask has nothing there: weight decay shrank the row to 0. RMSNorm divides by the length of its
    input, so its gradient explodes as 1/length (up to 1/√eps). Noise keeps the length away from 0 until the row has grown.
    """

    def add_noise(module, inputs, embedded):
        noise = std * torch.randn(embedded.shape, generator=generator).to(embedded)
        return embedded + noise * (inputs[0] == mask_id)[..., None]

    handle = backbone.model.word_embeddings.register_forward_hook(add_noise) if std else None
    try:
        yield
    finally:
        if handle:
            handle.remove()

"""Optimisers and the learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from ..config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then cosine decay to `final_lr_fraction` of the peak."""
    if step < config.optim.warmup_steps:
        return config.optim.learning_rate * (step + 1) / config.optim.warmup_steps
    progress = (step - config.optim.warmup_steps) / max(config.steps - config.optim.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.optim.learning_rate * (config.optim.final_lr_fraction + (1 - config.optim.final_lr_fraction) * cosine)


def make_optimizers(module: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW that decays matrices only: norms, biases and scales have no reason to shrink.

    With Muon, which makes the singular values of an update alike, the matrices of the layers are left to it, as its authors advise;
    embedding and head are tables of rows. Its steps are scaled to the size of AdamW's, so that a learning rate fits both.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    layers = [p for name, p in named if config.optim.optimizer == "muon" and p.ndim == 2 and "embeddings" not in name and "lm_head" not in name]
    others = [p for _, p in named if not any(p is q for q in layers)]
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.optim.weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers = [torch.optim.AdamW(groups, lr=config.optim.learning_rate, betas=config.optim.betas)]
    if layers:
        optimizers.append(torch.optim.Muon(layers, config.optim.learning_rate, config.optim.weight_decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers

"""Optimisers and the learning rate.

Notable choices
- AdamW decays matrices only. Norms, biases and scales have no reason to shrink.
- Muon (arXiv 2502.16982) makes the singular values of an update alike. As its authors advise, it
  gets the matrices of the layers; embedding and head are tables of rows and stay with AdamW. Its
  steps are scaled to the size of AdamW's, so that one learning rate fits both.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ..config import TrainingConfig

TABLES = ("embeddings", "lm_head")  # parts of the names of tables, which Muon leaves alone


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then cosine decay to `final_lr_fraction` of the peak (arXiv 1608.03983)."""
    optim = config.optim
    if step < optim.warmup_steps:
        return optim.learning_rate * (step + 1) / optim.warmup_steps
    progress = (step - optim.warmup_steps) / max(config.steps - optim.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))  # from 1 down to 0
    floor = optim.final_lr_fraction
    return optim.learning_rate * (floor + (1 - floor) * cosine)


def make_optimizers(module: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters, or AdamW and Muon, each parameter in exactly one group."""
    optim = config.optim
    layer_matrices, other_matrices, vectors = [], [], []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        # Weights of convolutions have four dimensions; Muon takes matrices alone.
        is_table = any(part in name for part in TABLES)
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif optim.optimizer == "muon" and parameter.ndim == 2 and not is_table:
            layer_matrices.append(parameter)
        else:
            other_matrices.append(parameter)
    groups = [
        {"params": other_matrices, "weight_decay": optim.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=optim.learning_rate, betas=optim.betas)
    ]
    if layer_matrices:
        muon = torch.optim.Muon(
            layer_matrices,
            optim.learning_rate,
            optim.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizers.append(muon)
    return optimizers

"""Optimisers and the learning rate.

Notable choices
- AdamW decays matrices only. Norms, biases and scales have no reason to shrink.
- Muon (arXiv 2502.16982) makes the singular values of an update more alike. As its authors advise,
  it gets the matrices of the layers; embedding and head are tables of rows and stay with AdamW.
  Its steps are scaled to the size of AdamW's, so that one learning rate fits both.
- The experts of a layer are stacked into one parameter. Muon treats each of them by itself.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ..config import TrainingConfig
from ..extras.halves import quick_products

HEADS = ("head", "lm_head")  # names of last layers: tables with one row for each class or token


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
    tables = table_weights(module)
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim < 2:
            vectors.append(parameter)
        elif optim.optimizer == "muon" and parameter.ndim in (2, 3) and name not in tables:
            layer_matrices.append(parameter)
        else:  # also the weights of convolutions, which have four dimensions
            other_matrices.append(parameter)
    groups = [
        {"params": other_matrices, "weight_decay": optim.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=optim.learning_rate, betas=optim.betas)
    optimizers: list[torch.optim.Optimizer] = [adamw]
    if layer_matrices:
        optimizers.append(Muon(layer_matrices, optim.learning_rate, optim.weight_decay))
    return optimizers


def table_weights(module: nn.Module) -> set[str]:
    """Names of the parameters that are tables of rows: embeddings, and the heads."""
    found: set[str] = set()
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) or name.split(".")[-1] in HEADS:
            found |= {f"{name}.{own}" for own, _ in part.named_parameters()}
    return found


class Muon(torch.optim.Muon):
    """Muon for matrices and for stacks `[E, out, in]`; it treats each matrix of a stack alone."""

    def __init__(self, parameters: list[nn.Parameter], rate: float, decay: float):
        # PyTorch's Muon takes matrices only, so a stack is given as E views of its memory.
        self.stacks: list[tuple[nn.Parameter, list[nn.Parameter]]] = []
        matrices = []
        for parameter in parameters:
            if parameter.ndim == 2:
                matrices.append(parameter)
                continue
            views = [nn.Parameter(matrix) for matrix in parameter.detach()]
            self.stacks.append((parameter, views))
            matrices += views
        super().__init__(matrices, rate, decay, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: Any = None) -> Any:
        """The update of PyTorch's Muon; it changes the views, and with them the stacks."""
        for stack, views in self.stacks:
            for number, view in enumerate(views):
                view.grad = None if stack.grad is None else stack.grad[number]
        first = self.param_groups[0]["params"][0]
        with quick_products(first.device):  # PyTorch's Muon multiplies in bfloat16 everywhere
            return super().step(closure)

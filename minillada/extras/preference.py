"""Preference training (DPO, arXiv 2305.18290): of two answers, one is the better one.

A diffusion model knows log p only by its bound. LLaDA2.0 (arXiv 2512.15745) puts the bound B of
block diffusion in its place, with β = 0.1: −log σ(β [(B − B_ref)(better) − (B − B_ref)(worse)]).
B_ref is that of a frozen copy, which sees the same masks: most noise cancels in the difference.
No preset trains with it; notebook 20 and `experiments/preference.py` do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..batching import Batch
from ..config import ObjectiveConfig
from ..diffusion import masked_cross_entropy, sample_view
from ..model import Backbone
from ..objectives import View, at_masked


def bound(backbone: Backbone, batch: Batch, view: View) -> Tensor:
    """The bound of every row, `[rows]`, from one noisy copy: −Σ nats / t over masked tokens."""
    nats = masked_cross_entropy(backbone, batch, view, backbone.config.block_size)  # [N]
    rows = view.masked.nonzero()[:, 0]  # of each masked token
    return nats.new_zeros(len(batch.ids)).index_add(0, rows, -nats / at_masked(view.rates, view))


def preference_loss(
    model: Backbone, frozen: Backbone, better: Batch, worse: Batch, mask_id: int,
    generator: Generator, beta: float = 0.1,
) -> Tensor:  # fmt: skip
    """The mean loss of pairs: row r of both batches answers one prompt, in whole blocks."""
    rises = []
    for batch in (better, worse):
        size, config = model.config.block_size, ObjectiveConfig()
        view = sample_view(batch, size, mask_id, config, generator)
        with torch.no_grad():
            before = bound(frozen, batch, view)
        rises.append(bound(model, batch, view) - before)  # B − B_ref of every row
    return -F.logsigmoid(beta * (rises[0] - rises[1])).mean()

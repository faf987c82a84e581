"""Block masked diffusion: corruption, the training loss and the likelihood bound (LLaDA2.0, arXiv 2512.15745, section 2).

Forward process, linear schedule: within each block every response token is masked independently with probability t.
Loss:  E_t [ (1/t) Σ_blocks Σ_i 1[i masked] · −log p(x_i | x_t of its block, clean earlier blocks) ]  >=  −log p(x | prompt).

Notable choices
- All blocks are trained in one forward on `[x_t ; x_0]`: the noisy half asks, the clean half is the context.
- Noisy blocks that hold only prompt, and the last clean block, influence no loss (see `masks`): they are left out.
- Logits are computed only at masked positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .masks import block_diffusion_mask
from .model import Backbone


def draw_mask_rates(batch: int, blocks: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Mask rates t `[batch, blocks]`, uniform on [low, high] and stratified over the batch.

    One offset for all and a random order for each block column: every t is uniform, but a batch covers the interval evenly.
    That costs nothing and helps little: at any t the weighted loss has nearly the same mean, and its noise comes from which
    tokens fall (notebook 04).
    """
    offset = torch.rand(1, blocks, generator=generator)
    order = torch.rand(batch, blocks, generator=generator).argsort(0)
    return low + (high - low) * ((order + offset) / batch)


def corrupt(
    ids: Tensor, targets: Tensor, rates: Tensor, block_size: int, mask_id: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """x_t and which positions are masked, both `[B, L]`; only `targets` can be, at their block's rate `[B, L / L_B]`."""
    t = rates.repeat_interleave(block_size, dim=1)
    masked = targets & (torch.rand(t.shape, generator=generator).to(t.device) < t)
    return ids.masked_fill(masked, mask_id), masked


def masked_cross_entropy(backbone: Backbone, ids: Tensor, noisy_ids: Tensor, masked: Tensor, block_size: int) -> Tensor:
    """−log p(x_i) in nats at every masked position, as a flat tensor in the order of `masked.nonzero()`.

    `ids`, `noisy_ids`, `masked` are `[B, L]`. One forward pass for all blocks.
    """
    length = ids.shape[1]
    blocks_asked = masked.any(0).nonzero().flatten() // block_size
    if len(blocks_asked) == 0:
        return torch.zeros(0, device=ids.device, requires_grad=True)  # so that a small batch without masks can be trained on
    start = int(blocks_asked[0]) * block_size
    stop = min((int(blocks_asked[-1]) + 1) * block_size, length)
    last_block = int(blocks_asked[-1]) * block_size
    noisy = torch.arange(start, stop, device=ids.device)
    clean = torch.arange(0, last_block, device=ids.device)
    hidden = backbone.hidden_states(
        torch.cat([noisy_ids[:, start:stop], ids[:, :last_block]], dim=1),
        block_diffusion_mask(noisy, clean, block_size),
        torch.cat([noisy, clean])[None],
    )
    asked = masked[:, start:stop]
    logits = backbone.logits(hidden[:, : stop - start][asked])
    return F.cross_entropy(logits, ids[:, start:stop][asked], reduction="none")


def check_length(length: int, block_size: int) -> None:
    """`ValueError` unless whole blocks fill the sequence."""
    if block_size < 1 or length % block_size:
        raise ValueError(f"block size {block_size} does not divide the length {length}; pad the batch to a multiple (layout.collate)")


def block_diffusion_loss(
    backbone: Backbone,
    ids: Tensor,
    targets: Tensor,
    block_size: int,
    mask_id: int,
    mask_rate: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, dict]:
    """The 1/t-weighted loss in nats per target token, and metrics. `ids` and bool `targets` are `[B, L]`."""
    check_length(ids.shape[1], block_size)
    rates = draw_mask_rates(len(ids), ids.shape[1] // block_size, *mask_rate, generator).to(ids.device)
    noisy_ids, masked = corrupt(ids, targets, rates, block_size, mask_id, generator)
    nats = masked_cross_entropy(backbone, ids, noisy_ids, masked, block_size)
    weight = (1 / rates).repeat_interleave(block_size, dim=1)[masked]
    return (weight * nats).sum() / targets.sum().clamp_min(1), {"masked_nats": float(nats.detach().mean()) if len(nats) else 0.0}


@torch.no_grad()
def nll_bound(backbone: Backbone, ids: Tensor, targets: Tensor, block_size: int, mask_id: int, generator: torch.Generator) -> Tensor:
    """One unbiased sample of the bound on −log p(targets | prompt) for each sequence, in nats `[B]`.

    Averaging the 1/t loss over t first leaves a sum over the number n of masked tokens among the m targets of a block:
    ∫ (1/t) C(m,n) tⁿ (1−t)^(m−n) dt = 1/n. So n is drawn uniformly from 1..m and the block's sum is weighted m/n: the
    same expectation, a smaller variance, and exact at block size 1, where the bound is the autoregressive likelihood.
    """
    check_length(ids.shape[1], block_size)
    in_blocks = targets.view(len(ids), -1, block_size)
    available = in_blocks.sum(-1)  # m of every block, [B, blocks]
    chosen = 1 + (torch.rand(available.shape, generator=generator).to(ids.device) * available).floor().long()
    chosen = torch.minimum(chosen, available)
    scores = torch.rand(in_blocks.shape, generator=generator).to(ids.device).masked_fill(~in_blocks, 2.0)
    masked = (scores.argsort(-1).argsort(-1) < chosen[..., None]).view(ids.shape) & targets
    nats = masked_cross_entropy(backbone, ids, ids.masked_fill(masked, mask_id), masked, block_size)
    weight = (available / chosen.clamp_min(1)).repeat_interleave(block_size, dim=1)
    per_token = torch.zeros(ids.shape, device=ids.device)
    per_token[masked] = nats * weight[masked]
    return per_token.sum(1)

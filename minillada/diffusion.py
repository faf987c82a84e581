"""Block masked diffusion: corruption, the training loss and the likelihood bound (LLaDA2.0, arXiv 2512.15745, section 2).

Forward process, linear schedule: within each block every response token is masked independently with probability t.
Loss:  E_t [ (1/t) Σ_blocks Σ_i 1[i masked] · −log p(x_i | x_t of its block, clean earlier blocks) ]  >=  −log p(x | prompt).

Notable choices
- All blocks are trained in one forward on `[x_t ; x_0]`: the noisy half asks, the clean half is the context.
- Noisy blocks that hold only prompt, and the last clean block, influence no loss (see `masks`): they are left out.
- Logits are computed only at masked positions.
- What is asked (`corrupt`), what is answered (`masked_logits`) and how the answers are weighed (`OBJECTIVES`) are separate.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .masks import training_mask
from .model import Backbone
from .objectives import OBJECTIVES, check_objective, right_entropy


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


def replace_tokens(ids: Tensor, shown: Tensor, share: float, image_offset: int, generator: torch.Generator) -> Tensor:
    """Token-to-token noise of LLaDA2.1: `ids` `[B, L]`, in which each token at `shown` is replaced with probability `share`.

    A word becomes a word and a code (from `image_offset` on) a code, both drawn evenly from those that the batch shows.
    From the whole vocabulary nearly every word would become a byte that no caption contains, and nothing could be learned.
    """
    chosen = shown & (torch.rand(ids.shape, generator=generator).to(ids.device) < share)
    noisy, image = ids.clone(), ids >= image_offset
    for modality in (image, ~image):
        pool, places = ids[shown & modality].unique(), chosen & modality
        if len(pool):
            noisy[places] = pool[torch.randint(len(pool), (int(places.sum()),), generator=generator).to(ids.device)]
    return noisy


def masked_logits(
    backbone: Backbone, ids: Tensor, noisy_ids: Tensor, masked: Tensor, block_size: int, documents: Tensor | None = None
) -> Tensor:
    """Logits `[N, V]` at the N masked positions, in the order of `masked.nonzero()`, from one forward pass for all blocks.

    `ids` `[B, L]`; `noisy_ids`, `masked` `[B·K, L]`: K noisy views of every row, next to each other, share its clean copy.
    `documents` `[B, L]` separates texts packed into one row.
    """
    length, views = ids.shape[1], len(masked) // len(ids)
    blocks_asked = masked.any(0).nonzero().flatten() // block_size
    if len(blocks_asked) == 0:
        return torch.zeros(0, 1, device=ids.device, requires_grad=True)  # so that a small batch without masks can be trained on
    start = int(blocks_asked[0]) * block_size
    stop = min((int(blocks_asked[-1]) + 1) * block_size, length)
    last_block = int(blocks_asked[-1]) * block_size
    noisy = torch.arange(start, stop, device=ids.device)
    clean = torch.arange(0, last_block, device=ids.device)
    mask = training_mask(noisy, clean, block_size, views, documents)
    positions = torch.cat([noisy.repeat(views), clean])
    asked = noisy_ids[:, start:stop].reshape(len(ids), -1)
    hidden = backbone.hidden_states(torch.cat([asked, ids[:, :last_block]], dim=1), mask, positions[None])
    return backbone.logits(hidden[:, : asked.shape[1]].reshape(len(masked), stop - start, -1)[masked[:, start:stop]])


def masked_cross_entropy(backbone: Backbone, ids: Tensor, noisy_ids: Tensor, masked: Tensor, block_size: int) -> Tensor:
    """−log p(x_i) in nats at every masked position `[N]`, in the order of `masked.nonzero()`; all arguments are `[B, L]`."""
    return F.cross_entropy(masked_logits(backbone, ids, noisy_ids, masked, block_size), ids[masked], reduction="none")


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
    objective: str = "bound",
    per: str = "block",
    complementary: bool = False,
    confidence_weight: float = 0.0,
    views: int = 1,
    documents: Tensor | None = None,
    edit_noise: float = 0.0,
    text_weight: float = 1.0,
    image_offset: int = 0,
) -> tuple[Tensor, dict]:
    """The loss of the `OBJECTIVES` entry `objective`, by default in nats per target token, and metrics. `ids` and bool `targets` are `[B, L]`.

    `per`: every block draws its own rate, or the blocks of a sequence share one.
    `views`: so many noisy copies of every row are asked in one pass over one clean copy; the loss is their mean.
    `complementary` adds to every view its inverse, whose rate is 1 − t: every target is asked exactly once by the pair, and each
    half keeps the weight of its own rate. The bound needs an interval that is its own mirror image, such as [0.05, 0.95].
    `confidence_weight` λ adds λ · `right_entropy`. `documents` `[B, L]` separates packed texts (`layout.pack`).
    `edit_noise` also teaches to rewrite (LLaDA2.1): this share of the visible targets is replaced (`replace_tokens`), and the mean
    nats of the true tokens at *all* visible targets are added. Asked only where something is wrong, a model would trust nothing.
    `text_weight`: the nats of a text token (id below `image_offset`) count so many times. Between the many codes of images,
    whose nats stay high, the few words that decide an answer are hardly heard.
    """
    check_length(ids.shape[1], block_size)
    check_objective(objective, per, complementary, mask_rate, confidence_weight, views, documents is not None, edit_noise, text_weight)
    blocks = ids.shape[1] // block_size
    answers, asked = ids.repeat_interleave(views, 0), targets.repeat_interleave(views, 0)
    rates = draw_mask_rates(len(answers), blocks if per == "block" else 1, *mask_rate, generator).to(ids.device).expand(-1, blocks)
    noisy_ids, masked = corrupt(answers, asked, rates, block_size, mask_id, generator)
    if complementary:
        inverse = asked & ~masked
        pairs = (
            (noisy_ids, answers.masked_fill(inverse, mask_id)),
            (masked, inverse),
            (rates, 1 - rates),
            (answers, answers),
            (asked, asked),
        )
        noisy_ids, masked, rates, answers, asked = (torch.stack(pair, 1).flatten(0, 1) for pair in pairs)
    if edit_noise:
        noisy_ids = replace_tokens(noisy_ids, asked & ~masked, edit_noise, image_offset, generator)
    logits = masked_logits(backbone, ids, noisy_ids, asked if edit_noise else masked, block_size, documents)
    if edit_noise:
        shown_logits, logits = logits[~masked[asked]], logits[masked[asked]]
    nats = F.cross_entropy(logits, answers[masked], reduction="none")
    in_blocks = (len(answers), blocks, block_size)
    weight, total = OBJECTIVES[objective](masked.view(in_blocks), asked.view(in_blocks), rates[..., None])
    weight = weight.expand(in_blocks).reshape(answers.shape)[masked] * torch.where(answers[masked] < image_offset, text_weight, 1.0)
    loss = (weight * nats).sum() / (total if len(nats) else 1)
    metrics = {"masked_nats": float(nats.detach().mean()) if len(nats) else 0.0}
    if confidence_weight:
        entropy = right_entropy(logits, answers[masked])
        loss, metrics["right_entropy"] = loss + confidence_weight * entropy, float(entropy.detach())
    if edit_noise and len(shown_logits):
        shown = F.cross_entropy(shown_logits, answers[asked & ~masked])
        loss, metrics["shown_nats"] = loss + shown, float(shown.detach())
    return loss, metrics


@torch.no_grad()
def nll_bound(
    backbone: Backbone, ids: Tensor, targets: Tensor, block_size: int, mask_id: int, generator: torch.Generator, samples: int = 1
) -> Tensor:
    """An unbiased estimate of the bound on −log p(targets | prompt) for each sequence, in nats `[B]`, from `samples` masks each.

    Averaging the 1/t loss over t first leaves a sum over the number n of masked tokens among the m targets of a block:
    ∫ (1/t) C(m,n) tⁿ (1−t)^(m−n) dt = 1/n. So n is drawn uniformly from 1..m and the block's sum is weighted m/n: the
    same expectation, a smaller variance, and exact at block size 1, where the bound is the autoregressive likelihood.

    Several samples spread their n: sample s draws from the s-th of `samples` equal parts of 1..m (stratified), so every n
    is as likely as before, but few-masked and many-masked samples balance.
    """
    check_length(ids.shape[1], block_size)
    in_blocks = targets.view(len(ids), -1, block_size)
    available = in_blocks.sum(-1)  # m of every block, [B, blocks]
    total = torch.zeros(len(ids), device=ids.device)
    for sample in range(samples):
        place = (sample + torch.rand(available.shape, generator=generator).to(ids.device)) / samples
        chosen = torch.minimum(1 + (place * available).floor().long(), available)
        scores = torch.rand(in_blocks.shape, generator=generator).to(ids.device).masked_fill(~in_blocks, 2.0)
        masked = (scores.argsort(-1).argsort(-1) < chosen[..., None]).view(ids.shape) & targets
        nats = masked_cross_entropy(backbone, ids, ids.masked_fill(masked, mask_id), masked, block_size)
        weight = (available / chosen.clamp_min(1)).repeat_interleave(block_size, dim=1)
        per_token = torch.zeros(ids.shape, device=ids.device)
        per_token[masked] = nats * weight[masked]
        total += per_token.sum(1)
    return total / samples

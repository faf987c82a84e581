"""Block masked diffusion: corruption, loss and likelihood bound (LLaDA2.0, arXiv 2512.15745, 2).

Forward process, linear schedule: each response token is masked with the probability t of its block.
Loss: E_t [ (1/t) Σ_blocks Σ_i 1[i masked] · −log p(x_i | x_t of its block, clean earlier blocks) ],
which is at least −log p(x | prompt).

Notable choices
- All blocks are trained in one forward pass on `[x_t ; x_0]`: noisy questions, clean context.
- What influences no loss is left out: blocks without a mask at both ends of the noisy half, and the
  clean blocks from the last question on. Logits are computed only at masked positions.
- Masking (`corrupt`), predicting (`masked_logits`) and weighing (`objectives`) are separate.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .batching import Batch
from .config import ObjectiveConfig
from .masks import training_mask
from .model import Backbone
from .objectives import OBJECTIVES, View, at_masked, hide, right_entropy, with_inverses
from .vocab import Vocabulary


def sample_mask_rates(
    rows: int, blocks: int, low: float, high: float, generator: Generator
) -> Tensor:
    """Mask rates t `[rows, blocks]`, uniform on [low, high] and spread evenly over the rows.

    A column has one random offset and a random order of the rows: every t is uniform, and together
    they cover the interval evenly. This costs nothing and helps little (notebook 04): the weighted
    loss has nearly the same mean at any t. Its noise comes from *which* tokens are masked.
    """
    offset = torch.rand(1, blocks, generator=generator)
    order = torch.rand(rows, blocks, generator=generator).argsort(0)
    return low + (high - low) * ((order + offset) / rows)


def corrupt(
    ids: Tensor, targets: Tensor, rates: Tensor, block_size: int, mask_id: int, generator: Generator
) -> View:
    """Mask `targets` `[B, L]` of `ids` `[B, L]`, each with the rate `[B, L/L_B]` of its block."""
    t = rates.repeat_interleave(block_size, dim=1)  # [B, L]
    masked = targets & (torch.rand(t.shape, generator=generator).to(t.device) < t)
    return View(ids.masked_fill(masked, mask_id), masked, rates)


def replace_tokens(
    ids: Tensor, visible: Tensor, share: float, image_offset: int, generator: Generator
) -> Tensor:
    """`ids` `[B, L]` with token-to-token noise (LLaDA2.1): a `share` of those at `visible` changes.

    A word becomes a word and a code (from `image_offset` on) a code, chosen evenly from those at
    `visible` of the whole batch. With the whole vocabulary to choose from, nearly every word would
    become a byte that no caption contains, and nothing could be learned.
    """
    chosen = visible & (torch.rand(ids.shape, generator=generator).to(ids.device) < share)
    noisy, image = ids.clone(), ids >= image_offset
    for modality in (image, ~image):
        pool = ids[visible & modality].unique()
        places = chosen & modality
        if len(pool):
            number = torch.randint(len(pool), (int(places.sum()),), generator=generator)
            noisy[places] = pool[number.to(ids.device)]
    return noisy


def masked_logits(backbone: Backbone, batch: Batch, view: View, block_size: int) -> Tensor:
    """Logits `[N, V]` at the N tokens of `view.masked`, in the order of `view.masked.nonzero()`.

    One forward pass serves all blocks, and the K noisy copies of a row share its clean copy.
    """
    (rows, length), device = batch.ids.shape, batch.ids.device
    copies = len(view.masked) // rows
    asked = view.masked.any(0).nonzero().flatten() // block_size  # numbers of blocks with a mask
    if len(asked) == 0:
        # No logits, but something that can be differentiated: a small batch may hold no mask.
        return torch.zeros(0, 1, device=device, requires_grad=True)

    # 1. Noisy blocks from the first to the last with a mask; clean blocks before the last one.
    start, last = int(asked[0]) * block_size, int(asked[-1]) * block_size
    stop = min(last + block_size, length)
    noisy = torch.arange(start, stop, device=device)
    clean = torch.arange(0, last, device=device)  # the context of the last noisy block

    # 2. A row of input: its K noisy copies behind each other, then the clean one.
    questions = view.noisy[:, start:stop].reshape(rows, -1)  # [B, K·(stop − start)]
    ids = torch.cat([questions, batch.ids[:, :last]], dim=1)
    positions = torch.cat([noisy.repeat(copies), clean])[None]
    mask = training_mask(noisy, clean, block_size, copies, batch.documents)
    hidden = backbone.hidden_states(ids, mask, positions)  # [B, K·(stop − start) + last, H]

    # 3. Logits where a token is masked.
    hidden = hidden[:, : questions.shape[1]].reshape(rows * copies, stop - start, -1)
    return backbone.logits(hidden[view.masked[:, start:stop]])


def masked_cross_entropy(backbone: Backbone, batch: Batch, view: View, block_size: int) -> Tensor:
    """−log p in nats of the N tokens of `view.masked`, `[N]`, in the order of `masked_logits`."""
    answers = view.repeat(batch.ids)[view.masked]
    logits = masked_logits(backbone, batch, view, block_size)
    return F.cross_entropy(logits, answers, reduction="none")


def check_batch(batch: Batch, block_size: int, config: ObjectiveConfig | None = None) -> None:
    """`ValueError` unless whole blocks fill the rows, and packed rows can be weighed."""
    length = batch.ids.shape[1]
    if block_size < 1 or length % block_size:
        raise ValueError(f"block size {block_size} does not divide the length {length}; pad it")
    by_row = config and (config.mask_rate_per == "sequence" or config.objective == "reweighted")
    if by_row and batch.documents is not None:
        raise ValueError(
            "one rate or one weight a sequence needs one sequence a row; do not pack, or use "
            "mask_rate_per=block and another objective"
        )


def sample_view(
    batch: Batch, block_size: int, mask_id: int, config: ObjectiveConfig, generator: Generator
) -> View:
    """The noisy copies that `config` asks for; if `complementary`, each followed by its inverse."""
    ids, targets = (x.repeat_interleave(config.views, dim=0) for x in (batch.ids, batch.targets))
    blocks = ids.shape[1] // block_size  # in a row
    per_row = blocks if config.mask_rate_per == "block" else 1
    rates = sample_mask_rates(len(ids), per_row, *config.mask_rate, generator).to(ids.device)
    view = corrupt(ids, targets, rates.expand(-1, blocks), block_size, mask_id, generator)
    return with_inverses(view, ids, targets, mask_id) if config.complementary else view


def block_diffusion_loss(
    backbone: Backbone,
    batch: Batch,
    vocab: Vocabulary,
    block_size: int,
    config: ObjectiveConfig,
    generator: Generator,
) -> tuple[Tensor, dict[str, float]]:
    """The loss that `config` describes, a scalar, and metrics in nats a token.

    `text_weight`: nats of a text token count so many times. Between the many codes of images, whose
    nats stay high, the few words that decide an answer are hardly heard.
    `edit_noise`: this share of the visible targets is replaced, and the mean nats of *all* visible
    targets are added. A model scored only on wrong tokens would learn to rewrite everything.
    `confidence_weight` times `right_entropy` is added.
    """
    check_batch(batch, block_size, config)
    # 1. Noisy copies; all that follows is [B·K, L].
    view = sample_view(batch, block_size, vocab.mask_id, config, generator)
    answers, targets = view.repeat(batch.ids), view.repeat(batch.targets)
    asked = view.masked
    if config.edit_noise:
        share, offset = config.edit_noise, vocab.image_token_offset
        noisy = replace_tokens(view.noisy, targets & ~view.masked, share, offset, generator)
        view, asked = view._replace(noisy=noisy), targets

    # 2. One forward pass: −log p of every token that is asked.
    logits = masked_logits(backbone, batch, view._replace(masked=asked), block_size)  # [N, V]
    nats = F.cross_entropy(logits, answers[asked], reduction="none")  # [N]
    masked = view.masked[asked]  # [N], False: a visible target
    masked_nats, visible_nats = nats[masked], nats[~masked]
    metrics = {"masked_nats": float(masked_nats.detach().mean()) if masked.any() else 0.0}

    # 3. The nats of masked tokens, weighed; 0 if nothing is masked.
    is_text = answers[view.masked] < vocab.image_token_offset
    masked_nats = masked_nats * torch.where(is_text, config.text_weight, 1.0)
    weigh = OBJECTIVES[config.objective]
    loss = weigh(masked_nats, view, targets) if masked.any() else masked_nats.sum()

    # 4. Further terms.
    if config.confidence_weight:
        entropy = right_entropy(logits[masked], answers[view.masked])
        loss = loss + config.confidence_weight * entropy
        metrics["right_entropy"] = float(entropy.detach())
    if len(visible_nats):
        loss = loss + visible_nats.mean()
        metrics["visible_nats"] = float(visible_nats.detach().mean())
    return loss, metrics


@torch.no_grad()
def nll_bound(
    backbone: Backbone,
    batch: Batch,
    block_size: int,
    mask_id: int,
    generator: Generator,
    samples: int = 1,
) -> Tensor:
    """An unbiased estimate of the bound on −log p(targets | prompt) of every row, in nats `[B]`.

    The 1/t loss, averaged over t, depends only on the number n of masked tokens among the m targets
    of a block: ∫ (1/t) C(m,n) tⁿ (1−t)^(m−n) dt = 1/n. So n is sampled uniformly from 1..m, and the
    block's sum has the weight m/n: the same mean, a smaller variance, and exact at block size 1,
    where the bound is the autoregressive likelihood.

    Sample s takes its n from the s-th of `samples` equal parts of 1..m: samples with few and with
    many masks balance, and every n stays as likely. `ValueError` for fewer than one sample.
    """
    check_batch(batch, block_size)
    if samples < 1:
        raise ValueError(f"the bound is a mean over samples; take 1 or more, not {samples}")
    targets, device = batch.targets.unflatten(1, (-1, block_size)), batch.ids.device
    available = targets.sum(-1)  # m of every block, [B, L/L_B]
    total = torch.zeros(batch.ids.shape, device=device)
    for sample in range(samples):
        # 1. The number n of masks of every block.
        place = (sample + torch.rand(available.shape, generator=generator).to(device)) / samples
        count = torch.minimum(1 + (place * available).floor().long(), available)
        # 2. The n targets with the lowest random scores, [B, L/L_B, L_B].
        scores = torch.rand(targets.shape, generator=generator).to(device)
        rank = scores.masked_fill(~targets, 2.0).argsort(-1).argsort(-1)
        masked = (targets & (rank < count[..., None])).flatten(1)
        # 3. Their nats, times m/n.
        view = hide(batch.ids, masked, block_size, mask_id)
        nats = masked_cross_entropy(backbone, batch, view, block_size)
        total[masked] += nats * at_masked(available / count.clamp_min(1), view)
    return total.sum(1) / samples

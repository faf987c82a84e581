"""Block diffusion: masking, loss and likelihood bound (LLaDA2.0, arXiv 2512.15745, section 2).

Forward process, linear schedule: each response token is masked with the probability t of its block.
Loss: E [ Σ_blocks (1/t) Σ_i −log p(x_i | x_t of the block, clean earlier blocks) ], where t is that
of the block and i runs over its masked tokens. With t from [0, 1] it is ≥ −log p(x | prompt).

Notable choices
- All blocks are trained in one forward pass on `[x_t ; x_0]`: noisy tokens, then clean context.
- Blocks that influence no loss are left out, and logits are computed only at masked positions.
- Masking (`corrupt`), predicting (`masked_logits`) and weighting (`objectives`) are separate.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from .batching import WHOLE, Batch, Portion
from .config import ObjectiveConfig
from .masks import training_mask
from .model import Backbone
from .objectives import OBJECTIVES, View, at_masked, hide, right_entropy, with_inverses
from .vocab import Vocabulary


def sample_mask_rates(
    rows: int, blocks: int, low: float, high: float, generator: Generator
) -> Tensor:
    """Mask rates t `[rows, blocks]`, uniform on [low, high] and spread evenly over the rows.

    Each t is uniform. In a column (one block of every row), [low, high] is cut into `rows` equal
    parts, one for each row's t (stratified sampling). It costs nothing. It helps little in short
    blocks, where most noise is *which* tokens are masked, and much in long ones (notebook 04, A).
    """
    offset = torch.rand(1, blocks, generator=generator)  # of a column, the same in each part
    order = torch.rand(rows, blocks, generator=generator).argsort(0)  # which row takes which part
    return low + (high - low) * ((order + offset) / rows)


def corrupt(
    ids: Tensor, targets: Tensor, rates: Tensor, block_size: int, mask_id: int, generator: Generator
) -> View:
    """Mask `targets` `[B, L]` of `ids` `[B, L]`, each with the rate `[B, L/L_B]` of its block."""
    if rates.shape[-1] * block_size != ids.shape[-1]:
        raise ValueError(f"{ids.shape[-1]} tokens are not {rates.shape[-1]} blocks of {block_size}")
    t = rates.repeat_interleave(block_size, dim=1)  # [B, L], the rate of each token
    masked = targets & (torch.rand(t.shape, generator=generator).to(t.device) < t)
    return View(ids.masked_fill(masked, mask_id), masked, rates)


def replace_tokens(
    ids: Tensor, visible: Tensor, share: float, image_offset: int, generator: Generator
) -> Tensor:
    """`ids` `[B, L]` with token-to-token noise (LLaDA2.1): some right tokens become wrong ones.

    Each token at `visible` is replaced with probability `share` by a random one of those at
    `visible` in the batch, perhaps by itself: text by text, codes (ids from `image_offset` on) by
    codes. A random id of the vocabulary would mostly be a byte that no caption contains.
    """
    chosen = visible & (torch.rand(ids.shape, generator=generator).to(ids.device) < share)
    noisy, image = ids.clone(), ids >= image_offset
    for modality in (image, ~image):  # the kind of token: image code or text
        pool = ids[visible & modality].unique()
        replaced = chosen & modality  # [B, L]
        if len(pool):
            number = torch.randint(len(pool), (int(replaced.sum()),), generator=generator)
            noisy[replaced] = pool[number.to(ids.device)]
    return noisy


def masked_logits(
    backbone: Backbone, batch: Batch, view: View, block_size: int, portion: Portion = WHOLE
) -> Tensor:
    """Logits `[N, V]` at the N tokens of `view.masked`, in the order of `view.masked.nonzero()`.

    One forward pass serves all blocks, and the K noisy copies of a row share its clean copy. Only
    the rows of `portion` are computed. Even a portion without rows uses every weight, because
    processes that share the weights must all ask for them.
    """
    rows, device = len(batch.ids), batch.ids.device
    copies = len(view.masked) // rows  # K
    # Positions that some copy masks; if none, the first block runs: 0 logits, but backward() works.
    needed = view.masked.any(0).nonzero().flatten().tolist() or [0]

    # 1. Noisy blocks from the first to the last with a mask; clean blocks before the last one.
    start = needed[0] // block_size * block_size
    last = needed[-1] // block_size * block_size  # where the last one begins
    stop = last + block_size
    noisy = torch.arange(start, stop, device=device)
    clean = torch.arange(0, last, device=device)  # the context of the last noisy block

    # 2. A row of input: its K noisy copies one after the other, then the clean one.
    noisy_ids = view.noisy[:, start:stop].reshape(rows, -1)  # [B, K·(stop − start)]
    ids = torch.cat([noisy_ids, batch.ids[:, :last]], dim=1)
    masked, documents = view.masked[:, start:stop].reshape(rows, -1), batch.documents
    if portion.of > 1:
        mine = portion.has(torch.arange(rows, device=device))  # [B]
        ids, masked = ids[mine], masked[mine]
        # Without rows no query sees a key, and `tiled_mask` would have no tile to put together.
        documents = documents[mine] if documents is not None and len(ids) else None
    positions = torch.cat([noisy.repeat(copies), clean])[None]  # [1, K·(stop − start) + last]
    mask = training_mask(noisy, clean, block_size, copies, documents)
    hidden = backbone.hidden_states(ids, mask, positions)  # [B, K·(stop − start) + last, H]

    # 3. Logits where a token is masked, in the noisy copies; the clean one comes after them.
    return backbone.logits(hidden[:, : masked.shape[1]][masked])


def masked_cross_entropy(backbone: Backbone, batch: Batch, view: View, block_size: int) -> Tensor:
    """−log p in nats of the N tokens of `view.masked`, `[N]`, in the order of `masked_logits`."""
    return cross_entropy(masked_logits(backbone, batch, view, block_size), batch, view)


def cross_entropy(logits: Tensor, batch: Batch, view: View, portion: Portion = WHOLE) -> Tensor:
    """−log p in nats of the N tokens of `view.masked`, `[N]`, for the `masked_logits` of a portion.

    The nats of tokens in other portions are 0, so the losses of all portions add up: objectives are
    linear in the nats (`right_entropy` is not) and divide by numbers of the whole batch.
    """
    answers = view.repeat(batch.ids)[view.masked]  # [N]
    if portion.of == 1:
        return F.cross_entropy(logits, answers, reduction="none")
    rows = view.repeat(torch.arange(len(batch.ids), device=answers.device))  # [B·K]
    mine = portion.has(rows)[:, None].expand_as(view.masked)[view.masked]  # [N]
    nats = logits.new_zeros(len(answers))
    nats[mine] = F.cross_entropy(logits, answers[mine], reduction="none")
    return nats


def check_batch(batch: Batch, block_size: int, config: ObjectiveConfig | None = None) -> None:
    """`ValueError` unless whole blocks fill the rows, and `config` suits packed rows."""
    length = batch.ids.shape[1]
    if block_size < 1 or length % block_size:
        raise ValueError(f"block size {block_size} does not divide the length {length}; pad it")
    if config is not None and batch.documents is not None:
        check_packed(config)


def check_packed(config: ObjectiveConfig) -> None:
    """`ValueError` for an objective that needs one sequence per row."""
    if config.mask_rate_per == "sequence" or config.objective == "reweighted":
        raise ValueError(
            "one rate or one weight per sequence needs one sequence per row; do not pack, or use "
            "mask_rate_per=block and another objective"
        )


def sample_view(
    batch: Batch, block_size: int, mask_id: int, config: ObjectiveConfig, generator: Generator
) -> View:
    """The noisy copies that `config` asks for; if `complementary`, each followed by its inverse."""
    ids = batch.ids.repeat_interleave(config.views, dim=0)  # [B·K, L]
    targets = batch.targets.repeat_interleave(config.views, dim=0)
    blocks = ids.shape[1] // block_size  # in a row
    columns = blocks if config.mask_rate_per == "block" else 1
    rates = sample_mask_rates(len(ids), columns, *config.mask_rate, generator).to(ids.device)
    view = corrupt(ids, targets, rates.expand(-1, blocks), block_size, mask_id, generator)
    return with_inverses(view, ids, targets, mask_id) if config.complementary else view


def block_diffusion_loss(
    backbone: Backbone,
    batch: Batch,
    vocab: Vocabulary,
    block_size: int,
    config: ObjectiveConfig,
    generator: Generator,
    portion: Portion = WHOLE,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of `config`, and metrics in nats per token; those of all portions add up.

    `text_weight` multiplies the nats of text tokens (not the denominator): images have many codes
    with high nats, and without it the few words that decide an answer would count little.
    `edit_noise`: this share of the visible targets is replaced, and the mean nats of *all* visible
    targets are added. A model scored only on wrong tokens would learn to rewrite everything.
    `confidence_weight` times `right_entropy` is added.
    """
    check_batch(batch, block_size, config)
    # 1. Noisy copies; all that follows is [B·K, L].
    view = sample_view(batch, block_size, vocab.mask_id, config, generator)
    answers, targets = view.repeat(batch.ids), view.repeat(batch.targets)
    scored = view.masked  # [B·K, L], whose nats count
    if config.edit_noise:
        share, offset = config.edit_noise, vocab.image_token_offset
        noisy = replace_tokens(view.noisy, targets & ~view.masked, share, offset, generator)
        view, scored = view._replace(noisy=noisy), targets  # visible targets count, too

    # 2. One forward pass. It predicts what a view calls masked: here all N scored tokens.
    to_predict = view._replace(masked=scored)
    logits = masked_logits(backbone, batch, to_predict, block_size, portion)  # [N, V]
    nats = cross_entropy(logits, batch, to_predict, portion)  # [N]
    is_masked = view.masked[scored]  # [N], False: a visible target, perhaps replaced
    masked_nats, visible_nats = nats[is_masked], nats[~is_masked]
    metrics = {"masked_nats": float(masked_nats.detach().mean()) if is_masked.any() else 0.0}

    # 3. The nats of masked tokens, weighted; 0 if nothing is masked.
    is_text = answers[view.masked] < vocab.image_token_offset
    masked_nats = masked_nats * torch.where(is_text, config.text_weight, 1.0)
    weigh = OBJECTIVES[config.objective]
    loss = weigh(masked_nats, view, targets) if is_masked.any() else masked_nats.sum()

    # 4. Further terms.
    if config.confidence_weight:  # with a WHOLE batch only (`training.distributed.check_shared`)
        entropy = right_entropy(logits[is_masked], answers[view.masked])
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

    Let n of the m targets of a block be masked; there are C(m,n) such masks. Averaged over t, the
    weight of all of them together is ∫ (1/t) C(m,n) tⁿ (1−t)^(m−n) dt = 1/n. Here n is sampled
    uniformly from 1..m, that is with probability 1/m, and the block's sum is weighted by m/n: the
    same mean, but a smaller variance. At block size 1 it is exact, the autoregressive likelihood.

    Sample s takes its n from the s-th of `samples` equal parts of 1..m: all n stay equally likely.
    """
    check_batch(batch, block_size)
    if samples < 1:
        raise ValueError(f"the bound is a mean over samples; take 1 or more, not {samples}")
    device = batch.ids.device
    targets = batch.targets.unflatten(1, (-1, block_size))  # [B, L/L_B, L_B]
    available = targets.sum(-1)  # m of every block, [B, L/L_B]
    total = torch.zeros(batch.ids.shape, device=device)
    for sample in range(samples):
        # 1. The number n of masks of every block, 1 to m; 0 where m is 0.
        uniform = (sample + torch.rand(available.shape, generator=generator).to(device)) / samples
        count = torch.minimum(1 + (uniform * available).floor().long(), available)
        # 2. The n targets with the lowest random scores, [B, L/L_B, L_B]; others get 2.0 and come
        # last. `argsort` lists tokens by score, and `argsort` of the list says each token's rank.
        scores = torch.rand(targets.shape, generator=generator).to(device)
        rank = scores.masked_fill(~targets, 2.0).argsort(-1).argsort(-1)
        masked = (targets & (rank < count[..., None])).flatten(1)
        # 3. Their nats, times m/n.
        view = hide(batch.ids, masked, block_size, mask_id)
        nats = masked_cross_entropy(backbone, batch, view, block_size)
        total[masked] += nats * at_masked(available / count.clamp_min(1), view)
    return total.sum(1) / samples

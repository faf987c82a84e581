"""What one step of each kind of model sees, and what it is asked.

Each function makes the loss of a kind: a function from the step to the number to minimise.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .. import layout
from ..batching import Batch
from ..config import Preset, TrainingConfig
from ..datasets import captions, edits, mnist
from ..datasets.pool import Pool
from ..diffusion import block_diffusion_loss
from ..extras.conversion import block_size_at, mask_noise_at, noisy_mask_embedding
from ..extras.levenshtein import draft_loss
from ..measure.judge import Judge
from ..model import Backbone
from ..tasks.table import all_texts
from ..vocab import Vocabulary
from ..vq import ImageTokenizer
from .loop import Loss, batch_indices, step_generator
from .stream import mixture_batches, shift


def bpe_corpus(every_task: bool = False) -> list[str]:
    """What the text tokenizer learns its merges from.

    Captions and the fixed prompts of the layouts; with `every_task`, what any task can say too.
    """
    partial = [captions.caption(digit) for digit in range(10)]
    systems = layout.SYSTEM_PROMPTS if every_task else ("draw", "describe")
    prompts = [layout.SYSTEM_PROMPTS[name] for name in systems]
    prompts.append(layout.DESCRIBE_QUESTION)
    # Five times, so that they are as frequent as common words of captions.
    texts = captions.all_captions() + partial + prompts * 5
    return texts + all_texts() if every_task else texts


def caption_table(text: Vocabulary) -> Tensor:
    """Piece ids `[N, T]` of every full caption, in the order of `captions.all_captions`."""
    return torch.tensor([text.encode(caption) for caption in captions.all_captions()])


def caption_index(classes: Tensor) -> Tensor:
    """Row of `caption_table` for classes `[B, 3]`: digit, thickness, slant."""
    digit, thickness, slant = classes.unbind(1)
    # `all_captions` counts slants fastest, then thicknesses, then digits.
    style = thickness * len(captions.SLANT_WORDS) + slant
    return digit * len(captions.THICKNESS_WORDS) * len(captions.SLANT_WORDS) + style


def judge_loss(module: Judge, images: mnist.Images, config: TrainingConfig) -> Loss:
    """Cross-entropy of the digit."""
    device = next(module.parameters()).device

    def loss(step: int):
        index = batch_indices(len(images.labels), config.batch_size, step, config.seed)
        pixels, labels = images.floats(index).to(device), images.labels[index].to(device)
        return module.loss(pixels, labels, step_generator(config.seed, step))

    return loss


def image_tokenizer_loss(
    tokenizer: ImageTokenizer,
    images: Tensor,
    caption_ids: Tensor,
    caption_index: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """Training loss of a batch, and its parts; in training mode the codebook moves as well.

    `caption_ids` `[N, T]` and `caption_index` `[B]` as in `vq.CaptionTower`.
    """
    config = tokenizer.config
    quantised = tokenizer.codebook(tokenizer.encoder(images))
    output = tokenizer.decoder(quantised.vectors)
    # 1. Squared error alone gives blurred strokes, and a blurred stroke looks thick. So the
    # differences of neighbouring pixels, the edges, must match, too.
    squared = F.mse_loss(output, images)
    edges = torch.zeros_like(squared)
    for side in (2, 3):
        edges = edges + F.l1_loss(output.diff(dim=side), images.diff(dim=side))
    # 2. Commitment pulls each feature towards its code. The codes have no gradient.
    vectors = rearrange(tokenizer.embedding[quantised.codes], "b h w c -> b c h w")
    commitment = F.mse_loss(quantised.features, vectors)
    total = squared + config.edge_weight * edges + commitment
    psnr = -10 * squared.detach().log10()
    parts = {"psnr_db": float(psnr), "commit": float(commitment.detach())}
    # 3. Alignment: caption and tokens agree.
    if config.alignment_weight > 0:
        alignment = tokenizer.tower(quantised.vectors, caption_ids, caption_index)
        total = total + config.alignment_weight * alignment
        parts["alignment"] = float(alignment.detach())
    if tokenizer.training:
        features = quantised.features.detach()
        parts["revived"] = tokenizer.codebook.update(features, quantised.codes, generator)
    return total, parts


def tokenizer_loss(
    module: ImageTokenizer, images: mnist.Images, text: Vocabulary, config: TrainingConfig
) -> Loss:
    """Reconstruction, and alignment of each image with its own caption among all captions."""
    device = next(module.parameters()).device
    table = caption_table(text).to(device)

    def loss(step: int):
        generator = step_generator(config.seed, step)
        index = batch_indices(len(images.labels), config.batch_size, step, config.seed)
        shown = shift(images.floats(index), generator)  # [B, C, H, W]
        if config.data.operation_share:
            shown = edit_some(shown, config.data.operation_share, generator)
        # Thickness and slant are those of what is shown. They are measured white on black.
        dark = shown.mean((1, 2, 3), keepdim=True) < 0.5
        white_on_black = torch.where(dark, shown, 1 - shown)
        classes = captions.caption_classes(white_on_black, images.labels[index])  # [B, 3]
        right = caption_index(classes).to(device)
        return image_tokenizer_loss(module, shown.to(device), table, right, generator)

    return loss


def edit_some(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Images `[B, C, H, W]`, a share of them edited by a random operation."""
    names = list(edits.OPERATIONS)
    chosen = torch.randint(len(names), (len(images),), generator=generator).tolist()
    edited = (torch.rand(len(images), generator=generator) < share).tolist()
    instructions = [names[c] if e else None for c, e in zip(chosen, edited)]
    return edits.apply(instructions, images)


def backbone_loss(
    backbone: Backbone,
    tokenizer: ImageTokenizer,
    vocab: Vocabulary,
    pool: Pool,
    preset: Preset,
) -> Loss:
    """The block diffusion loss of the batches of a step, averaged by their shares of the rows."""
    config = preset.training
    backbone.activation_checkpointing = config.activation_checkpointing
    if config.compile:
        # The method, not the module: a compiled module has other names for its weights.
        backbone.hidden_states = torch.compile(backbone.hidden_states)  # type: ignore

    def loss(step: int):
        generator = step_generator(config.seed, step)
        batches = mixture_batches(tokenizer, vocab, pool, preset, step)
        # By rows, not by tokens: a task with long responses counts no more than its share.
        rows = sum(len(batch.ids) for batch in batches)
        total, nats = torch.zeros((), device=backbone.lm_head.weight.device), 0.0
        for batch in batches:
            share = len(batch.ids) / rows
            value, metrics = batch_loss(backbone, vocab, batch, preset, step, generator)
            total = total + share * value
            nats += share * metrics["masked_nats"]
        return total, {"masked_nats": nats}

    return loss


def batch_loss(
    backbone: Backbone,
    vocab: Vocabulary,
    batch: Batch,
    preset: Preset,
    step: int,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of one batch with the settings of the preset, and its metrics."""
    config = preset.training
    here = batch.to(backbone.lm_head.weight.device)
    # A schedule may name a block larger than any row; then the row is one block.
    block_size = min(block_size_at(preset, step), batch.ids.shape[1])
    with noisy_mask_embedding(backbone, vocab.mask_id, mask_noise_at(config, step), generator):
        value, metrics = block_diffusion_loss(
            backbone, here, vocab, block_size, config.loss, generator
        )
    if config.loss.planted_errors:
        errors = config.loss.planted_errors
        value = value + draft_loss(backbone, batch, vocab, block_size, errors, generator)
    return value, metrics

"""What one step of each kind of model sees."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import layout
from ..config import Preset, TrainingConfig
from ..datasets import captions, edits, mnist
from ..datasets.pool import mnist_pool
from ..diffusion import block_diffusion_loss
from ..extras.conversion import block_size_at, mask_noise_at, noisy_mask_embedding
from ..extras.levenshtein import draft_loss
from ..tasks.table import all_texts
from ..training.loop import Loss, batch_indices, step_generator
from ..training.stream import mixture_batches, shift
from ..vocab import Vocabulary
from ..vq import ImageTokenizer


def bpe_corpus(every_task: bool = False) -> list[str]:
    """What the text tokenizer learns its merges from: every caption and the fixed prompts of the layouts, or what any task can say."""
    partial = [captions.caption(digit) for digit in range(10)]
    systems = layout.SYSTEM_PROMPTS if every_task else ("draw", "describe")
    prompts = [*(layout.SYSTEM_PROMPTS[name] for name in systems), layout.DESCRIBE_QUESTION] * 5  # as frequent as common caption words
    return captions.all_captions() + partial + prompts + (all_texts() if every_task else [])


def caption_table(text: Vocabulary) -> Tensor:
    """Piece ids `[N, T]` of every full caption, in the order of `captions.all_captions`."""
    return torch.tensor([text.encode(c) for c in captions.all_captions()])


def caption_index(classes: Tensor) -> Tensor:
    """Row of `caption_table` for classes `[B, 3]`."""
    return (classes[:, 0] * len(captions.THICKNESS_WORDS) + classes[:, 1]) * len(captions.SLANT_WORDS) + classes[:, 2]


def judge_loss(module: nn.Module, images: mnist.Images, config: TrainingConfig) -> Loss:
    def loss(step: int):
        index = batch_indices(len(images.labels), config.batch_size, step, config.seed)
        device = next(module.parameters()).device
        return module.loss(images.floats(index).to(device), images.labels[index].to(device), step_generator(config.seed, step))

    return loss


def tokenizer_loss(module: ImageTokenizer, images: mnist.Images, text: Vocabulary, config: TrainingConfig) -> Loss:
    device = next(module.parameters()).device
    table = caption_table(text).to(device)

    def loss(step: int):
        generator = step_generator(config.seed, step)
        index = batch_indices(len(images.labels), config.batch_size, step, config.seed)
        shown = shift(images.floats(index), generator)
        if config.data.operation_share:
            chosen = torch.randint(len(edits.OPERATIONS), (len(index),), generator=generator).tolist()
            spared = (torch.rand(len(index), generator=generator) >= config.data.operation_share).tolist()
            names = list(edits.OPERATIONS)
            shown = edits.apply([None if s else names[c] for s, c in zip(spared, chosen, strict=True)], shown)
        # Thickness and slant are those of what is shown, which can only be measured white on black.
        dark = shown.mean((1, 2, 3), keepdim=True) < 0.5
        right = caption_index(captions.caption_classes(torch.where(dark, shown, 1 - shown), images.labels[index]))
        return module.loss(shown.to(device), table, right.to(device), generator)

    return loss


def backbone_loss(backbone: nn.Module, tokenizer: ImageTokenizer, vocab: Vocabulary, images: mnist.Images, preset: Preset) -> Loss:
    """The block diffusion loss of each batch of a step, for the objective of the preset, averaged by their shares of the rows."""
    device = next(backbone.parameters()).device
    config = preset.training
    pool = mnist_pool(images)
    backbone.activation_checkpointing = config.activation_checkpointing
    if config.compile:
        backbone.hidden_states = torch.compile(backbone.hidden_states)  # a compiled module would have other names for its weights

    def loss(step: int):
        generator = step_generator(config.seed, step)
        total, nats = torch.zeros((), device=device), 0.0
        batches = mixture_batches(tokenizer, vocab, pool, preset, step)
        for batch in batches:
            share = len(batch.ids) / sum(len(b.ids) for b in batches)
            block_size = min(block_size_at(preset, step), batch.ids.shape[1])
            with noisy_mask_embedding(backbone, vocab.mask_id, mask_noise_at(config, step), generator):
                value, metrics = block_diffusion_loss(
                    backbone, batch.to(device), vocab, block_size, config.loss, generator
                )
            if config.loss.planted_errors:
                value = value + draft_loss(backbone, batch, vocab, block_size, config.loss.planted_errors, generator)
            total, nats = total + share * value, nats + share * metrics["masked_nats"]
        return total, {"masked_nats": nats}

    return loss

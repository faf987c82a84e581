"""Examples of every task as a stream of batches."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor, nn

from .. import batching, layout
from ..config import Preset
from ..datasets import captions, edits, mnist
from ..datasets.pool import Pool
from ..extras.conversion import padding_multiple
from ..tasks.base import Example, Picture, Source
from ..tasks.dropping import drop
from ..tasks.table import TASKS
from ..training.loop import batch_indices, step_generator
from ..vocab import Vocabulary
from ..vq import ImageTokenizer


def shift(images: Tensor, generator: torch.Generator, most: int = 2) -> Tensor:
    """Each image `[B, C, H, W]` moved by up to `most` px; captions stay true, which rotation or scaling would not grant."""
    size = images.shape[-1]
    offsets = torch.randint(0, 2 * most + 1, (2, len(images), 1), generator=generator)
    rows, columns = offsets + torch.arange(size)
    padded = nn.functional.pad(images, (most,) * 4)
    return padded[
        torch.arange(len(images))[:, None, None, None],
        torch.arange(images.shape[1])[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def backbone_batches(tokenizer: ImageTokenizer, vocab: Vocabulary, images: mnist.Images, preset: Preset, step: int) -> list[batching.Batch]:
    """One batch a task, or one of packed rows, in the shares of the preset; images are tokenised afresh, shifted at random, at every step.

    Tasks differ in length and in where their response begins; in one batch, each would be computed over the other's range too.
    """
    config = preset.training
    generator = step_generator(config.seed, step)
    index = batch_indices(len(images.labels), config.batch_size, step, config.seed)
    originals = images.floats(index)
    classes = captions.caption_classes(originals, images.labels[index]).tolist()
    device = next(tokenizer.parameters()).device
    codes = tokenizer.encode(shift(originals, generator).to(device)).cpu()
    chance = torch.rand(len(index), 3, generator=generator).tolist()
    draw, describe = [], []
    for i, (digit, thickness, angle) in enumerate(classes):
        text = captions.caption(digit, thickness, angle)
        if math.ceil((i + 1) * config.draw_share) == math.ceil(i * config.draw_share):
            describe.append(layout.describe_sequence(vocab, codes[i], text))
            continue
        drop, partial, which = chance[i]
        if drop < config.unconditional_rate:
            text = None
        elif partial < config.partial_caption_rate:  # "a seven", "a thick seven" and "a seven leaning right" in equal parts
            text = captions.caption(digit, thickness if which > 2 / 3 else None, angle if which < 1 / 3 else None)
        draw.append(layout.draw_sequence(vocab, text, codes[i]))
    multiple = padding_multiple(preset)
    if config.pack_length:
        return [batching.pack(draw + describe, vocab, config.pack_length, multiple)]
    return [batching.collate(sequences, vocab, multiple) for sequences in (draw, describe) if sequences]


def encode_pictures(
    tokenizer: ImageTokenizer, images: mnist.Images, pictures: list[Picture], generator: torch.Generator | None
) -> dict[Picture, Tensor]:
    """Codes `[h, w]` of each picture. With a generator, every image is first moved at random, the same way before and after an edit."""
    if not pictures:
        return {}
    indices = sorted({p.index for p in pictures})
    row = {index: r for r, index in enumerate(indices)}
    originals = images.floats(torch.tensor(indices))
    if generator is not None:
        originals = shift(originals, generator)
    pictures = sorted(set(pictures), key=lambda p: (p.index, p.operation or ""))
    shown = edits.apply([p.operation for p in pictures], originals[[row[p.index] for p in pictures]])
    device = next(tokenizer.parameters()).device
    codes = torch.cat([tokenizer.encode(part.to(device)).cpu() for part in shown.split(500)])
    return dict(zip(pictures, codes, strict=True))


def write_example(vocab: Vocabulary, example: Example, codes: dict[Picture, Tensor]) -> layout.Sequence:
    """The training sequence of an example whose pictures are known as codes."""
    user, response = ([codes.get(part, part) if isinstance(part, Picture) else part for part in side] for side in example[1:3])
    return layout.sequence(vocab, example.system, user, response, example.given)


def mixture_batches(tokenizer: ImageTokenizer, vocab: Vocabulary, pool: Pool, preset: Preset, step: int) -> list[batching.Batch]:
    """Examples of every task, drawn by the shares of the mixture, gathered by shape or packed into rows."""
    config = preset.training
    rng = random.Random(config.seed * 1_000_003 + step)
    source = Source(pool, rng, config.varied, config.held_out)
    tasks, shares = zip(*config.mixture, strict=True)
    chosen = [
        drop(TASKS[task].make(source), rng, config.unconditional_rate)
        for task in rng.choices(tasks, shares, k=config.batch_size)
    ]
    pictures = [part for example in chosen for part in example.user + example.response if isinstance(part, Picture)]
    codes = encode_pictures(tokenizer, pool.images, pictures, step_generator(config.seed, step))
    sequences, multiple = [write_example(vocab, example, codes) for example in chosen], padding_multiple(preset)
    if config.pack_length:
        return [batching.pack(sequences, vocab, config.pack_length, multiple)]
    return batching.by_shape(sequences, vocab, multiple)

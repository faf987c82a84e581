"""Examples of every task as a stream of batches."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from .. import batching, layout
from ..config import Preset
from ..datasets import edits, mnist
from ..datasets.pool import Pool
from ..extras.conversion import padding_multiple
from ..tasks.base import Example, Picture, Source
from ..tasks.dropping import drop
from ..tasks.table import TASKS
from ..training.loop import step_generator
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
    source = Source(pool, rng, config.data.varied, config.data.held_out)
    tasks, shares = zip(*config.data.mixture, strict=True)
    chosen = [
        drop(TASKS[task].make(source), rng, config.data.unconditional_rate)
        for task in rng.choices(tasks, shares, k=config.batch_size)
    ]
    pictures = [part for example in chosen for part in example.user + example.response if isinstance(part, Picture)]
    codes = encode_pictures(tokenizer, pool.images, pictures, step_generator(config.seed, step))
    sequences, multiple = [write_example(vocab, example, codes) for example in chosen], padding_multiple(preset)
    if config.data.pack_length:
        return [batching.pack(sequences, vocab, config.data.pack_length, multiple)]
    return batching.by_shape(sequences, vocab, multiple)

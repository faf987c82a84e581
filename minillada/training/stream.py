"""Examples of every task as a stream of batches.

Notable choices
- The examples of a step depend on the seed and the step alone.
- Codes of digits are computed while training, because every image is moved at random first. Those
  of photos are stored: without `moves`, only edited photos are computed, and nothing is moved.
- A GPU trains faster than codes are computed one step after the other. So the codes of all images,
  in several random positions, can be computed before the first step (`moves`).
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .. import batching, layout
from ..config import Preset
from ..datasets import edits
from ..datasets.images import Images
from ..datasets.pool import Pool
from ..extras.conversion import padding_multiple
from ..tasks.base import Example, Picture, Source, pictures_of
from ..tasks.dropping import drop
from ..tasks.table import TASKS_OF
from ..vocab import Vocabulary
from ..vq import ImageTokenizer
from .loop import step_generator

AT_ONCE = 1000  # images whose codes are computed together


def shift(images: Tensor, generator: torch.Generator, most: int = 2) -> Tensor:
    """Each image `[B, C, S, S]` moved at random: up to `most` px up or down, and left or right.

    Captions hardly ever change; after a rotation or another scale they often would.
    """
    size = images.shape[-1]
    # What enters at the edge mirrors what is there: black for digits, more of the same for photos.
    padded = nn.functional.pad(images, (most,) * 4, mode="reflect")
    down, right = torch.randint(0, 2 * most + 1, (2, len(images)), generator=generator)
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)  # [B, C, down, right, H, W], no copy
    return windows[torch.arange(len(images)), :, down, right]  # [B, C, H, W]


def at_random(images: Tensor, generator: torch.Generator, flips: bool) -> Tensor:
    """Each image moved at random; with `flips`, half of them are mirrored, too."""
    images = shift(images, generator)
    if flips:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images[mirrored] = images[mirrored].flip(-1)
    return images


def encode_pictures(
    tokenizer: ImageTokenizer,
    images: Images,
    pictures: list[Picture],
    generator: torch.Generator | None,
    flips: bool = False,
) -> dict[Picture, Tensor]:
    """Codes `[h, w]` of each picture.

    With a generator, every image is first moved at random, in one way for all pictures of it; with
    `flips` half of them are mirrored, too.
    """
    if not pictures:
        return {}
    # 1. every image once, moved
    indices = sorted({picture.index for picture in pictures})
    originals = images.floats(torch.tensor(indices))
    if generator is not None:
        originals = at_random(originals, generator, flips)
    # 2. every picture once, edited
    pictures = sorted(set(pictures), key=lambda picture: (picture.index, picture.operation or ""))
    row_of = {index: row for row, index in enumerate(indices)}
    rows = [row_of[picture.index] for picture in pictures]
    shown = edits.apply([picture.operation for picture in pictures], originals[rows])
    # 3. codes [N, h, w]
    device = next(tokenizer.parameters()).device
    parts = [tokenizer.encode(part.to(device)).cpu() for part in shown.split(500)]
    return dict(zip(pictures, torch.cat(parts)))


@torch.no_grad()
def moved_codes(
    tokenizer: ImageTokenizer, pool: Pool, moves: int, seed: int, edited: bool = True
) -> Tensor:
    """Codes of every image, moved at random `moves` times: `[moves, operations, N, h, w]`.

    The first operation is none; where images are `edited`, the others are those of the data set.
    """
    operations = [None, *pool.data.operations] if edited else [None]
    images = pool.images.to(tokenizer.embedding.device)
    grid = tokenizer.grid
    # Most codebooks fit into 16 bits, which take a quarter of the memory of the usual 64.
    small = torch.int16 if len(tokenizer.embedding) <= 2**15 else torch.int32
    table = torch.empty(moves, len(operations), len(pool), grid, grid, dtype=small)
    for move in tqdm(range(moves), "encoding moved images", leave=False):
        generator = step_generator(seed, move)
        for rows in torch.arange(len(pool)).split(AT_ONCE):
            shown = at_random(images.floats(rows), generator, pool.data.flips)
            for place, name in enumerate(operations):
                seen = edits.apply([name] * len(shown), shown)
                table[move, place, rows] = tokenizer.encode(seen).to(small).cpu()
    return table


def looked_up(
    table: Tensor, operations: list[str], pictures: list[Picture], generator: torch.Generator
) -> dict[Picture, Tensor]:
    """Codes `[h, w]` of each picture from `moved_codes`; every image is moved in one way a step."""
    indices = sorted({picture.index for picture in pictures})
    moves = torch.randint(len(table), (len(indices),), generator=generator).tolist()
    move_of = dict(zip(indices, moves))
    place_of = {name: place for place, name in enumerate([None, *operations])}
    codes = {}
    for picture in pictures:
        found = table[move_of[picture.index], place_of[picture.operation], picture.index]
        codes[picture] = found.long()
    return codes


def picture_codes(
    tokenizer: ImageTokenizer,
    pool: Pool,
    pictures: list[Picture],
    generator: torch.Generator,
    fresh: bool = False,
) -> dict[Picture, Tensor]:
    """Codes `[h, w]` of each picture: those of `moved_codes`, or stored ones, or fresh ones.

    Fresh codes need pixels and some time, and show every image in many positions.
    """
    if pool.moved is not None:
        return looked_up(pool.moved, list(pool.data.operations), pictures, generator)
    if fresh or pool.codes is None:
        return encode_pictures(tokenizer, pool.images, pictures, generator, pool.data.flips)
    edited = [picture for picture in pictures if picture.operation is not None]
    # Pixels are read for edits alone. Stored codes are those of images that were not moved.
    codes = encode_pictures(tokenizer, pool.images, edited, None) if edited else {}
    for picture in pictures:
        if picture.operation is None:
            codes[picture] = pool.codes[picture.index]
    return codes


def write_example(
    vocab: Vocabulary, example: Example, codes: dict[Picture, Tensor]
) -> layout.TokenSequence:
    """The training sequence of an example whose pictures are known as codes."""

    def in_codes(parts: list) -> list[layout.Part]:
        return [codes[part] if isinstance(part, Picture) else part for part in parts]

    user, response = in_codes(example.user), in_codes(example.response)
    return layout.sequence(vocab, example.system, user, response, example.given)


def mixture_batches(
    tokenizer: ImageTokenizer, vocab: Vocabulary, pool: Pool, preset: Preset, step: int
) -> list[batching.Batch]:
    """The batches of a step: examples in the shares of the mixture, grouped by shape or packed."""
    training, data = preset.training, preset.training.data
    rng = random.Random(training.seed * 1_000_003 + step)
    source = Source(pool, rng, data.varied, data.held_out, data.many_wordings)
    # 1. examples, some in the forms that guidance needs
    tasks = [task for task, _ in data.mixture]
    shares = [share for _, share in data.mixture]
    known = TASKS_OF[pool.data.name]
    examples = []
    for task in rng.choices(tasks, shares, k=training.batch_size):
        examples.append(drop(known[task].make(source), rng, data.unconditional_rate))
    # 2. their pictures as codes
    pictures = []
    for example in examples:
        pictures += pictures_of(example.user) + pictures_of(example.response)
    generator = step_generator(training.seed, step)
    codes = picture_codes(tokenizer, pool, pictures, generator, data.fresh_codes)
    # 3. sequences, and batches of them
    sequences = [write_example(vocab, example, codes) for example in examples]
    multiple = padding_multiple(preset)
    if data.pack_length:
        return [batching.pack(sequences, vocab, data.pack_length, multiple)]
    return batching.by_shape(sequences, vocab, multiple)

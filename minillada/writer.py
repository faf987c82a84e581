"""From prompts of any length to ids, images and texts: what the tasks of `uni.py` are made of.

Notable choices
- Prompts of equal lengths run together, with their guidance branches (the same prompts with
  something left out). Blocks are counted from position 0, so padding would move their borders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .asking import Images, read_codes, read_images
from .commit import Tokens, row_generators
from .config import SamplingConfig
from .guidance import Pruner
from .layout import Story, sides
from .model import Backbone
from .painting import BATCH_SIZE, load_painter, paint
from .sampler import Generation, Recorder, generate
from .settings import changed
from .vocab import BOI, IMAGE, Vocabulary
from .vq import ImageTokenizer

# Drawing samples, for variety, and uses guidance; describing takes the most likely word (notebook
# 08 plots both). The last block is not filled beyond the answer (`fill_tail`): an image has exactly
# h · w codes, and extra codes would influence the real ones. Threshold 1 commits by quota alone.
DRAW = SamplingConfig(steps=8, temperature=1.0, threshold=1.0, guidance=1.5, fill_tail=False)
DESCRIBE = SamplingConfig(steps=16, temperature=0.0, threshold=0.95, fill_tail=False)

# What one answer is made from: a prompt, then the prompts that guidance compares it with.
Prompts = tuple[list[int], ...]


class Traced(NamedTuple):
    """Images, and how they came about."""

    images: Tensor  # [B, C, H, W] in [0, 1], on the CPU
    codes: Tensor  # [B, h, w]
    generation: Generation  # every step of the first batch (`Writer.write`)


class Writer(nn.Module):
    """Backbone, image tokenizer and vocabulary that were trained together.

    `info` is the JSON that belongs to the backbone. `write` and `fill_images` return what was
    written and the record (`Generation`) of how it was decoded, the other methods no record.
    """

    def __init__(
        self,
        backbone: Backbone,
        tokenizer: ImageTokenizer,  # or whatever keeps the protocol `vq.Tokenizer`
        vocab: Vocabulary,
        info: dict | None = None,
    ):
        super().__init__()
        # A codebook of another size would read other ids as images, without any error.
        ids = backbone.config.vocab_size
        if ids != vocab.size:
            raise ValueError(
                f"the backbone has {ids} token ids but text and image codes make {vocab.size}; "
                "load a tokenizer and a backbone that were trained together"
            )
        self.backbone, self.tokenizer, self.vocab = backbone, tokenizer, vocab
        self.info = info or {}
        # Decodes in another way: `extras/graphs.py` on a GPU, or `extras/sprint.py`.
        self.recorder: Recorder | Pruner | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.lm_head.weight.device

    def sampling(self, base: SamplingConfig, **changes) -> SamplingConfig:
        """`base` with this backbone's block size and every change that is not None."""
        given = {name: value for name, value in changes.items() if value is not None}
        return changed(base, **{"block_size": self.backbone.config.block_size, **given})

    def own(self, base: SamplingConfig, key: str) -> SamplingConfig:
        """`base` with the model's own settings: those its JSON has under `drawing` or `editing`."""
        return changed(base, **self.info.get(key, {}))

    def tokens(self, allowed: Tensor | None = None, stop: int | None = None) -> Tokens:
        """The special ids for `sampler.generate`, and which ids (bool `[V]`) may be written."""
        return Tokens(self.vocab.mask_id, self.vocab.eos_id, stop, allowed)

    def write(
        self,
        rows: Sequence[Prompts],
        answer: int | Tensor,
        config: SamplingConfig,
        tokens: Tokens,
        generators: Sequence[torch.Generator] | None = None,  # one for each row
        cache: bool = True,  # False computes everything anew in each step, for comparison
    ) -> tuple[list[list[int]], Generation]:
        """The ids after the prompt of each row, and the record of the first batch: for figures.

        `answer` says how many ids. Or it is `[rows, length]` itself: ids that stay, and the mask's
        id where one is to be found. Without `generators` row r uses seed r. `ValueError` for NaN.
        """
        if generators is None:
            generators = row_generators(0, len(rows))
        written: list[list[int]] = [[] for _ in rows]
        record: Generation | None = None
        way = self.recorder if cache and self.recorder else cache
        for batch in equal_lengths(rows, BATCH_SIZE):
            # 1. `zip(*…)` turns tuples of rows into columns: all prompts, then each branch.
            columns = zip(*[rows[i] for i in batch])
            # A column is a tensor [rows, length], because its prompts have equal lengths.
            prompt, *branches = [torch.tensor(column, device=self.device) for column in columns]
            # 2. each row takes its own generator along, and its ids go back to its place
            theirs = [generators[i] for i in batch]
            part = answer if isinstance(answer, int) else answer[batch].to(self.device)
            made = generate(self.backbone, prompt, part, config, tokens, branches, theirs, way)
            # Among NaN the largest is id 0, the end of a text: the answer would just be empty.
            if any(step.confidence.isnan().any() for step in made.steps):
                raise ValueError("the model predicts no numbers (NaN), so its weights are damaged")
            record = record or made._replace(rows=batch)
            for i, ids in zip(batch, made.ids.tolist()):
                written[i] = ids
        # Without any row there is no batch, and an empty record.
        length = answer if isinstance(answer, int) else answer.shape[1]
        return written, record or Generation(torch.zeros(0, length, dtype=torch.long), [])

    def fill_images(
        self,
        rows: Sequence[Prompts],
        config: SamplingConfig,
        generators: Sequence[torch.Generator],  # they move on, so the next image differs
        cache: bool = True,
        given: Tensor | None = None,  # ids [B, h·w] that stay, and the mask's id elsewhere
    ) -> tuple[Tensor, Generation]:
        """The codes `[B, h, w]` after prompts that end with an image's header, and the record."""
        # An image is exactly height · width codes, so no end has to be found.
        height, width = sides(self.tokenizer.grid)
        tokens = self.tokens(self.vocab.is_image())
        answer = height * width if given is None else given
        written, record = self.write(rows, answer, config, tokens, generators, cache)
        ids = torch.tensor(written, dtype=torch.long, device="cpu").view(len(rows), height, width)
        return self.vocab.codes(ids).to(self.device), record

    def reply(self, prompts: list[list[int]], length: int, config: SamplingConfig) -> list[str]:
        """A text of at most `length` tokens after each prompt, without image codes."""
        tokens = self.tokens(self.vocab.is_text())
        written, _ = self.write([(prompt,) for prompt in prompts], length, config, tokens)
        eos = self.vocab.eos_id  # the sampler fills everything after the end with it
        return [self.vocab.decode(i for i in ids if i != eos) for ids in written]

    def write_until_image(
        self, prompts: list[list[int]], length: int, config: SamplingConfig
    ) -> tuple[list[list[int]], list[list[int]]]:
        """At most `length` ids of text after each prompt, and the header of the image that begins.

        The header is empty if no image begins. The block size is that of the backbone, not that of
        `config`. No token is forbidden here: if the text ends inside a block, the rest of the block
        already belongs to the image. This is cut off: `fill_images` draws it anew, with guidance.
        """
        begin, image = self.vocab.markup(BOI)[0], self.vocab.markup(IMAGE)[0]
        # The first of these, or the first code, ends the text, whichever the model wrote.
        ends = {begin, image, self.vocab.eos_id}
        tokens = self.tokens(stop=begin)  # a row also ends where an image begins
        written, _ = self.write([(ids,) for ids in prompts], length, self.sampling(config), tokens)
        texts, headers = [], []
        for ids in written:
            text = []  # those before the end
            for token in ids:
                if token in ends or token >= self.vocab.image_token_offset:
                    break
                text.append(token)
            texts.append(text)
            headers.append(ids[len(text) : ids.index(begin) + 1] if begin in ids else [])
        return texts, headers

    def continue_stories(
        self, stories: list[Story], length: int, config: SamplingConfig
    ) -> list[bool]:
        """Add a text to each story; returns which of them go on with an image."""
        # The prompt of a story holds all of its parts so far.
        prompts = [story.so_far() for story in stories]
        texts, headers = self.write_until_image(prompts, length, config)
        for story, text in zip(stories, texts):
            story.parts.append(text)
        return [bool(header) for header in headers]

    def encode(self, images: Images) -> Tensor:
        """Codes `[B, h, w]` of images `[B, C, H, W]`, in batches; errors of `read_images`."""
        batches = read_images(images, self.tokenizer).split(BATCH_SIZE)
        return torch.cat([self.tokenizer.encode(part.to(self.device)) for part in batches])

    def decode(self, codes: Tensor) -> Tensor:
        """Images `[B, C, H, W]` from codes `[B, h, w]`, in batches; errors of `read_codes`."""
        batches = read_codes(codes, self.tokenizer).split(BATCH_SIZE)
        parts = [self.tokenizer.decode(part.to(self.device)) for part in batches]
        return torch.cat(parts).float().cpu()  # what plots and files need

    def paint(
        self,
        codes: Tensor,
        painter: str | Path = "flow",
        steps: int | None = None,
        seed: int = 0,
        sketch: Tensor | None = None,
    ) -> Tensor:
        """Images `[B, C, H, W]` on the CPU from codes `[B, h, w]`, by one of three painters.

        `conv`: `decode`, the tokenizer's decoder. `flow`: many small steps. `turbo`: a few jumps.
        Any other name is that of painter weights. `sketch` is `decode(codes)`, if it is at hand.
        """
        sketch = self.decode(codes) if sketch is None else sketch
        if painter == "conv":
            if steps is not None:
                raise ValueError("the convolutional decoder has no steps; leave painter_steps out")
            return sketch
        network, _ = load_painter(painter, self.info, self.device)
        return paint(network, codes, sketch, steps, seed).cpu()

    def check_painter(self, painter: str | Path, steps: int | None) -> None:
        """Errors of `paint`, found before codes are written."""
        none = torch.zeros(0, *sides(self.tokenizer.grid), dtype=torch.long, device="cpu")
        self.paint(none, painter, steps, sketch=none)


def equal_lengths(rows: Sequence[Prompts], batch_size: int) -> list[list[int]]:
    """Batches of row numbers. In one, all prompts are equally long; so are all first branches, …"""
    # 1. Rows with the same lengths are a group. The group of row 0 stays the first one.
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        lengths = tuple(len(prompt) for prompt in row)
        groups.setdefault(lengths, []).append(index)
    # 2. large groups are cut
    batches = []
    for group in groups.values():
        for first in range(0, len(group), batch_size):
            batches.append(group[first : first + batch_size])
    return batches

"""`minillada.load(…)` and what the loaded model can do: draw, describe, answer, edit, think before drawing, interleave.

Notable choices
- Every task is a prompt of `layout` and one call of `sampler.generate`, or several in turn; no task has code of its own that
  looks at what is asked. An unknown instruction is answered as the model answers it.
- Prompts of equal lengths are run together, with all their guidance branches.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import checkpoint, layout
from .config import SamplingConfig
from .model import Backbone
from .sampler import Generation, Tokens, generate, row_generators
from .settings import changed
from .vocab import BOI, IMAGE, Vocabulary, load_vocabulary
from .vq import ImageTokenizer

# Drawing samples (variety) with guidance; describing takes the most likely word. Notebook 08 plots these choices. Neither fills
# the tail of its last block: a picture is over when its codes are, and codes behind it would only mislead those in front.
DRAW = SamplingConfig(steps=8, temperature=1.0, threshold=1.0, guidance=1.5, fill_tail=False)


DESCRIBE = SamplingConfig(steps=16, temperature=0.0, threshold=0.95, fill_tail=False)


ANSWER_LENGTH = 16  # the longest caption has 12 tokens with its end; as many steps as tokens let one token be committed a step


# An exact edit has one right answer, so it takes the most likely code, and guidance has nothing to add; a story needs it more
# than a single drawing. Both were chosen on training images (docs/log.md).
EDIT = SamplingConfig(steps=8, temperature=0.0, threshold=1.0, fill_tail=False)


INTERLEAVE = SamplingConfig(steps=8, temperature=0.5, threshold=1.0, guidance=2.0, fill_tail=False)


THINKING_LENGTH = 96  # the longest trace counts nine numbers


# A thought is written in order: by confidence, a conclusion may be committed before what it should follow from (docs/log.md).
THINK = changed(DESCRIBE, threshold=1.0, strategy="left_to_right")


MAX_IMAGES = 10  # of an interleaved answer, as officially


BATCH_SIZE = 250


Branched = tuple[list[int], ...]  # a prompt, then the prompts that guidance compares it with


class Traced(NamedTuple):
    """A drawing with the generation it came from: images `[B, C, H, W]`, codes `[B, h, w]`."""

    images: Tensor
    codes: Tensor
    generation: Generation


class Uni(nn.Module):
    """One model for both directions. `info` is the JSON that was shipped with the backbone."""

    def __init__(self, backbone: Backbone, tokenizer: ImageTokenizer, vocab: Vocabulary, info: dict | None = None):
        super().__init__()
        if backbone.config.vocab_size != vocab.size:
            raise ValueError(
                f"the backbone has {backbone.config.vocab_size} token ids but text and image codes make {vocab.size}; "
                "load a tokenizer and a backbone that were trained together"
            )
        self.backbone, self.tokenizer, self.vocab, self.info = backbone, tokenizer, vocab, info or {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.lm_head.weight.device

    def sampling(self, base: SamplingConfig, **changes) -> SamplingConfig:
        """`base` with this backbone's block size and every change that is not None."""
        return changed(base, **{"block_size": self.backbone.config.block_size} | {k: v for k, v in changes.items() if v is not None})

    def tokens(self, allowed: Tensor | None = None, stop: int | None = None) -> Tokens:
        """The special ids for `sampler.generate`, and which ids (bool `[V]`) may be written."""
        return Tokens(self.vocab.mask_id, self.vocab.eos_id, stop, allowed)

    def write(
        self,
        rows: list[Branched],
        length: int,
        config: SamplingConfig,
        tokens: Tokens,
        generators: list[torch.Generator] | None = None,
        cache: bool = True,
    ) -> tuple[list[list[int]], Generation | None]:
        """`length` ids after the prompt of each row, and the record of the first batch.

        Prompts may differ in length. `generators` are those of the rows (None: row r uses seed r).
        """
        generators = generators or row_generators(0, len(rows))
        written: list[list[int]] = [[] for _ in rows]
        record = None
        for batch in equal_lengths(rows, BATCH_SIZE):
            # One tensor [rows, length] for the prompts, and one for each branch.
            columns = zip(*[rows[i] for i in batch])
            prompt, *others = [torch.tensor(column, device=self.device) for column in columns]
            source = [generators[i] for i in batch]
            generation = generate(
                self.backbone, prompt, length, config, tokens, others, source, cache
            )
            record = record or generation
            for i, ids in zip(batch, generation.ids.tolist()):
                written[i] = ids
        return written, record

    def fill_images(
        self,
        rows: list[Branched],
        config: SamplingConfig,
        generators: list[torch.Generator],
        cache: bool = True,
    ) -> tuple[Tensor, Generation | None]:
        """The codes `[B, h, w]` after prompts that end with an image's header, and the record."""
        grid = self.tokenizer.grid
        tokens = self.tokens(self.vocab.is_image())
        ids, record = self.write(rows, grid * grid, config, tokens, generators, cache)
        return self.vocab.codes(torch.tensor(ids, device=self.device)).view(-1, grid, grid), record

    def draw(self, captions: list[str], *, seed: int = 0, **sampling) -> Tensor:
        """Images `[B, C, H, W]` in [0, 1], one for each caption; float32 on the CPU.

        Any field of `SamplingConfig` may be given: `steps` (a block), `guidance`, `temperature`, `top_k`, `top_p`,
        `threshold`, `block_size`. Raises `ValueError` for an empty caption or settings that cannot decode.
        """
        if not captions:
            return self.no_images()
        return self.draw_traced(captions, seed=seed, **sampling).images

    def draw_traced(self, captions: list[str], *, seed: int = 0, use_cache: bool = True, **sampling) -> Traced:
        """`draw`, with codes and the record of every step; captions must have equally many tokens to share a record."""
        if isinstance(captions, str):
            raise ValueError("captions must be a list of strings, for example ['a thick seven leaning right']")
        if not captions:
            raise ValueError("there is no caption to draw; give at least one")
        grid = self.tokenizer.grid
        prompts = [layout.draw_prompt(self.vocab, c, grid) for c in captions]
        unconditional = [layout.draw_prompt(self.vocab, None, grid)] * len(prompts)
        rows = list(zip(prompts, unconditional))
        codes, generation = self.fill_images(
            rows, self.sampling(DRAW, **sampling), row_generators(seed, len(rows)), use_cache
        )
        return Traced(self.decode(codes), codes, generation)

    def describe(self, images: Tensor, *, question: str = layout.DESCRIBE_QUESTION, **sampling) -> list[str]:
        """A caption for each image `[B, C, H, W]` in [0, 1]. Raises `ValueError` for a wrong size, range or NaN."""
        if len(images) == 0:
            return []
        self.tokenizer.check_images(images)
        return self.describe_codes(self.encode(images), question=question, **sampling)

    def describe_codes(self, codes: Tensor, *, question: str = layout.DESCRIBE_QUESTION, **sampling) -> list[str]:
        """A caption for each grid of codes `[B, h, w]`."""
        prompts = [layout.describe_prompt(self.vocab, c, question) for c in codes.cpu()]
        return self.reply(prompts, **sampling)

    def reply(self, prompts: list[list[int]], **sampling) -> list[str]:
        """A short text after each prompt. It is text: image codes would end in an error when decoded."""
        config = self.sampling(DESCRIBE, **sampling)
        tokens = self.tokens(self.vocab.is_text())
        answers, _ = self.write([(p,) for p in prompts], ANSWER_LENGTH, config, tokens)
        return [self.vocab.decode(i for i in row if i != self.vocab.eos_id) for row in answers]

    def answer(self, images: Tensor | list, questions: str | list[str], **sampling) -> list[str]:
        """An answer to each question about its image, or about its tuple of images.

        `images`: `[B, C, H, W]`, or a list of images `[C, H, W]` and tuples of them; one question may serve all.
        """
        shown = self.shown(images)
        return self.reply(
            [layout.prompt(self.vocab, "describe", [*c, q]) for c, q in zip(shown, one_each(questions, shown), strict=True)], **sampling
        )

    def edit(self, images: Tensor | list, instructions: str | list[str], *, seed: int = 0, **sampling) -> Tensor:
        """Each image, or tuple of images, after its instruction: `[B, C, H, W]` on the CPU. `images` as in `answer`.

        Three-way guidance: `guidance_text` compares with no instruction, `guidance_image` that with no image (0: not at all).
        """
        shown = self.shown(images)
        if not shown:
            return self.no_images()
        return self.edit_traced(shown, one_each(instructions, shown), seed=seed, **sampling).images

    def edit_traced(
        self, shown: list[list[Tensor]], instructions: list[str], *, seed: int = 0, guidance_text: float | None = None, **sampling
    ) -> Traced:
        """`edit` of images that are codes already, with codes and the record of every step."""
        grid, vocab = self.tokenizer.grid, self.vocab
        users = [[*codes, text] for codes, text in zip(shown, instructions, strict=True)]
        full, no_text, no_image = (
            [layout.prompt(vocab, "edit", part(user), grid) for user in users]
            for part in (lambda user: user, lambda user: [*user[:-1], None], lambda user: user[-1:])
        )
        config = self.sampling(EDIT, guidance=guidance_text, **sampling)
        rows = list(zip(full, no_text, no_image))
        codes, generation = self.fill_images(rows, config, row_generators(seed, len(rows)))
        return Traced(self.decode(codes), codes, generation)

    def think_and_draw(self, prompts: list[str], *, seed: int = 0, **sampling) -> tuple[list[str], Tensor]:
        """A thinking text for each prompt, and the image drawn with that text as part of its prompt. `sampling` is the image's."""
        if not (prompts := listed(prompts)):
            return [], self.no_images()
        grid, vocab = self.tokenizer.grid, self.vocab
        begun = [layout.prompt(vocab, "think", [p]) for p in prompts]
        thoughts, _ = self.write_until_image(begun, THINKING_LENGTH, THINK)
        header = layout.image_header(vocab, grid, grid)
        full = [begin + thought + header for begin, thought in zip(begun, thoughts, strict=True)]
        unconditional = [layout.prompt(vocab, "think", [None], grid)] * len(full)
        rows = list(zip(full, unconditional))
        config = self.sampling(DRAW, **sampling)
        codes, _ = self.fill_images(rows, config, row_generators(seed, len(rows)))
        return [vocab.decode(thought) for thought in thoughts], self.decode(codes)

    def interleave(self, prompt: str, *, seed: int = 0, **sampling) -> list[str | Tensor]:
        """Text and images `[C, H, W]` in turn, at most `MAX_IMAGES` of them. `sampling` is that of the images."""
        return self.interleave_all([prompt], seed=seed, **sampling)[0]

    def interleave_all(self, prompts: list[str], *, seed: int = 0, **sampling) -> list[list[str | Tensor]]:
        """`interleave` for many prompts at once, a round of text and a round of images at a time.

        Guidance compares the first image with no prompt; later ones in three ways, without any words and without any images.
        """
        prompts, grid, vocab = listed(prompts), self.tokenizer.grid, self.vocab
        generators, config = row_generators(seed, len(prompts)), self.sampling(INTERLEAVE, **sampling)
        header = layout.image_header(vocab, grid, grid)
        stories: list[list[list[int] | Tensor]] = [[] for _ in prompts]  # texts as ids, images as codes
        active = list(range(len(prompts)))

        def history(i: int, prompt: str | None, words: bool = True, images: bool = True) -> list[int]:
            kept = [part for part in stories[i] if (images if isinstance(part, Tensor) else words)]
            pieces = (layout.image_block(vocab, part) if isinstance(part, Tensor) else part for part in kept)
            return layout.prompt(vocab, "interleave", [prompt]) + [id for piece in pieces for id in piece]

        for _ in range(MAX_IMAGES):
            texts, begins = self.write_until_image([history(i, prompts[i]) for i in active], ANSWER_LENGTH, DESCRIBE)
            for i, text in zip(active, texts, strict=True):
                stories[i].append(text)
            active = [i for i, more in zip(active, begins, strict=True) if more]
            if not active:
                break
            full = [history(i, prompts[i]) + header for i in active]
            no_text = [history(i, None, words=False) + header for i in active]
            no_image = [history(i, prompts[i], images=False) + header for i in active]
            first = not any(isinstance(part, Tensor) for part in stories[active[0]])
            rows = list(zip(full, no_text)) if first else list(zip(full, no_text, no_image))
            scales = changed(config, guidance_image=0.0) if first else config
            codes, _ = self.fill_images(rows, scales, [generators[i] for i in active])
            for i, image in zip(active, codes.cpu(), strict=True):
                stories[i].append(image)
        return [
            [self.decode(part[None].to(self.device))[0] if isinstance(part, Tensor) else vocab.decode(part) for part in story if len(part)]
            for story in stories
        ]

    def write_until_image(self, prompts: list[list[int]], length: int, config: SamplingConfig) -> tuple[list[list[int]], list[bool]]:
        """Ids of at most `length` tokens of text after each prompt, and whether an image begins where they end.

        Every token may be chosen: in the block in which a text ends, the image's first codes are being filled in, too.
        """
        boi, image = (self.vocab.markup(token)[0] for token in (BOI, IMAGE))
        tokens = self.tokens(stop=boi)
        rows, _ = self.write([(p,) for p in prompts], length, self.sampling(config), tokens)
        ends = [
            next((n for n, i in enumerate(row) if i in (image, boi, self.vocab.eos_id) or i >= self.vocab.image_token_offset), length)
            for row in rows
        ]
        return [row[:end] for row, end in zip(rows, ends, strict=True)], [boi in row for row in rows]

    def shown(self, images: Tensor | list) -> list[list[Tensor]]:
        """Codes `[h, w]` of the image, or of each image of the tuple, that every row is about."""
        groups = [list(item) if isinstance(item, tuple | list) else [item] for item in images]
        flat = [image for group in groups for image in group]
        if not flat:
            return [[] for _ in groups]
        sizes = {tuple(image.shape) for image in flat}
        if len(sizes) > 1:
            raise ValueError(f"images of different sizes cannot be read together, got {sorted(sizes)}; resize them to one size first")
        batch = torch.stack(flat)
        self.tokenizer.check_images(batch)
        codes = iter(self.encode(batch).cpu())
        return [[next(codes) for _ in group] for group in groups]

    def no_images(self) -> Tensor:
        """What an empty list of prompts gives: `[0, C, H, W]`."""
        config = self.tokenizer.config
        return torch.zeros(0, config.channels, config.image_size, config.image_size)

    def encode(self, images: Tensor) -> Tensor:
        """Codes `[B, h, w]` of images `[B, C, H, W]`, in batches."""
        return torch.cat([self.tokenizer.encode(part.to(self.device)) for part in images.split(BATCH_SIZE)])

    def decode(self, codes: Tensor) -> Tensor:
        """Images `[B, C, H, W]` on the CPU from codes `[B, h, w]`, in batches."""
        return torch.cat([self.tokenizer.decode(part).float().cpu() for part in codes.split(BATCH_SIZE)])


def one_each(texts: str | list[str], rows: list) -> list[str]:
    """As many texts as rows; a single one serves all. `ValueError` for another number, or an empty text."""
    texts = [texts] * len(rows) if isinstance(texts, str) else list(texts)
    if len(texts) != len(rows):
        raise ValueError(f"{len(texts)} texts for {len(rows)} images; give one for each, or a single string for all")
    if not all(text.strip() for text in texts):
        raise ValueError("a question or instruction is empty; say what to do, for example 'what digit is this?'")
    return texts


def listed(prompts: list[str]) -> list[str]:
    """The prompts. `ValueError` for a single string, whose letters would count as prompts, or an empty text."""
    if isinstance(prompts, str):
        raise ValueError(f"prompts must be a list of strings, for example [{prompts!r}]")
    return one_each(prompts, prompts)


def equal_lengths(rows: list[tuple[list[int], ...]], batch_size: int) -> list[list[int]]:
    """Indices of rows, each a prompt and its branches, in batches of equal lengths: blocks are counted from position 0, so
    padding would move them."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(tuple(map(len, row)), []).append(index)
    return [group[i : i + batch_size] for group in groups.values() for i in range(0, len(group), batch_size)]


def load(name: str | Path = "mnist", device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Uni:
    """A `Uni` from shipped weights by name, a training run's folder, or a .safetensors file.

    `dtype` is the backbone's; the tokenizer stays in float32, where its nearest-code decisions are sharp.

    Raises `FileNotFoundError` or `ValueError`, in one sentence, for weights that are missing or do not belong together.
    """
    backbone, info = checkpoint.load_model(name, Backbone, device)
    if not {"tokenizer", "tokenizer_sha256"} <= info.keys():
        raise ValueError(f"the JSON of {name} does not say which tokenizer it was trained on; restore it or train again")
    tokenizer, tokenizer_info = checkpoint.load_model(info["tokenizer"], ImageTokenizer, device)
    if tokenizer_info["sha256"] != info["tokenizer_sha256"]:
        raise ValueError(f"{name} was trained on another version of tokenizer {info['tokenizer']!r}; retrain it or restore that version")
    text = info.get("text", "mnist-text")
    vocab = load_vocabulary(len(tokenizer.embedding), text, info.get("text_sha256"))
    return Uni(backbone.to(dtype), tokenizer, vocab, info).eval()

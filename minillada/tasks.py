"""`minillada.load("mnist")` and what the loaded model can do: draw from captions, describe images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from . import checkpoint, layout, train
from .config import SamplingConfig
from .model import Backbone
from .sampler import Generation, generate
from .vocab import Vocabulary
from .vq import ImageTokenizer

# Drawing samples (variety) with guidance; describing takes the most likely word. Notebook 08 plots these choices. Neither fills
# the tail of its last block: a picture is over when its codes are, and codes behind it would only mislead those in front.
DRAW = SamplingConfig(steps=8, temperature=1.0, threshold=1.0, guidance=1.5, fill_tail=False)
DESCRIBE = SamplingConfig(steps=16, temperature=0.0, threshold=0.95, fill_tail=False)
ANSWER_LENGTH = 16  # the longest caption has 12 tokens with its end; as many steps as tokens let one token be committed a step
BATCH_SIZE = 250


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
        return replace(base, **{"block_size": self.backbone.config.block_size} | {k: v for k, v in changes.items() if v is not None})

    def draw(self, captions: list[str], *, seed: int = 0, **sampling) -> Tensor:
        """Images `[B, C, H, W]` in [0, 1], one for each caption; float32 on the CPU.

        Any field of `SamplingConfig` may be given: `steps` (a block), `guidance`, `temperature`, `top_k`, `top_p`,
        `threshold`, `block_size`. Raises `ValueError` for an empty caption or settings that cannot decode.
        """
        if not captions:
            return torch.zeros(0, self.tokenizer.config.channels, *[self.tokenizer.config.image_size] * 2)
        return self.draw_traced(captions, seed=seed, **sampling).images

    def draw_traced(self, captions: list[str], *, seed: int = 0, use_cache: bool = True, **sampling) -> Traced:
        """`draw`, with codes and the record of every step; captions must have equally many tokens to share a record."""
        if isinstance(captions, str):
            raise ValueError("captions must be a list of strings, for example ['a thick seven leaning right']")
        if not captions:
            raise ValueError("there is no caption to draw; give at least one")
        config = self.sampling(DRAW, **sampling)
        grid, vocab = self.tokenizer.config.grid, self.vocab
        prompts = [layout.draw_prompt(vocab, c, grid) for c in captions]
        unconditional = torch.tensor([layout.draw_prompt(vocab, None, grid)], device=self.device)
        parts = []
        generator = torch.Generator().manual_seed(seed)
        for rows in equal_lengths(prompts, BATCH_SIZE):
            prompt = torch.tensor([prompts[i] for i in rows], device=self.device)
            generation = generate(
                self.backbone, prompt, grid * grid, config, vocab.mask_id,
                allowed=vocab.is_image(), unconditional=unconditional, generator=generator, use_cache=use_cache,
            )  # fmt: skip
            codes = vocab.codes(generation.ids).view(-1, grid, grid)
            parts.append((rows, codes, generation))
        order = torch.tensor([i for rows, _, _ in parts for i in rows]).argsort()
        codes = torch.cat([codes for _, codes, _ in parts])[order.to(self.device)]
        return Traced(self.decode(codes), codes, parts[0][2])

    def describe(self, images: Tensor, *, question: str = layout.DESCRIBE_QUESTION, **sampling) -> list[str]:
        """A caption for each image `[B, C, H, W]` in [0, 1]. Raises `ValueError` for a wrong size, range or NaN."""
        if len(images) == 0:
            return []
        self.tokenizer.check_images(images)
        return self.describe_codes(self.encode(images), question=question, **sampling)

    def describe_codes(self, codes: Tensor, *, question: str = layout.DESCRIBE_QUESTION, **sampling) -> list[str]:
        """A caption for each grid of codes `[B, h, w]`."""
        config = self.sampling(DESCRIBE, **sampling)
        texts = []
        for part in codes.split(BATCH_SIZE):
            prompt = torch.tensor([layout.describe_prompt(self.vocab, c, question) for c in part.cpu()], device=self.device)
            # A caption is text: image codes would end in an error when decoded.
            answer = generate(
                self.backbone, prompt, ANSWER_LENGTH, config, self.vocab.mask_id, self.vocab.eos_id, allowed=~self.vocab.is_image(),
                generator=torch.Generator().manual_seed(0),
            )  # fmt: skip
            texts += [self.vocab.decode(i for i in row if i != self.vocab.eos_id) for row in answer.ids.tolist()]
        return texts

    def encode(self, images: Tensor) -> Tensor:
        """Codes `[B, h, w]` of images `[B, C, H, W]`, in batches."""
        return torch.cat([self.tokenizer.encode(part.to(self.device)) for part in images.split(BATCH_SIZE)])

    def decode(self, codes: Tensor) -> Tensor:
        """Images `[B, C, H, W]` on the CPU from codes `[B, h, w]`, in batches."""
        return torch.cat([self.tokenizer.decode(part).float().cpu() for part in codes.split(BATCH_SIZE)])


def equal_lengths(prompts: list[list[int]], batch_size: int) -> list[list[int]]:
    """Indices of prompts in batches of equal length: blocks are counted from position 0, so padding would move them."""
    groups: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        groups.setdefault(len(prompt), []).append(index)
    return [rows[i : i + batch_size] for rows in groups.values() for i in range(0, len(rows), batch_size)]


def load(name: str | Path = "mnist", device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Uni:
    """A `Uni` from shipped weights by name, a training run's folder, or a .safetensors file.

    `dtype` is the backbone's; the tokenizer stays in float32, where its nearest-code decisions are sharp.

    Raises `FileNotFoundError` or `ValueError`, in one sentence, for weights that are missing or do not belong together.
    """
    backbone, info = checkpoint.load_model(name, "backbone", device)
    if not {"tokenizer", "tokenizer_sha256"} <= info.keys():
        raise ValueError(f"the JSON of {name} does not say which tokenizer it was trained on; restore it or train again")
    tokenizer, tokenizer_info = checkpoint.load_model(info["tokenizer"], "tokenizer", device)
    if tokenizer_info["sha256"] != info["tokenizer_sha256"]:
        raise ValueError(f"{name} was trained on another version of tokenizer {info['tokenizer']!r}; retrain it or restore that version")
    return Uni(backbone.to(dtype), tokenizer, train.load_vocabulary(tokenizer.config.codebook_size), info).eval()

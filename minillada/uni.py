"""`load`, and its `Uni`: `draw`, `describe`, `answer`, `edit`, `inpaint`, `infill`, …

Notable choices
- Every task makes prompts with `layout`, and `sampler.generate` continues them, once or several
  times. The code never interprets a request: whatever the model writes is the answer.
- Row r of a call with seed s uses seed s + r. So `draw(8 * [text], seed=0)[3]` has the codes of
  `draw([text], seed=3)[0]`, and its pixels up to rounding. How rows are grouped does not matter.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from . import asking, checkpoint, layout
from .asking import Images
from .commit import row_generators
from .config import SamplingConfig
from .filling import Filler
from .layout import Story
from .model import Backbone
from .settings import changed
from .vocab import Vocabulary, load_vocabulary
from .vq import ImageTokenizer
from .writer import DESCRIBE, DRAW, Traced

# An exact edit has one right answer, so it takes the most likely code, and needs no guidance. A
# story needs more guidance than a drawing. Both were chosen on training images (docs/log.md).
EDIT = SamplingConfig(steps=8, temperature=0.0, threshold=1.0, fill_tail=False)
INTERLEAVE = SamplingConfig(steps=8, temperature=0.5, threshold=1.0, guidance=2.0, fill_tail=False)
# A thought is written in order: by confidence, a conclusion may come too early (docs/log.md).
THINK = changed(DESCRIBE, threshold=1.0, strategy="left_to_right")


class Uni(Filler):
    """One model for all tasks.

    Every task takes the fields of `SamplingConfig` by name (`steps`, `temperature`, …); `edit` has
    `guidance_text` instead of `guidance`. In `think_and_draw` and `interleave` they hold for images
    only. `ValueError`, in one sentence, for texts, images or settings that a task cannot use.
    """

    # The class of the official model has other values here (`official.calls`). Lengths in tokens.
    thinking = 96, THINK  # length and settings of a thought; the longest counts nine numbers
    telling = 16, DESCRIBE  # length and settings of the texts of a story
    max_images = 10  # of a story, as officially
    edit_branches = staticmethod(layout.edit_branches)

    def draw(
        self, captions: list[str], *, seed: int = 0, painter: str | Path = "conv",
        painter_steps: int | None = None, **sampling,
    ) -> Tensor:  # fmt: skip
        """An image for each caption, `[B, C, H, W]` in [0, 1]; painters: see `paint`."""
        self.check_painter(painter, painter_steps)
        drawn = self.draw_traced(captions, seed=seed, **sampling)
        return self.paint(drawn.codes, painter, painter_steps, seed, drawn.images)

    def draw_traced(
        self, captions: list[str], *, seed: int = 0, use_cache: bool = True, **sampling
    ) -> Traced:
        """`draw`, with codes and all steps; `use_cache=False` is slow, but draws the same."""
        texts = asking.read_texts(captions, self.vocab)
        rows = [layout.draw_branches(self.vocab, text, self.tokenizer.grid) for text in texts]
        config = self.sampling(self.own(DRAW, "drawing"), **sampling)
        codes, record = self.fill_images(rows, config, row_generators(seed, len(rows)), use_cache)
        return Traced(self.decode(codes), codes, record)

    def describe(
        self, images: Images, *, question: str = layout.DESCRIBE_QUESTION, **sampling
    ) -> list[str]:
        """A caption for each image `[B, C, H, W]` in [0, 1]."""
        return self.describe_codes(self.encode(images), question=question, **sampling)

    def describe_codes(
        self, codes: Tensor, *, question: str = layout.DESCRIBE_QUESTION, **sampling
    ) -> list[str]:
        """A caption for each grid of codes `[B, h, w]`."""
        asking.check_learned(self.info, "describe")
        grids = asking.read_codes(codes, self.tokenizer).cpu()
        [text] = asking.read_texts([question], self.vocab)
        prompts = [layout.describe_prompt(self.vocab, grid, text) for grid in grids]
        return self.reply(prompts, self.answer_length, self.sampling(DESCRIBE, **sampling))

    def answer(self, images: Images, questions: str | list[str], **sampling) -> list[str]:
        """Answers to questions, or to one question for all; a row is an image or a tuple."""
        asking.check_learned(self.info, "answer questions")
        groups = self.shown(images)  # the grids of codes that each question is about
        texts = asking.read_each(questions, len(groups), self.vocab)
        rows = zip(groups, texts)
        prompts = [layout.prompt(self.vocab, "describe", [*grids, text]) for grids, text in rows]
        return self.reply(prompts, self.answer_length, self.sampling(DESCRIBE, **sampling))

    def edit(
        self, images: Images, instructions: str | list[str], *, seed: int = 0,
        painter: str | Path = "conv", painter_steps: int | None = None, **sampling,
    ) -> Tensor:  # fmt: skip
        """Edited images; rows as in `answer`. Scales: `guidance_text` and `guidance_image`."""
        self.check_painter(painter, painter_steps)
        edited = self.edit_traced(self.shown(images), instructions, seed=seed, **sampling)
        return self.paint(edited.codes, painter, painter_steps, seed, edited.images)

    def edit_traced(
        self,
        shown: list[list[Tensor]],  # from `self.shown`: for each row its grids of codes
        instructions: str | list[str],  # a single one serves all rows
        *,
        seed: int = 0,
        guidance_text: float | None = None,  # None: the model's own, or that of `EDIT`
        **sampling,
    ) -> Traced:
        """`edit` of images that are codes already; returns the new codes and all steps, too."""
        asking.check_learned(self.info, "edit")
        if "guidance" in sampling:
            raise ValueError("an edit has two scales; give guidance_text or guidance_image")
        if not all(isinstance(grids, list | tuple) and grids for grids in shown):
            raise ValueError("a row is a list of one or more grids of codes; see `Uni.shown`")
        texts = asking.read_each(instructions, len(shown), self.vocab)
        pairs, grid = zip(shown, texts), self.tokenizer.grid
        rows = [self.edit_branches(self.vocab, grids, text, grid) for grids, text in pairs]
        config = self.sampling(self.own(EDIT, "editing"), guidance=guidance_text, **sampling)
        codes, record = self.fill_images(rows, config, row_generators(seed, len(rows)))
        return Traced(self.decode(codes), codes, record)

    def think_and_draw(
        self, prompts: list[str], *, seed: int = 0, **sampling
    ) -> tuple[list[str], Tensor]:
        """A thought for each prompt, and an image drawn with the thought in its prompt."""
        config = self.sampling(self.own(DRAW, "drawing"), **sampling)
        stories = self.stories("think", prompts)  # a thought becomes the first part of its story
        self.continue_stories(stories, *self.thinking)
        # The image follows, even if the model did not begin one by itself.
        rows = [story.branches(self.tokenizer.grid) for story in stories]
        codes, _ = self.fill_images(rows, config, row_generators(seed, len(rows)))
        return [self.vocab.decode(story.parts[0]) for story in stories], self.decode(codes)

    def interleave(self, prompt: str, *, seed: int = 0, **sampling) -> list[str | Tensor]:
        """Texts and at most `max_images` images `[C, H, W]` in turn; `sampling` is for images."""
        return self.interleave_all([prompt], seed=seed, **sampling)[0]

    def interleave_all(
        self, prompts: list[str], *, seed: int = 0, **sampling
    ) -> list[list[str | Tensor]]:
        """`interleave` for many prompts, a round of texts and a round of images at a time."""
        stories = self.stories("interleave", prompts)
        config = self.sampling(INTERLEAVE, **sampling)
        # Pairs (story, generator): a story keeps its generator for all of its images.
        active = list(zip(stories, row_generators(seed, len(stories))))
        for _ in range(self.max_images):
            # 1. a text for each story; those that do not begin an image after it are finished
            goes_on = self.continue_stories([story for story, _ in active], *self.telling)
            active = [pair for pair, more in zip(active, goes_on) if more]
            if not active:
                break
            rows = [story.branches(self.tokenizer.grid) for story, _ in active]  # 2. an image
            # Two branches: all stories are at their first image, with none before it to leave out.
            scales = changed(config, guidance_image=0.0) if len(rows[0]) == 2 else config
            codes, _ = self.fill_images(rows, scales, [generator for _, generator in active])
            for (story, _), image in zip(active, codes.cpu()):
                story.parts.append(image)
        return [self.told(story) for story in stories]

    def shown(self, images: Images) -> list[list[Tensor]]:
        """For each row the codes `[h, w]` of its images; a row is an image or a tuple of them."""
        groups = asking.read_groups(images, self.tokenizer)
        codes = self.encode([image for group in groups for image in group]).cpu()
        return [list(part) for part in codes.split([len(group) for group in groups])]

    def stories(self, task: str, prompts: list[str]) -> list[Story]:
        """A story, still empty, for each prompt."""
        asking.check_learned(self.info, "write before it draws")
        return [Story(self.vocab, task, text) for text in asking.read_texts(prompts, self.vocab)]

    def told(self, story: Story) -> list[str | Tensor]:
        """The parts of a story as texts and images `[C, H, W]`, without empty texts."""
        parts: list[str | Tensor] = []
        for part in story.parts:
            if isinstance(part, Tensor):  # codes [h, w]
                parts.append(self.decode(part[None])[0])
            elif part:  # ids of a text
                parts.append(self.vocab.decode(part))
        return parts


def best_device() -> str:
    """The kind of device to choose where the user names none: the first that this machine has."""
    # cuda: NVIDIA and AMD; xpu: Intel; mps: Apple
    for kind, module in (("cuda", torch.cuda), ("xpu", torch.xpu), ("mps", torch.mps)):
        if module.is_available():
            return kind
    return "cpu"


def as_device(name: str | torch.device) -> torch.device:
    """A device by its name; `auto` is `best_device`. `ValueError` if nothing is computed there."""
    name = best_device() if name == "auto" else name
    try:
        number = torch.zeros(1, device=name)
        number.item()  # `meta` has none
        return number.device
    except Exception:  # each kind of device has its own way to say no
        problem = f"device {str(name)!r} is not available here"
        raise ValueError(f"{problem}; choose auto, cpu, cuda, xpu or mps") from None


def trained_on(
    name: str | Path, info: dict, device: str | torch.device = "cpu"
) -> tuple[ImageTokenizer, Vocabulary]:
    """The image tokenizer and the vocabulary that the JSON `info` of backbone `name` names.

    `FileNotFoundError` if they are missing, `ValueError` if they are other versions.
    """
    if not {"tokenizer", "tokenizer_sha256"} <= info.keys():
        raise ValueError(f"the JSON of {name} lacks a tokenizer or its checksum; restore it")
    tokenizer, about = checkpoint.load_model(info["tokenizer"], ImageTokenizer, device)
    if about["sha256"] != info["tokenizer_sha256"]:
        raise ValueError(
            f"{name} was trained on another version of tokenizer {info['tokenizer']!r}; "
            "retrain it or restore that version"
        )
    text = info.get("text", "mnist-text")
    return tokenizer, load_vocabulary(len(tokenizer.embedding), text, info.get("text_sha256"))


def load(
    name: str | Path = "mnist",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,  # of the backbone
) -> Uni:
    """A `Uni` from shipped weights by name, a training run's folder, or a .safetensors file.

    A shipped name is a string; a `Path` is a folder or a file. The device is as in `as_device`.
    `FileNotFoundError` or `ValueError` for weights that are missing or do not belong together.
    """
    if dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise ValueError(f"dtype is a float type, such as torch.bfloat16, got {dtype!r}")
    device = as_device(device)
    backbone, info = checkpoint.load_model(name, Backbone, device)
    tokenizer, vocab = trained_on(name, info, device)
    vocab.numerals = info.get("training", {}).get("data", {}).get("many_wordings", False)
    # The tokenizer stays in float32: rounding could change which code is the nearest.
    return Uni(backbone.to(dtype), tokenizer, vocab, info).eval()

"""What a user asks of a checkpoint: chat, draw, describe, answer, edit, think, interleave.

`load` returns an `OfficialModel`. Its methods take and give pictures of PIL, bring photos to the
sizes that the model reads, and leave the work to `Uni`, the class of the small models.

Notable choices
- Settings are the released ones: blocks of 32, greedy, threshold 0.95, rescale 0.7; what differs
  between tasks stands in the signatures. Every field of `SamplingConfig` can be given by name.
- An image has exactly h · w codes. The released code decodes 1,088 for a drawing and cuts: a larger
  image is not complete there. The codes are the same ones, because a later block cannot change an
  earlier one. Only an image with fewer codes than steps takes fewer steps here.
- What can be refused is refused before a painter is read, which takes long.
- Models of text alone (LLaDA2.0, LLaDA2.1) have the same backbone. They chat, and cannot draw.
- The codes are the most likely ones, so the seed changes only the noise of the painter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from .. import asking
from ..config import SamplingConfig
from ..datasets.pictures import to_rgb, upright
from ..extras.sprint import Sprint
from ..layout import Grid
from ..model import Backbone
from ..settings import changed
from ..uni import as_device
from ..vocab import size_token
from . import prompts
from .backbone import as_dtype, check_mode, load_backbone
from .hub import local_folder
from .one_call import Call
from .parts import Canvas, PainterName, Parts, check_painter
from .resize import for_understanding, picture, pixels, released_crop, served_crop
from .text import OfficialVocabulary, load_vocabulary

CODE = 32  # pixels of a drawing for each code, along a side
QUESTION = "Describe this image in detail."
TEXT = SamplingConfig(block_size=32, steps=32, threshold=0.95)
# Of every image; `fill_tail` decodes the last block to its end, as released.
DRAWING: dict[str, Any] = {"temperature": 0.0, "threshold": 0.95, "rescale": 0.7, "fill_tail": True}

Photos = Image.Image | Sequence[Image.Image]


class OfficialModel:
    """The official checkpoint. `painter_steps` says how many steps each painter takes.

    `sprint` shortens the cache in which a call decodes. As released, what has three branches does
    without: edits, and the images of a story after its first. SPRINT's quota is `adaptive=True`.
    """

    def __init__(self, backbone: Backbone, vocab: OfficialVocabulary, parts: Parts):
        self.backbone, self.vocab, self.parts = backbone, vocab, parts
        self.painter_steps: dict[str, int] = {"turbo": 8, "normal": 50}
        self.sprint: Sprint | None = None

    def chat(
        self,
        said: str | Sequence[str],
        *,
        system: str = "",
        length: int = 2048,  # tokens, at most
        **sampling,
    ) -> str:
        """What the model says next in a talk without photos.

        `said` is what the user says, or all turns so far: user, model, …, user. LLaDA2.1 also
        rewrites its words: `threshold=0.7, edit_threshold=0.5`, its quality mode.
        """
        check_counts(length=length)
        turns = [said] if isinstance(said, str) else said
        if not isinstance(turns, list | tuple) or len(turns) % 2 == 0:
            raise ValueError(
                "a talk is what the user says, or a list of turns that begins and ends with it, "
                f"got {said!r}"
            )
        may_be_empty = [text for text in (*turns[1::2], system) if text != ""]
        asking.read_texts([*turns[::2], *may_be_empty], self.vocab)
        call = self.call(turns[-1])
        ids = prompts.talk(self.vocab, turns, system)
        [answer] = call.reply([ids], length, call.sampling(TEXT, **sampling))
        return answer

    def draw(
        self,
        prompt: str,
        *,
        size: int | tuple[int, int] = 1024,  # pixels: a side, or (width, height)
        steps: int = 8,
        guidance: float = 2.0,
        painter: PainterName = "turbo",
        seed: int = 0,
        **sampling,
    ) -> Image.Image:
        """A picture of a text."""
        call = self.call(prompt, self.canvas(self.grid(size), painter, seed))
        given = DRAWING | {"steps": steps, "guidance": guidance} | sampling
        return picture(call.draw_traced([prompt], seed=seed, **given).images[0])

    def describe(self, photo: Image.Image, *, question: str = QUESTION, **sampling) -> str:
        """What is to be seen."""
        return self.answer(photo, question, **sampling)

    def answer(
        self,
        photos: Photos,
        question: str,
        *,
        length: int = 2048,  # tokens, at most
        chat: bool = True,
        **sampling,
    ) -> str:
        """The answer to a question about one photo or several.

        `chat=False` leaves out the roles around the question, as early released code did.
        """
        check_counts(length=length)
        self.check_sight()
        call = self.call(question)
        read = read_photos(photos)
        images = [pixels(for_understanding(photo, len(read))) for photo in read]
        ids = prompts.question(self.vocab, call.shown([images])[0], question, chat)
        [answer] = call.reply([ids], length, call.sampling(TEXT, **sampling))
        return answer

    def edit(
        self,
        photo: Image.Image,
        instruction: str,
        *,
        steps: int = 8,
        guidance_text: float = 4.0,
        guidance_image: float = 0.0,
        crop: Literal["served", "released"] = "served",  # the two functions of `resize`
        painter: PainterName = "turbo",
        seed: int = 0,
        **sampling,
    ) -> Image.Image:
        """The photo, changed as told; its shape is that of the nearest size for edits."""
        self.check_sight()
        crops = {"served": served_crop, "released": released_crop}
        if crop not in crops:
            raise ValueError(f"there is no crop {crop!r}; choose {' or '.join(crops)}")
        if not isinstance(photo, Image.Image):
            raise ValueError(f"an edit has one photo, a picture of PIL, not {type(photo).__name__}")
        [photo] = read_photos(photo)
        image = pixels(crops[crop](photo))
        patch = self.parts.tokenizer().patch_size
        grid = image.shape[1] // patch, image.shape[2] // patch
        call = self.call(instruction, self.canvas(grid, painter, seed))
        if guidance_text == guidance_image == 0:  # as released: no guidance. By the formula, the
            guidance_text = 1.0  # instruction would be left out.
        scales = {"guidance_text": guidance_text, "guidance_image": guidance_image}
        given = DRAWING | {"steps": steps} | scales | sampling
        return picture(call.edit([[image]], instruction, seed=seed, **given)[0])

    def think_and_draw(
        self,
        prompt: str,
        *,
        size: int | tuple[int, int] = 1024,
        steps: int = 8,
        guidance: float = 2.0,
        painter: PainterName = "turbo",
        seed: int = 0,
        length: int = 4096,  # tokens of the thought, at most
        **sampling,
    ) -> tuple[str, Image.Image]:
        """The model's thought in words, and the picture drawn after it."""
        check_counts(length=length)
        call = self.call(prompt, self.canvas(self.grid(size), painter, seed))
        call.thinking = length, TEXT
        given = DRAWING | {"steps": steps, "guidance": guidance} | sampling
        [text], images = call.think_and_draw([prompt], seed=seed, **given)
        return text, picture(images[0])

    def interleave(
        self,
        prompt: str,
        *,
        size: int | tuple[int, int] = 1024,  # where the model names none
        steps: int = 32,
        guidance: float = 7.5,
        guidance_image: float = 1.5,
        painter: PainterName = "turbo",
        seed: int = 0,
        images: int = 10,  # at most
        length: int = 8192,  # tokens of each text, at most
        **sampling,
    ) -> list[str | Image.Image]:
        """Texts and pictures in turn."""
        check_counts(images=images, length=length)
        call = self.call(prompt, self.canvas(self.grid(size), painter, seed))
        call.telling, call.max_images = (length, TEXT), images
        scales = {"guidance": guidance, "guidance_image": guidance_image}
        given = DRAWING | {"steps": steps} | scales | sampling
        story = call.interleave(prompt, seed=seed, **given)
        return [part if isinstance(part, str) else picture(part) for part in story]

    def call(self, text: str, canvas: Canvas | None = None) -> Call:
        """A `Uni` for one call about `text`; without `canvas` it cannot draw."""
        asking.read_texts([text], self.vocab)
        given: Any = canvas or Canvas(self.parts)
        call = Call(self.backbone, given, self.vocab)
        call.sprint = self.sprint
        return call

    def canvas(self, grid: Grid, painter: PainterName, seed: int) -> Canvas:
        """What a call draws on; `ValueError` for a painter that is none and for too few steps."""
        self.check_sight()
        steps = self.painter_steps.get(painter, 0)
        check_painter(painter, steps)
        return Canvas(self.parts, grid, painter, steps, seed)

    def check_sight(self) -> None:
        """`ValueError` for a model of text alone."""
        if not self.vocab.codebook_size:
            raise ValueError(
                "this checkpoint has no image codes, so it cannot see or draw; chat with it"
            )

    def grid(self, size: int | tuple[int, int]) -> tuple[int, int]:
        """Height and width in codes of a drawing; `ValueError` for a size that is none."""
        both = size if isinstance(size, tuple) else (size, size)
        if len(both) != 2 or not all(self.can_be_drawn(side) for side in both):
            raise ValueError(
                f"a picture of size {size!r} cannot be drawn; give its side in pixels, or (width, "
                f"height), both multiples of {CODE} and not too large, for example 1024"
            )
        wide, high = both
        return high // CODE, wide // CODE

    def can_be_drawn(self, side: int) -> bool:
        """Whether this many pixels are whole codes, and the vocabulary has a token for them."""
        if not isinstance(side, int) or side < CODE or side % CODE:
            return False
        return self.vocab.token_id(size_token(side // CODE)) is not None


def check_counts(**counts: int) -> None:
    """`ValueError` for a number of tokens or images below 1, or not whole."""
    for name, number in counts.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"{name} must be at least 1, got {number!r}; give a whole number")


def read_photos(photos: Photos) -> list[Image.Image]:
    """Photos turned upright, in RGB of 8 bits on white paper; `ValueError` for other things."""
    given = [photos] if isinstance(photos, Image.Image) else photos
    is_list = isinstance(given, list | tuple) and len(given) > 0
    if not is_list or not all(isinstance(photo, Image.Image) for photo in given):
        raise ValueError("photos are pictures of PIL; open a file with PIL.Image.open(path)")
    return [to_rgb(upright(photo)) for photo in given]


def load(
    place: str | Path,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "bfloat16",
    *,
    mapped: bool = False,
    offload: bool = False,
    context: int | None = None,
    **options: Any,
) -> OfficialModel:
    """The official checkpoint from a folder, or from the Hugging Face hub by its name.

    `mapped` leaves the experts in their files and reads those that are needed. `offload` lets image
    tokenizer and painter wait in the main memory. `context` is how many tokens a prompt and what
    follows may have, if not as many as the file says (8,192): RoPE has no limit, and the last stage
    of the paper trains with up to 16k. `options` are those of `load_backbone`. The device is as in
    `as_device`. `ValueError` or `FileNotFoundError`, in one sentence, for what is missing or does
    not fit.
    """
    check_counts(context=1 if context is None else context)
    device, dtype = as_device(device), as_dtype(dtype)
    check_mode(device, mapped, **options)  # before 60 GB are downloaded
    folder = local_folder(place)
    vocab = load_vocabulary(folder)  # small, so it is read first
    backbone = load_backbone(folder, device=device, dtype=dtype, mapped=mapped, **options)
    if context is not None:
        backbone.config = changed(backbone.config, max_position_embeddings=context)
    return OfficialModel(backbone, vocab, Parts(folder, device, dtype, offload))

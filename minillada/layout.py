"""How each task is written as one sequence of ids (LLaDA2.0-Uni, arXiv 2604.20796).

A sequence is a prompt, which is never masked, and a response, which the model learns to fill in.

Notable choices
- An image is written as `<|image|> <|reserved_token_H|> <|reserved_token_W|> <boi>`, its H·W codes
  in raster order, and `<|/image|>`. The tokens before the codes are its header.
- A prompt that asks for an image ends with the header, so a model has only codes to fill in.
- Each text is tokenised by itself, as in the official code: no piece spans two texts.
- Guidance (`guidance.py`) runs the model on a prompt and on the same prompt without its words or
  without its images, and strengthens the difference. These prompts are called branches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from .vocab import BOI, END_IMAGE, EOS, IMAGE, ROLES, UNCONDITION, Vocabulary

# The wording is part of the format: a model must meet the sentences it has learned.
SYSTEM_PROMPTS = {
    "draw": "You are a text-to-image generation assistant.",
    "describe": "You are a multimodal understanding assistant.",
    "think": "You are a text-to-image generation assistant with a thinking process.",
    "edit": "You are an image editing assistant.",
    "interleave": "You are a interleaved generation assistant.",  # (sic)
}
DESCRIBE_QUESTION = "Describe the image."

# A text, ids, the codes [h, w] of an image, or None: words that a branch leaves out.
Part = str | list[int] | Tensor | None
Grid = int | tuple[int, int]  # of an image's codes: the side of a square, or height and width


class TokenSequence(NamedTuple):
    """One training example: token ids, and how many of the first belong to the prompt."""

    ids: list[int]
    prompt_length: int  # the ids behind it are the response


# --- parts ---------------------------------------------------------------------------------------


def sides(grid: Grid) -> tuple[int, int]:
    """Height and width of a grid."""
    return (grid, grid) if isinstance(grid, int) else grid


def image_header(vocab: Vocabulary, height: int, width: int) -> list[int]:
    """The tokens before an image's codes; `height` and `width` in codes."""
    sizes = vocab.size_ids(height) + vocab.size_ids(width)
    return vocab.markup(IMAGE) + sizes + vocab.markup(BOI)


def image_block(vocab: Vocabulary, codes: Tensor) -> list[int]:
    """Header, codes `[h, w]` in raster order and the closing token."""
    if codes.ndim != 2:
        raise ValueError(f"the codes of one image are [h, w], got {list(codes.shape)}")
    return image_header(vocab, *codes.shape) + vocab.image_ids(codes) + vocab.markup(END_IMAGE)


def ids_of(vocab: Vocabulary, parts: Sequence[Part]) -> list[int]:
    """Ids of all parts, one after the other; a text alone is one part, not one a letter."""
    ids: list[int] = []
    for part in [parts] if isinstance(parts, str) else parts:
        if part is None:
            # The mark says that words are left out. An empty text would look like an empty request.
            ids += vocab.markup(UNCONDITION)
        elif isinstance(part, str):
            ids += vocab.encode(part)
        elif isinstance(part, Tensor):
            ids += image_block(vocab, part)
        else:
            ids += part  # ids already
    return ids


# --- every task ----------------------------------------------------------------------------------


def prompt(vocab: Vocabulary, task: str, user: list[Part], grid: Grid | None = None) -> list[int]:
    """The system prompt of a task (a key of `SYSTEM_PROMPTS`), then what the user gives.

    With `grid` it goes on with the header of an image of that size.
    """
    before = vocab.markup(f"{ROLES['SYSTEM']} {SYSTEM_PROMPTS[task]} {ROLES['HUMAN']}")
    # What the user says is plain text (`ids_of`), so nobody can type a special token.
    ids = before + ids_of(vocab, user) + vocab.markup(ROLES["ASSISTANT"])
    return ids if grid is None else ids + image_header(vocab, *sides(grid))


def sequence(
    vocab: Vocabulary, task: str, user: list[Part], response: list[Part], given: int = 0
) -> TokenSequence:
    """Training sequence of any task; the first `given` parts of the response count as prompt.

    The caller keeps `given` below the number of parts: something is left to learn. If the first
    part to learn is an image, its header counts as prompt as well; only what follows is masked.
    """
    # All ids: the prompt, the given parts, the parts to learn, the end.
    begin = prompt(vocab, task, user) + ids_of(vocab, response[:given])
    ids = begin + ids_of(vocab, response[given:]) + vocab.markup(EOS)
    prompt_length = len(begin)
    first = response[given]
    if isinstance(first, Tensor):
        prompt_length += len(image_header(vocab, *first.shape))
    return TokenSequence(ids, prompt_length)


# --- single tasks --------------------------------------------------------------------------------


def draw_prompt(vocab: Vocabulary, caption: str | None, grid: Grid) -> list[int]:
    """Text-to-image prompt with the header. Without a caption it is the unconditional branch."""
    # Without words, the model would draw anything. `None` says that this is meant.
    if caption is not None and not caption.strip():
        raise ValueError(
            "the caption is empty; say what to draw, for example 'a thick seven leaning right'"
        )
    return prompt(vocab, "draw", [caption], grid)


def draw_branches(vocab: Vocabulary, caption: str, grid: Grid) -> tuple[list[int], list[int]]:
    """Prompts for one drawing: (with the caption, unconditional)."""
    return draw_prompt(vocab, caption, grid), draw_prompt(vocab, None, grid)


def draw_sequence(vocab: Vocabulary, caption: str | None, codes: Tensor) -> TokenSequence:
    """Text-to-image training sequence: the codes `[h, w]` and the end of text are the response."""
    return sequence(vocab, "draw", [caption], [codes])


def describe_prompt(
    vocab: Vocabulary, codes: Tensor, question: str = DESCRIBE_QUESTION
) -> list[int]:
    """Understanding prompt: the image, then the question."""
    return prompt(vocab, "describe", [codes, question])


def describe_sequence(vocab: Vocabulary, codes: Tensor, answer: str) -> TokenSequence:
    """Understanding training sequence: the answer and the end of text are the response."""
    return sequence(vocab, "describe", [codes, DESCRIBE_QUESTION], [answer])


def edit_branches(
    vocab: Vocabulary, images: list[Tensor], instruction: str, grid: Grid
) -> tuple[list[int], list[int], list[int]]:
    """Prompts for one edit of one or several images: (full, no instruction, no images)."""
    # Left-out words leave the mark <uncondition>; left-out images leave none.
    full = prompt(vocab, "edit", [*images, instruction], grid)
    no_text = prompt(vocab, "edit", [*images, None], grid)
    no_image = prompt(vocab, "edit", [instruction], grid)
    return full, no_text, no_image


# eq=False: parts are tensors, and comparing two of them gives a tensor, not yes or no.
@dataclass(eq=False)
class Story:
    """What was asked for, and the answer so far: texts as ids, images as codes `[h, w]`.

    For tasks whose answer is written in several turns: `think` (a plan in words, then the image)
    and `interleave` (texts and images by turns).
    """

    vocab: Vocabulary
    task: str
    asked: str
    parts: list[list[int] | Tensor] = field(default_factory=list)

    def so_far(
        self, words: bool = True, images: bool = True, grid: Grid | None = None
    ) -> list[int]:
        """Ids of everything so far, or without its words or images; with `grid` as in `prompt`."""
        # The request becomes <uncondition>; the words and images of the answer leave no mark.
        ids = prompt(self.vocab, self.task, [self.asked if words else None])
        shown = [part for part in self.parts if words or isinstance(part, Tensor)]
        shown = [part for part in shown if images or not isinstance(part, Tensor)]
        ids += ids_of(self.vocab, shown)
        return ids if grid is None else ids + image_header(self.vocab, *sides(grid))

    def branches(self, grid: Grid) -> tuple[list[int], ...]:
        """Prompts for the next image: (full, no words, no images).

        The first image of a story has only the first two; the third would be the full one again.
        """
        full = self.so_far(grid=grid)
        no_words = self.so_far(words=False, grid=grid)
        if not any(isinstance(part, Tensor) for part in self.parts):
            return full, no_words
        return full, no_words, self.so_far(images=False, grid=grid)

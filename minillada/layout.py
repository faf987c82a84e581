"""How each task is written as one sequence of ids (LLaDA2.0-Uni, arXiv 2604.20796), and how sequences become a training batch.

An image block is `<|image|> <|reserved_token_H|> <|reserved_token_W|> <boi>` + H·W codes in raster order + `<|/image|>`;
its first four tokens are the header. Pieces are tokenised separately and concatenated, as the official code does.
A sequence is a prompt, never masked, and a response, which the model learns to fill in.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .vocab import BOI, END_IMAGE, EOS, IMAGE, MAX_GRID, ROLES, UNCONDITION, Vocabulary, size_token

SYSTEM_PROMPTS = {
    "draw": "You are a text-to-image generation assistant.",
    "describe": "You are a multimodal understanding assistant.",
    "think": "You are a text-to-image generation assistant with a thinking process.",
    "edit": "You are an image editing assistant.",
    "interleave": "You are a interleaved generation assistant.",  # (sic)
}


DESCRIBE_QUESTION = "Describe the image."


Part = str | Tensor | None  # a text, an image as codes [h, w], or the absent condition of a guidance branch


class Sequence(NamedTuple):
    """Token ids and how many of the first belong to the prompt."""

    ids: list[int]
    prompt_length: int


def image_header(vocab: Vocabulary, height: int, width: int) -> list[int]:
    """The four tokens before an image's codes; sizes in tokens."""
    if not (1 <= height <= MAX_GRID and 1 <= width <= MAX_GRID):
        raise ValueError(f"image sides must be 1 to {MAX_GRID} tokens, got {height} x {width}")
    return [i for piece in (IMAGE, size_token(height), size_token(width), BOI) for i in vocab.markup(piece)]


def image_block(vocab: Vocabulary, codes: Tensor) -> list[int]:
    """Header, codes `[h, w]` in raster order and the closing token."""
    return image_header(vocab, *codes.shape) + vocab.image_ids(codes) + vocab.markup(END_IMAGE)


def write(vocab: Vocabulary, parts: list[Part]) -> list[int]:
    """Ids of texts, images and the absent condition (None), each tokenised by itself, one after the other."""
    ids = []
    for part in parts:
        if isinstance(part, Tensor):
            ids += image_block(vocab, part)
        else:
            ids += vocab.markup(UNCONDITION) if part is None else vocab.encode(part)
    return ids


def prompt(vocab: Vocabulary, task: str, user: list[Part], grid: int | None = None) -> list[int]:
    """System prompt of the task (a key of `SYSTEM_PROMPTS`) and what the user gives; with `grid`, up to and including an image's header."""
    before = vocab.markup(f"{ROLES['SYSTEM']} {SYSTEM_PROMPTS[task]} {ROLES['HUMAN']}")
    ids = before + write(vocab, user) + vocab.markup(ROLES["ASSISTANT"])
    return ids if grid is None else ids + image_header(vocab, grid, grid)


def sequence(vocab: Vocabulary, task: str, user: list[Part], response: list[Part], given: int = 0) -> Sequence:
    """Training sequence of any task; the first `given` parts of the response count as prompt.

    A response that begins with an image continues a prompt that ends with its header.
    """
    begin = prompt(vocab, task, user) + write(vocab, response[:given])
    ids = begin + write(vocab, response[given:]) + vocab.markup(EOS)
    header = 4 if isinstance(response[given], Tensor) else 0
    return Sequence(ids, len(begin) + header)


def draw_prompt(vocab: Vocabulary, caption: str | None, grid: int) -> list[int]:
    """Text-to-image prompt up to and including the header; `None` gives the unconditional branch of guidance."""
    if caption is not None and not caption.strip():
        raise ValueError("the caption is empty; say what to draw, for example 'a thick seven leaning right'")
    return prompt(vocab, "draw", [caption], grid)


def draw_sequence(vocab: Vocabulary, caption: str | None, codes: Tensor) -> Sequence:
    """Text-to-image training sequence for codes `[h, w]`."""
    if codes.shape[0] != codes.shape[1]:
        raise ValueError(f"codes to draw must form a square grid, as the header says, got {list(codes.shape)}")
    return sequence(vocab, "draw", [caption], [codes])


def describe_prompt(vocab: Vocabulary, codes: Tensor, question: str = DESCRIBE_QUESTION) -> list[int]:
    """Understanding prompt: image block, then the question."""
    return prompt(vocab, "describe", [codes, question])


def describe_sequence(vocab: Vocabulary, codes: Tensor, answer: str) -> Sequence:
    """Understanding training sequence: the answer and the end of text are the response."""
    return sequence(vocab, "describe", [codes, DESCRIBE_QUESTION], [answer])

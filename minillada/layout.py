"""How each task is written as one sequence of ids (LLaDA2.0-Uni, arXiv 2604.20796), and how sequences become a training batch.

An image block is `<|image|> <|reserved_token_H|> <|reserved_token_W|> <boi>` + H·W codes in raster order + `<|/image|>`;
its first four tokens are the header. Pieces are tokenised separately and concatenated, as the official code does.
A sequence is a prompt, never masked, and a response, which the model learns to fill in.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
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


class Batch(NamedTuple):
    """`ids` `[B, L]`; `targets` `[B, L]` marks what training may mask: response and padding; `real` leaves padding out.

    Where a row packs several sequences, `documents` `[B, L]` counts them; the unused rest of a row is document −1.
    """

    ids: Tensor
    targets: Tensor
    real: Tensor
    documents: Tensor | None = None


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


def by_shape(sequences: list[Sequence], vocab: Vocabulary, multiple: int) -> list[Batch]:
    """`collate` for sequences of many tasks: one batch for each length and each first block of the response, in multiples of `multiple`.

    In one batch, all would be as long as the longest, and asked over the range of all responses.
    """
    groups: dict[tuple[int, int], list[Sequence]] = {}
    for s in sequences:
        groups.setdefault((-(-len(s.ids) // multiple), s.prompt_length // multiple), []).append(s)
    return [collate(group, vocab, multiple) for _, group in sorted(groups.items())]


def collate(sequences: list[Sequence], vocab: Vocabulary, multiple: int) -> Batch:
    """Pad with end-of-text to one length, the next multiple of `multiple` (normally the block size).

    The padding is supervised, as in the official training: a model must know that nothing follows the end.
    """
    length = -(-max(len(s.ids) for s in sequences) // multiple) * multiple
    ids = torch.tensor([s.ids + [vocab.eos_id] * (length - len(s.ids)) for s in sequences])
    position = torch.arange(length)
    prompt = torch.tensor([s.prompt_length for s in sequences])[:, None]
    end = torch.tensor([len(s.ids) for s in sequences])[:, None]
    return Batch(ids, position >= prompt, (position >= prompt) & (position < end))


def pack(sequences: list[Sequence], vocab: Vocabulary, length: int, block_size: int) -> Batch:
    """Sequences of any lengths in few rows of `length`: each, filled up to whole blocks, goes into the first row with room for it.

    What fills up a sequence is supervised as in `collate`; what fills up a row is not. `ValueError` for a sequence longer than a row.
    """
    if length % block_size:
        raise ValueError(f"block size {block_size} does not divide rows of {length} tokens; choose a multiple")
    rows: list[list[Batch]] = []
    for part in (collate([sequence], vocab, block_size) for sequence in sorted(sequences, key=lambda s: -len(s.ids))):
        size = part.ids.shape[1]
        if size > length:
            raise ValueError(f"a sequence of {size} tokens does not fit into rows of {length}; make the rows longer")
        room = (row for row in rows if sum(p.ids.shape[1] for p in row) + size <= length)
        row = next(room, None)
        if row is None:
            rows.append(row := [])
        row.append(part)
    ids, documents = torch.full((len(rows), length), vocab.eos_id), torch.full((len(rows), length), -1)
    targets, real = torch.zeros(2, len(rows), length, dtype=torch.bool)
    for r, row in enumerate(rows):
        end = 0
        for number, part in enumerate(row):
            here = slice(end, end := end + part.ids.shape[1])
            documents[r, here] = number
            ids[r, here], targets[r, here], real[r, here] = part.ids[0], part.targets[0], part.real[0]
    return Batch(ids, targets, real, documents)

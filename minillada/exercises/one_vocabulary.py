"""Exercises of notebook 03, one vocabulary."""

import torch

from .. import layout
from ..exercises.checking import Case, Cases, Chance, exercise
from ..vocab import BOI, END_IMAGE, IMAGE, load_vocabulary, size_token


@exercise("correct: one comparison and one subtraction tell text from image")
def check_code_of(chance: Chance) -> Cases:
    """`function(ids [n], offset) -> [n]`: the image code of every id, −1 where the id is text."""
    for offset, seed in ((384, 0), (157_184, 1), (10, 2)):
        generator = chance.generator(seed)
        others = torch.randint(2 * offset, (9,), generator=generator)
        ids = torch.cat([torch.tensor([0, offset - 1, offset, offset + 1]), others])
        late = torch.where(ids > offset, ids - offset, -1)
        added = torch.where(ids >= offset, ids + offset, -1)
        mistakes = {
            "the first image code is 0, its id is the offset itself: compare with >=": late,
            "text ids have no code: put −1 there": ids - offset,
            "that is the other direction: from id to code the offset is subtracted": added,
        }
        yield Case((ids, offset), torch.where(ids >= offset, ids - offset, -1), mistakes)


@exercise("correct: four tokens of header, the codes row by row, one token to close")
def check_image_block(chance: Chance) -> Cases:
    """`function(vocab, codes [h, w]) -> list of ids`: header, codes row by row, closing token."""
    vocab = load_vocabulary(512)
    for height, width in ((2, 3), (4, 4), (5, 1)):
        generator = chance.generator(height)
        codes = torch.randint(512, (height, width), generator=generator)
        right = layout.image_block(vocab, codes)
        head, ids, end = right[:4], right[4:-1], right[-1:]
        by_columns = vocab.image_ids(codes.T)
        text = vocab.encode(IMAGE + size_token(height) + size_token(width) + BOI)
        text_end = vocab.encode(END_IMAGE)
        mistakes = {
            "height comes before width": [head[0], head[2], head[1], head[3], *ids, *end],
            "raster order goes row by row, not column by column": head + by_columns + end,
            "the codes need the offset: use vocab.image_ids": head + codes.flatten().tolist() + end,
            "the closing token <|/image|> is missing": head + ids,
            "<boi> is missing between the sizes and the codes": head[:3] + ids + end,
            "encode reads special tokens as text: use vocab.markup": text + ids + text_end,
        }
        wrong = {hint: torch.tensor(values) for hint, values in mistakes.items()}
        yield Case((vocab, codes), torch.tensor(right), wrong)


@exercise("correct: everything from the end of the prompt, the padding included")
def check_targets(chance: Chance) -> Cases:
    """`function(prompt_lengths [B], lengths [B], total) -> bool [B, total]`: what may be masked."""
    for total in (8, 48):
        generator = chance.generator(total)
        prompt = torch.randint(1, total // 2, (5,), generator=generator)
        end = prompt + 1 + torch.randint(total // 2, (5,), generator=generator)
        position = torch.arange(total)
        right, real = position >= prompt[:, None], position < end[:, None]
        mistakes = {
            "padding is a target too: the model must learn that nothing follows": right & real,
            "a prompt of length P ends at P − 1, so P is a target": position > prompt[:, None],
            "that is the prompt; the targets are the rest": ~right,
        }
        yield Case((prompt, end, total), right, mistakes)

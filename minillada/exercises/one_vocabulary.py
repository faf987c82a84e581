"""Exercises of notebook 03, one vocabulary."""

import torch

from .. import layout
from ..vocab import BOI, load_vocabulary
from .checking import Case, Cases, Chance, exercise


@exercise("correct: one comparison and one subtraction tell text from image")
def check_code_of(chance: Chance) -> Cases:
    """`function(ids [n], offset) -> [n]`: the image code of every id, −1 where the id is text."""
    for offset, seed in ((384, 0), (157_184, 1), (10, 2)):
        generator = chance.generator(seed)
        others = torch.randint(4 * offset, (9,), generator=generator)
        ids = torch.cat([torch.tensor([0, offset - 1, offset, offset + 1, 3 * offset]), others])
        late = torch.where(ids > offset, ids - offset, -1)
        added = torch.where(ids >= offset, ids + offset, -1)
        rest = torch.where(ids >= offset, ids % offset, -1)
        kept = torch.where(ids >= offset, ids, -1)
        mistakes = {
            "the first image code is 0, its id is the offset itself: compare with >=": late,
            "text ids have no code: put −1 there": ids - offset,
            "0 is the code of an image; text has none and gets −1": (ids - offset).clamp_min(0),
            "that is the other direction: from id to code the offset is subtracted": added,
            "a remainder begins again at twice the offset: subtract the offset": rest,
            "those are ids; codes begin at 0": kept,
        }
        yield Case((ids, offset), torch.where(ids >= offset, ids - offset, -1), mistakes)


@exercise("correct: the header says where the codes are, and how to lay them out")
def check_read_image(chance: Chance) -> Cases:
    """`function(vocab, ids) -> codes [h, w]`: the image that stands somewhere in a list of ids."""
    vocab = load_vocabulary(512)
    for height, width in ((2, 3), (4, 2), (3, 5), (16, 3), (1, 16)):
        generator = chance.generator(height)
        codes = torch.randint(512, (height, width), generator=generator)
        if height % 2:  # the image comes last, and not at the same place
            ids = layout.draw_sequence(vocab, "a seven", codes).ids
        else:
            ids = layout.describe_sequence(vocab, codes, "a seven").ids
        begin = ids.index(vocab.markup(BOI)[0])
        late = torch.tensor(ids[begin + 2 :][: codes.numel()]) - vocab.image_token_offset
        mistakes = {
            "the first size is the height, the second the width": codes.view(width, height),
            "the codes stand row by row, not column by column": codes.view(width, height).T,
            "those are ids; codes begin at 0: use vocab.codes": codes + vocab.image_token_offset,
            "lay the codes out in rows: .view(height, width)": codes.flatten(),
            "the first code stands right behind <boi>": late.view(height, width),
        }
        yield Case((vocab, ids), codes, mistakes)


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
            "every row has a prompt length of its own": position >= prompt[0],
        }
        yield Case((prompt, end, total), right, mistakes)

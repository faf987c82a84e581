"""exercises.one_vocabulary"""

from __future__ import annotations

from collections.abc import Callable

import torch

from .. import layout
from ..exercises.checking import attempt, known_mistake, same
from ..vocab import load_vocabulary


def check_code_of(function: Callable) -> bool:
    """Notebook 03: `function(ids [n], offset) -> [n]`, the image code of every id, −1 where the id is text."""
    for offset, seed in ((384, 0), (157_184, 1), (10, 2)):
        others = torch.randint(2 * offset, (9,), generator=torch.Generator().manual_seed(seed))
        ids = torch.cat([torch.tensor([0, offset - 1, offset, offset + 1]), others])
        hints = {
            "the first image code is 0 and its id is the offset itself: compare with >=": torch.where(ids > offset, ids - offset, -1),
            "text ids have no code: put −1 there": ids - offset,
            "that is the other direction: from id to code the offset is subtracted": torch.where(ids >= offset, ids + offset, -1),
        }
        result = attempt(function, ids, offset)
        if result is None or not same(result, torch.where(ids >= offset, ids - offset, -1), hints):
            return False
    print("correct: one comparison and one subtraction tell text from image")
    return True


def check_image_block(function: Callable) -> bool:
    """Notebook 03: `function(vocab, codes [h, w]) -> list of ids`, header, codes in raster order, closing token."""
    vocab = load_vocabulary(512)
    for h, w in ((2, 3), (4, 4), (5, 1)):
        codes = torch.randint(512, (h, w), generator=torch.Generator().manual_seed(h))
        right = torch.tensor(layout.image_block(vocab, codes))
        place = (torch.arange(4, 4 + h * w),)
        hints = {
            "height comes before width": right[[0, 2, 1, *range(3, len(right))]],
            "raster order goes row by row, not column by column": right.index_put(place, right[place].view(h, w).T.flatten()),
            "the codes need the offset: use vocab.image_ids": right.index_put(place, codes.flatten()),
            "the closing token <|/image|> is missing": right[:-1],
            "<boi> is missing between the sizes and the codes": torch.cat([right[:3], right[4:]]),
        }
        result = attempt(function, vocab, codes)
        if result is None:
            return False
        if known_mistake(result, right, hints) or not same(result, right):
            return False
    print("correct: four tokens of header, the codes row by row, one token to close")
    return True


def check_targets(function: Callable) -> bool:
    """Notebook 03: `function(prompt_lengths [B], lengths [B], total) -> bool [B, total]`, what training may mask."""
    for total in (8, 48):
        generator = torch.Generator().manual_seed(total)
        prompt = torch.randint(1, total // 2, (5,), generator=generator)
        end = prompt + 1 + torch.randint(total // 2, (5,), generator=generator)
        position, right = torch.arange(total), torch.arange(total) >= prompt[:, None]
        hints = {
            "padding is a target too: the model must learn that nothing follows the end": right & (position < end[:, None]),
            "one position too late: a prompt of length P fills positions 0 to P − 1, so P is a target": position > prompt[:, None],
            "that is the prompt; the targets are the rest": ~right,
        }
        result = attempt(function, prompt, end, total)
        if result is None or not same(result, right, hints):
            return False
    print("correct: everything from the end of the prompt, the padding included")
    return True

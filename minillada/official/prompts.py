"""Where official prompts differ from those of our small models (LLaDA2.0-Uni, released code).

All others are written by `layout` as released: pieces tokenised apart, header at the end.

Notable choices
- An edit without its image keeps a lone `<|image|>` where the image was. Ours leave no mark.
- A thought keeps the header that the model wrote itself. The branch without words has the header of
  the size that was asked for, and so has a thought that begins no image. (There the released code
  stops with an error; so does the serving code at a story's header that is none.)
- Models of text alone end each turn with a tag, which the prompts above do not have. There the
  released code tokenises a whole turn, so a piece may span the end of a role and the first letter.
- In a story the model chooses the size of each image by the header it writes. From the second image
  on, the branch without text keeps the whole history up to the last image, and the branch without
  image forgets it. Ours drop all words or all images, as they were trained (`tasks.dropping`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from .. import layout
from ..layout import Grid, Story
from ..vocab import BOI, IMAGE, ROLES, UNCONDITION, Vocabulary, size_token

LARGEST_IMAGE = 4096  # codes of an image in a story, as in the serving code
ROLE_END = "<|role_end|>"  # behind each turn of a talk
SYSTEM = "detailed thinking off"  # the system prompt of a talk, or its last line


def edit_branches(
    vocab: Vocabulary, images: list[Tensor], instruction: str, grid: Grid
) -> tuple[list[int], list[int], list[int]]:
    """Prompts for one edit: (full, no instruction, no images)."""
    full, no_text, _ = layout.edit_branches(vocab, images, instruction, grid)
    no_image = layout.prompt(vocab, "edit", [vocab.markup(IMAGE), instruction], grid)
    return full, no_text, no_image


def question(vocab: Vocabulary, images: list[Tensor], text: str, chat: bool = True) -> list[int]:
    """A question about images. Early released code (`chat=False`) has no roles around it."""
    parts: list[layout.Part] = [*images, text]
    return layout.prompt(vocab, "describe", parts) if chat else layout.ids_of(vocab, parts)


def talk(vocab: Vocabulary, turns: Sequence[str], system: str = "") -> list[int]:
    """A talk, in which user and model speak in turn and the model comes next.

    `ValueError` for text pieces without the tag that ends a turn.
    """
    end = vocab.token_id(ROLE_END)
    if end is None:
        raise ValueError(f"this checkpoint has no special token {ROLE_END}, so it cannot chat")
    ids = [*turn_ids(vocab, "SYSTEM", f"{system}\n{SYSTEM}" if system else SYSTEM), end]
    for number, text in enumerate(turns):
        role = "ASSISTANT" if number % 2 else "HUMAN"
        ids += [*turn_ids(vocab, role, text), end]
    return ids + vocab.markup(ROLES["ASSISTANT"])


def turn_ids(vocab: Vocabulary, role: str, text: str) -> list[int]:
    """A role and what it says, in which no special token can be typed."""
    begin = ROLES[role]
    if vocab.markup(begin) == vocab.encode(begin):  # no special token that would end a piece
        return vocab.encode(begin + text)
    return vocab.markup(begin) + vocab.encode(text)


def header_grid(vocab: Vocabulary, header: list[int]) -> tuple[int, int] | None:
    """Height and width that a header says, or None if it is no proper header.

    The model may spell a size in letters for which there is no token.
    """
    text = vocab.decode(header)
    size = r"<\|reserved_token_(\d+)\|>"
    found = re.fullmatch(re.escape(IMAGE) + size + size + re.escape(BOI), text)
    if not found:
        return None
    height, width = int(found[1]), int(found[2])
    known = all(vocab.token_id(size_token(side)) is not None for side in (height, width))
    return (height, width) if known and 0 < height * width <= LARGEST_IMAGE else None


@dataclass(eq=False)
class OfficialStory(Story):
    """A `Story` with official guidance branches."""

    header: list[int] = field(default_factory=list)  # of the next image, as the model wrote it

    def branches(self, grid: Grid) -> tuple[list[int], ...]:
        """Prompts for the next image, which comes after a text: full, then without text.

        After an image in the story there is a third one, without images.
        """
        header = layout.image_header(self.vocab, *layout.sides(grid))
        full = self.so_far()
        silent = layout.prompt(self.vocab, self.task, [None])
        if self.task == "think":
            return full + (self.header or header), silent + header
        if not any(isinstance(part, Tensor) for part in self.parts):
            return full + header, silent + header
        # The history ends with an image; the text after it is the newest part.
        text = self.parts[-1]
        assert not isinstance(text, Tensor)
        history = full[: len(full) - len(text)]
        no_text = history + self.vocab.markup(UNCONDITION) + header
        return full + header, no_text, silent + text + header

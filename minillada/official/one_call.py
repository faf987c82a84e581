"""One call of a user: `Uni` with official prompts, and with the context that a checkpoint has.

`calls.OfficialModel` makes one for each call. What has been written so far decides how long the
next text may be, and an image must fit behind its thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .. import asking, layout
from ..config import SamplingConfig
from ..extras.sprint import Sprint
from ..layout import Story, sides
from ..uni import Uni
from ..writer import Prompts
from . import prompts
from .prompts import OfficialStory

ENDS_EARLY = "the story ends early: it fills the context of the model"


class Call(Uni):
    """`Uni` with official prompts, made for one call and its canvas."""

    edit_branches = staticmethod(prompts.edit_branches)
    tokenizer: Any  # a Canvas
    sprint: Sprint | None = None

    def shown(self, images: Any) -> list[list[Tensor]]:
        """For each row the codes of its images `[3, H, W]`, which may have different sizes."""
        rows = []
        for group in images:
            rows.append([self.tokenizer.encode(image[None])[0].cpu() for image in group])
        return rows

    def decode(self, codes: Tensor) -> Tensor:
        """As in `Writer`, but of any size: images of a story differ. The painter checks codes."""
        return self.tokenizer.decode(codes).float().cpu()

    def stories(self, task: str, prompts: list[str]) -> list[Story]:
        texts = asking.read_texts(prompts, self.vocab)
        return [OfficialStory(self.vocab, task, text) for text in texts]

    def write(self, rows: Sequence[Prompts], *given: Any, **more: Any) -> Any:
        """As in `Writer`; every task decodes here, after its checks."""
        self.tokenizer.prepare()
        self.recorder = self.sprint if len(rows[0]) < 3 else None  # as released
        return super().write(rows, *given, **more)

    def fill_images(self, rows: Sequence[Prompts], *others: Any, **more: Any) -> Any:
        """As in `Writer`; `ValueError` for an image that does not fit the context."""
        height, width = sides(self.tokenizer.grid)
        prompt = max(len(row[0]) for row in rows)
        if height * width > self.space(prompt):
            raise ValueError(
                f"an image of {height} x {width} codes behind a prompt of {prompt:,} tokens does "
                "not fit the context of the model; ask for a smaller picture or shorten the prompt"
            )
        return super().fill_images(rows, *others, **more)

    def space(self, before: int) -> int:
        """How many tokens whole blocks have left behind `before` tokens."""
        config = self.backbone.config
        blocks = config.max_position_embeddings // config.block_size
        return blocks * config.block_size - before

    def image_length(self) -> int:
        """Tokens of the next image, with its header."""
        height, width = sides(self.tokenizer.grid)
        return len(layout.image_header(self.vocab, height, width)) + height * width

    def reply(self, asked: list[list[int]], length: int, config: SamplingConfig) -> list[str]:
        """As in `Writer`, at most as long as fits, and without the tag that ends a turn."""
        longest = max(len(prompt) for prompt in asked)
        check_space(longest, self.space(longest))
        texts = super().reply(asked, min(length, self.space(longest)), config)
        return [text.removesuffix(prompts.ROLE_END).strip() for text in texts]

    def continue_stories(
        self, stories: list[Story], length: int, config: SamplingConfig
    ) -> list[bool]:
        """As in `Writer`; a story keeps the header that the model wrote."""
        return [self.continue_story(story, length, config) for story in stories]

    def continue_story(self, story: Story, length: int, config: SamplingConfig) -> bool:
        """Add a text to a story; returns whether it goes on with an image."""
        assert isinstance(story, OfficialStory)
        # 1. what is there so far; a story that has begun ends where no text fits any more
        prompt = story.so_far()
        space = self.space(len(prompt))
        if story.parts and space < 1:
            asking.warn(ENDS_EARLY)
            return False
        if story.task == "think":  # the image behind a thought must fit, too
            space -= self.image_length()
        check_space(len(prompt), space)
        # 2. a text, and the header behind it; both are lists of one row
        texts, headers = self.write_until_image([prompt], min(length, space), config)
        story.parts.append(texts[0])
        story.header = headers[0]
        # 3. in a story the model says how large the next image is, and that must fit, too
        if story.task == "interleave" and story.header:
            own = prompts.header_grid(self.vocab, story.header)
            self.tokenizer.grid = own or self.tokenizer.asked
            if self.image_length() > space - len(texts[0]):
                asking.warn(ENDS_EARLY)
                return False
        return bool(story.header)


def check_space(tokens: int, space: int) -> None:
    """`ValueError` for a prompt that leaves no space behind it."""
    if space < 1:
        raise ValueError(
            f"the prompt of {tokens:,} tokens and what it asks for fill the context of the model; "
            "shorten the text, show fewer photos or ask for a smaller picture"
        )

"""What guidance leaves out of a prompt, and so must be left out of some examples in training.

Guidance compares what a model does with a prompt and without parts of it (`guidance.py`). The
model can only do that if it has seen such prompts: a share of the examples is trained in the form
of a branch. Each system prompt has its own branches; they are those that `Uni` asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .base import Example, Picture, pictures_of


def drop(example: Example, rng: Random, rate: float) -> Example:
    """The example as a branch of guidance, for a share `rate` of those that end in a picture.

    Guidance is for pictures only, so examples that end in a text stay as they are.
    """
    if not isinstance(example.response[-1], Picture) or rng.random() >= rate:
        return example
    return BRANCHES[example.system](example, rng)


def without_prompt(example: Example, rng: Random) -> Example:
    """Drawing and thinking: no prompt, and no thought either."""
    return Example(example.system, [None], example.response[-1:])


def without_text_or_images(example: Example, rng: Random) -> Example:
    """Editing: either no text, or no image."""
    # A text that is absent is written as <uncondition>; an absent image leaves nothing behind.
    if rng.random() < 0.5:
        return example._replace(user=[*example.user[:-1], None])
    return example._replace(user=example.user[-1:])


def without_images_or_words(example: Example, rng: Random) -> Example:
    """Interleaving: either all images without words, or words without images and one last image.

    In the second form the words are the prompt, and the image of the last word is the response. The
    words are two or more: before the first image of a story there is no image to leave out.
    """
    pictures = pictures_of(example.response)
    if rng.random() >= 0.5:
        return example._replace(user=[None], response=[*pictures])
    words = [part for part in example.response if not isinstance(part, Picture)]
    n = rng.randint(2, len(words))
    return example._replace(response=[*words[:n], pictures[n - 1]], given=n)


# system prompt -> what its guidance drops; "describe" answers in words and has no guidance
BRANCHES: dict[str, Callable[[Example, Random], Example]] = {
    "draw": without_prompt,
    "think": without_prompt,
    "edit": without_text_or_images,
    "interleave": without_images_or_words,
}

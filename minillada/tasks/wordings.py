"""Ways to ask for the same: some are trained, others never.

Notable choices
- `plain` are the oldest wordings. Evaluations ask the first of them, the text pieces were learned
  from them, and the stages up to `mnist-uni-drills` train only them.
- `more` are trained by the stage `mnist-uni`, half of them with polite words around them.
- `new` are never trained, nor are the polite words around them. They show whether a model
  understands words, or only knows whole sentences by heart.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

PLAIN, POLITE, NUMERALS = 0.25, 0.5, 0.3  # shares: plain wordings, polite ones, numbers as numerals


class Wordings(NamedTuple):
    """The ways to ask for one thing; fields such as `{digit}` are filled in later."""

    plain: tuple[str, ...]
    more: tuple[str, ...] = ()
    new: tuple[str, ...] = ()

    def trained(self, rng: Random) -> str:
        """One of those that are trained. Some stay plain, so that these are not forgotten."""
        if rng.random() < PLAIN:
            return rng.choice(self.plain)
        text = rng.choice(self.plain + self.more)
        frames = polite_words(text).more
        return polite(text, rng.choice(frames)) if frames and rng.random() < POLITE else text

    def never_trained(self, rng: Random) -> str:
        """One of those that are never trained. `ValueError` if there are none."""
        if not self.new:
            raise ValueError(f"no wording of {self.plain[0]!r} is never trained; give some as new")
        text = rng.choice(self.new)
        frames = polite_words(text).new
        return polite(text, rng.choice(frames)) if frames and rng.random() < POLITE else text


# What may stand around a question, a request, and the name of a picture, in the place of `{}`.
# None of them is plain: a plain text stands alone, without polite words.
QUESTION = Wordings(
    (),
    more=(
        "please tell me: {}",
        "tell me, {}",
        "hello, {}",
        "hey, {}",
        "well, {}",
        "please say: {}",
        "i wonder: {}",
        "excuse me, {}",
        "can you tell me: {}",
        "i want to know: {}",
        "i would love to know: {}",
        "could you tell me: {}",
        "{} please",
        "{} thanks",
    ),
    new=(
        "could you please tell me: {}",
        "hi, {}",
        "please answer: {}",
        "i would like to know: {}",
        "{} thank you",
    ),
)
REQUEST = Wordings(
    (),
    more=(
        "please {}",
        "{}, please",
        "{} please",
        "could you {}?",
        "could you please {}?",
        "can you {}?",
        "i want you to {}",
        "i would love you to {}",
        "would it be possible to {}?",
        "hello, {}",
        "hello, please {}",
        "hey, {}",
        "now {}",
        "just {}",
        "simply {}",
        "next, {}",
        "{}, thanks",
        "{} now",
    ),
    new=(
        "would you {}?",
        "would you please {}?",
        "can you please {}?",
        "i would like you to {}",
        "hi, please {}",
        "kindly {}",
        "{}, thank you",
    ),
)
PICTURE = Wordings(
    (),
    more=(
        "draw {}",
        "please draw {}",
        "{}, please",
        "could you draw {}?",
        "can you draw {}?",
        "show me {}",
        "i want to see {}",
        "i would love to see {}",
        "hey, draw {}",
        "just draw {}",
        "a picture of {}",
    ),
    new=(
        "would you draw {}?",
        "can you please draw {}?",
        "i would like to see {}",
        "kindly draw {}",
        "hi, draw {}",
    ),
)
NONE = Wordings(())


def polite_words(text: str) -> Wordings:
    """What may stand around a text; nothing around one that begins with a field such as `{a}`."""
    if "?" in text:
        return QUESTION
    if text.startswith(("the ", "{caption}")):  # the name of a picture, not a request for it
        return PICTURE
    return NONE if text.startswith("{") else REQUEST


def polite(text: str, frame: str) -> str:
    """`could you name the digit?`, from `name the digit.` and `could you {}?`"""
    return frame.replace("{}", text.rstrip(".").lower())

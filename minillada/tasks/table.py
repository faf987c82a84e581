"""Every task by name."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from random import Random

from ..datasets import edits
from ..datasets.mnist import DIGITS
from ..datasets.pool import Pool
from ..tasks.base import Example
from ..tasks.drawing import draw
from ..tasks.editing import (
    EDIT_DIGIT,
    MULTI_REFERENCE,
    edit_digit,
    edit_operation,
    multi_reference,
    operations,
)
from ..tasks.numbers import NUMBERS, SUMS, counting_trace
from ..tasks.questions import (
    COMPARE_ANSWERS,
    PARITY_ANSWERS,
    QUESTIONS,
    SLANT_ANSWERS,
    THICKNESS_ANSWERS,
    compare,
    describe,
    question,
)
from ..tasks.stories import COUNT, interleave
from ..tasks.thinking import SUM, count_on, go_on, repeat, sums

# task -> builder(pool, random numbers, vary the wording) -> Example
TASKS: dict[str, Callable[[Pool, Random, bool], Example]] = {
    "draw": draw,
    "describe": describe,
    **{kind: question(kind) for kind in ("digit", "thickness", "slant", "parity", "arithmetic")},
    "compare": compare,
    "edit_operation": edit_operation,
    "edit_turn": operations(["mirror it", "rotate it"]),  # again the two that move every code to another place: the hardest to learn
    "edit_digit": edit_digit,
    "multi_reference": multi_reference,
    "sum_direct": sums(False),
    "sum_thinking": sums(True),
    "count_on": count_on,
    "repeat": repeat,
    "go_on": go_on,
    "interleave": interleave,
}


def all_texts() -> list[str]:
    """Every text that an example can contain, for the text tokenizer to learn its pieces from; those of `count_on` use the same pieces."""
    pairs = [dict(a=NUMBERS[a], b=NUMBERS[b]) for a, b in SUMS] + [
        dict(a=NUMBERS[a], b=NUMBERS[b]) for a, b in product(range(10), repeat=2) if a < b
    ]
    texts = [q.format(n=n) for kind in QUESTIONS.values() for q in kind for n in DIGITS]
    texts += [w.format(digit=d).replace("a eight", "an eight") for w in EDIT_DIGIT for d in DIGITS]
    texts += [w.format(**pair) for w in SUM + COUNT for pair in pairs]
    texts += [counting_trace(a, b) for a, b in SUMS]
    texts += [*edits.OPERATIONS, *MULTI_REFERENCE] * 5
    return texts + [*NUMBERS, *SLANT_ANSWERS, *THICKNESS_ANSWERS, *PARITY_ANSWERS, *COMPARE_ANSWERS] * 5

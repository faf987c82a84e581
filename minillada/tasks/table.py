"""Every task by name, and every text that a task can say."""

from __future__ import annotations

from functools import partial

from ..datasets import captions, edits
from ..datasets.mnist import DIGITS
from .base import Task
from .comparing import COMPARE, COMPARE_ANSWERS, make_compare
from .drawing import make_draw, mark_drawings
from .editing import (
    EDIT_DIGIT,
    make_edit_digit,
    make_edit_operation,
    make_edit_turn,
    mark_edits,
    mark_operations,
)
from .numbers import NUMBERS, SUMS, UNSEEN_SUMS, counting_trace
from .questions import (
    PARITY_ANSWERS,
    QUESTIONS,
    SLANT_ANSWERS,
    THICKNESS_ANSWERS,
    make_describe,
    make_question,
    mark_answers,
    mark_descriptions,
)
from .references import MULTI_REFERENCE, make_multi_reference, mark_references
from .stories import COUNT, make_story, mark_stories
from .thinking import (
    SUM,
    make_count_on,
    make_go_on,
    make_repeat,
    make_sum_direct,
    make_sum_thinking,
    mark_thinking,
)

# A new task goes to the end: the suite numbers its random examples by their place in this table.
TASKS: dict[str, Task] = {
    "digit": Task(partial(make_question, "digit"), mark_answers),
    "thickness": Task(partial(make_question, "thickness"), mark_answers),
    "slant": Task(partial(make_question, "slant"), mark_answers),
    "parity": Task(partial(make_question, "parity"), mark_answers),
    "arithmetic": Task(partial(make_question, "arithmetic"), mark_answers),
    "compare": Task(make_compare, mark_answers),
    "edit_operation": Task(make_edit_operation, mark_operations),
    "edit_turn": Task(make_edit_turn),
    "edit_digit": Task(make_edit_digit, mark_edits),
    "multi_reference": Task(make_multi_reference, mark_references),
    "sum_direct": Task(make_sum_direct, mark_drawings),
    "sum_direct_unseen": Task(
        partial(make_sum_direct, pairs=UNSEEN_SUMS), mark_drawings, trained=False
    ),
    "sum_thinking": Task(make_sum_thinking, mark_thinking),
    "sum_thinking_unseen": Task(
        partial(make_sum_thinking, pairs=UNSEEN_SUMS), mark_thinking, trained=False
    ),
    "count_on": Task(make_count_on),
    "repeat": Task(make_repeat),
    "go_on": Task(make_go_on),
    "interleave": Task(make_story, mark_stories),
    "draw": Task(make_draw, mark_drawings),
    "describe": Task(make_describe, mark_descriptions),
}

# What a mixture may hold: all but the tasks that only evaluations ask.
TRAINED = [name for name, task in TASKS.items() if task.trained]


def all_texts() -> list[str]:
    """Texts of every task, from which the text tokenizer learns its pieces.

    Those of the drills `count_on`, `repeat` and `go_on` use the same pieces and are left out. What
    occurs in many examples is repeated. The shipped pieces depend on this list and its order.
    """
    texts = []
    for wordings in (*QUESTIONS.values(), COMPARE):
        for wording in wordings:
            texts += [wording.format(n=digit) for digit in DIGITS]
    for wording in EDIT_DIGIT:
        texts += [wording.format(digit=captions.article(digit)) for digit in DIGITS]
    counted = [(a, b) for a in range(10) for b in range(a + 1, 10)]
    for wording in SUM + COUNT:
        texts += [wording.format(a=NUMBERS[a], b=NUMBERS[b]) for a, b in SUMS + counted]
    texts += [counting_trace(a, b) for a, b in SUMS]
    texts += [*edits.OPERATIONS, *MULTI_REFERENCE] * 5
    answers = [*NUMBERS, *SLANT_ANSWERS, *THICKNESS_ANSWERS, *PARITY_ANSWERS, *COMPARE_ANSWERS]
    return texts + answers * 5

"""Every task by name, and every text that a task can say."""

from __future__ import annotations

from functools import partial

from ..datasets.grammar import article
from ..datasets.mnist import DIGITS
from ..datasets.table import CIFAR10, MNIST, DataSet
from .base import Task, make_in_new_wording
from .comparing import BRIGHTER, COMPARE, COMPARE_ANSWERS, make_brighter, make_compare
from .drawing import make_draw, mark_drawings
from .editing import (
    EDIT_DIGIT,
    EDIT_LABEL,
    make_edit_digit,
    make_edit_label,
    make_edit_operation,
    make_edit_turn,
    mark_edits,
    mark_operations,
)
from .filling import (
    make_infill,
    make_inpaint,
    make_inpaint_captioned,
    mark_infilling,
    mark_inpainting,
)
from .numbers import NUMBERS, SUMS, UNSEEN_SUMS, counting_trace
from .questions import (
    KIND_ANSWERS,
    PARITY_ANSWERS,
    PHOTO_QUESTIONS,
    QUESTIONS,
    SLANT_ANSWERS,
    THICKNESS_ANSWERS,
    make_describe,
    make_photo_question,
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

# What a masked model can do without having learned it.
UNTRAINED: dict[str, Task] = {
    "inpaint": Task(make_inpaint, mark_inpainting, trained=False),
    "inpaint_captioned": Task(make_inpaint_captioned, mark_inpainting, trained=False),
    "infill": Task(make_infill, mark_infilling, trained=False),
}

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
    **UNTRAINED,
    # the same as above, in wordings that are never trained
    "digit_new_wording": Task(
        partial(make_in_new_wording, partial(make_question, "digit")), mark_answers, trained=False
    ),
    "edit_operation_new_wording": Task(
        partial(make_in_new_wording, make_edit_operation), mark_operations, trained=False
    ),
    "sum_thinking_new_wording": Task(
        partial(make_in_new_wording, make_sum_thinking), mark_thinking, trained=False
    ),
}

# The tasks of colour photos.
PHOTO_TASKS: dict[str, Task] = {
    "label": Task(partial(make_photo_question, "label"), mark_answers),
    "brightness": Task(partial(make_photo_question, "brightness"), mark_answers),
    "colour": Task(partial(make_photo_question, "colour"), mark_answers),
    "kind": Task(partial(make_photo_question, "kind"), mark_answers),
    "brighter": Task(make_brighter, mark_answers),
    "edit_operation": Task(make_edit_operation, mark_operations),
    "edit_label": Task(make_edit_label, mark_edits),
    "draw": Task(make_draw, mark_drawings),
    "describe": Task(make_describe, mark_descriptions),
    **UNTRAINED,
}

# data set -> its tasks
TASKS_OF = {MNIST.name: TASKS, CIFAR10.name: PHOTO_TASKS}


def trained(dataset: str) -> list[str]:
    """What a mixture may hold: all tasks but those that only evaluations ask."""
    return [name for name, task in TASKS_OF[dataset].items() if task.trained]


TRAINED = trained(MNIST.name)


def all_texts(data: DataSet = MNIST) -> list[str]:
    """Texts of every task of a data set, from which the text tokenizer learns its pieces."""
    return TEXTS_OF[data.name]()


def photo_texts() -> list[str]:
    """Texts of the tasks of photos. What occurs in many examples is repeated."""
    words = CIFAR10.grammar.words
    texts = [*BRIGHTER.plain]
    for wordings in PHOTO_QUESTIONS.values():
        texts += wordings.plain
    texts += CIFAR10.operations
    for wording in EDIT_LABEL.plain:
        texts += [wording.format(digit=article(word)) for word in words["label"]]
    for answers in (*words.values(), KIND_ANSWERS, COMPARE_ANSWERS):
        texts += answers
    return texts * 5


def digit_texts() -> list[str]:
    """Texts of the tasks of digits.

    Those of the drills `count_on`, `repeat` and `go_on` use the same pieces and are left out. What
    occurs in many examples is repeated. The shipped pieces depend on this list and its order, so it
    holds plain wordings only.
    """
    texts = []
    for wordings in (*QUESTIONS.values(), COMPARE):
        for wording in wordings.plain:
            texts += [wording.format(n=digit) for digit in DIGITS]
    for wording in EDIT_DIGIT.plain:
        texts += [wording.format(digit=article(digit)) for digit in DIGITS]
    counted = [(a, b) for a in range(10) for b in range(a + 1, 10)]
    for wording in SUM.plain + COUNT.plain:
        texts += [wording.format(a=NUMBERS[a], b=NUMBERS[b]) for a, b in SUMS + counted]
    texts += [counting_trace(a, b) for a, b in SUMS]
    texts += [*MNIST.operations, *MULTI_REFERENCE.plain] * 5
    answers = [*NUMBERS, *SLANT_ANSWERS, *THICKNESS_ANSWERS, *PARITY_ANSWERS, *COMPARE_ANSWERS]
    return texts + answers * 5


TEXTS_OF = {MNIST.name: digit_texts, CIFAR10.name: photo_texts}

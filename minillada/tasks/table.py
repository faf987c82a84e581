"""Every task by name, and texts of the tasks, from which text pieces are learned."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ..datasets.grammar import article
from ..datasets.mnist import DIGITS
from ..datasets.table import CIFAR10, MNIST, DataSet
from . import comparing, drawing, editing, filling, questions, references, stories, thinking
from .base import Task, make_in_new_wording
from .numbers import NUMBERS, SUMS, UNSEEN_SUMS, counting_trace

# What many tasks share: how they are marked, and what a model must have learned for them.
question = partial(Task, mark=questions.mark_answers, needs="answer questions", draws=False)
written = partial(Task, needs="write before it draws")
edited = partial(Task, needs="edit")
untrained = partial(Task, trained=False)
unseen_direct = partial(thinking.make_sum_direct, pairs=UNSEEN_SUMS)
unseen_thinking = partial(thinking.make_sum_thinking, pairs=UNSEEN_SUMS)
describe = Task(questions.make_describe, questions.mark_descriptions, needs="describe", draws=False)

# What a masked model can do without having learned it.
UNTRAINED: dict[str, Task] = {
    "inpaint": untrained(filling.make_inpaint, filling.mark_inpainting),
    "inpaint_captioned": untrained(filling.make_inpaint_captioned, filling.mark_inpainting),
    "infill": untrained(filling.make_infill, filling.mark_infilling, needs="describe", draws=False),
}

# A new task goes to the end: the suite numbers its random examples by their place in this table.
TASKS: dict[str, Task] = {
    "digit": question(partial(questions.make_question, "digit")),
    "thickness": question(partial(questions.make_question, "thickness")),
    "slant": question(partial(questions.make_question, "slant")),
    "parity": question(partial(questions.make_question, "parity")),
    "arithmetic": question(partial(questions.make_question, "arithmetic")),
    "compare": question(comparing.make_compare),
    "edit_operation": edited(editing.make_edit_operation, editing.mark_operations),
    "edit_turn": Task(editing.make_edit_turn),
    "edit_digit": edited(editing.make_edit_digit, editing.mark_edits),
    "multi_reference": edited(references.make_multi_reference, references.mark_references),
    "sum_direct": Task(thinking.make_sum_direct, drawing.mark_drawings),
    "sum_direct_unseen": untrained(unseen_direct, drawing.mark_drawings),
    "sum_thinking": written(thinking.make_sum_thinking, thinking.mark_thinking),
    "sum_thinking_unseen": written(unseen_thinking, thinking.mark_thinking, trained=False),
    "count_on": Task(thinking.make_count_on),
    "repeat": Task(thinking.make_repeat),
    "go_on": Task(thinking.make_go_on),
    "interleave": written(stories.make_story, stories.mark_stories),
    "draw": Task(drawing.make_draw, drawing.mark_drawings),
    "describe": describe,
    **UNTRAINED,
}
# Three of them again, in wordings that are never trained.
for name in ("digit", "edit_operation", "sum_thinking"):
    make = partial(make_in_new_wording, TASKS[name].make)
    TASKS[f"{name}_new_wording"] = replace(TASKS[name], make=make, trained=False)

# The tasks of colour photos.
PHOTO_TASKS: dict[str, Task] = {
    "label": question(partial(questions.make_photo_question, "label")),
    "brightness": question(partial(questions.make_photo_question, "brightness")),
    "colour": question(partial(questions.make_photo_question, "colour")),
    "kind": question(partial(questions.make_photo_question, "kind")),
    "brighter": question(comparing.make_brighter),
    "edit_operation": edited(editing.make_edit_operation, editing.mark_operations),
    "edit_label": edited(editing.make_edit_label, editing.mark_edits),
    "draw": Task(drawing.make_draw, drawing.mark_drawings),
    "describe": describe,
    **UNTRAINED,
}

# data set -> its tasks
TASKS_OF = {MNIST.name: TASKS, CIFAR10.name: PHOTO_TASKS}


def trained(dataset: str) -> list[str]:
    """What a mixture may hold: all tasks but those that only evaluations ask."""
    return [name for name, task in TASKS_OF[dataset].items() if task.trained]


TRAINED = trained(MNIST.name)


def all_texts(data: DataSet = MNIST) -> list[str]:
    """Plain texts of the tasks of a data set; the text tokenizer learns its pieces from them."""
    return TEXTS_OF[data.name]()


def photo_texts() -> list[str]:
    """Texts of the tasks of photos, five times: each is said more often than a single caption."""
    words = CIFAR10.grammar.words
    texts = [*comparing.BRIGHTER.plain]
    for wordings in questions.PHOTO_QUESTIONS.values():
        texts += wordings.plain
    texts += CIFAR10.operations
    for wording in editing.EDIT_LABEL.plain:
        texts += [wording.format(digit=article(word)) for word in words["label"]]
    for answers in (*words.values(), questions.KIND_ANSWERS, comparing.COMPARE_ANSWERS):
        texts += answers
    return texts * 5


def digit_texts() -> list[str]:
    """Texts of the tasks of digits.

    Those of the drills `count_on`, `repeat` and `go_on` use the same pieces and are left out. What
    occurs in many examples is repeated. The shipped pieces depend on this list and its order, so it
    holds plain wordings only.
    """
    texts = []
    for wordings in (*questions.QUESTIONS.values(), comparing.COMPARE):
        for wording in wordings.plain:
            texts += [wording.format(n=digit) for digit in DIGITS]
    for wording in editing.EDIT_DIGIT.plain:
        texts += [wording.format(digit=article(digit)) for digit in DIGITS]
    upwards = [(a, b) for a in range(10) for b in range(a + 1, 10)]  # for stories
    for wording in thinking.SUM.plain + stories.COUNT.plain:
        texts += [wording.format(a=NUMBERS[a], b=NUMBERS[b]) for a, b in SUMS + upwards]
    texts += [counting_trace(a, b) for a, b in SUMS]
    texts += [*MNIST.operations, *references.MULTI_REFERENCE.plain] * 5
    style = questions.SLANT_ANSWERS + MNIST.grammar.words["thickness"]
    answers = [*NUMBERS, *style, *questions.PARITY_ANSWERS, *comparing.COMPARE_ANSWERS]
    return texts + answers * 5


TEXTS_OF = {MNIST.name: digit_texts, CIFAR10.name: photo_texts}

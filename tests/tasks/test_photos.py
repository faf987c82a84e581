"""Tasks of photos: what an example calls right is derived again, from labels and pixels alone."""

import dataclasses
import functools
import itertools
from collections import Counter
from random import Random

import pytest
import torch
from helpers import tiny_judge

from minillada import layout
from minillada.datasets import colour, edits
from minillada.datasets.cifar10 import CLASSES, VEHICLES, load_cifar10_sample
from minillada.datasets.grammar import Grammar
from minillada.datasets.pool import Pool, measured_pool
from minillada.datasets.table import CIFAR10
from minillada.tasks import editing
from minillada.tasks.base import Example, Picture, Source, make_examples, pictures_of, pixels
from minillada.tasks.drawing import make_draw
from minillada.tasks.questions import PHOTO_QUESTIONS
from minillada.tasks.table import PHOTO_TASKS, UNTRAINED, all_texts, trained
from minillada.training.recipes import bpe_corpus


@functools.cache
def pool() -> Pool:
    return measured_pool(CIFAR10, load_cifar10_sample("test"))


def many(task: str, count: int = 60, varied: bool = True) -> list[Example]:
    source = Source(pool(), Random(task), varied)
    return [PHOTO_TASKS[task].make(source) for _ in range(count)]


def test_a_data_set_may_have_more_kinds_than_there_are_digits():
    """Labels of photos are no numbers, so none of them needs a name as one."""
    words = {"label": tuple(f"kind {letter}" for letter in "abcdefghijklmnopqrstuvwxyz")}
    grammar = Grammar(words, lambda kind: f"a {words['label'][kind]}")
    data = dataclasses.replace(CIFAR10, name="letters", grammar=grammar)
    letters = Pool(load_cifar10_sample("test"), {"label": list(range(26))}, data=data)
    drawn = [make_draw(Source(letters, Random(seed))) for seed in range(100)]
    assert {example.user[-1] for example in drawn} == {*grammar.all_captions()}


def shown(picture: Picture) -> torch.Tensor:
    return pool().images.floats([picture.index])


@pytest.mark.parametrize("other", ["many_wordings", "new_wording"])
def test_wordings_that_speak_of_digits_are_refused(other):
    with pytest.raises(ValueError, match="only digits have more than plain wordings; turn"):
        Source(pool(), Random(0), **{other: True})


def label(picture: Picture) -> int:
    return int(pool().images.labels[picture.index])


def style(picture: Picture) -> list[int]:
    return colour.attributes(shown(picture))[0].tolist()


def right_answer(task: str, picture: Picture) -> str:
    word, (bright, most) = CLASSES[label(picture)], style(picture)
    if task == "label":
        return word
    if task == "brightness":
        return ("dark", "bright")[bright]
    if task == "colour":
        return ("blue", "green", "brown")[most]
    return "vehicle" if word in VEHICLES else "animal"


@pytest.mark.parametrize("task", PHOTO_QUESTIONS)
def test_answers_about_one_photo(task):
    said = set()
    for example in many(task):
        picture, question = example.user
        assert question in PHOTO_QUESTIONS[task].plain and example.system == "describe"
        assert example.response == [right_answer(task, picture)]
        said.add(example.response[0])
    expected = {"label": 10, "brightness": 2, "colour": 3, "kind": 2}[task]
    assert len(said) == expected, "every answer occurs"
    assert {example.user[1] for example in many(task, 9, varied=False)} == {
        PHOTO_QUESTIONS[task].plain[0]
    }


@functools.cache
def lopsided_pool() -> Pool:
    """500 dark brown cats, and one photo of every other kind."""
    kinds = [(3, 0, 2)] * 500 + list(itertools.product(range(10), range(2), range(4)))
    columns = dict(zip(("label", "brightness", "colour"), map(list, zip(*kinds))))
    return Pool(lambda: load_cifar10_sample("test"), columns, data=CIFAR10)


@pytest.mark.parametrize(
    ("task", "column", "values"),
    [("label", 0, 10), ("kind", 0, 10), ("brightness", 1, 2), ("colour", 2, 3),
     ("edit_operation", 0, 10), ("inpaint", 0, 10), ("infill", 0, 10)],
)  # fmt: skip
def test_frequent_photos_are_asked_about_no_more_often_than_others(task, column, values):
    asked = make_examples(PHOTO_TASKS[task].make, lopsided_pool(), 600, seed=0)
    counts = Counter(lopsided_pool().classes(example.user[0].index)[column] for example in asked)
    assert set(counts) == set(range(values))
    assert max(counts.values()) < 600 / values + 5 * (600 / values) ** 0.5


def test_any_label_is_asked_for_in_an_edit_and_its_colour_is_kept_where_there_is_one():
    pool = lopsided_pool()
    asked = make_examples(PHOTO_TASKS["edit_label"].make, pool, 600, seed=0)
    pairs = [[pool.classes(side[0].index) for side in (x.user, x.response)] for x in asked]
    counts = Counter(after[0] for _, after in pairs)
    assert set(counts) == set(range(10)) and max(counts.values()) < 100
    assert all(before[1:] == after[1:] for before, after in pairs)


def test_the_brighter_of_two():
    answers = []
    for example in many("brighter"):
        first, second = (float(colour.brightness(shown(part))) for part in example.user[:2])
        assert abs(first - second) > 0.0999
        answers.append("the first" if first > second else "the second")
        assert example.response == [answers[-1]]
    assert set(answers) == {"the first", "the second"}


def test_captions_to_draw_and_to_describe():
    partial = 0
    for example in many("draw", 200):
        (text,), (picture,) = example.user, example.response
        said, true = colour.GRAMMAR.parse(text), (label(picture), *style(picture))
        assert said[0] == true[0] and said[1] in (None, true[1])
        assert said[2] in (colour.UNSAID, true[2])
        partial += text != colour.caption(*true)
    assert 10 < partial < 60, "a fifth is incomplete; without a colour, less can be left out"
    for example in many("describe"):
        (picture,) = pictures_of(example.user)
        assert example.response == [colour.caption(label(picture), *style(picture))]


def test_edits_by_pixels_are_those_of_photos():
    examples = many("edit_operation")
    for example in examples:
        picture, instruction = example.user
        assert example.response == [Picture(picture.index, instruction)]
    assert {example.user[1] for example in examples} == set(edits.COLOUR_OPERATIONS)


def test_edits_by_label_keep_brightness_and_mostly_colour():
    kept = 0
    for example in many("edit_label", 100):
        (picture, instruction), (result,) = example.user, example.response
        assert instruction.split()[-1] == CLASSES[label(result)]
        assert (" an " in instruction) == (instruction.split()[-1][0] == "a")
        assert style(result)[0] == style(picture)[0]
        kept += style(result)[1] == style(picture)[1]
    assert kept > 90


def test_an_edit_by_label_without_a_photo_of_that_colour_takes_any():
    few = load_cifar10_sample("test")
    few = few._replace(pixels=few.pixels[:40], labels=few.labels[:40])
    small = measured_pool(CIFAR10, few)
    made = 0
    for seed in range(60):
        try:
            PHOTO_TASKS["edit_label"].make(Source(small, Random(seed)))
            made += 1
        except ValueError as error:
            assert "colour" not in str(error)
    assert made > 20


@pytest.mark.parametrize("asked", edits.COLOUR_OPERATIONS)
def test_the_nearest_operation_is_the_asked_one(asked):
    hits = 0
    for image in pool().images.floats(slice(0, 20)):
        for done in edits.COLOUR_OPERATIONS:
            drawn = edits.apply([done], image[None])[0]
            found = editing.nearest_operation(drawn, image, asked, CIFAR10)
            hits += found == (asked == done)
        # Noise of a tokenizer's size (22 dB) does not change the verdict.
        noisy = edits.apply([asked], image[None])[0] + 0.08 * torch.randn(3, 32, 32)
        hits += editing.nearest_operation(noisy, image, asked, CIFAR10)
    assert hits >= 112, "of 120; some photos are nearly grey, and their hue can hardly be told"


def test_the_text_tokenizer_has_seen_every_text():
    corpus = {*bpe_corpus(True, CIFAR10)}
    assert {*all_texts(CIFAR10)} <= corpus and layout.DESCRIBE_QUESTION in corpus
    for task in set(trained("cifar10")) - {"draw"}:
        for example in many(task, 40):
            for part in example.user + example.response:
                assert not isinstance(part, str) or part in corpus, part


def test_every_task_is_trained_and_marked():
    assert trained("cifar10") == [name for name in PHOTO_TASKS if name not in UNTRAINED]
    assert all(task.mark is not None for task in PHOTO_TASKS.values())


class Perfect:
    """Answers each example with what is right."""

    def __init__(self, asked: list[Example]):
        self.asked = asked

    def answer(self, images, questions):
        return [example.response[0] for example in self.asked]

    def describe(self, images, question):
        return self.answer(images, question)

    def edit(self, images, instructions, seed):
        return torch.stack([pixels(pool(), example.response[0]) for example in self.asked])

    def draw(self, texts, seed):
        return self.edit(None, texts, seed)

    def inpaint(self, images, masks, captions, seed):
        return self.edit(None, captions, seed)

    def infill(self, texts, images):
        return self.answer(images, texts)


@pytest.mark.parametrize("task", PHOTO_TASKS)
def test_right_answers_are_marked_as_right(task):
    asked = make_examples(PHOTO_TASKS[task].make, pool(), 30, seed=1)
    judge = tiny_judge()
    by_pixels = {pool().images.floats([i]).numpy().tobytes(): i for i in range(len(pool()))}

    def classify(images):
        known = [by_pixels.get(image[None].numpy().tobytes(), 0) for image in images]
        return torch.tensor([int(pool().images.labels[i]) for i in known])

    judge.classify = classify
    marked = PHOTO_TASKS[task].mark(Perfect(asked), judge, pool(), asked, 0)
    first = next(iter(marked.right.values()))
    if task == "edit_operation":  # grey and rounded pixels are not those of a known photo
        assert sum(marked.right["_done"]) >= 28
        assert set(marked.right) == {"", "_done", "_label_kept"}
    else:
        assert all(first)
    if task == "edit_label":
        assert all(marked.right["_brightness"]) and sum(marked.right["_colour"]) >= 26

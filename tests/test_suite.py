"""Marks are checked with models that answer perfectly, and with models that answer wrongly in a known way."""

import functools

import pytest
import torch
from helpers import mnist_test_images

from minillada import checkpoint
from minillada.datasets import captions, edits
from minillada.datasets.mnist import Images
from minillada.datasets.pool import Pool
from minillada.measure import suite
from minillada.presets import get_preset
from minillada.tasks import editing
from minillada.tasks.base import Picture, make, pixels
from minillada.tasks.numbers import NUMBERS, is_held_out

SAMPLES = 40


@functools.cache
def pool() -> Pool:
    images = mnist_test_images()
    return Pool(Images(images.pixels[:4000], images.labels[:4000]))


@functools.cache
def judge():
    return checkpoint.load_model("mnist-judge", "judge")[0]


class Oracle:
    """Answers with the right response; `wrong` turns each part of it into something else."""

    def __init__(self, asked, wrong=lambda part: part):
        self.asked, self.wrong = asked, wrong

    def parts(self):
        shown = lambda part: pixels(pool(), part) if isinstance(part, Picture) else part  # noqa: E731
        return [[self.wrong(shown(part)) for part in example.response] for example in self.asked]

    def answer(self, images, questions):
        return [row[0] for row in self.parts()]

    def draw(self, prompts, seed):
        return torch.stack([row[-1] for row in self.parts()])

    def edit(self, images, instructions, seed):
        return torch.stack([row[-1] for row in self.parts()])

    def think_and_draw(self, prompts, seed):
        return [row[0] for row in self.parts()], self.draw(prompts, seed)

    def interleave_all(self, prompts, seed):
        return self.parts()


def marks(task, wrong=lambda part: part):
    build, mark = suite.SUITE[task]
    asked = make(pool(), build, SAMPLES, 1)
    return suite.scores({task: mark(Oracle(asked, wrong), judge(), pool(), asked, 0)})


@pytest.mark.parametrize("task", sorted(suite.SUITE))
def test_right_answers_are_right_and_wrong_ones_wrong(task):
    best = marks(task)
    assert best[task]["accuracy"] >= 0.95 and best[task]["n"] == SAMPLES, "the judge may misread a few real digits"
    nonsense = marks(task, lambda part: "nonsense" if isinstance(part, str) else torch.zeros_like(part))
    assert nonsense[task]["accuracy"] <= 0.35, "a judge sees some digit in an empty image, too"
    assert all(0 < score["ci95"] < 0.2 for score in best.values())


def test_an_edit_that_was_not_done_is_wrong_although_the_digit_is_kept():
    build, mark = suite.SUITE["edit_operation"]
    asked = make(pool(), build, SAMPLES, 1)
    lazy = Oracle(asked)
    lazy.edit = lambda images, instructions, seed: torch.stack([image for (image,) in images])
    report = suite.scores({"edit_operation": mark(lazy, judge(), pool(), asked, 0)})
    assert report["edit_operation_done"]["accuracy"] <= 0.2 and report["edit_operation"]["accuracy"] <= 0.2


def test_the_nearest_operation_is_the_asked_one_unless_they_look_alike():
    image = pool().images.floats([0])[0]
    for asked in edits.OPERATIONS:
        for done in edits.OPERATIONS:
            drawn = edits.OPERATIONS[done](image[None])[0]
            assert editing.nearest_operation(drawn, image, asked) == (asked == done)
    ring = torch.zeros(1, 32, 32)
    ring[:, 8:24, 8:24], ring[:, 11:21, 11:21] = 1, 0  # its own mirror image
    assert editing.nearest_operation(ring, ring, "mirror it") and not editing.nearest_operation(ring, ring, "invert it")


def test_parts_of_a_score_are_marked_apart():
    def thinner(part):
        return part if isinstance(part, str) else edits.thinner(edits.thinner(part[None]))[0]

    report = marks("edit_digit", lambda part: part)
    changed = marks("edit_digit", lambda part: part.flip(-1))
    assert report["edit_digit_attributes"]["accuracy"] == 1
    assert changed["edit_digit_thickness"]["accuracy"] >= 0.9 and changed["edit_digit_slant"]["accuracy"] < 0.7
    assert marks("multi_reference", thinner)["multi_reference_thickness"]["accuracy"] < 0.8
    described = marks(
        "describe", lambda text: text.split()[0] + " " + " ".join(w for w in text.split() if captions.parse(w)[0] is not None)
    )
    assert described["describe"]["accuracy"] == 1 and described["describe_exact"]["accuracy"] == 0


def test_an_incomplete_story_is_wrong():
    build, mark = suite.SUITE["interleave"]
    asked = make(pool(), build, 10, 1)
    short = Oracle(asked)
    short.interleave_all = lambda prompts, seed: [row[:-2] for row in Oracle(asked).parts()]
    assert not any(mark(short, judge(), pool(), asked, 0).right[""])


def test_sums_that_were_never_trained_are_marked_apart():
    for example in make(pool(), suite.SUITE["sum_direct_unseen"][0], SAMPLES, 1):
        a, b = (NUMBERS.index(word) for word in example.user[0].split() if word in NUMBERS)
        assert is_held_out(a, b, get_preset("mnist-uni").training.held_out)


def test_unknown_tasks():
    with pytest.raises(ValueError, match="no task is called 'sing'; choose from digit"):
        suite.run(None, None, pool(), 1, 0, ["sing"])

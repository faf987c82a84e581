"""Marks are checked with models that answer perfectly, and with models that err in a known way."""

import functools
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from helpers import real_images, tiny_backbone, tiny_uni

from minillada import checkpoint
from minillada.asking import TEACHING, NotLearned
from minillada.datasets import captions, edits
from minillada.datasets.pool import Pool, mnist_pool
from minillada.datasets.table import CIFAR10
from minillada.evaluation import suite
from minillada.measure.intervals import wilson
from minillada.measure.judge import Judge
from minillada.presets import get_preset
from minillada.tasks import editing
from minillada.tasks.base import Marked, Picture, Task, make_examples, pixels
from minillada.tasks.numbers import NUMBERS, is_held_out

SAMPLES = 40


@functools.cache
def pool() -> Pool:
    return mnist_pool(real_images(4000))


@functools.cache
def judge():
    return checkpoint.load_model("mnist-judge", Judge)[0]


def asked_of(task: str, count: int = SAMPLES) -> list:
    return make_examples(suite.SUITE[task].make, pool(), count, seed=1)


def unchanged(part):
    return part


class Oracle:
    """Answers with the right response; `wrong` turns each part of it into something else."""

    def __init__(self, asked, wrong=unchanged):
        self.asked, self.wrong = asked, wrong

    def responses(self):
        rows = []
        for example in self.asked:
            row = []
            for part in example.response:
                shown = pixels(pool(), part) if isinstance(part, Picture) else part
                row.append(self.wrong(shown))
            rows.append(row)
        return rows

    def answer(self, images, questions):
        return [row[0] for row in self.responses()]

    def draw(self, prompts, seed):
        return torch.stack([row[-1] for row in self.responses()])

    def edit(self, images, instructions, seed):
        return self.draw(instructions, seed)

    def inpaint(self, images, masks, captions, seed):
        return self.draw(captions, seed)

    def describe(self, images, question):
        return self.answer(images, question)

    def infill(self, texts, images):
        return self.answer(images, texts)

    def think_and_draw(self, prompts, seed):
        return [row[0] for row in self.responses()], self.draw(prompts, seed)

    def interleave_all(self, prompts, seed):
        return self.responses()


def mark(task: str, uni: Oracle) -> dict:
    return suite.scores({task: suite.SUITE[task].mark(uni, judge(), pool(), uni.asked, 0)})


def marks(task: str, wrong=unchanged) -> dict:
    return mark(task, Oracle(asked_of(task), wrong))


def nonsense(part):
    return "nonsense" if isinstance(part, str) else torch.zeros_like(part)


@pytest.mark.parametrize("task", sorted(suite.SUITE))
def test_right_answers_are_right_and_wrong_ones_wrong(task):
    best, worst = marks(task), marks(task, nonsense)
    assert best[task]["n"] == SAMPLES
    assert best[task]["accuracy"] >= 0.95, "the judge may misread a few real digits"
    assert worst[task]["accuracy"] <= 0.35, "a judge sees some digit in an empty image, too"
    assert all(0.02 < score["high"] - score["low"] < 0.4 for score in best.values())
    assert all(0 <= score["low"] and score["high"] <= 1 for score in best.values())


def test_an_edit_that_was_not_done_is_wrong_although_the_digit_is_kept():
    class Lazy(Oracle):
        def edit(self, images, instructions, seed):
            return torch.stack([image for (image,) in images])

    report = mark("edit_operation", Lazy(asked_of("edit_operation")))
    assert report["edit_operation_done"]["accuracy"] <= 0.2
    assert report["edit_operation"]["accuracy"] <= 0.2


def test_an_edit_that_lost_the_digit_is_wrong_although_it_was_done():
    class Other(Oracle):
        """The right operation, on the picture of another example."""

        def edit(self, images, instructions, seed):
            originals = torch.stack([image for (image,) in images])
            return edits.apply(instructions, originals).roll(1, 0)

    asked = [e for e in asked_of("edit_operation", 200) if e.user[-1] == "invert it"]
    report = mark("edit_operation", Other(asked))
    assert report["edit_operation_done"]["accuracy"] >= 0.9
    assert report["edit_operation"]["accuracy"] <= 0.3


def test_the_nearest_operation_is_the_asked_one_unless_they_look_alike():
    image = pool().images.floats([0])[0]
    for asked in edits.OPERATIONS:
        for done in edits.OPERATIONS:
            drawn = edits.apply([done], image[None])[0]
            assert editing.nearest_operation(drawn, image, asked) == (asked == done)
    ring = torch.zeros(1, 32, 32)
    ring[:, 8:24, 8:24] = 1
    ring[:, 11:21, 11:21] = 0  # its own mirror image
    assert editing.nearest_operation(ring, ring, "mirror it")
    assert not editing.nearest_operation(ring, ring, "invert it")
    assert not editing.nearest_operation(ring * float("nan"), ring, "mirror it")


def test_parts_of_an_edit_are_marked_apart():
    def mirrored(part):
        return part.flip(-1)

    def much_thinner(part):
        return part if isinstance(part, str) else edits.thinner(edits.thinner(part[None]))[0]

    changed = marks("edit_digit", mirrored)
    assert marks("edit_digit")["edit_digit_attributes"]["accuracy"] == 1
    assert changed["edit_digit_thickness"]["accuracy"] >= 0.9
    assert changed["edit_digit_slant"]["accuracy"] < 0.7
    thin = marks("multi_reference", much_thinner)
    assert thin["multi_reference_thickness"]["accuracy"] < 0.8


def test_a_description_of_the_digit_alone_is_not_exact():
    def digit_only(text):
        return captions.caption(captions.parse(text)[0])

    described = marks("describe", digit_only)
    assert described["describe"]["accuracy"] == 1
    assert described["describe_exact"]["accuracy"] == 0


def test_an_incomplete_story_is_wrong():
    class Short(Oracle):
        def interleave_all(self, prompts, seed):
            return [row[:-2] for row in self.responses()]

    assert mark("interleave", Short(asked_of("interleave", 10)))["interleave"]["accuracy"] == 0


def test_sums_that_were_never_trained_are_marked_apart():
    held_out = get_preset("mnist-uni").training.data.held_out
    for task in ("sum_direct_unseen", "sum_thinking_unseen"):
        for example in asked_of(task):
            a, b = (NUMBERS.index(word) for word in example.user[0].split() if word in NUMBERS)
            assert is_held_out(a, b, held_out)


def test_a_task_asks_the_same_whatever_else_is_run():
    class Same:
        backbone, recorder, info = tiny_backbone(), None, {}

        def answer(self, images, questions):
            return ["one"] * len(questions)

    def run(tasks):
        return suite.run(Same(), judge(), pool(), 3, 5, tasks)

    alone, together = run(["slant"]), run(["digit", "slant"])
    assert alone["slant"].examples == together["slant"].examples
    assert list(alone) == ["slant"] and list(together) == ["digit", "slant"]


def test_seeds_and_passes_of_a_run(monkeypatch):
    """Each task has examples of its own for each seed, and passes are those of one answer."""
    asked = []

    def mark(uni, judge, pool, examples, seed):
        asked.append(("mark", seed))
        return Marked(examples, [], {"": [True, True, False], "_part": [True]})

    def made(make, pool, samples, seed):
        asked.append(("make", samples, seed))
        return []

    monkeypatch.setattr(suite, "make_examples", made)
    monkeypatch.setattr(suite, "counted", lambda uni: nullcontext(SimpleNamespace(rows=30)))
    monkeypatch.setitem(suite.SUITES, "cifar10", dict.fromkeys(("a", "b"), Task(None, mark)))
    marked = suite.run(SimpleNamespace(info={}), None, SimpleNamespace(data=CIFAR10), 10, 7)
    assert asked == [("make", 10, 7000), ("mark", 7), ("make", 10, 7001), ("mark", 7)]
    found = suite.scores(marked)
    assert list(found) == ["a", "a_part", "b", "b_part"]
    low, high = wilson(2, 3)
    wanted = {"accuracy": 2 / 3, "low": low, "high": high, "n": 3, "passes": 3}
    assert found["a"] == wanted and found["b_part"]["n"] == 1


def test_nobody_trained_on_the_pool_of_a_suite(monkeypatch):
    monkeypatch.setattr(suite, "stored_pool", lambda data, split: (data.name, split))
    assert suite.unseen_pool() == ("mnist", "test")
    assert suite.unseen_pool("cifar10") == ("cifar10", "test")


def test_sums_that_a_run_has_trained_are_not_unseen(monkeypatch):
    """Neither if the run itself trained them, nor if the one before it did."""
    names = ["sum_direct", "sum_direct_unseen"]
    monkeypatch.setitem(suite.SUITES, "mnist", {name: suite.SUITE[name] for name in names})
    before = {"training": {"data": {"held_out": 3}}}
    now = {"training": {"data": {"held_out": 9}}}
    for info, asked in ((now, names), (before, names[:1]), (now | {"start": before}, names[:1])):
        uni = tiny_uni()
        uni.info = info
        assert list(suite.run(uni, judge(), pool(), 2)) == asked
    with pytest.raises(ValueError, match="trained on sums of sum_direct_unseen"):
        suite.run(uni, judge(), pool(), 2, 0, names)


def test_tasks_before_one_that_fails_are_kept(monkeypatch):
    def fail(*arguments):
        raise ValueError("no place")

    broken = suite.SUITE["draw"].__class__(suite.SUITE["draw"].make, fail)
    chosen = {"sum_direct": suite.SUITE["sum_direct"], "draw": broken}
    monkeypatch.setitem(suite.SUITES, "mnist", chosen)
    marked = {}
    with pytest.raises(ValueError, match="no place"):
        suite.run(tiny_uni(), judge(), pool(), 2, marked=marked)
    assert list(marked) == ["sum_direct"]


def test_tasks_that_were_never_learned_are_left_out(monkeypatch, capsys):
    names = ["draw", "sum_thinking"]
    monkeypatch.setitem(suite.SUITES, "mnist", {name: suite.SUITE[name] for name in names})
    uni = tiny_uni()
    uni.info = {"training": {"data": {"mixture": [["draw", 1.0], ["edit_turn", 1.0]]}}}
    assert list(suite.run(uni, judge(), pool(), 2)) == ["draw"]
    out, err = capsys.readouterr()
    assert "sum_thinking is left out: this model has not learned" in err and out == ""
    with pytest.raises(ValueError, match="has not learned to write before it draws"):
        suite.run(uni, judge(), pool(), 2, 0, names)


def learned(*tasks: str) -> dict:
    return {"training": {"data": {"mixture": [[task, 1.0] for task in tasks]}}}


def test_a_model_that_describes_is_asked_to_describe():
    """Its captions are those of `Uni.describe`, whatever questions it never learned."""
    uni = tiny_uni()
    uni.info = learned("draw", "describe")
    marked = suite.run(uni, judge(), pool(), 3, 0, ["describe"])["describe"]
    shown = torch.stack([pixels(pool(), example.user[0]) for example in marked.examples])
    assert [answer for (answer,) in marked.answers] == uni.describe(shown)
    uni.info = learned("draw", "digit")
    with pytest.raises(NotLearned, match="has not learned to describe"):
        suite.run(uni, judge(), pool(), 3, 0, ["describe"])


@pytest.mark.parametrize("name", sorted(suite.SUITE))
def test_what_a_task_needs_is_what_its_marking_asks_for(name, monkeypatch):
    """And whether it draws is whether the right response ends in a picture."""
    task = suite.SUITE[name]
    asked = asked_of(name, 1)
    assert task.draws == isinstance(asked[0].response[-1], Picture)
    if task.needs is None:  # every model can be asked to draw
        return
    uni = tiny_uni()
    uni.info = learned(*(task for kind in {*TEACHING} - {task.needs} for task in TEACHING[kind]))
    with pytest.raises(NotLearned, match=f"has not learned to {task.needs}"):
        task.mark(uni, judge(), pool(), asked, 0)
    # Named beside others it is refused before anything is asked.
    monkeypatch.setattr(suite, "make_examples", None)
    with pytest.raises(NotLearned, match=f"has not learned to {task.needs}"):
        suite.run(uni, judge(), pool(), 2, 0, ["draw", name])


def test_what_cannot_be_run():
    few = {"training": {"data": {"held_out": 3}}}
    for name in ("sum_direct_unseen", "sum_thinking_unseen"):
        with pytest.raises(NotLearned, match=f"trained on sums of {name}"):
            suite.check_tasks(few, "mnist", [name])
    with pytest.raises(ValueError, match="no task is called 'sing'; choose from digit"):
        suite.run(tiny_uni(), None, pool(), 1, 0, ["sing"])
    with pytest.raises(ValueError, match="samples is 0; a task needs at least 1 example"):
        suite.run(None, None, pool(), 0)

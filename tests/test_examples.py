"""What an example calls right is derived again, from labels and pixels alone."""

import functools
import re
from random import Random

import pytest
import torch
from helpers import mnist_test_images

from minillada import layout
from minillada.datasets import captions, edits
from minillada.datasets.mnist import DIGITS, Images
from minillada.datasets.pool import Pool
from minillada.tasks import questions
from minillada.tasks.base import Picture, drop
from minillada.tasks.numbers import HELD_OUT, NUMBERS, SUMS, counting_trace
from minillada.tasks.table import TASKS, all_texts


@functools.cache
def pool() -> Pool:
    return Pool(mnist_test_images())


def many(task: str, count: int = 60, varied: bool = True):
    rng = Random(task)
    return [TASKS[task](pool(), rng, varied) for _ in range(count)]


def label(picture: Picture) -> int:
    return int(pool().images.labels[picture.index])


def style(picture: Picture) -> list[int]:
    return captions.attributes(pool().images.floats([picture.index]))[0].tolist()


def number_in(text: str) -> int:
    return next(n for n, word in enumerate(NUMBERS) if word in re.findall(r"\w+", text))


def test_the_pool_knows_its_images():
    index = [0, 17, 4999, 5000, 9999]
    expected = captions.caption_classes(pool().images.floats(index), pool().images.labels[index]).tolist()
    assert [list(pool().classes[i]) for i in index] == expected
    assert sum(map(len, pool().members.values())) == 10_000
    rng = Random(0)
    for wanted in ((3, None, None), (None, 1, None), (None, None, 2), (8, 0, 0)):
        picked = [pool().classes[pool().pick(rng, *wanted)] for _ in range(30)]
        assert all(w is None or w == p for row in picked for w, p in zip(wanted, row, strict=True)) and len(set(picked)) > (None in wanted)


def test_kinds_are_picked_as_often_as_they_occur():
    small = Pool(Images(mnist_test_images().pixels[:200], mnist_test_images().labels[:200]))
    rng = Random(0)
    picked = torch.tensor([small.pick(rng, digit=1) for _ in range(4000)]).bincount(minlength=200)
    ones = (small.images.labels == 1).nonzero().flatten()
    assert picked.sum() == picked[ones].sum() and (picked[ones] - 4000 / len(ones)).abs().max() < 6 * (4000 / len(ones)) ** 0.5
    with pytest.raises(ValueError, match=r"no image of this split has the digit, thickness and slant \(5, 1, 0\)"):
        Pool(Images(small.images.pixels[:3], small.images.labels[:3])).pick(rng, 5, 1, 0)


@pytest.mark.parametrize("task", ["digit", "thickness", "slant", "parity", "arithmetic"])
def test_answers_about_one_image(task):
    seen = set()
    for example in many(task):
        (picture, question), (answer,) = example.user, example.response
        digit, (thickness, slant) = label(picture), style(picture)
        right = {
            "digit": lambda digit=digit: DIGITS[digit],
            "thickness": lambda thickness=thickness: ["thin", "thick"][thickness],
            "slant": lambda slant=slant: ["left", "upright", "right"][slant],
            "parity": lambda digit=digit: "odd" if digit in (1, 3, 5, 7, 9) else "even",
            "arithmetic": lambda digit=digit, question=question: NUMBERS[digit + number_in(question)],
        }[task]()
        assert answer == right and example.system == "describe"
        seen.add(question)
    assert len(seen) >= 2, "the wording varies"
    assert {e.user[1].split()[0] for e in many(task, varied=False)} == {questions.QUESTIONS[task][0].split()[0]}


def test_comparing():
    answers = set()
    for example in many("compare"):
        a, b = (label(part) for part in example.user[:2])
        assert example.response == ["the first" if a > b else "the second" if b > a else "neither"]
        answers |= set(example.response)
    assert answers == set(questions.COMPARE_ANSWERS)


def test_edits():
    for example in many("edit_operation"):
        picture, instruction = example.user
        assert example.response == [Picture(picture.index, instruction)] and picture.operation is None and instruction in edits.OPERATIONS
        if instruction == "make it thinner":
            assert style(picture)[0] == 1
    turned = {example.user[1] for example in many("edit_turn")}
    assert turned == {"mirror it", "rotate it"}
    for example in many("edit_digit"):
        picture, instruction = example.user
        assert label(example.response[0]) == number_in(instruction) and style(example.response[0]) == style(picture)
    for example in many("multi_reference"):
        first, second, _ = example.user
        result = example.response[0]
        assert label(result) == label(first) and style(result) == [style(second)[0], style(first)[1]]


@pytest.mark.parametrize("held_out", [0, 4, len(HELD_OUT)])
def test_sums_and_what_is_held_out(held_out):
    kept_out, pairs = HELD_OUT[:held_out], Pool(mnist_test_images(), held_out).sums
    assert not {(min(pair), max(pair)) for pair in pairs} & set(kept_out)
    assert len(pairs) + 2 * held_out == len(SUMS) == 55, "both orders of a pair are kept out"
    assert {a + b for a, b in pairs} == set(range(10)), "every sum is still trained"
    assert {a for a, _ in pairs} == {b for _, b in pairs} == set(range(10)), "every number is, in either place"


def numbers_in(text):
    return [NUMBERS.index(word) for word in re.findall(r"\w+", text) if word in NUMBERS]


def test_a_pool_trains_the_sums_it_holds():
    small = Pool(Images(mnist_test_images().pixels[:400], mnist_test_images().labels[:400]), held_out=9)
    seen: dict[str, set] = {}
    for task in ("sum_direct", "sum_thinking", "count_on"):
        for n in range(400):
            example = TASKS[task](small, Random(n), True)
            pair = numbers_in(example.user[0])
            if example.user[0].endswith(" more than " + NUMBERS[pair[1]]):
                pair = pair[::-1]
            seen.setdefault(task, set()).add(tuple(pair))
            if isinstance(example.response[-1], Picture):
                assert small.classes[example.response[-1].index][0] == sum(pair)
            if task != "sum_direct":
                assert example.response[0] == counting_trace(*pair) and example.system == "think"
    assert seen["sum_direct"] | seen["sum_thinking"] <= set(small.sums)
    assert seen["count_on"] <= set(small.counted) and max(a + b for a, b in seen["count_on"]) == 18
    assert not {(min(pair), max(pair)) for pair in seen["count_on"]} & set(HELD_OUT[:9])


def test_drills_show_numbers_and_thoughts_but_not_the_sum_asked_for():
    small = Pool(Images(mnist_test_images().pixels[:400], mnist_test_images().labels[:400]), held_out=9)
    apart = 0
    for n in range(400):
        said = TASKS["repeat"](small, Random(n), True)
        assert numbers_in(said.response[0]) == numbers_in(said.user[0])
        begun = TASKS["go_on"](small, Random(n), True)
        steps = [numbers_in(step) for step in "".join(begun.response[:2]).split("; ")]
        ((so_far, left), (result,)), asked = steps[-2:], sum(numbers_in(begun.user[0]))
        assert left == 0 and so_far == result and begun.given == 1
        assert sorted(numbers_in(begun.user[0])) in [sorted(pair) for pair in small.counted]
        # From what is written on, every step follows from the one before it.
        rest = steps[begun.response[0].count("; ") : -1]
        assert all((x + 1, y - 1) == (*after,) for (x, y), after in zip(rest, rest[1:], strict=False))
        assert [small.classes[part.index][0] for part in begun.response[2:]] == [result] * (result < 10)
        apart += asked != result
        dropped = drop(begun, Random(n), 1.0)
        assert dropped == begun if result > 9 else (dropped.user, dropped.response, dropped.given) == ([None], begun.response[2:], 0)
    assert apart > 350, "what was asked is the result by chance only"


def test_a_picture_like_another():
    """Nearer in degrees than chance, which decides alone among the images of a class."""
    rng, near, far = Random(2), 0.0, 0.0
    for _ in range(300):
        index = pool().pick(rng, digit=3)
        thickness, slant = 1 - pool().classes[index][1], pool().classes[index][2]
        like, other = pool().pick_like(rng, index, 7, thickness), pool().pick(rng, 7, thickness, slant)
        assert pool().classes[like] == (7, thickness, slant)
        near, far = (total + abs(pool().angles[i] - pool().angles[index]) for total, i in ((near, like), (far, other)))
    assert near < 0.5 * far
    index = [0, 4999, 5000]
    assert [pool().angles[i] for i in index] == pytest.approx(captions.slant(pool().images.floats(index)).tolist(), abs=1e-3)


def test_a_trace_counts_on_its_fingers():
    for a, b in SUMS:
        *steps, end = counting_trace(a, b).split("; ")
        states = [re.fullmatch(r"(\w+), (\w+) left", step).groups() for step in steps]
        numbers = [(NUMBERS.index(so_far), NUMBERS.index(left)) for so_far, left in states]
        assert numbers[0] == (a, b) and numbers[-1] == (a + b, 0) and number_in(end) == a + b
        assert all((x + 1, y - 1) == after for (x, y), after in zip(numbers, numbers[1:], strict=False))
    assert counting_trace(3, 2) == "three, two left; four, one left; five, zero left; a five"
    assert counting_trace(8, 0) == "eight, zero left; an eight"


def test_counting_alternates():
    for example in many("interleave"):
        a, b = (NUMBERS.index(word) for word in re.findall(r"\w+", example.user[0]) if word in NUMBERS)
        words, pictures = example.response[::2], example.response[1::2]
        assert words == [NUMBERS[n] for n in range(a, b + 1)] and [label(p) for p in pictures] == list(range(a, b + 1))


def test_dropping_makes_the_branches_of_guidance():
    rng = Random(0)
    for task in TASKS:
        for example in many(task, 20):
            assert drop(example, rng, 0.0) is example
            dropped = drop(example, rng, 1.0)
            if not isinstance(example.response[-1], Picture):
                assert dropped is example, "guidance is for pictures"
            elif example.system == "edit":
                assert dropped.response == example.response
                assert dropped.user in ([*example.user[:-1], None], example.user[-1:])
            elif example.system in ("draw", "think"):
                assert dropped.user == [None] and dropped.response == example.response[-1:]
            else:
                words, pictures = example.response[::2], example.response[1::2]
                n = dropped.given
                branches = ([None], pictures), (example.user, [*words[:n], pictures[n - 1]])
                assert (dropped.user, dropped.response) == branches[n > 0] and n != 1
    rates = [drop(e, rng, 0.3) is not e for e in many("draw", 1000)]
    assert abs(sum(rates) / 1000 - 0.3) < 0.06


def test_the_text_tokenizer_has_seen_every_text():
    corpus = set(all_texts()) | set(captions.all_captions()) | {layout.DESCRIBE_QUESTION}
    for task in TASKS:
        for example in many(task, 100) if task not in ("count_on", "repeat", "go_on") else []:
            for part in example.user + example.response:
                if isinstance(part, str) and task != "draw":
                    assert part in corpus, part

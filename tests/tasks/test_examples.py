"""What an example calls right is derived again, from labels and pixels alone."""

import functools
import itertools
import re
from collections import Counter
from random import Random
from types import SimpleNamespace

import pytest
import torch
from helpers import mnist_test_images, numbers_in, real_images

from minillada import layout
from minillada.datasets import captions, edits
from minillada.datasets.mnist import DIGITS
from minillada.datasets.pool import Pool, mnist_pool
from minillada.tasks import comparing, editing, questions
from minillada.tasks.base import (
    Example,
    Picture,
    Source,
    make_examples,
    pictures_of,
    pixels,
    wanted,
)
from minillada.tasks.dropping import BRANCHES, drop
from minillada.tasks.numbers import (
    COUNTED,
    HELD_OUT,
    NUMBERS,
    SUMS,
    UNSEEN_SUMS,
    counting_trace,
    trained_pairs,
)
from minillada.tasks.table import TASKS, TRAINED, all_texts


@functools.cache
def pool() -> Pool:
    return mnist_pool(mnist_test_images())


@functools.cache
def small_pool() -> Pool:
    return mnist_pool(real_images(400))


def many(task: str, count: int = 60, varied: bool = True) -> list[Example]:
    source = Source(pool(), Random(task), varied)
    return [TASKS[task].make(source) for _ in range(count)]


def one(task: str, seed: int, held_out: int = 9) -> Example:
    """An example from few images, so that 400 of them cost little."""
    return TASKS[task].make(Source(small_pool(), Random(seed), True, held_out))


def label(picture: Picture) -> int:
    return int(pool().images.labels[picture.index])


def style(picture: Picture) -> list[int]:
    return captions.attributes(pool().images.floats([picture.index]))[0].tolist()


def test_captions_to_draw_and_to_describe():
    partial = 0
    for example in many("draw", 200):
        (text,), (picture,) = example.user, example.response
        said, true = captions.parse(text), (label(picture), *style(picture))
        assert all(s in (None, t) for s, t in zip(said, true)) and said[0] == true[0]
        partial += None in said
    assert 20 < partial < 60, "a fifth of the captions is incomplete"
    for example in many("describe") + many("draw", varied=False):
        (picture,) = pictures_of([*example.user, *example.response])
        text = example.response[0] if example.system == "describe" else example.user[0]
        assert text == captions.caption(label(picture), *style(picture))


def right_answer(task: str, picture: Picture, question: str) -> str:
    digit, (thickness, slant) = label(picture), style(picture)
    if task == "digit":
        return DIGITS[digit]
    if task == "thickness":
        return ["thin", "thick"][thickness]
    if task == "slant":
        return ["left", "upright", "right"][slant]
    if task == "parity":
        return "odd" if digit in (1, 3, 5, 7, 9) else "even"
    return NUMBERS[digit + numbers_in(question)[0]]


@pytest.mark.parametrize("task", ["digit", "thickness", "slant", "parity", "arithmetic"])
def test_answers_about_one_image(task):
    seen = set()
    for example in many(task):
        picture, question = example.user
        assert example.system == "describe"
        assert example.response == [right_answer(task, picture, question)]
        seen.add(" ".join(question.split()[:4]))
    assert len(seen) >= 2, "the wording varies"
    first = questions.QUESTIONS[task].plain[0].split("{")[0]
    assert all(example.user[1].startswith(first) for example in many(task, varied=False))


@functools.cache
def lopsided_pool() -> Pool:
    """500 thin ones, and one digit of every other kind."""
    kinds = [(1, 0, 1)] * 500 + list(itertools.product(range(10), range(2), range(3)))
    columns = dict(zip(("digit", "thickness", "slant"), map(list, zip(*kinds))))
    return Pool(real_images, columns, {"slant_degrees": [0.0] * len(kinds)})


QUESTIONS = ["digit", "thickness", "slant", "parity", "arithmetic", "compare"]


@pytest.mark.parametrize("task", [*QUESTIONS, "edit_operation", "multi_reference", "inpaint"])
def test_a_frequent_digit_is_asked_about_no_more_often_than_others(task):
    asked = make_examples(TASKS[task].make, lopsided_pool(), 600, seed=0)
    shown = [[picture.index for picture in pictures_of(example.user)] for example in asked]
    columns = lopsided_pool().columns
    for place in range(2 if task == "compare" else 1):
        counts = Counter(columns["digit"][indices[place]] for indices in shown)
        assert set(counts) == set(range(10)) and max(counts.values()) < 90
    if task in QUESTIONS and task != "compare":
        assert 250 < sum(columns["thickness"][index] for (index,) in shown) < 350
    if task == "arithmetic":
        assert {numbers_in(example.user[-1])[0] for example in asked} == set(range(10))


def test_what_is_wanted_is_what_the_last_picture_shows():
    examples = [Example("interleave", [""], [Picture(3), "", Picture(index)]) for index in (5, 8)]
    for column, classes in pool().columns.items():
        assert wanted(pool(), examples, column).tolist() == [classes[5], classes[8]]
    assert wanted(pool(), examples).tolist() == [label(Picture(5)), label(Picture(8))]


def test_comparing():
    answers = set()
    for example in many("compare"):
        a, b = label(example.user[0]), label(example.user[1])
        right = "the first" if a > b else "the second"
        assert example.response == ["neither" if a == b else right]
        answers.add(example.response[0])
    assert answers == set(comparing.COMPARE_ANSWERS)


def test_edits_by_pixels():
    for example in many("edit_operation"):
        picture, instruction = example.user
        assert picture.operation is None and instruction in edits.OPERATIONS
        assert example.response == [Picture(picture.index, instruction)]
        if instruction == "make it thinner":
            assert style(picture)[0] == 1
        if instruction == "make it thicker":
            assert style(picture)[0] == 0
    assert {example.user[1] for example in many("edit_turn")} == {"mirror it", "rotate it"}


def test_edits_by_label():
    for example in many("edit_digit"):
        (picture, instruction), (result,) = example.user, example.response
        assert [label(result)] == numbers_in(instruction)
        assert style(result) == style(picture)
        assert (" an " in instruction) == instruction.endswith("eight")
    for example in many("multi_reference"):
        (first, second, _), (result,) = example.user, example.response
        assert label(result) == label(first)
        assert style(result) == [style(second)[0], style(first)[1]]


def test_an_edit_by_label_keeps_the_angle_better_than_chance():
    """The nearest of four that fit."""
    degrees, kept, chance, rng = pool().measures["slant_degrees"], 0.0, 0.0, Random(0)
    for example in many("edit_digit", 300) + many("multi_reference", 300):
        shown, result = example.user[0].index, example.response[0].index
        like = dict(zip(pool().columns, pool().classes(result)))
        kept += abs(degrees[result] - degrees[shown])
        chance += abs(degrees[pool().pick(rng, **like)] - degrees[shown])
    assert kept < 0.6 * chance


@pytest.mark.parametrize("held_out", [0, 4, len(HELD_OUT)])
def test_sums_and_what_is_held_out(held_out):
    pairs = trained_pairs(SUMS, held_out)
    assert not {tuple(sorted(pair)) for pair in pairs} & set(HELD_OUT[:held_out])
    assert len(pairs) + 2 * held_out == len(SUMS) == 55, "both orders of a pair are kept out"
    assert {a + b for a, b in pairs} == set(range(10)), "every sum is still trained"
    assert {a for a, _ in pairs} == {b for _, b in pairs} == set(range(10)), "so is every number"


def test_all_pairs_are_trained_or_unseen():
    assert sorted(UNSEEN_SUMS + trained_pairs(SUMS, len(HELD_OUT))) == SUMS


@pytest.mark.parametrize("task", ["sum_direct", "sum_thinking", "count_on"])
def test_sums_are_right_and_those_held_out_are_not_trained(task):
    seen = set()
    for seed in range(400):
        example = one(task, seed)
        a, b = numbers_in(example.user[0])
        if "more than" in example.user[0]:  # "{b} more than {a}"
            a, b = b, a
        seen.add((a, b))
        for picture in pictures_of(example.response):
            assert small_pool().columns["digit"][picture.index] == a + b
        if task != "sum_direct":
            assert example.response[0] == counting_trace(a, b) and example.system == "think"
    assert seen <= set(trained_pairs(COUNTED if task == "count_on" else SUMS, 9))
    assert max(a + b for a, b in seen) == (18 if task == "count_on" else 9)


@pytest.mark.parametrize("task", ["sum_direct_unseen", "sum_thinking_unseen"])
def test_unseen_sums_are_those_held_out(task):
    asked = {tuple(numbers_in(one(task, seed).user[0])) for seed in range(300)}
    assert asked == set(UNSEEN_SUMS)


def test_numbers_are_repeated():
    for seed in range(100):
        said = one("repeat", seed)
        assert numbers_in(said.response[0]) == numbers_in(said.user[0])


def test_a_thought_that_slipped_is_finished_from_what_is_written():
    slipped = 0
    for seed in range(400):
        example = one("go_on", seed)
        asked = numbers_in(example.user[0])
        assert sorted(asked) in [sorted(pair) for pair in trained_pairs(COUNTED, 9)]
        assert example.given == 1
        steps = [numbers_in(step) for step in "".join(example.response[:2]).split("; ")]
        (so_far, left), (result,) = steps[-2:]
        assert left == 0 and so_far == result
        # From the last step that is written on, every step follows from the one before it.
        follows = steps[example.response[0].count("; ") : -1]
        for (a, b), after in zip(follows, follows[1:]):
            assert after == [a + 1, b - 1]
        drawn = [small_pool().columns["digit"][p.index] for p in pictures_of(example.response)]
        assert drawn == ([result] if result < 10 else [])
        slipped += sum(asked) != result
    assert slipped > 350, "what was asked is the result by chance only"


def test_a_trace_counts_on_its_fingers():
    for a, b in SUMS:
        *steps, end = counting_trace(a, b).split("; ")
        states = [re.fullmatch(r"(\w+), (\w+) left", step).groups() for step in steps]
        numbers = [(NUMBERS.index(so_far), NUMBERS.index(left)) for so_far, left in states]
        assert numbers == [(a + n, b - n) for n in range(b + 1)]
        assert numbers_in(end) == [a + b]
    assert counting_trace(3, 2) == "three, two left; four, one left; five, zero left; a five"
    assert counting_trace(8, 0) == "eight, zero left; an eight"


def test_counting_alternates():
    for example in many("interleave"):
        a, b = numbers_in(example.user[0])
        words, pictures = example.response[::2], example.response[1::2]
        assert words == [NUMBERS[n] for n in range(a, b + 1)]
        assert [label(picture) for picture in pictures] == list(range(a, b + 1))


def test_every_story_counts_on_at_least_once_between_zero_and_nine():
    asked = [numbers_in(one("interleave", seed).user[0]) for seed in range(400)]
    assert len({tuple(pair) for pair in asked}) > 40 and all(a < b for a, b in asked)
    assert {a for a, _ in asked} == set(range(9)) and {b for _, b in asked} == set(range(1, 10))


def branches(example: Example) -> list[Example]:
    """What guidance may make of an example that ends in a picture, by hand."""
    if example.system in ("draw", "think"):
        return [Example(example.system, [None], example.response[-1:])]
    if example.system == "edit":
        *images, text = example.user
        return [
            Example("edit", [*images, None], example.response),
            Example("edit", [text], example.response),
        ]
    words, pictures = example.response[::2], example.response[1::2]
    made = [Example("interleave", [None], pictures)]
    for n in range(2, len(words) + 1):
        response = [*words[:n], pictures[n - 1]]
        made.append(Example("interleave", example.user, response, given=n))
    return made


@pytest.mark.parametrize("task", TASKS)
def test_dropping_makes_the_branches_of_guidance(task):
    rng = Random(0)
    seen = 0
    for example in many(task, 40):
        assert drop(example, rng, 0.0) is example
        dropped = drop(example, rng, 1.0)
        if isinstance(example.response[-1], Picture):
            assert dropped in branches(example)
            seen |= 1 << branches(example).index(dropped)
        else:
            assert dropped is example, "guidance is for pictures"
    system = example.system
    assert system not in ("edit", "interleave") or seen >= 3, "each branch is made"


@pytest.mark.parametrize("task", ["edit_operation", "multi_reference", "interleave"])
def test_both_kinds_of_branches_are_equally_likely(task):
    dropped = [drop(example, Random(seed), 1.0) for seed, example in enumerate(many(task, 400))]
    assert 150 < sum(None in example.user for example in dropped) < 250


def test_two_words_or_more_may_stand_before_an_image_up_to_all_of_them():
    story = next(x for x in many("interleave") if len(x.response) == 10)  # five words
    dropped = [drop(story, Random(seed), 1.0) for seed in range(100)]
    assert {example.given for example in dropped} == {0, 2, 3, 4, 5}


def test_a_share_is_dropped():
    rng = Random(0)
    dropped = sum(drop(example, rng, 0.3) is not example for example in many("draw", 1000))
    assert abs(dropped / 1000 - 0.3) < 0.06
    assert set(BRANCHES) == set(layout.SYSTEM_PROMPTS) - {"describe"}


def test_the_text_tokenizer_has_seen_every_text():
    corpus = {*all_texts(), *captions.all_captions(), layout.DESCRIBE_QUESTION}
    for task in set(TRAINED) - {"draw", "count_on", "repeat", "go_on"}:
        for example in many(task, 100):
            for part in example.user + example.response:
                assert not isinstance(part, str) or part in corpus, part


def test_what_is_trained_and_what_is_marked():
    unseen = {"sum_direct_unseen", "sum_thinking_unseen"}
    filling = {"inpaint", "inpaint_captioned", "infill"}
    new = {f"{name}_new_wording" for name in ("digit", "edit_operation", "sum_thinking")}
    assert set(TASKS) - set(TRAINED) == unseen | filling | new
    drills = {name for name, task in TASKS.items() if task.mark is None}
    assert drills == {"edit_turn", "count_on", "repeat", "go_on"}


def test_examples_repeat_with_their_seed():
    make = TASKS["edit_digit"].make
    first = make_examples(make, small_pool(), 5, seed=3)
    assert first == make_examples(make, small_pool(), 5, seed=3)
    assert first != make_examples(make, small_pool(), 5, seed=4)


# --- marks ---------------------------------------------------------------------------------------


@functools.cache
def reader():
    """A judge that knows every image of the small pool."""
    known = {pixels(small_pool(), Picture(i)).numpy().tobytes(): i for i in range(400)}

    def classify(images):
        places = [known[image.numpy().tobytes()] for image in images]
        return torch.tensor([small_pool().columns["digit"][place] for place in places])

    return SimpleNamespace(classify=classify)


def shown(part):
    return pixels(small_pool(), part) if isinstance(part, Picture) else part


def marks(task: str, asked: list[Example], **answers) -> dict[str, list[bool]]:
    uni = SimpleNamespace(**{name: lambda *a, n=name, **b: answers[n] for name in answers})
    return TASKS[task].mark(uni, reader(), small_pool(), asked, 0).right


def test_a_story_is_right_if_nothing_is_wrong_left_out_or_added():
    asked = [one("interleave", 3)] * 5
    right = [shown(part) for part in asked[0].response]
    stories = [right, right[:-1], [*right, "ten"], ["six", *right[1:]], right[:1] + right[2:]]
    assert asked[0].response[0] != "six"
    found = marks("interleave", asked, interleave_all=stories)
    assert found == {"": [True, False, False, False, False]}


def test_a_thought_is_marked_word_for_word_and_its_drawing_by_itself():
    asked = [one("sum_thinking", seed) for seed in range(4)]
    thoughts, images = zip(*([shown(part) for part in example.response] for example in asked))
    other = next(i for i in range(400) if label(Picture(i)) != label(asked[1].response[1]))
    images = torch.stack([images[0], shown(Picture(other)), *images[2:]])
    written = [*thoughts[:3], thoughts[3] + " "]
    found = marks("sum_thinking", asked, think_and_draw=(written, images))
    assert found == {"": [True, False, True, True], "_trace": [True, True, True, False]}


def test_a_description_is_marked_by_its_digit_and_by_all_of_it():
    asked = make_examples(TASKS["describe"].make, small_pool(), 3, seed=0)
    digit, thickness, slant = captions.parse(asked[1].response[0])
    said = [
        asked[0].response[0],
        captions.caption(digit, 1 - thickness, slant),
        captions.caption((captions.parse(asked[2].response[0])[0] + 1) % 10, None, None),
    ]
    found = marks("describe", asked, describe=said)
    assert found == {"": [True, True, False], "_exact": [True, False, False]}


def test_two_references_are_right_if_digit_and_thickness_are():
    asked = [one("multi_reference", seed) for seed in range(3)]
    columns, drawn = small_pool().columns, [asked[0].response[0]]
    right = [small_pool().classes(example.response[0].index) for example in asked]
    drawn.append(
        Picture(small_pool().pick(Random(0), digit=right[1][0], thickness=1 - right[1][1]))
    )
    other = (right[2][0] + 1) % 10
    drawn.append(Picture(small_pool().pick(Random(0), digit=other, thickness=right[2][1])))
    assert [columns["digit"][picture.index] for picture in drawn][:2] == [right[0][0], right[1][0]]
    found = marks("multi_reference", asked, edit=torch.stack([shown(part) for part in drawn]))
    digit, thickness = [True, True, False], [True, False, True]
    assert found == {"": [True, False, False], "_digit": digit, "_thickness": thickness}


def test_answers_are_marked_letter_for_letter():
    asked = [one("parity", seed) for seed in range(3)]
    right = [example.response[0] for example in asked]
    found = marks("parity", asked, answer=[right[0], right[1] + " ", right[2][:-1]])
    assert found == {"": [True, False, False]}


@pytest.mark.parametrize(("count", "alike"), [(4, True), (6, False)])
def test_results_that_differ_by_less_than_a_hundredth_are_not_told_apart(count, alike):
    """Of a picture and its mirror image, twice as many of 1024 pixels differ."""
    image = torch.zeros(1, 32, 32)
    image[:, 8, 8 : 8 + count] = 1
    assert editing.nearest_operation(image, image, "mirror it") == alike


def test_a_judge_reads_a_turned_digit_after_it_was_turned_back():
    source = Source(small_pool(), Random(0))
    asked = [editing.make_edit_operation(source, editing.TURNS) for _ in range(10)]
    results = torch.stack([shown(example.response[0]) for example in asked])
    found = editing.judge_operations(reader(), small_pool(), asked, results)
    assert found == ([True] * 10, [True] * 10)


def test_a_style_is_right_if_thickness_and_slant_are():
    asked = [one("edit_digit", 0)] * 3
    digit, thickness, slant = small_pool().classes(asked[0].response[0].index)
    kinds = [(thickness, slant), (1 - thickness, slant), (thickness, (slant + 1) % 3)]
    drawn = []
    for thick, lean in kinds:
        like = dict(digit=digit, thickness=thick, slant=lean)
        drawn.append(shown(Picture(small_pool().pick(Random(0), **like))))
    found = editing.mark_drawn(reader(), small_pool(), asked, torch.stack(drawn)).right
    assert found[""] == [True] * 3 and found["_attributes"] == [True, False, False]
    assert found["_thickness"] == [True, False, True] and found["_slant"] == [True, True, False]

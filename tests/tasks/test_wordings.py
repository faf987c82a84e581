"""Many wordings: what is never trained is never met in training, and all of them mean the same."""

import functools
import itertools
from random import Random

import pytest
from helpers import numbers_in, real_images

from minillada.asking import knows_a_word
from minillada.datasets import edits
from minillada.datasets.grammar import article
from minillada.datasets.pool import Pool, mnist_pool
from minillada.layout import DESCRIBE_QUESTION
from minillada.tasks import comparing, drawing, editing, questions, references, stories, thinking
from minillada.tasks.base import Example, Source, make_in_new_wording, pictures_of
from minillada.tasks.numbers import counting_trace
from minillada.tasks.table import TASKS, TRAINED
from minillada.tasks.wordings import PICTURE, QUESTION, REQUEST, Wordings, polite, polite_words
from minillada.vocab import load_vocabulary

WORDINGS = {
    **questions.QUESTIONS,
    **editing.OPERATION_WORDINGS,
    "describe": questions.DESCRIBE,
    "compare": comparing.COMPARE,
    "draw": drawing.DRAW,
    "edit_digit": editing.EDIT_DIGIT,
    "multi_reference": references.MULTI_REFERENCE,
    "interleave": stories.COUNT,
    "sum": thinking.SUM,
    "count_on": thinking.COUNT_ON,
    "repeat": thinking.REPEAT,
}
WORDS = {
    **{"a": "3", "b": "4", "n": "4", "number": "4", "digit": "a 4", "it": "it"},
    "caption": "a thick 7 leaning left",
}


@functools.cache
def pool() -> Pool:
    return mnist_pool(real_images(4000))


@functools.cache
def vocabulary():
    return load_vocabulary(512, "mnist-uni-text")


def trained(task: str, count: int) -> list[Example]:
    """Examples as the last stage is trained on them."""
    source = Source(pool(), Random(task), varied=True, held_out=9, many_wordings=True)
    return [TASKS[task].make(source) for _ in range(count)]


def unheard(task: str, count: int) -> list[Example]:
    source = Source(pool(), Random(task))
    return [make_in_new_wording(TASKS[task].make, source) for _ in range(count)]


def templates(wordings: Wordings, part: str) -> set[str]:
    """Every wording of a part, as it is and with all polite words that belong to the part."""
    texts = getattr(wordings, part) + (wordings.plain if part == "more" else ())
    found = set(texts)
    for text in texts:
        found |= {polite(text, frame) for frame in getattr(polite_words(text), part)}
    return found


def test_no_wording_is_trained_and_never_trained():
    known = set().union(*(templates(wordings, "more") for wordings in WORDINGS.values()))
    new = set().union(*(templates(wordings, "new") for wordings in WORDINGS.values()))
    assert len(known) > 1000 and len(new) > 400
    assert not known & new
    # A new wording is new, polite or not, and polite words that are new are new around anything.
    for frames in (QUESTION, REQUEST, PICTURE):
        assert not set(frames.more) & set(frames.new)


@pytest.mark.parametrize("task", TRAINED)
def test_what_is_never_trained_is_in_no_training_example(task):
    new = {example.user[-1] for name in TRAINED for example in unheard(name, 200)}
    met = {example.user[-1] for example in trained(task, 1500)}
    assert len(new) > 1000 and len(met) > 2
    assert not met & new


def test_no_two_tasks_share_a_wording():
    """Within a system prompt, one text asks for one thing."""
    groups = [
        [*questions.QUESTIONS, "describe", "compare"],
        [*editing.OPERATION_WORDINGS, "edit_digit", "multi_reference"],
    ]
    for group in groups:
        for part in ("more", "new"):
            for a, b in itertools.combinations(group, 2):
                assert not templates(WORDINGS[a], part) & templates(WORDINGS[b], part), (a, b)


@pytest.mark.parametrize("name", WORDINGS)
@pytest.mark.parametrize("part", ["more", "new"])
def test_every_wording_is_spelled_and_gives_no_warning(name, part):
    for template in templates(WORDINGS[name], part):
        text = template.format(**WORDS)
        assert vocabulary().decode(vocabulary().encode(text)) == text
        assert part == "new" or knows_a_word(vocabulary(), text), text
        # Users' texts become small letters before the model reads them.
        assert text in (text.lower(), DESCRIBE_QUESTION)


@pytest.mark.parametrize("task", TRAINED)
def test_few_wordings_are_the_plain_ones(task):
    few = Source(pool(), Random(0), varied=True)
    texts = [TASKS[task].make(few).user[-1] for _ in range(100)]
    for text in texts:
        assert not any(letter.isdigit() for letter in text)
        assert not any(polite_word in text for polite_word in ("please", "could", "hello"))


@pytest.mark.parametrize("make", [trained, unheard])
def test_numerals_and_words_say_the_same(make):
    numerals = 0
    for task in ("sum_direct", "sum_thinking", "count_on", "repeat", "interleave"):
        for example in make(task, 100):
            text = example.user[-1]
            a, b = numbers_in(text)
            numerals += str(a) in text
            if "more than" in text:
                a, b = b, a
            digits = [pool().columns["digit"][p.index] for p in pictures_of(example.response)]
            if task == "interleave":
                assert digits == list(range(a, b + 1))
            elif task == "repeat":
                assert numbers_in(example.response[0]) == [a, b]
            else:
                assert digits in ([a + b], []) and bool(digits) == (task != "count_on")
            if task in ("sum_thinking", "count_on"):
                assert example.response[0] == counting_trace(a, b)
    assert 80 < numerals < 220, "three of ten"


@pytest.mark.parametrize("make", [trained, unheard])
def test_numerals_in_questions_edits_and_captions(make):
    for example in make("arithmetic", 100):
        [picture], [n] = pictures_of(example.user), numbers_in(example.user[-1])
        assert numbers_in(example.response[0]) == [pool().columns["digit"][picture.index] + n]
    for task in ("edit_digit", "draw"):
        for example in make(task, 200):
            [picture] = pictures_of(example.response)
            assert numbers_in(example.user[-1]) == [pool().columns["digit"][picture.index]]
            assert "a 8" not in example.user[-1]
    assert article("8") == "an 8"


@pytest.mark.parametrize("make", [trained, unheard])
def test_an_operation_is_the_one_that_is_asked_for(make):
    """The word that tells operations apart stands in every wording of it."""
    words = {
        "make it thicker": ("thick", "bold"), "make it thinner": ("thin", "fine"),
        "mirror it": ("mirror", "flip", "reflect"), "rotate it": ("rotate", "turn"),
        "invert it": ("invert", "negative", "black", "colours"), "shift it left": ("left",),
        "shift it right": ("right",), "shift it up": (" up",), "shift it down": (" down",),
    }  # fmt: skip
    assert words.keys() == edits.OPERATIONS.keys() == editing.OPERATION_WORDINGS.keys()
    for example in make("edit_operation", 300):
        [result], [shown] = pictures_of(example.response), pictures_of(example.user)
        assert result.index == shown.index
        assert any(word in example.user[-1] for word in words[result.operation])


def test_each_kind_of_source_has_its_own_words_for_the_picture():
    it, words = editing.IT, []
    for settings in ({}, dict(many_wordings=True), dict(new_wording=True)):
        source = Source(pool(), Random(0), varied=True, **settings)
        words.append({source.noun(it) for _ in range(300)})
    assert words == [set(it.plain), {*it.plain, *it.more}, {*it.plain, *it.new}]


def test_a_quarter_stays_plain_and_half_of_the_others_are_polite():
    rng, words = Random(0), Wordings(("name it.",), ("say it.",), ("tell it.",))
    said = [words.trained(rng) for _ in range(4000)]
    # The rest may be the plain one, too, and half of it is polite.
    assert abs(said.count("name it.") / 4000 - (0.25 + 0.75 / 4)) < 0.04
    assert abs(said.count("say it.") / 4000 - 0.75 / 4) < 0.04
    new = [words.never_trained(rng) for _ in range(4000)]
    assert abs(new.count("tell it.") / 4000 - 0.5) < 0.04


def test_a_polite_request():
    assert polite("name the digit.", "could you {}?") == "could you name the digit?"
    assert polite("turn {it} into {digit}", "{}, please") == "turn {it} into {digit}, please"
    assert polite_words("{a} and {b}").more == ()


def test_what_has_no_wording_that_is_never_trained():
    with pytest.raises(ValueError, match="no wording of 'turn it' is never trained; give some as"):
        Wordings(("turn it",)).never_trained(Random(0))

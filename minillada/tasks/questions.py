"""Tasks: describe an image, and answer questions about it."""

from __future__ import annotations

from ..datasets import captions, colour
from ..datasets.cifar10 import CLASSES, VEHICLES
from ..datasets.mnist import DIGITS
from ..datasets.pool import Pool
from ..layout import DESCRIBE_QUESTION
from ..measure.judge import Judge
from ..uni import Uni
from .base import Example, Marked, Picture, Source, inputs
from .numbers import NUMBERS
from .wordings import Wordings

# topic -> how it is asked about; `{n}` is a number to add
QUESTIONS = {
    "digit": Wordings(
        ("what digit is this?", "which digit do you see?", "name the digit."),
        more=(
            "what number is this?",
            "what digit do you see?",
            "which number do you see?",
            "which digit does the image show?",
            "which digit is in the image?",
            "what is the digit in the picture?",
            "what digit is shown?",
            "tell me the digit.",
            "say which digit this is.",
            "read the digit.",
            "read this digit.",
            "name the number.",
            "which number is this?",
            "what number is shown in the image?",
            "which digit is written here?",
            "what does the image show?",
            "recognise the digit.",
        ),
        new=(
            "which digit is it?",
            "what is this?",
            "name this number.",
            "what number does the picture show?",
            "read this number.",
            "identify the digit.",
            "which number is written here?",
            "do you know what digit this is?",
        ),
    ),
    "thickness": Wordings(
        ("is it thick or thin?", "how thick is the stroke?"),
        more=(
            "how thick is it?",
            "is the stroke thick or thin?",
            "is this digit thin or thick?",
            "are the strokes thin or thick?",
            "thin or thick?",
            "say if it is thick or thin.",
        ),
        new=(
            "is this number thick or thin?",
            "how thick are the lines?",
            "what is the thickness of the stroke?",
            "tell me whether it is thin or thick.",
        ),
    ),
    "slant": Wordings(
        ("which way does it lean?", "does it lean left, lean right or stand upright?"),
        more=(
            "where does it lean?",
            "how does it lean?",
            "which way does the digit lean?",
            "to which side does it lean?",
            "does it lean to the left, to the right or not at all?",
            "is it leaning left, leaning right or standing upright?",
            "say which way it leans.",
        ),
        new=(
            "in which direction does it lean?",
            "what way does this number lean?",
            "is this digit upright, or does it lean left or right?",
            "tell me how it leans.",
        ),
    ),
    "parity": Wordings(
        ("is it even or odd?", "is this an odd number or an even one?"),
        more=(
            "is this digit odd or even?",
            "is the number even or odd?",
            "is it an even digit or an odd one?",
            "odd or even?",
            "say if it is even or odd.",
        ),
        new=(
            "is this number odd or even?",
            "would you call it odd or even?",
            "even or odd?",
            "tell me whether it is even or odd.",
        ),
    ),
    "arithmetic": Wordings(
        ("what is this digit plus {n}?", "add {n} to this digit."),
        more=(
            "what is this plus {n}?",
            "how much is it plus {n}?",
            "how much is this digit plus {n}?",
            "this digit plus {n} is?",
            "what is the sum of this digit and {n}?",
            "what do you get if you add {n} to it?",
            "add {n} to it.",
            "add {n} to the number.",
        ),
        new=(
            "what is the digit plus {n}?",
            "what is {n} more than this digit?",
            "how much is this number plus {n}?",
            "calculate this digit plus {n}.",
        ),
    ),
}
DESCRIBE = Wordings(
    (DESCRIBE_QUESTION,),
    more=(
        "describe the image.",
        "describe it.",
        "describe the digit.",
        "describe this picture.",
        "describe what you see.",
        "give a description of the image.",
    ),
    new=("describe this image.", "describe what is in the picture.", "describe the number."),
)

PHOTO_QUESTIONS = {
    "label": Wordings(("what is this?", "what does the photo show?", "name what you see.")),
    "brightness": Wordings(("is it dark or bright?", "is this photo a dark or a bright one?")),
    "colour": Wordings(("which colour is it mostly?", "what colour do you see most?")),
    "kind": Wordings(("is it an animal or a vehicle?", "does it show a vehicle or an animal?")),
}

SLANT_ANSWERS = ("left", "upright", "right")
PARITY_ANSWERS = ("even", "odd")
KIND_ANSWERS = ("animal", "vehicle")


def make_describe(source: Source) -> Example:
    """An image and its whole caption."""
    pool, index = source.pool, source.pool.pick(source.rng)
    text = pool.data.grammar.caption(*pool.classes(index))
    return Example("describe", [Picture(index), source.wording(DESCRIBE)], [text])


def make_question(topic: str, source: Source) -> Example:
    """A digit and the question `QUESTIONS[topic]` about it."""
    pool, rng = source.pool, source.rng
    # Each digit and each thickness come equally often, so guessing the frequent one does not pay.
    index = pool.pick(rng, digit=source.some_label(), thickness=rng.randrange(2))
    digit = pool.columns["digit"][index]
    n = rng.randrange(10)
    answers = {
        "digit": DIGITS[digit],
        "thickness": captions.THICKNESS_WORDS[pool.columns["thickness"][index]],
        "slant": SLANT_ANSWERS[pool.columns["slant"][index]],
        "parity": PARITY_ANSWERS[digit % 2],
        "arithmetic": NUMBERS[digit + n],
    }
    # {n} stands in questions of arithmetic only; `format` leaves the others as they are.
    [number] = source.numbers(n)
    question = source.wording(QUESTIONS[topic]).format(n=number)
    return Example("describe", [Picture(index), question], [answers[topic]])


def make_photo_question(topic: str, source: Source) -> Example:
    """A photo and the question `PHOTO_QUESTIONS[topic]` about it."""
    pool, rng = source.pool, source.rng
    # Each class is equally likely, so 6 of 10 are animals. Most captions say no colour, or brown.
    if topic == "colour":
        index = pool.pick(rng, colour=rng.randrange(colour.UNSAID))
    elif topic == "brightness":
        index = pool.pick(rng, brightness=rng.randrange(len(colour.BRIGHTNESS_WORDS)))
    else:
        index = pool.pick(rng, label=source.some_label())
    label, brightness, most = pool.classes(index)
    answers = {
        "label": CLASSES[label],
        "brightness": colour.BRIGHTNESS_WORDS[brightness],
        "colour": colour.COLOUR_WORDS[most],
        "kind": KIND_ANSWERS[int(CLASSES[label] in VEHICLES)],
    }
    question = source.wording(PHOTO_QUESTIONS[topic])
    return Example("describe", [Picture(index), question], [answers[topic]])


def mark_answers(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """An answer is right if it equals the response of its example, letter for letter."""
    return mark_texts(asked, uni.answer(*inputs(pool, asked)))


def mark_texts(asked: list[Example], answers: list[str]) -> Marked:
    """Marks of answers that are texts."""
    right = [answer == example.response[0] for answer, example in zip(answers, asked)]
    return Marked(asked, [[answer] for answer in answers], {"": right})


def mark_descriptions(
    uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int
) -> Marked:
    """Right is a caption with the right label; `_exact` asks for the whole caption."""
    images, questions = inputs(pool, asked)
    [question] = set(questions)  # all examples of an evaluation have the first wording
    marked = mark_texts(asked, uni.describe([image for (image,) in images], question=question))
    parse = pool.data.grammar.parse
    right_label = []
    for (answer,), example in zip(marked.answers, asked):
        said, true = parse(str(answer)), parse(str(example.response[0]))
        right_label.append(said[0] == true[0])
    return marked._replace(right={"": right_label, "_exact": marked.right[""]})

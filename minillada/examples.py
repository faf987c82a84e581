"""One example of every task, made from real images: what the user gives, and the response that pixels and labels prove right.

Notable choices
- An example is written in words and pictures, not in tokens: `layout.sequence` turns it into one sequence, `evaluate` reads the
  right answer off it. The images of training and test are two pools that never mix.
- An edit by pixels has one right result; an edit by label (`turn it into a four`) takes any image of the wanted kind as one.
- Sums come without (`sum_direct`) and with thinking (`sum_thinking`): the trace counts on its fingers, so that every step is easy
  and a pair of numbers never seen before needs nothing new. The sums of some pairs (`HELD_OUT`) are never trained on. Two drills
  teach the links of such a chain by themselves: to say the numbers asked for (`repeat`), and to read what is written (`go_on`).
- A share of the prompts is dropped, in part or whole, as guidance needs it: `drop`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from random import Random
from typing import NamedTuple

from . import captions, edits
from .data import DIGITS, Images
from .layout import DESCRIBE_QUESTION

NUMBERS = (*DIGITS, "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen")
THICKEN, THIN = "make it thicker", "make it thinner"

# The first wording of a question is the one that is evaluated; instruction tuning adds the others.
QUESTIONS = {
    "digit": ("what digit is this?", "which digit do you see?", "name the digit."),
    "thickness": ("is it thick or thin?", "how thick is the stroke?"),
    "slant": ("which way does it lean?", "does it lean left, lean right or stand upright?"),
    "parity": ("is it even or odd?", "is this an odd number or an even one?"),
    "arithmetic": ("what is this digit plus {n}?", "add {n} to this digit."),
    "compare": ("which of the two is larger?", "which digit is larger, the first or the second?"),
}
THICKNESS_ANSWERS, SLANT_ANSWERS, PARITY_ANSWERS = captions.THICKNESS_WORDS, ("left", "upright", "right"), ("even", "odd")
COMPARE_ANSWERS = ("the first", "the second", "neither")
EDIT_DIGIT = ("turn it into a {digit}", "make it a {digit}")
MULTI_REFERENCE = ("the digit of the first with the thickness of the second", "draw the first as thick as the second")
SUM = ("draw the sum of {a} and {b}", "draw {a} plus {b}")
COUNT_ON = (
    "what is the sum of {a} and {b}?", "what is {a} plus {b}?", "add {a} and {b}", "{a} and {b}", "{a} plus {b} is?",
    "how much is {a} and {b}?", "count on from {a} by {b}", "{b} more than {a}",
)  # fmt: skip
REPEAT = ("say {a} and {b}", "repeat {a}, {b}", "write {a}, then {b}")
COUNT = ("count from {a} to {b}", "show me {a} to {b}")

# Unordered pairs of numbers whose sums a run does not train, as many of them as its `held_out` says, from the left. Every sum keeps
# other pairs and every number other partners.
HELD_OUT = ((0, 5), (1, 6), (2, 4), (1, 3), (2, 3), (3, 4), (2, 6), (3, 5), (4, 5))
SUMS = [(a, b) for a in range(10) for b in range(10 - a)]  # whose result can be drawn as one digit
COUNTED = [(a, b) for a in range(len(NUMBERS)) for b in range(10) if a + b < len(NUMBERS)]  # whose result has a name


class Picture(NamedTuple):
    """An image of a pool by its index, after an instruction of `edits.OPERATIONS` (None: as it is)."""

    index: int
    operation: str | None = None


class Example(NamedTuple):
    """What the user gives and the right response, in order; None among the user's parts stands for `<uncondition>`."""

    system: str  # a key of `layout.SYSTEM_PROMPTS`
    user: list[str | Picture | None]
    response: list[str | Picture]
    given: int = 0  # so many parts of the response are only shown in training, not asked for


class Pool:
    """The images of one split, found by what they show, and the pairs of numbers to be added, without the first `held_out` of `HELD_OUT`.

    `classes` are rows (digit, thickness, slant).
    """

    def __init__(self, images: Images, held_out: int = 0):
        self.images = images
        self.sums = [pair for pair in SUMS if not is_held_out(*pair, held_out)]
        self.counted = [pair for pair in COUNTED if not is_held_out(*pair, held_out)]
        self.classes: list[tuple[int, int, int]] = []
        self.angles: list[float] = []  # slant in degrees
        for start in range(0, len(images.labels), 5000):
            part = images.floats(slice(start, start + 5000))
            self.classes += map(tuple, captions.caption_classes(part, images.labels[start : start + 5000]).tolist())
            self.angles += captions.slant(part).tolist()
        self.members: dict[tuple[int, int, int], list[int]] = {}
        for index, row in enumerate(self.classes):
            self.members.setdefault(row, []).append(index)

    def pick(self, rng: Random, digit: int | None = None, thickness: int | None = None, slant: int | None = None) -> int:
        """Index of a random image that shows what is asked; None asks for nothing."""
        wanted = (digit, thickness, slant)
        if wanted == (None, None, None):
            return rng.randrange(len(self.classes))
        kinds = [kind for kind in self.members if all(w is None or w == k for w, k in zip(wanted, kind, strict=True))]
        if not kinds:
            raise ValueError(f"no image of this split has the digit, thickness and slant {wanted} (classes, None: any); use a larger split")
        return rng.choice(self.members[rng.choices(kinds, [len(self.members[kind]) for kind in kinds])[0]])

    def pick_like(self, rng: Random, index: int, digit: int, thickness: int) -> int:
        """A random image of a digit and a thickness that leans as image `index` does: of four with its class of slant, the nearest in degrees.

        The class alone says little: one bit and a half, where an image has some forty. The nearest of all would say more, but would
        also lie as near to the edge of the class as image `index` does.
        """
        four = [self.pick(rng, digit, thickness, self.classes[index][2]) for _ in range(4)]
        return min(four, key=lambda other: abs(self.angles[other] - self.angles[index]))


def wording(rng: Random, choices: tuple[str, ...], varied: bool) -> str:
    return rng.choice(choices) if varied else choices[0]


def article(word: str) -> str:
    """`a seven`, `an eight`, `an eleven`"""
    return f"an {word}" if word[0] == "e" else f"a {word}"


def draw(pool: Pool, rng: Random, varied: bool) -> Example:
    """A caption, in a fifth of the cases incomplete, and its image."""
    index = pool.pick(rng)
    digit, thickness, slant = pool.classes[index]
    left_out = rng.choice(("thickness", "slant", "both")) if varied and rng.random() < 0.2 else ""
    text = captions.caption(
        digit, None if left_out in ("thickness", "both") else thickness, None if left_out in ("slant", "both") else slant
    )
    return Example("draw", [text], [Picture(index)])


def describe(pool: Pool, rng: Random, varied: bool) -> Example:
    index = pool.pick(rng)
    return Example("describe", [Picture(index), DESCRIBE_QUESTION], [captions.caption(*pool.classes[index])])


def question(kind: str) -> Callable[[Pool, Random, bool], Example]:
    """Builder of examples that ask `QUESTIONS[kind]` about one image."""

    def build(pool: Pool, rng: Random, varied: bool) -> Example:
        # Some kinds of digit are rare; even classes keep a model from answering the frequent one.
        index = pool.pick(rng, digit=rng.randrange(10), thickness=rng.randrange(2))
        digit, thickness, slant = pool.classes[index]
        n = rng.randrange(10)
        answers = {
            "digit": DIGITS[digit],
            "thickness": THICKNESS_ANSWERS[thickness],
            "slant": SLANT_ANSWERS[slant],
            "parity": PARITY_ANSWERS[digit % 2],
            "arithmetic": NUMBERS[digit + n],
        }
        return Example("describe", [Picture(index), wording(rng, QUESTIONS[kind], varied).format(n=NUMBERS[n])], [answers[kind]])

    return build


def compare(pool: Pool, rng: Random, varied: bool) -> Example:
    """Two images, one of them larger or neither."""
    a, b = (pool.pick(rng, digit=rng.randrange(10)) for _ in range(2))
    first, second = pool.classes[a][0], pool.classes[b][0]
    answer = COMPARE_ANSWERS[0 if first > second else 1 if first < second else 2]
    return Example("describe", [Picture(a), Picture(b), wording(rng, QUESTIONS["compare"], varied)], [answer])


def operations(instructions: list[str]) -> Callable[[Pool, Random, bool], Example]:
    """Builder of exact operations on pixels; only thick digits are thinned, and only thin ones thickened."""

    def build(pool: Pool, rng: Random, varied: bool) -> Example:
        instruction = rng.choice(instructions)
        thickness = {THICKEN: 0, THIN: 1}.get(instruction)
        index = pool.pick(rng, digit=rng.randrange(10), thickness=thickness)
        return Example("edit", [Picture(index), instruction], [Picture(index, instruction)])

    return build


edit_operation = operations(list(edits.OPERATIONS))


def edit_digit(pool: Pool, rng: Random, varied: bool) -> Example:
    """Another digit in the same style."""
    index, digit = pool.pick(rng), rng.randrange(10)
    instruction = wording(rng, EDIT_DIGIT, varied).format(digit=DIGITS[digit]).replace("a eight", "an eight")
    return Example("edit", [Picture(index), instruction], [Picture(pool.pick_like(rng, index, digit, pool.classes[index][1]))])


def multi_reference(pool: Pool, rng: Random, varied: bool) -> Example:
    """Digit and slant of the first image, thickness of the second."""
    a, b = pool.pick(rng, digit=rng.randrange(10)), pool.pick(rng)
    result = Picture(pool.pick_like(rng, a, pool.classes[a][0], pool.classes[b][1]))
    return Example("edit", [Picture(a), Picture(b), wording(rng, MULTI_REFERENCE, varied)], [result])


def counting_trace(a: int, b: int) -> str:
    """a + b on one's fingers: `three, two left; four, one left; five, zero left; a five` for 3 + 2.

    Every step says all that the next one needs, also when to stop, so nothing about the pair as a whole has to be remembered.
    """
    steps = [f"{NUMBERS[a + n]}, {NUMBERS[b - n]} left" for n in range(b + 1)]
    return "; ".join([*steps, article(NUMBERS[a + b])])


def is_held_out(a: int, b: int, held_out: int) -> bool:
    """Whether a + b is a sum of the first `held_out` pairs of `HELD_OUT`, in either order."""
    return (min(a, b), max(a, b)) in HELD_OUT[:held_out]


def sums(thinking: bool, pairs: list[tuple[int, int]] | None = None) -> Callable[[Pool, Random, bool], Example]:
    """Builder of `draw the sum of … and …` for `pairs` of numbers or those of the pool, with a trace before the image or without."""

    def build(pool: Pool, rng: Random, varied: bool) -> Example:
        a, b = rng.choice(pairs or pool.sums)
        prompt = wording(rng, SUM, varied).format(a=NUMBERS[a], b=NUMBERS[b])
        result = Picture(pool.pick(rng, digit=a + b))
        return Example("think", [prompt], [counting_trace(a, b), result]) if thinking else Example("draw", [prompt], [result])

    return build


def count_on(pool: Pool, rng: Random, varied: bool) -> Example:
    """The same thoughts about numbers too large to be drawn as one digit. From these many pairs a model learns to begin with the numbers
    it is given, where from the few sums of digits it would remember the beginning of each."""
    a, b = rng.choice(pool.counted)
    return Example("think", [wording(rng, COUNT_ON, varied).format(a=NUMBERS[a], b=NUMBERS[b])], [counting_trace(a, b)])


def repeat(pool: Pool, rng: Random, varied: bool) -> Example:
    """Two numbers said again, as a thought begins with them. Any two: their sum is not asked for."""
    a, b = rng.choices(NUMBERS, k=2)
    return Example("think", [wording(rng, REPEAT, varied).format(a=a, b=b)], [f"{a}, {b}"])


def go_on(pool: Pool, rng: Random, varied: bool) -> Example:
    """A thought in which the numbers have slipped, at its beginning or later, to be finished: what is written counts, not what was asked.

    A thought of a trained pair can be concluded from the prompt, without reading it. For a new pair that is of no use; here it is wrong.
    Only trained pairs are asked about.
    """
    asked, (a, b) = rng.choice(pool.counted), rng.choice(pool.counted)
    own = counting_trace(*asked).split("; ")[: rng.randint(0, asked[1])]
    others = counting_trace(a, b).split("; ")[rng.randint(0, b) :]
    written = own + others[: rng.randint(1, len(others) - 1)]
    rest = others[len(written) - len(own) :]
    result = [Picture(pool.pick(rng, digit=a + b))] if a + b < 10 else []
    prompt = wording(rng, SUM + COUNT_ON, varied).format(a=NUMBERS[asked[0]], b=NUMBERS[asked[1]])
    return Example("think", [prompt], ["; ".join(written), "; " + "; ".join(rest), *result], given=1)


def interleave(pool: Pool, rng: Random, varied: bool) -> Example:
    """Counting upwards: a word, its picture, the next word, …"""
    a, b = sorted(rng.sample(range(10), 2))
    response = [part for n in range(a, b + 1) for part in (NUMBERS[n], Picture(pool.pick(rng, digit=n)))]
    return Example("interleave", [wording(rng, COUNT, varied).format(a=NUMBERS[a], b=NUMBERS[b])], response)


# task -> builder(pool, random numbers, vary the wording) -> Example
TASKS: dict[str, Callable[[Pool, Random, bool], Example]] = {
    "draw": draw,
    "describe": describe,
    **{kind: question(kind) for kind in ("digit", "thickness", "slant", "parity", "arithmetic")},
    "compare": compare,
    "edit_operation": edit_operation,
    "edit_turn": operations(["mirror it", "rotate it"]),  # again the two that move every code to another place: the hardest to learn
    "edit_digit": edit_digit,
    "multi_reference": multi_reference,
    "sum_direct": sums(False),
    "sum_thinking": sums(True),
    "count_on": count_on,
    "repeat": repeat,
    "go_on": go_on,
    "interleave": interleave,
}


def drop(example: Example, rng: Random, rate: float) -> Example:
    """The example as a branch of guidance sees it, for a share `rate` of those that draw; the others unchanged.

    Drawing: no prompt. Thinking: neither prompt nor trace. Editing: no text, or no image. Interleaving: no words, or no images
    before the last, which alone is asked for: a story of words without images is nothing to learn.
    """
    if not isinstance(example.response[-1], Picture) or rng.random() >= rate:
        return example
    user, response = example.user, example.response
    if example.system == "edit":
        return example._replace(user=[*user[:-1], None] if rng.random() < 0.5 else user[-1:])
    if example.system == "interleave":
        words, pictures = ([part for part in response if isinstance(part, kind)] for kind in (str, Picture))
        if rng.random() < 0.5:
            n = rng.randint(2, len(words))
            return example._replace(response=[*words[:n], pictures[n - 1]], given=n)
        return example._replace(user=[None], response=pictures)
    return example._replace(user=[None], response=response[-1:], given=0)


def all_texts() -> list[str]:
    """Every text that an example can contain, for the text tokenizer to learn its pieces from; those of `count_on` use the same pieces."""
    pairs = [dict(a=NUMBERS[a], b=NUMBERS[b]) for a, b in SUMS] + [
        dict(a=NUMBERS[a], b=NUMBERS[b]) for a, b in product(range(10), repeat=2) if a < b
    ]
    texts = [q.format(n=n) for kind in QUESTIONS.values() for q in kind for n in DIGITS]
    texts += [w.format(digit=d).replace("a eight", "an eight") for w in EDIT_DIGIT for d in DIGITS]
    texts += [w.format(**pair) for w in SUM + COUNT for pair in pairs]
    texts += [counting_trace(a, b) for a, b in SUMS]
    texts += [*edits.OPERATIONS, *MULTI_REFERENCE] * 5
    return texts + [*NUMBERS, *SLANT_ANSWERS, *THICKNESS_ANSWERS, *PARITY_ANSWERS, *COMPARE_ANSWERS] * 5

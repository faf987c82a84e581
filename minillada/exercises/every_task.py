"""Checks of the exercises of notebook 09: writing the branches of guidance, reading an interleaved answer, marking a thought.

They keep the rules of `exercises`: one diagnosis each, True only for a correct answer, never an exception.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import layout
from ..exercises.checking import attempt, known_mistake, same
from ..tasks.numbers import counting_trace
from ..vocab import BOI, END_IMAGE, EOS, IMAGE, Vocabulary, load_vocabulary

GRID = 4


def check_edit_branches(function: Callable) -> bool:
    """Notebook 09: `function(vocab, codes [h, w], instruction) -> (full, no_text, no_image)`, each the ids of a prompt with header."""
    vocab = load_vocabulary(1024, "mnist-uni-text")

    def prompt(*user, task="edit", grid=GRID):
        return layout.prompt(vocab, task, list(user), grid)

    for seed, text in enumerate(("mirror it", "turn it into a four")):
        codes = torch.randint(1024, (GRID, GRID), generator=torch.Generator().manual_seed(seed))
        right = {"full": prompt(codes, text), "no_text": prompt(codes, None), "no_image": prompt(text)}
        mistakes = {
            "full": {"the image comes first, then the instruction": prompt(text, codes)},
            "no_text": {
                "leaving the instruction out is not enough: the absent text is written <uncondition> (None in a list of parts)": prompt(
                    codes
                ),
                "that is `<uncondition>` in ordinary pieces, as if a user had typed it; use None or vocab.markup": prompt(
                    codes, "<uncondition>"
                ),
                "without text, the image stays": prompt(None),
            },
            "no_image": {
                "only an absent text is written <uncondition>; an absent image leaves nothing behind": prompt(None, text),
                "without an image, the instruction stays": prompt(None),
                "this branch has no image, but it has the instruction: the other way round": prompt(codes, None),
            },
        }
        result = attempt(function, vocab, codes, text)
        if result is None:
            return False
        if not isinstance(result, tuple | list) or len(result) != 3:
            print("return three lists of ids: full, no_text, no_image")
            return False
        for (name, ids), mine in zip(right.items(), result, strict=True):
            expected = torch.tensor(ids)
            general = {
                "a drawing begins behind the header of its image: pass the side of the grid to layout.prompt": torch.tensor(ids[:-4]),
                "this is the system prompt of another task": torch.tensor(ids_of_other_task(vocab, ids)),
            }
            hints = {hint: torch.tensor(wrong) for hint, wrong in mistakes[name].items()} | general
            if known_mistake(mine, expected, hints) or not same(mine, expected):
                print(f"this is about the branch {name}")
                return False
    print("correct: three prompts that differ in one thing each, which is what guidance compares")
    return True


def ids_of_other_task(vocab: Vocabulary, ids: list[int]) -> list[int]:
    """The same prompt under the system sentence of drawing."""
    system = {task: vocab.markup(f"<role>SYSTEM</role> {layout.SYSTEM_PROMPTS[task]} <role>HUMAN</role>") for task in ("draw", "edit")}
    return system["draw"] + ids[len(system["edit"]) :]


def check_story_parts(function: Callable) -> bool:
    """Notebook 09: `function(vocab, ids) -> list of str and Tensor [h, w]`, the texts and images of an interleaved response, in order."""
    vocab = load_vocabulary(1024, "mnist-uni-text")
    numbers = torch.Generator().manual_seed(9)
    stories = [((2, 3), ["two", "three"]), ((4, 4), ["nine"]), ((3, 1), ["zero", "one", "two"])]
    for (h, w), words in stories:
        story = [part for word in words for part in (word, torch.randint(1024, (h, w), generator=numbers))]
        result = attempt(function, vocab, layout.write(vocab, story) + vocab.markup(EOS))
        if result is None:
            return False
        if not isinstance(result, list | tuple):
            print(f"a list of texts and images was expected, your function returns {type(result).__name__}")
            return False
        kinds = ["image" if isinstance(part, Tensor) else "text" if isinstance(part, str) else type(part).__name__ for part in result]
        if kinds != ["text", "image"] * len(words):
            print(f"this answer has {len(words)} texts and as many images, in turn; yours is {', '.join(kinds) or 'empty'}")
            return False
        for mine, part in zip(result, story, strict=True):
            if not same_part(mine, part):
                return False
    print("correct: the header says how many codes follow, so text and image never mix")
    return True


def same_part(mine: str | Tensor, part: str | Tensor) -> bool:
    """Compare one text or image of a story; prints what is wrong."""
    if isinstance(part, Tensor):
        hints = {
            "these are ids; subtract the offset with vocab.codes": part + load_vocabulary(1024, "mnist-uni-text").image_token_offset,
            "the header says height first, then width": part.reshape(part.shape[::-1]),
            "the image is a grid: give it the shape that its header says": part.flatten(),
        }
        return not known_mistake(mine, part, hints) and same(mine, part)
    if mine == part:
        return True
    if any(token in mine for token in (IMAGE, BOI, END_IMAGE, EOS)):
        print(f"special tokens are no text: expected {part!r}, yours is {mine!r}")
    else:
        print(f"the text should be {part!r}, yours is {mine!r}")
    return False


TRACES = [
    # a, b, what was thought, how many parts from the left are right
    (3, 2, "three, two left; four, one left; five, zero left; a five", 4),
    (3, 2, "three, two left; four, one left; six, zero left; a six", 2),
    (3, 2, "two, two left; three, one left; four, zero left; a four", 0),
    (3, 2, "three, two left; four, one left; five, zero left; a six", 3),
    (3, 2, "three, two left; five, one left; five, zero left; a five", 1),  # wrong, although it ends well
    (3, 2, "three, two left; four, zero left; a four", 1),  # stops counting too early
    (4, 0, "four, zero left; a four", 2),
    (0, 3, "zero, three left; one, two left; two, one left; three, zero left; a three", 5),
    (5, 3, "five, three left; six, two left; seven, one left; eight, zero left; an eight", 5),
    (5, 1, "five, one left; six, zero left; seven, zero left; a seven", 2),  # counts one too many
]


def check_right_parts(function: Callable) -> bool:
    """Notebook 09: `function(a, b, trace) -> int`, how many parts of a counting trace are right before the first that is not."""
    for a, b, trace, right in TRACES:
        truth = split_trace(counting_trace(a, b))
        parts = split_trace(trace)
        matches = [one == other for one, other in zip(parts, truth, strict=False)]
        result = attempt(function, a, b, trace)
        if result is None:
            return False
        if isinstance(result, bool) or not isinstance(result, int):
            print(f"a whole number was expected, your function returns {type(result).__name__}")
            return False
        if result == right:
            continue
        hints = {
            "stop at the first mistake: what is thought after it builds on it": sum(matches),
            "count the right parts; all or nothing hides where it went wrong": len(truth) * (trace == counting_trace(a, b)),
            "that is the number of parts; count those that are right": len(parts),
            "a comma stands within a step; parts are separated by semicolons": [
                one == other for one, other in zip(by_commas(trace), by_commas(counting_trace(a, b)), strict=False)
            ].count(True),
        }
        known = next((hint for hint, wrong in hints.items() if wrong == result), "")
        print(f"for {a} + {b}, {trace!r}, the answer is {right}, yours is {result}" + (f"; {known}" if known else ""))
        return False
    print("correct: now you can see where a thought goes wrong, not only that it does")
    return True


def split_trace(trace: str) -> list[str]:
    """`three, two left; four, one left; five, zero left; a five` -> its four parts."""
    return trace.split("; ")


def by_commas(trace: str) -> list[str]:
    """The parts that come of splitting at commas, too."""
    return trace.replace("; ", ", ").split(", ")

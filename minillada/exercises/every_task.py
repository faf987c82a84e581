"""Exercises of notebooks 09, every task, and 10, thinking and stages."""

import torch
from torch import Tensor

from .. import layout
from ..tasks.numbers import counting_trace
from ..vocab import END_IMAGE, EOS, load_vocabulary
from .checking import Case, Cases, Chance, exercise


@exercise(
    "correct: no_text lacks the instruction, no_image lacks the image; guidance compares them"
)
def check_edit_branches(chance: Chance) -> Cases:
    """`function(vocab, codes [h, w], instruction) -> (full, no_text, no_image)`: ids of prompts."""
    vocab = load_vocabulary(1024, "mnist-uni-text")

    def prompt(*user: layout.Part, task: str = "edit", grid: int | None = 4) -> Tensor:
        return torch.tensor(layout.prompt(vocab, task, list(user), grid))

    for seed, text in enumerate(("mirror it", "turn it into a four")):
        codes = torch.randint(1024, (4, 4), generator=chance.generator(seed))
        full, no_text, no_image = prompt(codes, text), prompt(codes, None), prompt(text)
        users: tuple[tuple, ...] = (codes, text), (codes, None), (text,)
        without_text = {
            "leaving the instruction out is not enough: an absent text is None": prompt(codes),
            "`<uncondition>` in a text is plain text, as if a user typed it; use None": prompt(
                codes, "<uncondition>"
            ),
            "without text, the image stays": prompt(None),
        }
        without_image = {
            "only an absent text is <uncondition>; an absent image is left out": prompt(None, text),
            "without an image, the instruction stays": prompt(None),
            "no_image has the instruction, but no image: the other way round": no_text,
        }
        mistakes = {
            "the image comes first, then the instruction": (prompt(text, codes), no_text, no_image),
            "a drawing begins behind its image's header: give layout.prompt the grid": tuple(
                prompt(*user, grid=None) for user in users
            ),
            "those are the parts; layout.prompt makes ids of them": users,
            "full has both, image and instruction": (no_image, no_text, no_image),
            "the order is full, no_text, no_image": (full, no_image, no_text),
            "this is the system prompt of another task": tuple(
                prompt(*user, task="draw") for user in users
            ),
        }
        mistakes |= {hint: (full, wrong, no_image) for hint, wrong in without_text.items()}
        mistakes |= {hint: (full, no_text, wrong) for hint, wrong in without_image.items()}
        yield Case((vocab, codes, text), (full, no_text, no_image), mistakes)


@exercise("correct: the header says how many codes follow, so text and image never mix")
def check_story_parts(chance: Chance) -> Cases:
    """`function(vocab, ids) -> list of str and Tensor [h, w]`: texts and images of a response."""
    vocab = load_vocabulary(1024, "mnist-uni-text")
    generator = chance.generator(9)
    stories = ((2, 3, ("two", "three")), (4, 4, ("nine",)), (3, 1, ("zero", "one", "two")))
    for height, width, words in stories:
        images = [torch.randint(1024, (height, width), generator=generator) for _ in words]

        def story(texts, images: list) -> list:
            return [part for pair in zip(texts, images) for part in pair]

        unclosed = [words[0], *(END_IMAGE + word for word in words[1:])]
        ids = [codes + vocab.image_token_offset for codes in images]
        swapped, flat = [c.view(width, height) for c in images], [c.flatten() for c in images]
        right = story(words, images)
        all_ids = layout.ids_of(vocab, right) + vocab.markup(EOS)
        to_the_end = [*story(unclosed, images), END_IMAGE + EOS]
        mistakes = {
            "these are ids; subtract the offset with vocab.codes": story(words, ids),
            "the header says height first, then width": story(words, swapped),
            "an image is a grid: give it the shape that its header says": story(words, flat),
            "special tokens are no text": story(unclosed, images),
            "special tokens, the last ones included, are no text": to_the_end,
            "special tokens, the one behind the last image included, are no text": [
                *story(unclosed, images),
                END_IMAGE,
            ],
            "the end of text is no text: leave it out": [*story(words, images), EOS],
            "behind the last image no text follows": [*story(words, images), ""],
            "texts and images come in turn; yours has images alone": images,
            "texts and images come in turn; yours has texts alone": list(words),
            "that reads codes as text, too; split where an image begins": vocab.decode(all_ids),
        }
        yield Case((vocab, all_ids), right, mistakes)


TRACES = [
    (3, 2, "three, two left; four, one left; five, zero left; a five"),
    (3, 2, "three, two left; four, one left; six, zero left; a six"),
    (3, 2, "two, two left; three, one left; four, zero left; a four"),
    (3, 2, "three, two left; four, one left; five, zero left; a six"),
    (3, 2, "three, two left; five, one left; five, zero left; a five"),  # wrong, yet it ends well
    (3, 2, "three, two left; four, zero left; a four"),  # stops counting too early
    (4, 0, "four, zero left; a four"),
    (0, 3, "zero, three left; one, two left; two, one left; three, zero left; a three"),
    (5, 1, "five, one left; six, zero left; seven, zero left; a seven"),  # counts one too many
    (2, 1, "two, one left; three, zero left; a three; a three"),  # goes on after its end
    (3, 2, "three, two left; four, one left"),  # breaks off
    (6, 0, "six, zero left; a sixteen"),
]


def agreeing(mine: list[str], right: list[str]) -> int:
    """How many parts agree before the first one that does not."""
    number = 0
    while number < min(len(mine), len(right)) and mine[number] == right[number]:
        number += 1
    return number


@exercise("correct: now you see where a thought goes wrong, not only that it does")
def check_right_parts(chance: Chance) -> Cases:
    """`function(a, b, trace) -> int`: how many parts of a thought are right, from the left."""
    a, b = chance.whole(1, 4), chance.whole(2, 5)
    random = counting_trace(a, b), counting_trace(a, b + 1), counting_trace(a, b - 1)
    for a, b, trace in TRACES + [(a, b, trace) for trace in random]:
        truth = counting_trace(a, b)
        mine, right = trace.split("; "), truth.split("; ")
        pieces = [text.replace("; ", ", ").split(", ") for text in (trace, truth)]
        equal = sum(one == two for one, two in zip(mine, right))
        equal_pieces = sum(one == two for one, two in zip(*pieces))
        all_or_nothing = len(mine) if trace == truth else 0
        sound = agreeing(mine, right)
        begun = [k for k in range(len(right) + 1) if trace.startswith("; ".join(right[:k]))]
        mistakes = {
            "a thought that breaks off has no more parts: count those it has": (
                len(right) if sound == len(mine) else sound
            ),
            "compare whole parts: a sixteen begins like a six": begun[-1],
            "the first wrong part does not count": min(sound + 1, len(mine)),
            "stop at the first mistake: what is thought after it builds on it": equal,
            "count right parts; all or nothing hides where it went wrong": all_or_nothing,
            "that says whether all is right; count the parts": trace == truth,
            "that is the number of parts; count those that are right": len(mine),
            "a comma stands within a step; semicolons separate parts": agreeing(*pieces),
            "semicolons separate parts, not commas; stop at the first mistake": equal_pieces,
        }
        yield Case((a, b, trace), sound, mistakes)


@exercise("correct: a step is judged among the thoughts that came so far without a mistake")
def check_step_errors(chance: Chance) -> Cases:
    """`function(right [N], parts [N]) -> list`: the chance of a mistake in each step.

    Thought i should have `parts[i]` parts, as the right one has, and its first `right[i]` are
    right. Entry k: of the thoughts that should have a part k and are right before it, the share
    that is wrong there. As many entries as the longest right thought has parts.
    """
    generator = chance.generator(10)
    for count, longest, best in ((40, 4, 4), (200, 6, 6), (30, 5, 4)):
        parts = torch.randint(2, longest + 1, (count,), generator=generator)
        parts[0], parts[1] = longest, 2
        correct = torch.rand(count, longest, generator=generator) < 0.8
        right = torch.minimum(correct.long().cumprod(1).sum(1), parts).clamp(max=best)
        right[0] = best  # one thought gets to its end, or at least to its last part
        step = torch.arange(longest)[:, None]
        wrong_here = ((right == step) & (parts > step)).sum(1)
        reached = ((right >= step) & (parts > step)).sum(1)
        has_part = (parts > step).sum(1)
        ended_too = (right >= step).sum(1)
        ends = (right == step).sum(1)
        mistakes = {
            "divide by the thoughts that are right so far, not by all": wrong_here / count,
            "thoughts with an earlier mistake say nothing about this step": wrong_here / has_part,
            "a thought that has ended has no such part: leave it out": wrong_here / ended_too,
            "a thought that ends here without a mistake is not wrong": ends / ended_too,
            "that is the chance to be right": 1 - wrong_here / reached,
            "as many entries as the longest right thought has parts": (
                (wrong_here / reached)[: int(right.max())]
            ),
            "count only those that are wrong at this part, not before it": (
                ((right <= step) & (parts > step)).sum(1) / has_part
            ),
            "those are counts; divide by the thoughts that are right so far": wrong_here.float(),
        }
        yield Case((right, parts), wrong_here / reached, mistakes)

"""Every task, marked: examples made from test images go through `tasks.Uni`, and pixels and labels say which answers are right.

Notable choices
- An answer is right if it is the right text, letter for letter; a drawn digit is what the judge reads.
- An edit by pixels is right if the exact result of what was asked is nearer to the drawing than that of any other operation (or
  of none), and the judge, after the edit is undone, still reads the digit. For a round zero, mirroring is nearly no change:
  operations whose exact results are within `ALIKE` of each other are not told apart.
- Sums are marked on all pairs of numbers and, separately, on pairs that were never trained.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import captions, data, edits, examples
from .config import get_preset
from .evaluate import wilson_ci95
from .examples import Example, Picture, Pool
from .judge import Judge
from .tasks import Uni

ALIKE = 0.01  # mean squared difference; a thick digit and its mirror image differ by about 0.1


class Marked(NamedTuple):
    """Examples of a task, what the model made of each (texts and images `[C, H, W]`), and which are right, for each score."""

    examples: list[Example]
    answers: list[list[str | Tensor]]
    right: dict[str, list[bool]]


def make(pool: Pool, build: Callable, n: int, seed: int) -> list[Example]:
    """`n` examples in the first wording."""
    rng = Random(seed)
    return [build(pool, rng, False) for _ in range(n)]


def pixels(pool: Pool, picture: Picture) -> Tensor:
    """`[C, H, W]`"""
    return edits.apply([picture.operation], pool.images.floats([picture.index]))[0]


def inputs(pool: Pool, asked: list[Example]) -> tuple[list[tuple[Tensor, ...]], list[str]]:
    """The images and the text that each example gives."""
    return [tuple(pixels(pool, part) for part in e.user if isinstance(part, Picture)) for e in asked], [e.user[-1] for e in asked]


def wanted(pool: Pool, asked: list[Example]) -> Tensor:
    """Digit, thickness and slant `[N, 3]` of the last picture of each response."""
    return torch.tensor([pool.classes[[part for part in e.response if isinstance(part, Picture)][-1].index] for e in asked])


def mark_answers(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    answers = uni.answer(*inputs(pool, asked))
    right = [answer == e.response[0] for answer, e in zip(answers, asked, strict=True)]
    return Marked(asked, [[answer] for answer in answers], {"": right})


def mark_descriptions(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """The digit, and the whole caption."""
    marked = mark_answers(uni, judge, pool, asked, seed)
    digits = [captions.parse(a[0])[0] == captions.parse(e.response[0])[0] for a, e in zip(marked.answers, asked, strict=True)]
    return marked._replace(right={"": digits, "_exact": marked.right[""]})


def mark_drawings(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    images = uni.draw([e.user[-1] for e in asked], seed=seed)
    return Marked(asked, [[image] for image in images], {"": (judge.classify(images) == wanted(pool, asked)[:, 0]).tolist()})


def mark_thinking(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """The image; and the trace, word for word."""
    texts, images = uni.think_and_draw([e.user[-1] for e in asked], seed=seed)
    right = (judge.classify(images) == wanted(pool, asked)[:, 0]).tolist()
    traces = [text == e.response[0] for text, e in zip(texts, asked, strict=True)]
    return Marked(asked, [list(pair) for pair in zip(texts, images, strict=True)], {"": right, "_trace": traces})


def nearest_operation(drawn: Tensor, original: Tensor, instruction: str) -> bool:
    """Whether no other operation on `original` `[C, H, W]` comes nearer to `drawn` than the one the instruction asks for."""
    exact = {name: operation(original[None])[0] for name, operation in edits.OPERATIONS.items()} | {"nothing": original}
    asked = exact[instruction]
    others = [e for e in exact.values() if (e - asked).square().mean() > ALIKE]
    distance = (drawn - asked).square().mean()
    return all(bool(distance < (drawn - other).square().mean()) for other in others)


def mark_operations(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    images, instructions = inputs(pool, asked)
    drawn = uni.edit(images, instructions, seed=seed)
    done = [nearest_operation(d, i[0], text) for d, i, text in zip(drawn, images, instructions, strict=True)]
    undone = torch.cat([edits.UNDO.get(text, lambda x: x)(d[None]) for d, text in zip(drawn, instructions, strict=True)])
    kept = (judge.classify(undone) == wanted(pool, asked)[:, 0]).tolist()
    return Marked(asked, [[d] for d in drawn], {"": [a and b for a, b in zip(done, kept, strict=True)], "_done": done, "_digit_kept": kept})


def mark_edits(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """The digit; thickness and slant of the wanted picture."""
    drawn = uni.edit(*inputs(pool, asked), seed=seed)
    want = wanted(pool, asked)
    kept = captions.attributes(drawn) == want[:, 1:]
    right = {"": judge.classify(drawn) == want[:, 0], "_attributes": kept.all(1), "_thickness": kept[:, 0], "_slant": kept[:, 1]}
    return Marked(asked, [[d] for d in drawn], {name: hits.tolist() for name, hits in right.items()})


def mark_references(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """Digit of the first and thickness of the second, both."""
    marked = mark_edits(uni, judge, pool, asked, seed)
    both = [a and b for a, b in zip(marked.right[""], marked.right["_thickness"], strict=True)]
    return marked._replace(right={"": both, "_digit": marked.right[""], "_thickness": marked.right["_thickness"]})


def mark_stories(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> Marked:
    """All texts and all images right, and nothing left out or added."""
    stories = uni.interleave_all([e.user[-1] for e in asked], seed=seed)
    right = []
    for story, e in zip(stories, asked, strict=True):
        read = [examples.NUMBERS[int(judge.classify(part[None]))] if isinstance(part, Tensor) else part for part in story]
        right.append(read == [examples.NUMBERS[pool.classes[part.index][0]] if isinstance(part, Picture) else part for part in e.response])
    return Marked(asked, stories, {"": right})


UNSEEN_SUMS = [pair for pair in examples.SUMS if examples.is_held_out(*pair, get_preset("mnist-uni").training.held_out)]
# task -> (how examples are made, how answers are marked)
SUITE: dict[str, tuple[Callable, Callable]] = {
    **{kind: (examples.TASKS[kind], mark_answers) for kind in ("digit", "thickness", "slant", "parity", "arithmetic", "compare")},
    "edit_operation": (examples.edit_operation, mark_operations),
    "edit_digit": (examples.edit_digit, mark_edits),
    "multi_reference": (examples.multi_reference, mark_references),
    "sum_direct": (examples.sums(False, examples.SUMS), mark_drawings),
    "sum_direct_unseen": (examples.sums(False, UNSEEN_SUMS), mark_drawings),
    "sum_thinking": (examples.sums(True, examples.SUMS), mark_thinking),
    "sum_thinking_unseen": (examples.sums(True, UNSEEN_SUMS), mark_thinking),
    "interleave": (examples.interleave, mark_stories),
    "draw": (examples.draw, mark_drawings),
    "describe": (examples.describe, mark_descriptions),
}


def run(uni: Uni, judge: Judge, pool: Pool, samples: int = 500, seed: int = 0, tasks: list[str] | None = None) -> dict[str, Marked]:
    """Every task, or the named `tasks`, on `samples` examples each."""
    if unknown := set(tasks or ()) - set(SUITE):
        raise ValueError(f"no task is called {sorted(unknown)[0]!r}; choose from {', '.join(SUITE)}")
    marked = {}
    for number, (task, (build, mark)) in enumerate(bar := tqdm(SUITE.items())):
        if tasks is None or task in tasks:
            bar.set_description(task)
            marked[task] = mark(uni, judge, pool, make(pool, build, samples, seed * 1000 + number), seed)
    return marked


def scores(marked: dict[str, Marked]) -> dict[str, dict]:
    """`{score: {"accuracy", "ci95", "n"}}`; a task has a score of its own name, and further ones of its parts."""
    report = {}
    for task, result in marked.items():
        for part, hits in result.right.items():
            report[task + part] = {"accuracy": sum(hits) / len(hits), "ci95": wilson_ci95(sum(hits), len(hits)), "n": len(hits)}
    return report


def unseen_pool() -> Pool:
    """The images nobody trained on."""
    return Pool(data.load_mnist("test"))

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

from tqdm.auto import tqdm

from ..datasets import mnist
from ..datasets.pool import Pool
from ..measure.intervals import wilson_ci95
from ..measure.judge import Judge
from ..presets import get_preset
from ..tasks import drawing, editing, questions, stories, thinking
from ..tasks.base import Marked, make
from ..tasks.drawing import mark_drawings
from ..tasks.editing import mark_edits, mark_operations, mark_references
from ..tasks.numbers import SUMS, is_held_out
from ..tasks.questions import mark_answers, mark_descriptions
from ..tasks.stories import mark_stories
from ..tasks.table import TASKS
from ..tasks.thinking import mark_thinking
from ..uni import Uni

UNSEEN_SUMS = [pair for pair in SUMS if is_held_out(*pair, get_preset("mnist-uni").training.held_out)]


# task -> (how examples are made, how answers are marked)
SUITE: dict[str, tuple[Callable, Callable]] = {
    **{kind: (TASKS[kind], mark_answers) for kind in ("digit", "thickness", "slant", "parity", "arithmetic", "compare")},
    "edit_operation": (editing.edit_operation, mark_operations),
    "edit_digit": (editing.edit_digit, mark_edits),
    "multi_reference": (editing.multi_reference, mark_references),
    "sum_direct": (thinking.sums(False, SUMS), mark_drawings),
    "sum_direct_unseen": (thinking.sums(False, UNSEEN_SUMS), mark_drawings),
    "sum_thinking": (thinking.sums(True, SUMS), mark_thinking),
    "sum_thinking_unseen": (thinking.sums(True, UNSEEN_SUMS), mark_thinking),
    "interleave": (stories.interleave, mark_stories),
    "draw": (drawing.draw, mark_drawings),
    "describe": (questions.describe, mark_descriptions),
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
    return Pool(mnist.load_mnist("test"))

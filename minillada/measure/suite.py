"""Every task, marked: examples made from test images go through `Uni`, and are marked by `tasks/`.

Notable choices
- What is right stands beside what is asked, in the file of each task.
- Sums are marked on all pairs of numbers and, separately, on pairs that were never trained.
"""

from __future__ import annotations

from tqdm.auto import tqdm

from ..datasets.mnist import load_mnist
from ..datasets.pool import Pool, mnist_pool
from ..tasks.base import Marked, make_examples
from ..tasks.table import TASKS
from ..uni import Uni
from .intervals import wilson_ci95
from .judge import Judge

# Drills are trained but not marked.
SUITE = {name: task for name, task in TASKS.items() if task.mark is not None}


def run(
    uni: Uni,
    judge: Judge,
    pool: Pool,
    samples: int = 500,
    seed: int = 0,
    tasks: list[str] | None = None,
) -> dict[str, Marked]:
    """Every task, or the named `tasks`, on `samples` examples each."""
    if samples < 1:
        raise ValueError(f"samples is {samples}; a task needs at least 1 example to be marked")
    for name in tasks or ():
        if name not in SUITE:
            raise ValueError(f"no task is called {name!r}; choose from {', '.join(SUITE)}")
    marked = {}
    progress = tqdm(SUITE.items())
    for number, (name, task) in enumerate(progress):
        if task.mark is None or (tasks is not None and name not in tasks):
            continue
        progress.set_description(name)
        # The number of a task makes its examples, so they stay the same if others are left out.
        examples = make_examples(task.make, pool, samples, seed * 1000 + number)
        marked[name] = task.mark(uni, judge, pool, examples, seed)
    return marked


def scores(marked: dict[str, Marked]) -> dict[str, dict]:
    """`{score: {"accuracy", "ci95", "n"}}` for every task, and for the parts of its score."""
    report = {}
    for task, result in marked.items():
        for part, hits in result.right.items():
            right, n = sum(hits), len(hits)
            report[task + part] = {"accuracy": right / n, "ci95": wilson_ci95(right, n), "n": n}
    return report


def unseen_pool() -> Pool:
    """The images nobody trained on."""
    return mnist_pool(load_mnist("test"))

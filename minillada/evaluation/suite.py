"""Every task, marked: examples made from test images go through `Uni`, and are marked by `tasks/`.

Notable choices
- What is right stands beside what is asked, in the file of each task.
- Sums are marked on all pairs of numbers and, separately, on those of `numbers.UNSEEN_SUMS`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tqdm.auto import tqdm

from ..asking import NotLearned, check_learned
from ..datasets.pool import Pool, stored_pool
from ..datasets.table import DATASETS
from ..measure.intervals import share
from ..measure.judge import Judge
from ..measure.timing import counted
from ..tasks.base import Marked, make_examples
from ..tasks.numbers import HELD_OUT, least_held_out
from ..tasks.table import TASKS_OF
from ..uni import Uni

# data set -> its tasks; drills are trained but not marked
SUITES = {
    data: {name: task for name, task in tasks.items() if task.mark is not None}
    for data, tasks in TASKS_OF.items()
}
SUITE = SUITES["mnist"]
UNSEEN = {"sum_direct_unseen", "sum_thinking_unseen"}


def check_tasks(info: dict, dataset: str, names: Sequence[str]) -> None:
    """`ValueError` for an unknown task, `NotLearned` for one that the model of `info` cannot do."""
    suite = SUITES[dataset]
    for name in names:
        if name not in suite:
            raise ValueError(f"no task is called {name!r}; choose from {', '.join(suite)}")
        if name in UNSEEN and least_held_out(info) < len(HELD_OUT):
            raise NotLearned(f"this model was trained on sums of {name} (held_out); leave it out")
        needs = suite[name].needs
        if needs:
            check_learned(info, needs)


def run(
    uni: Uni,
    judge: Judge,
    pool: Pool,
    samples: int = 500,
    seed: int = 0,
    tasks: list[str] | None = None,
    marked: dict[str, Marked] | None = None,
) -> dict[str, Marked]:
    """Every task of the pool's data set, or the named `tasks`, on `samples` examples each.

    If none are named, tasks that the model never learned are left out. Sums count as unseen only
    for models that hold out all of `HELD_OUT`; other models are not asked for them. A `marked` that
    is given is filled on the way: if a task fails, those before it are not lost. `ValueError`,
    before anything is asked, for no samples and for named tasks that `check_tasks` refuses.
    """
    suite = SUITES[pool.data.name]
    if samples < 1:
        raise ValueError(f"samples is {samples}; a task needs at least 1 example to be marked")
    check_tasks(uni.info, pool.data.name, tasks or ())
    marked = {} if marked is None else marked
    progress = tqdm(suite.items())
    for number, (name, task) in enumerate(progress):
        if tasks is not None and name not in tasks:
            continue
        assert task.mark is not None  # as in all of `SUITES`
        progress.set_description(name)
        # The number of a task makes its examples, so they stay the same if others are left out.
        examples = make_examples(task.make, pool, samples, seed * 1000 + number)
        try:
            check_tasks(uni.info, pool.data.name, [name])
            with counted(uni) as passes:
                result = task.mark(uni, judge, pool, examples, seed)
        except NotLearned as error:
            if tasks is not None:
                raise
            progress.write(f"{name} is left out: {error}", file=sys.stderr)
            continue
        marked[name] = result._replace(passes=passes.rows / samples)
    return marked


def scores(marked: dict[str, Marked]) -> dict[str, dict]:
    """`{score: {"accuracy", "low", "high", "n", "passes"}}` for every task and part of a score.

    `passes` are the forward passes of one row that an answer took on average.
    """
    report = {}
    for task, result in marked.items():
        for part, hits in result.right.items():
            accuracy, low, high, n = share(sum(hits), len(hits))
            score = dict(accuracy=accuracy, low=low, high=high, n=n, passes=result.passes)
            report[task + part] = score
    return report


def unseen_pool(dataset: str = "mnist") -> Pool:
    """The images of a data set that nobody trained on."""
    return stored_pool(DATASETS[dataset], "test")

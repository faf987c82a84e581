"""From the numbers of all runs to what may be said: means, intervals, paired differences.

Notable choices
- Over seeds: Student's interval (`measure/intervals.py`) for the mean of many trainings; a single
  new training scatters more. Within a seed: the interval of the samples of one run.
- Differences are paired: the two runs of a pair have the same seed and differ in one setting. They
  are averaged over the other settings first, so that each seed gives one difference. All seeds
  are averaged over the same other settings, or their differences would be of different things.
- p-values are those of the paired t-test, corrected by Holm's rule for all comparisons together.
- Drawings in different numbers of passes (`--passes 9,16`) are never compared with each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from .. import checkpoint
from ..evaluation.report import MODEL_BARS, TASK_BARS
from ..extras.packages import load_package
from ..measure.intervals import Interval, interval_of, mean_interval
from ..training.run import WEIGHTS
from .job import MADE, read_measures
from .plan import SAMPLING, Measurement, Plan, Trial, word

if TYPE_CHECKING:
    from pandas import DataFrame, Series

# A measure -> its scores that are compared, where it has them: of digits `…_digit_…`, of photos
# `…_class_…`. A task has the scores that the suite gives it.
SCORES = {
    "tokenizer": ("reconstruction_accuracy",),
    "drawing": ("draw_digit_accuracy", "draw_class_accuracy"),
    "variety": ("frechet_ratio",),
    "describing": ("caption_digit_accuracy", "caption_class_accuracy", "caption_exact_accuracy"),
    "editing": ("edit_operation_accuracy", "edit_class_accuracy"),
    "likelihood": ("bits_per_image_token", "bits_per_text_token", "bits_per_token"),
    "timing": ("timing.cached.median",),
}
# The scores that are no shares, in words. Those of shares stand in the bars of docs/numbers.md.
NO_SHARES = {
    "bits_per_image_token": "bits per image token",
    "bits_per_text_token": "bits per text token",
    "bits_per_token": "bits per token",
    "frechet_ratio": "Fréchet distance over that of reconstructions",
    "timing.cached.median": "seconds for 16 drawings",
}
# Columns that say how much work a row took -> what is said where they are unequal. The settings are
# columns, too, so none of these may have the name of a setting, such as `steps`.
WORK = {"steps_taken": "steps", "sequences": "batch", "passes": "passes", "rows": "rows a pass"}

MOST_SHARED = 200  # ways to close gaps that are compared; more than a few gaps hardly ever make


class Record(NamedTuple):
    """A trial that was measured: its numbers by measurement, and what its training was."""

    trial: Trial
    measures: dict[str, dict[str, Any]]
    info: dict[str, Any]  # the JSON beside the weights


def read_records(folder: Path, trials: Sequence[Trial]) -> list[Record]:
    """Every trial of which something was measured."""
    found = []
    for trial in trials:
        measures = read_measures(folder / trial.name)
        if measures:
            info = checkpoint.read_info(folder / trial.name / WEIGHTS)
            found.append(Record(trial, measures, info))
    return found


def words_of(score: str) -> str:
    """What a score says, in words."""
    if score in NO_SHARES:
        return NO_SHARES[score]
    bar = MODEL_BARS.get(score) or TASK_BARS.get(score)
    return bar.what if bar else score


def is_share(score: str) -> bool:
    """Whether a score is a share of samples, from 0 to 1: accuracies and the scores of tasks."""
    return score not in NO_SHARES


def scores_of(measure: str, report: dict[str, Any]) -> list[str]:
    """The scores of a measurement that are compared."""
    if measure in SCORES:
        return [score for score in SCORES[measure] if score in report]
    # A task has a score of its own name, and perhaps parts of it: "edit_digit_attributes".
    return [name for name in report if name.startswith(measure) and f"{name}_n" in report]


# --- rows ----------------------------------------------------------------------------------------


def work_of(trial: Trial) -> tuple[int, int]:
    """Optimiser steps of a run, and the noisy sequences that each of them learns from."""
    training = trial.preset.training
    views = training.loss.views * (2 if training.loss.complementary else 1)
    return training.steps, training.batch_size * views


def score_rows(plan: Plan, records: Sequence[Record]) -> DataFrame:
    """One row for each trial, measurement and score.

    Columns: the varied settings as words, `seed`, `target` (passes that were asked for; 0: none),
    `score`, `value`, `low`, `high`, `n`, `passes`, `rows`, `steps_taken`, `sequences`, and those of
    `MADE`, None where nobody noted them.
    """
    pandas = load_package("pandas", "ablate")
    rows = []
    for record in records:
        for asked in plan.measurements():
            report = record.measures.get(asked.key, {})
            for score in scores_of(asked.measure, report):
                measured = interval_of(report, score)
                steps, sequences = work_of(record.trial)
                rows.append(
                    settings_of(plan, record.trial, asked)
                    | {"seed": record.trial.seed, "target": asked.passes or 0, "score": score}
                    | measured._asdict()
                    | {"passes": report.get("passes", math.nan)}
                    | {"rows": report.get("rows", math.nan)}
                    | {"steps_taken": steps, "sequences": sequences}
                    | {name: report.get(name) for name in MADE}
                )
    return pandas.DataFrame(rows)


def settings_of(plan: Plan, trial: Trial, asked: Measurement) -> dict[str, str]:
    """The varied settings of a row, as words; "" for one that the measure does not depend on."""
    decoding = {SAMPLING + name: value for name, value in asked.sampling}
    values = trial.settings | decoding
    return {name: word(values[name]) if name in values else "" for name, _ in plan.varied}


# --- means ---------------------------------------------------------------------------------------


def mean_over_seeds(values: Sequence[float], share: bool) -> Interval:
    """The mean with Student's interval; one value has no interval, its ends are NaN.

    The ends of a share stay in [0, 1].
    """
    if len(values) < 2:
        return Interval(float(values[0]), math.nan, math.nan, 1)
    interval = mean_interval(torch.tensor(values, dtype=torch.double))
    if share:
        return interval._replace(low=max(interval.low, 0.0), high=min(interval.high, 1.0))
    return interval


def table(plan: Plan, rows: DataFrame) -> DataFrame:
    """One row for each choice of settings, number of passes and score: means over seeds.

    `within_low` and `within_high` are the mean ends of the intervals within a seed. `unequal` says
    which work differs from that of the first row with the same score and target, and which of
    `MADE` do: two devices, for example.
    """
    pandas = load_package("pandas", "ablate")
    names = [name for name, _ in plan.varied]
    found: list[dict[str, Any]] = []
    first: dict[tuple, DataFrame] = {}
    # "score" stands first: the rows of one score belong together.
    for key, group in rows.groupby(["score", *names, "target"], sort=False):
        entry = dict(zip(["score", *names, "target"], key))
        mean = mean_over_seeds(group["value"].tolist(), is_share(entry["score"]))
        entry |= {"mean": mean.value, "low": mean.low, "high": mean.high, "seeds": mean.n}
        ends = group[group["n"] > 0]  # a number without a count, such as a ratio, has no ends
        entry |= {"within_low": ends["low"].mean(), "within_high": ends["high"].mean()}
        entry |= group[list(WORK)].mean().to_dict()
        base = first.setdefault((entry["score"], entry["target"]), group)
        entry["unequal"] = unequal(group, base)
        found.append(entry)
    return pandas.DataFrame(found)


def unequal(rows: DataFrame, base: DataFrame) -> str:
    """Which parts of the work differ from `base` by over 0.5 %, and which of `MADE` differ."""
    found: dict[str, None] = {}  # each name once
    for part, name in WORK.items():
        mean, other = rows[part].mean(), base[part].mean()
        known = not (math.isnan(mean) or math.isnan(other))
        if part == "rows" and "passes" in found:
            continue  # more passes have more rows: that is said already
        if known and not math.isclose(mean, other, rel_tol=5e-3):
            found[name] = None
    for name in MADE:
        if len({*rows[name].dropna(), *base[name].dropna()}) > 1:
            found[name] = None
    return ", ".join(found)


# --- differences ---------------------------------------------------------------------------------


def paired(differences: Sequence[float]) -> tuple[Interval, float]:
    """The mean of paired differences with Student's interval, and the p-value of the t-test.

    The p-value is NaN for one pair, and where equal differences leave no spread to compare with.
    """
    stats = load_package("scipy.stats", "ablate")
    interval = mean_over_seeds(differences, share=False)
    spread = max(differences) - min(differences)
    # Equal differences are spread a little, too, because the two values of a pair are rounded: of
    # shares by about 1e-16, however small the difference is. Such a spread means nothing.
    if spread <= 1e-12 * max(1.0, *map(abs, differences)):
        return interval, math.nan
    return interval, float(stats.ttest_1samp(differences, 0.0).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for all comparisons together (Holm 1979); NaN stays NaN.

    The smallest of m, NaN included, is multiplied by m, the next one by m − 1, and so on; none may
    become smaller than the one before it, or larger than 1.
    """
    known = [p for p in p_values if not math.isnan(p)]
    corrected = list(p_values)
    order = sorted(range(len(p_values)), key=lambda i: (math.isnan(p_values[i]), p_values[i]))
    largest = 0.0
    for place, i in enumerate(order[: len(known)]):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = largest
    return corrected


def differences(plan: Plan, rows: DataFrame) -> DataFrame:
    """Each later value of a varied setting minus its first one, for each score and target.

    Columns: `score`, `target`, `setting`, `value`, `base`, `mean`, `low`, `high`, `seeds`, `p`
    (not corrected), `unequal` (as in `table`, over the pairs alone), `over` ("1 of 2" if the mean
    lacks a choice of the other settings, else ""), `p_holm`.
    """
    pandas = load_package("pandas", "ablate")
    found = []
    for name, values in plan.varied:
        others = [other for other, _ in plan.varied if other != name]
        first, *later = [word(value) for value in values]
        for (score, target), group in rows.groupby(["score", "target"], sort=False):
            # one line for each seed and choice of the other settings, one column for each value
            wide = group.pivot(index=["seed", *others], columns=name, values="value")
            for value in later:
                if first not in wide or value not in wide:
                    continue
                pairs = complete((wide[value] - wide[first]).dropna())
                if not len(pairs):
                    continue
                by_seed = pairs.groupby(level="seed").mean().tolist()
                used = group.merge(pairs.index.to_frame(index=False))  # the rows of these pairs
                interval, p = paired(by_seed)
                work = unequal(used[used[name] == value], used[used[name] == first])
                there, planned = len(pairs) // len(by_seed), choices(plan, others, group)
                found.append(
                    {"score": score, "target": target, "setting": name, "value": value}
                    | {"base": first, "mean": interval.value, "low": interval.low}
                    | {"high": interval.high, "seeds": interval.n, "p": p, "unequal": work}
                    | {"over": f"{there} of {planned}" if there < planned else ""}
                )
    result = pandas.DataFrame(found)
    if len(result):
        result["p_holm"] = holm(result["p"].tolist())
    return result


def complete(pairs: Series) -> Series:
    """Pairs by (seed, *other settings): those that give every seed the same other settings.

    A failed run leaves a gap: its seed lacks a choice of the other settings. Then either this seed
    goes, or this choice in all seeds. The way that leaves most pairs is taken.
    """
    by_seed: dict[Any, frozenset] = {}
    keys = list(pairs.index.to_frame().itertuples(index=False, name=None))
    for seed, *others in keys:
        by_seed[seed] = by_seed.get(seed, frozenset()) | {tuple(others)}

    def left(kept: frozenset) -> tuple[int, int]:
        """Pairs that are left if every seed must have these choices; then the choices."""
        return len(kept) * sum(kept <= own for own in by_seed.values()), len(kept)

    # What some seeds share, for all groups of seeds. Dicts, so that ties end alike everywhere.
    shared: dict[frozenset, None] = {}
    for own in dict.fromkeys(by_seed.values()):
        shared |= dict.fromkeys([own, *(own & other for other in shared)])
        if len(shared) > MOST_SHARED:
            shared = dict.fromkeys(sorted(shared, key=left, reverse=True)[:MOST_SHARED])
    kept = max(shared, key=left, default=frozenset())
    seeds = [seed for seed, own in by_seed.items() if kept <= own]
    return pairs[[seed in seeds and tuple(rest) in kept for seed, *rest in keys]]


def choices(plan: Plan, names: Sequence[str], rows: DataFrame) -> int:
    """Choices of some varied settings that a plan has for the rows of a score."""
    # A setting that the score does not depend on is "" in all of them.
    return math.prod(len(dict(plan.varied)[name]) for name in names if any(rows[name]))

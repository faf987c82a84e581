"""An ablation on the screen and on disk: table, differences, plot, and the same for machines.

results.csv    a row for each run and way of decoding
results.json   the same with the table and the differences
plot.png       the table as a picture
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..extras.packages import load_package
from ..files import atomic, check_replaceable
from . import statistics
from .folder import write_json
from .job import MADE, Status, status
from .plan import Plan, Trial, combinations, word
from .statistics import Record, is_share, words_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from ..show import charts

RESULTS, CSV, PLOT = "results.json", "results.csv", "plot.png"
FILES = (RESULTS, CSV, PLOT, "command.txt")


class Report:
    """What is known of an ablation now: it can be asked for at any time."""

    def __init__(self, folder: Path, plan: Plan):
        self.folder, self.plan = folder, plan
        self.trials = plan.trials()
        self.states: dict[str, Status] = {}
        for trial in self.trials:
            try:
                self.states[trial.name] = status(folder, plan, trial)
            except (ValueError, OSError) as error:  # one damaged file hides no other run
                self.states[trial.name] = Status("unreadable", str(error))
        readable = [t for t in self.trials if self.states[t.name].word != "unreadable"]
        self.records = statistics.read_records(folder, readable)
        self.rows = statistics.score_rows(plan, self.records)
        self.table = statistics.table(plan, self.rows) if len(self.rows) else self.rows
        self.differences = statistics.differences(plan, self.rows) if len(self.rows) else self.rows

    def trials_that_are(self, *words: str) -> list[Trial]:
        return [trial for trial in self.trials if self.states[trial.name].word in words]

    # --- words -----------------------------------------------------------------------------------

    def progress(self) -> str:
        """`7 done, 1 to resume at step 200, 10 to start`"""
        parts = [f"{len(self.trials_that_are('done'))} done"]
        for trial in self.trials_that_are("stopped"):
            parts.append(f"1 to resume at {self.states[trial.name].note}")
        more = (("failed", "failed before"), ("unreadable", "unreadable"), ("new", "to start"))
        for name, words in more:
            count = len(self.trials_that_are(name))
            parts += [f"{count} {words}"] if count else []
        return ", ".join(parts)

    def work(self) -> str:
        """One sentence: what is equal, and how much of it."""
        steps = sorted({statistics.work_of(trial) for trial in self.trials})
        words = [f"{count} steps of {sequences} sequences" for count, sequences in steps]
        passes = " or ".join(map(str, self.plan.passes))
        drawing = (
            f"{passes} forward passes a drawing" if passes else "passes as decoding takes them"
        )
        kind = "equal work: " if len(steps) == 1 and passes else ""
        return f"{kind}{' or '.join(words)}; {drawing}; unequal work is marked ≠"

    def lines(self) -> list[str]:
        """Everything as text: one table a score, the differences, and what failed."""
        lines = []
        if len(self.rows):
            for score in dict.fromkeys(self.table["score"]):
                lines += ["", *self.score_lines(score)]
        else:
            lines.append("nothing is measured yet")
        if len(self.differences):
            lines += ["", *self.difference_lines()]
        for trial in self.trials_that_are("failed", "unreadable"):
            state = self.states[trial.name]
            lines.append(f"{state.word}: {trial.name}: {state.note}")
        missing = len(self.trials_that_are("stopped", "new"))
        if missing:
            lines.append(f"{missing} of {len(self.trials)} runs are not finished")
        return lines

    def score_lines(self, score: str) -> list[str]:
        """The table of one score."""
        rows, share = self.table[self.table["score"] == score], is_share(score)
        columns: dict[str, list[str]] = {}
        # 1. the settings; one that this score does not depend on is left out
        for name, _ in self.plan.varied:
            if any(rows[name]):
                columns[name] = list(rows[name])
        # 2. the numbers
        if rows["passes"].notna().any():
            columns["passes"] = [number_or_dash(value, ".1f") for value in rows["passes"]]
        columns[words_of(score)] = [shown(value, share) for value in rows["mean"]]
        columns["95 % over seeds (t)"] = ends_of(rows, "low", "high", share)
        kind = "Wilson" if share else "t"
        columns[f"within a seed ({kind})"] = ends_of(rows, "within_low", "within_high", share)
        columns["seeds"] = [str(count) for count in rows["seeds"]]
        # 3. marks
        if any(rows["unequal"]):
            columns["work"] = [f"≠ {text}" if text else "" for text in rows["unequal"]]
        frame = load_package("pandas", "ablate").DataFrame(columns)
        return frame.to_string(index=False).splitlines()

    def difference_lines(self) -> list[str]:
        """One line a comparison."""
        varied = len(self.plan.varied)
        others = ", means over the other settings" if varied > 1 else ""
        lines = [f"paired differences (same seeds{others})"]
        for row in self.differences.to_dict("records"):
            share = is_share(row["score"])
            target = f", {row['target']} passes" if row["target"] else ""
            mean = shown_difference(row["mean"], share)
            text = f"  {words_of(row['score'])}{target}: {row['setting']} {row['value']} − "
            text += f"{row['base']}: {mean}"
            if not math.isnan(row["low"]):
                low, high = (shown_difference(row[end], share) for end in ("low", "high"))
                text += f" [{low} to {high}]"
            text += " points" if share else ""
            text += f", p = {number_or_dash(row['p_holm'], '.3f')}"
            if row["over"]:
                text += f" (means over {row['over']} choices of the other settings)"
            text += f" (≠ {row['unequal']})" if row["unequal"] else ""
            lines.append(text)
        several = "s" if len(self.differences) > 1 else ""
        count = f"{len(self.differences)} comparison{several}"
        lines.append(f"  {count}, p by the paired t-test and Holm's rule")
        return lines

    # --- for machines ----------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """One object with `runs`, `table` and `differences`; missing numbers are null."""
        return {
            "command": self.plan.command(),
            **{name: self.all_that_made(name) for name in MADE},
            "work": self.work(),
            "runs": self.runs(),
            "table": self.entries(self.table),
            "differences": self.entries(self.differences),
            "failed": {
                trial.name: self.states[trial.name].note
                for trial in self.trials_that_are("failed", "unreadable")
            },
            "unfinished": [trial.name for trial in self.trials_that_are("stopped", "new")],
        }

    def all_that_made(self, name: str) -> list[Any]:
        """Every commit, device or number of threads that something was measured with."""
        reports = [report for record in self.records for report in record.measures.values()]
        return sorted({report[name] for report in reports if name in report})

    def runs(self) -> list[dict[str, Any]]:
        """One entry for each run and way of decoding: settings, seed, passes, measures."""
        found = []
        fixed = self.plan.fixed_settings(decoding=True)
        for record in self.records:
            for chosen in combinations(self.plan.decoded):
                for target in self.plan.passes or (None,):
                    found.append(self.one_run(record, chosen, fixed, target))
        return found

    def one_run(
        self, record: Record, chosen: dict[str, Any], fixed: dict[str, Any], target: int | None
    ) -> dict[str, Any]:
        """What was measured on a run with these settings of decoding."""
        measures: dict[str, Any] = {}
        taken = []  # forward passes of an answer, where a measure has some
        for measure, count in self.plan.measures:
            asked = self.plan.measurement(measure, count, fixed | chosen, target)
            for name, value in record.measures.get(asked.key, {}).items():
                # Many measures have these; the other names are different everywhere.
                shared = name in ("passes", "rows", *MADE)
                measures[f"{measure}_{name}" if shared else name] = value
                taken += [value] if name == "passes" else []
        return {
            "run": record.trial.name,
            "settings": json.loads(json.dumps(record.trial.settings | chosen)),
            "seed": record.trial.seed,
            "steps": record.trial.preset.training.steps,
            "parameters": record.info.get("parameters"),
            "seconds": record.info.get("seconds"),
            "passes": taken[0] if taken else None,
            "measures": measures,
        }

    def entries(self, frame: DataFrame) -> list[dict[str, Any]]:
        """The rows of a frame, with the real values of settings.

        Those of the table stand in `settings`, the two that a difference compares where they are.
        """
        real: dict[tuple[str, str], Any] = {}
        for name, values in self.plan.varied:
            real |= {(name, word(value)): json.loads(json.dumps(value)) for value in values}
        found = []
        for row in frame.to_dict("records") if len(frame) else ():
            settings = {
                name: real[name, row[name]] for name, _ in self.plan.varied if row.get(name)
            }
            entry: dict[str, Any] = {} if "setting" in row else {"settings": settings}
            for name, value in row.items():
                if name in ("value", "base"):
                    value = real[row["setting"], value]
                if name not in dict(self.plan.varied):
                    entry[name] = None if isinstance(value, float) and math.isnan(value) else value
            found.append(entry)
        return found

    # --- on disk ---------------------------------------------------------------------------------

    def check_files(self) -> None:
        """`ValueError` if `save` could not write one of its files; known before the work."""
        for name in FILES:
            check_replaceable(self.folder / name)

    def save(self) -> None:
        """Write all files, each whole or not at all."""
        stored = self.to_json()
        write_json(self.folder / RESULTS, stored)
        rows = []
        for run in stored["runs"]:
            flat = {name: run[name] for name in run if name not in ("settings", "measures")}
            settings = {name: word(value) for name, value in run["settings"].items()}
            rows.append({"run": run["run"], **settings, **flat, **run["measures"]})
        frame = load_package("pandas", "ablate").DataFrame(rows)
        with atomic(self.folder / CSV) as temporary:
            frame.to_csv(temporary, index=False)
        if len(self.table):
            with atomic(self.folder / PLOT) as temporary:
                self.plot().savefig(temporary, format="png")

    def plot(self) -> Figure:
        """One panel a score: the values of one setting side by side, a series for all else."""
        # the setting below the plot: the one with most values; "" if nothing varies
        axis, values = max(self.plan.varied, key=lambda pair: len(pair[1]), default=("", ("",)))
        ticks = [word(value) for value in values]
        table = self.table if axis else self.table.assign(**{axis: ""})
        by_score: dict[str, dict[str, Sequence[charts.Point]]] = {}
        for score, group in table.groupby("score", sort=False):
            others = [name for name, _ in self.plan.varied if name != axis and any(group[name])]
            lines = by_score.setdefault(ylabel(str(score)), {})
            for key, part in group.groupby([*others, "target"], sort=False):
                chosen = dict(zip([*others, "target"], key))
                points = {row[axis]: point_of(row) for row in part.to_dict("records")}
                # A measure that does not depend on the setting has the same point everywhere.
                lines[series_name(chosen)] = [
                    points.get(tick, points.get("", (math.nan,) * 3)) for tick in ticks
                ]
        return draw(by_score, ticks, axis, numeric=all(map(is_number, values)))


# --- helpers -------------------------------------------------------------------------------------


def shown(value: float, share: bool) -> str:
    """`97.4 %`, or a number with four digits."""
    return f"{100 * value:.1f} %" if share else f"{value:.4g}"


def shown_difference(value: float, share: bool) -> str:
    """`+2.1`, in percentage points where shares are compared, or `+0.03214`."""
    return f"{100 * value:+.1f}" if share else f"{value:+.4g}"


def number_or_dash(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def ends_of(rows: DataFrame, low: str, high: str, share: bool) -> list[str]:
    """Both ends of an interval in each row, or a dash."""
    texts = []
    for row in rows.to_dict("records"):
        known = not math.isnan(row[low])
        texts.append(f"{shown(row[low], share)} to {shown(row[high], share)}" if known else "–")
    return texts


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def point_of(row: dict[str, Any]) -> tuple[float, float, float]:
    """Mean and ends; one seed has no ends."""
    mean, low, high = row["mean"], row["low"], row["high"]
    return (mean, mean, mean) if math.isnan(low) else (mean, low, high)


def series_name(chosen: dict[str, Any]) -> str:
    """`objective=bound, 9 passes`"""
    parts = [f"{name}={value}" for name, value in chosen.items() if name != "target"]
    if chosen["target"]:
        parts.append(f"{chosen['target']} passes")
    return ", ".join(parts) or "all"


def ylabel(score: str) -> str:
    return f"{words_of(score)} (share)" if is_share(score) else words_of(score)


def draw(
    by_score: dict[str, dict[str, Sequence[charts.Point]]],
    ticks: list[str],
    axis: str,
    numeric: bool,
) -> Figure:
    """The panels: `ticks` stand below them. Only if they are numbers, lines join the points."""
    from ..show import charts  # matplotlib takes a second

    places: dict[str, list[float]] = {}
    for lines in by_score.values():
        for k, name in enumerate(lines):
            aside = 0.08 * (k - (len(lines) - 1) / 2)  # so that intervals do not overlap
            places.setdefault(name, [i + aside for i in range(len(ticks))])
    figure = charts.sweep(places, by_score, axis)
    for panel in figure.axes:
        for line in () if numeric else panel.lines:
            line.set_linestyle("none")
        panel.set_xlim(-0.5, len(ticks) - 0.5)
    # high enough for a long name beside the axis and a legend of some lines above it
    return charts.label(figure, ticks, size=(5.5 * len(figure.axes), 4.4))

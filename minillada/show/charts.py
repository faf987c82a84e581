"""Numbers as pictures: lines, bars, points, histograms and tables.

Notable choices
- Functions return a matplotlib `Figure`, so that a slider can call the same function again.
- A point is a number, a pair (value, half-width) or a triple (value, low, high). The ends of an
  interval need not be equally far from the value: those of a share stay in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

from ..measure.intervals import next_interval
from ..sampler import Step
from .page import BLUE, GREY, PALE, RED, SMALL, as_numbers, legend, line_style, panels

Point = float | Sequence[float]


def interval(point: Point, share: bool = False) -> tuple[float, float, float]:
    """A point as (value, low, high); the ends of a `share` are cut to [0, 1]."""
    # Numbers of Python, NumPy or PyTorch; an `Interval` holds its count, too.
    value, *ends = torch.as_tensor(point, dtype=torch.double).flatten().tolist()[:3]
    if len(ends) == 1:  # half the width
        ends = [value - ends[0], value + ends[0]]
    low, high = ends or (value, value)
    if share:
        low, high = max(low, 0.0), min(high, 1.0)
    return value, low, high


def whiskers(points: Sequence[Point]) -> tuple[list[float], list[list[float]] | None]:
    """Values, and what error bars reach below and above them; None where no point has ends."""
    found = [interval(point) for point in points]
    values = [value for value, _, _ in found]
    # An interval that does not hold its value still needs lengths that are not negative.
    # A point without an interval gets NaN, which draws nothing; 0 would draw caps.
    below = [max(value - low, 0.0) if low < high else math.nan for value, low, high in found]
    above = [max(high - value, 0.0) if low < high else math.nan for value, low, high in found]
    drawn = any(length > 0 for length in below + above)  # False for NaN, a value that is missing
    return values, [below, above] if drawn else None


def trailing_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and the `window - 1` values before it, or of as many as there are."""
    data = torch.tensor(values, dtype=torch.double)
    return [float(data[max(i + 1 - window, 0) : i + 1].mean()) for i in range(len(data))]


def curves(
    series: dict[str, list[float]],
    xlabel: str,
    ylabel: str,
    smooth: int = 1,
    x: Sequence[float] | None = None,
) -> Figure:
    """Named lines in one panel; `smooth` averages each over a trailing window."""
    lines = {name: trailing_mean(values, smooth) for name, values in series.items()}
    places = {name: list(range(len(line))) if x is None else x for name, line in lines.items()}
    return label(sweep(places, {ylabel: lines}, xlabel), size=(6, 3.2))


def beside_runs(own: list[float], runs: list[list[float]], every: int, ylabel: str) -> Figure:
    """Your curve, one value a step, over the band in which it should lie.

    `runs` are the same curve of other seeds, as means of `every` steps. The band holds 95 % of new
    runs at each place, if they differ as these do.
    """
    figure, (axes,) = panels(1, 6, 3.2)
    # 1. both as means of `every` steps; the shorter one says how many
    count = min(len(own) // every, len(runs[0]))
    yours = [sum(own[k * every : (k + 1) * every]) / every for k in range(count)]
    steps = [(k + 1) * every for k in range(count)]
    # 2. the band, from all runs at the same place
    places = [next_interval(torch.tensor([run[k] for run in runs])) for k in range(count)]
    low, high = [place.low for place in places], [place.high for place in places]
    axes.fill_between(steps, low, high, color=PALE, label=f"95 % of runs, from {len(runs)} seeds")
    mean = line_style(0, count) | {"marker": ""}
    axes.plot(steps, [place.value for place in places], label="their mean", **mean)
    axes.plot(steps, yours, label="your run", **line_style(1, count))
    axes.set(xlabel=f"step (means of {every})", ylabel=ylabel)
    axes.grid(alpha=0.3)
    legend(axes, 6)
    return figure


def sweep(
    x: Sequence[float] | Mapping[str, Sequence[float]],
    by_quantity: Mapping[str, Mapping[str, Sequence[Point]]],
    xlabel: str,
    log: bool = False,
    line: float | None = None,
) -> Figure:
    """One panel a quantity: `{ylabel: {curve: points}}`.

    `x` is a dict where it differs by line. `line` is a level to reach, dashed, in the first panel.
    """
    figure, axes = panels(len(by_quantity), 4, 3.1)
    for panel, (ylabel, lines) in zip(axes, by_quantity.items()):
        seen: set[float] = set()  # every x of this panel
        for k, (name, points) in enumerate(lines.items()):
            places = x[name] if isinstance(x, Mapping) else x
            values, ends = whiskers(points)
            style = line_style(k, len(values))
            panel.errorbar(places, values, yerr=ends, capsize=3, label=name, **style)
            seen.update(float(place) for place in places)
        panel.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log else "linear")
        if log:
            panel.set_xticks(sorted(seen), [f"{place:g}" for place in sorted(seen)])
            panel.minorticks_off()
        elif all(place.is_integer() for place in seen):
            panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.3)
        if len(lines) > 1:
            legend(panel, 4)
    if line is not None:
        axes[0].axhline(line, color="black", linestyle="--", linewidth=1)
    return figure


def bars(
    points: Sequence[Point],
    names: list[str],
    ylabel: str,
    line: float | None = None,
    marks: Sequence[bool] | None = None,
) -> Figure:
    """One bar a name, with its interval.

    `marks` darkens the chosen bars; `line` is a level to reach, dashed.
    """
    values, ends = whiskers(points)
    figure, (axes,) = panels(1, width_for(names), 2.9)
    colours = [BLUE if mark else PALE for mark in marks] if marks is not None else BLUE
    axes.bar(range(len(names)), values, yerr=ends, color=colours, ecolor="black", capsize=4)
    return finish_names(figure, names, ylabel, line)


def dots(
    series: Mapping[str, Sequence[Point]], names: list[str], ylabel: str, line: float | None = None
) -> Figure:
    """One point a name and series, with its interval.

    For values far from 0 that differ little: bars begin at 0 and look alike. `line` is dashed.
    """
    figure, (axes,) = panels(1, width_for(names), 3.1)
    for k, (name, points) in enumerate(series.items()):
        values, ends = whiskers(points)
        # Series stand beside each other, so that their intervals do not overlap.
        aside = 0.2 * (k - (len(series) - 1) / 2)
        places = [i + aside for i in range(len(values))]
        style = line_style(k, 1) | {"linestyle": "none"}
        axes.errorbar(places, values, yerr=ends, capsize=3, label=name, **style)
    axes.grid(axis="y", alpha=0.3)
    legend(axes, width_for(names))
    return finish_names(figure, names, ylabel, line)


def width_for(names: list[str]) -> float:
    """Inches that hold the names below an axis side by side, 11 at most."""
    return min(max(3.6, 0.8 + len(names) * max(0.4, 0.09 * longest_line(names))), 11)


def longest_line(names: Iterable[str]) -> int:
    """Letters of the longest line in any of the names."""
    return max((len(line) for name in names for line in str(name).split("\n")), default=0)


def finish_names(figure: Figure, names: list[str], ylabel: str, line: float | None) -> Figure:
    """Names below the axis, its label, and a dashed line."""
    axes = figure.axes[0]
    axes.set_ylabel(ylabel)
    if line is not None:
        axes.axhline(line, color="black", linestyle="--", linewidth=1)
    return label(figure, names)


def histogram(values: Tensor, edges: list[float], names: list[str], xlabel: str) -> Figure:
    """A histogram of `[N]`, cut at equally spaced `edges` into coloured classes `names`."""
    values = as_numbers(values)
    values = as_numbers(values[values.isfinite()])
    # The few values outside count in the shares of the legend, but have no bar.
    low, high = values.quantile(torch.tensor([0.001, 0.999])).tolist()
    width = (high - low) / 80 or 1.0  # equal values: one bin
    if len(edges) > 1:
        # A whole number of bins lies between two edges, so that no bin is cut in two.
        gap = edges[1] - edges[0]
        width = gap / max(round(gap / width), 1)
    first, last = math.floor((low - edges[0]) / width), math.ceil((high - edges[0]) / width)
    bins = edges[0] + width * torch.arange(first, last + 1)

    figure, (axes,) = panels(1, 6, 3)
    limits = [-math.inf, *edges, math.inf]
    for k, name in enumerate(names):
        part = values[(values >= limits[k]) & (values < limits[k + 1])]
        axes.hist(part.numpy(), bins=bins.numpy(), label=f"{name} ({len(part) / len(values):.0%})")
    axes.set(xlabel=xlabel, ylabel="images")
    legend(axes, 6)
    return figure


def right_and_wrong(measured: dict[str, tuple[Tensor, Tensor, tuple[float, ...]]]) -> Figure:
    """One panel a measurement, `{xlabel: (values [N], wrong bool [N], edges)}`: wrong answers
    drawn over all answers, edges dashed."""
    figure, axes = panels(len(measured), 4.2, 3)
    for panel, (xlabel, (values, wrong, edges)) in zip(axes, measured.items()):
        values = as_numbers(values)
        low, high = values.quantile(torch.tensor([0.005, 0.995])).tolist()
        bins = torch.linspace(low, high, 41).numpy()
        panel.hist(values.numpy(), bins=bins, color=PALE, label=f"all ({len(values)})")
        wrongs = f"wrong ({int(wrong.sum())})"
        panel.hist(values[wrong].numpy(), bins=bins, color=RED, hatch="////", label=wrongs)
        for edge in edges:
            panel.axvline(edge, color="black", linestyle="--", linewidth=1)
        panel.set(xlabel=xlabel, ylabel="images")
        legend(panel, 4.2)
    return figure


def scatter(clouds: dict[str, Tensor], xlabel: str = "", ylabel: str = "") -> Figure:
    """Named clouds of points `[N, 2]`; small clouds get large points."""
    figure, (axes,) = panels(1, 4.4, 3.6)
    for k, (name, points) in enumerate(clouds.items()):
        size = 4 if len(points) > 50 else 40
        marker = line_style(k, 1)["marker"]
        axes.scatter(*as_numbers(points).T.numpy(), s=size, alpha=0.5, marker=marker, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel, aspect="equal")
    legend(axes, 4.4)
    return figure


def heatmap(
    values: list[Tensor],
    titles: list[str],
    xlabel: str,
    ylabel: str,
    marks: list[Tensor] | None = None,
    form: str = "",
    ticks: tuple[list[str], list[str]] | None = None,
) -> Figure:
    """Tables `[R, C]` side by side, dark = large, all in one colour scale.

    `marks` bool `[R, C]` rings cells, `form` (".2f") prints the numbers that are not 0, `ticks`
    names rows and columns. A cell without a number (NaN) is grey: nothing was asked there.
    """
    rows, columns = values[0].shape
    colours = colormaps["Blues"].with_extremes(bad=GREY)
    figure, axes = panels(len(values), max(3.2, 0.44 * columns + 1), max(2.4, 0.36 * rows + 1.2))
    largest = max(0.0, *(float(as_numbers(table).nan_to_num(0).max()) for table in values))
    for k, (panel, table) in enumerate(zip(axes, values)):
        # 1. the colours: a table of zeros is white
        panel.imshow(
            as_numbers(table).numpy(), cmap=colours, aspect="auto", vmin=0, vmax=largest or 1,
            interpolation="nearest",
        )  # fmt: skip
        panel.set_title(titles[k], fontsize=10)
        panel.set(xlabel=xlabel, ylabel=ylabel if k == 0 else "")
        # 2. rings, larger where they go around a number
        for y, x in marks[k].nonzero().tolist() if marks else []:
            size = 20 if form else 10
            panel.plot(x, y, "o", markersize=size, markerfacecolor="none", markeredgecolor=RED)
        # 3. numbers, white on dark cells
        for y, x in as_numbers(table).nan_to_num(0).nonzero().tolist() if form else []:
            number = table[y, x].item()
            colour = "white" if number > 0.6 * largest else "black"
            text = format(number, form)
            panel.text(x, y, text, ha="center", va="center", fontsize=SMALL, color=colour)
    return label(figure, ticks[1], ticks[0]) if ticks else figure


def confidence_map(steps: list[Step], row: int = 0) -> Figure:
    """How sure the model was of every masked position at every step of one row of the `steps`;
    rings are the positions that were committed, grey are those that were not asked."""
    if not steps:
        raise ValueError("there is no step to be shown: nothing was hidden")
    first = steps[0].start
    shape = (len(steps), steps[-1].start + steps[-1].ids.shape[1] - first)
    confidence, committed = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for i, step in enumerate(steps):
        place = slice(step.start - first, step.start - first + step.ids.shape[1])
        confidence[i, place] = step.confidence[row].cpu()
        committed[i, place] = step.committed[row].cpu()
    asked = (confidence > 0).any(0)  # [positions]; False in the prompt
    rings = committed[:, asked]
    # Steps count from 1, as in `filmstrip`.
    ticks = [str(i + 1) for i in range(len(steps))], [str(i) for i in range(rings.shape[1])]
    title = "confidence (dark = sure, grey = not asked), ring = committed"
    values = confidence.masked_fill(confidence == 0, math.nan)[:, asked]
    return heatmap([values], [title], "token", "step", [rings], ticks=ticks)


def label(
    figure: Figure,
    xticks: list[str] | None = None,
    yticks: list[str] | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """`figure` with names at its columns and rows, and another `size` in inches.

    Names that do not fit side by side are turned.
    """
    if size:
        figure.set_size_inches(size)
    for axes in figure.axes:
        if xticks:
            room = (figure.get_figwidth() / len(figure.axes) - 0.8) / len(xticks)
            angle = 90 if 0.07 * longest_line(xticks) > room else 0
            axes.set_xticks(range(len(xticks)), xticks, fontsize=SMALL, rotation=angle)
        if yticks:
            axes.set_yticks(range(len(yticks)), yticks, fontsize=SMALL)
    return figure


def rotations(angles: Tensor, titles: list[str]) -> Figure:
    """A circle a row of `angles` `[circles, positions]`, radians: unit arrows, the last darkest."""
    figure, axes = panels(len(angles), 1.7, 2.1)
    for panel, turns, title in zip(axes, angles, titles):
        shade = torch.linspace(0.15, 1, len(turns)).numpy()
        origin = [0.0] * len(turns)
        ends = turns.cos().numpy(), turns.sin().numpy()
        panel.quiver(
            origin, origin, *ends, shade, cmap="Blues", clim=(0, 1),
            scale=1, scale_units="xy", angles="xy",
        )  # fmt: skip
        panel.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
        panel.set_title(title, fontsize=SMALL)
        panel.axis("off")
    return figure

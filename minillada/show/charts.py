"""Every figure a notebook, the demo or the command line shows. Static pictures first, small in bytes.

Notable choices
- Digits are drawn at native pixels and enlarged by the viewer (`picture`), or with nearest-neighbour interpolation at
  72 dpi: a notebook of many grids stays far below a megabyte.
- Functions return a matplotlib `Figure` (or an image to display), so a slider can call the same function again.
"""

from __future__ import annotations

import math

import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..sampler import Step
from ..show.page import DPI


def curves(series: dict[str, list[float]], xlabel: str, ylabel: str, smooth: int = 1, x: list[float] | None = None) -> Figure:
    """Named lines over one axis; `smooth` averages each over a trailing window."""
    figure = Figure(figsize=(6, 3.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for name, values in series.items():
        data = torch.tensor(values, dtype=torch.float)
        if smooth > 1:
            sums = torch.cat([torch.zeros(1), data.cumsum(0)])
            low = (torch.arange(len(data)) + 1 - smooth).clamp_min(0)
            data = (sums[1:] - sums[low]) / (torch.arange(len(data)) + 1 - low)
        axes.plot(x if x is not None else range(len(data)), data.numpy(), label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    if len(series) > 1:
        axes.legend(fontsize=8)
    return figure


def histogram(values: Tensor, edges: list[float], names: list[str], xlabel: str) -> Figure:
    """A histogram cut at `edges` into coloured classes called `names`."""
    figure = Figure(figsize=(6, 2.8), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    low, high = values.quantile(torch.tensor([0.001, 0.999])).tolist()
    width = (high - low) / 80
    if len(edges) > 1:  # a whole number of bins between edges, so that no bin is cut in two
        width = (edges[1] - edges[0]) / max(round((edges[1] - edges[0]) / width), 1)
    bins = edges[0] + width * torch.arange(math.floor((low - edges[0]) / width), math.ceil((high - edges[0]) / width) + 1)
    limits = [-float("inf"), *edges, float("inf")]
    for name, left, right in zip(names, limits[:-1], limits[1:], strict=True):
        part = values[(values >= left) & (values < right)]
        axes.hist(part.numpy(), bins=bins.numpy(), label=f"{name} ({len(part) / len(values):.0%})")
    axes.set(xlabel=xlabel, ylabel="images")
    axes.legend(fontsize=8)
    return figure


def right_and_wrong(panels: dict[str, tuple[Tensor, Tensor, tuple[float, ...]]]) -> Figure:
    """One panel a measurement, `{xlabel: (values [N], wrong bool [N], edges)}`: wrong answers in red before all, edges dashed."""
    figure = Figure(figsize=(4.2 * len(panels), 2.8), dpi=DPI, layout="constrained")
    for axes, (xlabel, (values, wrong, edges)) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        bins = torch.linspace(*values.quantile(torch.tensor([0.005, 0.995])).tolist(), 41).numpy()
        axes.hist(values.numpy(), bins=bins, color="lightsteelblue", label=f"all ({len(values)})")
        axes.hist(values[wrong].numpy(), bins=bins, color="crimson", label=f"wrong ({int(wrong.sum())})")
        for edge in edges:
            axes.axvline(edge, color="black", linestyle="--", linewidth=1)
        axes.set(xlabel=xlabel, ylabel="images")
        axes.legend(fontsize=8)
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
    """Tables `[R, C]` side by side, dark = large; `marks` bool `[R, C]` rings cells, `form` (".2f") prints the numbers,
    `ticks` names rows and columns."""
    rows, columns = values[0].shape
    size = (max(3.2, 0.42 * columns + 1) * len(values), max(2.2, 0.36 * rows + 1.1))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    for k, (axes, table) in enumerate(zip(figure.subplots(1, len(values), squeeze=False)[0], values, strict=True)):
        axes.imshow(table.float().numpy(), cmap="Blues", aspect="auto", vmin=0, interpolation="nearest")
        axes.set_title(titles[k], fontsize=10)
        axes.set(xlabel=xlabel, ylabel=ylabel if k == 0 else "")
        if ticks:
            axes.set_yticks(range(rows), ticks[0], fontsize=7)
            axes.set_xticks(range(columns), ticks[1], fontsize=7)
        for y, x in marks[k].nonzero().tolist() if marks else []:
            axes.plot(x, y, "o", markersize=18 if form else 9, markerfacecolor="none", markeredgecolor="crimson")
        for y, x in torch.nonzero(table).tolist() if form else []:
            dark = table[y, x] > 0.6 * table.max()
            axes.text(x, y, format(table[y, x].item(), form), ha="center", va="center", fontsize=7, color="white" if dark else "black")
    return figure


def confidence_map(steps: list[Step], row: int = 0) -> Figure:
    """How sure the model was of every masked position at every step of one row; rings are the positions committed."""
    first = steps[0].start
    shape = (len(steps), steps[-1].start + steps[-1].ids.shape[1] - first)
    confidence, committed = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
    for i, step in enumerate(steps):
        place = slice(step.start - first, step.start - first + step.ids.shape[1])
        confidence[i, place], committed[i, place] = step.confidence[row].cpu(), step.committed[row].cpu()
    asked = (confidence > 0).any(0)
    title, ring = "confidence (dark = sure), ring = committed", committed[:, asked]
    ticks = [str(i + 1) for i in range(len(steps))], [str(i) for i in range(ring.shape[1])]  # steps count from 1, as in `filmstrip`
    return heatmap([confidence[:, asked]], [title], "token", "step", [ring], ticks=ticks)


def bars(values: list[float], names: list[str], ylabel: str, line: float | None = None, marks=None, errors=None) -> Figure:
    """One bar a name; a dashed `line` (a threshold, a bar to reach), `marks` colours the chosen, `errors` are half-widths."""
    figure = Figure(figsize=(max(3.6, 0.5 * len(names)), 2.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    colours = ["tab:green" if m else "lightsteelblue" for m in marks] if marks is not None else "tab:blue"
    axes.bar(range(len(names)), values, yerr=errors, color=colours, capsize=4)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_ylabel(ylabel)
    if line is not None:
        axes.axhline(line, color="crimson", linestyle="--", linewidth=1)
    return figure


def dots(series: dict[str, list[tuple[float, float]]], names: list[str], ylabel: str, line: float | None = None) -> Figure:
    """One point `(value, half-width)` a name and series: for differences far from 0, which bars would hide; a dashed `line`."""
    figure = Figure(figsize=(max(3.6, len(names)), 2.9), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for k, (label, points) in enumerate(series.items()):
        places = [i + 0.2 * (k - (len(series) - 1) / 2) for i in range(len(names))]
        values, errors = zip(*points, strict=True)
        axes.errorbar(places, values, yerr=errors, fmt="o", markersize=4, capsize=3, label=label)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_ylabel(ylabel)
    axes.grid(axis="y", alpha=0.3)
    if line is not None:
        axes.axhline(line, color="crimson", linestyle="--", linewidth=1)
    figure.legend(loc="outside upper center", ncols=2, fontsize=8)
    return figure


def sweep(x: list | dict[str, list], panels: dict[str, dict[str, list]], xlabel: str, log: bool = False) -> Figure:
    """One panel a quantity: `{ylabel: {line: values}}`, where a value may be a pair (value, half-width); as a dict, `x` differs by line."""
    figure = Figure(figsize=(3.6 * len(panels), 2.8), dpi=DPI, layout="constrained")
    for axes, (ylabel, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name, points in lines.items():
            centre, half = zip(*(p if isinstance(p, tuple) else (p, 0.0) for p in points), strict=True)
            places = x[name] if isinstance(x, dict) else x
            axes.errorbar(places, centre, yerr=half if any(half) else None, marker="o", markersize=3, capsize=3, label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log else "linear")
        if log:
            axes.set_xticks(x, [f"{v:g}" for v in x])
            axes.minorticks_off()
        elif all(float(v).is_integer() for v in places):
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend(fontsize=8)
    return figure


def tradeoff(panels: dict[str, dict[str, list[tuple[float, float, float]]]], xlabel: str, line: float | None = None) -> Figure:
    """One panel a quantity: `{ylabel: {line: [(x, value, half-width), …]}}`, the same lines in each, every line at its own x; `line`
    dashed in the first panel. Error bars leave no room for a legend inside."""
    figure = Figure(figsize=(4.6 * len(panels), 3.2), dpi=DPI, layout="constrained")
    for k, (axes, (ylabel, lines)) in enumerate(zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True)):
        for name, points in lines.items():
            x, y, half = zip(*sorted(points), strict=True)
            axes.errorbar(x, y, yerr=half if any(half) else None, marker="o", markersize=3, capsize=3, linewidth=1, label=name)
        if line is not None and k == 0:
            axes.axhline(line, color="crimson", linestyle="--", linewidth=1)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid(alpha=0.3)
    if len(lines) > 1:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=2 * len(panels), fontsize=8)
    return figure


def scatter(clouds: dict[str, Tensor], xlabel: str = "", ylabel: str = "") -> Figure:
    """Named clouds of points `[N, 2]`; small clouds get large points."""
    figure = Figure(figsize=(4, 3.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for name, points in clouds.items():
        axes.scatter(*points.T.numpy(), s=4 if len(points) > 50 else 40, alpha=0.5, label=name)
    axes.set(xlabel=xlabel, ylabel=ylabel, aspect="equal")
    axes.legend(fontsize=8)
    return figure


def label(figure: Figure, xticks: list[str] | None = None, yticks: list[str] | None = None, size: tuple | None = None) -> Figure:
    """`figure` with names at the columns and rows of its tables, and another `size` in inches."""
    for axes in figure.axes:
        if xticks:
            axes.set_xticks(range(len(xticks)), xticks, fontsize=7, rotation=90 if max(map(len, xticks)) > 3 else 0)
        if yticks:
            axes.set_yticks(range(len(yticks)), yticks, fontsize=7)
    if size:
        figure.set_size_inches(size)
    return figure


def rotations(angles: Tensor, titles: list[str]) -> Figure:
    """One circle a row of `angles` `[circles, positions]`: the unit arrow of every position, later positions darker."""
    figure = Figure(figsize=(1.7 * len(angles), 2.1), dpi=DPI, layout="constrained")
    for axes, turns, title in zip(figure.subplots(1, len(angles), squeeze=False)[0], angles, titles, strict=True):
        shade = torch.linspace(0.15, 1, len(turns)).numpy()
        origin, ends = [0.0] * len(turns), (turns.cos().numpy(), turns.sin().numpy())
        axes.quiver(origin, origin, *ends, shade, cmap="Blues", scale=1, scale_units="xy", angles="xy", clim=(0, 1))
        axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    return figure

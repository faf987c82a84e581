"""Diagrams: boxes with names, and arrows between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from .page import BLUE, PALE, SMALL, panels


def boxes(
    places: Mapping[str, tuple[float, float]],
    arrows: Sequence[tuple[str, str] | tuple[str, str, str]],
    size: tuple[float, float] = (9, 2.2),
) -> Figure:
    """Boxes at their (column, row), row 0 on top, and an arrow for each pair of names.

    A text behind the two names, such as "yes", stands on the middle of the arrow. What follows a
    `#` is not drawn: it tells boxes with the same text apart. `size` is in inches.
    """
    figure, (axes,) = panels(1, *size)
    patches = {}
    for name, (column, row) in places.items():
        shape = {"boxstyle": "round,pad=0.4", "facecolor": PALE, "edgecolor": BLUE}
        text = name.split("#")[0]
        # Rows go down as in a table, the y of a figure goes up.
        drawn = axes.text(column, -row, text, ha="center", va="center", fontsize=10, bbox=shape)
        patches[name] = drawn.get_bbox_patch()
    for start, end, *words in arrows:
        (x, y), (to_x, to_y) = places[start], places[end]
        # The arrow ends at the borders of its boxes, not in their middles.
        line = {"arrowstyle": "-|>", "patchA": patches[start], "patchB": patches[end]}
        axes.annotate("", (to_x, -to_y), (x, -y), arrowprops={**line, "color": "black"})
        for word in words:
            middle = (x + to_x) / 2, -(y + to_y) / 2
            paper = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"}
            axes.text(*middle, word, ha="center", va="center", fontsize=SMALL, bbox=paper)
    columns = [column for column, _ in places.values()]
    rows = [row for _, row in places.values()]
    axes.set(xlim=(min(columns) - 0.6, max(columns) + 0.6), ylim=(-max(rows) - 0.5, 0.5))
    axes.axis("off")
    return figure

"""How figures are put on a page."""

from __future__ import annotations

import io

from IPython.display import Image as Display
from IPython.display import display
from matplotlib.figure import Figure

DPI = 72


def rendered(figure: Figure):
    """A figure as a PNG to display."""

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Display(buffer.getvalue())


def show(figure: Figure) -> None:
    """Display a figure in a notebook; figures here live outside pyplot, so nothing is shown twice."""

    display(rendered(figure))

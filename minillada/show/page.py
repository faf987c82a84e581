"""How figures look, and how they get into a notebook.

Notable choices
- The colours are those of Okabe and Ito (2008): people with any kind of colour vision can tell them
  apart. Every line also has its own marker and dashes, so that it can be followed in a grey print.
- Text has at least 9 points, and 144 dots an inch keep it sharp on a projector.
- A chart is stored with 128 colours. It looks the same, and takes a third of the bytes: less than
  all colours at 72 dots an inch would take. So a notebook stays below a megabyte.
- Charts are no SVG: JupyterLab shows none in a notebook that it does not trust yet, and it trusts
  no notebook of a fresh clone.
- Figures live outside pyplot, so a notebook shows nothing twice.
"""

from __future__ import annotations

import html
import io
from dataclasses import dataclass
from typing import Any

import torch
from IPython.display import HTML, display
from IPython.display import Image as Display
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image
from torch import Tensor

DPI = 144  # stored dots an inch
SHOWN = 96  # pixels of the page that an inch takes
SMALL = 9  # points of the smallest text
COLOURS_STORED = 128
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
BLUE, RED, ORANGE, PALE = "#0072B2", "#D55E00", "#E69F00", "#BFD9EA"
GREY = "#D9D9D9"  # where there is no number
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
DASHES = ["-", "--", "-.", ":"]


@dataclass
class Pixels:
    """An image to show at its own pixels, `width` pixels wide on the page."""

    image: Image.Image
    width: int


def as_numbers(values: Any) -> Tensor:
    """A tensor, list or array as figures draw it: float32 on the CPU. `ValueError` if empty."""
    found = torch.as_tensor(values).detach().float().cpu()
    if not found.numel():
        raise ValueError(f"there is nothing to be shown: the shape is {list(found.shape)}")
    return found


def panels(count: int, width: float, height: float) -> tuple[Figure, list]:
    """A figure and its `count` axes side by side, each `width` x `height` inches."""
    figure = Figure(figsize=(width * count, height), dpi=DPI, layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for one in axes:
        one.set_prop_cycle(color=COLOURS)
    return figure, axes


def line_style(k: int, points: int) -> dict:
    """Colour, marker and dashes of line number `k`; a long line has about twelve markers."""
    return {
        "color": COLOURS[k % len(COLOURS)],
        "marker": MARKERS[k % len(MARKERS)],
        "linestyle": DASHES[k % len(DASHES)],
        "markersize": 4,
        "markevery": max(1, points // 12),
    }


def legend(axes, width: float) -> None:
    """The names of the lines above `axes`, where they cover nothing; `width` in inches."""
    handles, names = axes.get_legend_handles_labels()
    needed = 0.6 + 0.07 * max(len(name) for name in names)  # inches for one name and its line
    columns = max(1, int(width / needed))
    axes.legend(
        handles, names, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns, fontsize=SMALL
    )


def rendered(figure: Figure | Pixels | Image.Image, alt: str) -> Display:
    """The figure as a PNG to display, with a text `alt` for readers who cannot see it."""
    if not alt.strip():
        raise ValueError("a figure needs an alt text: say in a sentence what it shows")
    if isinstance(figure, Image.Image):
        image, width = figure, figure.width
    elif isinstance(figure, Pixels):
        image, width = figure.image, figure.width
    else:
        image = drawn(figure)
        width = image.width * SHOWN // DPI
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return Display(buffer.getvalue(), width=width, alt=alt)


def drawn(figure: Figure) -> Image.Image:
    """The figure as an image of few colours, or of all where it holds colour photographs."""
    buffer = io.BytesIO()
    # Not packed well: it is unpacked in the next line.
    figure.savefig(buffer, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    image = Image.open(buffer).convert("RGB")
    # Colour photographs, drawn from [H, W, 3], would show bands: they keep all their colours.
    pixels: list[Any] = [photo.get_array() for photo in figure.findobj(AxesImage)]
    if any(array.ndim == 3 for array in pixels):
        return image
    # MAXCOVERAGE also keeps the colour of a few pixels, such as a ring; MEDIANCUT drops it.
    return image.quantize(COLOURS_STORED, method=Image.Quantize.MAXCOVERAGE)


def show(figure: Figure | Pixels | Image.Image, alt: str) -> None:
    """Display a chart, a grid of pictures or a picture; `ValueError` where `alt` is empty.

    `alt` says what the figure shows, for readers who cannot see it.
    """
    # Few pages read the alt text of a stored picture; JupyterLab 4.6 does not. So it also stands
    # below: in JupyterLab for screen readers only, on other pages as a caption.
    display(rendered(figure, alt))
    display(HTML(f'<p class="jp-sr-only">{html.escape(alt)}</p>'))

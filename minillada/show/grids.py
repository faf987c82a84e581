"""Images side by side, with titles.

Notable choices
- `picture` stores digits at native pixels and lets the browser enlarge them: a few kB a grid.
- Wrong answers have a cross before their title as well as another colour.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..datasets.pool import Pool
from ..tasks.base import Marked, Picture, pixels
from .charts import longest_line
from .page import DPI, ORANGE, RED, SMALL, Pixels, as_numbers, panels

LETTERS = 24  # of a line above an example of a task; longer ones touch the next title


def rows_of(count: int, columns: int) -> int:
    """Rows that hold `count` things: one, where there are none. `ValueError` without a column."""
    if columns < 1:
        raise ValueError(f"a figure has at least 1 column, got {columns}")
    return max(1, math.ceil(count / columns))


def tile(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Images `[N, C, H, W]` side by side on white:
    `[C, rows * (H + gap) - gap, columns * (W + gap) - gap]`."""
    count, channels, height, width = images.shape
    rows = rows_of(count, columns)
    canvas = torch.ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for i, image in enumerate(images):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        canvas[:, y : y + height, x : x + width] = image
    return canvas


def to_pil(image: Tensor) -> Image.Image:
    """`[C, H, W]` in [0, 1] as a PIL image; one channel becomes 16 greys, which are enough for
    digits and take half of the bytes."""
    if image.shape[0] == 1:  # 15 * 17 = 255
        return Image.fromarray((image[0] * 15).round().mul(17).byte().numpy(), "L")
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy(), "RGB")


def picture(images: Tensor, columns: int = 8, width: int = 448) -> Pixels:
    """A grid of images for `show`, stored at native pixels and shown `width` px wide."""
    return Pixels(to_pil(tile(images, columns)), width)


def labelled_rows(rows: Mapping[str, Tensor], size: float = 0.6) -> Figure:
    """A row of images `[N, C, H, W]` for each name, the name at its left; `size` inches an image.

    A row may hold fewer images than the others.
    """
    longest = max(len(images) for images in rows.values())
    shape = (longest * size + 0.08 * longest_line(rows) + 0.2, len(rows) * (size + 0.06) + 0.1)
    figure = Figure(figsize=shape, dpi=DPI)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, hspace=0)
    places = figure.subplots(len(rows), 1, squeeze=False)[:, 0]
    for axes, (name, images) in zip(places, rows.items()):
        white = torch.ones(longest - len(images), *images.shape[1:])
        show_image(axes, tile(torch.cat([images, white]), longest))
        place = {"ha": "right", "va": "center", "transform": axes.transAxes}
        axes.text(-0.01, 0.5, name, fontsize=SMALL, **place)
    return figure


def show_image(axes, image: Tensor, title: str = "", wrong: bool = False) -> None:
    """`[C, H, W]` without axes, under its title; the words of a caption stand in two lines."""
    array = as_numbers(image).permute(1, 2, 0).numpy()  # [H, W, C]
    axes.imshow(array, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    text = ("✗ " if wrong else "") + two_lines(title)
    colour = RED if wrong else "black"
    # A caption is no formula, whatever dollar signs stand in it.
    axes.set_title(text, fontsize=SMALL, color=colour, pad=3, parse_math=False)
    axes.axis("off")


def two_lines(caption: str) -> str:
    """A caption that breaks before its slant, to fit above a small image."""
    return str(caption).replace(" leaning", "\nleaning").replace(" standing", "\nstanding")


def gallery(
    images: Tensor, titles: list[str], columns: int = 8, wrong: Iterable[bool] | None = None
) -> Figure:
    """Images `[N, C, H, W]` with a title above each; titles marked `wrong` are red."""
    if len(titles) < len(images):
        raise ValueError(f"{len(images)} images need as many titles, got {len(titles)}")
    rows, marks = rows_of(len(images), columns), [] if wrong is None else list(wrong)
    figure = Figure(figsize=(1.35 * columns, 1.6 * rows), dpi=DPI)
    figure.set_layout_engine("constrained", h_pad=0.07)  # titles do not touch the edge
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).ravel()):
        axes.axis("off")
        if i < len(images):
            show_image(axes, images[i], titles[i], bool(marks and marks[i]))
    return figure


def task_page(pool: Pool, task: str, marked: Marked, count: int = 24) -> Figure:
    """What was asked and what came of it, for the first `count` examples of a task.

    A row of images an example: those it gave, then, after a gap, those the model drew.
    """
    rows, titles = [], []
    for example, answer in list(zip(marked.examples, marked.answers))[:count]:
        given = [pixels(pool, part) for part in example.user if isinstance(part, Picture)]
        drawn = [part for part in answer if isinstance(part, Tensor)]
        gap = [torch.ones_like(drawn[0][..., :6])] if given and drawn else []
        rows.append(torch.cat([*given, *gap, *drawn], dim=-1))  # [C, H, all widths]
        title = textwrap.fill(str(example.user[-1]), LETTERS)
        said = [part for part in answer if isinstance(part, str)]
        if said and task != "interleave":  # a story's texts are too long for a title
            title += "\n" + textwrap.fill(f"→ {'; '.join(said)}", LETTERS)
        titles.append(title)
    width = max(row.shape[-1] for row in rows)
    images = torch.stack([F.pad(row, (0, width - row.shape[-1]), value=1.0) for row in rows])
    columns = 6 if width <= 140 else 2
    right = next(iter(marked.right.values()))  # a task's first score is the one of its own name
    figure = gallery(images, titles, columns, [not hit for hit in right[: len(rows)]])
    figure.set_size_inches(14, 2.1 * math.ceil(len(rows) / columns))
    figure.suptitle(f"{task}: {sum(right)} of {len(right)} right", fontsize=11)
    return figure


def code_grid(image: Tensor, codes: Tensor) -> Figure:
    """An image `[C, H, W]` cut into patches, and the grid of codes `[h, w]` it became."""
    rows, columns = codes.shape
    patch = image.shape[-1] // columns
    figure, (left, right) = panels(2, 2.8, 2.9)
    show_image(left, image, f"{image.shape[-2]} × {image.shape[-1]} pixels")
    show_image(right, torch.full((1, rows, columns), 0.92), f"{rows} × {columns} codes")
    for axes, size in ((left, patch), (right, 1)):
        for y in range(1, rows):  # the middle of pixel 0 is at 0, its border at -0.5
            axes.axhline(y * size - 0.5, color=ORANGE, linewidth=0.8)
        for x in range(1, columns):
            axes.axvline(x * size - 0.5, color=ORANGE, linewidth=0.8)
    for y in range(rows):
        for x in range(columns):
            code = str(int(codes[y, x]))
            right.text(x, y, code, ha="center", va="center", fontsize=SMALL)
    return figure


def steps_page(rows: list[dict[str, Tensor]], names: list[str]) -> Figure:
    """How picture files are read (`pictures.steps`): a row for each, a column for each step."""
    columns = max(len(row) for row in rows)
    size = (2 * columns, 2.4 * len(rows))
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    for part, row, name in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, names):
        part.suptitle(name, fontsize=SMALL, parse_math=False)  # a name is no formula
        for axes in part.subplots(1, columns, squeeze=False)[0]:
            axes.axis("off")
        for axes, (title, image) in zip(part.axes, row.items()):
            show_image(axes, image, title)
    return figure


def leaning(images: Tensor, angles: Tensor, columns: int = 8) -> Figure:
    """`gallery` of `[N, 1, H, W]` with a line through each centre of mass at `angles` `[N]`, in
    degrees right of vertical."""
    figure = gallery(images, [f"{round(angle)}°" for angle in angles.tolist()], columns)
    height, width = images.shape[-2:]
    for axes, image, angle in zip(figure.axes, images[:, 0], angles.deg2rad()):
        y = float((image.sum(1) * torch.arange(height)).sum() / image.sum())
        x = float((image.sum(0) * torch.arange(width)).sum() / image.sum())
        rise = 0.45 * height
        run = rise * float(angle.tan())
        axes.plot([x - run, x + run], [y + rise, y - rise], color=ORANGE)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return figure


def demo_figure(
    prompts: list[str], drawn: Tensor, frames: Tensor, real: Tensor, captions: list[str]
) -> Figure:
    """Prompts over drawn digits, a filmstrip, and images under the captions the model wrote."""
    figure = Figure(figsize=(1.4 * len(prompts), 5.6), dpi=DPI, layout="constrained")
    film = f"how “{prompts[0]}” appeared: masked codes (grey) filled in step by step"
    rows = {
        "drawn from captions": (drawn, prompts),
        film: (frames, [str(i + 1) for i in range(len(frames))]),
        "real test images and the captions the model wrote": (real, captions),
    }
    parts: Any = figure.subfigures(3, 1)
    for part, (title, (images, titles)) in zip(parts, rows.items()):
        part.suptitle(title, fontsize=11)
        for axes, image, text in zip(part.subplots(1, len(images)), images, titles):
            show_image(axes, image, text)
    return figure

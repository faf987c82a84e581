"""Grids of images."""

from __future__ import annotations

import io
import textwrap

import torch
from IPython.display import Image as Display
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ..datasets.pool import Pool
from ..show.page import DPI
from ..tasks.base import Marked, Picture, pixels


def tile(images: Tensor, columns: int, gap: int = 2) -> Tensor:
    """Images `[N, C, H, W]` side by side on white, `[C, rows·(H+gap)−gap, columns·(W+gap)−gap]`."""
    count, channels, height, width = images.shape
    rows = -(-count // columns)
    canvas = torch.ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for i, image in enumerate(images):
        y, x = i // columns * (height + gap), i % columns * (width + gap)
        canvas[:, y : y + height, x : x + width] = image
    return canvas


def to_pil(image: Tensor) -> Image.Image:
    """`[C, H, W]` in [0, 1] as a PIL image; one channel becomes 16 greys, plenty for digits and half the bytes."""
    if image.shape[0] == 1:
        return Image.fromarray((image[0] * 15).round().mul(17).byte().numpy(), "L")
    return Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy(), "RGB")


def picture(images: Tensor, columns: int = 8, width: int = 448):
    """A grid of images for a notebook, stored at native pixels and shown `width` px wide."""

    buffer = io.BytesIO()
    to_pil(tile(images, columns)).save(buffer, "PNG", optimize=True)
    return Display(buffer.getvalue(), width=width)


def show_image(axes, image: Tensor, title: str = "", colour: str = "black", size: int = 8) -> None:
    axes.imshow(image.permute(1, 2, 0).numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=size, color=colour, pad=3)
    axes.axis("off")


def gallery(images: Tensor, titles: list[str], columns: int = 8, wrong: list[bool] | None = None) -> Figure:
    """Images `[N, C, H, W]` with a title above each; titles marked `wrong` are red."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.35 * columns, 1.55 * rows), dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, axes in enumerate(grid):
        if i < len(images):
            show_image(
                axes,
                images[i],
                titles[i].replace(" leaning", "\nleaning").replace(" standing", "\nstanding"),
                "crimson" if wrong and wrong[i] else "black",
            )
        else:
            axes.axis("off")
    return figure


def task_page(pool: Pool, task: str, marked: Marked, count: int = 24) -> Figure:
    """What was asked and what came of it, for the first `count` examples of a task; wrong ones in red.

    A row of images an example: those it gave, then, after a gap, those the model drew.
    """
    rows, titles = [], []
    for example, answer in list(zip(marked.examples, marked.answers, strict=True))[:count]:
        given = [pixels(pool, part) for part in example.user if isinstance(part, Picture)]
        drawn = [part for part in answer if isinstance(part, Tensor)]
        gap = [torch.ones_like(part[..., :6]) for part in drawn[:1] if given]
        rows.append(torch.cat([*given, *gap, *drawn], dim=-1))
        said = "" if task == "interleave" else "; ".join(part for part in answer if isinstance(part, str))
        titles.append(textwrap.fill(example.user[-1], 34) + ("\n" + textwrap.fill(f"→ {said}", 34) if said else ""))
    width = max(row.shape[-1] for row in rows)
    images = torch.stack([torch.nn.functional.pad(row, (0, width - row.shape[-1]), value=1.0) for row in rows])
    columns = 6 if width <= 140 else 2
    right = next(iter(marked.right.values()))
    figure = gallery(images, titles, columns, [not hit for hit in right[: len(rows)]])
    figure.set_size_inches(11, 1.9 * -(-len(rows) // columns))
    figure.suptitle(f"{task}: {sum(right)} of {len(right)} right", fontsize=10)
    return figure


def code_grid(image: Tensor, codes: Tensor) -> Figure:
    """An image `[C, H, W]` cut into patches, and the grid of codes `[h, w]` it became."""
    figure = Figure(figsize=(5.6, 2.9), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    (rows, columns), patch = codes.shape, image.shape[-1] // codes.shape[-1]
    show_image(left, image, f"{image.shape[-2]} × {image.shape[-1]} pixels", size=9)
    right.imshow([[0.92] * columns] * rows, cmap="gray", vmin=0, vmax=1)
    right.set_title(f"{rows} × {columns} codes", fontsize=9, pad=3)
    right.axis("off")
    for axes, size in ((left, patch), (right, 1)):
        for i in range(1, rows):
            axes.axhline(i * size - 0.5, color="tab:orange", linewidth=0.8)
            axes.axvline(i * size - 0.5, color="tab:orange", linewidth=0.8)
    for y in range(rows):
        for x in range(columns):
            right.text(x, y, str(int(codes[y, x])), ha="center", va="center", fontsize=9)
    return figure


def leaning(images: Tensor, angles: Tensor, columns: int = 8) -> Figure:
    """`gallery` of `[N, 1, H, W]` with a line through each centre of mass at `angles` `[N]`, in degrees right of vertical."""
    figure = gallery(images, [f"{round(angle)}°" for angle in angles.tolist()], columns)
    height, width = images.shape[-2:]
    for axes, image, angle in zip(figure.axes, images[:, 0], angles.deg2rad(), strict=False):
        y = float((image.sum(1) * torch.arange(height)).sum() / image.sum())
        x = float((image.sum(0) * torch.arange(width)).sum() / image.sum())
        run = 0.45 * height * float(angle.tan())
        axes.plot([x - run, x + run], [y + 0.45 * height, y - 0.45 * height], color="tab:orange")
        axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    return figure


def demo_figure(prompts: list[str], drawn: Tensor, frames: Tensor, real: Tensor, captions: list[str]) -> Figure:
    """Prompts over drawn digits, a denoising filmstrip, test images over their generated captions."""
    columns = len(prompts)
    figure = Figure(figsize=(1.35 * columns, 6.2), dpi=100, layout="constrained")
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1.7, 1.25, 1.8])
    top.suptitle("drawn from captions", fontsize=10)
    middle.suptitle(f"how “{prompts[0]}” appeared: masked codes (grey) filled in step by step", fontsize=10)
    bottom.suptitle("real test images and the captions the model wrote", fontsize=10)
    wrap = lambda text: text.replace(" leaning", "\nleaning").replace(" standing", "\nstanding")  # noqa: E731
    for i, axes in enumerate(top.subplots(1, columns)):
        show_image(axes, drawn[i], wrap(prompts[i]), size=7)
    for i, axes in enumerate(middle.subplots(1, len(frames))):
        show_image(axes, frames[i], str(i + 1), size=7)
    for i, axes in enumerate(bottom.subplots(1, columns)):
        show_image(axes, real[i])
        axes.text(0.5, -0.06, wrap(captions[i]), transform=axes.transAxes, ha="center", va="top", fontsize=7)
    return figure

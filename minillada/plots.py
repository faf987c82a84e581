"""Every figure a notebook, the demo or the command line shows. Static pictures first, small in bytes.

Notable choices
- Digits are drawn at native pixels and enlarged by the viewer (`picture`), or with nearest-neighbour interpolation at
  72 dpi: a notebook of many grids stays far below a megabyte.
- Functions return a matplotlib `Figure` (or an image to display), so a slider can call the same function again.
"""

from __future__ import annotations

import io
import math
import textwrap

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from .examples import Picture, Pool
from .sampler import Step
from .suite import Marked, pixels
from .tasks import Traced, Uni
from .vocab import BOI, END_IMAGE, EOS, IMAGE, MASK, Vocabulary

DPI = 72
KIND_COLOURS = {"text": "#dbe9f6", "special": "#f6e3c5", "image": "#d5ecd4", "mask": "#9a9a9a"}


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
    from IPython.display import Image as Display

    buffer = io.BytesIO()
    to_pil(tile(images, columns)).save(buffer, "PNG", optimize=True)
    return Display(buffer.getvalue(), width=width)


def _show(axes, image: Tensor, title: str = "", colour: str = "black", size: int = 8) -> None:
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
            _show(
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


def film_frames(uni: Uni, traced: Traced, row: int = 0) -> Tensor:
    """What is known of drawing `row` after each step, `[steps, C, H, W]`: undecided patches are grey."""
    grid, patch = uni.tokenizer.config.grid, uni.tokenizer.config.patch_size
    steps = traced.generation.steps
    first_block = steps[0].start
    block = steps[0].ids.shape[1]
    length = max(s.start for s in steps) + block - first_block
    canvas = torch.full((length,), uni.vocab.mask_id)
    begin = prompt_end(steps, uni.vocab)
    frames = []
    for step in steps:
        canvas[step.start - first_block : step.start - first_block + block] = step.ids[row].cpu()
        ids = canvas[begin - first_block : begin - first_block + grid * grid]
        known = ids >= uni.vocab.image_token_offset
        codes = torch.where(known, ids - uni.vocab.image_token_offset, 0).view(1, grid, grid)
        seen = known.view(1, 1, grid, grid).repeat_interleave(patch, 2).repeat_interleave(patch, 3)
        frames.append(torch.where(seen, uni.decode(codes.to(uni.device)), torch.tensor(0.5)))
    return torch.cat(frames)


def prompt_end(steps: list[Step], vocab: Vocabulary) -> int:
    """Absolute position of the first generated token of a drawing: the one after `<boi>`."""
    boi = (steps[0].ids[0] == vocab.markup(BOI)[0]).nonzero()
    return steps[0].start + (int(boi[-1]) + 1 if len(boi) else 0)


def filmstrip(uni: Uni, traced: Traced, row: int = 0) -> Figure:
    """The denoising of one drawing, one frame a step."""
    frames = film_frames(uni, traced, row)
    figure = Figure(figsize=(1.1 * len(frames), 1.4), dpi=DPI, layout="constrained")
    for i, axes in enumerate(figure.subplots(1, len(frames), squeeze=False)[0]):
        _show(axes, frames[i], f"step {i + 1}")
    return figure


def token_kind(vocab: Vocabulary, token: int) -> str:
    """`image`, `mask`, `special` or `text`."""
    if token >= vocab.image_token_offset:
        return "image"
    name = vocab.decode([token])
    if name == MASK:
        return "mask"
    return "special" if name in (EOS, IMAGE, END_IMAGE, BOI) or name.startswith("<") and name.endswith(">") and len(name) > 2 else "text"


def token_name(vocab: Vocabulary, token: int) -> str:
    """What figures call a token: its code, or its text without brackets and with a dot for a space, 13 letters of it."""
    name = f"code {token - vocab.image_token_offset}" if token_kind(vocab, token) == "image" else vocab.decode([token])
    name = name.replace("<|reserved_token_", "size ").replace("<role>", "").replace("</role>", "").replace("|>", "").replace("<|", "")
    return name.replace(" ", "·")[:13]


def token_strip(
    vocab: Vocabulary,
    ids: list[int],
    columns: int = 12,
    title: str = "",
    labels: list[str] | None = None,
    marks: list[bool] | None = None,
) -> Figure:
    """A sequence as coloured boxes, in reading order, with position numbers; with `labels` every row is a sequence of that name,
    and `marks` frames boxes."""
    rows = -(-len(ids) // columns)
    figure = Figure(figsize=(0.95 * columns, 0.48 * rows + 0.3), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    for i, token in enumerate(ids):
        x, y = i % columns, i // columns
        axes.add_patch(_box(x, y, KIND_COLOURS[token_kind(vocab, token)], "crimson" if marks and marks[i] else "white"))
        axes.text(x + 0.5, y + 0.45, token_name(vocab, token), ha="center", va="center", fontsize=7)
        axes.text(x + 0.96, y + 0.93, str(x if labels else i), ha="right", va="bottom", fontsize=5, color="gray")
    for y, label in enumerate(labels or []):
        axes.text(-0.1, y + 0.5, label, ha="right", va="center", fontsize=8)
    axes.set(xlim=(0, columns), ylim=(rows, 0), title=title)
    axes.axis("off")
    return figure


def _box(x: float, y: float, colour: str, edge: str):
    from matplotlib.patches import Rectangle

    return Rectangle((x + 0.03, y + 0.06), 0.94, 0.88, facecolor=colour, edgecolor=edge)


def mask_figure(masks: list[Tensor], titles: list[str], ticks: list[str] | None = None) -> Figure:
    """Boolean masks `[L, L]` side by side: dark = may attend; queries are rows, keys are columns."""
    figure = Figure(figsize=(3.4 * len(masks), 3.6), dpi=DPI, layout="constrained")
    for axes, mask, title in zip(figure.subplots(1, len(masks), squeeze=False)[0], masks, titles, strict=True):
        axes.imshow(mask.float().numpy(), cmap="Blues", vmin=0, vmax=1.3, interpolation="nearest")
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="key", ylabel="query")
        if ticks:
            axes.set_xticks(range(len(ticks)), ticks, fontsize=7)
            axes.set_yticks(range(len(ticks)), ticks, fontsize=7)
        axes.set_xticks([i - 0.5 for i in range(mask.shape[1])], minor=True)
        axes.set_yticks([i - 0.5 for i in range(mask.shape[0])], minor=True)
        axes.grid(which="minor", color="white", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
    return figure


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


def code_grid(image: Tensor, codes: Tensor) -> Figure:
    """An image `[C, H, W]` cut into patches, and the grid of codes `[h, w]` it became."""
    figure = Figure(figsize=(5.6, 2.9), dpi=DPI, layout="constrained")
    left, right = figure.subplots(1, 2)
    (rows, columns), patch = codes.shape, image.shape[-1] // codes.shape[-1]
    _show(left, image, f"{image.shape[-2]} × {image.shape[-1]} pixels", size=9)
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
        _show(axes, drawn[i], wrap(prompts[i]), size=7)
    for i, axes in enumerate(middle.subplots(1, len(frames))):
        _show(axes, frames[i], str(i + 1), size=7)
    for i, axes in enumerate(bottom.subplots(1, columns)):
        _show(axes, real[i])
        axes.text(0.5, -0.06, wrap(captions[i]), transform=axes.transAxes, ha="center", va="top", fontsize=7)
    return figure


def rendered(figure: Figure):
    """A figure as a PNG to display."""
    from IPython.display import Image as Display

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Display(buffer.getvalue())


def show(figure: Figure) -> None:
    """Display a figure in a notebook; figures here live outside pyplot, so nothing is shown twice."""
    from IPython.display import display

    display(rendered(figure))


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

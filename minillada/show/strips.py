"""Token sequences, masks and denoising as pictures."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..sampler import Step
from ..uni import Traced, Uni
from ..vocab import SPECIAL_TOKENS, UNCONDITION, Vocabulary
from .charts import heatmap, label
from .grids import rows_of, show_image
from .page import RED, SMALL, panels

KIND_COLOURS = {"text": "#dbe9f6", "special": "#f6e3c5", "image": "#d5ecd4", "mask": "#b5b5b5"}


def film_frames(uni: Uni, traced: Traced, row: int = 0) -> Tensor:
    """What is known of drawing `row` after each step, `[steps, C, H, W]`; the rest is grey.

    `ValueError` if there was no step, or none that was kept (`Traced.generation`).
    """
    grid = uni.tokenizer.grid
    patch = uni.tokenizer.image_shape[1] // grid
    record = traced.generation
    place = record.place(row)
    if not record.steps:
        raise ValueError("there is no step to be shown: no code was hidden")
    # 1. At the beginning all that a step will commit is masked; what was given is known.
    ids = record.ids[place].cpu().clone()  # [h * w]
    for step in record.steps:
        here, inside = overlap(step, record.start, len(ids))
        ids[here][step.committed[place].cpu()[inside]] = uni.vocab.mask_id
    # 2. a frame after each step
    frames = []
    for step in record.steps:
        here, inside = overlap(step, record.start, len(ids))
        ids[here] = step.ids[place].cpu()[inside]
        known = ids >= uni.vocab.image_token_offset
        codes = torch.where(known, ids - uni.vocab.image_token_offset, 0).view(1, grid, grid)
        seen = known.view(1, 1, grid, grid)
        seen = seen.repeat_interleave(patch, 2).repeat_interleave(patch, 3)  # [1, 1, H, W]
        frames.append(torch.where(seen, uni.decode(codes.to(uni.device)), torch.tensor(0.5)))
    return torch.cat(frames)


def overlap(step: Step, start: int, length: int) -> tuple[slice, slice]:
    """The part of an answer that stands in the block of a step: its place in each of the two.

    The first block may begin with the end of the prompt, and the last may be longer than the
    answer, which begins at position `start`.
    """
    first = step.start - start  # negative in the prompt
    begin, end = max(first, 0), min(first + step.ids.shape[1], length)
    return slice(begin, end), slice(begin - first, end - first)


def filmstrip(uni: Uni, traced: Traced, row: int = 0) -> Figure:
    """The denoising of one drawing, one frame a step."""
    frames = film_frames(uni, traced, row)
    figure, axes = panels(len(frames), 1.1, 1.4)
    for i, frame in enumerate(frames):
        show_image(axes[i], frame, f"step {i + 1}")
    return figure


def token_kind(vocab: Vocabulary, token: int) -> str:
    """`image`, `mask`, `special` or `text`."""
    if token >= vocab.image_token_offset:
        return "image"
    if token == vocab.mask_id:
        return "mask"
    return "special" if vocab.decode([token]) in SPECIAL_TOKENS else "text"


def token_name(vocab: Vocabulary, token: int) -> str:
    """What figures call a token: its code, or its text without brackets and with a dot for a
    space. A name of more than 13 letters is cut off and ends with "…"."""
    if token_kind(vocab, token) == "image":
        return f"code {token - vocab.image_token_offset}"
    name = vocab.decode([token]).replace("<|reserved_token_", "size ")  # height or width (`layout`)
    for bracket in ("<role>", "</role>", "|>", "<|"):
        name = name.replace(bracket, "")
    name = name.replace(" ", "·").replace(UNCONDITION, "uncondition")  # else wider than its box
    return name if len(name) <= 13 else name[:12] + "…"


def token_strip(
    vocab: Vocabulary,
    ids: list[int],
    columns: int = 12,
    title: str = "",
    labels: list[str] | None = None,
    marks: list[bool] | None = None,
) -> Figure:
    """A sequence as coloured boxes in reading order, each with its position.

    With `labels`, every row is a sequence of that name; `marks` frames boxes.
    """
    rows = rows_of(len(ids), columns)
    figure, (axes,) = panels(1, 0.95 * columns, 0.52 * rows + 0.3)
    for i, token in enumerate(ids):
        x, y = i % columns, i // columns
        edge = RED if marks and marks[i] else "white"
        colour = KIND_COLOURS[token_kind(vocab, token)]
        box = Rectangle((x + 0.03, y + 0.06), 0.94, 0.88, facecolor=colour, edgecolor=edge)
        axes.add_patch(box)
        name, place = token_name(vocab, token), str(x if labels else i)
        axes.text(x + 0.5, y + 0.38, name, ha="center", va="center", fontsize=SMALL)
        corner = {"ha": "right", "va": "bottom", "fontsize": SMALL, "color": "dimgray"}
        axes.text(x + 0.95, y + 0.93, place, **corner)
    for y, name in enumerate(labels or []):
        axes.text(-0.1, y + 0.5, name, ha="right", va="center", fontsize=SMALL)
    axes.set(xlim=(0, columns), ylim=(rows, 0), title=title)
    axes.axis("off")
    return figure


def mask_figure(masks: list[Tensor], titles: list[str], ticks: list[str] | None = None) -> Figure:
    """Boolean masks `[L, L]` side by side: dark = may attend; queries are rows, keys columns."""
    figure = heatmap(masks, titles, "key", "query")
    for axes in figure.axes:
        axes.set_aspect("equal")
        # White lines between the cells.
        axes.set_xticks([i - 0.5 for i in range(masks[0].shape[1])], minor=True)
        axes.set_yticks([i - 0.5 for i in range(masks[0].shape[0])], minor=True)
        axes.grid(which="minor", color="white", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
    # The height has room for titles: with an equal aspect, the layout would cut them off.
    return label(figure, ticks, ticks, size=(3.6 * len(masks), 4.2))

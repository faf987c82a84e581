"""Token sequences, masks and denoising as pictures."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..sampler import Step
from ..show.grids import show_image
from ..show.page import DPI
from ..uni import Traced, Uni
from ..vocab import BOI, END_IMAGE, EOS, IMAGE, MASK, Vocabulary

KIND_COLOURS = {"text": "#dbe9f6", "special": "#f6e3c5", "image": "#d5ecd4", "mask": "#9a9a9a"}


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
        show_image(axes, frames[i], f"step {i + 1}")
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
        axes.add_patch(box(x, y, KIND_COLOURS[token_kind(vocab, token)], "crimson" if marks and marks[i] else "white"))
        axes.text(x + 0.5, y + 0.45, token_name(vocab, token), ha="center", va="center", fontsize=7)
        axes.text(x + 0.96, y + 0.93, str(x if labels else i), ha="right", va="bottom", fontsize=5, color="gray")
    for y, label in enumerate(labels or []):
        axes.text(-0.1, y + 0.5, label, ha="right", va="center", fontsize=8)
    axes.set(xlim=(0, columns), ylim=(rows, 0), title=title)
    axes.axis("off")
    return figure


def box(x: float, y: float, colour: str, edge: str):

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

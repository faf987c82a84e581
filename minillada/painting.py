"""Painting: codes and the decoder's sketch of them to pixels, in 50 steps, or in 4 jumps.

Notable choices
- The times of the many small steps can be shifted towards the noise, as officially (by 6). Our
  pictures are small and the codes say much, so ours are not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import checkpoint
from .commit import row_generators
from .config import PainterConfig
from .files import Name
from .flow import Says, euler, jumps, shifted
from .painter import Painter
from .settings import as_python
from .vq import check_image_codes, full_precision

BATCH_SIZE = 250  # rows at once, here and in `writer`, so that memory stays small


@torch.no_grad()
@full_precision()
def paint(
    painter: Painter,
    codes: Tensor,
    sketch: Tensor,
    steps: int | None = None,
    seed: int = 0,
    guidance: float = 1.0,
) -> Tensor:
    """Pixels `[B, C, H, W]` in [0, 1] of codes `[B, h, w]`, on the painter's device.

    `sketch` `[B, C, H, W]` in [0, 1] is what the decoder of their tokenizer makes of the codes.
    Without `steps`, as many as the painter's configuration says. `ValueError` for less than 1, and
    for codes that are not of this painter's tokenizer.
    """
    steps = painter.config.painting_steps if steps is None else as_python(steps)
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise ValueError(f"painting needs a whole number of steps, got {steps!r}")
    if steps < 1:
        raise ValueError(f"painting needs at least 1 step, got {steps}")
    grid, device = painter.config.grid, painter.embedding.weight.device
    check_image_codes(codes, grid, grid, painter.config.codebook_size)
    generators = row_generators(seed, len(codes))
    painted = [sketch[:0].to(device)]  # empty: no codes give no pictures, and no error
    for first in range(0, len(codes), BATCH_SIZE):
        rows = slice(first, first + BATCH_SIZE)
        scaled = 2 * sketch[rows].to(device) - 1  # the network's pixels are in [-1, 1]
        says = painter.saying(codes[rows].to(device), scaled, guidance)
        end = follow(painter.config, says, scaled, generators[rows], steps)
        painted.append((end.clamp(-1, 1) + 1) / 2)
    return torch.cat(painted)


def follow(
    config: PainterConfig, says: Says, like: Tensor, generators: list[torch.Generator], steps: int
) -> Tensor:
    """From noise to pictures in [-1, 1], shaped like `like` and on its device; a generator each."""
    times = torch.linspace(0, 1, steps + 1, dtype=like.dtype, device=like.device)

    def fresh() -> Tensor:
        row = like.new_empty(like.shape[1:], device="cpu")  # the same noise on every device
        rows = [row.normal_(generator=generator).clone() for generator in generators]
        return torch.stack(rows).to(like.device)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return (says(x, t.expand(len(x))) - x) / (1 - t)

    if config.turbo:
        return jumps(velocity, fresh(), times, fresh)
    return euler(velocity, fresh(), shifted(times, config.shift))


def load_painter(
    name: Name, info: dict, device: str | torch.device = "cpu"
) -> tuple[Painter, dict]:
    """The painter called `name` for a model whose JSON is `info`, and the painter's own JSON.

    The names `flow` and `turbo` stand for the shipped painters of the model's tokenizer.
    `ValueError` if it has none, and for a painter of other codes; other errors as `load_model`.
    """
    tokenizer = info.get("tokenizer", "an unknown tokenizer")
    stem = tokenizer.removesuffix("-tokenizer")
    short: dict[Name, str] = {"flow": f"{stem}-painter", "turbo": f"{stem}-painter-turbo"}
    full = short.get(name, name)
    if name in short and not checkpoint.shipped(full):
        raise ValueError(
            f"there is no shipped painter for the codes of {tokenizer}; take painter='conv', or "
            "train a painter for it"
        )
    painter, about = checkpoint.load_model(full, Painter, device)
    if about.get("tokenizer_sha256") != info.get("tokenizer_sha256"):
        raise ValueError(
            f"{full} paints the codes of {about.get('tokenizer')}, and this model writes those of "
            f"{tokenizer}; take painter='conv', or train a painter for it"
        )
    return painter, about

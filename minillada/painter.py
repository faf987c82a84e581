"""The painter's network: a noisy picture and codes -> the picture.

It takes the place of the diffusion decoder of LLaDA2.0-Uni (arXiv 2604.20796): a small U-Net on
pixels instead of a transformer of 6B weights on latents.

Notable choices
- The network says the picture, x̂_1, and not the velocity. A velocity also holds the noise,
  pixel by pixel, and a network that says it has to repeat all of it.
- The tokenizer's decoder makes a picture of the codes, the sketch. It is one more input, and the
  network says what has to be added to it: before any training, it paints the sketch. The official
  painter has none; a larger network without it did worse after the same time (docs/log.md).
- Codes do not change while a picture is painted, so they are read once (`read`).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import PainterConfig
from .flow import Says
from .settings import Config
from .vq import ResidualBlock


class Block(nn.Module):
    """Two convolutions whose result is added to the input; it depends on codes and time."""

    def __init__(self, width: int, condition_width: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, width), nn.GroupNorm(8, width)])
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, width, 3, padding=1)
        self.codes = nn.Conv2d(condition_width, width, 1)
        self.time = nn.Linear(condition_width, 2 * width)
        # At first a block adds only a constant, the bias: so deep networks are easy to train.
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """x `[B, width, h, w]`, time `[B, D]`, condition `[B, D, grid, grid]`; D: their width."""
        y = self.first(F.silu(self.norms[0](x)))
        # Each code is added to all pixels that it stands for.
        y = y + F.interpolate(self.codes(condition), x.shape[-2:])
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        y = self.norms[1](y) * (1 + scale) + shift
        return x + self.last(F.silu(y))


class Painter(nn.Module):
    """Says the picture `[B, C, H, W]` of codes `[B, h, w]`, from any place on the way to it."""

    kind: ClassVar[str] = "painter"
    config_class: ClassVar[type[Config]] = PainterConfig

    def __init__(self, config: PainterConfig):
        super().__init__()
        self.config = config
        width, inner, condition = config.width, 2 * config.width, config.condition_width
        # The last row stands for "no codes", which guidance compares with.
        self.embedding = nn.Embedding(config.codebook_size + 1, config.code_dim)
        self.reader = nn.Sequential(
            nn.Conv2d(config.code_dim, condition, 3, padding=1), ResidualBlock(condition)
        )
        self.time = nn.Sequential(
            nn.Linear(16, condition), nn.SiLU(), nn.Linear(condition, condition), nn.SiLU()
        )
        # 2 x 2 pixels, of x and of the sketch, are one place; the inner level has half its side.
        self.enter = nn.Conv2d(8 * config.channels, width, 3, padding=1)
        self.down = nn.ModuleList(Block(width, condition) for _ in range(config.blocks))
        self.shrink = nn.Conv2d(width, inner, 4, stride=2, padding=1)
        self.middle = nn.ModuleList(Block(inner, condition) for _ in range(2 * config.blocks))
        self.grow = nn.Sequential(nn.Conv2d(inner, 4 * width, 1), nn.PixelShuffle(2))
        self.up = nn.ModuleList(Block(width, condition) for _ in range(config.blocks))
        last = nn.Conv2d(width, 4 * config.channels, 3, padding=1)
        self.leave = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), last, nn.PixelShuffle(2))
        for parameter in last.parameters():
            nn.init.zeros_(parameter)

    def read(self, codes: Tensor) -> Tensor:
        """What codes `[B, grid, grid]` say, `[B, D, grid, grid]`; `codebook_size` means no code."""
        return self.reader(rearrange(self.embedding(codes), "b h w d -> b d h w"))

    def picture(self, x: Tensor, t: Tensor, sketch: Tensor, condition: Tensor) -> Tensor:
        """x̂_1 from x at times t `[B]`; pictures are `[B, C, H, W]`, the sketch in [-1, 1]."""
        # Cosine and sine of eight multiples of the time, up to a quarter turn for the slowest:
        # layers tell two times apart more easily by 16 numbers than by one. Angles [B, 8]:
        angles = t[:, None] * (math.pi / 2 * torch.arange(1, 9, dtype=t.dtype, device=t.device))
        time = self.time(torch.cat([angles.cos(), angles.sin()], dim=1))
        outer = self.enter(F.pixel_unshuffle(torch.cat([x, sketch], 1), 2))  # [B, width, H/2, W/2]
        for block in self.down:
            outer = block(outer, time, condition)
        inner = self.shrink(outer)  # [B, 2 · width, H/4, W/4]
        for block in self.middle:
            inner = block(inner, time, condition)
        outer = outer + self.grow(inner)
        for block in self.up:
            outer = block(outer, time, condition)
        return sketch + self.leave(outer).float()

    def forward(self, x: Tensor, t: Tensor, codes: Tensor, sketch: Tensor) -> Tensor:
        """`picture` of codes `[B, grid, grid]` and the decoder's picture of them in [-1, 1]."""
        return self.picture(x, t, sketch, self.read(codes))

    def drop(self, codes: Tensor, sketch: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and sketches, those of the chosen rows (bool `[B]`) left out."""
        rows = rows.to(codes.device)
        without = codes.masked_fill(rows[:, None, None], self.config.codebook_size)
        return without, sketch.masked_fill(rows[:, None, None, None], 0.0)  # 0: grey

    def saying(self, codes: Tensor, sketch: Tensor, guidance: float = 1.0) -> Says:
        """What this painter says at any x and times t `[B]`, for codes that are read only once.

        `guidance` scales the difference to what it says without codes; 1 is none.
        """
        inputs = sketch, self.read(codes)
        dropped, grey = self.drop(codes, sketch, codes.new_ones(len(codes), dtype=torch.bool))
        no_inputs = grey, self.read(dropped)

        def says(x: Tensor, t: Tensor) -> Tensor:
            end = self.picture(x, t, *inputs)
            if guidance != 1:
                without = self.picture(x, t, *no_inputs)
                end = without + guidance * (end - without)
            return end.clamp(-1, 1)  # a pixel is never outside

        return says

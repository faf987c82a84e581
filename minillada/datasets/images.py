"""Images with labels, as every data set gives them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def check_floats(images: Tensor, labels: Tensor | None = None) -> None:
    """`ValueError` unless images are floats `[B, C, H, W]`, of any values, and labels as many."""
    if images.ndim != 4 or not images.is_floating_point():
        found = f"{images.dtype} {list(images.shape)}; write image[None] for one, bytes / 255"
        raise ValueError(f"images must be floats [B, C, H, W] in [0, 1], got {found}")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(images)} images need as many labels, got {len(labels)}")


class Images(NamedTuple):
    """`pixels` uint8 `[N, C, H, W]`, `labels` int64 `[N]`."""

    pixels: Tensor
    labels: Tensor

    def floats(self, index: Tensor | slice | list[int] = slice(None)) -> Tensor:
        """Pixels as float32 in [0, 1], `[n, C, H, W]`."""
        # They are kept as bytes until then: the 60,000 digits of MNIST in float32 take 246 MB.
        return self.pixels[index].float() / 255

    def to(self, device: torch.device | str) -> Images:
        """The same images on another device."""
        return Images(self.pixels.to(device), self.labels.to(device))

"""Image tokenizer and painters of a checkpoint: read when first needed, then kept.

Notable choices
- A painter takes 12 GB, and there are two. A user who asks questions about photos needs neither.
- A call reads its painter when it begins to decode: what is missing is known before an hour of
  decoding, and what can be refused without the painter has been refused.
- `offload`: on a small GPU a part waits in the main memory and comes to the GPU for its turn.
- `Canvas` makes them one tokenizer for `Uni` (the protocol `vq.Tokenizer`), for one call: SigLIP-VQ
  reads images, a painter makes them, and `grid` is the size of the image to come.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor

from ..commit import row_generators
from ..extras.halves import quick_products
from ..layout import Grid, sides
from .painter import Painter, load_painter
from .siglip import SigLIPVQ, load_tokenizer
from .text import check_codebook

PainterName = Literal["turbo", "normal"]
PAINTERS: tuple[PainterName, ...] = get_args(PainterName)
LEAST_STEPS = {"turbo": 1, "normal": 2}

P = TypeVar("P", SigLIPVQ, Painter)


def check_painter(name: PainterName, steps: int | None = None) -> None:
    """`ValueError` for a name that is none, and for too few steps; None: as many as usual."""
    if name not in PAINTERS:
        raise ValueError(f"there is no painter {name!r}; choose {' or '.join(PAINTERS)}")
    least = LEAST_STEPS[name]
    if steps is not None and steps < least:
        raise ValueError(f"steps of the {name} painter must be at least {least}, got {steps}")


class Parts:
    """The parts of a checkpoint's folder beside its backbone."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype, offload: bool):
        self.folder, self.device, self.dtype, self.offload = folder, device, dtype, offload
        self.kept: dict[str, Any] = {}  # a SigLIPVQ, and each `Painter` by its name

    @property
    def home(self) -> torch.device:
        """Where a part waits."""
        return torch.device("cpu") if self.offload else self.device

    def tokenizer(self) -> SigLIPVQ:
        if "tokenizer" not in self.kept:
            loaded = load_tokenizer(self.folder, self.home, self.dtype)
            size = loaded.model.vqmodel.quantize.embedding.num_embeddings
            check_codebook("image tokenizer", size, self.folder)
            self.kept["tokenizer"] = loaded
        return self.kept["tokenizer"]

    def painter(self, name: PainterName) -> Painter:
        """`ValueError` for a name that is none, for files of another model, or if `diffusers` is
        not installed.
        """
        check_painter(name)
        if name not in self.kept:
            turbo = name == "turbo"
            loaded = load_painter(self.folder, turbo, self.home, self.dtype)
            size = loaded.sigvq.prior_token_embedding.num_embeddings
            check_codebook("painter's embedding", size, self.folder)
            self.kept[name] = loaded
        return self.kept[name]

    @contextmanager
    def at_work(self, part: P) -> Iterator[P]:
        """The part on the device that computes, for as long as it is needed."""
        part.to(self.device)
        try:
            with quick_products(self.device):
                yield part
        finally:
            part.to(self.home)


class Canvas:
    """How one call reads and paints. `grid` is that of the next image and may change.

    `asked` is the grid that the user has asked for. Without `painter` only texts can be written.
    """

    def __init__(
        self,
        parts: Parts,
        grid: Grid = 32,
        painter: PainterName | None = None,
        steps: int = 0,
        seed: int = 0,
    ):
        self.parts, self.asked, self.painter, self.steps = parts, grid, painter, steps
        self.grid = grid
        [self.generator] = row_generators(seed, 1)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Of an image with this grid, as SigLIP-VQ reads it; a painted one is twice as large."""
        height, width = sides(self.grid)
        size = self.parts.tokenizer().patch_size
        return 3, height * size, width * size

    @property
    def embedding(self) -> Tensor:
        return self.parts.tokenizer().embedding

    def check_images(self, images: Tensor) -> None:
        self.parts.tokenizer().check_images(images)

    def encode(self, images: Tensor) -> Tensor:
        with self.parts.at_work(self.parts.tokenizer()) as tokenizer:
            return tokenizer.encode(images)

    def prepare(self) -> None:
        """Read what `decode` needs."""
        if self.painter:
            self.parts.painter(self.painter)

    def decode(self, codes: Tensor) -> Tensor:
        assert self.painter
        with self.parts.at_work(self.parts.painter(self.painter)) as painter:
            return painter.paint(codes, self.steps, self.generator)

"""The judge: a small convolutional classifier that marks drawn images.

Its features also measure variety. It is trained on real images only. A tokenizer or painter that
learns from a `Judge` has one with other weights: no model can learn to please the one that marks.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint import load_model
from ..config import JudgeConfig
from ..datasets.images import check_floats
from ..settings import Config
from ..vq import full_precision
from . import whitened

SHIFT = 2  # pixels by which photographs are moved at most while the judge learns


class Judge(nn.Module):
    """Pixels `[B, C, H, W]` in [0, 1] -> class logits `[B, classes]`."""

    kind: ClassVar[str] = "judge"
    config_class: ClassVar[type[Config]] = JudgeConfig

    def __init__(self, config: JudgeConfig):
        super().__init__()
        self.config = config
        make_body = whitened.make_body if config.whitened else plain_body
        self.body = make_body(config)
        self.head = nn.Linear(config.features, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))

    @torch.no_grad()
    @full_precision()
    def features(self, images: Tensor, batch_size: int = 100) -> Tensor:
        """Activations before the last layer `[B, features]`, on the device of the images."""
        check_floats(images)
        # Small batches are faster: 500 images fill 65 MB in one layer, more than a cache holds.
        parts = [self.body(part.to(self.head.weight)) for part in images.split(batch_size)]
        return torch.cat(parts).to(images.device)

    def stages(self, images: Tensor) -> list[Tensor]:
        """The outputs `[B, c, h, w]` of three stages, from fine to coarse, and the features."""
        # A stage has seven layers. Before the first stage a whitened body has two more.
        ends = (8, 15, 22) if self.config.whitened else (6, 13, 20)
        outputs, x = [], images
        for place, layer in enumerate(self.body):
            x = layer(x)
            if place in ends:
                outputs.append(x)
        return [*outputs, x]

    def classify(self, images: Tensor) -> Tensor:
        """Most likely class `[B]`, on the images' device; with `flips` mirror images count, too."""
        here = images.to(self.head.weight.device)
        logits = self.head(self.features(here))  # [B, classes]
        if self.config.flips:
            logits = logits + self.head(self.features(here.flip(-1)))
        return logits.argmax(1).to(images.device)

    def prepare(self, images: Tensor) -> None:
        """Set the layers that are computed from images `[N, C, H, W]` and not trained."""
        for layer in self.body:
            if isinstance(layer, whitened.Whitening):
                layer.fit(images)

    def loss(
        self, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict]:
        """Cross-entropy on copies that are changed at random, but show the same."""
        change = flip_and_shift if self.config.flips else augment
        logits = self(change(images, generator))
        right = (logits.argmax(1) == labels).float().mean()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        return loss, {"accuracy": float(right)}


def plain_body(config: JudgeConfig) -> nn.Sequential:
    """Images `[B, C, H, W]` -> features `[B, F]`, for digits."""
    layers: list[nn.Module] = []
    channels = config.channels
    # Three stages of two convolutions; each stage halves the image and doubles the channels.
    for width in (config.width, 2 * config.width, 4 * config.width):
        for source in (channels, width):
            layers.append(nn.Conv2d(source, width, 3, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        channels = width
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten()]  # [B, 4 * channels]
    layers += [nn.Linear(4 * channels, config.features), nn.ReLU()]
    return nn.Sequential(*layers)


def flip_and_shift(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images mirrored, and the whole batch moved by up to `SHIFT` px."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    images = torch.where(mirrored.to(images.device), images.flip(-1), images)
    return moved(images, generator, SHIFT).contiguous(memory_format=torch.channels_last)


def moved(pictures: Tensor, generator: torch.Generator, most: int = 3) -> Tensor:
    """`pictures` `[B, C, H, W]`, moved alike by up to `most` px; what enters mirrors the border.

    A painter's pictures are moved, too, before a classifier marks them in training. Otherwise the
    painter could learn a pattern that pleases the classifier at one position only.
    """
    down, right = torch.randint(0, 2 * most + 1, (2,), generator=generator).tolist()
    height, width = pictures.shape[-2:]
    padded = F.pad(pictures, (most,) * 4, mode="reflect")
    return padded[..., down : down + height, right : right + width]


def augment(
    images: Tensor,
    generator: torch.Generator,
    degrees: float = 12.0,
    zoom: float = 0.1,
    shift: float = 0.1,
) -> Tensor:
    """A random rotation, scale and shift of every image; `shift` is in halves of the image size."""
    u = (torch.rand(4, len(images), generator=generator) * 2 - 1).to(images)  # in [-1, 1]
    angle, scale = u[0] * torch.pi * degrees / 180, 1 + zoom * u[1]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = [torch.stack([cos, -sin, shift * u[2]], 1), torch.stack([sin, cos, shift * u[3]], 1)]
    affine = torch.stack(rows, 1)  # [B, 2, 3]
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def load_judge(device: str | torch.device = "cpu", name: str = "mnist-judge") -> Judge:
    """The shipped judge of a data set."""
    return load_model(name, Judge, device)[0]

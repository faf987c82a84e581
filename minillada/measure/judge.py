"""The judge: a small convolutional classifier that marks drawn digits, and whose features measure variety.

It is trained on real images only and never used in any other model's training, so it cannot be flattered.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoint import load_model
from ..config import JudgeConfig
from ..settings import Config


class Judge(nn.Module):
    """Pixels `[B, C, H, W]` in [0, 1] -> class logits `[B, classes]`."""

    kind: ClassVar[str] = "judge"
    config_class: ClassVar[type[Config]] = JudgeConfig

    def __init__(self, config: JudgeConfig):
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        channels = config.channels
        for width in (config.width, 2 * config.width, 4 * config.width):
            for source in (channels, width):
                layers += [nn.Conv2d(source, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            channels = width
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, config.features), nn.ReLU())
        self.head = nn.Linear(config.features, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))

    @torch.no_grad()
    def features(self, images: Tensor, batch_size: int = 500) -> Tensor:
        """Penultimate activations `[B, features]`, in batches so that 10,000 images fit anywhere."""
        return torch.cat([self.body(part) for part in images.split(batch_size)])

    def classify(self, images: Tensor) -> Tensor:
        """Most likely class `[B]`."""
        return self.head(self.features(images)).argmax(1)

    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        """Cross-entropy on randomly rotated, scaled and shifted copies."""
        logits = self(augment(images, generator))
        return F.cross_entropy(logits, labels), {"accuracy": float((logits.argmax(1) == labels).float().mean())}


def augment(images: Tensor, generator: torch.Generator, degrees: float = 12.0, zoom: float = 0.1, shift: float = 0.1) -> Tensor:
    """A random rotation, scale and shift of every image; `shift` is a share of half the image size."""
    u = (torch.rand(4, len(images), generator=generator) * 2 - 1).to(images)
    angle, scale = u[0] * torch.pi * degrees / 180, 1 + zoom * u[1]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    affine = torch.stack([torch.stack([cos, -sin, shift * u[2]], 1), torch.stack([sin, cos, shift * u[3]], 1)], 1)
    return F.grid_sample(images, F.affine_grid(affine, list(images.shape), align_corners=False), align_corners=False)


def load_judge(device: str | torch.device = "cpu") -> Judge:
    """The shipped judge."""
    return load_model("mnist-judge", Judge, device)[0]

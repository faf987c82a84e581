"""The judge: a small convolutional classifier that marks drawn digits.

Its features also measure variety. It is trained on real images only and is never used in the
training of another model, so no model can learn to please it.
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
        # Three stages of two convolutions; each stage halves the image and doubles the channels.
        for width in (config.width, 2 * config.width, 4 * config.width):
            for source in (channels, width):
                layers.append(nn.Conv2d(source, width, 3, padding=1, bias=False))
                layers += [nn.BatchNorm2d(width), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            channels = width
        layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten()]  # [B, 4 * channels]
        layers += [nn.Linear(4 * channels, config.features), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(config.features, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))

    @torch.no_grad()
    def features(self, images: Tensor, batch_size: int = 500) -> Tensor:
        """Activations before the last layer `[B, features]`, in batches so that memory suffices."""
        return torch.cat([self.body(part) for part in images.split(batch_size)])

    def classify(self, images: Tensor) -> Tensor:
        """Most likely class `[B]`."""
        return self.head(self.features(images)).argmax(1)

    def loss(
        self, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, dict]:
        """Cross-entropy on randomly rotated, scaled and shifted copies."""
        logits = self(augment(images, generator))
        right = (logits.argmax(1) == labels).float().mean()
        return F.cross_entropy(logits, labels), {"accuracy": float(right)}


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


def load_judge(device: str | torch.device = "cpu") -> Judge:
    """The shipped judge."""
    return load_model("mnist-judge", Judge, device)[0]

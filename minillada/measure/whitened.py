"""A classifier of small photographs that learns in minutes: its first layer is computed.

After airbench (Keller Jordan 2024, arXiv 2404.00498): the first convolution turns patches of 2 x 2
px into numbers that are not correlated. Of it only the bias is trained. What follows learns faster.

Notable choices
- A convolution keeps its weight as a matrix, one row for each output channel. So Muon, which takes
  matrices alone, can train it.
- Batch norms have a bias and no scale: the next layer's weight can do what a scale would.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import JudgeConfig

PATCH = 2  # pixels along the side of a patch that is whitened


class MatrixConv(nn.Module):
    """A 3 x 3 convolution without bias whose weight is a matrix `[out, in * 9]`."""

    def __init__(self, source: int, width: int):
        super().__init__()
        self.shape = (width, source, 3, 3)
        kernel = torch.empty(self.shape)
        nn.init.kaiming_uniform_(kernel, a=5**0.5)  # as `nn.Conv2d` does
        # The first channels begin as copies of the input, so that nothing is lost at the start.
        copied = min(width, source)
        nn.init.dirac_(kernel[:copied])
        self.weight = nn.Parameter(kernel.flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.view(self.shape).contiguous(memory_format=torch.channels_last)
        return F.conv2d(x, kernel, padding=1)


class ShiftedNorm(nn.BatchNorm2d):
    """Batch norm with a bias and without a scale; its averages forget within ten batches."""

    def __init__(self, width: int):
        super().__init__(width, momentum=0.4, eps=1e-12)
        del self.weight
        # PyTorch's kernels for a GPU need a scale where there is a bias. It is no parameter.
        self.register_buffer("weight", torch.ones(width), persistent=False)


class Whitening(nn.Module):
    """The first layer `[B, C, H, W]` -> `[B, 8 C, H - 1, W - 1]`: numbers of variance about 1."""

    kernel: Tensor  # [8 C, C, 2, 2]: each direction and its opposite; GELU drops negative numbers

    def __init__(self, channels: int):
        super().__init__()
        size = channels * PATCH**2
        self.register_buffer("kernel", torch.zeros(2 * size, channels, PATCH, PATCH))
        self.bias = nn.Parameter(torch.zeros(2 * size))

    @torch.no_grad()
    def fit(self, images: Tensor, eps: float = 5e-4) -> None:
        """Set the kernel from the patches of images `[N, C, H, W]`."""
        channels = images.shape[1]
        patches = F.unfold(images, PATCH)  # [N, C * 4, places]
        flat = patches.transpose(1, 2).flatten(0, 1)  # [N * places, C * 4]
        flat = flat - flat.mean(0)
        covariance = (flat.T @ flat / len(flat)).cpu()  # small, and not every GPU has `eigh`
        values, vectors = torch.linalg.eigh(covariance)
        # Directions that hardly vary are noise; `eps` keeps them from being blown up.
        rows = vectors.T / (values + eps).sqrt()[:, None]  # [C * 4, C * 4]
        kernel = rows.view(-1, channels, PATCH, PATCH)
        self.kernel.copy_(torch.cat([kernel, -kernel]))

    def forward(self, images: Tensor) -> Tensor:
        return F.conv2d(images, self.kernel.to(images.dtype), self.bias.to(images.dtype))


def make_body(config: JudgeConfig) -> nn.Sequential:
    """Images `[B, C, H, W]` -> features `[B, 4 * width]`, which must be `config.features`."""
    channels, width = config.channels, config.width
    if config.features != 4 * width:
        raise ValueError(f"a whitened body has {4 * width} features, not {config.features}")
    layers: list[nn.Module] = [Whitening(channels), nn.GELU()]  # [B, 8 C, H - 1, W - 1]
    source = 2 * channels * PATCH**2
    # Three stages of two convolutions; each stage halves the image and doubles the channels.
    for stage in (width, 2 * width, 4 * width):
        layers += [MatrixConv(source, stage), nn.MaxPool2d(2), ShiftedNorm(stage), nn.GELU()]
        layers += [MatrixConv(stage, stage), ShiftedNorm(stage), nn.GELU()]
        source = stage
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten())

"""Image tokenizer: pixels -> a small grid of discrete semantic codes -> pixels.

The counterpart of LLaDA2.0-Uni's SigLIP-VQ (arXiv 2604.20796), scaled from a 40-layer ViT to a small convolutional network.

Notable choices
- Cosine lookup as in the official quantiser: features and codebook vectors are l2-normalised, the nearest code is the
  one with the largest dot product.
- The codebook is not trained by gradient but is a moving average of the features assigned to it (van den Oord et al.
  2017, appendix A), and codes that nobody uses restart at a feature of the current batch, otherwise most would die.
- The codes are *semantic*: a sigmoid contrastive loss (SigLIP, Zhai et al. 2023) asks the quantised tokens of an image
  to match its caption and no other. Without it the codes serve pixels alone, and the backbone that reads them learns
  several times more slowly (notebook 02).
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import TokenizerConfig
from .settings import Config


class Quantised(NamedTuple):
    """`vectors` `[B, C, h, w]` carry the straight-through gradient; `codes` `[B, h, w]`; `features` before lookup."""

    vectors: Tensor
    codes: Tensor
    features: Tensor


class Codebook(nn.Module):
    """K unit vectors; lookup by cosine, learning by moving average."""

    decay = 0.99
    revival_threshold = 0.02  # of the average use per step: below it a code counts as dead

    def __init__(self, codebook_size: int, code_dim: int):
        super().__init__()
        self.register_buffer("embedding", F.normalize(torch.randn(codebook_size, code_dim), dim=-1))
        self.register_buffer("sums", self.embedding.clone())
        self.register_buffer("counts", torch.ones(codebook_size))

    def forward(self, features: Tensor) -> Quantised:
        """Nearest code of every feature vector; features `[B, C, h, w]` need not be normalised."""
        unit = F.normalize(features, dim=1)
        codes = torch.einsum("bchw,kc->bhwk", unit, self.embedding).argmax(-1)
        vectors = rearrange(self.embedding[codes], "b h w c -> b c h w")
        # Straight through: the value of the code, the gradient of the feature.
        return Quantised(unit + (vectors - unit).detach(), codes, unit)

    @torch.no_grad()
    def update(self, features: Tensor, codes: Tensor, generator: torch.Generator) -> int:
        """Move each code towards the mean of its features, revive dead codes; returns how many were revived."""
        flat, index = rearrange(features, "b c h w -> (b h w) c").float(), codes.flatten()
        counts = torch.zeros_like(self.counts).index_add_(0, index, torch.ones_like(index, dtype=torch.float))
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, index, flat), 1 - self.decay)
        average_use = len(index) / len(self.counts)
        dead = (self.counts < self.revival_threshold * average_use).nonzero().flatten()
        if len(dead):
            chosen = torch.randint(len(flat), (len(dead),), generator=generator).to(flat.device)
            self.sums[dead] = flat[chosen] * average_use
            self.counts[dead] = average_use
        self.embedding.copy_(F.normalize(self.sums, dim=-1))
        return len(dead)


class ResidualBlock(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class CaptionTower(nn.Module):
    """Both sides of the alignment loss: the tokens of an image and the pieces of a caption, as unit vectors `[B, E]`."""

    def __init__(self, config: TokenizerConfig, width: int = 64):
        super().__init__()
        self.image = nn.Sequential(nn.Linear(config.tokens * config.code_dim, 128), nn.SiLU(), nn.Linear(128, width))
        self.pieces = nn.EmbeddingBag(config.caption_vocab_size, 128, mode="mean")
        self.text = nn.Sequential(nn.SiLU(), nn.Linear(128, width))
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())  # SigLIP's initial temperature and bias
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, vectors: Tensor, caption_ids: Tensor, caption_index: Tensor) -> Tensor:
        """SigLIP's loss between tokens `[B, C, h, w]` and the N distinct captions `[N, T]`, `caption_index` `[B]` being the right ones.

        The original contrasts a batch with itself; captions repeat here, so the batch is contrasted with all of them.
        """
        image = F.normalize(self.image(vectors.flatten(1)), dim=-1)
        text = F.normalize(self.text(self.pieces(caption_ids)), dim=-1)
        logits = image @ text.T * self.log_scale.exp() + self.bias
        sign = 2 * F.one_hot(caption_index, len(text)) - 1  # +1 for the right caption, -1 for every other
        return -F.logsigmoid(sign * logits).sum(1).mean()


class ImageTokenizer(nn.Module):
    """`encode`: pixels `[B, C, H, W]` in [0, 1] -> codes `[B, h, w]`; `decode` is its approximate inverse."""

    kind: ClassVar[str] = "tokenizer"
    config_class: ClassVar[type[Config]] = TokenizerConfig

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        halvings = config.patch_size.bit_length() - 1
        if 2**halvings != config.patch_size:
            raise ValueError(f"patch_size must be a power of two, not {config.patch_size}")
        widths = [config.width * 2**i for i in range(halvings)]
        down: list[nn.Module] = []
        for source, target in zip([config.channels] + widths[:-1], widths, strict=True):
            down += [nn.Conv2d(source, target, 4, stride=2, padding=1), ResidualBlock(target)]
        self.encoder = nn.Sequential(*down, ResidualBlock(widths[-1]), nn.Conv2d(widths[-1], config.code_dim, 1))
        self.codebook = Codebook(config.codebook_size, config.code_dim)
        up: list[nn.Module] = [nn.Conv2d(config.code_dim, widths[-1], 3, padding=1), ResidualBlock(widths[-1])]
        for source, target in zip(widths[::-1], widths[-2::-1] + [config.width], strict=True):
            up += [ResidualBlock(source), nn.Conv2d(source, 4 * target, 1), nn.PixelShuffle(2)]
        self.decoder = nn.Sequential(*up, nn.SiLU(), nn.Conv2d(config.width, config.channels, 3, padding=1), nn.Sigmoid())
        if config.alignment_weight > 0:
            self.tower = CaptionTower(config)

    def check_images(self, images: Tensor) -> None:
        """`ValueError` unless `images` is `[B, C, H, W]` of this tokenizer's size with finite values in [0, 1]."""
        c, s = self.config.channels, self.config.image_size
        if images.ndim != 4 or images.shape[1:] != (c, s, s):
            raise ValueError(f"images must have shape [B, {c}, {s}, {s}], got {list(images.shape)}; pad or resize them first")
        if not images.is_floating_point() or not torch.isfinite(images).all() or images.min() < 0 or images.max() > 1:
            raise ValueError("images must be floating point with finite values in [0, 1]; divide bytes by 255 and remove NaN first")

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Codes `[B, h, w]`, int64 in [0, K)."""
        if len(images):
            self.check_images(images)
        return self.codebook(self.encoder(images)).codes

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Pixels `[B, C, H, W]` in [0, 1] from codes `[B, h, w]`."""
        grid, size = self.config.grid, self.config.codebook_size
        if codes.ndim != 3 or codes.shape[1:] != (grid, grid):
            raise ValueError(f"codes must form a [B, {grid}, {grid}] grid, got {list(codes.shape)}")
        if codes.numel() and not (codes.min() >= 0 and codes.max() < size):
            raise ValueError(f"codes must lie in [0, {size}), got {int(codes.min())} to {int(codes.max())}")
        return self.decoder(rearrange(self.codebook.embedding[codes], "b h w c -> b c h w"))

    def loss(self, images: Tensor, caption_ids: Tensor, caption_index: Tensor, generator: torch.Generator) -> tuple[Tensor, dict]:
        """Training loss of a batch, and its parts as floats; also updates the codebook (see `CaptionTower` for the shapes).

        Reconstruction: squared error + edges. Commitment: features stay near their codes. Alignment: caption and tokens agree.
        """
        quantised = self.codebook(self.encoder(images))
        output = self.decoder(quantised.vectors)
        squared = F.mse_loss(output, images)
        edges = sum(
            F.l1_loss(output.diff(dim=d), images.diff(dim=d)) for d in (2, 3)
        )  # squared error alone blurs, and blur reads as thickness
        commit = F.mse_loss(quantised.features, rearrange(self.codebook.embedding[quantised.codes], "b h w c -> b c h w"))
        total = squared + self.config.edge_weight * edges + commit
        parts = {"psnr_db": float(-10 * squared.detach().log10()), "commit": float(commit.detach())}
        if self.config.alignment_weight > 0:
            alignment = self.tower(quantised.vectors, caption_ids, caption_index)
            total = total + self.config.alignment_weight * alignment
            parts["alignment"] = float(alignment.detach())
        if self.training:
            parts["revived"] = self.codebook.update(quantised.features.detach(), quantised.codes, generator)
        return total, parts


def codebook_usage(codes: Tensor, codebook_size: int) -> tuple[float, float]:
    """Share of codes that occur, and perplexity exp(H) of their distribution (K when all are used equally)."""
    share = torch.bincount(codes.flatten(), minlength=codebook_size).float() / codes.numel()
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return float((share > 0).float().mean()), float(entropy.exp())

"""Image tokenizer: pixels -> a small grid of discrete semantic codes -> pixels.

The counterpart of LLaDA2.0-Uni's SigLIP-VQ (arXiv 2604.20796): a small convolutional network in
place of a 40-layer ViT.

Notable choices
- Cosine lookup as in the official quantiser: features and codebook vectors have length 1, and the
  nearest code is the one with the largest dot product.
- The codebook has no gradient. It is a moving average of the features assigned to it (van den Oord
  et al. 2017, appendix A). A code that nobody uses restarts at a feature of the current batch:
  without restarts most codes would never be used.
- The codes are *semantic*: a sigmoid contrastive loss (SigLIP, Zhai et al. 2023) asks the quantised
  tokens of an image to match its caption and no other. Codes trained for pixels alone make the
  backbone that reads them learn several times more slowly (notebook 02).
- Encoder and lookup run in float32 even under autocast. Rounding features to bfloat16 changes 7 to
  11 % of the codes.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import TokenizerConfig
from .settings import Config


class Tokenizer(Protocol):
    """What every image tokenizer has, whatever is behind it: square images, a square grid of codes."""

    @property
    def grid(self) -> int:
        """Codes along one side of an image."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image in pixels."""

    @property
    def embedding(self) -> Tensor:
        """The vector of every code, `[K, C]`."""

    def check_images(self, images: Tensor) -> None:
        """`ValueError` for images that `encode` cannot read."""

    def encode(self, images: Tensor) -> Tensor:
        """Codes `[B, h, w]`, int64 in [0, K), of images `[B, C, H, W]` in [0, 1]."""

    def decode(self, codes: Tensor) -> Tensor:
        """Images `[B, C, H, W]` in [0, 1] of codes `[B, h, w]`."""


class Quantised(NamedTuple):
    """What a lookup gives.

    `vectors` `[B, C, h, w]` are those of the codes, with the gradient of the features; `codes`
    `[B, h, w]`; `features` `[B, C, h, w]` are those before the lookup, of length 1.
    """

    vectors: Tensor
    codes: Tensor
    features: Tensor


class Codebook(nn.Module):
    """K vectors of length 1; lookup by cosine, learning by moving average."""

    decay = 0.99
    revival_threshold = 0.02  # a code used less than this share of the average use is dead

    def __init__(self, codebook_size: int, code_dim: int):
        super().__init__()
        self.register_buffer("embedding", F.normalize(torch.randn(codebook_size, code_dim), dim=-1))
        # Moving averages of the sum of a code's features and of their number.
        self.register_buffer("sums", self.embedding.clone())
        self.register_buffer("counts", torch.ones(codebook_size))

    def forward(self, features: Tensor) -> Quantised:
        """Nearest code of every feature vector; features `[B, C, h, w]` may have any length."""
        with torch.autocast(features.device.type, enabled=False):
            unit = F.normalize(features.to(self.embedding.dtype), dim=1)
            codes = torch.einsum("bchw,kc->bhwk", unit, self.embedding).argmax(-1)
            vectors = rearrange(self.embedding[codes], "b h w c -> b c h w")
            # Straight through: the value of the code, the gradient of the feature.
            return Quantised(unit + (vectors - unit).detach(), codes, unit)

    @torch.no_grad()
    def update(self, features: Tensor, codes: Tensor, generator: torch.Generator) -> int:
        """Move each code towards the mean of its features; returns how many dead ones restart."""
        flat = rearrange(features, "b c h w -> (b h w) c").float()  # [N, C]
        index = codes.flatten()  # [N]

        # 1. the moving averages take in this batch
        ones = torch.ones_like(index, dtype=torch.float)
        counts = torch.zeros_like(self.counts).index_add_(0, index, ones)
        sums = torch.zeros_like(self.sums).index_add_(0, index, flat)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)

        # 2. dead codes restart at random features, as if they had been used like the average code
        average_use = len(index) / len(self.counts)
        dead = (self.counts < self.revival_threshold * average_use).nonzero().flatten()
        if len(dead):
            chosen = torch.randint(len(flat), (len(dead),), generator=generator).to(flat.device)
            self.sums[dead] = flat[chosen] * average_use
            self.counts[dead] = average_use

        # 3. the direction of a sum is that of the mean, so the counts are not needed here
        self.embedding.copy_(F.normalize(self.sums, dim=-1))
        return len(dead)


class ResidualBlock(nn.Module):
    """Two convolutions whose result is added to the input."""

    def __init__(self, channels: int):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers.append(nn.GroupNorm(8, channels))
            layers.append(nn.SiLU())
            layers.append(nn.Conv2d(channels, channels, 3, padding=1))
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.net(x)


class CaptionTower(nn.Module):
    """Both sides of the alignment loss, as vectors of length 1: an image's tokens, a caption's pieces.

    SigLIP contrasts the images of a batch with their own captions. Captions repeat here, so a batch
    is contrasted with all captions there are.
    """

    def __init__(self, config: TokenizerConfig, width: int = 64):
        super().__init__()
        self.image = nn.Sequential(
            nn.Linear(config.tokens * config.code_dim, 128), nn.SiLU(), nn.Linear(128, width)
        )
        self.pieces = nn.EmbeddingBag(config.caption_vocab_size, 128, mode="mean")
        self.text = nn.Sequential(nn.SiLU(), nn.Linear(128, width))
        # SigLIP's first temperature and bias
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, vectors: Tensor, caption_ids: Tensor, caption_index: Tensor) -> Tensor:
        """The loss of tokens `[B, C, h, w]` with N distinct captions `[N, T]`.

        `caption_index` `[B]` says which caption is the right one of each image.
        """
        image = F.normalize(self.image(vectors.flatten(1)), dim=-1)  # [B, width]
        text = F.normalize(self.text(self.pieces(caption_ids)), dim=-1)  # [N, width]
        logits = image @ text.T * self.log_scale.exp() + self.bias  # [B, N]
        # +1 for the right caption, −1 for every other
        sign = 2 * F.one_hot(caption_index, len(text)) - 1
        return -F.logsigmoid(sign * logits).sum(1).mean()


class ImageTokenizer(nn.Module):
    """`encode`: pixels `[B, C, H, W]` in [0, 1] -> codes `[B, h, w]`; `decode`: roughly back."""

    kind: ClassVar[str] = "tokenizer"
    config_class: ClassVar[type[Config]] = TokenizerConfig

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        halvings = config.patch_size.bit_length() - 1
        if 2**halvings != config.patch_size:
            raise ValueError(f"patch_size must be a power of two, not {config.patch_size}")
        # Each convolution of stride 2 halves the image; the one after it has twice its channels.
        widths = [config.width * 2**i for i in range(halvings)]

        down: list[nn.Module] = []
        channels = config.channels
        for width in widths:
            down.append(nn.Conv2d(channels, width, 4, stride=2, padding=1))
            down.append(ResidualBlock(width))
            channels = width
        down.append(ResidualBlock(channels))
        down.append(nn.Conv2d(channels, config.code_dim, 1))
        self.encoder = nn.Sequential(*down)

        self.codebook = Codebook(config.codebook_size, config.code_dim)

        up: list[nn.Module] = [nn.Conv2d(config.code_dim, channels, 3, padding=1)]
        up.append(ResidualBlock(channels))
        for width in [*widths[-2::-1], config.width]:
            up.append(ResidualBlock(channels))
            up.append(nn.Conv2d(channels, 4 * width, 1))
            up.append(nn.PixelShuffle(2))  # four channels become 2 x 2 pixels
            channels = width
        up.append(nn.SiLU())
        up.append(nn.Conv2d(channels, config.channels, 3, padding=1))
        up.append(nn.Sigmoid())
        self.decoder = nn.Sequential(*up)

        if config.alignment_weight > 0:
            self.tower = CaptionTower(config)

    @property
    def grid(self) -> int:
        return self.config.grid

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.config.channels, self.config.image_size, self.config.image_size

    @property
    def embedding(self) -> Tensor:
        return self.codebook.embedding

    def check_images(self, images: Tensor) -> None:
        """`ValueError` unless images are `[B, C, H, W]` of this size, finite and in [0, 1]."""
        c, h, w = self.image_shape
        if images.ndim != 4 or images.shape[1:] != (c, h, w):
            raise ValueError(
                f"images must have shape [B, {c}, {h}, {w}], got {list(images.shape)}; "
                "pad or resize them first"
            )
        # NaN compares as false, so it counts as outside.
        if not images.is_floating_point() or not ((images >= 0) & (images <= 1)).all():
            raise ValueError(
                "images must be floating point with finite values in [0, 1]; "
                "divide bytes by 255 and remove NaN first"
            )

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Codes `[B, h, w]`, int64 in [0, K)."""
        if len(images):
            self.check_images(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.codebook(self.encoder(images.to(self.embedding.dtype))).codes

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Pixels `[B, C, H, W]` in [0, 1] from codes `[B, h, w]`."""
        size = len(self.embedding)
        if codes.ndim != 3 or codes.shape[1:] != (self.grid, self.grid):
            raise ValueError(
                f"codes must form a [B, {self.grid}, {self.grid}] grid, got {list(codes.shape)}"
            )
        if codes.numel() and not (codes.min() >= 0 and codes.max() < size):
            raise ValueError(
                f"codes must lie in [0, {size}), got {int(codes.min())} to {int(codes.max())}"
            )
        return self.decoder(rearrange(self.embedding[codes], "b h w c -> b c h w"))

    def loss(
        self,
        images: Tensor,
        caption_ids: Tensor,
        caption_index: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, dict]:
        """Training loss of a batch, and its parts as floats; in training mode the codebook moves.

        Reconstruction (squared error and edges), commitment (features stay near their codes) and
        alignment (caption and tokens agree; shapes in `CaptionTower`).
        """
        quantised = self.codebook(self.encoder(images))
        output = self.decoder(quantised.vectors)

        squared = F.mse_loss(output, images)
        # Squared error alone blurs, and blur reads as thickness: differences of neighbours count.
        edges = sum(F.l1_loss(output.diff(dim=d), images.diff(dim=d)) for d in (2, 3))
        vectors = rearrange(self.embedding[quantised.codes], "b h w c -> b c h w")
        commit = F.mse_loss(quantised.features, vectors)
        total = squared + self.config.edge_weight * edges + commit
        parts = {
            "psnr_db": float(-10 * squared.detach().log10()),
            "commit": float(commit.detach()),
        }

        if self.config.alignment_weight > 0:
            alignment = self.tower(quantised.vectors, caption_ids, caption_index)
            total = total + self.config.alignment_weight * alignment
            parts["alignment"] = float(alignment.detach())
        if self.training:
            features = quantised.features.detach()
            parts["revived"] = self.codebook.update(features, quantised.codes, generator)
        return total, parts


def codebook_usage(codes: Tensor, codebook_size: int) -> tuple[float, float]:
    """Share of codes that occur, and the perplexity exp(H) of their distribution.

    The perplexity is K when all codes are used equally.
    """
    share = torch.bincount(codes.flatten(), minlength=codebook_size).float() / codes.numel()
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return float((share > 0).float().mean()), float(entropy.exp())

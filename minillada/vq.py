"""Image tokenizer: pixels -> a small grid of discrete semantic codes -> pixels.

Like LLaDA2.0-Uni's SigLIP-VQ (arXiv 2604.20796), with convolutions instead of its ViT.

Notable choices
- Cosine lookup as in the official quantiser: features and code vectors have length 1, and the
  nearest code is the one with the largest dot product.
- The codebook has no gradient. It is a moving average of the features assigned to it (van den Oord
  et al. 2017, appendix A). Codes that nobody uses restart: otherwise most would stay unused.
- The codes are *semantic*: a sigmoid contrastive loss (SigLIP, Zhai et al. 2023) asks the tokens of
  an image to match its caption and no other. Notebook 02 compares them with codes for pixels alone.
- `encode` runs encoder and lookup in float32 even under autocast: features rounded to bfloat16 give
  other codes in 7 to 11 % of the places. On a GPU, convolutions would round to TF32, so
  `full_precision` forbids it: codes are those of a CPU. Training (`training/recipes.py`) calls the
  parts one by one. There, the encoder may run in bfloat16; the lookup never does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import TokenizerConfig
from .settings import Config


class Tokenizer(Protocol):
    """What every image tokenizer has. (That of texts is in `vocab`.)"""

    @property
    def grid(self) -> int | tuple[int, int]: ...  # codes along each side, or height and width
    @property
    def image_shape(self) -> tuple[int, int, int]: ...  # channels, height and width in pixels
    @property
    def embedding(self) -> Tensor: ...  # the vectors of K codes, D numbers each: [K, D]
    def check_images(self, images: Tensor) -> None: ...
    def encode(self, images: Tensor) -> Tensor: ...
    def decode(self, codes: Tensor) -> Tensor: ...


@contextmanager
def full_precision() -> Iterator[None]:
    """As a context or a decorator: float32 convolutions keep 23 bits on a GPU, not TF32's 10."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        yield
    finally:
        convolutions.fp32_precision = before


def check_image_codes(codes: Tensor, height: int, width: int, codebook_size: int) -> None:
    """`ValueError` unless codes are int64 `[B, height, width]` and lie in [0, codebook_size)."""
    if codes.shape[1:] != (height, width):
        found = f"{list(codes.shape)}; do they come from another tokenizer?"
        raise ValueError(f"image codes must form a [B, {height}, {width}] grid, got {found}")
    if codes.dtype != torch.long:  # as an index, uint8 would count as a mask
        raise ValueError(f"image codes must be int64, got {codes.dtype}; use codes.long()")
    if not ((codes >= 0) & (codes < codebook_size)).all():
        found = f"{int(codes.min())} to {int(codes.max())}; do they come from another tokenizer?"
        raise ValueError(f"image codes must lie in [0, {codebook_size}), got {found}")


class Quantised(NamedTuple):
    """What a lookup gives: vectors and features `[B, D, h, w]`, codes `[B, h, w]`."""

    vectors: Tensor  # of the codes, with the gradient of the features
    codes: Tensor
    features: Tensor  # before the lookup, of length 1


class Codebook(nn.Module):
    """K vectors of D numbers and length 1; lookup by cosine, learning by moving average."""

    decay = 0.99
    revival_threshold = 0.02  # a code used less than this share of the average use is dead
    embedding: Tensor  # [K, D]
    sums: Tensor  # moving average of the sum of a code's features, [K, D]
    counts: Tensor  # moving average of their number, [K]

    def __init__(self, codebook_size: int, code_dim: int):
        super().__init__()
        unit = F.normalize(nn.init.normal_(torch.empty(codebook_size, code_dim)), dim=-1)
        self.register_buffer("embedding", unit)
        self.register_buffer("sums", unit.clone())
        self.register_buffer("counts", torch.ones(codebook_size))

    def forward(self, features: Tensor) -> Quantised:
        """Nearest code of every feature vector; features `[B, D, h, w]` need not have length 1."""
        with torch.autocast(features.device.type, enabled=False):
            unit = F.normalize(features.to(self.embedding.dtype), dim=1)
            codes = torch.einsum("bdhw,kd->bhwk", unit, self.embedding).argmax(-1)  # [B, h, w]
            vectors = rearrange(self.embedding[codes], "b h w d -> b d h w")
            # Straight-through estimator: the value is `vectors`. `argmax` has no gradient, so the
            # gradient goes to `unit`, as if nothing had been looked up.
            return Quantised(unit + (vectors - unit).detach(), codes, unit)

    @torch.no_grad()
    def update(self, features: Tensor, codes: Tensor, generator: torch.Generator) -> int:
        """Move codes to the means of unit features `[B, D, h, w]`; returns how many restart."""
        flat = rearrange(features, "b d h w -> (b h w) d").float()  # [N, D]
        index = codes.flatten()  # [N]

        # 1. the moving averages take in this batch
        batch_counts = torch.bincount(index, minlength=len(self.counts)).float()
        batch_sums = torch.zeros_like(self.sums)
        if flat.is_cuda:  # `index_add_` adds in any order there: no run could be repeated exactly
            batch_sums.index_put_((index,), flat, accumulate=True)
        else:
            batch_sums.index_add_(0, index, flat)
        self.counts.lerp_(batch_counts, 1 - self.decay)
        self.sums.lerp_(batch_sums, 1 - self.decay)

        # 2. dead codes restart at random features, as if they had been used like the average code
        average_use = len(index) / len(self.counts)
        dead = (self.counts < self.revival_threshold * average_use).nonzero().flatten()
        if len(dead):
            chosen = torch.randint(len(flat), (len(dead),), generator=generator).to(flat.device)
            self.sums[dead] = flat[chosen] * average_use
            self.counts[dead] = average_use

        # 3. Only the direction is kept, so the sum serves as well as the mean, sums / counts.
        self.embedding.copy_(F.normalize(self.sums, dim=-1))
        return len(dead)


class ResidualBlock(nn.Module):
    """A pair of convolutions whose result is added to its input; `depth` says how many such pairs.

    All but the first add 0 at the start: a deeper copy of a trained network computes the same.
    """

    def __init__(self, channels: int, depth: int = 1):
        super().__init__()
        pairs = []
        for number in range(depth):
            layers: list[nn.Module] = []
            for _ in range(2):
                convolution = nn.Conv2d(channels, channels, 3, padding=1)
                layers += [nn.GroupNorm(8, channels), nn.SiLU(), convolution]
            if number > 0:  # the last convolution of a later pair
                for parameter in convolution.parameters():
                    nn.init.zeros_(parameter)
            pairs.append(nn.Sequential(*layers))
        self.net, self.more = pairs[0], nn.ModuleList(pairs[1:])  # at depth 1 there is `net` alone

    def forward(self, x: Tensor) -> Tensor:
        for pair in (self.net, *self.more):
            x = x + pair(x)
        return x


class CaptionTower(nn.Module):
    """Both sides of the alignment loss: an image's tokens and a caption's pieces.

    SigLIP compares an image with the captions of its batch. Many of our images share a caption: the
    same words, of another image, would count as wrong. So each distinct caption is compared once.
    """

    def __init__(self, config: TokenizerConfig, width: int = 64):
        super().__init__()
        numbers = config.tokens * config.code_dim  # in all vectors of an image
        self.image = nn.Sequential(nn.Linear(numbers, 128), nn.SiLU(), nn.Linear(128, width))
        # Shorter captions are padded with id 0 (`vocab.EOS`). The mean leaves this id out.
        self.pieces = nn.EmbeddingBag(config.caption_vocab_size, 128, mode="mean", padding_idx=0)
        self.text = nn.Sequential(nn.SiLU(), nn.Linear(128, width))
        self.log_scale = nn.Parameter(torch.tensor(math.log(10)))  # both begin as in SigLIP
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, vectors: Tensor, caption_ids: Tensor, caption_index: Tensor) -> Tensor:
        """The loss of code vectors `[B, D, h, w]` with N distinct captions `[N, T]`.

        `caption_index` `[B]` says which caption is the right one of each image.
        """
        image = F.normalize(self.image(vectors.flatten(1)), dim=-1)  # [B, width]
        text = F.normalize(self.text(self.pieces(caption_ids)), dim=-1)  # [N, width]
        logits = image @ text.T * self.log_scale.exp() + self.bias  # [B, N]
        sign = 2 * F.one_hot(caption_index, len(text)) - 1  # +1: the right caption, −1: others
        return -F.logsigmoid(sign * logits).sum(1).mean()


class ImageTokenizer(nn.Module):
    """`encode`: pixels `[B, C, H, W]` in [0, 1] -> codes `[B, h, w]`; `decode`: roughly back."""

    kind: ClassVar[str] = "tokenizer"
    config_class: ClassVar[type[Config]] = TokenizerConfig

    def __init__(self, config: TokenizerConfig):
        super().__init__()
        self.config = config
        self.grid = config.grid
        self.image_shape = (config.channels, config.image_size, config.image_size)
        patch, halvings = config.patch_size, config.patch_size.bit_length() - 1  # floor of log2
        if 2**halvings != patch or config.image_size % patch:
            raise ValueError(f"patch_size must be a power of 2 dividing image_size, not {patch}")
        # Each step of the encoder halves the image; the next one has twice the channels.
        widths = [config.width * 2**i for i in range(halvings)]
        down: list[nn.Module] = []
        channels, depth = config.channels, config.depth
        for width in widths:
            down += [nn.Conv2d(channels, width, 4, stride=2, padding=1)]
            down += [ResidualBlock(width, depth)]
            channels = width
        down += [ResidualBlock(channels, depth), nn.Conv2d(channels, config.code_dim, 1)]
        self.encoder = nn.Sequential(*down)
        self.codebook = Codebook(config.codebook_size, config.code_dim)
        # The decoder is the mirror. PixelShuffle makes 2 x 2 pixels of 4 channels.
        up: list[nn.Module] = [nn.Conv2d(config.code_dim, channels, 3, padding=1)]
        up += [ResidualBlock(channels, depth)]
        for width in reversed([config.width, *widths[:-1]]):  # from 96 channels: 48, 24, 24
            up += [ResidualBlock(channels, depth)]
            up += [nn.Conv2d(channels, 4 * width, 1), nn.PixelShuffle(2)]
            channels = width
        up += [nn.SiLU(), nn.Conv2d(channels, config.channels, 3, padding=1), nn.Sigmoid()]
        self.decoder = nn.Sequential(*up)
        if config.alignment_weight > 0:
            self.tower = CaptionTower(config)

    @property
    def embedding(self) -> Tensor:
        """The vector of each code, `[K, D]`."""
        return self.codebook.embedding

    def check_images(self, images: Tensor) -> None:
        """`ValueError` unless images are `[B, C, H, W]` of this size, finite and in [0, 1]."""
        if images.shape[1:] != self.image_shape:
            wanted = ", ".join(map(str, self.image_shape))
            found = f"{list(images.shape)}; resize them, or write image[None] for one image"
            raise ValueError(f"images must have shape [B, {wanted}], got {found}")
        if not images.is_floating_point() or not ((images >= 0) & (images <= 1)).all():  # NaN too
            raise ValueError("images must be floats, finite and in [0, 1]; divide bytes by 255")

    @torch.no_grad()
    @full_precision()
    def encode(self, images: Tensor) -> Tensor:
        """Codes `[B, h, w]`, int64 in [0, K). Errors as in `check_images`."""
        self.check_images(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.codebook(self.encoder(images.to(self.embedding.dtype))).codes

    @torch.no_grad()
    @full_precision()
    def decode(self, codes: Tensor) -> Tensor:
        """Pixels `[B, C, H, W]` in [0, 1] of codes `[B, h, w]`; errors of `check_image_codes`."""
        check_image_codes(codes, self.grid, self.grid, len(self.embedding))
        return self.decoder(rearrange(self.embedding[codes], "b h w d -> b d h w"))

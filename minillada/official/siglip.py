"""SigLIP-VQ, the official image tokenizer: pixels to semantic codes, one for 16 x 16 pixels.

A vision transformer reads patches, a 1 x 1 convolution changes the width of its features, and each
feature becomes the number of the nearest vector of a codebook. There is no way back to pixels here:
that is the painter's work (LLaDA2.0-Uni, arXiv 2604.20796; the released code).

Notable choices
- Names of parameters are the official ones (`model.visual.…`, `model.vqmodel.…`).
- Codes are chosen in the type of the weights. The official encoder runs in bfloat16; float32 is
  more exact and picks other codes where two vectors are almost equally near.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn

from ..settings import Config
from ..vq import full_precision
from .reading import configured, find, load_safetensors, read_json
from .resize import normalise
from .sums import check_files, known_sums
from .vision import VisionConfig, VisionTransformer


class QuantiserConfig(Config):
    """`vq_config` of `image_tokenizer/config.json`."""

    latent_channels: int = Field(1536, ge=1, le=1_000_000)  # features of the vision transformer
    embed_dim: int = Field(2048, ge=1, le=1_000_000)
    num_embeddings: int = Field(16_384, ge=2, le=10_000_000)


class Codebook(nn.Module):
    def __init__(self, config: QuantiserConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.num_embeddings, config.embed_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Codes `[N]` of features `[N, C]`: the nearest vectors, once all have length 1."""
        features = F.normalize(features, dim=-1)
        vectors = F.normalize(self.embedding.weight, dim=-1)  # [K, C]
        # ‖f‖² + ‖v‖² − 2 f·v. Both lengths are 1, but in bfloat16 only nearly so, and the official
        # codes come from this formula with its rounding.
        lengths = (features**2).sum(1, keepdim=True) + (vectors**2).sum(1)  # [N, K]
        return (lengths - 2 * features @ vectors.T).argmin(1)


class Quantiser(nn.Module):
    def __init__(self, config: QuantiserConfig):
        super().__init__()
        self.quant_conv = nn.Conv2d(config.latent_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.latent_channels, 1)  # unused
        self.quantize = Codebook(config)

    def forward(self, features: Tensor) -> Tensor:
        """Codes `[B, h, w]` of features `[B, C, h, w]`, image by image to save memory."""
        height = features.shape[2]
        codes = []
        for feature in self.quant_conv(features):
            flat = rearrange(feature, "c h w -> (h w) c")
            codes.append(rearrange(self.quantize(flat), "(h w) -> h w", h=height))
        return torch.stack(codes)


class Networks(nn.Module):
    """Both networks; the official names call them together `model`."""

    def __init__(self, vision: VisionConfig, quantiser: QuantiserConfig):
        super().__init__()
        self.visual = VisionTransformer(vision)
        self.vqmodel = Quantiser(quantiser)


class SigLIPVQ(nn.Module):
    """`encode`: images `[B, 3, H, W]` in [0, 1] -> codes `[B, H / 16, W / 16]`."""

    def __init__(self, vision: VisionConfig, quantiser: QuantiserConfig):
        super().__init__()
        if quantiser.latent_channels != vision.hidden_size:
            raise ValueError(
                f"vq_config.latent_channels {quantiser.latent_channels} and "
                f"vision_config.hidden_size {vision.hidden_size} must be equal"
            )
        self.patch_size = vision.patch_size
        self.model = Networks(vision, quantiser)

    @property
    def embedding(self) -> Tensor:
        """The vector of every code, of length 1: `[K, C]`."""
        return F.normalize(self.model.vqmodel.quantize.embedding.weight, dim=-1)

    def check_images(self, images: Tensor) -> None:
        """`ValueError` unless images are `[B, 3, H, W]`, whole patches, finite and in [0, 1]."""
        size = self.patch_size
        fits = images.ndim == 4 and images.shape[1] == 3 and images.numel() > 0
        if not fits or images.shape[2] % size or images.shape[3] % size:
            raise ValueError(
                f"images must be [B, 3, H, W] with sides that are multiples of {size}, got "
                f"{list(images.shape)}; resize them first"
            )
        if not images.is_floating_point() or not 0 <= images.min() <= images.max() <= 1:
            raise ValueError("images must be finite numbers in [0, 1]; divide bytes by 255 first")

    @torch.no_grad()
    @full_precision()
    def encode(self, images: Tensor) -> Tensor:
        """Codes `[B, h, w]`, int64 in [0, K)."""
        self.check_images(images)
        weight = self.model.visual.patch_embed.proj.weight
        images = normalise(images.to(weight.device)).to(weight.dtype)
        return self.model.vqmodel(self.model.visual(images))


def load_tokenizer(
    folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.bfloat16
) -> SigLIPVQ:
    """The image tokenizer of a checkpoint's folder, with official (bfloat16) numerics by default.

    `ValueError` or `FileNotFoundError` where a file is missing, broken or does not fit.
    """
    folder = Path(folder)
    tokenizer, files = described_tokenizer(folder / "image_tokenizer")
    check_files(folder, files, known_sums(folder))
    load_safetensors(tokenizer, files[-1], device, dtype)
    return tokenizer


def described_tokenizer(folder: Path) -> tuple[SigLIPVQ, list[Path]]:
    """The tokenizer without numbers, and its files, the weights last; errors as above."""
    path = find(folder, "config.json")
    preparing = find(folder, "preprocessor_config.json")
    weights = find(folder, "model.safetensors", "image_tokenizer.safetensors")
    values = read_json(path)
    vision = configured(VisionConfig, values.get("vision_config"), path)
    quantiser = configured(QuantiserConfig, values.get("vq_config"), path)
    check_preprocessing(preparing, vision.patch_size)
    with torch.device("meta"):  # there, a module has shapes but no memory
        return SigLIPVQ(vision, quantiser), [path, preparing, weights]


def check_preprocessing(path: Path, patch_size: int) -> None:
    """`ValueError` if a checkpoint wants its pixels prepared in another way than `resize` does.

    `merge_size` is not looked at: an early file says 2, and the serving code puts 1 in its place.
    Patches are in raster order, as `vision_config` says (`spatial_merge_size` 1).
    """
    expected = {
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "patch_size": patch_size,
        "temporal_patch_size": 1,
    }
    values = read_json(path)
    for key, value in expected.items():
        if values.get(key, value) != value:
            raise ValueError(f"{path}: {key} must be {value}, got {values[key]!r}")

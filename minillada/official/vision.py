"""The vision transformer of the official image tokenizer: pixels to features, one for each patch.

Names of parameters are the official ones (`model.visual.…`). LLaDA2.0-Uni, released code.

Notable choices
- The position table is 128 x 128 and is stretched over the image, whatever its size.
- Every patch sees every other; attention has biases; GELU is the exact one.
- No norm after the last block and no pooling: the quantiser reads the features as they are.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn

from ..settings import Config


class VisionConfig(Config):
    """`vision_config` of `image_tokenizer/config.json`; the defaults are the released values."""

    depth: int = Field(40, ge=1, le=10_000)
    hidden_size: int = Field(1536, ge=1, le=1_000_000)
    num_heads: int = Field(16, ge=1, le=65_536)
    intermediate_size: int = Field(6144, ge=1, le=1_000_000)
    patch_size: int = Field(16, ge=1, le=1024)
    image_size: int = Field(2048, ge=1, le=65_536)  # over patch_size: side of the table
    in_channels: Literal[3] = 3
    layer_norm_eps: float = Field(1e-6, gt=0)
    attention_bias: bool = True
    hidden_act: Literal["gelu"] = "gelu"  # the exact one, with the error function
    spatial_merge_size: Literal[1] = 1  # other values would mean another order of the codes

    @model_validator(mode="after")
    def check_heads(self) -> Self:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"{self.num_heads} heads cannot share {self.hidden_size} features")
        return self


class PatchEmbedding(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        size = config.patch_size
        self.proj = nn.Conv2d(config.in_channels, config.hidden_size, size, stride=size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images)  # [B, C, h, w]


class PositionTable(nn.Module):
    """One learned vector for each place of a square table, read at any place between them."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.side = config.image_size // config.patch_size
        self.position_embedding = nn.Embedding(self.side**2, config.hidden_size)

    def forward(self, height: int, width: int) -> Tensor:
        """Positions `[1, C, h, w]`, with the table stretched over h x w patches."""
        weight = self.position_embedding.weight
        table = rearrange(weight.float(), "(h w) c -> 1 c h w", h=self.side)
        # The centre of patch i lies at 2 (i + 0.5) / N - 1, where -1 and 1 are the borders.
        down = 2 * (torch.arange(height, device=weight.device) + 0.5) / height - 1
        across = 2 * (torch.arange(width, device=weight.device) + 0.5) / width - 1
        x, y = torch.meshgrid(across, down, indexing="xy")  # [h, w] each
        places = torch.stack([x, y], dim=-1)[None]  # [1, h, w, 2]
        sampled = F.grid_sample(table, places, "bilinear", "border", align_corners=False)
        return sampled.to(weight.dtype)


class Attention(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.heads = config.num_heads
        bias = config.attention_bias
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=bias)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = rearrange(self.qkv(x), "b n (p h d) -> p b h n d", p=3, h=self.heads)
        mixed = F.scaled_dot_product_attention(query, key, value)  # every patch sees every other
        return self.proj(rearrange(mixed, "b h n d -> b n (h d)"))


class MLP(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attn = Attention(config)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.patch_embed = PatchEmbedding(config)
        self.embeddings = PositionTable(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, C, h, w]` of images `[B, 3, H, W]` in [-1, 1]."""
        patches = self.patch_embed(images)
        height, width = patches.shape[2:]
        x = rearrange(patches + self.embeddings(height, width), "b c h w -> b (h w) c")
        for block in self.blocks:
            x = block(x)
        return rearrange(x, "b (h w) c -> b c h w", h=height)

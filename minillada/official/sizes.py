"""Sizes of the official checkpoints, and of a tiny one with the same parts.

`full` are the released values. `tiny` is small enough for a test and has everything that the full
one has: dense and sparse layers, groups of experts, shards, several blocks, refiners, four scales.
`mini`, `flash` and `tiny-text` are models of text alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ..config import ModelConfig
from ..presets.official import LLADA2_FLASH, LLADA2_MINI, LLADA2_UNI
from ..settings import changed
from .siglip import QuantiserConfig
from .vision import VisionConfig

Size = Literal["tiny", "full", "tiny-text", "mini", "flash"]


@dataclass(frozen=True)
class Sizes:
    """All sizes of a checkpoint."""

    backbone: ModelConfig
    shards: int  # files of the backbone
    vision: VisionConfig
    quantiser: QuantiserConfig
    condition: int  # features of the painter's condition
    decoder: dict[str, Any]
    vae: dict[str, Any]
    images: bool = True  # False: a model of text alone, which has only a backbone


VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}

FULL = Sizes(
    backbone=LLADA2_UNI,
    shards=13,
    vision=VisionConfig(),
    quantiser=QuantiserConfig(),
    condition=4096,
    decoder={"dim": 3840, "n_layers": 30, "n_refiner_layers": 2, "n_heads": 30, "n_kv_heads": 30}
    | {"axes_dims": [32, 48, 48]},
    vae=VAE | {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2},
)

TINY = Sizes(
    backbone=changed(
        LLADA2_UNI,
        vocab_size=512 + 64,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=48,
        num_experts=8,
        num_experts_per_tok=2,
        n_group=4,
        topk_group=2,
        moe_intermediate_size=16,
    ),
    shards=3,
    vision=VisionConfig(depth=2, hidden_size=32, num_heads=2, intermediate_size=64, image_size=128),
    quantiser=QuantiserConfig(latent_channels=32, embed_dim=16, num_embeddings=64),
    condition=32,
    decoder={"dim": 48, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2}
    | {"axes_dims": [8, 8, 8]},
    vae=VAE | {"block_out_channels": [8] * 4, "layers_per_block": 1, "norm_num_groups": 4},
)


TINY_TEXT = changed(TINY.backbone, vocab_size=512)
SIZES: dict[Size, Sizes] = {
    "tiny": TINY,
    "full": FULL,
    "tiny-text": replace(TINY, backbone=TINY_TEXT, images=False),
    "mini": replace(FULL, backbone=LLADA2_MINI, images=False),
    "flash": replace(FULL, backbone=LLADA2_FLASH, shards=42, images=False),
}


def sizes_of(size: Size = "tiny", layers: int | None = None) -> Sizes:
    """The sizes by name; `layers` of the backbone, if not all. `ValueError` for a wrong one."""
    if size not in SIZES:
        raise ValueError(f"there is no size {size!r}; choose from {', '.join(get_args(Size))}")
    chosen = SIZES[size]
    if layers is None:
        return chosen
    backbone = changed(chosen.backbone, num_hidden_layers=layers)
    return replace(chosen, backbone=backbone)

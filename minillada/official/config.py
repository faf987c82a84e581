"""The backbone's configuration, from `config.json` of the official checkpoint.

Notable choices
- The file decides about sizes. What it does not say is taken from the released model.
- Settings that would mean another computation than ours are refused by name. Unknown ones are
  named in a warning, and those that do not change what is computed are left out in silence.
- The file has no `tie_word_embeddings`, and the default of `transformers` would tie the head to
  the embedding. Ours is never tied: the files hold both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..asking import warn
from ..config import ModelConfig
from ..model import DecoderLayer
from ..presets.official import LLADA2_UNI
from ..settings import changed
from .reading import find, read_json, whole

NEEDED = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "intermediate_size", "num_experts", "num_experts_per_tok", "moe_intermediate_size",
)  # fmt: skip
# What our backbone computes; another value in the file would mean another model.
FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("llada2_moe", "llada2_moe_veomni"),
    "hidden_act": ("silu",),
    "use_qk_norm": (True,),
    "use_bias": (False,),
    "use_qkv_bias": (False,),
    "norm_head": (False,),
    "norm_topk_prob": (True,),
    "score_function": ("sigmoid",),
    "moe_router_enable_expert_bias": (True,),
    "use_sliding_window": (False,),
    "rope_scaling": (None,),
    "num_nextn_predict_layers": (0, None),
}
# Names, training and other software: nothing that changes what is computed.
SILENT = (
    "architectures", "auto_map", "torch_dtype", "dtype", "transformers_version", "use_cache",
    "image_token_offset", "pad_token_id", "eos_token_id", "bos_token_id", "tie_word_embeddings",
    "embedding_dropout", "attention_dropout", "output_dropout", "output_router_logits",
    "router_dtype", "sliding_window", "max_window_layers", "rope_parameters",
    "moe_shared_expert_intermediate_size", "_attn_implementation", "attn_implementation",
    "name_or_path", "_name_or_path",
)  # fmt: skip
ROPE = {"rope_theta", "partial_rotary_factor", "rope_type", "type"}


def read_config(folder: Path) -> ModelConfig:
    """The backbone's configuration; `ValueError` for settings that contradict it or each other."""
    path = find(Path(folder), "config.json")
    values = read_json(path)
    values.pop("block_size", None)  # a setting of decoding, not of the model
    check_unrounded(values.pop("quantization_config", None), path)
    for key, allowed in FIXED.items():
        if key in values and values[key] not in allowed:
            raise ValueError(
                f"{path}: {key} is {values[key]!r}, and only {allowed[0]!r} can be computed; "
                "is it the file of another model?"
            )
    missing = [key for key in NEEDED if key not in values]
    if missing:
        raise ValueError(f"{path} does not say {', '.join(missing)}; download it again")
    fields = {key: value for key, value in values.items() if key in ModelConfig.model_fields}
    fields = with_rope(fields, values.get("rope_parameters") or {}, path)
    warn_unknown(values, path)
    config = build(fields, path)
    shared = config.moe_intermediate_size * config.num_shared_experts
    said = values.get("moe_shared_expert_intermediate_size", shared)
    if said not in (None, shared):
        raise ValueError(f"{path}: shared experts are {said} wide, but other settings say {shared}")
    return config


def check_unrounded(rounding: Any, path: Path) -> None:
    """`ValueError` for weights that are stored rounded, such as those of the FP8 release."""
    if rounding is not None:
        method = rounding.get("quant_method") if isinstance(rounding, dict) else rounding
        raise ValueError(
            f"{path}: the weights are stored rounded ({str(method)[:40]!r}), and their scales "
            "cannot be read; use the bfloat16 release"
        )


def with_rope(fields: dict[str, Any], nested: Any, path: Path) -> dict[str, Any]:
    """The fields with those of `rope_parameters`, which newer files have beside or instead."""
    if not isinstance(nested, dict) or not ROPE.issuperset(nested):
        raise ValueError(f"{path}: rope_parameters {nested!r} are not those of plain RoPE")
    kind = nested.get("rope_type", nested.get("type", "default"))
    if kind != "default":
        raise ValueError(f"{path}: rope_type is {kind!r}, and only plain RoPE can be computed")
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in nested:
            if fields.get(key, nested[key]) != nested[key]:
                raise ValueError(f"{path}: {key} is both {fields[key]!r} and {nested[key]!r}")
            fields[key] = nested[key]
    return fields


def build(fields: dict[str, Any], path: Path) -> ModelConfig:
    """A `ModelConfig`, completed from the released model."""
    if "head_dim" not in fields:
        heads = whole(fields, "num_attention_heads", path)
        fields = fields | {"head_dim": whole(fields, "hidden_size", path) // heads}
    try:
        config = changed(LLADA2_UNI, **fields)
        with torch.device("meta"):
            # The first layer with experts: it refuses heads or experts that do not fit together.
            DecoderLayer(config, config.first_k_dense_replace)
        return config
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def warn_unknown(values: dict[str, Any], path: Path) -> None:
    """A warning that names settings which we do not know."""
    known = ModelConfig.model_fields.keys() | FIXED.keys() | set(SILENT)
    unknown = sorted(values.keys() - known)
    if unknown:
        warn(f"{path}: unknown settings {', '.join(unknown)} are left out")

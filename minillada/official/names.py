"""What the official backbone's files hold: names and shapes of tensors, and `config.json`.

Notable choices
- Two layouts circulate. *released* stores every expert by itself; *fused* stacks the experts of a
  layer into one tensor for each projection.
- A sibling model puts `model.language_model.` where the backbone has `model.`, and `model.` before
  `lm_head.`: `prefixed`.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from ..config import ModelConfig
from .writing import Entry

Layout = Literal["released", "fused"]


def backbone_entries(config: ModelConfig, layout: Layout = "released") -> list[Entry]:
    """Every tensor of the backbone, in the order of its computation."""
    wide = config.hidden_size
    entries = [Entry("model.word_embeddings.weight", (config.vocab_size, wide))]
    for layer in range(config.num_hidden_layers):
        entries += attention_entries(config, f"model.layers.{layer}.")
        if config.num_experts and layer >= config.first_k_dense_replace:
            entries += expert_entries(config, f"model.layers.{layer}.mlp.", layout)
        else:
            inner = config.intermediate_size
            entries += feed_forward_entries(f"model.layers.{layer}.mlp.", wide, inner)
    entries.append(Entry("model.norm.weight", (wide,)))
    entries.append(Entry("lm_head.weight", (config.vocab_size, wide)))
    return entries


def attention_entries(config: ModelConfig, start: str) -> list[Entry]:
    """Attention and both norms of a layer."""
    wide, head = config.hidden_size, config.head_dim
    queries = config.num_attention_heads * head
    rows = queries + 2 * config.num_key_value_heads * head  # all queries, then keys, then values
    return [
        Entry(start + "input_layernorm.weight", (wide,)),
        Entry(start + "attention.query_key_value.weight", (rows, wide)),
        Entry(start + "attention.query_layernorm.weight", (head,)),
        Entry(start + "attention.key_layernorm.weight", (head,)),
        Entry(start + "attention.dense.weight", (wide, queries)),
        Entry(start + "post_attention_layernorm.weight", (wide,)),
    ]


def feed_forward_entries(start: str, wide: int, inner: int) -> list[Entry]:
    """One SwiGLU."""
    return [
        Entry(start + "gate_proj.weight", (inner, wide)),
        Entry(start + "up_proj.weight", (inner, wide)),
        Entry(start + "down_proj.weight", (wide, inner)),
    ]


def expert_entries(config: ModelConfig, start: str, layout: Layout) -> list[Entry]:
    """Router, experts and shared experts of a layer."""
    wide, inner, count = config.hidden_size, config.moe_intermediate_size, config.num_experts
    entries = [
        Entry(start + "gate.weight", (count, wide)),
        Entry(start + "gate.expert_bias", (count,), torch.float32),
    ]
    if layout == "released":
        for expert in range(count):
            entries += feed_forward_entries(f"{start}experts.{expert}.", wide, inner)
    else:
        for entry in feed_forward_entries("", wide, inner):
            # The numbers are those of the released layout, one expert after the other.
            pieces = tuple(f"{start}experts.{expert}.{entry.key}" for expert in range(count))
            name = entry.key.removesuffix(".weight")
            entries.append(
                Entry(f"{start}experts.{name}", (count, *entry.shape), entry.dtype, pieces)
            )
    shared = inner * config.num_shared_experts
    return entries + feed_forward_entries(start + "shared_experts.", wide, shared)


def prefixed(key: str) -> str:
    """The sibling's name of a tensor."""
    if key.startswith("model."):
        return "model.language_model." + key.removeprefix("model.")
    return "model." + key


def unprefixed(key: str) -> str:
    """The inverse of `prefixed`."""
    if key.startswith("model.language_model."):
        return "model." + key.removeprefix("model.language_model.")
    return key.removeprefix("model.")


def root_config(
    config: ModelConfig, offset: int | None, eos_id: int, layout: Layout = "released"
) -> dict[str, Any]:
    """`config.json` with the official keys; without `offset` that of a model of text alone.

    There is no `tie_word_embeddings`, as released.
    """
    rope = {
        "rope_theta": config.rope_theta,
        "rope_type": "default",
        "partial_rotary_factor": config.partial_rotary_factor,
    }
    official = {
        "architectures": ["LLaDA2MoeModelLM"],
        "model_type": "llada2_moe" if layout == "released" else "llada2_moe_veomni",
        "hidden_act": "silu",
        "use_qk_norm": True,
        "use_bias": False,
        "use_qkv_bias": False,
        "rope_parameters": rope,
        "pad_token_id": eos_id,
        "torch_dtype": "bfloat16",
    }
    if offset is not None:
        official["image_token_offset"] = offset
    return config.model_dump(exclude={"block_size"}) | official

"""Official backbones: configurations for `Backbone`, not something to train here."""

from __future__ import annotations

from ..config import ModelConfig
from ..settings import changed

LLADA2_UNI = ModelConfig(
    vocab_size=173_568,
    hidden_size=2048,
    num_hidden_layers=20,
    num_attention_heads=16,
    num_key_value_heads=4,
    head_dim=128,
    intermediate_size=5120,
    initializer_range=0.02,
    max_position_embeddings=8192,
    block_size=32,
    num_experts=256,
    num_experts_per_tok=8,
    n_group=8,
    topk_group=4,
    moe_intermediate_size=512,
)

# Models of text alone (LLaDA2.0, LLaDA2.1): no image codes, a longer context.
LLADA2_MINI = changed(LLADA2_UNI, vocab_size=157_184, max_position_embeddings=32_768)
LLADA2_FLASH = changed(
    LLADA2_MINI,
    hidden_size=4096,
    num_hidden_layers=32,
    num_attention_heads=32,
    intermediate_size=9216,
    moe_intermediate_size=1024,
)

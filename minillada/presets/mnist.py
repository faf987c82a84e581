"""Presets that learn to draw and to describe digits, and the models around them.

The widths were chosen so that the live notebook run (`mnist-cpu`) takes about two minutes on two
laptop cores, and `mnist`, the first round of the shipped weights (data/README.md), about an hour.
"""

from __future__ import annotations

from ..config import (
    MNIST_TEXT_VOCAB_SIZE,
    DataConfig,
    JudgeConfig,
    ModelConfig,
    Preset,
    TextConfig,
    TokenizerConfig,
    TrainingConfig,
)
from ..settings import changed

TOKENIZER = TokenizerConfig()
SMALL = ModelConfig(vocab_size=MNIST_TEXT_VOCAB_SIZE + TOKENIZER.codebook_size)
LARGE = changed(SMALL, hidden_size=160, num_hidden_layers=5, intermediate_size=448)  # 1.7M weights
# Two routed experts and the shared one are about as wide together as the dense layer: much the
# same work a token, several times the weights.
EXPERTS = changed(
    LARGE, num_experts=16, num_experts_per_tok=2, n_group=4, topk_group=2, moe_intermediate_size=160
)

# Both directions in equal parts; a fifth of the captions to draw is incomplete (`varied`).
BOTH_WAYS = DataConfig(mixture=(("draw", 1.0), ("describe", 1.0)), varied=True)
# A backbone learns more from twice the steps than from twice the batch (docs/log.md).
LONG = changed(TrainingConfig(data=BOTH_WAYS), steps=6000, batch_size=64, learning_rate=1.5e-3)
# Block size 1 is autoregression: a block is one token, always masked, so the 1/t weight is always
# 1. Every response token is predicted at every step, on average 0.525 of them in `LONG`. So 3,150
# steps make as many predictions as its 6,000.
AUTOREGRESSIVE = changed(LONG, steps=3150, mask_rate=(1.0, 1.0))
# Warm-up, stable, decay of the block size, from an autoregressive model. In the stable part
# (512) a sequence is one block, since none is longer. All takes half the steps of `LONG`, since it
# does not start from nothing.
SCHEDULE = ((0.0, 4), (0.1, 8), (0.2, 16), (0.3, 512), (0.6, 24), (0.7, 16))
CONVERSION = changed(LONG, steps=3000, block_schedule=SCHEDULE)
# Two minutes on two cores are enough to learn one of the two tasks well. Blocks that are nearly all
# masked decide which digit is drawn. A run this short leaves out those with few masks: 1/t is
# large there, and makes the loss noisy.
LIVE = changed(
    LONG,
    steps=360,
    batch_size=48,
    learning_rate=3e-3,
    mixture=(("draw", 1.0),),
    mask_rate=(0.3, 1.0),
)
# A minute on a GPU, which computes 512 examples in hardly more time than 64.
MINUTE = changed(
    LONG,
    steps=900,
    batch_size=512,
    learning_rate=3e-3,
    optimizer="muon",
    pack_length=256,
    bfloat16=True,
    moves=8,
    workers=4,
)
# A short round that starts from `mnist` and teaches it to rewrite tokens, and to delete and insert
# (notebook 13).
EDITING = changed(
    LONG,
    steps=1000,
    batch_size=32,
    learning_rate=1e-3,
    warmup_steps=20,
    edit_noise=0.3,
    planted_errors=0.3,
)
CODING = changed(TrainingConfig(), steps=6000, learning_rate=2e-3)


def backbone(name: str, model: ModelConfig, training: TrainingConfig) -> Preset:
    """A backbone that reads the codes of `mnist-tokenizer`."""
    return Preset(
        name=name, kind="backbone", model=model, training=training, tokenizer="mnist-tokenizer"
    )


def tokenizer(name: str, alignment_weight: float) -> Preset:
    """An image tokenizer with 16 codes of 512 an image."""
    model = changed(TOKENIZER, alignment_weight=alignment_weight)
    return Preset(name=name, kind="tokenizer", model=model, training=CODING)


MNIST = (
    Preset(name="mnist-text", kind="text", model=TextConfig()),
    Preset(
        name="mnist-judge", kind="judge", model=JudgeConfig(), training=TrainingConfig(steps=4000)
    ),
    tokenizer("mnist-tokenizer", TOKENIZER.alignment_weight),
    tokenizer("mnist-tokenizer-pixels", 0.0),
    backbone("mnist", LARGE, LONG),
    backbone("mnist-editor", LARGE, EDITING),
    backbone("mnist-ar", changed(LARGE, block_size=1), AUTOREGRESSIVE),
    backbone("mnist-wsd", LARGE, CONVERSION),
    backbone("mnist-cpu", SMALL, LIVE),
    backbone("mnist-gpu", LARGE, MINUTE),
    backbone("mnist-moe", EXPERTS, LONG),
)

"""Presets that learn from colour photographs: CIFAR-10, 32 x 32 px in ten classes.

They are made for a GPU, where each takes a few minutes. The shipped tokenizer, backbone and
painter were made in two rounds, together about as long as one run of these (data/README.md). A CPU
wants smaller batches, of stored codes:
`minillada train cifar --set batch_size=32 --set moves=0 --set workers=0`.
"""

from __future__ import annotations

from ..config import JudgeConfig, ModelConfig, Preset, TextConfig, TokenizerConfig, TrainingConfig
from ..settings import changed

JUDGE = JudgeConfig(
    channels=3, width=64, features=256, whitened=True, flips=True, label_smoothing=0.2
)
# 20 rounds of the 50,000 training images.
CLASSIFYING = changed(
    TrainingConfig(),
    steps=2000,
    batch_size=500,
    optimizer="muon",
    learning_rate=1e-2,
    weight_decay=0.3,
    bfloat16=True,
)
# The tokenizer learns to keep the features of this one. It is not the judge: a tokenizer could
# please the network that marks it with patterns that nobody sees.
FEATURES = changed(JUDGE, width=32, features=128)

# 64 codes an image, 4 x 4 px each. A loss on edges keeps strokes sharp; photographs have none. With
# a caption loss of 0.03, a round gained 0.7 dB less of PSNR (docs/log.md).
TOKENIZER = TokenizerConfig(
    channels=3,
    patch_size=4,
    codebook_size=1024,
    width=64,
    edge_weight=0.0,
    colour_weight=1.0,
    depth=2,
    feature_weight=0.12,
    alignment_weight=0.003,
    unquantised_steps=300,
)
CODING = changed(
    TrainingConfig(), steps=4000, learning_rate=2e-3, batch_size=512, operation_share=0.4,
    bfloat16=True,
)  # fmt: skip
PIXELS = changed(  # for comparison: smaller, and trained for pixels alone (notebook 18)
    TOKENIZER, width=48, depth=1, feature_weight=0.0, alignment_weight=0.0, unquantised_steps=150
)

TEXT_VOCAB_SIZE = 512
# A picture to draw and its caption, or a picture and what is said of it, fit into one block of 96
# tokens: all codes of a drawing are one block, and committed in any order.
BACKBONE = ModelConfig(
    vocab_size=TEXT_VOCAB_SIZE + TOKENIZER.codebook_size,
    hidden_size=288,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=4,
    intermediate_size=768,
    # An exact edit copies from a place 65 to 80 tokens before. At RoPE's released base of 600,000
    # only 3 of 8 pairs of a head turn enough to tell such places apart (notebook 18).
    rope_theta=100.0,
    partial_rotary_factor=1.0,
    block_size=96,
)
EVERYTHING = (
    ("draw", 7.0), ("describe", 3.2), ("label", 1.0), ("brightness", 0.15), ("colour", 0.25),
    ("kind", 0.15), ("brighter", 0.1), ("edit_operation", 3.5), ("edit_label", 1.1),
)  # fmt: skip
SPEAKING = changed(
    TrainingConfig(),
    steps=3000,
    batch_size=512,
    learning_rate=3e-3,
    warmup_steps=100,
    mask_rate=(0.1, 1.0),
    objective="uniform",
    text_weight=20.0,
    optimizer="muon",
    mixture=EVERYTHING,
    varied=True,
    bfloat16=True,
    moves=4,
    workers=9,
)


def tokenizer(name: str, model: TokenizerConfig, training: TrainingConfig) -> Preset:
    """An image tokenizer of photographs. With a `feature_weight`, `cifar-features` teaches it."""
    return Preset(
        name=name,
        kind="tokenizer",
        model=model,
        training=training,
        dataset="cifar10",
        teacher="cifar-features" if model.feature_weight else None,
    )


def classifier(name: str, model: JudgeConfig, training: TrainingConfig) -> Preset:
    """A classifier of photographs."""
    return Preset(name=name, kind="judge", model=model, training=training, dataset="cifar10")


CIFAR = (
    classifier("cifar-judge", JUDGE, CLASSIFYING),
    classifier("cifar-features", FEATURES, changed(CLASSIFYING, steps=1000, seed=1)),
    tokenizer("cifar-tokenizer", TOKENIZER, CODING),
    Preset(
        name="cifar-text",
        kind="text",
        model=TextConfig(vocab_size=TEXT_VOCAB_SIZE, every_task=True),
        dataset="cifar10",
    ),
    Preset(
        name="cifar",
        kind="backbone",
        model=BACKBONE,
        training=SPEAKING,
        dataset="cifar10",
        tokenizer="cifar-tokenizer",
        text="cifar-text",
    ),
    tokenizer(
        "cifar-tokenizer-pixels",
        PIXELS,
        changed(CODING, steps=800, batch_size=64, operation_share=0.15),
    ),
)

"""Every preset by name."""

from __future__ import annotations

import json
from dataclasses import fields, replace

from ..config import (
    JudgeConfig,
    ModelConfig,
    Preset,
    TextConfig,
    TokenizerConfig,
    TrainingConfig,
    frozen,
)
from ..presets.mnist import (
    AR_RUN,
    EDITING_RUN,
    EXPERTS,
    IMAGE_TOKENIZER,
    LIVE_RUN,
    LONG_RUN,
    MNIST,
    UNI_TEXT_VOCAB_SIZE,
    VOCAB_SIZE,
    WSD_RUN,
)
from ..presets.uni import UNI, UNI_STAGES

PRESETS: dict[str, Preset] = {
    p.name: p
    for p in (
        Preset("mnist-text", "text", TextConfig(), TrainingConfig(steps=0)),
        Preset("mnist-uni-text", "text", TextConfig(UNI_TEXT_VOCAB_SIZE, every_task=True), TrainingConfig(steps=0)),
        Preset("mnist-judge", "judge", JudgeConfig(), TrainingConfig(steps=4000)),
        Preset("mnist-tokenizer", "tokenizer", IMAGE_TOKENIZER, TrainingConfig(steps=6000, learning_rate=2e-3)),
        Preset(
            "mnist-tokenizer-pixels",
            "tokenizer",
            TokenizerConfig(alignment_weight=0.0),
            TrainingConfig(steps=6000, learning_rate=2e-3),
        ),
        # The tokenizer of every task also sees edited digits: mirrored, rotated, inverted. White on black and black on white
        # have no codes in common, hence twice as many; it starts at `mnist-tokenizer` (data/README.md).
        Preset(
            "mnist-uni-tokenizer",
            "tokenizer",
            TokenizerConfig(codebook_size=1024),
            TrainingConfig(steps=4000, learning_rate=1.5e-3, operation_share=0.5),
        ),
        Preset("mnist", "backbone", ModelConfig(**MNIST), LONG_RUN, "mnist-tokenizer"),
        Preset("mnist-editor", "backbone", ModelConfig(**MNIST), EDITING_RUN, "mnist-tokenizer"),
        Preset("mnist-ar", "backbone", ModelConfig(**MNIST, block_size=1), AR_RUN, "mnist-tokenizer"),
        Preset("mnist-wsd", "backbone", ModelConfig(**MNIST), WSD_RUN, "mnist-tokenizer"),
        Preset("mnist-cpu", "backbone", ModelConfig(VOCAB_SIZE), LIVE_RUN, "mnist-tokenizer"),
        *(Preset(name, "backbone", UNI, run, "mnist-uni-tokenizer", "mnist-uni-text") for name, run in UNI_STAGES.items()),
        Preset("mnist-moe", "backbone", ModelConfig(**MNIST, **EXPERTS), LONG_RUN, "mnist-tokenizer"),
    )
}


def get_preset(name: str) -> Preset:
    """The preset called `name`; `ValueError` lists the known names otherwise."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; choose one of {', '.join(sorted(PRESETS))}")
    return PRESETS[name]


def change_preset(preset: Preset, settings: list[str]) -> Preset:
    """The preset with fields of its training or model configuration changed, each as `name=value`; values are written as in JSON.

    `ValueError` for an unknown name or a value of another type than the one it replaces.
    """
    for setting in settings:
        name, _, text = setting.partition("=")
        part = next((part for part in ("training", "model") if hasattr(getattr(preset, part), name)), None)
        if part is None:
            known = sorted(f.name for p in (preset.training, preset.model) for f in fields(p))
            raise ValueError(f"{preset.name} has no setting {name!r}; choose one of {', '.join(known)}")
        old = getattr(getattr(preset, part), name)
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        value = float(value) if isinstance(old, float) and type(value) is int else frozen(value)
        if type(value) is not type(old):
            raise ValueError(f"{name} is {json.dumps(old)} and cannot become {text!r}; write {name}=VALUE with a value of the same kind")
        preset = replace(preset, **{part: replace(getattr(preset, part), **{name: value})})
    return preset

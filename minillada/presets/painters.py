"""Presets that turn codes into pixels: a painter of 50 steps, and one of 4 distilled from it."""

from __future__ import annotations

from typing import Literal

from ..config import JudgeConfig, PainterConfig, Preset, TrainingConfig
from ..settings import changed

# The classifier whose features a painter of digits must keep. It is not the judge: a painter could
# please the network that marks it with patterns that nobody sees.
FEATURES = Preset(
    name="mnist-features",
    kind="judge",
    model=JudgeConfig(width=16),
    training=TrainingConfig(steps=1500, seed=1, bfloat16=True),
)
PAINTING = changed(TrainingConfig(), steps=2500, batch_size=32, learning_rate=2e-3, bfloat16=True)
DIGITS = PainterConfig()


PHOTOS = PainterConfig(channels=3, grid=8, codebook_size=1024, width=80)


def painter(
    dataset: Literal["mnist", "cifar10"], model: PainterConfig, steps: int, batch_size: int
) -> Preset:
    """A painter of the codes of a data set's tokenizer."""
    name = dataset.removesuffix("10")
    return Preset(
        name=f"{name}-painter",
        kind="painter",
        model=model,
        training=changed(
            PAINTING, steps=steps, batch_size=batch_size, mirrored=dataset == "cifar10"
        ),
        dataset=dataset,
        tokenizer=f"{name}-tokenizer",
        teacher=f"{name}-features",
    )


def turbo(source: Preset, training: TrainingConfig, spread_weight: float) -> Preset:
    """The turbo painter of a painter: the same network, distilled, in 4 steps."""
    return changed(
        source,
        name=f"{source.name}-turbo",
        source=source.name,
        training=training,
        model=changed(source.model, turbo=True, painting_steps=4, spread_weight=spread_weight),
    )


MNIST_PAINTER = painter("mnist", DIGITS, 2500, 32)
DISTILLING = changed(MNIST_PAINTER.training, steps=100, learning_rate=2e-4)
CIFAR_PAINTER = painter("cifar10", PHOTOS, 4000, 256)
# How pictures are spread shows in a large batch only.
SPREADING = changed(CIFAR_PAINTER.training, steps=300, batch_size=512, learning_rate=3e-4)
PAINTERS = (
    FEATURES,
    MNIST_PAINTER,
    # Painted digits are spread like real ones without being asked (docs/log.md).
    turbo(MNIST_PAINTER, DISTILLING, spread_weight=0.0),
    CIFAR_PAINTER,
    turbo(CIFAR_PAINTER, SPREADING, spread_weight=10.0),
)

"""Presets that turn codes into pixels: a painter of 50 steps, and one of 4 distilled from it."""

from __future__ import annotations

from ..config import JudgeConfig, PainterConfig, Preset, TrainingConfig
from ..settings import changed

# A painter of digits must keep the features of this one; why not the judge's: `cifar.FEATURES`.
MNIST_FEATURES = Preset(
    name="mnist-features",
    kind="judge",
    model=JudgeConfig(width=16),
    training=TrainingConfig(steps=1500, seed=1, bfloat16=True),
)
PAINTING = changed(TrainingConfig(), steps=2500, batch_size=32, learning_rate=2e-3, bfloat16=True)
PHOTOS = PainterConfig(channels=3, grid=8, codebook_size=1024, width=80)


def painter(dataset: str, model: PainterConfig, training: TrainingConfig) -> Preset:
    """A painter of the codes of a data set's tokenizer."""
    name = dataset.removesuffix("10")  # the weights of `cifar10` are called cifar-…
    return Preset(
        name=f"{name}-painter",
        kind="painter",
        model=model,
        training=training,
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


MNIST_PAINTER = painter("mnist", PainterConfig(), PAINTING)
DISTILLING = changed(PAINTING, steps=100, learning_rate=2e-4)
PAINTING_PHOTOS = changed(PAINTING, steps=4000, batch_size=256, mirrored=True)
CIFAR_PAINTER = painter("cifar10", PHOTOS, PAINTING_PHOTOS)
# How pictures are spread shows in a large batch only.
SPREADING = changed(PAINTING_PHOTOS, steps=300, batch_size=512, learning_rate=3e-4)
PAINTERS = (
    MNIST_FEATURES,
    MNIST_PAINTER,
    # Painted digits are spread like real ones without being asked (docs/log.md).
    turbo(MNIST_PAINTER, DISTILLING, spread_weight=0.0),
    CIFAR_PAINTER,
    turbo(CIFAR_PAINTER, SPREADING, spread_weight=10.0),
)

"""How painters learn: flow matching, and the distillation of a turbo painter.

Notable choices
- The error of the velocity is the error of the picture over 1 - t. Times are uniform.
- A classifier that is not the judge compares features of what the painter says and of the picture.
  Squared error alone forgives a painter everything that is small, whatever it means.
- No average of the weights is kept: the learning rate falls to almost nothing, which has much the
  same effect.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..config import PainterConfig, Preset
from ..datasets.mnist import Images
from ..flow import consistency_target, mix
from ..measure.judge import Judge
from ..painter import Painter
from ..vq import ImageTokenizer
from .distributed import Loss
from .loop import batch_indices, step_generator

NEAREST = 0.1  # 1 - t is not taken smaller than this where the loss divides by it
SUBSTEPS = 4  # of the painter, between two jumps of the turbo painter


class Example(NamedTuple):
    """A batch; pictures, noise and sketches are `[B, C, H, W]`, pixels in [-1, 1]."""

    picture: Tensor
    noise: Tensor
    codes: Tensor  # [B, h, w]
    sketch: Tensor  # what the tokenizer's decoder makes of the codes


class Lesson:
    """What a painter of a preset is trained on: batches of pictures, and how errors count."""

    def __init__(
        self, preset: Preset, tokenizer: ImageTokenizer, images: Images, classifier: Judge | None
    ):
        assert isinstance(preset.model, PainterConfig)
        self.model, self.training = preset.model, preset.training
        self.tokenizer, self.classifier = tokenizer, classifier
        self.device = tokenizer.embedding.device
        self.images = images.to(self.device)

    def batch(self, painter: Painter, step: int, generator: torch.Generator) -> Example:
        """Pictures of one step with noise, codes and sketches; some lack codes, for guidance."""
        config = self.training
        index = batch_indices(len(self.images.labels), config.batch_size, step, config.seed)
        shown = self.images.floats(index)
        if config.data.mirrored:
            chosen = torch.rand(len(shown), generator=generator) < 0.5
            shown[chosen] = shown[chosen].flip(-1)
        noise = torch.randn(shown.shape, generator=generator).to(self.device)
        without = torch.rand(len(shown), generator=generator) < config.data.unconditional_rate
        codes = self.tokenizer.encode(shown)
        codes, sketch = painter.drop(codes, 2 * self.tokenizer.decode(codes) - 1, without)
        return Example(2 * shown - 1, noise, codes, sketch)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What the classifier's stages make of pictures in [-1, 1], `[B, F]`; [] without one."""
        if self.classifier is None:
            return []
        return [stage.flatten(1).float() for stage in self.classifier.stages((pictures + 1) / 2)]

    def feature_error(self, said: Tensor, wanted: Tensor) -> Tensor:
        """How far features of pictures in [-1, 1] are apart, 1 being as far as nothing at all."""
        error = torch.zeros((), device=said.device)
        with torch.no_grad():
            right = self.features(wanted)
        for a, b in zip(self.features(said), right):
            error = error + (a - b).square().mean() / b.square().mean()
        return error / max(len(right), 1)


def painter_loss(painter: Painter, lesson: Lesson) -> Loss:
    """Flow matching: the squared error of the velocity, and that of the features."""

    def loss(step: int) -> tuple[Tensor, dict[str, Any]]:
        generator = step_generator(lesson.training.seed, step)
        picture, noise, codes, sketch = lesson.batch(painter, step, generator)
        t = torch.rand(len(picture), generator=generator).to(picture)
        said = painter(mix(picture, noise, t), t, codes, sketch)
        squared = (said - picture).square().mean((1, 2, 3))  # [B]
        velocity = (squared / (1 - t).clamp_min(NEAREST).square()).mean()
        features = lesson.feature_error(said, picture)
        metrics = {"velocity": float(velocity.detach()), "features": float(features.detach())}
        return velocity + lesson.model.feature_weight * features, metrics

    return loss


def turbo_loss(painter: Painter, source: Painter, lesson: Lesson) -> Loss:
    """Distillation: what `painter` says must be the same all along a path of `source`.

    Only the times at which a turbo painter jumps are learned. Features are compared with those of
    the real picture: features of what the painter itself says would drift with it.
    """
    times = torch.linspace(0, 1, lesson.model.painting_steps + 1, device=lesson.device)

    def loss(step: int) -> tuple[Tensor, dict[str, Any]]:
        generator = step_generator(lesson.training.seed, step)
        picture, noise, codes, sketch = lesson.batch(painter, step, generator)
        place = torch.randint(len(times) - 1, (len(picture),), generator=generator)
        now, then = times[place.to(lesson.device)], times[place.to(lesson.device) + 1]
        # 1. what the painter says at a place of a path, and what it must say there
        x = mix(picture, noise, now)
        with torch.no_grad():
            student, teacher = painter.saying(codes, sketch), source.saying(codes, sketch)
        wanted = consistency_target(student, teacher, x, now, then, SUBSTEPS)
        said = painter(x, now, codes, sketch)
        squared = (said - wanted).square().mean()
        # 2. the features
        features = lesson.feature_error(said, picture)
        metrics = {"squared": float(squared.detach()), "features": float(features.detach())}
        return squared + lesson.model.feature_weight * features, metrics

    return loss

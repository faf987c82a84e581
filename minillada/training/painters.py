"""How painters learn: flow matching, and the distillation of a turbo painter.

Notable choices
- The error of the velocity is the error of the picture over 1 - t. Times are uniform.
- A classifier that is not the judge compares features of what the painter says and of the picture.
  Squared error alone hardly counts small details, even those that change what is shown.
- Where many pictures have the same codes, the best single answer is their mean, which is blurred:
  it looks like none of them. A turbo painter may have one more loss, which is small if its pictures
  differ from each other as real ones do (`energy_distance`).
- No average of the weights is kept: the learning rate falls to almost nothing, which has much the
  same effect.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import PainterConfig, Preset
from ..datasets.images import Images
from ..flow import consistency_target, mix
from ..measure.judge import Judge, moved
from ..painter import Painter
from ..vq import ImageTokenizer
from .distributed import Loss
from .loop import batch_indices, step_generator

NEAREST = 0.1  # 1 - t is not taken smaller than this where the loss divides by it
SUBSTEPS = 4  # Euler steps of the source painter between two times of the turbo painter


class PictureBatch(NamedTuple):
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

    def batch(self, painter: Painter, step: int, generator: torch.Generator) -> PictureBatch:
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
        return PictureBatch(2 * shown - 1, noise, codes, sketch)

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What the classifier's stages make of pictures in [-1, 1], `[B, C, h, w]` each; or []."""
        if self.classifier is None:
            return []
        *maps, last = self.classifier.stages((pictures + 1) / 2)
        # The last stage, [B, C], has no places: it becomes [B, C, 1, 1].
        return [stage.float() for stage in (*maps, last[:, :, None, None])]

    def errors(self, said: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """How far features of pictures in [-1, 1] are apart: of each picture, and of all together.

        The first is 1 if all features of `said` are 0. The second is 0 on average if both are
        spread alike.
        """
        error = spread = torch.zeros((), device=said.device)
        with torch.no_grad():
            right = self.features(wanted)
        found = self.features(said)
        for a, b in zip(found, right):
            error = error + (a - b).square().mean() / b.square().mean() / len(right)
        if self.model.spread_weight:
            # Pixels and their squares, too: a classifier hardly sees a contrast that is too strong.
            found.append(torch.cat([said, said.square()], 1))
            right.append(torch.cat([wanted, wanted.square()], 1))
            for a, b in zip(found, right):
                spread = spread + energy_distance(quarters(a), quarters(b)) / len(right)
        return error, spread


def quarters(features: Tensor) -> Tensor:
    """The means of features `[B, C, h, w]` over the quarters of a picture, `[B, F]`."""
    height, width = features.shape[-2:]
    return F.adaptive_avg_pool2d(features, (min(height, 2), min(width, 2))).flatten(1)


def energy_distance(a: Tensor, b: Tensor) -> Tensor:
    """How much the distributions of features a `[N, F]` and b `[M, F]` differ.

    It is 2 E|a - b| - E|a - a'| - E|b - b'|, where a' is another row than a: 0 on average if both
    come from one distribution, else larger (Székely, Rizzo 2013, doi 10.1016/j.jspi.2013.03.018).
    Lengths are in units of the spread of b, over the root of F. N and M are 2 or more.
    """
    scale = (b.std(0) + 1e-4) * b.shape[1] ** 0.5
    a, b = a / scale, b / scale
    # Products of matrices would be faster, and wrong for rows that are nearly equal.
    apart = functools.partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist")
    # A row and itself have distance 0 and are no pair.
    inside = [apart(rows, rows).sum() / (len(rows) * (len(rows) - 1)) for rows in (a, b)]
    return 2 * apart(a, b).mean() - inside[0] - inside[1]


def painter_loss(painter: Painter, lesson: Lesson) -> Loss:
    """Flow matching: the squared error of the velocity, and that of the features."""

    def loss(step: int) -> tuple[Tensor, dict[str, Any]]:
        generator = step_generator(lesson.training.seed, step)
        picture, noise, codes, sketch = lesson.batch(painter, step, generator)
        t = torch.rand(len(picture), generator=generator).to(picture)
        said = painter(mix(picture, noise, t), t, codes, sketch)
        squared = (said - picture).square().mean((1, 2, 3))  # [B]
        velocity = (squared / (1 - t).clamp_min(NEAREST).square()).mean()
        features, _ = lesson.errors(said, picture)
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
        # 2. the features, of each picture and of all of them
        pair = moved(torch.cat([said, picture]), generator)  # both by the same pixels
        features, spread = lesson.errors(*pair.chunk(2))
        parts = {"squared": squared, "features": features, "spread": spread}
        metrics = {name: float(part.detach()) for name, part in parts.items()}
        model = lesson.model
        return squared + model.feature_weight * features + model.spread_weight * spread, metrics

    return loss

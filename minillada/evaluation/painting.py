"""How good painters are: pictures painted from the codes of test images, marked by the judge.

Notable choices
- A painter and the turbo painter that is distilled from it are measured together, and beside them
  the convolutional decoder, whose picture both start from.
- Fréchet distances depend on the number of pictures. All of them are taken at the same number, and
  so is that of real test images, which no painter can be asked to beat.
- `codes_kept` is the share of codes that come back when a painted picture is read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoint
from ..datasets.table import DATASETS
from ..measure import timing
from ..measure.frechet import frechet_distance
from ..measure.intervals import fraction
from ..measure.judge import load_judge
from ..painter import Painter
from ..painting import paint
from ..presets import get_preset
from ..vq import ImageTokenizer

MOST = 1000  # pictures of a Fréchet distance: 50 steps for each take a while
BATCH = 16  # pictures that are timed


@dataclass(frozen=True)
class Pair:
    """A painter, the turbo painter distilled from it, and the tokenizer of their codes."""

    flow: Painter
    turbo: Painter
    tokenizer: ImageTokenizer
    dataset: str

    def shown(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of images, and what the convolutional decoder makes of them."""
        codes = torch.cat([self.tokenizer.encode(part) for part in images.split(250)])
        return codes, torch.cat([self.tokenizer.decode(part) for part in codes.split(250)])


def load_pair(name: str | Path, device: str) -> Pair:
    """Both painters, by the name of either. A turbo painter's JSON names its source."""
    painter, info = checkpoint.load_model(name, Painter, device)
    source = info["source"] if painter.config.turbo else name
    turbo, about = checkpoint.load_model(
        name if painter.config.turbo else f"{name}-turbo", Painter, device
    )
    flow, more = checkpoint.load_model(source, Painter, device)
    if about["source_sha256"] != more["sha256"]:
        raise ValueError(f"the turbo painter of {name} was distilled from other weights; train it")
    tokenizer, used = checkpoint.load_model(info["tokenizer"], ImageTokenizer, device)
    if used["sha256"] != info["tokenizer_sha256"]:
        raise ValueError(f"{name} paints the codes of another version of {info['tokenizer']}")
    return Pair(flow, turbo, tokenizer, get_preset(info["preset"]).dataset)


def evaluate_painter(
    name: str | Path, samples: int = 10_000, seed: int = 0, device: str = "cpu"
) -> dict:
    """What a painter makes of the codes of at most `samples` test images, as a flat dictionary."""
    pair = load_pair(name, device)
    judge = load_judge(device, f"{pair.dataset.removesuffix('10')}-judge")
    test = DATASETS[pair.dataset].load("test")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(test.labels), generator=generator)[:samples]
    images, labels = test.floats(chosen).to(device), test.labels[chosen].to(device)
    codes, sketch = pair.shown(images)
    painted = paint(pair.turbo, codes, sketch, seed=seed)
    again, _ = pair.shown(painted)
    report = {
        "model": str(name),
        "seed": seed,
        "device": device,
        "steps": pair.turbo.config.painting_steps,
        **fraction("judged_accuracy", judge.classify(painted) == labels),
        **fraction("judged_accuracy_conv", judge.classify(sketch) == labels),
        **fraction("codes_kept", again == codes),
        "psnr_db": float(-10 * (painted - images).square().mean().log10()),
    }
    n = min(MOST, len(labels))
    long = paint(pair.flow, codes[:n], sketch[:n], pair.flow.config.painting_steps, seed)
    report |= fraction("judged_accuracy_50_steps", judge.classify(long) == labels[:n])
    everything = judge.features(test.floats().to(device))
    pictures = {"": painted, "_conv": sketch, "_50_steps": long, "_real": images}
    for suffix, part in pictures.items():
        report[f"frechet{suffix}"] = frechet_distance(judge.features(part[:n]), everything)
    return report | {"frechet_n": n, **speed(pair, codes[:BATCH], sketch[:BATCH])}


def speed(pair: Pair, codes: Tensor, sketch: Tensor) -> dict:
    """How many times as fast the turbo painter is as 50 steps of the other one."""
    quick = partial(paint, pair.turbo, codes, sketch)
    slow = partial(paint, pair.flow, codes, sketch)
    taken = timing.speed_ratio(quick, slow, codes.device, pairs=3)
    return {
        "speedup_over_50_steps": taken["ratio"],
        "seconds_16_pictures": taken["seconds_ours"],
        "seconds_16_pictures_50_steps": taken["seconds_theirs"],
        "clock": taken["clock"],
    }

"""How good painters are: pictures painted from the codes of test images, marked by the judge.

Notable choices
- A painter and the turbo painter that is distilled from it, if there is one, are measured together,
  and beside them the convolutional decoder, whose picture both start from.
- Fréchet distances depend on the number of pictures. All of them are taken at the same number, and
  so is that of real test images, which no painter can be asked to beat.
- `codes_kept` is the share of codes that come back when a painted picture is read again. Codes of
  one picture are lost together, so its interval is taken over pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoint
from ..datasets.table import DataSet, data_set_of
from ..files import find
from ..measure import timing
from ..measure.frechet import frechet_distance
from ..measure.intervals import fraction, mean_interval
from ..measure.judge import load_judge
from ..painter import Painter
from ..painting import paint
from ..vq import ImageTokenizer

MOST = 1000  # pictures of a Fréchet distance: 50 steps for each take a while
BATCH = 16  # pictures that are timed


@dataclass(frozen=True)
class Pair:
    """A painter, the turbo painter distilled from it if any, and the tokenizer of their codes."""

    flow: Painter  # paints in many small steps
    turbo: Painter | None  # in a few jumps
    tokenizer: ImageTokenizer
    data: DataSet

    def shown(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The codes of images, and what the convolutional decoder makes of them."""
        codes = torch.cat([self.tokenizer.encode(part) for part in images.split(250)])
        return codes, torch.cat([self.tokenizer.decode(part) for part in codes.split(250)])


def turbo_of(name: str | Path) -> str | Path | None:
    """Where the turbo painter of a painter is: called like it, with `-turbo` behind; or None."""
    path = Path(name)
    beside = path.with_name(f"{path.name}-turbo")
    if path.suffix == ".safetensors":
        beside = path.with_name(f"{path.stem}-turbo.safetensors")
    turbo = f"{name}-turbo" if checkpoint.shipped(name) else beside
    place = find(turbo, ".safetensors", "weights.safetensors")
    return turbo if place is not None and place.is_file() else None


def load_pair(name: str | Path, device: str) -> Pair:
    """A painter and its turbo painter, if it has one (`turbo_of`), by the name of either.

    A turbo painter's JSON names its source. `ValueError` unless it was distilled from these
    weights, and for codes of another tokenizer.
    """
    painter, info = checkpoint.load_model(name, Painter, device)
    source, turbo_name = (info["source"], name) if painter.config.turbo else (name, turbo_of(name))
    flow, flow_info = checkpoint.load_model(source, Painter, device)
    turbo = None
    if turbo_name is not None:
        turbo, turbo_info = checkpoint.load_model(turbo_name, Painter, device)
        if turbo_info.get("source_sha256") != flow_info["sha256"]:
            raise ValueError(
                f"{turbo_name} was not distilled from these weights of {source}; "
                "distil it again, or call it otherwise"
            )
    tokenizer, tokenizer_info = checkpoint.load_model(info["tokenizer"], ImageTokenizer, device)
    if tokenizer_info["sha256"] != info["tokenizer_sha256"]:
        raise ValueError(f"{name} paints the codes of another version of {info['tokenizer']}")
    return Pair(flow, turbo, tokenizer, data_set_of(info))


def evaluate_painter(
    name: str | Path, samples: int = 10_000, seed: int = 0, device: str = "cpu"
) -> dict:
    """How a painter paints the codes of at most `samples` test images; `ValueError` below 2."""
    if samples < 2:
        raise ValueError(f"an interval needs at least 2 pictures, got {samples}; measure more")
    pair = load_pair(name, device)
    judge, test = load_judge(device, pair.data.judge), pair.data.load("test")
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(test.labels), generator=generator)[:samples]
    images, labels = test.floats(chosen).to(device), test.labels[chosen].to(device)
    codes, sketch = pair.shown(images)
    report = {"model": str(name), "seed": seed, "device": device}
    pictures = {"_conv": sketch, "_real": images}
    # 1. a few jumps
    if pair.turbo is not None:
        painted = pictures[""] = paint(pair.turbo, codes, sketch, seed=seed)
        again, _ = pair.shown(painted)
        kept = (again == codes).flatten(1).float().mean(1)  # [N]
        report |= {
            "steps": pair.turbo.config.painting_steps,
            **fraction("judged_accuracy", judge.classify(painted) == labels),
            **mean_interval(kept).entries("codes_kept"),
            "psnr_db": float(-10 * (painted - images).square().mean().log10()),
            **speed(pair.flow, pair.turbo, codes, sketch),
        }
    # 2. the decoder, and many steps: the `painting_steps` of `flow`, 50 for those shipped
    report |= fraction("judged_accuracy_conv", judge.classify(sketch) == labels)
    n = min(MOST, len(labels))
    long = paint(pair.flow, codes[:n], sketch[:n], pair.flow.config.painting_steps, seed)
    pictures["_50_steps"] = long
    report |= fraction("judged_accuracy_50_steps", judge.classify(long) == labels[:n])
    # 3. how far all of them are from the test set
    everything = judge.features(test.floats().to(device))
    for suffix, part in pictures.items():
        report[f"frechet{suffix}"] = frechet_distance(judge.features(part[:n]), everything)
    return report | {"frechet_n": n}


def speed(flow: Painter, turbo: Painter, codes: Tensor, sketch: Tensor) -> dict:
    """How many times as fast the turbo painter is as 50 steps of the other one, for 16 pictures."""
    rows = torch.arange(BATCH) % len(codes)  # if there are fewer, some are painted again
    quick = partial(paint, turbo, codes[rows], sketch[rows])
    slow = partial(paint, flow, codes[rows], sketch[rows])
    taken = timing.speed_ratio(quick, slow, codes.device, pairs=3)
    return {
        "speedup_over_50_steps": taken["ratio"],
        "seconds_16_pictures": taken["seconds_ours"],
        "seconds_16_pictures_50_steps": taken["seconds_theirs"],
        "clock": taken["clock"],
    }

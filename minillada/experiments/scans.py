"""How many digits survive being scanned? The bars of reading pictures, measured.

Test digits become black-on-white scans of 300 px: rotated by up to 5 degrees, under a shadow, with
noise, stored as JPEG. The 8 x 8 digits of scikit-learn are read as they are. Right is what the
judge reads, and, beside it, the digit that the shipped model names in its caption.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..datasets import captions, mnist
from ..datasets.pictures import read
from ..extras.packages import load_package
from ..measure.intervals import share
from .runner import Experiment, Lab, Point, main

SIDE = 300  # pixels of a scan
DEGREES = 5.0  # rotation, at most
NOISE = 12.0  # standard deviation, of 255
SHADOW = 0.5  # so much of the light is missing at the darkest place
QUALITY = 50  # of the JPEG
WITHOUT = {"degrees": 0.0, "noise": 0.0, "shadow": 0.0, "quality": 95}


def scan(
    digit: numpy.ndarray, number: int, degrees: float, noise: float, shadow: float
) -> Image.Image:
    """A digit `[28, 28]` of bytes, white on black, as a scan: black ink on white paper."""
    random = numpy.random.default_rng(number)
    # 1. large, and turned
    ink = Image.fromarray(digit).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    ink = ink.rotate(random.uniform(-degrees, degrees), Image.Resampling.BICUBIC)
    page = numpy.asarray(ImageOps.invert(ink)).astype("float64")
    # 2. a shadow that falls across the page from a random side, with a soft edge in it
    y, x = numpy.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    angle = random.uniform(0, 2 * numpy.pi)
    along = x * numpy.cos(angle) + y * numpy.sin(angle)  # from about -0.7 to 0.7
    edge = 1 / (1 + numpy.exp(-(along - random.uniform(-0.3, 0.3)) / 0.08))
    dark = 0.5 * (along + 0.7) / 1.4 + 0.5 * edge
    page = (20 + 0.86 * page) * (1 - shadow * dark)
    # 3. the grain of the sensor
    page += random.normal(0, noise, page.shape)
    return Image.fromarray(page.clip(0, 255).astype("uint8"))


def measure_scans(
    lab: Lab, count: int, degrees: float, noise: float, shadow: float, quality: int
) -> dict:
    """The first `count` test digits, scanned, saved and read."""
    test, images = mnist.load_mnist("test"), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.jpg"
        for number in range(count):
            digit = test.pixels[number, 0, 2:30, 2:30].numpy()
            page = scan(digit, number, degrees, noise, shadow)
            page.save(path, quality=quality)
            images.append(read_or_nothing(path))
    return marks(lab, images, test.labels[:count])


def measure_small(lab: Lab, count: int) -> dict:
    """The first `count` digits of scikit-learn: 8 x 8 pixels, 17 greys, bright on black."""
    digits = load_package("sklearn.datasets", "scans").load_digits()
    images = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.png"
        for pixels in digits.images[:count]:
            Image.fromarray((pixels / 16 * 255).round().astype("uint8")).save(path)
            images.append(read_or_nothing(path))
    return marks(lab, images, torch.tensor(digits.target[:count]))


def read_or_nothing(path: Path) -> Tensor:
    """The picture as the model reads it; black where no digit was found."""
    try:
        return read(path)
    except ValueError:
        return torch.zeros(1, 32, 32)


def marks(lab: Lab, images: list[Tensor], labels: Tensor) -> dict:
    """Shares with both ends: no digit found, right for the judge, right in the caption."""
    pictures = torch.stack(images)
    said = []
    for caption in lab.load("mnist").describe(pictures):
        said.append(captions.parse(caption)[0])
    refused = int((pictures.flatten(1).amax(1) == 0).sum())
    judged = int((lab.judge().classify(pictures) == labels).sum())
    named = sum(digit == label for digit, label in zip(said, labels.tolist()))
    report: dict = {"refused": refused}
    for name, hits in (("judge", judged), ("caption", named)):
        report |= share(hits, len(labels)).entries(name)
    return report


def scans(name: str, **settings: float) -> Point:
    """A point of the scans, with these settings in place of those of a clean scan."""
    return Point(("scans", name), measure_scans, {"count": 500, **WITHOUT, **settings})


ALL = {"degrees": DEGREES, "noise": NOISE, "shadow": SHADOW, "quality": QUALITY}
POINTS = [
    scans("all together", **ALL),
    Point(("small", "scikit-learn, 8 x 8"), measure_small, {"count": 500}),
]
FACTS = {"side": SIDE, "bars": {"scans": 0.97, "small": 0.9}}
EXPERIMENT = Experiment(__file__, __doc__, POINTS, FACTS)

if __name__ == "__main__":
    main(EXPERIMENT)

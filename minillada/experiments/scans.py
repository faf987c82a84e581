"""How many digits survive being scanned, and what is refused? The bars of reading pictures.

Test digits become black-on-white scans of 300 px: rotated by up to 5 degrees, under a shadow, with
noise, stored as JPEG. The 8 x 8 digits of scikit-learn are read as they are. Right is what the
judge reads, and, beside it, the digit that the shipped model names in its caption. Photos, words
and shapes hold no digit: the share of them that is refused.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from ..datasets import captions, mnist
from ..datasets.cifar10 import load_cifar10_sample
from ..datasets.pictures import read
from ..extras.packages import load_package
from ..measure.intervals import share
from .runner import Experiment, Lab, Point, main

SIDE = 300  # pixels of a scan
DEGREES = 5.0  # rotation, at most
NOISE = 12.0  # standard deviation, of 255
SHADOW = 0.5  # so much of the light is missing at the darkest place
QUALITY = 50  # of the JPEG


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
    # Ink is not quite black, and paper not quite white: 20 to 239 of 255.
    page = (20 + 0.86 * page) * (1 - shadow * dark)
    # 3. the grain of the sensor
    page += random.normal(0, noise, page.shape)
    return Image.fromarray(page.clip(0, 255).astype("uint8"))


def measure_scans(
    lab: Lab, count: int, degrees: float, noise: float, shadow: float, quality: int
) -> dict:
    """The first `count` test digits, scanned, saved and read."""
    test, pages = mnist.load_mnist("test"), []
    for number in range(count):
        digit = test.pixels[number, 0, 2:30, 2:30].numpy()  # [28, 28], without the margin
        pages.append(scan(digit, number, degrees, noise, shadow))
    return marks(lab, read_pages(pages, "scan.jpg", quality=quality), test.labels[:count])


def measure_small(lab: Lab, count: int) -> dict:
    """The first `count` digits of scikit-learn: 8 x 8 pixels, 17 greys, bright on black."""
    digits = load_package("sklearn.datasets", "scans").load_digits()
    pixels = (digits.images[:count] / 16 * 255).round().astype("uint8")  # [count, 8, 8]
    pages = [Image.fromarray(digit) for digit in pixels]
    return marks(lab, read_pages(pages), torch.tensor(digits.target[:count]))


def measure_photos(lab: Lab, count: int) -> dict:
    """The first `count` shipped test photos of CIFAR-10."""
    photos = load_cifar10_sample("test").floats(slice(0, count))
    pixels = (255 * photos).round().byte().permute(0, 2, 3, 1).numpy()
    return share_refused([Image.fromarray(photo, "RGB") for photo in pixels])


def measure_words(lab: Lab, count: int) -> dict:
    """Words of random letters, printed."""
    random, pages = numpy.random.default_rng(0), []
    for _ in range(count):
        letters = random.choice(list(ascii_lowercase), random.integers(3, 10))
        page = Image.new("L", (SIDE, SIDE // 3), 255)
        font = ImageFont.load_default(int(random.integers(24, 49)))
        ImageDraw.Draw(page).text((20, 20), "".join(letters), 0, font=font)
        pages.append(page)
    return share_refused(pages)


def measure_shapes(lab: Lab, count: int) -> dict:
    """Filled and empty boxes, discs, triangles and zigzags in turn, of random sizes."""
    random = numpy.random.default_rng(0)
    return share_refused([shape(number, random) for number in range(count)])


def shape(number: int, random: numpy.random.Generator) -> Image.Image:
    """One of five kinds of shapes, dark on light."""
    page = Image.new("L", (SIDE, SIDE), 240)
    pencil = ImageDraw.Draw(page)
    left, top = random.integers(20, 140, 2).tolist()
    width, height = random.integers(60, 140, 2).tolist()
    box = [left, top, left + width, top + height]
    points = random.integers(10, SIDE - 10, 16).tolist()  # x and y of eight places
    kind = number % 5
    if kind == 0:
        pencil.rectangle(box, fill=30)
    elif kind == 1:
        pencil.rectangle(box, outline=30, width=14)
    elif kind == 2:
        pencil.ellipse(box, fill=30)
    elif kind == 3:
        pencil.polygon(points[:6], fill=30)
    else:
        pencil.line(points, fill=30, width=12)
    return page


def share_refused(pages: list[Image.Image]) -> dict:
    """The share of pictures in which no digit is found, with both ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that colours are not read
        images = read_pages(pages)
    return share(count_empty(images), len(pages)).entries("refused")


def read_pages(pages: list[Image.Image], name: str = "page.png", **saving: Any) -> Tensor:
    """Pictures that were saved as files, as the model reads them: `[N, 1, 32, 32]`.

    Where no digit is found, the picture is black.
    """
    images = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        for page in pages:
            page.save(path, **saving)
            try:
                images.append(read(path))
            except ValueError:
                images.append(torch.zeros(1, 32, 32))
    return torch.stack(images)


def count_empty(images: Tensor) -> int:
    """How many of `[N, 1, 32, 32]` are black."""
    return int((images.flatten(1).amax(1) == 0).sum())


def marks(lab: Lab, images: Tensor, labels: Tensor) -> dict:
    """How many images hold no digit, and two shares: right for the judge, right in the caption."""
    said = [captions.parse(caption)[0] for caption in lab.load("mnist").describe(images)]
    judged = int((lab.judge().classify(images) == labels).sum())
    named = sum(digit == label for digit, label in zip(said, labels.tolist()))
    report: dict = {"refused": count_empty(images)}
    for name, hits in (("judge", judged), ("caption", named)):
        report |= share(hits, len(labels)).entries(name)
    return report


ALL = {"count": 500, "degrees": DEGREES, "noise": NOISE, "shadow": SHADOW, "quality": QUALITY}
POINTS = [
    Point(("scans", "all together"), measure_scans, ALL),
    Point(("small", "scikit-learn, 8 x 8"), measure_small, {"count": 500}),
    Point(("nothing", "photos"), measure_photos, {"count": 1000}),
    Point(("nothing", "words"), measure_words, {"count": 100}),
    Point(("nothing", "shapes"), measure_shapes, {"count": 100}),
]
FACTS = {"side": SIDE, "bars": {"scans": 0.97, "small": 0.9}}
EXPERIMENT = Experiment(__file__, __doc__, POINTS, FACTS)

if __name__ == "__main__":
    main(EXPERIMENT)

"""The data sets by name, as presets name them, and what each of them offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import captions, cifar10, colour, edits, mnist
from .edits import Operation
from .grammar import Grammar
from .images import Images


@dataclass(frozen=True)
class DataSet:
    """How a data set is read, what its captions say, and how its images can be edited."""

    name: str
    load: Callable[[str], Images]  # of "train" or "test"
    checksums: dict[str, str]  # MD5 of its files or splits; the JSON of a run keeps them
    grammar: Grammar
    classes: Callable[[Tensor, Tensor], Tensor]  # images and labels -> classes [B, columns]
    measures: dict[str, Callable[[Tensor], Tensor]]  # finer than classes: images -> numbers [B]
    operations: dict[str, Operation]
    # Mean squared difference up to which results of two operations are not told apart. A thick
    # digit and its mirror image differ by about 0.1. Of sample photos whose caption names a colour,
    # 94 % differ from their grey copy by more than 0.002.
    alike: float
    judge: str  # the weights that mark what is drawn
    flips: bool  # whether a mirrored image shows the same
    stored: str  # file with the columns of both splits, and codes where there are some (`pool.py`)
    digits: bool = False  # whether a picture file is a handwritten digit, or anything (`pictures`)


def digit_classes(images: Tensor, labels: Tensor) -> Tensor:
    """`[B, 3]`: digit, thickness and slant class, also of digits that are black on white."""
    dark = images.mean((1, 2, 3), keepdim=True) < 0.5
    # Strokes are measured white on black.
    return captions.caption_classes(torch.where(dark, images, 1 - images), labels)


# The loaders are looked up at every call, so that a test can put others in their place.
def load_digits(split: str) -> Images:
    return mnist.load_mnist(split)


def load_photos(split: str) -> Images:
    return cifar10.load_cifar10(split)


MNIST = DataSet(
    name="mnist",
    load=load_digits,
    checksums=mnist.MNIST_MD5,
    grammar=captions.GRAMMAR,
    classes=digit_classes,
    measures={"slant_degrees": captions.slant},
    operations=edits.OPERATIONS,
    alike=0.01,
    judge="mnist-judge",
    flips=False,
    stored="mnist/columns.safetensors",
    digits=True,
)
CIFAR10 = DataSet(
    name="cifar10",
    load=load_photos,
    checksums=cifar10.CIFAR10_MD5,
    grammar=colour.GRAMMAR,
    classes=colour.caption_classes,
    measures={"luma": colour.brightness},
    operations=edits.COLOUR_OPERATIONS,
    alike=0.001,
    judge="cifar-judge",
    flips=True,
    stored="cifar10/codes.safetensors",
)
DATASETS = {data.name: data for data in (MNIST, CIFAR10)}


def named(name: str) -> DataSet:
    """The data set of a name; `ValueError` if there is none."""
    if name not in DATASETS:
        raise ValueError(
            f"no data set is called {name!r}; choose {' or '.join(DATASETS)}, or start the script "
            "that adds one of your own"
        )
    return DATASETS[name]


def data_set_of(info: dict) -> DataSet:
    """The data set that a model learned from, as the JSON beside its weights says."""
    return named(info.get("dataset", "mnist"))  # older files do not say it

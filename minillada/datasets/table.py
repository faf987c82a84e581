"""The data sets by name, as presets name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from . import captions, cifar10, colour, edits, mnist
from .edits import Operation
from .grammar import Grammar
from .images import Images


class DataSet(NamedTuple):
    """How a data set is read, what its captions say, and how its images can be edited."""

    load: Callable[[str], Images]  # of "train" or "test"
    checksums: dict[str, str]
    grammar: Grammar
    classes: Callable[[Tensor, Tensor], Tensor]  # images and labels -> a class of each column
    operations: dict[str, Operation]


def digit_classes(images: Tensor, labels: Tensor) -> Tensor:
    """`[B, 3]`: digit, thickness and slant class, also of digits that are black on white."""
    dark = images.mean((1, 2, 3), keepdim=True) < 0.5
    # Strokes are measured white on black.
    return captions.caption_classes(torch.where(dark, images, 1 - images), labels)


DATASETS = {
    "mnist": DataSet(
        mnist.load_mnist, mnist.MNIST_MD5, captions.GRAMMAR, digit_classes, edits.OPERATIONS
    ),
    "cifar10": DataSet(
        cifar10.load_cifar10,
        cifar10.CIFAR10_MD5,
        colour.GRAMMAR,
        colour.caption_classes,
        edits.COLOUR_OPERATIONS,
    ),
}

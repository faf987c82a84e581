"""MNIST as tensors: the files shipped in `data/`, else a torchvision download, verified by checksum either way.

Notable choices
- Both sources hold the same bytes (the MD5 sums of the original IDX files are checked at every load), so which one
  served is invisible to everything downstream. The shipped copy comes first because it needs no network.
- Digits are padded from 28 to 32 px so that MNIST and CIFAR-10 share every shape.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..files import DATA_DIR

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


class Images(NamedTuple):
    """`pixels` uint8 `[N, C, H, W]`, `labels` int64 `[N]`."""

    pixels: Tensor
    labels: Tensor

    def floats(self, index=slice(None)) -> Tensor:
        """Pixels as float32 in [0, 1], `[n, C, H, W]`; kept as bytes until then because 60,000 floats images are 245 MB."""
        return self.pixels[index].float() / 255


def load_mnist(split: str = "train", root: Path | None = None) -> Images:
    """MNIST `train` (60,000) or `test` (10,000), padded to 32 x 32 with black.

    Raises `FileNotFoundError` if neither the shipped files nor a download can be had and `ValueError` if a file's
    bytes are not those of the original data set.
    """
    if split not in ("train", "test"):
        raise ValueError(f"MNIST has the splits 'train' and 'test', not {split!r}")
    prefix = "train" if split == "train" else "t10k"
    images, labels = (_idx_bytes(f"{prefix}-{kind}", root or DATA_DIR) for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    # IDX format: a header of 4 big-endian words for images (magic, count, rows, columns), 2 for labels, then the bytes.
    pixels = torch.frombuffer(bytearray(images), dtype=torch.uint8, offset=16).view(-1, 1, 28, 28)
    return Images(F.pad(pixels, (2, 2, 2, 2)), torch.frombuffer(bytearray(labels), dtype=torch.uint8, offset=8).long())


def _idx_bytes(name: str, root: Path) -> bytes:
    path = root / "mnist" / f"{name}.gz"
    if not path.exists():
        path = _download(root) / f"{name}.gz"
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error):
        content = b""  # a truncated or foreign file fails the checksum below like any other damage
    if hashlib.md5(content).hexdigest() != MNIST_MD5[name]:
        raise ValueError(f"{path} is damaged (wrong checksum); delete it, then restore it with `git checkout` or run again to download it")
    return content


def _download(root: Path) -> Path:
    """Fetch the four files through torchvision into `root/mnist` and return that folder.

    Each file goes to a temporary folder first and moves only when complete, so an interruption leaves nothing behind.
    """

    try:
        from torchvision.datasets import MNIST

        (root / "mnist").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            dataset = MNIST(scratch, download=True)
            for path in Path(dataset.raw_folder).glob("*.gz"):
                shutil.move(path, root / "mnist" / path.name)
    except (ImportError, OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"MNIST is neither in {root / 'mnist'} nor can it be downloaded ({type(error).__name__}); "
            "restore the shipped files with `git checkout -- data`, or connect to the internet"
        ) from None
    return root / "mnist"

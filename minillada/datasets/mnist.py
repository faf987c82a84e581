"""MNIST as tensors: the files shipped in `data/`, or else a torchvision download.

Notable choices
- Both sources hold the same bytes. The MD5 sums of the original IDX files are checked at every
  load, so it does not matter which one served. The shipped copy comes first: it needs no network.
- Digits are padded from 28 to 32 px so that MNIST and CIFAR-10 share every shape.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tempfile
import zlib
from pathlib import Path

import torch
import torch.nn.functional as F

from ..files import DATA_DIR, need_data
from .images import Images

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def load_mnist(split: str = "train", root: Path | None = None) -> Images:
    """MNIST `train` (60,000) or `test` (10,000), padded to 32 x 32 with black.

    `root` is the folder in which `mnist/` stands; None: the data folder. `FileNotFoundError` if
    neither these files nor a download can be had, `ValueError` if the bytes are not the original's.
    """
    if split not in ("train", "test"):
        raise ValueError(f"MNIST has the splits 'train' and 'test', not {split!r}")
    if root is None:
        need_data()
    prefix = "train" if split == "train" else "t10k"
    images = bytearray(idx_bytes(f"{prefix}-images-idx3-ubyte", root or DATA_DIR))
    labels = bytearray(idx_bytes(f"{prefix}-labels-idx1-ubyte", root or DATA_DIR))
    # The IDX format begins with big-endian words of 4 bytes: four for images (magic number, count,
    # rows, columns), two for labels (magic number, count). The bytes follow. `frombuffer` makes no
    # copy of them and wants memory that may be written to, hence `bytearray`.
    pixels = torch.frombuffer(images, dtype=torch.uint8, offset=16).view(-1, 1, 28, 28)
    classes = torch.frombuffer(labels, dtype=torch.uint8, offset=8).long()
    return Images(F.pad(pixels, (2, 2, 2, 2)), classes)


def idx_bytes(name: str, root: Path) -> bytes:
    """The content of one of the four files, checked; it is downloaded if it is not there."""
    path = root / "mnist" / f"{name}.gz"
    if not path.exists():
        download(root)
    packed = path.read_bytes()  # not in `try`: PermissionError, an OSError, means no damage
    try:
        content = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error):
        content = b""  # a truncated or foreign file fails the checksum like any other damage
    if hashlib.md5(content).hexdigest() != MNIST_MD5[name]:
        raise ValueError(
            f"{path} is damaged (wrong checksum); delete it, then restore it with `git checkout` "
            "or run again to download it"
        )
    return content


def download(root: Path) -> None:
    """Fetch the four files through torchvision into `root/mnist`.

    Each goes to a temporary folder and moves when it is complete: none is ever half-written.
    """
    folder = root / "mnist"
    try:
        from torchvision.datasets import MNIST

        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            dataset = MNIST(scratch, download=True)
            for path in Path(dataset.raw_folder).glob("*.gz"):
                shutil.move(path, folder / path.name)
    except (ImportError, OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"MNIST is neither in {folder} nor can it be downloaded ({type(error).__name__}); "
            "restore the shipped files with `git checkout -- data`, or connect to the internet"
        ) from None

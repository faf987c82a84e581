"""CIFAR-10 as tensors: a local copy, or else a download; and the sample shipped in `data/`.

Notable choices
- Images stand in the order of the official binary version. The shipped codes (`pool.py`) stand in
  the same order, so the MD5 sum over pixels and labels is checked at every load.
- The binary archive is read, not the Python one: it holds bytes alone, no pickled objects, which
  could run code.
- The download becomes one file, `data/cifar10/cifar10.safetensors`, which is not part of the
  repository. It appears when it is complete; an interrupted download leaves nothing behind.
- The sample (100 training and 100 test images of each class) is shipped as PNG, which keeps every
  pixel, so it needs no network. It is enough to look at and to try things on, not to train on.
"""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from pathlib import Path

import numpy
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import DATA_DIR, atomic, need_data
from .images import Images

# The official names, in the order of the labels.
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
VEHICLES = ("airplane", "automobile", "ship", "truck")  # the others are animals

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
FILES = {"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]}
COUNTS = {"train": 50_000, "test": 10_000}
SHAPE = (3, 32, 32)  # red, green and blue planes; a record is one label and these bytes

# MD5 of the bytes of all pixels [N, 3, 32, 32] and then of all labels [N].
CIFAR10_MD5 = {
    "train": "a9cd0507218afb3020015e860ff15ba5",
    "test": "e04629dc376c0034f75acdccb3643e5d",
}
SAMPLE_MD5 = {
    "train": "81587900264f2d0defdcbc3632ad8e87",
    "test": "12598ba91cb14edda71eba341017e283",
}
SAMPLE_EACH = 100  # images of each class
# Used in place of a file that cannot be decoded: its checksum is wrong, so loading refuses it.
NO_IMAGES = Images(torch.zeros(0, *SHAPE, dtype=torch.uint8), torch.zeros(0, dtype=torch.uint8))


def load_cifar10(split: str = "train", root: Path | None = None) -> Images:
    """CIFAR-10 `train` (50,000) or `test` (10,000), `[N, 3, 32, 32]`.

    Raises `FileNotFoundError` if there is neither a local copy nor a network, and `ValueError` if
    the pixels are not those of the original data set, in its order.
    """
    check_split(split)
    if root is None:
        need_data()
    path = (root or DATA_DIR) / "cifar10" / "cifar10.safetensors"
    if not path.exists():
        download(path)
    path.open("rb").close()  # not in `try`: PermissionError, an OSError, means no damage
    try:
        with safe_open(path, "pt") as file:
            images = Images(file.get_tensor(f"{split}_pixels"), file.get_tensor(f"{split}_labels"))
    except (SafetensorError, OSError):
        images = NO_IMAGES
    if digest(images) != CIFAR10_MD5[split]:
        raise ValueError(f"{path} is damaged (wrong checksum); delete it and run again")
    return images._replace(labels=images.labels.long())


def load_cifar10_sample(split: str = "train", root: Path | None = None) -> Images:
    """The 1,000 shipped images of a split, 100 of each class: image i has label i mod 10.

    Raises `FileNotFoundError` if the file is missing, and `ValueError` if it is damaged.
    """
    check_split(split)
    path = (root or DATA_DIR) / "cifar10" / f"sample-{split}.png"
    restore = "restore it with `git checkout -- data`"
    if not path.exists():
        raise FileNotFoundError(f"the sample of CIFAR-10 is not at {path}; {restore}")
    path.open("rb").close()  # not in `try`, as in `load_cifar10`
    labels = torch.arange(len(CLASSES)).repeat(SAMPLE_EACH)
    try:
        with Image.open(path) as file:
            images = Images(from_sheet(torch.from_numpy(numpy.array(file))), labels)
    except (OSError, SyntaxError, RuntimeError):
        images = NO_IMAGES
    if digest(images) != SAMPLE_MD5[split]:
        raise ValueError(f"{path} is damaged (wrong checksum); {restore}")
    return images


def load_cifar10_or_sample(split: str = "train") -> Images:
    """The whole split where it is on this machine already, else the sample. No download."""
    if (DATA_DIR / "cifar10" / "cifar10.safetensors").exists():
        return load_cifar10(split)
    return load_cifar10_sample(split)


def check_split(split: str) -> None:
    if split not in FILES:
        raise ValueError(f"CIFAR-10 has the splits 'train' and 'test', not {split!r}")


def digest(images: Images) -> str:
    """MD5 of pixels and labels; it depends on the order of the images."""
    md5 = hashlib.md5(images.pixels.contiguous().numpy().tobytes())
    md5.update(images.labels.byte().numpy().tobytes())
    return md5.hexdigest()


def from_sheet(sheet: Tensor) -> Tensor:
    """Images of a picture `[320, 3200, 3]`, one row a class. `RuntimeError`: another size."""
    grid = sheet.reshape(len(CLASSES), 32, SAMPLE_EACH, 32, 3)
    return grid.permute(2, 0, 4, 1, 3).reshape(-1, *SHAPE)  # [100, 10, 3, 32, 32]: in turn


# --- the download --------------------------------------------------------------------------------


def download(path: Path) -> None:
    """Fetch the official binary archive and write its images to `path`, complete or not at all."""
    try:
        from torchvision.datasets.utils import download_url

        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            archive = Path(scratch) / "cifar-10-binary.tar.gz"
            download_url(URL, scratch, archive.name, ARCHIVE_MD5)
            tensors = read_archive(archive)
    except (ImportError, OSError, RuntimeError, tarfile.TarError) as error:
        raise FileNotFoundError(
            f"CIFAR-10 is neither at {path} nor can it be downloaded ({type(error).__name__}); "
            "connect to the internet, or use what needs no pixels: the shipped sample and codes"
        ) from None
    with atomic(path) as temporary:
        save_file(tensors, temporary)


def read_archive(archive: Path) -> dict[str, Tensor]:
    """`{split}_pixels` `[N, 3, 32, 32]` and `{split}_labels` `[N]` of both splits, as bytes."""
    tensors = {}
    with tarfile.open(archive) as tar:
        members = {Path(member.name).name: member for member in tar}
        for split, names in FILES.items():
            content = bytearray()
            for name in names:
                file = tar.extractfile(members[name]) if name in members else None
                if file is None:
                    raise OSError(f"{archive} has no file {name}")
                content += file.read()
            records = torch.frombuffer(content, dtype=torch.uint8).view(COUNTS[split], -1)
            tensors[f"{split}_labels"] = records[:, 0].clone()
            tensors[f"{split}_pixels"] = records[:, 1:].reshape(-1, *SHAPE).clone()
    return tensors

"""The images of one split, found by what they show.

Notable choices
- What an image shows stands in named columns, one class for each image. MNIST has the columns
  digit, thickness and slant, CIFAR-10 label, brightness and colour. The classes of an image in all
  columns are its *kind*, such as (7, 1, 2).
- Measures are numbers beside the classes, which say more: the slant in degrees.
- Columns and measures of both splits are stored, because measuring 60,000 images takes seconds. For
  CIFAR-10 the codes of all images are stored with them. So a backbone can be trained from a bare
  clone: pixels are read when somebody asks for them, and not before.
- Labels and codes are checked whenever they are read, as pixels are. A wrong bit would be learned,
  and it would mark right answers as wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from random import Random

import torch
from torch import Tensor

from .. import checkpoint
from ..files import DATA_DIR, check_writable
from ..vq import Tokenizer
from .images import Images
from .table import MNIST, DataSet

BATCH = 500  # images measured at once; with 5,000, each step of a measure would fill 80 MB


class Pool:
    """Images, each with one class in each of the `columns` and one number in each measure.

    `images` may be a function that loads them when they are needed. `codes` `[N, h, w]` are those
    of a tokenizer, if they are known; `made_by` is the SHA-256 of its weights.
    """

    def __init__(
        self,
        images: Images | Callable[[], Images],
        columns: dict[str, list[int]],
        measures: dict[str, list[float]] | None = None,
        data: DataSet = MNIST,
        codes: Tensor | None = None,
        made_by: str = "",
    ):
        self.source, self.columns, self.measures = images, columns, measures or {}
        self.data, self.codes, self.made_by = data, codes, made_by
        self.moved: Tensor | None = None  # codes of moved images (`training/stream.py`)
        self.label = next(iter(columns))  # the column of the label, such as digit
        # kind, such as digit 7, thickness 1, slant 2 -> indices of its images
        self.members: dict[tuple[int, ...], list[int]] = {}
        for index, kind in enumerate(zip(*columns.values())):
            self.members.setdefault(kind, []).append(index)

    def __len__(self) -> int:
        return len(self.columns[self.label])

    @cached_property
    def images(self) -> Images:
        """The pixels. `FileNotFoundError` if they are neither here nor can be downloaded."""
        return self.source if isinstance(self.source, Images) else self.source()

    def classes(self, index: int) -> list[int]:
        """The class of an image in each column."""
        return [column[index] for column in self.columns.values()]

    def kinds(self, **wanted: int | None) -> list[tuple[int, ...]]:
        """The kinds of image that have the wanted class in each named column; None: any class."""
        self.check_columns(wanted)
        asked = [wanted.get(name) for name in self.columns]  # in the order of a kind
        return [k for k in self.members if all(a in (None, c) for a, c in zip(asked, k))]

    def pick(self, rng: Random, **wanted: int | None) -> int:
        """Index of a random image of the wanted class in each named column; None: any class.

        Raises `ValueError` if the pool has no such image or no such column.
        """
        # 1. the kinds of image that fit
        self.check_columns(wanted)
        asked = [f"{name} {value}" for name, value in wanted.items() if value is not None]
        if not asked:
            return rng.randrange(len(self))
        kinds = self.kinds(**wanted)
        if not kinds:
            raise ValueError(f"no image of this split has {', '.join(asked)}; use a larger split")
        # 2. a kind, as often as it occurs, and one of its images: all that fit are equally likely
        sizes = [len(self.members[kind]) for kind in kinds]
        [kind] = rng.choices(kinds, sizes)
        return rng.choice(self.members[kind])

    def check_columns(self, wanted: dict[str, int | None]) -> None:
        """`ValueError` for a name that no column has."""
        for name in wanted.keys() - self.columns.keys():
            columns = ", ".join(self.columns)
            raise ValueError(f"this pool has no column {name!r}; choose from {columns}")

    def pick_nearest(self, rng: Random, index: int, measure: str, **wanted: int | None) -> int:
        """Of four random images of the wanted classes, the one nearest to `index` by a measure.

        Classes are coarse: digits of one class of slant may lean by quite different angles. The
        nearest of all images would be more alike. But if image `index` lies near the edge of its
        class, that one would, too.
        """
        numbers = self.measures[measure]
        best = self.pick(rng, **wanted)
        for _ in range(3):
            other = self.pick(rng, **wanted)
            if abs(numbers[other] - numbers[index]) < abs(numbers[best] - numbers[index]):
                best = other
        return best


# --- measured ------------------------------------------------------------------------------------


def measured(data: DataSet, images: Images) -> dict[str, Tensor]:
    """Every column (int64) and every measure (float32) of images, `[N]` each, by its name."""
    parts: dict[str, list[Tensor]] = {name: [] for name in (*data.grammar.words, *data.measures)}
    for start in range(0, len(images.labels), BATCH):
        rows = slice(start, start + BATCH)
        pixels = images.floats(rows)  # [n, C, H, W]
        classes = data.classes(pixels, images.labels[rows])  # [n, columns]
        for name, column in zip(data.grammar.words, classes.unbind(1)):
            parts[name].append(column)
        for name, measure in data.measures.items():
            parts[name].append(measure(pixels))
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def measured_pool(data: DataSet, images: Images) -> Pool:
    """The pool of any images of a data set."""
    return from_tensors(data, images, measured(data, images))


def mnist_pool(images: Images) -> Pool:
    """The pool of some digits: digits from the labels, thickness and slant from the pixels."""
    return measured_pool(MNIST, images)


def from_tensors(
    data: DataSet,
    images: Images | Callable[[], Images],
    tensors: dict[str, Tensor],
    made_by: str = "",
) -> Pool:
    """A pool of what `measured` gives, and of `codes` `[N, h, w]` if they are among it."""
    columns = {name: tensors[name].tolist() for name in data.grammar.words}
    measures = {name: tensors[name].tolist() for name in data.measures}
    return Pool(images, columns, measures, data, tensors.get("codes"), made_by)


# --- stored --------------------------------------------------------------------------------------


def stored_pool(data: DataSet, split: str, path: Path | None = None) -> Pool:
    """The pool of a split, from the shipped file; without a file, its images are measured.

    `ValueError` if the file is damaged or belongs to another version of the data. To notice damage,
    a digest of all its other content stands in the file.
    """
    path = path or DATA_DIR / data.stored
    if not path.exists():
        return measured_pool(data, data.load(split))
    try:
        stored, about = checkpoint.read_tensors(path)
    except (ValueError, FileNotFoundError):
        stored, about = {}, {}
    digest = about.pop("digest", None)
    whole = digest == checkpoint.tensors_digest(stored, about)
    tensors = {}
    for key, tensor in stored.items():
        if key.startswith(f"{split}_"):
            values = tensor if tensor.is_floating_point() else tensor.long()
            tensors[key.removeprefix(f"{split}_")] = values
    if not (whole and {*data.grammar.words, *data.measures} <= tensors.keys()):
        raise ValueError(
            f"{path} is damaged or of another version; restore it with `git checkout -- data`, or "
            f"make it again with `minillada encode {data.name}`"
        )
    images = partial(data.load, split)  # read when somebody asks for them
    return from_tensors(data, images, tensors, about.get("tokenizer_sha256", ""))


def store_pools(
    data: DataSet,
    tokenizer: Tokenizer | None = None,  # None: columns and measures alone
    about: dict[str, str] | None = None,  # the tokenizer's name and SHA-256
    path: Path | None = None,
) -> Path:
    """Write what `stored_pool` reads, for both splits; returns the path of the file."""
    tensors, path, about = {}, path or DATA_DIR / data.stored, about or {}
    check_writable(path, "choose another file with --out")  # before minutes of work
    for split in ("train", "test"):
        images = data.load(split)
        for name, values in measured(data, images).items():
            # A byte each is enough for classes below 256.
            small = values if values.is_floating_point() else values.byte()
            tensors[f"{split}_{name}"] = small if (small == values).all() else values
        if tokenizer is not None:
            device, parts = tokenizer.embedding.device, []
            for rows in torch.arange(len(images.labels)).split(BATCH):
                parts.append(tokenizer.encode(images.floats(rows).to(device)).cpu())
            dtype = torch.uint16 if len(tokenizer.embedding) <= 2**16 else torch.int32
            tensors[f"{split}_codes"] = torch.cat(parts).to(dtype)
    about = about | {"digest": checkpoint.tensors_digest(tensors, about)}
    checkpoint.save_tensors(path, tensors, about)
    return path

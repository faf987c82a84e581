"""The weight files of the official backbone: found by their index, checked, and read in pieces.

Notable choices
- The index and the headers of all files are compared before a number is read: every tensor is in
  the file that the index names, and nowhere else. File names that lead out of the folder are
  refused.
- Numbers are read in pieces of a few MB, checked while they are in the processor's cache, and put
  where they belong. So memory holds the weights once.
- Where the files would fill the memory, the system is told to forget what was read. Their pages
  would push out others, and new pages cost more time than reading.
- What is read is compared with its checksum, where one is known (`sums.py`).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .free import linux_memory
from .reading import TYPES, check_type, find, read_json
from .sums import SUMS, check_sum

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PIECE = 2**20  # bytes read at once: fits into the cache of a processor


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its name there, its shape and type, and at which bytes it lies."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    begin: int
    end: int


# --- what there is -------------------------------------------------------------------------------


def read_header(path: Path) -> list[Stored]:
    """The tensors of a safetensors file, in the order of their bytes.

    `ValueError` if the file is damaged, or stores types that need scales to be understood.
    """
    try:
        # The library compares sizes, types and places with each other and with the file's length.
        with safe_open(path, "np") as file:
            file.keys()
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error})") from None
    found = []
    for key, about in header.items():
        if key == "__metadata__":
            continue
        check_type(about["dtype"], key, path)
        # Offsets are counted from the end of the header; its length takes 8 bytes.
        begin, end = (8 + length + offset for offset in about["data_offsets"])
        shape = tuple(about["shape"])
        found.append(Stored(path, key, shape, TYPES[about["dtype"]], begin, end))
    return sorted(found, key=lambda stored: stored.begin)


def stored_tensors(folder: Path) -> list[Stored]:
    """Every tensor of the backbone's files, file by file. `ValueError` for faults of the index."""
    path = find(folder, INDEX, SINGLE)
    if path.name == SINGLE:
        return read_header(path)
    where = read_index(path)
    found = []
    for name in sorted(set(where.values())):
        header = read_header(find(folder, name))
        keys = {stored.key for stored in header}
        named = {key for key in where if where[key] == name}
        if keys != named:
            key = min(keys ^ named)
            problem = "does not hold" if key in named else "holds, against the index,"
            raise ValueError(f"{folder / name} {problem} {key}; download {name} and {INDEX} again")
        found += header
    size = sum(stored.end - stored.begin for stored in found)
    total = read_json(path).get("metadata", {}).get("total_size", size)
    if total != size:
        raise ValueError(f"{path} speaks of {total} bytes, and its files hold {size}")
    return found


def read_index(path: Path) -> dict[str, str]:
    """Tensor -> file. `ValueError` for a file outside of the folder of the index."""
    index = read_json(path)
    where, about = index.get("weight_map"), index.get("metadata", {})
    if not isinstance(where, dict) or not where or not isinstance(about, dict):
        raise ValueError(f"{path} has no weight_map from tensors to files; download it again")
    for key, name in where.items():
        if not is_bare_name(name):
            raise ValueError(
                f"{path} puts {key} into {name!r}, which is not a safetensors file beside it"
            )
    return where


def is_bare_name(name: object) -> bool:
    """Whether this is the bare name of a safetensors file, on every system."""
    return (
        isinstance(name, str)
        and PurePosixPath(name).name == name
        and PureWindowsPath(name).name == name
        and name.endswith(".safetensors")
        and name.isprintable()
    )


# --- numbers -------------------------------------------------------------------------------------


def read_file(
    path: Path,
    tensors: Iterable[Stored],
    place: Callable[[Stored, int, Tensor], None],
    sums: dict[str, str],
    forget: bool = False,
) -> None:
    """Read a file from its first byte to its last, and give every piece of a tensor to `place`.

    `tensors` are all of the file, in the order of their bytes: the checksum is that of the whole.
    `place` gets the tensor, at which of its numbers the piece begins, and the piece: whole rows,
    which it must copy. With `forget` the system need not keep what was read. `ValueError` for NaN,
    infinity, and another checksum than that in `sums`.
    """
    if sums and path.name not in sums:
        raise ValueError(f"{path.parent / SUMS} does not name {path.name}; make it again")
    digest = hashlib.sha256()
    forgotten = 0  # bytes from the start that the system was told to forget
    buffer = torch.empty(PIECE, dtype=torch.uint8)
    with open(path, "rb", buffering=0) as file:
        length = int.from_bytes(file.read(8), "little")  # of the header
        file.seek(0)
        if sums:
            digest.update(file.read(8 + length))
        for stored in tensors:
            file.seek(stored.begin)
            row = stored.shape[-1] * stored.dtype.itemsize
            size = max(PIECE // row, 1) * row  # whole rows
            buffer = buffer if len(buffer) >= size else torch.empty(size, dtype=torch.uint8)
            for begin in range(stored.begin, stored.end, size):
                piece = buffer[: min(size, stored.end - begin)]
                if file.readinto(piece.numpy().data) != len(piece):
                    raise ValueError(f"{path} ends too early; download it again")
                if sums:
                    digest.update(piece.numpy().data)
                numbers = piece.view(stored.dtype)
                check_finite(numbers, stored)
                place(stored, (begin - stored.begin) // stored.dtype.itemsize, numbers)
                if forget and begin - forgotten > 16 * PIECE:
                    os.posix_fadvise(file.fileno(), 0, begin, os.POSIX_FADV_DONTNEED)
                    forgotten = begin
    if sums:
        check_sum(path, sums[path.name], digest.hexdigest())


def would_fill_memory(tensors: Iterable[Stored]) -> bool:
    """Whether the files would fill more than half of the free memory if the system kept them."""
    free = linux_memory("MemFree")
    if free is None or not hasattr(os, "posix_fadvise"):
        return False  # then it is not known, or the system cannot be told
    return sum(stored.end - stored.begin for stored in tensors) / 1e9 > free / 2


def check_finite(numbers: Tensor, stored: Stored) -> None:
    """`ValueError` for NaN or infinity."""
    # Smallest and largest number: one pass without a copy; with a NaN both are NaN.
    low, high = torch.aminmax(numbers)
    if not (low.isfinite() and high.isfinite()):
        raise ValueError(f"{stored.path}: {stored.key} holds NaN or infinity; download it again")


def by_file(tensors: Iterable[Stored]) -> Iterator[tuple[Path, list[Stored]]]:
    """The tensors of one file after the other, in the order of their bytes."""
    files: dict[Path, list[Stored]] = {}
    for stored in tensors:
        files.setdefault(stored.path, []).append(stored)
    for path, inside in files.items():
        yield path, sorted(inside, key=lambda stored: stored.begin)


def mapped_tensors(path: Path, tensors: Iterable[Stored]) -> dict[str, Tensor]:
    """Tensors that are views of their file: the system reads a page when it is needed.

    They cannot be changed, and the file must not change either.
    """
    with open(path, "rb") as file:
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    views = {}
    with warnings.catch_warnings():
        # PyTorch warns that writing would crash. Nobody writes: these tensors take no gradients.
        warnings.simplefilter("ignore", UserWarning)
        for stored in tensors:
            count = (stored.end - stored.begin) // stored.dtype.itemsize
            flat = torch.frombuffer(view, dtype=stored.dtype, count=count, offset=stored.begin)
            views[stored.key] = flat.view(stored.shape)
    return views

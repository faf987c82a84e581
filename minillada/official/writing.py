"""Random safetensors files of any size, written number by number with little memory.

Notable choices
- A tensor is made of pieces with names, and a piece's numbers depend on the seed and its name
  alone. The same weights therefore come out in every layout (experts apart or fused, with another
  prefix, in few shards or many).
- The format is simple: eight bytes with the length of a JSON header, the header (type, shape and
  place of every tensor), then the numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..files import atomic

CHUNK = 2**22  # numbers made at once: 16 MB in float32
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16"}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file; `pieces` are stacked along its first dimension (none: it is whole)."""

    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.bfloat16
    pieces: tuple[str, ...] = field(default=(), repr=False)

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.count * self.dtype.itemsize


def numbers(entry: Entry, seed: int) -> Iterator[Tensor]:
    """The numbers of an entry in order, at most `CHUNK` at once.

    Matrices have the spread 1 / √inputs, norms lie around 1, other vectors around 0.
    """
    shape = entry.shape[1:] if entry.pieces else entry.shape
    for name in entry.pieces or (entry.key,):
        is_norm = len(shape) == 1 and name.endswith("weight")
        mean = 1.0 if is_norm else 0.0
        std = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.02
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7]))  # 8 may overflow
        left = math.prod(shape)
        while left:
            some = torch.randn(min(left, CHUNK), generator=generator)
            left -= len(some)
            yield (mean + std * some).to(entry.dtype)


def write_safetensors(
    path: Path, entries: list[Entry], seed: int, rename: Callable[[str], str] = str
) -> None:
    """One file of random tensors, written under another name and renamed when complete.

    `rename` gives the names in the file (`str`: the same). The numbers depend on the old names.
    """
    header: dict = {"__metadata__": {"format": "pt"}}
    end = 0
    for entry in entries:
        place = [end, end + entry.bytes]
        end = place[1]
        header[rename(entry.key)] = {
            "dtype": NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": place,
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # numbers begin at a multiple of 8
    with atomic(path) as temporary, open(temporary, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in entries:
            for some in numbers(entry, seed):
                file.write(some.view(torch.uint8).numpy().tobytes())


def write_json(path: Path, values: dict) -> None:
    """A JSON file, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def tensors(entries: list[Entry], seed: int) -> dict[str, Tensor]:
    """The tensors of entries in memory, for small files of another format."""
    made = {}
    for entry in entries:
        made[entry.key] = torch.cat(list(numbers(entry, seed))).reshape(entry.shape)
    return made

"""Checksums beside a checkpoint's files: `SHA256SUMS`, as the program `sha256sum` writes it.

A flipped bit makes another finite number, as a rule, so nothing but a checksum notices it.

Notable choices
- The hub knows the checksums of large files alone, so a small file may have none.
- Weights of the backbone are compared while they are read (`shards.py`). Every other file is read
  once more for its checksum, before it is used.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from ..files import atomic, checksum

SUMS = "SHA256SUMS"


def read_sums(folder: Path) -> dict[str, str]:
    """File -> SHA-256; empty, with a warning, if the folder has no `SHA256SUMS`."""
    if not (folder / SUMS).is_file():
        warnings.warn(
            f"{folder} has no {SUMS}, so flipped bits in its files cannot be noticed", stacklevel=3
        )
    return known_sums(folder)


def known_sums(folder: Path) -> dict[str, str]:
    """`read_sums` without the warning: loading the backbone has given it already.

    `ValueError` for a line that is no checksum.
    """
    path = folder / SUMS
    if not path.is_file():
        return {}
    sums = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition(" ")
        # `sha256sum` puts another blank or an asterisk in front of the name.
        name = name.lstrip(" *").removeprefix("./")
        if len(digest) != 64 or not name:
            raise ValueError(f"{path} has a line that is no checksum: {line[:100]!r}")
        sums[name] = digest.lower()
    return sums


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` for the files of a folder and of the folders in it."""
    lines = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SUMS:
            lines.append(f"{checksum(path)}  {path.relative_to(folder).as_posix()}\n")
    with atomic(folder / SUMS) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def check_sum(path: Path, wanted: str, found: str) -> None:
    """`ValueError` if two checksums differ."""
    if wanted != found:
        raise ValueError(f"{path} is not the file that {SUMS} describes; download it again")


def check_files(folder: Path, paths: Iterable[Path], sums: dict[str, str]) -> None:
    """`ValueError` if a file of the folder is another one than `sums` says.

    Weights that it does not name are named in a warning.
    """
    for path in paths:
        name = path.relative_to(folder).as_posix()
        if name in sums:
            check_sum(path, sums[name], checksum(path))
        elif sums and path.suffix != ".json":
            warnings.warn(
                f"{folder / SUMS} does not name {name}, so flipped bits in it cannot be noticed",
                stacklevel=4,
            )

""" """

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path

DATA_DIR = Path(os.environ.get("MINILLADA_DATA", Path(__file__).resolve().parent.parent / "data"))


WEIGHTS_DIR = DATA_DIR / "weights"
RESULTS_DIR = DATA_DIR / "results"


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextmanager
def atomic(path: Path):
    """Yields a temporary path in the same folder; renames it to `path` on success and removes it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

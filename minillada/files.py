"""Where files live, and how to write a file so that no reader ever sees it half written."""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# A clone has its data beside the package; an environment variable names another place.
DATA_DIR = Path(os.environ.get("MINILLADA_DATA") or Path(__file__).resolve().parents[1] / "data")
DATA_DIR = DATA_DIR.absolute()  # stays right if the working folder changes (`course/worker.py`)
WEIGHTS_DIR = DATA_DIR / "weights"
RESULTS_DIR = DATA_DIR / "results"
# Seconds to wait before each new try to rename a file. On Windows, a file that is open cannot be
# replaced, and virus scanners or cloud programs open a new file for a moment.
WAITS: tuple[float, ...] = (0.05, 0.2, 1.0) if sys.platform == "win32" else ()
Name = str | Path  # of weights or text pieces, as `find` understands it


def need_data() -> None:
    """`FileNotFoundError` if there is no data folder, as in a package installed without a clone."""
    if not DATA_DIR.is_dir():
        raise FileNotFoundError(
            f"there is no data folder at {DATA_DIR}; install a clone with `pip install -e .`, or "
            "set the environment variable MINILLADA_DATA to the data folder of a clone"
        )


def is_shipped(name: Name, suffix: str) -> bool:
    """Whether `data/weights` has this file. A path is no name: neither `./mnist` nor a `Path`."""
    # Names are compared here. If asked for a file `MNIST`, Windows and macOS would find `mnist`,
    # and a run that stores the name `MNIST` could not be read on Linux.
    listed = (path.name for path in WEIGHTS_DIR.glob(f"*{suffix}"))
    return isinstance(name, str) and name + suffix in listed


def find(name: Name, suffix: str, inside: str) -> Path | None:
    """The file that a name means: a shipped name, a path with the suffix, or a run's folder.

    In a folder it is called `inside`; None if it is not there. A shipped name wins over a folder.
    """
    if not isinstance(name, str | Path):
        raise ValueError(f"a name is a string or a path, got {type(name).__name__}")
    if is_shipped(name, suffix):
        return WEIGHTS_DIR / f"{name}{suffix}"
    path = Path(name)
    if path.suffix == suffix:
        return path  # whoever reads it finds out whether it is there
    return path / inside if (path / inside).is_file() else None


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Digest of a file, of any size, in hexadecimal; equal files have equal digests."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def check_replaceable(path: Path) -> None:
    """`ValueError` if `path` is something else than a file: a link, a folder, a pipe, a device."""
    # Renaming would replace the link itself, or the device, and not what is behind it.
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError(f"{path} is not a regular file, so it stays; choose another name")


def check_writable(path: Path, advice: str) -> None:
    """`ValueError`, which ends in `advice`, unless a file can be written at `path`.

    Folders that are not there yet can be made if the first one above them can be written to.
    """
    check_replaceable(path)
    there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(f"cannot write to the folder {path.parent}; {advice}")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a temporary path in the same folder, and rename it to `path` on success.

    On failure it and new folders are removed, and the old file stays. Errors: `check_replaceable`.
    """
    check_replaceable(path)
    new = [folder for folder in path.parents if not folder.exists()]  # the deepest one first
    path.parent.mkdir(parents=True, exist_ok=True)
    # 1. Remove what killed writers of this machine left behind; no other code does.
    mine = f".{path.name}.{platform.node()}."  # process numbers are unique on one machine only
    for leftover in path.parent.glob(f"{glob.escape(mine)}*.part"):
        process = leftover.name.split(".")[-2]  # the name is .NAME.MACHINE.PROCESS.part
        if process.isdigit() and not is_alive(int(process)):
            leftover.unlink(missing_ok=True)
    # 2. Machine and process are in the name, so two processes never share a file.
    temporary = path.with_name(f"{mine}{os.getpid()}.part")
    try:
        # 3. Note the permissions of a new file: some libraries let only the owner read theirs.
        temporary.touch()
        permissions = temporary.stat().st_mode
        yield temporary
        temporary.chmod(permissions)
        # 4. A rename is one step: a reader sees the old file or the complete new one.
        rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        for folder in new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def rename(old: Path, new: Path) -> None:
    """`os.replace`, which is tried again after each of the `WAITS`."""
    for seconds in WAITS:
        try:
            return os.replace(old, new)
        except PermissionError:
            time.sleep(seconds)
    os.replace(old, new)


def is_alive(process: int) -> bool:
    """Whether a process with this number runs on this machine."""
    if sys.platform == "win32":
        return True  # not known: there, `os.kill` would end the process
    try:
        with suppress(PermissionError, OverflowError):  # another user's, or too large to be tested
            os.kill(process, 0)  # signal 0 only asks whether the process exists
    except ProcessLookupError:
        return False
    return True

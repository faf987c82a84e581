"""Where files live, and how they are written so that nobody ever meets half of one.

Notable choices
- A file is written under a temporary name and renamed when it is complete.
- Its permissions are those of any new file (the umask), whichever library wrote it.
- The system holds the lock of a folder, so the lock ends with its process, killed or not.
"""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DATA_DIR = Path(os.environ.get("MINILLADA_DATA", Path(__file__).resolve().parent.parent / "data"))
WEIGHTS_DIR = DATA_DIR / "weights"
RESULTS_DIR = DATA_DIR / "results"


def need_data() -> None:
    """`FileNotFoundError`, with the cure, where the package was installed without its data."""
    if not DATA_DIR.is_dir():
        raise FileNotFoundError(
            f"there is no data folder at {DATA_DIR}; install a clone with `pip install -e .`, or "
            "set the environment variable MINILLADA_DATA to the data folder of a clone"
        )


def checksum(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, and renames it to `path` on success.

    Nothing is left on failure, and the old file stays. `ValueError` if `path` is something else
    than a file: a link, a folder, a pipe or a device.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise ValueError(
            f"{path} is not a regular file, so it is not replaced; choose another name"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Files of writers that were killed are removed here: nobody else would.
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        number = leftover.name.split(".")[-2]
        if number.isdigit() and not is_alive(int(number)):
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # Some libraries make files that nobody else may read; an empty file has the usual mode.
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether a process with this number runs on this machine."""
    if sys.platform == "win32":
        return True  # unknown: `os.kill` would end the process there
    try:
        os.kill(process, 0)  # signal 0 does nothing but look
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Makes a folder belong to this process. `ValueError` if another process has it.

    The file `.lock` names the process. It stays when the lock is gone: deleting it would let
    two processes lock two different files of the same name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+", encoding="utf-8") as file:
        try:
            hold(file.fileno())
        except (BlockingIOError, PermissionError):
            file.seek(0)
            owner = f"process {file.read() or '(unknown)'}"
            raise ValueError(
                f"the folder {folder} is in use by {owner}; wait until it has ended, "
                "or choose another folder"
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def hold(descriptor: int) -> None:
    """Lock an open file until it is closed; `BlockingIOError` or `PermissionError` if it is."""
    if sys.platform == "win32":
        import msvcrt

        # A byte far behind the end, so that others can still read who holds the file.
        os.lseek(descriptor, 2**30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

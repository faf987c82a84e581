"""The lock of a folder, so that two processes never write one run.

Notable choices
- The operating system keeps the lock. So it ends with its process, even if that is killed.
- The file `.lock` holds the number of the process. The file stays when the lock is gone. If it were
  deleted, two processes could lock two different files of this name: one opened before the
  deletion, one made after it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Inside, the folder is locked for this process. `ValueError` if this is not possible.

    Another process may have locked it, or the folder is on a network drive without locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Mode a+ keeps the text that is there, because it names the process that has the lock.
    with open(folder / ".lock", "a+", encoding="utf-8") as file:
        try:
            lock_file(file.fileno())
        except (BlockingIOError, PermissionError):
            file.seek(0)
            owner = f"process {file.read() or '(unknown)'}"
            raise ValueError(
                f"the folder {folder} is in use by {owner}; wait until it has ended, "
                "or choose another folder"
            ) from None
        except OSError as error:
            raise ValueError(
                f"the folder {folder} cannot be locked ({error.strerror}); choose one on a disk of "
                "this machine, or ask who runs the network for locks"
            ) from None
        # The lock is ours: write our number, so that others can say who has it.
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def lock_file(descriptor: int) -> None:
    """Lock the open file with this number (`file.fileno()`); closing the file ends the lock.

    If another process has locked it: `BlockingIOError` (Linux, macOS), `PermissionError` (Windows).
    """
    if sys.platform == "win32":
        import msvcrt

        # Windows also stops readers of a locked byte. So we lock a byte far behind the end, and
        # others can still read which process has the lock.
        os.lseek(descriptor, 2**30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        # EX: for one process alone. NB: raise an error at once instead of waiting.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

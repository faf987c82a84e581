"""A folder belongs to one process."""

import errno
import os
import subprocess
import sys

import pytest

from minillada.training import locking
from minillada.training.locking import lock

HOLD = """
import sys
from pathlib import Path
from minillada.training.locking import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder):
    """Another process that holds the lock of `folder` until its input ends or it is killed."""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], **pipes)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("killed", [False, True])
def test_a_folder_belongs_to_one_process(tmp_path, killed):
    folder = tmp_path / "run"
    process = holder(folder)
    sentence = f"the folder .*run is in use by process {process.pid}; wait until it has ended"
    for _ in range(2):  # being refused takes nothing away from the owner
        with pytest.raises(ValueError, match=sentence), lock(folder):
            raise AssertionError("never entered")
    if killed:
        process.kill()
    process.communicate()
    with lock(folder):
        assert (folder / ".lock").read_text() == str(os.getpid())
        with pytest.raises(ValueError, match=f"in use by process {os.getpid()}"), lock(folder):
            raise AssertionError("never entered")
    with lock(folder):
        pass


def test_a_folder_without_locks_is_refused_in_one_sentence(tmp_path, monkeypatch):
    def refuse(descriptor):  # as NFS does without its lock daemon
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locking, "lock_file", refuse)
    with pytest.raises(ValueError, match="run cannot be locked .*; choose"), lock(tmp_path / "run"):
        raise AssertionError("never entered")


def test_an_error_gives_the_folder_back(tmp_path):
    with pytest.raises(RuntimeError), lock(tmp_path):
        raise RuntimeError("training failed")
    with lock(tmp_path):
        pass

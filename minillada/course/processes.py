"""The process of a submission, from its start to its end, by itself or by force.

On Linux and macOS processes are forked from a server that has loaded torch already. Windows has no
fork: there each process loads it again, which takes seconds.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

import psutil

from . import worker

START = 60.0  # seconds until a process has read a notebook (Windows loads torch in this time)
LOST = "(exit code 255)"  # what `ending` says of a process whose server has ended
FULL = "found no room on the disk for its answers"  # what it says where a disk is full
stopped = threading.Event()  # whether all processes are to be ended


def context() -> Any:
    """How processes are started: forked from a server with torch loaded, where there is fork."""
    methods = multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")


def preload(imports: list[str]) -> None:
    """What the server of processes imports once, so that a submission does not wait for it."""
    package = worker.__name__.split(".")[0]
    names = [name for name in sys.modules if name.split(".")[0] == package]
    for statement in imports:
        names += re.findall(r"^(?:from|import) ([\w.]+)", statement)
    processes = context()
    if processes.get_start_method() == "forkserver":
        processes.set_forkserver_preload(names)
        from multiprocessing import forkserver  # not on Windows

        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for this process alone
        try:
            forkserver.ensure_running()
        except OSError as error:  # its socket stands there, and the name of a socket is short
            place = f"the folder for temporary files, {tempfile.gettempdir()}"
            words = f"{place}, cannot hold a socket ({error}); set TMPDIR to one with a short name"
            raise ValueError(words) from None
        finally:
            signal.signal(signal.SIGINT, before or signal.SIG_DFL)


@contextlib.contextmanager
def stopping(pool: Executor) -> Iterator[None]:
    """What ends this context by an error, such as Ctrl-C, ends the processes of a pool, too."""
    stopped.clear()
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        stopped.set()
        raise


def run(job: worker.Job) -> str:
    """Run a job to its end, or end it; how it ended, in words that go on "your function …"."""
    process = started(job)
    try:
        return watched(process, job)
    finally:
        stop(process)


def watched(process: Any, job: worker.Job) -> str:
    """As `run`, for a process that has been started; it may go on after its end was decided."""
    began = loaded = time.monotonic()
    longest = len(job.tasks) * job.seconds + 2 * worker.LATE
    while True:
        process.join(0.05)
        now = time.monotonic()
        if stopped.is_set():
            raise KeyboardInterrupt  # in a thread of a pool, whose owner has got it already
        if not (job.folder / "out" / "loaded.json").exists():
            loaded = now
        if not process.is_alive():
            return ending(process.exitcode)
        if now - loaded > longest or loaded - began > START:
            return "takes too long, and could not be stopped"
        # A fresh process is about as large as this one: both have loaded torch.
        if memory_of(process.pid) > job.memory + memory_of(os.getpid()):
            return f"needs more than {job.memory // 1_000_000:,} MB of memory"


def started(job: worker.Job) -> Any:
    """A running process for a job.

    A submission that runs at the same time may end the server of all processes just when this one
    is asked for. Python starts another server once it sees that the first one has ended. That takes
    a moment.
    """
    attempts = 100
    while True:
        process = context().Process(target=worker.serve, args=(job,), daemon=True)
        try:
            process.start()
            return process
        except (EOFError, OSError):
            attempts -= 1
            if not attempts:
                raise
            time.sleep(0.1)


def ending(code: int | None) -> str:
    """How a process that has ended did so."""
    if code == 1:  # faulthandler ends a process with this code
        return "takes too long, or ended the process (exit code 1)"
    if code == worker.NO_ROOM:
        return FULL
    if code is not None and code < 0:
        named = -code in set(signal.Signals)  # signals for real time have no names
        name = signal.Signals(-code).name if named else f"signal {-code}"
        return f"ended the process ({name}); too much memory?"
    return f"ended the process (exit code {code})"


def memory_of(number: int | None) -> int:
    """Resident bytes of a process; 0 if it has ended."""
    try:
        return psutil.Process(number).memory_info().rss
    except psutil.Error:
        return 0


def stop(process: Any) -> None:
    """End a process and what it started."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.Error:
        children = []
    if hasattr(os, "killpg"):  # what it started belongs to its group
        with contextlib.suppress(OSError):  # it has ended, or had no time to make its group
            os.killpg(process.pid, signal.SIGKILL)
    for one in children:
        with contextlib.suppress(psutil.Error):
            one.kill()
    process.kill()
    process.join(5)

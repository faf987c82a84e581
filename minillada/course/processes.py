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
import time
from typing import Any

import psutil

from . import worker

START = 60.0  # seconds until a process has read a notebook (Windows loads torch in this time)
LOST = "(exit code 255)"  # what `ending` says of a process whose server has ended


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


def run(job: worker.Job) -> str:
    """Run a job to its end, or end it; how it ended, in words that go on "your function …"."""
    process = started(job)
    began = loaded = time.monotonic()
    longest = len(job.tasks) * job.seconds + 2 * worker.LATE
    end = None
    while end is None:
        process.join(0.05)
        now = time.monotonic()
        if not (job.folder / "out" / "loaded.json").exists():
            loaded = now
        if not process.is_alive():
            end = ending(process.exitcode)
        elif now - loaded > longest or loaded - began > START:
            end = "takes too long, and could not be stopped"
        # A fresh process is about as large as this one: both have loaded torch.
        elif memory_of(process.pid) > job.memory + memory_of(os.getpid()):
            end = f"needs more than {job.memory // 1_000_000:,} MB of memory"
    stop(process)
    return end


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

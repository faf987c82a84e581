"""Batches made ahead of time by other processes, for a GPU that would otherwise wait for them.

Notable choices
- What a step sees depends on its number alone, so the batches are the same with any number of
  workers.
- A worker is a fork of this process: it shares the images, and never touches the GPU.
- Batches come as bytes (`pickle`). PyTorch's own way, through shared memory, opens a file for every
  tensor, soon more than a process may (often 1,024). For small tensors bytes are faster, too.
"""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader


class Ahead:
    """`make(step)` for one step after the other, up to `steps`; with 0 workers made when asked."""

    def __init__(self, make: Callable[[int], Any], steps: int, workers: int):
        self.make, self.steps, self.workers = make, steps, workers
        self.step, self.made = -1, None  # the last one, which all portions of a step share
        self.source: Any = None

    def __call__(self, step: int) -> Any:
        if step == self.step:
            return self.made
        if not self.workers:
            self.made = self.make(step)
        else:
            if self.source is None or step != self.step + 1:
                self.source = iter(self.loader(range(step, self.steps)))
            self.made = pickle.loads(next(self.source))
        self.step = step
        return self.made

    def loader(self, steps: range) -> DataLoader:
        # With a reference to `self`, workers would live until the garbage collector runs.
        make: Callable[[Any], Any] = self.make
        return DataLoader(
            steps,  # type: ignore[arg-type]  # a range is enough
            batch_size=None,  # one number at a time; its step is a batch already
            num_workers=self.workers,
            collate_fn=lambda step: pickle.dumps(make(step)),  # what a worker makes of a number
            worker_init_fn=ignore_interrupts,
            multiprocessing_context="fork",
            generator=torch.Generator(),  # not the global one, whose numbers others count on
        )


def ignore_interrupts(worker: int) -> None:
    """Ctrl-C goes to all processes; this one ends with the process that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

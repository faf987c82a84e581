"""Batches made by other processes are the batches of this one."""

import functools
import gc
import multiprocessing
import subprocess
import sys

import pytest
import torch
from helpers import needs_fork, real_images, tiny_tokenizer
from tiny_runs import BACKBONE

from minillada.datasets.pool import mnist_pool
from minillada.settings import changed
from minillada.training.ahead import Ahead
from minillada.training.checks import check_settings
from minillada.training.stream import mixture_batches
from minillada.vocab import load_vocabulary


@needs_fork
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_make_the_same_batches_in_order_twice_and_after_a_jump():
    tokenizer, vocab = tiny_tokenizer(), load_vocabulary(512)
    pool, preset = mnist_pool(real_images(40)), changed(BACKBONE, mixture=(("draw", 1.0),))
    make = functools.partial(mixture_batches, tokenizer, vocab, pool, preset)
    steps = [1, 1, 2, 5, 0]  # a step in two portions, a run that goes on elsewhere
    state = torch.random.get_rng_state()
    ahead = Ahead(make, 6, workers=2)
    there = [ahead(step) for step in steps]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert there[0] is there[1]
    for step, theirs in zip(steps, there):
        for a, b in zip(make(step), theirs):
            assert torch.equal(a.ids, b.ids)
            assert torch.equal(a.targets, b.targets) and torch.equal(a.real, b.real)


MANY = """
import resource
import torch
from minillada.training.ahead import Ahead

resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))  # files that a process may have open
ahead = Ahead(lambda step: [torch.tensor(step) for _ in range(60)], 6, workers=2)
for step in range(6):
    assert all(made == step for made in ahead(step))
"""


@needs_fork
def test_workers_end_with_the_object_that_made_them():
    """Not only when the garbage collector runs: in a notebook they would keep their memory."""
    gc.collect()
    gc.disable()
    try:
        ahead = Ahead(lambda step: step, 6, workers=2)
        assert ahead(0) == 0 and len(multiprocessing.active_children()) == 2
        del ahead
        assert multiprocessing.active_children() == []
    finally:
        gc.enable()


@needs_fork
def test_many_tensors_need_no_more_open_files():
    command = [sys.executable, "-c", MANY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_workers_are_refused_where_a_fork_is_not_safe(platform, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    with pytest.raises(ValueError, match="use --set workers=0"):
        check_settings(changed(BACKBONE, workers=2), None)

"""Free memory: in which unit, and whether weights fit into it."""

import sys

import psutil
import pytest
import torch

from minillada.official import free


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux kernel")
def test_memory_is_counted_in_gigabytes():
    assert free.linux_memory("MemTotal") == pytest.approx(psutil.virtual_memory().total / 1e9)
    assert free.linux_memory("Mem") is None


@pytest.mark.parametrize(
    ("ram", "swap", "fits"),
    [(3.9, 0.0, False), (4.1, 0.0, True), (3.9, 0.2, True), (3.0, 0.9, False), (3.9, None, False)],
)
def test_weights_fit_into_main_memory_and_swap(monkeypatch, ram, swap, fits):
    monkeypatch.setattr(free, "linux_memory", {"MemAvailable": ram, "SwapFree": swap}.get)
    module = torch.nn.Linear(100_000, 10_000, bias=False, device="meta")  # 4 GB
    if fits:
        free.check_room(module, torch.device("cpu"))
    else:
        with pytest.raises(ValueError, match=r"the weights need 4\.0 GB, and cpu has 3\.9 GB"):
            free.check_room(module, torch.device("cpu"))

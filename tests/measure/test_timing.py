"""The statistics on a clock of our own; the GPU path only where there is one."""

import pytest
import torch

from minillada.measure import timing


def test_median_and_quartiles_of_the_timed_calls_alone(monkeypatch):
    durations = iter(
        [100.0, 100.0, 5.0, 1.0, 4.0, 2.0, 3.0]
    )  # two of warm-up, then five that count
    now, calls = [0.0], []

    def call():
        calls.append(1)
        now[0] += next(durations)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    result = timing.measure(call, "cpu", warmup=2, repeats=5)
    assert result == timing.Timing(3.0, 2.0, 4.0, 5, "wall clock", None)
    assert len(calls) == 7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_work_is_timed_with_events():
    a = torch.randn(2048, 2048, device="cuda")

    def many_products():
        b = a
        for _ in range(20):
            b = a @ b
        return b

    short, long = timing.measure(lambda: a @ a, "cuda"), timing.measure(many_products, "cuda")
    assert long.clock == "cuda events" and long.lower_quartile <= long.median <= long.upper_quartile
    assert long.median > 5 * short.median, "a host clock would see the launches only"
    assert long.peak_memory_mib >= 2 * 16

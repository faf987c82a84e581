"""What loading costs, measured on a tiny checkpoint: the numbers exist and are plausible."""

import mmap
import sys
import time

import psutil
import pytest
import torch

from minillada.experts import Expert
from minillada.official import load_backbone, memory
from minillada.official.fabricate import fabricate
from minillada.official.mapped import Recent
from minillada.official.sums import write_sums

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux kernel")


@linux
@pytest.mark.parametrize("mapped", [False, True])
def test_a_checkpoint_is_measured(tmp_path, mapped):
    fabricate(tmp_path / "tiny", parts=("backbone",))
    write_sums(tmp_path / "tiny")
    read = memory.bytes_read()
    report = memory.measure(tmp_path / "tiny", tokens=8, mapped=mapped)
    assert report["read_forward_gb"] * 1e9 <= memory.bytes_read() - read
    files = sum(path.stat().st_size for path in (tmp_path / "tiny").glob("model-*"))
    assert report["weights_gb"] * 1e9 == pytest.approx(files, rel=0.1)
    assert report["finite"] and report.get("mapped", False) == mapped and report["layers"] == 3
    assert 0 < report["peak_anonymous_loading_gb"] < report["peak_loading_gb"]
    loading, forward = (report[f"peak_anonymous_{name}_gb"] for name in ("loading", "forward"))
    shares = [report[f"peak_{name}_over_weights"] for name in ("loading", "anonymous")]
    peaks = report["peak_loading_gb"], max(loading, forward)
    assert shares == pytest.approx([peak / report["weights_gb"] for peak in peaks])
    assert report["seconds_loading"] > 0 and ("seconds_reading" in report) is not mapped


@linux
def test_memory_is_counted_in_bytes_and_the_peak_stays():
    assert memory.kernel("VmRSS") == pytest.approx(psutil.Process().memory_info().rss, rel=0.01)
    before, size = memory.kernel("RssAnon"), 2**26
    with memory.watched() as peak:
        block = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.write(b"1" * size)
        late = time.monotonic() + 20
        while peak.bytes < before + 0.9 * size and time.monotonic() < late:
            time.sleep(0.02)  # until the thread has looked, on a busy machine, too
        block.close()
        time.sleep(0.12)
    assert before + 0.9 * size < peak.bytes
    assert memory.kernel("RssAnon") < peak.bytes - 0.9 * size


def test_seconds_are_those_of_the_call_alone():
    began, busy = time.perf_counter(), time.process_time()
    took, result = memory.timed(lambda: 5)
    assert result == 5 and 0 <= took.clock <= time.perf_counter() - began
    assert 0 <= took.processor <= time.process_time() - busy


def test_what_was_fetched_in_a_pass():
    """Three fetches of two experts, one of which was there: 2 · 3 matrices of 4 · 5 float32."""
    recent = Recent(9, torch.device("cpu"), torch.float32)
    for number in (0, 1, 1):
        recent.fetch(2, number, Expert(*torch.ones(3, 4, 5)))
    found = memory.fetched_numbers(recent, 2.0)
    assert (found["experts_fetched"], found["experts_found"]) == (2, 1)
    assert found["fetched_gb"] * 1e9 == pytest.approx(2 * 3 * 4 * 5 * 4)
    assert found["fetched_gb_a_second"] == pytest.approx(found["fetched_gb"] / 2)


@linux
def test_a_single_infinite_number_is_noticed(checkpoint):
    backbone, ids = load_backbone(checkpoint), torch.arange(8)[None]
    assert memory.measure_forward(backbone, ids)["finite"]
    backbone.lm_head.weight[3] = torch.inf
    assert not memory.measure_forward(backbone, ids)["finite"]


@linux
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("how", [{}, {"experts_on_gpu": 5}, {"bits": 8}])
def test_a_pass_on_a_gpu_is_timed_with_events_and_copies_no_experts(tmp_path, how):
    fabricate(tmp_path / "tiny", parts=("backbone",))
    report = memory.measure(tmp_path / "tiny", "cuda", tokens=64, **how)
    assert report["clock"] == "cuda events" and report["finite"]
    assert 0 < report["seconds_second_forward"] and report["gpu_peak_forward_gb"] > 0
    assert ("experts_fetched" in report) is ("experts_on_gpu" in how)


@linux
@pytest.mark.parametrize(
    "wrong", [{"bits": 5}, {"tokens": 100_000}, {"tokens": 0}, {"dtype": "float16"}]
)
def test_what_cannot_be_measured_is_refused_before_files_are_read(tmp_path, monkeypatch, wrong):
    fabricate(tmp_path / "tiny", parts=("backbone",))
    monkeypatch.setattr(memory, "reading_numbers", lambda paths: pytest.fail("files were read"))
    with pytest.raises(ValueError, match="not to 5|room for 1 to|not 'float16'"):
        memory.measure(tmp_path / "tiny", **wrong)


def test_other_systems_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ValueError, match="measured on Linux only"):
        memory.measure(tmp_path)

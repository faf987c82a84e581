"""What loading costs, measured on a tiny checkpoint: the numbers exist and are plausible."""

import sys

import pytest
import torch

from minillada.official import memory
from minillada.official.fabricate import fabricate
from minillada.official.sums import write_sums

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks the Linux kernel")


@linux
@pytest.mark.parametrize("mapped", [False, True])
def test_a_checkpoint_is_measured(tmp_path, mapped):
    fabricate(tmp_path / "tiny", parts=("backbone",))
    write_sums(tmp_path / "tiny")
    report = memory.measure(tmp_path / "tiny", tokens=8, mapped=mapped)
    files = sum(path.stat().st_size for path in (tmp_path / "tiny").glob("model-*"))
    assert report["weights_gb"] * 1e9 == pytest.approx(files, rel=0.1)
    assert report["finite"] and report.get("mapped", False) == mapped and report["layers"] == 3
    assert 0 < report["peak_anonymous_loading_gb"] < report["peak_loading_gb"]
    assert report["seconds_loading"] > 0 and ("seconds_reading" in report) is not mapped


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

"""Painters are measured together with the decoder whose picture they start from."""

import pytest
import torch

from minillada import checkpoint
from minillada.evaluation.painting import evaluate_painter, load_pair
from minillada.files import WEIGHTS_DIR

shipped = pytest.mark.skipif(
    not checkpoint.shipped("mnist-painter-turbo"), reason="the turbo painter is not shipped"
)


@shipped
def test_the_report_holds_what_was_asked_for(monkeypatch):
    monkeypatch.setattr("minillada.evaluation.painting.BATCH", 1)
    report = evaluate_painter("mnist-painter", samples=20)
    for name in ("judged_accuracy", "judged_accuracy_conv", "codes_kept"):
        assert report[f"{name}_low"] <= report[name] <= report[f"{name}_high"]
    assert report["judged_accuracy_n"] == 20 and report["codes_kept_n"] == 20 * 16
    assert report["steps"] <= 4 and report["speedup_over_50_steps"] > 1
    for name in ("frechet", "frechet_conv", "frechet_50_steps", "frechet_real"):
        assert report[name] > 0


@shipped
def test_either_painter_names_both():
    pairs = [load_pair(name, "cpu") for name in ("mnist-painter", "mnist-painter-turbo")]
    for name, value in pairs[0].turbo.state_dict().items():
        assert torch.equal(value, pairs[1].turbo.state_dict()[name])
    assert pairs[0].turbo.config.turbo and not pairs[1].flow.config.turbo


@shipped
def test_a_turbo_painter_of_other_weights_is_refused(tmp_path):
    for name in ("mnist-painter", "mnist-painter-turbo"):
        for suffix in ("safetensors", "json"):
            file = WEIGHTS_DIR / f"{name}.{suffix}"
            (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "mnist-painter-turbo.safetensors"
    info = checkpoint.read_info(path)
    del info["digest"]
    checkpoint.write_info(path, info | {"source_sha256": "0" * 64})
    with pytest.raises(ValueError, match="distilled from other weights"):
        load_pair(path, "cpu")

"""Presets fit the presets they build on."""

import pytest

from minillada.presets import PRESETS, get_preset
from minillada.settings import changed
from minillada.training.checks import check_settings


def test_presets_are_consistent():
    for name, preset in PRESETS.items():
        assert preset.name == name and get_preset(name) is preset
        check_settings(preset, None)
        if preset.kind == "backbone":
            codes = PRESETS[preset.tokenizer].model.codebook_size
            assert preset.model.vocab_size == PRESETS[preset.text].model.vocab_size + codes


def test_the_autoregressive_model_is_a_fair_comparison():
    """The same size and the same recipe, apart from the block size and what follows from it."""
    diffusion, autoregressive = PRESETS["mnist"], PRESETS["mnist-ar"]
    assert autoregressive.model.block_size == 1
    assert autoregressive.training.loss.mask_rate == (1.0, 1.0)
    size = diffusion.model.block_size
    assert changed(autoregressive.model, block_size=size) == diffusion.model
    rate, steps = diffusion.training.loss.mask_rate, diffusion.training.steps
    recipe = changed(autoregressive.training, mask_rate=rate, steps=steps)
    assert recipe == diffusion.training


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown preset 'mnits'; choose one of .*mnist-cpu"):
        get_preset("mnits")

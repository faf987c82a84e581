"""Configurations check themselves, change at any depth, and come back from JSON."""

import json

import numpy
import pytest
import torch
from pydantic import Field

from minillada.config import (
    DataConfig,
    JudgeConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PainterConfig,
    Preset,
    SamplingConfig,
    TextConfig,
    TokenizerConfig,
    TrainingConfig,
)
from minillada.presets import PRESETS, get_preset, read_settings
from minillada.settings import Config, changed, from_dict, plain_fields, to_dict


class Inner(Config):
    size: int = Field(1, ge=1, lt=10)
    pair: tuple[float, float] = (0.0, 1.0)


class Outer(Config):
    name: str
    inner: Inner = Inner()


# --- checking ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [numpy.int64(4), numpy.uint8(4), torch.tensor(4)])
def test_numbers_of_numpy_and_torch_are_numbers(number):
    made = changed(SamplingConfig(), steps=number, temperature=numpy.float32(0.5))
    assert made == changed(SamplingConfig(), steps=4, temperature=0.5)
    assert json.dumps(to_dict(made)) and type(made.steps) is int
    for wrong in (numpy.float32(4), torch.tensor(True), torch.tensor([4]), numpy.array([4, 4])):
        with pytest.raises(ValueError, match="steps must be a valid integer, got"):
            changed(SamplingConfig(), steps=wrong)


@pytest.mark.parametrize(
    ("cls", "values", "sentence"),
    [
        (Inner, {"size": 0}, "size must be at least 1, got 0"),
        (Inner, {"size": 10}, "size must be smaller than 10, got 10"),
        (Inner, {"size": "3"}, "size must be a valid integer, got '3'"),
        (Inner, {"size": 1.0}, "size must be a valid integer, got 1.0"),
        (Inner, {"length": 1}, "Inner has no field 'length'"),
        (Outer, {}, "Outer needs the field 'name', which is missing"),
        (TrainingConfig, {"steps": 0}, "steps must be at least 1, got 0"),
        (TrainingConfig, {"batch_size": -1}, "batch_size must be at least 1, got -1"),
        (OptimizerConfig, {"learning_rate": 0.0}, "learning_rate must be larger than 0"),
        (OptimizerConfig, {"learning_rate": float("nan")}, "learning_rate must be a finite number"),
        (OptimizerConfig, {"betas": ()}, r"betas must be a list such as \[0.9, 0.99\], got \(\)"),
        (OptimizerConfig, {"betas": (0.9, 0.9, 0.9)}, "betas must be a list such as"),
        (OptimizerConfig, {"betas": (1.0, 0.99)}, "betas must be smaller than 1.0, got 1.0"),
        (
            TrainingConfig,
            {"block_schedule": ((0.0,),)},
            r"block_schedule must be a list such as \[\[0, 4\], \[0.5, 16\]\], got \(0.0,\)",
        ),
        (TrainingConfig, {"block_sizes": 8}, r"must be a list such as \[4, 16\], got 8"),
        (DataConfig, {"mixture": "digit"}, r"such as \[\[\"draw\", 2\], \[.*\], got 'digit'"),
        (DataConfig, {"mixture": [["digit"]]}, r"such as \[\[\"draw.* got \('digit',\)"),
        (OptimizerConfig, {"optimizer": "sgd"}, "optimizer must be 'adamw' or 'muon', got 'sgd'"),
        (ObjectiveConfig, {"mask_rate": (0.9, 0.1)}, "mask_rate is an interval that ends"),
        (ObjectiveConfig, {"mask_rate": (1.0, 1.0), "complementary": True}, "masks nothing"),
        (ModelConfig, {"vocab_size": 1}, "vocab_size must be at least 2, got 1"),
        (SamplingConfig, {"temperature": 1e-9}, "temperature must be 0 .* or at least 0.001"),
        (SamplingConfig, {"temperature": -1.0}, "temperature must be at least 0"),
        (TextConfig, {"max_grid": 0}, "max_grid must be at least 1"),
        (TextConfig, {"vocab_size": 10**20}, "vocab_size must be at most 10000000"),
        (ModelConfig, {"vocab_size": 2, "num_shared_experts": 10**20}, "must be at most 10000"),
        (ObjectiveConfig, {"text_weight": 1e300}, "text_weight must be at most 1000000.0"),
        (TrainingConfig, {"accumulate": 10**20}, "accumulate must be at most 65536"),
        (TokenizerConfig, {"width": 0}, "width must be at least 8"),
        (TokenizerConfig, {"width": 12}, "width must be a multiple of 8, got 12"),
        (PainterConfig, {"width": 12}, "width must be a multiple of 8"),
        (PainterConfig, {"condition_width": 12}, "condition_width must be a multiple of 8"),
        (JudgeConfig, {"classes": 1}, "classes must be at least 2"),
    ],
)
def test_a_wrong_value_is_named_in_one_sentence(cls, values, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        cls(**values)
    assert "\n" not in str(caught.value)


def test_a_list_is_a_tuple_of_the_configuration():
    """What an error shows as the form of a value can be written as it stands there."""
    made = DataConfig(mixture=[["digit", 1], ("drawing", 2.0)])
    assert made == DataConfig(mixture=(("digit", 1.0), ("drawing", 2.0))) and hash(made)


def test_configurations_do_not_change():
    with pytest.raises(ValueError):
        Inner().size = 2
    assert Inner() == Inner() and hash(Inner()) == hash(Inner())


# --- changing ------------------------------------------------------------------------------------


def test_a_field_is_found_at_any_depth():
    outer = Outer(name="a")
    assert changed(outer, size=3) == Outer(name="a", inner=Inner(size=3))
    assert changed(outer, name="b", size=3) == Outer(name="b", inner=Inner(size=3))
    assert changed(outer, inner=Inner(size=5), pair=(0.5, 0.5)).inner == Inner(
        size=5, pair=(0.5, 0.5)
    )
    assert outer == Outer(name="a"), "the old one stays as it was"
    preset = changed(get_preset("mnist-cpu"), steps=3, learning_rate=0.5, hidden_size=64)
    assert preset.training.steps == 3 and preset.training.optim.learning_rate == 0.5
    assert preset.model.hidden_size == 64


@pytest.mark.parametrize("name", ["sizes", "__doc__", "model_config", "to_dict"])
def test_a_name_that_is_no_setting_is_refused(name):
    with pytest.raises(ValueError, match=f"there is no setting '{name}'; choose one of name, pair"):
        changed(Outer(name="a"), **{name: 1})


@pytest.mark.parametrize("value", [{}, {"size": 3}, {"vocab_size": 384}, None, 5])
def test_a_part_is_no_dictionary(value):
    """`--set 'model={}'` made text pieces of a backbone, and trained them."""
    way = "choose" if value in (None, 5) else "give each value in it by its own name,"
    with pytest.raises(ValueError, match=f"no setting 'inner'; {way} one of name, pair, size"):
        changed(Outer(name="a"), inner=value)
    with pytest.raises(ValueError, match=f"there is no setting 'model'; {way} one of"):
        changed(get_preset("mnist"), model=value)


def test_changes_are_checked_like_first_values():
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        changed(Outer(name="a"), size=0)


def test_a_wrong_value_in_a_part_is_one_sentence_too():
    with pytest.raises(ValueError, match=r"^size must be at least 1, got 0$"):
        Outer(name="a", inner={"size": 0})


def test_names_are_unique_over_all_parts_of_a_preset():
    """Otherwise a setting named alone could mean two things."""

    def names(config):
        found = []
        for name in type(config).model_fields:
            value = getattr(config, name)
            found += names(value) if isinstance(value, Config) else [name]
        return found

    for preset in PRESETS.values():
        assert len(names(preset)) == len(plain_fields(preset))


# --- storing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_survive_json(name):
    preset = PRESETS[name]
    for part in (preset.model, preset.training):
        assert from_dict(type(part), json.loads(json.dumps(to_dict(part)))) == part


def test_a_foreign_dictionary_is_refused():
    with pytest.raises(ValueError, match="TrainingConfig has no field 'draw_share'"):
        from_dict(TrainingConfig, {"draw_share": 0.5})
    with pytest.raises(ValueError, match="learning_rate must be larger than 0"):
        from_dict(TrainingConfig, {"optim": {"learning_rate": 0}})
    for values in ([], None, "text"):
        with pytest.raises(ValueError, match="TrainingConfig is made of fields by name"):
            from_dict(TrainingConfig, values)


def test_settings_are_read_from_texts():
    numbers = read_settings(["steps=10", "mask_rate=[0.1, 1.0]", "pairs=[[1], []]"])
    assert numbers == {"steps": 10, "mask_rate": (0.1, 1.0), "pairs": ((1,), ())}
    words = read_settings(["optimizer=muon", "varied=true", "a=b=c", "x="])
    assert words == {"optimizer": "muon", "varied": True, "a": "b=c", "x": ""}
    assert read_settings(["x=" + "[" * 100_000])
    for bad in ("steps", "=3"):
        with pytest.raises(ValueError, match="a setting is written NAME=VALUE"):
            read_settings([bad])


def test_a_setting_is_given_once():
    """By an option or by a text; an option that is None was not given."""
    assert read_settings(["seed=3"], seed=None, steps=0) == {"seed": 3, "steps": 0}
    for texts in (["steps=5"], ["seed=3", "seed=3"]):
        with pytest.raises(ValueError, match="the setting (steps|seed) is given twice"):
            read_settings(texts, steps=5)


@pytest.mark.parametrize("name", ["config", "self", "values"])
def test_a_setting_may_be_called_as_a_parameter_is(name):
    with pytest.raises(ValueError, match=f"there is no setting '{name}'"):
        changed(PRESETS["mnist"], **{name: 1})


def test_a_preset_knows_what_it_trains():
    with pytest.raises(ValueError, match="kind must be 'text', .* 'backbone' or 'painter'"):
        Preset(name="x", kind="poet", model=JudgeConfig())

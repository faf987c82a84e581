"""What does not fit together is refused, in one sentence, before anything is written."""

import pytest
import torch
from helpers import real_images, save_tiny_uni, use_digits
from tiny_runs import BACKBONE, JUDGE, TOKENIZER

from minillada.config import TextConfig
from minillada.datasets.images import Images
from minillada.presets import get_preset
from minillada.settings import changed
from minillada.tasks.base import Example, Picture, Task
from minillada.tasks.table import TASKS
from minillada.training import checks, train


@pytest.fixture(autouse=True)
def small_mnist(monkeypatch):
    use_digits(monkeypatch, real_images(40))


BACKBONES = {
    "no row for a token": (dict(vocab_size=1000), "set vocab_size to 400"),
    "context": (
        dict(max_position_embeddings=32),
        "tokens, but the model has 32 positions",
    ),
    "block": (dict(block_size=256), "256 tokens do not fit into 128 positions"),
    "long rows": (dict(pack_length=256), "256 tokens do not fit into 128 positions"),
    "rows of half blocks": (dict(pack_length=102), "pack_length must be a multiple of 16, got 102"),
    "unknown task": (dict(mixture=(("nothing", 1.0),)), "no task 'nothing' can be trained; choose"),
    "no task": (dict(mixture=()), "has an empty mixture"),
    "negative share": (dict(mixture=(("draw", -1.0),)), "share of draw must be positive, got -1"),
    "shares of 0": (dict(mixture=(("draw", 0.0),)), "share of draw must be positive, got 0"),
    "test only": (
        dict(mixture=(("sum_direct_unseen", 1.0),)),
        "no task 'sum_direct_unseen' can be",
    ),
    "one rate in a packed row": (
        dict(pack_length=96, mask_rate_per="sequence"),
        "needs one sequence per row; do not pack",
    ),
    "errors in packed rows": (dict(pack_length=96, planted_errors=0.1), "set pack_length or"),
    "pictures of a painter": (dict(mirrored=True), "reads no mirrored; leave mirrored out"),
    "pictures of a tokenizer": (dict(operation_share=0.5), "reads no operation_share"),
    "short rows": (dict(pack_length=32), "tokens, but rows have 32; raise pack_length"),
    "huge batch": (dict(batch_size=70_000), "batch_size must be at most 65536, got 70000"),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_that_cannot_be_trained(tmp_path, name):
    changes, sentence = BACKBONES[name]
    tokenizer = str(save_tiny_uni(tmp_path / "given").parent / "tokenizer")
    preset = changed(BACKBONE, tokenizer=tokenizer, **changes)
    with pytest.raises(ValueError, match=sentence):
        train.train(preset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("names", [("turned",), ("turned", "edit_digit")])
def test_moved_images_that_hold_no_edits(tmp_path, monkeypatch, names):
    """A new task of another name, or with an operation of its own, before minutes of encoding."""
    own = "mirror it" if len(names) == 1 else "turn it"  # the second is no operation of the data
    turned = Task(lambda source: Example("edit", [Picture(0), own], [Picture(0, own)]))
    monkeypatch.setitem(TASKS, "turned", turned)
    tokenizer = str(save_tiny_uni(tmp_path / "given").parent / "tokenizer")
    mixture = tuple((name, 1) for name in names)
    preset = changed(BACKBONE, tokenizer=tokenizer, mixture=mixture, moves=1)
    with pytest.raises(ValueError, match="turned shows edited images that `moves` lacks"):
        train.train(preset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["text", "judge", "tokenizer", "painter"])
def test_a_preset_stays_of_its_kind(tmp_path, kind):
    with pytest.raises(ValueError, match=f"cannot become a {kind}; leave its kind"):
        train.train(changed(BACKBONE, kind=kind), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_backbone_without_a_tokenizer(tmp_path):
    with pytest.raises(ValueError, match="needs an image tokenizer; use --set tokenizer=NAME"):
        train.train(changed(BACKBONE, tokenizer=None), tmp_path / "run")


@pytest.mark.parametrize("preset", [JUDGE, TOKENIZER], ids=["judge", "tokenizer"])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(channels=3), "channels is 3, but the images have 1"),
        (dict(image_size=64), "image_size is 64, but the images have 32"),
    ],
)
def test_models_that_read_other_pixels(tmp_path, preset, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        train.train(changed(preset, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [(40, 32), (32, 40)])
def test_images_that_are_not_square_are_refused(size):
    images = Images(torch.zeros(4, 1, *size, dtype=torch.uint8), torch.arange(4))
    with pytest.raises(ValueError, match="image_size is 32, but the images have 40"):
        checks.check_pixels(TOKENIZER.model, images)


def test_a_tokenizer_embeds_every_piece_of_the_captions(tmp_path):
    with pytest.raises(ValueError, match="caption_vocab_size is 300, but .* 384 pieces"):
        train.train(changed(TOKENIZER, caption_vocab_size=300), tmp_path / "run")


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        (JUDGE, ("tokenizer", "teacher", "source")),
        (TOKENIZER, ("tokenizer", "source")),
        (BACKBONE, ("teacher", "source")),
    ],
    ids=["judge", "tokenizer", "backbone"],
)
def test_weights_that_a_model_does_not_read_are_refused(tmp_path, preset, names):
    for name in names:
        other = changed(preset, **{name: "nowhere"})
        with pytest.raises(ValueError, match=f"{preset.kind}. reads no {name}; leave {name} out"):
            train.train(other, tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "mnist-judge",
            dict(text="mnist-uni-text", mixture=(("draw", 1.0),), views=2, compile=True),
        ),
        ("mnist-tokenizer", dict(text="mnist-uni-text", held_out=3, unconditional_rate=0.2)),
        ("mnist-painter", dict(text="mnist-uni-text", block_sizes=(4, 16), balance_rate=0.1)),
        ("mnist-text", dict(text="mnist-uni-text", steps=20, learning_rate=0.1, seed=1)),
    ],
)
def test_settings_that_nothing_reads_are_refused(tmp_path, name, changes):
    """They would change nothing, and who sets them would not notice."""
    checks.check_settings(get_preset(name), None)
    for setting, value in changes.items():
        preset = changed(get_preset(name), **{setting: value})
        with pytest.raises(ValueError, match=rf"reads no {setting}; leave {setting} out"):
            train.train(preset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_text_pieces_start_from_nothing(tmp_path):
    preset = changed(get_preset("mnist-text"), model=TextConfig())
    with pytest.raises(ValueError, match="text pieces start from nothing"):
        train.train(preset, tmp_path / "run", start="mnist")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (dict(unquantised_steps=7), "after 7 unquantised_steps of 7 steps the codebook is still"),
        (dict(feature_weight=1.0), "feature_weight needs a classifier; name one with --set teach"),
        (
            dict(feature_weight=1.0, teacher="cifar-features"),
            "channels of cifar-features is 3, but the images have 1",
        ),
    ],
)
def test_tokenizers_that_cannot_be_trained(tmp_path, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        train.train(changed(TOKENIZER, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_started_codebook_is_not_thrown_away(tmp_path):
    with pytest.raises(ValueError, match="that of --start would be lost; set unquantised_steps"):
        preset = changed(TOKENIZER, unquantised_steps=3)
        train.train(preset, tmp_path / "run", start="mnist-tokenizer")


def test_a_judge_has_a_class_for_every_label(tmp_path):
    with pytest.raises(ValueError, match="classes is 5, but there are 10 labels"):
        train.train(changed(JUDGE, classes=5), tmp_path / "run")

"""Presets from end to end: what is written, what is stored with it, and how a run goes on."""

import itertools
import json
import os
import shlex
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import (
    describe,
    generator,
    real_images,
    save_tiny_uni,
    storable,
    tiny_tokenizer,
    use_digits,
)
from tiny_runs import BACKBONE, JUDGE, STEPS, TOKENIZER, same_bits

import minillada
from minillada import checkpoint
from minillada.config import Preset, TextConfig
from minillada.datasets import mnist, pool
from minillada.datasets.grammar import Grammar
from minillada.datasets.table import DATASETS, MNIST
from minillada.extras import merging
from minillada.measure.judge import Judge
from minillada.model import Backbone
from minillada.presets import get_preset, read_settings
from minillada.settings import changed
from minillada.tasks.table import TASKS, TASKS_OF
from minillada.training import run as run_module
from minillada.training import train
from minillada.training.run import Run
from minillada.training.state import STATE
from minillada.vocab import load_vocabulary, text_path
from minillada.vq import ImageTokenizer


@pytest.fixture(autouse=True)
def small_mnist(monkeypatch):
    use_digits(monkeypatch, real_images(40))


@pytest.fixture
def preset(tmp_path):
    """A tiny backbone that reads a tiny tokenizer."""
    folder = save_tiny_uni(tmp_path / "given").parent / "tokenizer"
    return changed(BACKBONE, tokenizer=str(folder))


def contents(folder):
    """Every file of a run; the lock is none."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


# --- what is written -----------------------------------------------------------------------------


def test_text_preset_reproduces_the_shipped_pieces(tmp_path):
    module, records = train.train(get_preset("mnist-text"), tmp_path / "text")
    assert module is None and records == []
    learned = json.loads((tmp_path / "text" / "text.json").read_text())
    assert learned == json.loads(text_path().read_text())
    with pytest.raises(ValueError, match="set vocab_size to"):
        large = Preset(name="x", kind="text", model=TextConfig(vocab_size=5000))
        train.train(large, tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_every_kind_trains_saves_and_loads(tmp_path):
    classes = {"judge": Judge, "tokenizer": ImageTokenizer, "backbone": Backbone}
    backbone = changed(BACKBONE, tokenizer=str(tmp_path / "tokenizer"))
    for preset in (JUDGE, TOKENIZER, backbone):
        module, records = train.train(preset, tmp_path / preset.kind)
        assert len(records) == STEPS
        back, info = checkpoint.load_model(tmp_path / preset.kind, classes[preset.kind])
        assert same_bits(back, storable(module))
        assert info["data_md5"] == mnist.MNIST_MD5
        assert info["training"]["seed"] == 5
    assert len(info["text_sha256"]) == len(info["tokenizer_sha256"]) == 64
    uni = minillada.load(tmp_path / "backbone")
    assert uni.draw(["a seven"], steps=2).shape == (1, 1, 32, 32)
    assert len(uni.describe(real_images(2).floats())) == 2


def test_the_command_repeats_the_run():
    preset = changed(
        get_preset("mnist-cpu"),
        steps=9,
        seed=4,
        bfloat16=True,
        learning_rate=0.5,
        tokenizer="runs/my tokenizer",
        mixture=(("draw", 2.0), ("digit", 1.0)),
        block_size=4,
        mask_rate=(0.3, 0.8),
        objective="uniform",
    )
    words = shlex.split(train.command(preset, "runs/it's here"))
    assert words[:3] == ["minillada", "train", "mnist-cpu"]
    # Read the command line as the program does.
    settings, given, rest = [], {}, iter(words[3:])
    for word in rest:
        if word == "--bf16":
            given["bfloat16"] = True
        elif word == "--set":
            settings.append(next(rest))
        else:
            given[word.removeprefix("--").replace("-", "_")] = next(rest)
    assert given.pop("start") == "runs/it's here"
    given |= {name: json.loads(given[name]) for name in ("steps", "seed", "learning_rate")}
    assert changed(get_preset("mnist-cpu"), **read_settings(settings), **given) == preset


def test_a_new_backbone_starts_its_image_rows_at_the_codebook():
    tokenizer = tiny_tokenizer()
    with_codes, again = (train.new_model(BACKBONE, "cpu", tokenizer) for _ in range(2))
    without = train.new_model(BACKBONE, "cpu")
    assert same_bits(with_codes, again)
    for table in ("model.word_embeddings.weight", "lm_head.weight"):
        a, b = with_codes.get_parameter(table).detach(), without.get_parameter(table).detach()
        assert torch.equal(a[:384], b[:384])
        assert not torch.equal(a[384:], b[384:])
        # They are a projection of codes of 8 dimensions.
        assert torch.linalg.matrix_rank(a[384:]) <= tokenizer.config.code_dim


def test_a_run_finds_its_tokenizer_from_every_working_folder(preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    near = changed(preset, tokenizer="given/tokenizer")
    train.train(near, tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert minillada.load(tmp_path / "run").draw(["a one"], steps=1).shape == (1, 1, 32, 32)


# --- going on ------------------------------------------------------------------------------------


def test_an_interrupted_preset_resumes_to_the_same_file(preset, tmp_path):
    train.train(preset, tmp_path / "whole")
    parts = tmp_path / "parts"
    train.train(preset, parts, stop_after=3)
    assert not (parts / "weights.safetensors").exists(), "no half-trained weights by mistake"
    train.train(preset, Run(parts, resume=True))
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (parts / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    # The library writes metadata in random order, so states are compared by content.
    whole, settings = checkpoint.read_tensors(tmp_path / "whole" / "state.safetensors")
    again, others = checkpoint.read_tensors(parts / "state.safetensors")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert any(key.endswith("exp_avg_sq") for key in whole)
    assert settings["story"] == others["story"]
    written = contents(parts)
    train.train(preset, Run(parts, resume=True))
    assert contents(parts) == written, "nothing was left to do, so nothing is rewritten"


def test_resume_starts_a_run_in_a_new_folder(preset, tmp_path):
    train.train(preset, tmp_path / "plain")
    train.train(preset, Run(tmp_path / "new", resume=True))
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_muon_resumes_to_the_bit(preset, tmp_path):
    preset = changed(preset, optimizer="muon")
    train.train(preset, tmp_path / "whole")
    train.train(preset, tmp_path / "parts", stop_after=3)
    train.train(preset, Run(tmp_path / "parts", resume=True))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    name = "weights.safetensors"
    assert (whole / name).read_bytes() == (parts / name).read_bytes()


OTHER_RUNS = {
    "block_size": (dict(block_size=8), "block_size: 4 before, 8 now"),
    "rope_theta": (dict(rope_theta=10.0), "rope_theta: 100.0 before, 10.0 now"),
    "steps": (dict(steps=9), "steps: 7 before, 9 now"),
    "mixture": (dict(mixture=(("draw", 1.0),)), "mixture: "),
    "several": (dict(seed=6, learning_rate=0.1), "learning_rate: 0.003 before, 0.1 now; seed: 5"),
}


@pytest.mark.parametrize("stop_after", [3, None], ids=["unfinished", "finished"])
@pytest.mark.parametrize("name", OTHER_RUNS)
def test_another_run_is_not_resumed(preset, tmp_path, name, stop_after):
    changes, sentence = OTHER_RUNS[name]
    train.train(preset, tmp_path / "run", stop_after=stop_after)
    before = contents(tmp_path / "run")
    with pytest.raises(ValueError, match="belongs to another run") as error:
        train.train(changed(preset, **changes), Run(tmp_path / "run", resume=True))
    assert sentence in str(error.value)
    assert contents(tmp_path / "run") == before


def test_another_tokenizer_text_or_start_is_not_resumed(preset, tmp_path):
    run = Run(tmp_path / "run", resume=True)
    train.train(preset, tmp_path / "run", stop_after=3)
    train.train(preset, tmp_path / "other")
    with pytest.raises(ValueError, match="start_sha256: None before, [0-9a-f]{64} now"):
        train.train(preset, run, start=str(tmp_path / "other"))
    train.train(TOKENIZER, tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="tokenizer_sha256: [0-9a-f]{64} before, "):
        train.train(changed(preset, tokenizer=str(tmp_path / "tokenizer")), run)
    # Equal pieces in a file of its own that is not equal.
    pieces = tmp_path / "pieces.json"
    pieces.write_text(text_path().read_text().replace("\n", "\n "))
    with pytest.raises(ValueError, match="text_sha256: [0-9a-f]{64} before, "):
        train.train(changed(preset, text=str(pieces)), run)


# --- folders that hold a run ---------------------------------------------------------------------


@pytest.mark.parametrize("stop_after", [3, None], ids=["unfinished", "finished"])
def test_a_run_is_not_overwritten_unasked(preset, tmp_path, stop_after):
    train.train(preset, tmp_path / "run", stop_after=stop_after)
    before = contents(tmp_path / "run")
    with pytest.raises(ValueError, match="already holds a run; .*--resume.*--overwrite"):
        train.train(preset, tmp_path / "run")
    assert contents(tmp_path / "run") == before
    train.train(changed(preset, seed=9), Run(tmp_path / "run", overwrite=True))
    train.train(changed(preset, seed=9), tmp_path / "plain")
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_text_pieces_are_not_overwritten_unasked(tmp_path):
    train.train(get_preset("mnist-text"), tmp_path)
    with pytest.raises(ValueError, match="already holds a run"):
        train.train(get_preset("mnist-text"), tmp_path)
    train.train(get_preset("mnist-text"), Run(tmp_path, resume=True))
    with pytest.raises(ValueError, match="holds other text pieces; replace them with --overwrite"):
        train.train(get_preset("mnist-uni-text"), Run(tmp_path, resume=True))


def test_text_pieces_are_not_added_to_another_run(preset, tmp_path):
    train.train(preset, tmp_path / "run")
    before = contents(tmp_path / "run")
    with pytest.raises(ValueError, match=r"another run \(metrics.jsonl\); choose another folder"):
        train.train(get_preset("mnist-text"), Run(tmp_path / "run", resume=True))
    assert contents(tmp_path / "run") == before


def test_overwriting_leaves_nothing_of_the_old_run(preset, tmp_path):
    train.train(preset, Run(tmp_path / "run", snapshot_every=2))
    train.train(preset, Run(tmp_path / "run", overwrite=True), stop_after=1)
    assert sorted(contents(tmp_path / "run")) == ["metrics.jsonl", "state.safetensors"]
    train.train(get_preset("mnist-text"), Run(tmp_path / "run", overwrite=True))
    assert list(contents(tmp_path / "run")) == ["text.json"]


def test_a_refused_run_leaves_the_finished_one_untouched(preset, tmp_path):
    """What is only found out in the first step must not have emptied the log before."""
    train.train(preset, tmp_path / "run")
    before = contents(tmp_path / "run")
    for changes in (dict(pack_length=128, mask_rate_per="sequence"), dict(pack_length=102)):
        with pytest.raises(ValueError):
            train.train(changed(preset, **changes), Run(tmp_path / "run", overwrite=True))
        assert contents(tmp_path / "run") == before


def test_a_run_that_cannot_be_made_makes_no_folder(preset, tmp_path):
    wrong = changed(preset, vocab_size=1000)
    with pytest.raises(ValueError, match="vocab_size"):
        train.train(wrong, tmp_path / "new")
    with pytest.raises(FileNotFoundError, match="no weights called 'nowhere'"):
        train.train(changed(preset, tokenizer="nowhere"), tmp_path / "new")
    with pytest.raises(FileNotFoundError, match="no weights called 'nowhere'"):
        train.train(preset, tmp_path / "new", start="nowhere")
    with pytest.raises(ValueError, match="--start is empty"):
        train.train(preset, tmp_path / "new", start="")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written(preset, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match="cannot write to .*; choose another folder with --out"):
        train.train(preset, tmp_path / "file" / "run")


# --- killed between two files --------------------------------------------------------------------


def remove(*names):
    def damage(folder):
        for name in names:
            (folder / name).unlink()

    return damage


def other_weights(folder):
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")


def half_a_json(folder):
    (folder / "weights.json").write_text("{")


def json_of_another_run(folder):
    path = folder / "weights.json"
    path.write_text(path.read_text().replace('"block_size": 4', '"block_size": 8'))


DAMAGES = {
    "half a JSON": half_a_json,
    "JSON of another run": json_of_another_run,
    "no JSON": remove("weights.json"),
    "no weights": remove("weights.safetensors"),
    "neither": remove("weights.json", "weights.safetensors"),
    "they do not belong together": other_weights,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_weights_that_are_not_whole_are_written_again(preset, tmp_path, name):
    folder = tmp_path / "run"
    train.train(preset, folder)
    before = (folder / "weights.safetensors").read_bytes()
    DAMAGES[name](folder)
    train.train(preset, Run(folder, resume=True))
    assert (folder / "weights.safetensors").read_bytes() == before
    checkpoint.load_model(folder, Backbone)


def test_a_snapshot_is_written_before_its_state(preset, tmp_path, monkeypatch):
    """Killed while a snapshot is written: the state is still the one before it."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train.train(preset, Run(whole, snapshot_every=2))
    original = checkpoint.save_model

    def dying(path, *rest):
        if path.name == "step-000004.safetensors":
            raise KeyboardInterrupt
        original(path, *rest)

    monkeypatch.setattr(checkpoint, "save_model", dying)
    with pytest.raises(KeyboardInterrupt):
        train.train(preset, Run(killed, snapshot_every=2, save_every=1))
    monkeypatch.undo()
    mnist_images = real_images(40)
    use_digits(monkeypatch, mnist_images)
    train.train(preset, Run(killed, snapshot_every=2, resume=True))
    names = [path.name for path in merging.snapshots(killed)]
    assert names == [f"step-00000{step}.safetensors" for step in (2, 4, 6)]
    for name in names:
        assert (killed / name).read_bytes() == (whole / name).read_bytes()


def test_weights_without_a_state_are_not_trained_again_unasked(preset, tmp_path):
    train.train(preset, tmp_path / "run")
    (tmp_path / "run" / "state.safetensors").unlink()
    with pytest.raises(ValueError, match="state.safetensors is missing, so nothing can go on"):
        train.train(preset, Run(tmp_path / "run", resume=True))


def test_resuming_without_a_state_removes_nothing_of_others(preset, tmp_path):
    folder = tmp_path / "run"
    train.train(preset, Run(folder, snapshot_every=2))
    for name in ("state.safetensors", "weights.safetensors", "weights.json"):
        (folder / name).unlink()
    before = contents(folder)
    with pytest.raises(ValueError, match="run holds step-000002.json, but state.* is missing"):
        train.train(changed(preset, seed=9), Run(folder, resume=True))
    assert contents(folder) == before
    train.train(get_preset("mnist-text"), tmp_path / "text")
    with pytest.raises(ValueError, match="text holds text.json, but state.* is missing"):
        train.train(preset, Run(tmp_path / "text", resume=True))
    assert list(contents(tmp_path / "text")) == ["text.json"]


def test_a_run_killed_before_its_first_state_begins_again(preset, tmp_path, monkeypatch):
    """Its log and its snapshots are its own, so they are replaced."""
    train.train(preset, Run(tmp_path / "whole", snapshot_every=2))

    def dying(*rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "save_state", dying)
    with pytest.raises(KeyboardInterrupt):
        train.train(preset, Run(tmp_path / "killed", snapshot_every=2, save_every=3))
    monkeypatch.undo()
    use_digits(monkeypatch, real_images(40))
    left = ["metrics.jsonl", "step-000002.json", "step-000002.safetensors"]
    assert sorted(contents(tmp_path / "killed")) == left
    train.train(preset, Run(tmp_path / "killed", snapshot_every=2, resume=True))
    for name in ("weights.safetensors", "metrics.jsonl", "step-000002.safetensors"):
        same = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "killed" / name).read_bytes() == same


def die_at(patch, number):
    """Raise before the file is renamed or removed that comes after `number` others."""
    moments = itertools.count()

    def dying(change):
        def call(path, *rest, **options):
            # `atomic` also removes what it has renamed, which is nothing.
            counts = change is replace or path.suffix != ".part"
            if counts and next(moments) == number:
                raise KeyboardInterrupt
            change(path, *rest, **options)

        return call

    replace = os.replace
    patch.setattr(os, "replace", dying(replace))
    patch.setattr(Path, "unlink", dying(Path.unlink))


# The files of a run are: log, two snapshots after their JSON, state, JSON, weights. A run that goes
# on without a state first removes what is there.
@pytest.mark.parametrize("kills", [*((n,) for n in range(8)), *((3, n) for n in range(4))])
def test_a_run_goes_on_from_every_moment_at_which_it_is_killed(tmp_path, monkeypatch, kills):
    preset = changed(JUDGE, steps=2, batch_size=2)

    def go_on(folder):
        train.train(preset, Run(folder, snapshot_every=1, save_every=2, resume=True))

    for number in kills:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            die_at(patch, number)
            go_on(tmp_path / "killed")
    for name in ("killed", "whole"):
        go_on(tmp_path / name)
    assert contents(tmp_path / "killed").keys() == contents(tmp_path / "whole").keys()
    for path in (tmp_path / "whole").glob("*.safetensors"):
        if path.name != STATE:  # its metadata are in random order
            assert path.read_bytes() == (tmp_path / "killed" / path.name).read_bytes()


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"overwrite": True}])
def test_what_a_run_did_not_write_stays(preset, tmp_path, how):
    (tmp_path / "run" / "shards").mkdir(parents=True)
    (tmp_path / "run" / "shards" / "part-0.bin").write_bytes(b"somebody's data")
    train.train(preset, Run(tmp_path / "run", **how), stop_after=1)
    assert (tmp_path / "run" / "shards" / "part-0.bin").read_bytes() == b"somebody's data"


# --- snapshots and starts ------------------------------------------------------------------------


def test_snapshots_are_the_weights_of_their_step(preset, tmp_path):
    train.train(preset, Run(tmp_path / "run", snapshot_every=2), stop_after=3)
    train.train(preset, Run(tmp_path / "run", snapshot_every=2, resume=True))
    names = [path.name for path in merging.snapshots(tmp_path / "run")]
    assert names == [f"step-00000{step}.safetensors" for step in (2, 4, 6)]
    four, _ = train.train(preset, tmp_path / "four", stop_after=4)
    kept, info = checkpoint.load_model(merging.snapshot_path(tmp_path / "run", 4), Backbone)
    assert same_bits(kept, storable(four))
    assert info["step"] == 4 and info["preset"] == "mnist"


def test_a_run_can_start_from_other_weights(preset, tmp_path):
    """A second round begins where the first ended, and its JSON tells the whole story."""
    first, _ = train.train(preset, tmp_path / "first")
    start = str(tmp_path / "first")
    still = changed(preset, block_size=8, learning_rate=1e-12, weight_decay=0.0)
    second, _ = train.train(still, tmp_path / "second", start=start)
    old, new = storable(first).state_dict(), second.state_dict()
    assert all(torch.allclose(old[key], new[key], atol=1e-6) for key in old)
    info = checkpoint.read_info(tmp_path / "second" / "weights.safetensors")
    about = checkpoint.read_info(tmp_path / "first" / "weights.safetensors")
    assert info["start"]["training"] == about["training"]
    assert info["start_sha256"] == about["sha256"]
    assert info["command"].endswith(f"--start {start}")
    with pytest.raises(ValueError, match="hidden_size: 16 before, 48 now"):
        train.train(changed(preset, hidden_size=48), tmp_path / "third", start=start)
    with pytest.raises(ValueError, match="is in the folder of the run itself"):
        train.train(preset, Run(tmp_path / "first", overwrite=True), start=start)


@pytest.mark.parametrize("text", ["mnist-text", "mnist-uni-text"])
def test_a_run_draws_and_edits_with_the_settings_of_its_start(preset, tmp_path, text):
    """Unless its ids are others: then nobody knows what is best."""
    train.train(preset, tmp_path / "first")
    path = tmp_path / "first" / "weights.safetensors"
    own = {"drawing": {"steps": 3, "guidance": 4.0}, "editing": {"steps": 5}}
    checkpoint.write_info(path, checkpoint.read_info(path) | own)
    other = changed(preset, text=text, vocab_size=load_vocabulary(16, text).size)
    train.train(other, tmp_path / "second", start=str(tmp_path / "first"))
    info = minillada.load(tmp_path / "second").info
    kept = {key: info[key] for key in own if key in info}
    assert kept == (own if text == preset.text else {})


def train_tokenizer(folder, seed=0, **changes):
    """A tokenizer in a folder, as if it had been trained there; returns the folder."""
    module = tiny_tokenizer(seed, **changes)
    checkpoint.save_model(folder / "weights.safetensors", module, describe("tokenizer", module))
    return str(folder)


def test_rows_follow_their_pieces_to_other_text_pieces(preset, tmp_path):
    """The tokenizer may stay the same: the ids of pieces and of codes are others all the same."""
    first, _ = train.train(preset, tmp_path / "first")
    old, new = load_vocabulary(16), load_vocabulary(16, "mnist-uni-text")
    still = dict(steps=1, learning_rate=1e-12, weight_decay=0.0)
    other = changed(preset, text="mnist-uni-text", vocab_size=new.size, **still)
    second, _ = train.train(other, tmp_path / "second", start=str(tmp_path / "first"))
    before, after = (m.lm_head.weight.detach() for m in (storable(first), second))
    [a], [b] = old.markup(" seven"), new.markup(" seven")
    assert a != b and torch.allclose(before[a], after[b], atol=1e-6)
    assert torch.allclose(before[-16:], after[-16:], atol=1e-6)  # the codes are the same


def test_a_start_whose_tokenizer_was_trained_again_is_refused(preset, tmp_path):
    train.train(preset, tmp_path / "first")
    train_tokenizer(tmp_path / "given" / "tokenizer", seed=9)
    with pytest.raises(ValueError, match="first was trained on another version of tokenizer"):
        train.train(preset, tmp_path / "second", start=str(tmp_path / "first"))
    assert not (tmp_path / "second").exists()


def test_a_start_with_codes_of_an_unrelated_tokenizer_is_warned_of(preset, tmp_path):
    train.train(preset, tmp_path / "first")
    start, given = str(tmp_path / "first"), str(tmp_path / "given" / "tokenizer")
    short = changed(TOKENIZER, steps=1)
    for old, new in ((given, "near"), (tmp_path / "near", "far")):  # two runs on from the given one
        train.train(short, tmp_path / new, start=str(old))
    related = changed(preset, tokenizer=str(tmp_path / "far"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train.train(related, tmp_path / "second", start=start)
    stranger = changed(preset, tokenizer=train_tokenizer(tmp_path / "stranger", seed=9))
    with pytest.warns(UserWarning, match="tokenizer of .*first and the new one were trained apart"):
        train.train(stranger, tmp_path / "third", start=start)


@pytest.mark.filterwarnings("ignore:the image tokenizer of")
def test_a_start_that_does_not_fit_a_backbone(preset, tmp_path):
    train.train(preset, tmp_path / "first")
    for name, changes, sentence in (
        ("near", dict(hidden_size=48), r"^mnist .*first, .* \(hidden_size: 16 before, 48 now\)"),
        ("far", {}, "codes of 8 and of 12 numbers cannot be compared"),
    ):
        there = train_tokenizer(tmp_path / name, 9, code_dim=12 if name == "far" else 8)
        other = changed(preset, tokenizer=there, **changes)
        with pytest.raises(ValueError, match=sentence):
            train.train(other, tmp_path / "second", start=str(tmp_path / "first"))


def test_a_start_that_does_not_fit_a_tokenizer(tmp_path):
    start = train_tokenizer(tmp_path / "first")
    with pytest.raises(ValueError, match=r"other sizes \(code_dim: 8 before, 12 now\); choose"):
        train.train(changed(TOKENIZER, code_dim=12), tmp_path / "second", start=start)


@pytest.mark.filterwarnings("ignore:the image tokenizer of")
def test_a_painter_of_other_codes_starts_at_the_nearest_ones(tmp_path):
    """Codes `[K]` of a tokenizer that holds those of the start in another order."""
    old = tiny_tokenizer(3)
    order = torch.randperm(16, generator=generator(0))
    new = tiny_tokenizer(3)
    new.codebook.embedding.copy_(old.codebook.embedding[order])
    for name, tokenizer in (("old", old), ("new", new)):
        about = describe("tokenizer", tokenizer)
        checkpoint.save_model(tmp_path / name / "weights.safetensors", tokenizer, about)
    sizes = dict(codebook_size=16, code_dim=8, width=8, steps=2, batch_size=2)
    preset = changed(get_preset("mnist-painter"), tokenizer=str(tmp_path / "old"), **sizes)
    first, _ = train.train(preset, tmp_path / "first")
    still = dict(learning_rate=1e-12, weight_decay=0.0)
    other = changed(preset, tokenizer=str(tmp_path / "new"), **still)
    second, _ = train.train(other, tmp_path / "second", start=str(tmp_path / "first"))
    before, after = (painter.embedding.weight for painter in (storable(first), second))
    assert torch.allclose(before[order], after[:16], atol=1e-5)
    assert torch.allclose(before[16], after[16], atol=1e-5)  # without codes


def test_a_tokenizer_goes_on_deeper(tmp_path):
    """Before the first step nothing changes; then what was added learns, too."""
    start = train_tokenizer(tmp_path / "first")
    shallow, _ = checkpoint.load_model(start, ImageTokenizer)
    preset = changed(TOKENIZER, depth=3, steps=2, learning_rate=1e-2)
    grown, _ = train.train(preset, tmp_path / "still", start=start, stop_after=0)
    images = real_images(8).floats(slice(None))
    assert torch.equal(shallow.encode(images), grown.encode(images))
    codes = shallow.encode(images)
    torch.testing.assert_close(shallow.decode(codes), grown.decode(codes))
    trained, _ = train.train(preset, tmp_path / "second", start=start)
    further = [value for name, value in trained.named_parameters() if ".more.1.5." in name]
    assert len(further) == 2 * 8 and all(value.any() for value in further)
    with pytest.raises(ValueError, match="depth: 3 before, 1 now"):
        train.train(TOKENIZER, tmp_path / "third", start=str(tmp_path / "second"))


# --- data of one's own ---------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_a_data_set_of_ones_own(tmp_path, monkeypatch, columns):
    """An entry in each of two tables is enough, with as many columns as it likes."""
    kinds = ("one", "two", "three")
    words = {"label": kinds, "size": ("small", "large"), "side": ("left", "right"), "x": ("a", "b")}
    mine = replace(
        MNIST,
        name="shapes",
        load=lambda split: real_images(40)._replace(labels=torch.arange(40) % 3),
        checksums={},
        grammar=Grammar(
            dict(itertools.islice(words.items(), columns)),
            lambda label, *others: f"a {kinds[label]}{[*others]}",
        ),
        classes=lambda pixels, labels: torch.stack([labels, *[labels % 2] * (columns - 1)], 1),
        measures={},
        stored="shapes/none",
    )
    monkeypatch.setitem(DATASETS, "shapes", mine)
    monkeypatch.setitem(TASKS_OF, "shapes", {name: TASKS[name] for name in ("draw", "describe")})
    monkeypatch.setattr(train, "stored_pool", pool.stored_pool)
    changes = dict(dataset="shapes", steps=1)
    train.train(changed(TOKENIZER, **changes), tmp_path / "tokenizer")
    changes["tokenizer"] = str(tmp_path / "tokenizer")
    train.train(changed(BACKBONE, **changes), tmp_path / "backbone")
    uni = minillada.load(tmp_path / "backbone")
    assert uni.draw(["a two"]).shape == (1, 1, 32, 32)
    assert uni.info["dataset"] == "shapes"


def test_an_unknown_data_set(tmp_path):
    with pytest.raises(ValueError, match="no data set is called 'svhn'; choose mnist or cifar10"):
        train.train(changed(JUDGE, dataset="svhn"), tmp_path)

"""Several processes train as one does: the same losses, weights and loads, and so do passes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from shared_runs import (
    PRESETS,
    TOKENIZERS,
    backbone_run,
    free_port,
    process,
    start,
    tokenizer_run,
    trained,
    work,
)
from tiny_runs import JUDGE, STEPS

from minillada import checkpoint
from minillada.batching import Portion
from minillada.model import Backbone
from minillada.presets import get_preset
from minillada.settings import changed
from minillada.training import recipes, train
from minillada.training.distributed import Processes, check_shared, joined, local_device
from minillada.training.loop import fit
from minillada.training.optim import make_optimizers
from minillada.training.run import Run
from minillada.training.state import Learner

STOP = 3
ALONE = Processes()
EVERY = PRESETS | TOKENIZERS
# folder -> preset, sharding and more; a folder that begins with `resumed` was begun by others
TWO = {
    "dense-ddp": ("dense", "ddp", {}),
    "dense-fsdp": ("dense", "fsdp", {}),
    "experts-ddp": ("experts", "ddp", {}),
    "experts-fsdp": ("experts", "fsdp", {}),
    "errors-ddp": ("errors", "ddp", {}),
    "packed-fsdp": ("packed", "fsdp", {}),
    "muon-ddp": ("muon", "ddp", {}),
    "codes-ddp": ("codes", "ddp", {}),
    "codes-alone-ddp": ("codes-alone", "ddp", {}),
    "resumed-1-2": ("dense", "fsdp", {"resume": True}),
    "resumed-2-1": ("dense", "fsdp", {"stop_after": STOP}),
    "resumed-2-4": ("dense", "ddp", {"stop_after": STOP}),
}
FOUR = {
    "experts-four-ddp": ("experts", "ddp", {}),
    "experts-four-fsdp": ("experts", "fsdp", {}),
    "codes-four-ddp": ("codes", "ddp", {}),
    "resumed-2-4": ("dense", "fsdp", {"resume": True}),
}
PASSES = {"experts-ddp": 2, "packed-fsdp": 3}  # folder -> passes of each process


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """All runs above and, by the name of a preset, those of one process."""
    folder = tmp_path_factory.mktemp("runs")
    for name, preset in EVERY.items():
        trained(preset, folder / name, ALONE)
    trained(PRESETS["dense"], folder / "resumed-1-2", ALONE, stop_after=STOP)
    records = {}
    for count, jobs in ((2, TWO), (4, FOUR)):
        todo = []
        for name, (preset, sharding, more) in jobs.items():
            wanted = changed(EVERY[preset], accumulate=PASSES.get(name, 1))
            todo.append((folder / name, wanted, sharding, more))
        results = tmp_path_factory.mktemp("records")
        start(work, count, todo, results)
        records[count] = [torch.load(results / f"records-{rank}.pt") for rank in range(count)]
    trained(PRESETS["dense"], folder / "resumed-2-1", ALONE, resume=True)
    return SimpleNamespace(folder=folder, records=records)


def same_run(folder: Path, expected: Path, near: float = 1e-6) -> None:
    """Two runs have the same log and the same state, weights and averages, up to rounding."""
    assert len(log(folder)) == STEPS
    for record, other in zip(log(folder), log(expected), strict=True):
        assert record == pytest.approx(other, rel=10 * near, abs=near)
    tensors, _ = checkpoint.read_tensors(folder / "state.safetensors")
    others, _ = checkpoint.read_tensors(expected / "state.safetensors")
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.allclose(tensor, others[name], rtol=near, atol=near), name


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", [*TWO, *(name for name in FOUR if name not in TWO)])
def test_several_processes_train_as_one_does(runs, name):
    """Resumed runs: stopped after three steps by 1, 2 and 2 processes, ended by 2, 1 and 4."""
    preset, _, _ = (TWO | FOUR)[name]
    # Muon computes in bfloat16, which makes rounding visible. So does Adam in a tokenizer: it
    # takes steps of full length where the gradient of a bias is hardly more than rounding.
    near = 1e-3 if preset in ("muon", *TOKENIZERS) else 1e-6
    same_run(runs.folder / name, runs.folder / preset, near)
    assert sorted(path.name for path in (runs.folder / name).iterdir()) == [
        "metrics.jsonl",
        "state.safetensors",
    ]


def test_every_process_sees_the_numbers_of_the_whole_batch(runs):
    for count, jobs in ((2, TWO), (4, FOUR)):
        first, *others = runs.records[count]
        assert first.keys() == jobs.keys()
        assert all(records == first for records in others)


def test_the_experts_were_balanced_and_the_runs_differ(runs):
    """Or else the comparisons above could not fail."""
    tensors = {}
    for name in PRESETS:
        tensors[name], _ = checkpoint.read_tensors(runs.folder / name / "state.safetensors")
    bias = tensors["experts"]["model.model.layers.1.mlp.gate.expert_bias"]
    assert bias.abs().max() > 0.05
    head = "model.lm_head.weight"
    for name in ("experts", "errors", "packed", "muon"):
        assert not torch.allclose(tensors[name][head], tensors["dense"][head], atol=1e-3)


# --- portions of a batch -------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_the_losses_of_all_portions_add_up(name):
    """Also where a portion has no row of some batch, as here, and for their gradients."""
    backbone, loss = backbone_run(PRESETS[name])
    parameters = list(backbone.parameters())
    value, metrics = loss(0)
    expected = torch.autograd.grad(value, parameters)
    assert value > 0.1
    total, nats, gradients = 0.0, 0.0, [torch.zeros_like(p) for p in parameters]
    for number in range(4):
        value, its_metrics = loss(0, Portion(number, 4))
        total, nats = total + float(value.detach()), nats + its_metrics["masked_nats"]
        # Not one weight may be left out: processes that share the weights would wait for it.
        for sum_of, gradient in zip(gradients, torch.autograd.grad(value, parameters)):
            sum_of += gradient
    assert total == pytest.approx(float(loss(0)[0].detach()), rel=1e-5)
    assert nats == pytest.approx(metrics["masked_nats"], rel=1e-5)
    for found, wanted in zip(gradients, expected):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_some_batches_have_fewer_rows_than_portions(monkeypatch):
    """Or else the test above would not try a portion without rows."""
    rows = []

    def spy(backbone, batch, *rest):
        rows.append(len(batch.ids))
        return torch.zeros(()), {"masked_nats": 0.0}

    monkeypatch.setattr(recipes, "block_diffusion_loss", spy)
    backbone_run(PRESETS["dense"])[1](0)
    assert min(rows) < 4 and sum(rows) == 9


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_rows_are_dealt_out_once_and_evenly(of):
    sizes, first, dealt = [5, 1, 0, 9, 2], 0, [0] * of
    for size in sizes:
        rows = torch.arange(size)
        taken = torch.stack([Portion(number, of, first).has(rows) for number in range(of)])
        assert bool((taken.sum(0) == 1).all())
        for number in range(of):
            dealt[number] += int(taken[number].sum())
        first += size
    assert max(dealt) - min(dealt) <= 1


def test_passes_add_up_to_the_whole_batch(runs, tmp_path):
    trained(changed(PRESETS["experts"], accumulate=4), tmp_path / "run", ALONE)
    same_run(tmp_path / "run", runs.folder / "experts")


def test_a_run_goes_on_with_another_number_of_passes(runs, tmp_path):
    trained(PRESETS["dense"], tmp_path / "run", ALONE, stop_after=STOP)
    preset = changed(PRESETS["dense"], accumulate=2)
    assert len(trained(preset, tmp_path / "run", ALONE, resume=True)) == STEPS - STOP
    same_run(tmp_path / "run", runs.folder / "dense")


def gradients_of(rank: int, count: int, port: int, folder: Path) -> None:
    """Train in two passes a step with ddp, and look where the gradients are before each pass."""
    with process(rank, count, port) as processes:
        module, loss = backbone_run(PRESETS["dense"])
        blocks = []  # of memory that hold gradients, before each pass

        def seen(step, portion):
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            blocks.append(len({g.untyped_storage().data_ptr() for g in gradients}))
            return loss(step, portion)

        config = changed(PRESETS["dense"], accumulate=2).training
        fit(module, seen, config, Run(folder, processes=processes), stop_after=3)
    assert not torch.distributed.is_initialized()
    # In the first step there are none yet, and then one for each weight.
    assert blocks[:2] == [0, len(list(module.parameters()))]
    assert blocks[2:] == [1] * 4, "all lie in the one bucket of a small model"


def test_ddp_keeps_no_second_copy_of_the_gradient(tmp_path):
    start(gradients_of, 1, tmp_path)


def layers_of(rank: int, count: int, port: int) -> None:
    """Share a backbone by fsdp, and look at what is gathered by itself."""
    from torch.distributed.fsdp import FSDPModule

    with process(rank, count, port) as processes:
        module, loss = backbone_run(PRESETS["dense"])
        config = PRESETS["dense"].training
        learner = Learner(module, make_optimizers(module, config))
        replace(processes, sharding="fsdp").share(learner, loss, config)
    assert all(isinstance(layer, FSDPModule) for layer in module.model.layers)


def test_fsdp_gathers_one_layer_after_the_other():
    """Or else a process would hold all weights in every step."""
    start(layers_of, 1)


def test_words_of_processes_that_differ_have_different_numbers():
    """Only a number is sent for the words, and two states differ in a few letters."""
    sent = set()

    class Two(Processes):
        def total(self, numbers):
            sent.update(numbers)
            return [2 * number for number in numbers]

    two = Two(count=2)
    assert all(two.agree(f"state {number}") for number in range(100))
    assert len(sent - {0.0}) == 100


# --- when something goes wrong -------------------------------------------------------------------


def failing(rank: int, count: int, port: int, folder: Path, reason: str) -> None:
    """The second process fails, or gets a signal, in its third step; a fourth leaves a file."""

    def broken(loss):
        def second_fails(step, portion):
            if rank == 1 and step == 2 and reason == "error":
                raise RuntimeError("no more memory")
            if rank == 1 and step == 2:
                signal.raise_signal(signal.SIGTERM)
            if step == 3:
                (folder / f"process {rank} went on").touch()
            return loss(step, portion)

        return second_fails

    with process(rank, count, port) as processes:
        module, loss = backbone_run(PRESETS["dense"])
        run = Run(folder, save_every=50, processes=processes)
        fit(module, broken(loss), PRESETS["dense"].training, run)


def test_a_process_that_fails_ends_all(tmp_path):
    with pytest.raises(Exception, match="no more memory|onnection"):
        start(failing, 2, tmp_path, "error")
    assert multiprocessing.active_children() == []  # nobody waits for it
    assert not list(tmp_path.glob("* went on"))
    assert not (tmp_path / "state.safetensors").exists()


def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path):
    with pytest.raises(Exception, match="exit code 143"):
        start(failing, 2, tmp_path, "signal")
    _, settings = checkpoint.read_tensors(tmp_path / "state.safetensors")
    assert settings["step"] == "3" and not list(tmp_path.glob("* went on"))
    trained(PRESETS["dense"], tmp_path, ALONE, resume=True)


def apart(rank: int, count: int, port: int, folders: list[Path], presets: list[str]) -> None:
    """Each process looks into a folder of its own, as machines without a shared one do."""
    refused = pytest.raises(ValueError, match="different states.*a folder that all machines share")
    with process(rank, count, port) as processes, refused:
        trained(PRESETS[presets[rank]], folders[rank], processes, resume=True)


def test_processes_that_see_different_states_do_not_go_on(tmp_path):
    begun, empty = tmp_path / "begun", tmp_path / "empty"
    trained(PRESETS["dense"], begun, ALONE, stop_after=STOP)
    start(apart, 2, [begun, empty], ["dense", "dense"])
    start(apart, 3, [empty, empty, empty], ["dense", "dense", "errors"])
    assert not empty.exists()


@pytest.mark.parametrize(
    ("sharding", "changes", "message"),
    [
        ("fsdp", {"optimizer": "muon"}, "Muon needs whole matrices.*--sharding ddp"),
        ("fsdp", {"compile": True}, "compile is not for --sharding fsdp"),
        ("ddp", {"confidence_weight": 2.0}, "confidence_weight divides by how many"),
        ("ddp", {"mask_noise": 0.1}, "mask_noise takes random numbers"),
    ],
)
def test_what_cannot_be_shared_is_refused(sharding, changes, message):
    preset = changed(PRESETS["dense"], **changes)
    check_shared(preset, ALONE)
    check_shared(preset, Processes(0, 1, "ddp"))  # one portion is the whole batch
    with pytest.raises(ValueError, match=message):
        check_shared(preset, Processes(0, 2, sharding))
    passes = changed(preset, accumulate=2)
    if sharding == "fsdp":
        check_shared(passes, Processes(0, 2, "ddp"))
    else:
        with pytest.raises(ValueError, match=message):
            check_shared(passes, ALONE)


def test_the_codebook_started_and_moved(runs):
    """Or else the runs of image tokenizers would not compare how it learns."""
    assert ["revived" in record for record in log(runs.folder / "codes")] == [False] * 2 + [
        True
    ] * 5
    tensors, _ = checkpoint.read_tensors(runs.folder / "codes" / "state.safetensors")
    first = tokenizer_run(TOKENIZERS["codes"])[0].embedding
    assert (tensors["model.codebook.embedding"] - first).abs().amax(1).min() > 0.1
    assert (tensors["model.codebook.counts"] - 1).abs().max() > 0.01


def test_an_image_tokenizer_is_shared_in_equal_parts_alone():
    tokenizer = TOKENIZERS["codes"]
    for count in (1, 2, 8):
        check_shared(tokenizer, Processes(0, count, "ddp"))
    with pytest.raises(ValueError, match="3 processes cannot share 8 images equally"):
        check_shared(tokenizer, Processes(0, 3, "ddp"))
    for preset, sharding in ((tokenizer, "fsdp"), (changed(tokenizer, accumulate=2), "none")):
        with pytest.raises(ValueError, match="moves once a step.*--sharding ddp and without acc"):
            check_shared(preset, Processes(0, 2 if sharding == "fsdp" else 1, sharding))


def test_portions_without_an_example_are_refused():
    """So many passes would fill the memory, or at least take minutes."""
    preset = changed(PRESETS["dense"], batch_size=8)
    for count, passes in ((1, 8), (4, 2), (8, 1)):
        check_shared(changed(preset, accumulate=passes), Processes(0, count, "ddp"))
    for count, passes in ((1, 9), (4, 3), (9, 1)):
        sentence = f"{count * passes} portions cannot share 8 examples; accumulate times"
        with pytest.raises(ValueError, match=sentence):
            check_shared(changed(preset, accumulate=passes), Processes(0, count, "ddp"))


def test_judges_and_painters_are_not_shared(tmp_path):
    for count in (1, 2):
        with pytest.raises(ValueError, match="mnist-judge is neither a backbone nor an image toke"):
            check_shared(JUDGE, Processes(0, count, "ddp"))
    with pytest.raises(ValueError, match="leave out --sharding and accumulate"):
        train.train(changed(JUDGE, accumulate=2), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def refusal(sharding: str, device: str = "cpu") -> str:
    with pytest.raises(ValueError) as caught, joined(sharding, device):
        pass
    return str(caught.value)


def test_a_start_that_does_not_fit_is_refused(monkeypatch):
    assert "choose one of none, ddp, fsdp" in refusal("tp")
    assert "start them with `torchrun --nproc-per-node N" in refusal("ddp")
    # The sixth process of all is the second one of its machine.
    for name, value in {"RANK": "5", "WORLD_SIZE": "1", "LOCAL_RANK": "1"}.items():
        assert local_device("cuda") == "cuda"  # some variables alone are not torchrun's
        monkeypatch.setenv(name, value)
    with joined("none", "cpu") as processes:
        assert processes == ALONE
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert local_device("cuda") == "cuda:1" and local_device("cpu") == "cpu"
    assert "share the work by --sharding ddp or fsdp" in refusal("none")
    assert "train on cpu or cuda, not on mps" in refusal("fsdp", "mps")


def test_one_process_needs_no_group():
    with joined("none", "cuda:1") as processes:
        assert processes == Processes(device="cuda:1")
        assert not torch.distributed.is_initialized()


# --- the command line ----------------------------------------------------------------------------


def test_the_command_line_under_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(free_port()), "-m", "minillada", "train", "mnist-cpu"]
    command += ["--steps", "2", "--set", "batch_size=5", "--set", "hidden_size=32"]
    command += ["--sharding", "fsdp", "--json", "--out", str(tmp_path / "two")]
    # PyTorch for Windows is built without libuv, which torchrun asks for unless it is told not to.
    libuv = "0" if os.name == "nt" else "1"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "USE_LIBUV": libuv}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    # One process alone printed: the output is one JSON object.
    assert json.loads(done.stdout)["step"] == 1
    preset = changed(get_preset("mnist-cpu"), steps=2, batch_size=5, hidden_size=32)
    module, records = train.train(preset, tmp_path / "one")
    for one, two in zip(records, log(tmp_path / "two"), strict=True):
        assert one == pytest.approx(two, rel=1e-5)
    shared, info = checkpoint.load_model(tmp_path / "two", Backbone)
    assert info["command"] == checkpoint.read_info(tmp_path / "one" / "weights.json")["command"]
    for mine, theirs in zip(module.parameters(), shared.parameters()):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4)  # stored in half precision

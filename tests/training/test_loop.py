"""One step by hand; a run that is stopped anywhere and resumed ends with the same bits."""

import math
import signal
from types import SimpleNamespace

import pytest
import torch
from helpers import MASK, few, generator, random_ids, tiny_backbone
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import RUNS, SHORT, STEPS, judge_run, same_bits
from torch import nn

from minillada import checkpoint
from minillada.batching import Batch
from minillada.config import ObjectiveConfig, TrainingConfig
from minillada.diffusion import block_diffusion_loss
from minillada.settings import changed
from minillada.training import loop, optim
from minillada.training.loop import batch_indices, fit, step_generator
from minillada.training.run import Run

# --- small pieces --------------------------------------------------------------------------------


def test_each_step_has_its_own_stream_whatever_came_before():
    def first_numbers():
        streams = [step_generator(seed, step) for seed in range(3) for step in range(50)]
        return [float(torch.rand(1, generator=stream)) for stream in streams]

    numbers = first_numbers()
    assert len(set(numbers)) == 150
    assert numbers == first_numbers()


def epoch_of(count, batch, epoch, seed):
    steps = range(epoch * (count // batch), (epoch + 1) * (count // batch))
    return torch.cat([batch_indices(count, batch, step, seed) for step in steps]).tolist()


@few
@given(
    batch=st.integers(1, 9),
    batches=st.integers(1, 6),
    rest=st.integers(0, 8),
    seed=st.integers(0, 99),
)
def test_every_epoch_visits_each_index_once(batch, batches, rest, seed):
    count = batch * batches + rest % batch  # an incomplete batch at the end is left out
    first, second = (epoch_of(count, batch, epoch, seed) for epoch in (0, 1))
    for epoch in (first, second):
        assert len(epoch) == len(set(epoch)) == batch * batches
        assert min(epoch) >= 0 and max(epoch) < count
    if count > 20:
        assert first != second
        assert first != epoch_of(count, batch, 0, seed + 1)


def test_the_order_of_an_epoch_has_a_stream_that_no_step_has():
    orders = [batch_indices(20, 20, epoch, 3).tolist() for epoch in range(9)]
    for step in range(9):
        assert torch.randperm(20, generator=step_generator(3, step)).tolist() not in orders


def test_fewer_images_than_a_batch():
    assert sorted(batch_indices(5, 8, 3, 0).tolist()) == [0, 1, 2, 3, 4]


class Quadratic(nn.Module):
    """loss = ½ Σ (w − step)² + ½ Σ (b + 1)²: gradients known by hand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0, -2.0], [0.5, 1.0]]))
        self.bias = nn.Parameter(torch.tensor([0.3, -4.0]))

    def loss(self, step):
        value = (self.weight - step).square().sum() + (self.bias + 1).square().sum()
        return 0.5 * value, {"odd": step % 2}


class ByHand:
    """AdamW of one parameter in double precision, with betas 0.8 and 0.9."""

    def __init__(self, parameter, decay):
        self.value = parameter.detach().double().clone()
        self.mean = torch.zeros_like(self.value)
        self.square = torch.zeros_like(self.value)
        self.decay = decay

    def move(self, gradient, rate, step):
        self.mean = 0.8 * self.mean + 0.2 * gradient
        self.square = 0.9 * self.square + 0.1 * gradient**2
        mean = self.mean / (1 - 0.8 ** (step + 1))
        square = self.square / (1 - 0.9 ** (step + 1))
        self.value = self.value - rate * (self.decay * self.value + mean / (square.sqrt() + 1e-8))


def test_fit_is_clipped_adamw_with_the_schedule_by_hand():
    config = changed(
        TrainingConfig(),
        steps=6,
        warmup_steps=2,
        learning_rate=0.1,
        weight_decay=0.5,
        betas=(0.8, 0.9),
        grad_clip=1.5,
    )
    module = Quadratic()
    weight, bias = ByHand(module.weight, 0.5), ByHand(module.bias, 0.0)
    records = fit(module, module.loss, config)
    for step, record in enumerate(records):
        gradients = weight.value - step, bias.value + 1
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        rate = optim.learning_rate(config, step)
        assert record == {
            "step": step,
            "loss": pytest.approx(0.5 * norm**2, rel=1e-4),
            "odd": step % 2,
            "grad_norm": pytest.approx(norm, rel=1e-4),
            "lr": pytest.approx(rate),
        }
        cut = min(1.0, 1.5 / norm)
        weight.move(gradients[0] * cut, rate, step)
        bias.move(gradients[1] * cut, rate, step)
    assert torch.allclose(module.weight.detach().double(), weight.value, atol=1e-4)
    assert torch.allclose(module.bias.detach().double(), bias.value, atol=1e-4)
    last = torch.cat([p.grad.flatten() for p in module.parameters()])
    assert float(last.norm()) == pytest.approx(1.5, rel=1e-4)
    assert not module.training


# --- numbers that are not finite -----------------------------------------------------------------


def test_a_module_trains_until_the_last_step_and_no_longer():
    module, trained, done = Quadratic().eval(), [], []

    def loss(step):
        trained.append(module.training)
        return module.loss(step)

    records = fit(module, loss, SHORT, stop_after=STEPS + 2, after_step=done.append)
    assert trained == [True] * STEPS and not module.training
    assert done == list(range(1, STEPS + 1)) and len(records) == STEPS


def test_the_progress_bar_begins_where_the_run_does(monkeypatch):
    shown = []
    monkeypatch.setattr(loop, "tqdm", lambda *given, **more: shown.append((given, more)))
    for is_shown in (True, False):
        loop.progress(range(4, 9), "training", 12, is_shown)
    for (steps, _, total), more in shown:
        assert (steps, total, more["initial"]) == (range(4, 9), 12, 4)
    # If it is shown, nothing is said of it, so that the user may still hide it.
    assert [more.get("disable") for _, more in shown] == [None, True]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, value):
    module = Quadratic()
    before = module.weight.detach().clone()
    with pytest.raises(
        FloatingPointError, match=r"the loss is -?(nan|inf) at step 0; lower .* begin a new run"
    ):
        fit(module, lambda step: (module.weight.sum() * value, {}), SHORT, Run(tmp_path))
    assert torch.equal(module.weight, before), "not a single weight is spoilt"
    assert list(tmp_path.iterdir()) == []


def test_a_gradient_that_is_not_finite_ends_the_run_before_its_step(tmp_path):
    """The root has an infinite slope at 0, where its value is finite."""
    module = Quadratic()

    def loss(step):
        root = (module.bias - module.bias.detach()).abs().sqrt().sum()
        return module.loss(step)[0] + (root if step == 2 else 0), {}

    with pytest.raises(FloatingPointError, match="the gradient norm is nan at step 2; lower"):
        fit(module, loss, SHORT, Run(tmp_path, save_every=1))
    assert all(torch.isfinite(p).all() for p in module.parameters())
    _, settings = checkpoint.read_tensors(tmp_path / "state.safetensors")
    assert settings["step"] == "2"


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    """A buffer that no gradient passes through is spoilt in silence."""
    module = Quadratic()
    module.register_buffer("seen", torch.zeros(2))

    def loss(step):
        module.seen.fill_(math.inf if step == 3 else step)
        return module.loss(step)

    with pytest.raises(ValueError, match="tensor 'model.seen' holds NaN, infinity"):
        fit(module, loss, SHORT, Run(tmp_path, save_every=2))
    _, settings = checkpoint.read_tensors(tmp_path / "state.safetensors")
    assert settings["step"] == "2"


# --- exact resume --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """For every kind: the module after `STEPS` steps, its records and the bytes of its log."""
    finished = {}
    for name, build in RUNS.items():
        folder = tmp_path_factory.mktemp(name)
        module, loss = build(SHORT.seed)
        records = fit(module, loss, SHORT, Run(folder))
        log = (folder / "metrics.jsonl").read_bytes()
        finished[name] = SimpleNamespace(module=module, records=records, log=log)
    return finished


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_stopped_and_resumed_is_the_same_to_the_bit(uninterrupted, tmp_path, name, stop):
    module, loss = RUNS[name](SHORT.seed)
    first = fit(module, loss, SHORT, Run(tmp_path), stop_after=stop)
    # As in a new process: everything, buffers included, must come from the stored state.
    module, loss = RUNS[name](99)
    torch.manual_seed(1234)
    second = fit(module, loss, SHORT, Run(tmp_path, resume=True))
    expected = uninterrupted[name]
    assert [r["step"] for r in first + second] == list(range(STEPS))
    assert first + second == expected.records
    assert (tmp_path / "metrics.jsonl").read_bytes() == expected.log
    assert same_bits(module, expected.module)


def test_the_runs_above_really_train(uninterrupted):
    for name, build in RUNS.items():
        fresh, finished = build(SHORT.seed)[0], uninterrupted[name].module.state_dict()
        moved = {k for k, v in fresh.state_dict().items() if not torch.equal(v, finished[k])}
        assert {k for k, _ in fresh.named_parameters()} <= moved
    # Buffers that no gradient would restore:
    assert "codebook.sums" in uninterrupted["tokenizer"].module.state_dict()
    assert any("running_mean" in k for k in uninterrupted["judge"].module.state_dict())


def crashing(loss, crash):
    """The loss of a run that is killed in the middle of step `crash`."""

    def crashes(step):
        if step == crash:
            raise KeyboardInterrupt
        return loss(step)

    return crashes


@pytest.mark.parametrize("crash", [0, 1, 2, 4, 5, 6])
def test_a_crash_between_saves_repeats_the_lost_steps(uninterrupted, tmp_path, crash):
    """State is saved every 2 steps: the log holds steps that the state does not."""
    module, loss = judge_run(SHORT.seed)
    run = Run(tmp_path, save_every=2)
    with pytest.raises(KeyboardInterrupt):
        fit(module, crashing(loss, crash), SHORT, run)
    assert run.log is None, "the file is closed"
    with open(tmp_path / "metrics.jsonl", "a") as log:
        log.write('{"step": 99, "lo')  # the last line a killed process wrote
    saved = crash // 2 * 2
    # Without a state the run starts again, and so with the first weights.
    module, loss = judge_run(99 if saved else SHORT.seed)
    records = fit(module, loss, SHORT, Run(tmp_path, resume=True, save_every=2))
    assert records[0]["step"] == saved
    assert (tmp_path / "metrics.jsonl").read_bytes() == uninterrupted["judge"].log
    assert same_bits(module, uninterrupted["judge"].module)


def test_a_crash_during_a_save_leaves_the_last_state(uninterrupted, tmp_path, monkeypatch):
    module, loss = judge_run(SHORT.seed)
    original, calls = checkpoint.save_file, []

    def failing(*arguments):
        original(*arguments)
        calls.append(1)
        if len(calls) == 2:
            raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", failing)
    with pytest.raises(OSError, match="No space left"):
        fit(module, loss, SHORT, Run(tmp_path, save_every=3))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["metrics.jsonl", "state.safetensors"]
    monkeypatch.undo()
    module, loss = judge_run(99)
    assert fit(module, loss, SHORT, Run(tmp_path, resume=True))[0]["step"] == 3
    assert same_bits(module, uninterrupted["judge"].module)


def test_resuming_a_finished_run_changes_nothing(uninterrupted, tmp_path):
    module, loss = judge_run(SHORT.seed)
    fit(module, loss, SHORT, Run(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    module, loss = judge_run(99)
    assert fit(module, loss, SHORT, Run(tmp_path, resume=True)) == []
    assert same_bits(module, uninterrupted["judge"].module)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "error", "resume", "way"),
    [
        (signal.SIGINT, KeyboardInterrupt, False, "go on with --resume"),
        (signal.SIGTERM, SystemExit, True, "the same command goes on"),
    ],
)
def test_a_signal_saves_before_leaving(uninterrupted, tmp_path, capsys, number, error, resume, way):
    module, loss = judge_run(SHORT.seed)
    if resume:  # the steps of the run before count, too
        fit(module, loss, SHORT, Run(tmp_path), stop_after=2)

    def interrupted(step):
        if step == 3:
            signal.raise_signal(number)
        return loss(step)

    before = signal.getsignal(number)
    with pytest.raises(error):
        fit(module, interrupted, SHORT, Run(tmp_path, save_every=500, resume=resume))
    assert signal.getsignal(number) is before
    said = capsys.readouterr().err
    assert f"stopped after 4 of 7 steps, which are saved; {way}" in said
    module, loss = judge_run(99)
    records = fit(module, loss, SHORT, Run(tmp_path, resume=True))
    assert [record["step"] for record in records] == [4, 5, 6]
    assert same_bits(module, uninterrupted["judge"].module)


def test_a_second_signal_stops_at_once(tmp_path):
    module, loss = judge_run(SHORT.seed)

    def interrupted(step):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return loss(step)

    with pytest.raises(KeyboardInterrupt):
        fit(module, interrupted, SHORT, Run(tmp_path))
    assert list(tmp_path.iterdir()) == []


# --- bfloat16 ------------------------------------------------------------------------------------


def test_bfloat16_runs_under_autocast_and_keeps_float32_weights(monkeypatch):
    monkeypatch.setattr(loop, "has_bfloat16", lambda device: True)
    targets = torch.ones(4, 8, dtype=torch.bool)
    batch, objective = Batch(random_ids(4, 8), targets, targets), ObjectiveConfig()
    vocab = SimpleNamespace(mask_id=MASK, image_token_offset=0)
    first = {}
    for low in (True, False):
        backbone = tiny_backbone(2, block_size=4)

        def loss(step, backbone=backbone, low=low):
            assert torch.is_autocast_enabled("cpu") == low
            assert torch.get_autocast_dtype("cpu") == torch.bfloat16
            return block_diffusion_loss(backbone, batch, vocab, 4, objective, generator(step))

        first[low] = fit(backbone, loss, changed(SHORT, bfloat16=low))[0]["loss"]
        assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    assert first[True] != first[False]
    assert first[True] == pytest.approx(first[False], rel=0.05)

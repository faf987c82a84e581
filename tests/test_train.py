"""A run that is stopped anywhere and resumed ends with the same bits; each recipe shows the model what it should."""

import functools
import json
import math
from types import SimpleNamespace

import pytest
import torch
from helpers import (
    MASK,
    few,
    generator,
    random_ids,
    real_images,
    save_tiny_uni,
    storable,
    tiny_backbone,
    tiny_tokenizer,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import minillada
from minillada import checkpoint
from minillada.batching import Batch
from minillada.config import (
    JudgeConfig,
    ObjectiveConfig,
    Preset,
    TextConfig,
    TokenizerConfig,
    TrainingConfig,
)
from minillada.datasets import captions, edits, mnist
from minillada.datasets.pool import mnist_pool
from minillada.diffusion import block_diffusion_loss
from minillada.extras import transfer
from minillada.layout import SYSTEM_PROMPTS
from minillada.model import Backbone
from minillada.presets import PRESETS, get_preset
from minillada.settings import changed
from minillada.tasks.base import Picture
from minillada.tasks.table import TRAINED
from minillada.training import optim, recipes, train
from minillada.training.loop import batch_indices, fit, step_generator
from minillada.training.stream import encode_pictures, mixture_batches, shift
from minillada.vocab import load_vocabulary, text_path

STEPS = 7
short = changed(TrainingConfig(), steps=STEPS, batch_size=8, warmup_steps=3, learning_rate=3e-3, weight_decay=0.1, seed=5)

# --- small pieces ------------------------------------------------------------------------------------------------------


def test_each_step_has_its_own_stream_whatever_came_before():
    def first(seed, step):
        return float(torch.rand(1, generator=step_generator(seed, step)))

    draws = [first(seed, step) for seed in range(3) for step in range(50)]
    assert len(set(draws)) == 150
    assert draws == [first(seed, step) for seed in range(3) for step in range(50)]


@few
@given(batch=st.integers(1, 9), batches=st.integers(1, 6), rest=st.integers(0, 8), seed=st.integers(0, 99))
def test_every_epoch_visits_each_index_once(batch, batches, rest, seed):
    count = batch * batches + rest % batch  # an incomplete batch at the end of an epoch is left out
    epochs = [torch.cat([batch_indices(count, batch, e * batches + s, seed) for s in range(batches)]) for e in range(2)]
    for epoch in epochs:
        assert len(epoch) == batch * batches and len(set(epoch.tolist())) == len(epoch)
        assert epoch.min() >= 0 and epoch.max() < count
    if count > 20:
        assert epochs[0].tolist() != epochs[1].tolist()
        assert epochs[0].tolist() != torch.cat([batch_indices(count, batch, s, seed + 1) for s in range(batches)]).tolist()


def test_fewer_images_than_a_batch():
    assert sorted(batch_indices(5, 8, 3, 0).tolist()) == [0, 1, 2, 3, 4]


def test_learning_rate_end_points():
    config = changed(TrainingConfig(), steps=100, warmup_steps=10, learning_rate=0.5, final_lr_fraction=0.1)
    rates = [optim.learning_rate(config, s) for s in range(101)]
    assert rates[0] == pytest.approx(0.05) and rates[9] == pytest.approx(0.5)  # reached at the last step of the warm-up
    assert rates[10] == pytest.approx(0.5) and rates[100] == pytest.approx(0.05)
    assert rates[55] == pytest.approx((0.5 + 0.05) / 2)  # half-way down the cosine
    assert all(a < b for a, b in zip(rates[:9], rates[1:10], strict=True))
    assert all(a > b for a, b in zip(rates[10:100], rates[11:], strict=True))
    assert optim.learning_rate(changed(config, warmup_steps=0), 0) == pytest.approx(0.5)


def test_only_matrices_decay():
    module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    (optimizer,) = optim.make_optimizers(module, short)
    groups = optimizer.param_groups
    assert [[tuple(p.shape) for p in g["params"]] for g in groups] == [[(2, 3)], [(2,), (2,), (2,)]]
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]


def test_muon_moves_all_directions_of_the_layers_alike_and_leaves_the_tables_to_adamw():
    backbone, config = tiny_backbone(), changed(short, optimizer="muon", weight_decay=0.0)
    adamw, muon = optim.make_optimizers(backbone, config)
    taken = [p for optimizer in (adamw, muon) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, taken)) == sorted(map(id, backbone.parameters())), "every parameter once"
    layers = {id(p) for p in muon.param_groups[0]["params"]}
    names = {name for name, p in backbone.named_parameters() if id(p) in layers}
    assert {n.split(".")[1] for n in names} == {"layers"} and all("norm" not in n for n in names) and len(names) > 4
    before = {n: p.detach().clone() for n, p in backbone.named_parameters()}
    for p in backbone.parameters():
        p.grad = torch.randn(p.shape, generator=generator(3)) @ torch.diag(torch.logspace(0, -2, p.shape[-1])) if p.ndim == 2 else p.clone()
    muon.step()
    for name, p in backbone.named_parameters():
        if name in names:
            values = torch.linalg.svdvals(before[name] - p.detach())
            assert values.max() / values.min() < 4, "gradients differ a hundredfold between directions, steps do not"
            size = float((before[name] - p.detach()).square().mean().sqrt())
            assert size == pytest.approx(0.2 * config.learning_rate, rel=0.3), "as large as AdamW's"
        else:
            assert torch.equal(before[name], p)
    with pytest.raises(ValueError, match="unknown optimizer 'sgd'; choose adamw or muon"):
        optim.make_optimizers(backbone, changed(short, optimizer="sgd"))


class Quadratic(nn.Module):
    """loss = ½ Σ (w − step)² + ½ Σ (b + 1)²: gradients known by hand."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[3.0, -2.0], [0.5, 1.0]]))
        self.bias = nn.Parameter(torch.tensor([0.3, -4.0]))


def test_fit_is_clipped_adamw_with_the_schedule_by_hand():
    config = changed(TrainingConfig(), steps=6, warmup_steps=2, learning_rate=0.1, weight_decay=0.5, betas=(0.8, 0.9), grad_clip=1.5)
    module = Quadratic()
    values = {k: p.detach().double().clone() for k, p in module.named_parameters()}
    moments = {k: (torch.zeros_like(v), torch.zeros_like(v)) for k, v in values.items()}
    records = fit(
        module,
        lambda step: (0.5 * (module.weight - step).square().sum() + 0.5 * (module.bias + 1).square().sum(), {"odd": step % 2}),
        config,
    )
    for step in range(6):
        gradients = {"weight": values["weight"] - step, "bias": values["bias"] + 1}
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        assert records[step]["grad_norm"] == pytest.approx(norm, rel=1e-4)
        assert records[step]["loss"] == pytest.approx(0.5 * norm**2, rel=1e-4) and records[step]["odd"] == step % 2
        lr = optim.learning_rate(config, step)
        assert records[step]["step"] == step and records[step]["lr"] == pytest.approx(lr)
        for key, decay in (("weight", 0.5), ("bias", 0.0)):
            g = gradients[key] * min(1.0, 1.5 / norm)
            m, v = moments[key]
            m.mul_(0.8).add_(0.2 * g)
            v.mul_(0.9).add_(0.1 * g * g)
            unbiased = (m / (1 - 0.8 ** (step + 1))) / ((v / (1 - 0.9 ** (step + 1))).sqrt() + 1e-8)
            values[key] -= lr * (decay * values[key] + unbiased)
    for key, parameter in module.named_parameters():
        assert torch.allclose(parameter.detach().double(), values[key], atol=1e-4)
    assert float(torch.cat([p.grad.flatten() for p in module.parameters()]).norm()) == pytest.approx(1.5, rel=1e-4)
    assert not module.training


# --- exact resume ------------------------------------------------------------------------------------------------------

tiny_judge_preset = Preset(name="mnist-judge", kind="judge", model=JudgeConfig(width=4, features=6), training=short)
tiny_tokenizer_preset = Preset(name="mnist-tokenizer", kind="tokenizer", model=TokenizerConfig(codebook_size=16, code_dim=8, width=8), training=short)
tiny_backbone_preset = Preset(name="mnist", kind="backbone", model=tiny_backbone(vocab_size=400, max_position_embeddings=128).config, training=short)


def judge_run(seed):
    module = train.new_model(changed(tiny_judge_preset, training=changed(short, seed=seed)), "cpu")
    return module, recipes.judge_loss(module, real_images(40), short)


def tokenizer_run(seed):
    module = train.new_model(changed(tiny_tokenizer_preset, training=changed(short, seed=seed)), "cpu")
    return module, recipes.tokenizer_loss(module, real_images(40), load_vocabulary(16), short)


def backbone_run(seed):
    tokenizer = tiny_tokenizer()
    module = train.new_model(changed(tiny_backbone_preset, training=changed(short, seed=seed)), "cpu", tokenizer)
    return module, recipes.backbone_loss(module, tokenizer, load_vocabulary(16), real_images(40), tiny_backbone_preset)


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


RUNS = {"judge": judge_run, "tokenizer": tokenizer_run, "backbone": backbone_run}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """For every kind: the module after `STEPS` steps, its records and the bytes of its log."""
    finished = {}
    for name, build in RUNS.items():
        out = tmp_path_factory.mktemp(name)
        module, loss = build(short.seed)
        records = fit(module, loss, short, out)
        finished[name] = SimpleNamespace(module=module, records=records, log=(out / "metrics.jsonl").read_bytes())
    return finished


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_stopped_and_resumed_is_the_same_to_the_bit(uninterrupted, tmp_path, name, stop):
    module, loss = RUNS[name](short.seed)
    first = fit(module, loss, short, tmp_path, stop_after=stop)
    module, loss = RUNS[name](99)  # a new process: everything, buffers included, must come from the saved state
    torch.manual_seed(1234)
    second = fit(module, loss, short, tmp_path, resume=True)
    expected = uninterrupted[name]
    assert [r["step"] for r in first + second] == list(range(STEPS))
    assert first + second == expected.records
    assert (tmp_path / "metrics.jsonl").read_bytes() == expected.log
    assert same_bits(module, expected.module)


def test_the_runs_above_really_train(uninterrupted):
    for name, build in RUNS.items():
        fresh, finished = build(short.seed)[0], uninterrupted[name].module
        changed = {k for k, v in fresh.state_dict().items() if not torch.equal(v, finished.state_dict()[k])}
        assert {k for k, _ in fresh.named_parameters()} <= changed
    assert "codebook.sums" in uninterrupted["tokenizer"].module.state_dict()  # a buffer that no gradient would restore
    assert any("running_mean" in k for k in uninterrupted["judge"].module.state_dict())


@pytest.mark.parametrize("crash", [1, 2, 4, 5, 6])
def test_a_crash_between_saves_repeats_the_lost_steps(uninterrupted, tmp_path, crash):
    """Killed in the middle of step `crash`, state saved every 2 steps: the log holds steps that the state does not."""
    module, loss = judge_run(short.seed)

    def crashing(step):
        if step == crash:
            raise KeyboardInterrupt
        return loss(step)

    with pytest.raises(KeyboardInterrupt):
        fit(module, crashing, short, tmp_path, save_every=2)
    if crash < 2:
        with pytest.raises(FileNotFoundError, match="nothing to resume in"):
            fit(*judge_run(1), short, tmp_path, resume=True)
        return
    with open(tmp_path / "metrics.jsonl", "a") as log:
        log.write('{"step": 99, "lo')  # the last line a killed process wrote
    module, loss = judge_run(99)
    records = fit(module, loss, short, tmp_path, resume=True, save_every=2)
    assert records[0]["step"] == crash // 2 * 2
    assert (tmp_path / "metrics.jsonl").read_bytes() == uninterrupted["judge"].log
    assert same_bits(module, uninterrupted["judge"].module)


def test_a_crash_during_a_save_leaves_the_last_state(uninterrupted, tmp_path, monkeypatch):
    module, loss = judge_run(short.seed)
    original, calls = checkpoint.save_file, []

    def failing(*arguments):
        original(*arguments)
        calls.append(1)
        if len(calls) == 2:
            raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", failing)
    with pytest.raises(OSError, match="No space left"):
        fit(module, loss, short, tmp_path, save_every=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "state.safetensors"]
    monkeypatch.undo()
    module, loss = judge_run(99)
    assert fit(module, loss, short, tmp_path, resume=True)[0]["step"] == 3
    assert same_bits(module, uninterrupted["judge"].module)


def test_resuming_a_finished_run_changes_nothing(uninterrupted, tmp_path):
    module, loss = judge_run(short.seed)
    fit(module, loss, short, tmp_path)
    module, loss = judge_run(99)
    assert fit(module, loss, short, tmp_path, resume=True) == []
    assert same_bits(module, uninterrupted["judge"].module)
    assert (tmp_path / "metrics.jsonl").read_bytes() == uninterrupted["judge"].log


def test_a_new_run_in_an_old_folder_starts_over(uninterrupted, tmp_path):
    module, loss = judge_run(short.seed)
    fit(module, loss, short, tmp_path, stop_after=2)
    module, loss = judge_run(short.seed)
    fit(module, loss, short, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == uninterrupted["judge"].log


def test_state_of_another_run_is_refused(tmp_path):
    module, loss = judge_run(short.seed)
    fit(module, loss, short, tmp_path, stop_after=1)
    for change in ({"steps": 8}, {"learning_rate": 1e-3}, {"seed": 6}, {"betas": (0.9, 0.999)}):
        with pytest.raises(ValueError, match="belongs to a run with other training settings"):
            fit(*judge_run(1), changed(short, **change), tmp_path, resume=True)
    with pytest.raises(ValueError, match="does not fit its configuration"):
        fit(*tokenizer_run(1), short, tmp_path, resume=True)
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-50])
    with pytest.raises(ValueError, match="state.safetensors is not a complete safetensors file"):
        fit(*judge_run(1), short, tmp_path, resume=True)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run(tmp_path, value):
    module = Quadratic()
    before = module.weight.detach().clone()

    def loss(step):
        return module.weight.sum() * (value if step == 0 else 1), {}

    with pytest.raises(FloatingPointError, match=r"the loss is -?(nan|inf) at step 0; lower the learning rate"):
        fit(module, loss, short, tmp_path)
    assert torch.equal(module.weight.detach(), before), "not a single weight is spoilt"
    assert not (tmp_path / "state.safetensors").exists()


def test_bfloat16_runs_under_autocast_and_keeps_float32_weights():
    backbone, ids = tiny_backbone(2, block_size=4), random_ids(4, 8)
    targets, seen = torch.ones(4, 8, dtype=torch.bool), []

    def loss(step):
        seen.append(torch.is_autocast_enabled("cpu"))
        batch, config = Batch(ids, targets, targets), ObjectiveConfig(mask_rate=(0.2, 1.0))
        vocab = SimpleNamespace(mask_id=MASK, image_token_offset=0)
        return block_diffusion_loss(backbone, batch, vocab, 4, config, generator(step))

    low = fit(backbone, loss, changed(short, bfloat16=True))
    assert seen == [True] * STEPS and {p.dtype for p in backbone.parameters()} == {torch.float32}
    backbone = tiny_backbone(2, block_size=4)
    full = fit(backbone, loss, short)
    assert seen[STEPS:] == [False] * STEPS
    assert low[0]["loss"] != full[0]["loss"] and low[0]["loss"] == pytest.approx(full[0]["loss"], rel=0.05)


# --- recipes -----------------------------------------------------------------------------------------------------------


def test_shift_moves_each_image_by_its_own_whole_pixels():
    images = torch.rand(60, 2, 9, 9, generator=generator())
    moved = shift(images, generator(1), most=2)
    offsets = set()
    for image, result in zip(images, moved, strict=True):
        padded = nn.functional.pad(image, (2, 2, 2, 2))
        matches = [(r, c) for r in range(5) for c in range(5) if torch.equal(result, padded[:, r : r + 9, c : c + 9])]
        assert len(matches) == 1
        offsets.add(matches[0])
    assert {r for r, _ in offsets} == set(range(5)) == {c for _, c in offsets}
    assert torch.equal(shift(images, generator(1), most=0), images)


def test_caption_table_and_index_agree():
    text = load_vocabulary(16)
    table = recipes.caption_table(text)
    classes = torch.tensor([[d, t, s] for d in range(10) for t in range(2) for s in range(3)])[torch.randperm(60, generator=generator())]
    for row, index in zip(classes.tolist(), recipes.caption_index(classes).tolist(), strict=True):
        assert text.decode(table[index]) == captions.caption(*row)


def test_tokenizer_recipe_pairs_each_picture_with_its_own_caption(monkeypatch):
    """The caption is that of the unshifted picture, the pixels are the shifted ones."""
    images, seen = real_images(16), []
    module = tiny_tokenizer()
    monkeypatch.setattr(module, "loss", lambda *inputs: seen.append(inputs) or (torch.zeros(()), {}))
    recipes.tokenizer_loss(module, images, load_vocabulary(16), short)(3)
    pixels, table, right, _ = seen[0]
    index = batch_indices(16, 8, 3, short.seed)
    expected = captions.describe_pixels(images.floats(index), images.labels[index])
    assert [load_vocabulary(16).decode(table[r]) for r in right] == expected
    assert torch.equal(pixels, shift(images.floats(index), step_generator(short.seed, 3)))


def test_half_of_a_batch_draws_and_half_describes():
    vocab, tokenizer, images = load_vocabulary(16), tiny_tokenizer(), real_images(40)
    everything = Preset(name="x", kind="backbone", model=tiny_backbone_preset.model, training=changed(short, unconditional_rate=0.0, partial_caption_rate=0.0))
    draw, describe = backbone_batches(tokenizer, vocab, images, everything, step=2)
    index = batch_indices(40, 8, 2, short.seed)
    true = captions.describe_pixels(images.floats(index), images.labels[index])
    codes = tokenizer.encode(shift(images.floats(index), step_generator(short.seed, 2)))
    for batch in (draw, describe):
        assert batch.ids.shape[0] == 4 and batch.ids.shape[1] % tiny_backbone_preset.model.block_size == 0
    for row in range(8):
        batch = describe if row % 2 else draw
        ids, real = batch.ids[row // 2], batch.real[row // 2]
        text, asked = vocab.decode(ids), vocab.decode(ids[real])
        written = "".join(f"<code {c}>" for c in codes[row].flatten().tolist())
        if row % 2:
            assert text.startswith(f"<role>SYSTEM</role> {SYSTEM_PROMPTS['describe']} <role>HUMAN</role><|image|>")
            assert f"<boi>{written}<|/image|>Describe the image.<role>ASSISTANT</role>" in text
            assert asked == f"{true[row]}<|endoftext|>"
        else:
            assert text.startswith(
                f"<role>SYSTEM</role> {SYSTEM_PROMPTS['draw']} <role>HUMAN</role>{true[row]}<role>ASSISTANT</role><|image|>"
            )
            assert asked == f"{written}<|/image|><|endoftext|>"


def test_tasks_are_averaged_by_their_shares(monkeypatch):
    """A task with more or longer targets counts no more than its share of the batch."""
    vocab, tokenizer = load_vocabulary(16), tiny_tokenizer()
    preset = changed(tiny_backbone_preset, training=changed(short, draw_share=0.25))
    losses = iter([(torch.tensor(8.0), {"masked_nats": 4.0}), (torch.tensor(4.0), {"masked_nats": 8.0})])
    monkeypatch.setattr(recipes, "block_diffusion_loss", lambda *inputs, **settings: next(losses))
    module = train.new_model(preset, "cpu", tokenizer)
    value, metrics = recipes.backbone_loss(module, tokenizer, vocab, real_images(40), preset)(0)
    assert float(value) == 0.25 * 8 + 0.75 * 4 and metrics["masked_nats"] == 0.25 * 4 + 0.75 * 8


def step_of(vocab_and_tokenizer, **settings):
    """Losses of steps 0 and 1 for some training settings, their gradient, and the backbone."""
    vocab, tokenizer = vocab_and_tokenizer
    preset = changed(tiny_backbone_preset, training=changed(short, **settings))
    backbone = train.new_model(preset, "cpu", tokenizer)
    loss = recipes.backbone_loss(backbone, tokenizer, vocab, real_images(40), preset)
    values = [loss(step)[0] for step in (0, 1)]
    return values, torch.autograd.grad(sum(values), list(backbone.parameters())), backbone


def test_compiling_and_checkpointing_change_neither_loss_nor_gradient(monkeypatch):
    # The backend that runs the traced graph as it is: what is compiled is tested here, not the compiler, which takes minutes.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    made_of = load_vocabulary(16), tiny_tokenizer()
    values, gradients, plain = step_of(made_of)
    for settings in (dict(activation_checkpointing=True), dict(compile=True)):
        others, again, backbone = step_of(made_of, **settings)
        assert backbone.activation_checkpointing == ("activation_checkpointing" in settings)
        assert backbone.state_dict().keys() == plain.state_dict().keys()
        for a, b in zip([*others, *again], [*values, *gradients], strict=True):
            assert torch.allclose(a, b, atol=1e-5 * max(1.0, float(b.detach().abs().max())))


def test_checkpointed_layers_are_computed_again_as_they_were_in_bfloat16():
    """On a CPU bfloat16 runs with another attention kernel, which the second computation must use, too."""
    vocab, tokenizer, records = load_vocabulary(16), tiny_tokenizer(), []
    for flag in (False, True):
        preset = changed(tiny_backbone_preset, training=changed(short, steps=2, bfloat16=True, activation_checkpointing=flag))
        backbone = train.new_model(preset, "cpu", tokenizer)
        loss = recipes.backbone_loss(backbone, tokenizer, vocab, real_images(40), preset)
        records.append(fit(backbone, loss, preset.training))
    assert records[0] == records[1]


def test_packing_holds_the_same_sequences_in_rows_of_one_length():
    vocab, tokenizer, images = load_vocabulary(16), tiny_tokenizer(), real_images(40)
    apart = backbone_batches(tokenizer, vocab, images, tiny_backbone_preset, 1)
    preset = changed(tiny_backbone_preset, training=changed(short, pack_length=128))
    (packed,) = backbone_batches(tokenizer, vocab, images, preset, 1)
    assert packed.ids.shape[1] == 128 and len(packed.ids) < short.batch_size
    texts = [vocab.decode(row).split("<|endoftext|>")[0] for batch in apart for row in batch.ids]
    found = [
        vocab.decode(row[document == number]).split("<|endoftext|>")[0]
        for row, document in zip(packed.ids, packed.documents, strict=True)
        for number in range(int(document.max()) + 1)
    ]
    assert sorted(found) == sorted(texts)
    assert int(packed.real.sum()) == sum(int(batch.real.sum()) for batch in apart)
    values, gradients, _ = step_of((vocab, tokenizer), pack_length=128)
    assert all(torch.isfinite(value) for value in values) and any(g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 8), (0.0, 0), (0.25, 2), (0.75, 6)])
def test_draw_share_decides_how_many_draw(share, expected):
    vocab, preset = load_vocabulary(16), changed(tiny_backbone_preset, training=changed(short, draw_share=share))
    batches = backbone_batches(tiny_tokenizer(), vocab, real_images(40), preset, 0)
    assert sum(SYSTEM_PROMPTS["draw"] in vocab.decode(row) for batch in batches for row in batch.ids) == expected


def test_captions_are_dropped_and_shortened_at_their_rates():
    vocab, tokenizer, images = load_vocabulary(16), tiny_tokenizer(), real_images(600)
    preset = Preset(name="x", kind="backbone", model=tiny_backbone_preset.model, training=changed(short, batch_size=600))
    kinds = {"none": 0, "full": 0, "digit": 0, "thickness": 0, "slant": 0}
    for step in range(3):
        for row in backbone_batches(tokenizer, vocab, images, preset, step)[0].ids:
            text = vocab.decode(row).split("<role>HUMAN</role>")[1].split("<role>ASSISTANT</role>")[0]
            digit, thickness, slant = captions.parse(text)
            kind = {(False, False): "digit", (True, False): "thickness", (False, True): "slant", (True, True): "full"}
            kinds["none" if text == "<uncondition>" else kind[thickness is not None, slant is not None]] += 1
            assert text == "<uncondition>" or text == captions.caption(digit, thickness, slant)
    shares = {k: v / 900 for k, v in kinds.items()}
    expected = {"none": 0.1, "digit": 0.06, "thickness": 0.06, "slant": 0.06, "full": 0.72}
    for kind, share in expected.items():
        assert shares[kind] == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 900)), shares


def test_block_size_one_pads_as_the_others_do():
    vocab, tokenizer = load_vocabulary(16), tiny_tokenizer()
    model = changed(tiny_backbone_preset.model, block_size=1)
    batches = backbone_batches(tokenizer, vocab, real_images(40), changed(tiny_backbone_preset, model=model), 0)
    assert all(batch.ids.shape[1] % 16 == 0 for batch in batches)


def test_a_new_backbone_starts_its_image_rows_at_the_codebook():
    tokenizer = tiny_tokenizer()
    with_codes, again = (train.new_model(tiny_backbone_preset, "cpu", tokenizer) for _ in range(2))
    without = train.new_model(tiny_backbone_preset, "cpu")
    assert same_bits(with_codes, again)
    for table in ("model.word_embeddings.weight", "lm_head.weight"):
        a, b = with_codes.get_parameter(table), without.get_parameter(table)
        assert torch.equal(a[:384], b[:384]) and not torch.equal(a[384:], b[384:])
        assert torch.linalg.matrix_rank(a[384:].detach()) <= tokenizer.config.code_dim  # a projection of 8-dimensional codes


# --- presets from end to end -------------------------------------------------------------------------------------------


@pytest.fixture
def small_mnist(monkeypatch):
    monkeypatch.setattr(mnist, "load_mnist", lambda split="train", root=None: real_images(40))


def test_text_preset_reproduces_the_shipped_pieces(tmp_path):
    module, records = train.train(get_preset("mnist-text"), tmp_path)
    assert module is None and records == []
    assert json.loads((tmp_path / "text.json").read_text()) == json.loads(text_path().read_text())
    with pytest.raises(ValueError, match="ask for that number"):
        train.train(Preset(name="x", kind="text", model=TextConfig(vocab_size=5000)), tmp_path / "more")
    assert not (tmp_path / "more" / "text.json").exists()


def test_every_kind_trains_saves_and_loads(small_mnist, tmp_path):
    names = {"judge": tiny_judge_preset, "tokenizer": tiny_tokenizer_preset, "backbone": tiny_backbone_preset}
    for kind, preset in names.items():
        tokenizer = str(tmp_path / "tokenizer") if kind == "backbone" else None
        module, records = train.train(preset, tmp_path / kind, tokenizer_weights=tokenizer)
        assert len(records) == STEPS
        back, info = checkpoint.load_model(tmp_path / kind, kind)
        assert same_bits(back, storable(module)) and info["data_md5"] == mnist.MNIST_MD5 and info["training"]["seed"] == 5
        assert info["command"].startswith(f"minillada train {preset.name} --steps {STEPS} ") and "--learning-rate 0.003" in info["command"]
        assert "--seed 5" in info["command"]
    uni = minillada.load(tmp_path / "backbone")
    assert uni.draw(["a seven"], steps=2).shape == (1, 1, 32, 32)
    assert len(uni.describe(real_images(2).floats())) == 2


def test_an_interrupted_preset_resumes_to_the_same_file(small_mnist, tmp_path):
    run = save_tiny_uni(tmp_path)
    tokenizer = str(run.parent / "tokenizer")
    train.train(tiny_backbone_preset, tmp_path / "whole", tokenizer_weights=tokenizer)
    train.train(tiny_backbone_preset, tmp_path / "parts", tokenizer_weights=tokenizer, stop_after=3)
    assert not (tmp_path / "parts" / "weights.safetensors").exists(), "an unfinished run has no weights to load by mistake"
    train.train(tiny_backbone_preset, tmp_path / "parts", tokenizer_weights=tokenizer, resume=True)
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    # The library writes metadata in random order, so states are compared by content: optimiser moments included.
    whole, parts = (checkpoint.read_tensors(tmp_path / folder / "state.safetensors") for folder in ("whole", "parts"))
    assert whole[1] == parts[1] and whole[0].keys() == parts[0].keys() and any(k.endswith("exp_avg_sq") for k in whole[0])
    assert all(torch.equal(whole[0][k], parts[0][k]) for k in whole[0])
    written = (tmp_path / "parts" / "weights.json").read_bytes()
    train.train(tiny_backbone_preset, tmp_path / "parts", tokenizer_weights=tokenizer, resume=True)
    assert (tmp_path / "parts" / "weights.json").read_bytes() == written, "nothing was left to do, so nothing is rewritten"


def test_snapshots_are_the_weights_of_their_step(small_mnist, tmp_path):
    tokenizer = str(save_tiny_uni(tmp_path).parent / "tokenizer")
    where = dict(tokenizer_weights=tokenizer, snapshot_every=2)
    train.train(tiny_backbone_preset, tmp_path / "run", **where, stop_after=3)
    train.train(tiny_backbone_preset, tmp_path / "run", **where, resume=True)
    assert [path.name for path in checkpoint.snapshots(tmp_path / "run")] == [f"step-00000{step}.safetensors" for step in (2, 4, 6)]
    four, _ = train.train(tiny_backbone_preset, tmp_path / "four", tokenizer_weights=tokenizer, stop_after=4)
    kept, info = checkpoint.load_model(checkpoint.snapshot_path(tmp_path / "run", 4), Backbone)
    assert same_bits(kept, storable(four)) and info["step"] == 4 and info["preset"] == "mnist"


def test_a_run_can_start_from_other_weights(small_mnist, tmp_path):
    """A second round begins where the first ended, here at another block size, and its JSON tells the whole story."""
    tokenizer = str(save_tiny_uni(tmp_path).parent / "tokenizer")
    first, _ = train.train(tiny_backbone_preset, tmp_path / "first", tokenizer_weights=tokenizer)
    still = changed(tiny_backbone_preset, block_size=8, learning_rate=0.0)
    second, _ = train.train(still, tmp_path / "second", tokenizer_weights=tokenizer, start=str(tmp_path / "first"))
    assert same_bits(second, storable(first)), "with a learning rate of 0 it ends where it began"
    info = checkpoint.read_info(tmp_path / "second" / "weights.safetensors")
    assert info["start"]["training"] == checkpoint.read_info(tmp_path / "first" / "weights.safetensors")["training"]
    assert info["command"].endswith(f"--start {tmp_path / 'first'}")
    wider = changed(tiny_backbone_preset, model=changed(tiny_backbone_preset.model, hidden_size=48))
    with pytest.raises(ValueError, match="first.* does not fit its configuration"):
        train.train(wider, tmp_path / "third", tokenizer_weights=tokenizer, start=str(tmp_path / "first"))


def test_a_backbone_needs_its_tokenizer(small_mnist, tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights called 'nowhere'"):
        train.train(tiny_backbone_preset, tmp_path, tokenizer_weights="nowhere")


def test_presets_are_consistent():
    for name, preset in PRESETS.items():
        assert preset.name == name and get_preset(name) is preset
        if preset.kind == "backbone":
            tokenizer = PRESETS[preset.tokenizer].model
            assert preset.model.vocab_size == PRESETS[preset.text].model.vocab_size + tokenizer.codebook_size
    assert PRESETS["mnist-ar"].model.block_size == 1 and PRESETS["mnist-ar"].training.loss.mask_rate == (1.0, 1.0)
    a, b = PRESETS["mnist"], PRESETS["mnist-ar"]
    assert changed(b.model, block_size=a.model.block_size) == a.model  # a fair comparison: the same size,
    assert changed(b.training, mask_rate=a.training.loss.mask_rate, steps=a.training.steps) == a.training  # the same recipe
    with pytest.raises(ValueError, match="unknown preset 'mnits'; choose one of .*mnist-cpu"):
        get_preset("mnits")


def test_settings_change_a_preset_and_are_recorded():
    preset = changed(get_preset("mnist-cpu"), ["objective=uniform", "mask_rate=[0.3,0.8]", "block_size=4", "grad_clip=2"])
    assert preset.training.loss.objective == "uniform" and preset.training.loss.mask_rate == (0.3, 0.8)
    assert preset.model.block_size == 4 and preset.training.grad_clip == 2.0 and isinstance(preset.training.grad_clip, float)
    recorded = train.command(preset, None, None)
    settings = [word for word in recorded.split() if "=" in word]
    assert changed(get_preset("mnist-cpu"), settings) == preset, recorded


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("blocksize=4", "has no setting 'blocksize'; choose one of"),
        ("block_size=four", "block_size is 16 and cannot become 'four'"),
        ("complementary", "cannot become ''"),
        ("steps=true", "cannot become 'true'"),
    ],
)
def test_settings_that_do_not_exist_or_fit(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        changed(get_preset("mnist-cpu"), [setting])


# --- every task --------------------------------------------------------------------------------------------------------


def tiny_uni_preset(**changes) -> Preset:
    mixture = tuple((task, 1.0) for task in TRAINED)
    training = changed(short, mixture=mixture, batch_size=24, **changes)
    return changed(tiny_backbone_preset, training=training)


def test_pictures_are_moved_alike_before_and_after_an_edit():
    tokenizer, images = tiny_tokenizer(), real_images(30)
    pictures = [Picture(i, name) for i in (3, 8, 21) for name in (None, "mirror it", "invert it")]
    codes = encode_pictures(tokenizer, images, pictures * 2, generator(5))
    moved = shift(images.floats([3, 8, 21]), generator(5))
    for row, index in enumerate((3, 8, 21)):
        for name in (None, "mirror it", "invert it"):
            shown = edits.apply([name], moved[row : row + 1])
            assert torch.equal(codes[Picture(index, name)], tokenizer.encode(shown)[0])
    still = encode_pictures(tokenizer, images, pictures[:1], None)
    assert (
        torch.equal(still[pictures[0]], tokenizer.encode(images.floats([3]))[0])
        and encode_pictures(tokenizer, images, [], None) == {}
    )


def test_a_mixture_holds_every_task_in_its_share_and_repeats():
    tokenizer, vocab, pool = tiny_tokenizer(), load_vocabulary(16), mnist_pool(real_images(2000))
    preset = tiny_uni_preset()
    preset = changed(preset, batch_size=600, unconditional_rate=0.0)
    batches = mixture_batches(tokenizer, vocab, pool, preset, 3)
    again = mixture_batches(tokenizer, vocab, pool, preset, 3)
    assert all(torch.equal(a.ids, b.ids) and torch.equal(a.targets, b.targets) for a, b in zip(batches, again, strict=True))
    texts = [vocab.decode(row) for batch in batches for row in batch.ids]
    for task, prompt in SYSTEM_PROMPTS.items():
        tasks = {"draw": 2, "describe": 7, "edit": 4, "think": 4, "interleave": 1}[task]
        count = sum(prompt in text for text in texts)
        assert abs(count - 600 * tasks / 18) < 5 * math.sqrt(600 * tasks / 18), task
    assert len(texts) == 600


def test_a_mixture_trains_and_resumes_to_the_bit(small_mnist, tmp_path):
    train.train(tiny_tokenizer_preset, tmp_path / "tokenizer")
    whole, interrupted, tokenizer = tmp_path / "whole", tmp_path / "interrupted", str(tmp_path / "tokenizer")
    preset = tiny_uni_preset(optimizer="muon")
    preset = changed(preset, mixture=(("describe", 1.0), ("draw", 1.0)))
    train.train(preset, whole, tokenizer_weights=tokenizer)
    train.train(preset, interrupted, tokenizer_weights=tokenizer, stop_after=3)
    train.train(preset, interrupted, tokenizer_weights=tokenizer, resume=True)
    assert (whole / "weights.safetensors").read_bytes() == (interrupted / "weights.safetensors").read_bytes()


def test_a_larger_codebook_keeps_the_old_codes():
    old, new = tiny_tokenizer(0).state_dict(), tiny_tokenizer(1, codebook_size=20).state_dict()
    tensors = transfer.grown(old, new)
    for key in ("codebook.embedding", "codebook.sums", "codebook.counts"):
        assert torch.equal(tensors[key][:16], old[key]) and torch.equal(tensors[key][16:], new[key][16:])
    assert all(tensors[key] is value for key, value in old.items() if not key.startswith("codebook."))


def test_rows_follow_their_pieces_into_another_vocabulary():
    source, target = load_vocabulary(16), load_vocabulary(20, "mnist-uni-text")
    old, new = ({k: torch.randn(v.size, 3) for k in ("model.word_embeddings.weight", "lm_head.weight")} for v in (source, target))
    books = torch.nn.functional.normalize(torch.randn(16, 4), dim=1), torch.nn.functional.normalize(torch.randn(20, 4), dim=1)
    moved = transfer.translated(old | {"other": 1}, new, (source, target), books)
    assert moved["other"] == 1
    kept = 0
    for key in new:
        for text in (" seven", " thick", "<|image|>", "<role>HUMAN</role>", "x", " image"):
            (a,), (b,) = source.markup(text), target.markup(text)
            assert torch.equal(moved[key][b], old[key][a]), text
            kept += a != b
        fresh = [i for i in range(target.image_token_offset) if source.token_id(target.token(i)) is None]
        assert len(fresh) > 50 and torch.equal(moved[key][fresh], new[key][fresh])
        for code, vector in enumerate(books[1]):
            nearest = max(range(16), key=lambda k, v=vector: float(v @ books[0][k]))
            assert torch.equal(moved[key][target.image_token_offset + code], old[key][source.image_token_offset + nearest])
    assert kept, "some pieces must have moved for this to prove anything"


def test_a_tokenizer_may_see_edited_images(small_mnist):
    """Share 1: nothing is shown as it was; captions are measured on what is shown."""
    seen = []
    module = SimpleNamespace(parameters=lambda: iter([torch.zeros(1)]), loss=lambda images, *rest: seen.append((images, rest)))
    config = changed(short, operation_share=1.0, batch_size=40)
    images, text = real_images(40), load_vocabulary(16)
    recipes.tokenizer_loss(module, images, text, config)(0)
    index = batch_indices(40, 40, 0, config.seed)
    plain = shift(images.floats(index), step_generator(config.seed, 0))
    shown, (table, right, _) = seen[0]
    for one, before, row, label in zip(shown, plain, right, images.labels[index], strict=True):
        exact = [edits.apply([name], before[None])[0] for name in edits.OPERATIONS]
        assert any(torch.equal(one, e) for e in exact)
        dark = one if one.mean() < 0.5 else 1 - one
        assert text.decode(table[row]) == captions.describe_pixels(dark[None], label[None])[0]

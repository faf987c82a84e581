"""Block size 1 is autoregression, block size L masked diffusion; a schedule resumes to the bit."""

import math
import shlex
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from helpers import MASK, few, generator, random_ids, real_images, tiny_backbone, tiny_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from minillada import diffusion
from minillada.batching import Batch
from minillada.config import ObjectiveConfig, Preset, TrainingConfig
from minillada.datasets.pool import mnist_pool
from minillada.extras import conversion
from minillada.objectives import hide
from minillada.presets import get_preset, read_settings
from minillada.settings import as_tuples, changed, to_dict
from minillada.training import recipes, train
from minillada.training.loop import fit
from minillada.training.run import Run
from minillada.training.state import differences
from minillada.vocab import load_vocabulary

STEPS = 10
SCHEDULE = ((0.0, 2), (0.2, 4), (0.4, 128), (0.7, 8), (0.9, 4))
DRAW_AND_DESCRIBE = dict(mixture=(("draw", 1.0), ("describe", 1.0)), varied=True)
tiny = Preset(
    name="mnist-wsd",
    kind="backbone",
    model=tiny_backbone(vocab_size=400, max_position_embeddings=128, block_size=4).config,
    training=changed(
        TrainingConfig(),
        steps=STEPS,
        batch_size=4,
        warmup_steps=3,
        block_schedule=SCHEDULE,
        **DRAW_AND_DESCRIBE,
    ),
)


def scheduled(*entries, **training) -> Preset:
    return changed(tiny, block_schedule=entries, **training)


# --- the two ends of the schedule ----------------------------------------------------------------


def all_rows(length: int, words: int):
    return torch.tensor(list(product(range(1, words + 1), repeat=length)))


@torch.no_grad()
def bound_by_enumeration(backbone, ids, block_size):
    """The bound on −log p of every row, as a sum over all masks of every block."""
    total = torch.zeros(len(ids))
    for start in range(0, ids.shape[1], block_size):
        for pattern in product([False, True], repeat=block_size):
            n = sum(pattern)
            masked = torch.zeros(ids.shape, dtype=torch.bool)
            masked[:, start : start + block_size] = torch.tensor(pattern)
            if n:
                view = hide(ids, masked, block_size, MASK)
                batch = Batch(ids, masked, masked)
                nats = diffusion.masked_cross_entropy(backbone, batch, view, block_size)
                total += nats.view(len(ids), n).sum(1) / (n * math.comb(block_size, n))
    return total


def without_mask(backbone):
    """A backbone that never predicts the mask: its probabilities over the words sum to 1."""
    logits = backbone.logits
    backbone.logits = lambda hidden: logits(hidden).index_fill(-1, torch.tensor([MASK]), -math.inf)
    return backbone


def test_block_size_one_is_a_distribution_and_larger_blocks_bound_it():
    """The sum of exp(−bound) over all texts is 1 at block size 1, else less: bounds have a gap."""
    backbone = without_mask(tiny_backbone(3, vocab_size=4))
    ids = all_rows(4, 3)
    masses = {
        size: float((-bound_by_enumeration(backbone, ids, size)).exp().sum()) for size in (1, 2, 4)
    }
    assert masses[1] == pytest.approx(1, abs=1e-5)
    assert 0 < masses[2] < 0.999 and 0 < masses[4] < 0.999


def test_block_size_one_is_the_chain_rule():
    backbone, ids = tiny_backbone(4), random_ids(3, 6)
    with torch.no_grad():
        slow = torch.zeros(3)
        for i in range(6):
            seen = torch.cat(
                [ids[:, :i], torch.full((3, 1), MASK)], 1
            )  # token i is asked where it stands, as by the sampler
            causal = torch.ones(1, i + 1, i + 1, dtype=torch.bool).tril()
            slow -= backbone(seen, causal)[:, -1].log_softmax(-1).gather(1, ids[:, i : i + 1])[:, 0]
        everything = torch.ones_like(ids, dtype=torch.bool)
        batch = Batch(ids, everything, everything)
        fast = diffusion.nll_bound(backbone, batch, 1, MASK, generator())
    assert torch.allclose(slow, fast, atol=1e-4)


def test_block_size_l_is_masked_diffusion_without_a_clean_half():
    backbone, ids = tiny_backbone(5), random_ids(3, 12)
    masked = torch.rand(3, 12, generator=generator(1)) < 0.5
    batch, view = Batch(ids, masked, masked), hide(ids, masked, 4, MASK)
    widths = []
    backbone.model.word_embeddings.register_forward_pre_hook(
        lambda _, inputs: widths.append(inputs[0].shape[1])
    )
    with torch.no_grad():
        logits = diffusion.masked_logits(backbone, batch, view, 12)
        assert widths == [12], "half of [x_t ; x_0]"
        assert torch.allclose(logits, backbone(view.noisy)[masked], atol=1e-5)
        diffusion.masked_logits(backbone, batch, view, 4)
    assert widths[-1] > 12


# --- the schedule --------------------------------------------------------------------------------


def test_block_size_of_every_step():
    assert [conversion.block_size_at(tiny, step) for step in range(STEPS)] == [
        2,
        2,
        4,
        4,
        128,
        128,
        128,
        8,
        8,
        4,
    ]
    assert {conversion.block_size_at(scheduled(), step) for step in range(STEPS)} == {4}
    long = scheduled(
        (0.0, 1), (0.1, 4), steps=30
    )  # 0.1 · 30 is a little more than 3 in floating point
    assert [conversion.block_size_at(long, step) for step in (2, 3)] == [1, 4]


def test_the_preset_warms_up_holds_and_decays():
    preset = get_preset("mnist-wsd")
    conversion.check_block_schedule(preset)
    sizes = [min(size, 48) for _, size in preset.training.block_schedule]
    top = sizes.index(48)
    assert sizes[: top + 1] == sorted(set(sizes[: top + 1])) and sizes[top:] == sorted(
        set(sizes[top:]), reverse=True
    )
    assert (
        conversion.block_size_at(preset, preset.training.steps - 1)
        == preset.model.block_size
        == get_preset("mnist").model.block_size
    )
    assert changed(preset.model, block_size=1) == get_preset("mnist-ar").model


@few
@given(sizes=st.lists(st.integers(1, 12), max_size=3), last=st.sampled_from([1, 2, 4, 8]))
def test_whole_blocks_fill_the_batches_of_every_step(sizes, last):
    starts = [i / (len(sizes) + 2) for i in range(len(sizes) + 2)]
    entries = list(zip(starts, [*sizes, 128, last], strict=True))
    preset = changed(
        scheduled(*entries), model=changed(tiny.model, block_size=last, max_position_embeddings=128)
    )
    conversion.check_block_schedule(preset)
    multiple = conversion.padding_multiple(preset)
    assert (
        multiple % last == 0
        and all(multiple % size == 0 for size in sizes)
        and multiple < 12 * 11 * 10 * 16
    )


def test_the_loss_uses_the_block_size_of_its_step(monkeypatch):
    seen = []

    def spy(backbone, batch, vocab, block_size, config, *rest):
        diffusion.check_batch(batch, block_size, config)
        seen.append((batch.ids.shape[1], block_size))
        return torch.zeros(()), {"masked_nats": 0.0}

    monkeypatch.setattr(recipes, "block_diffusion_loss", spy)
    tokenizer = tiny_tokenizer()
    module = train.new_model(tiny, "cpu", tokenizer)
    pool = mnist_pool(real_images(40))
    loss = recipes.backbone_loss(module, tokenizer, load_vocabulary(16), pool, tiny)
    for step in range(STEPS):
        seen.clear()
        loss(step)
        assert seen and all(
            size == min(conversion.block_size_at(tiny, step), length) for length, size in seen
        )


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ([(0.1, 4)], "must begin at 0 and go forward, staying below 1; it begins at 0.1"),
        ([(0.0, 2), (0.5, 8), (0.4, 4)], "must begin at 0 and go forward"),
        ([(0.0, 2), (0.5, 8), (0.5, 4)], "must begin at 0 and go forward"),
        ([(0.0, 2), (1.0, 4)], "staying below 1"),
        ([(0.0, 0), (0.5, 4)], "block sizes are at least 1, block_schedule has 0"),
        ([(0.0, 2.5), (0.5, 4)], "block_schedule must be a valid integer"),
        ([(0.0, 4), (0.5, 8)], "ends at 8, but the model is used with block size 4"),
    ],
)
def test_bad_schedules_are_refused_before_anything_is_read(entries, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        train.train(scheduled(*entries), tmp_path)


def mixed(*sizes, **training) -> Preset:
    return changed(tiny, block_schedule=(), block_sizes=sizes, **training)


def test_a_mixture_takes_every_block_size_about_equally_often_and_again_the_same():
    preset = mixed(1, 2, 4)
    taken = [conversion.block_size_at(preset, step) for step in range(600)]
    for size in (1, 2, 4):
        assert 150 < taken.count(size) < 250
    assert taken == [conversion.block_size_at(preset, step) for step in range(600)]
    other = changed(preset, seed=1)
    others = [conversion.block_size_at(other, step) for step in range(600)]
    assert taken != others and taken[1:] != others[:-1], "nor is another seed a later start"


def test_a_mixture_pads_to_whole_blocks_of_every_size():
    assert conversion.padding_multiple(mixed(1, 2, 4)) == 16
    assert conversion.padding_multiple(mixed(4, 24)) == 48
    assert conversion.padding_multiple(mixed(4, 128)) == 16  # 128 stands for the whole row
    for size in (1, 2, 8, 16):  # models that are compared learn the same padding
        alone = changed(tiny, block_schedule=(), block_size=size)
        assert conversion.padding_multiple(alone) == 16


def test_in_a_mixture_block_size_1_is_plain_autoregression(monkeypatch):
    seen = {}

    def spy(backbone, batch, vocab, block_size, config, generator, part):
        seen[block_size] = config.mask_rate, config.complementary
        return torch.zeros(()), {"masked_nats": 0.0}

    monkeypatch.setattr(recipes, "block_diffusion_loss", spy)
    preset = mixed(1, 4, complementary=True, mask_rate=(0.1, 0.9))
    tokenizer = tiny_tokenizer()
    module = train.new_model(preset, "cpu", tokenizer)
    pool = mnist_pool(real_images(40))
    loss = recipes.backbone_loss(module, tokenizer, load_vocabulary(16), pool, preset)
    for step in range(STEPS):
        loss(step)
    assert seen == {1: ((1.0, 1.0), False), 4: ((0.1, 0.9), True)}
    # A schedule that begins at block size 1 keeps the settings of the run.
    preset = scheduled((0.0, 1), (0.5, 4), mask_rate=(0.1, 0.9))
    recipes.backbone_loss(module, tokenizer, load_vocabulary(16), pool, preset)(0)
    assert seen[1] == ((0.1, 0.9), False)


@pytest.mark.parametrize(
    ("preset", "sentence"),
    [
        (mixed(1, 2), "block_sizes has 1, 2, but the model is used with block size 4; add it"),
        (changed(tiny, block_sizes=(2, 4)), "block_schedule and block_sizes both set"),
    ],
)
def test_bad_mixtures_of_block_sizes_are_refused(preset, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        train.train(preset, tmp_path)


def test_a_run_from_before_there_were_mixtures_can_go_on():
    old = to_dict(get_preset("mnist").training)
    del old["block_sizes"]
    assert not differences(old, to_dict(get_preset("mnist").training))


def test_only_backbones_have_blocks():
    judge = get_preset("mnist-judge")
    with pytest.raises(ValueError, match="mnist-judge is a judge, which has no blocks"):
        conversion.check_block_schedule(changed(judge, block_schedule=((0.0, 4),)))


def test_a_schedule_can_be_set_and_is_recorded():
    preset = changed(
        get_preset("mnist-cpu"),
        **read_settings(["block_schedule=[[0,4],[0.5,16]]", "mask_noise=0.1"]),
    )
    assert (
        preset.training.block_schedule == ((0, 4), (0.5, 16)) and preset.training.mask_noise == 0.1
    )
    settings = [word for word in shlex.split(train.command(preset, "mnist-ar")) if "=" in word]
    assert changed(get_preset("mnist-cpu"), **read_settings(settings)) == preset
    stored = to_dict(preset.training)
    assert stored["block_schedule"] == [[0, 4], [0.5, 16]]
    assert as_tuples(stored["block_schedule"]) == preset.training.block_schedule


# --- noise on the mask embedding -----------------------------------------------------------------


def test_noise_falls_to_zero_with_the_warm_up():
    config = changed(TrainingConfig(), steps=10, warmup_steps=4, mask_noise=0.2)
    assert [conversion.mask_noise_at(config, step) for step in range(6)] == pytest.approx(
        [0.2, 0.15, 0.1, 0.05, 0, 0]
    )
    assert conversion.mask_noise_at(changed(config, warmup_steps=0), 0) == 0.2
    assert conversion.mask_noise_at(changed(TrainingConfig(), steps=10), 0) == 0


def test_noise_is_on_masked_tokens_alone_and_gone_afterwards():
    backbone = tiny_backbone(vocab_size=24, hidden_size=64)
    ids = torch.where(torch.rand(40, 30, generator=generator(2)) < 0.5, MASK, random_ids(40, 30))
    embed = backbone.model.word_embeddings
    plain = embed(ids).detach()
    with conversion.noisy_mask_embedding(backbone, MASK, 0.3, generator()):
        noise = embed(ids).detach() - plain
    masked = ids == MASK
    assert not noise[~masked].any()
    assert (
        float(noise[masked].std()) == pytest.approx(0.3, rel=0.02)
        and abs(float(noise[masked].mean())) < 0.01
    )
    assert len(noise[masked].unique(dim=0)) == masked.sum(), "every token draws its own"
    assert torch.equal(embed(ids), plain)
    source = generator()
    with conversion.noisy_mask_embedding(backbone, MASK, 0.0, source):
        assert torch.equal(embed(ids), plain)
    assert torch.equal(torch.rand(3, generator=source), torch.rand(3, generator=generator())), (
        "no noise draws nothing"
    )


def test_noise_tames_the_gradient_of_a_mask_that_was_never_met():
    """RMSNorm's gradient grows as 1/length: 1/√eps at an embedding of 0, about 1/s with noise s."""
    backbone, ids = tiny_backbone(6, rms_norm_eps=1e-6), random_ids(8, 12)
    backbone.model.word_embeddings.weight.data[MASK] = 0.0
    targets = torch.ones(8, 12, dtype=torch.bool)

    def mask_gradient(noise):
        with conversion.noisy_mask_embedding(backbone, MASK, noise, generator(1)):
            batch, config = Batch(ids, targets, targets), ObjectiveConfig(mask_rate=(0.3, 1.0))
            vocab = SimpleNamespace(mask_id=MASK, image_token_offset=0)
            loss, _ = diffusion.block_diffusion_loss(backbone, batch, vocab, 4, config, generator())
        return float(
            torch.autograd.grad(loss, backbone.model.word_embeddings.weight)[0][MASK].norm()
        )

    assert mask_gradient(0.0) > 100 * mask_gradient(0.4)


# --- exact resume --------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 3, 5, 8])
def test_a_conversion_resumes_to_the_bit(tmp_path, stop):
    preset = scheduled(*tiny.training.block_schedule, mask_noise=0.2)
    tokenizer, pool = tiny_tokenizer(), mnist_pool(real_images(40))

    def run(seed, **where):
        module: nn.Module = train.new_model(changed(preset, seed=seed), "cpu", tokenizer)
        loss = recipes.backbone_loss(module, tokenizer, load_vocabulary(16), pool, preset)
        return module, fit(module, loss, preset.training, **where)

    whole, records = run(0, run=Run(tmp_path / "whole"))
    _, first = run(0, run=Run(tmp_path / "parts"), stop_after=stop)
    parts, second = run(7, run=Run(tmp_path / "parts", resume=True))
    assert first + second == records and len(records) == STEPS
    left, right = whole.state_dict(), parts.state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)
    with pytest.raises(ValueError, match="belongs to another run .block_schedule: "):
        other = scheduled((0.0, 2), (0.5, 4), mask_noise=0.2)
        fit(parts, None, other.training, Run(tmp_path / "parts", resume=True))

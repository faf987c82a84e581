"""On another device everything gives what it gives on the CPU, and no tensor is left behind.

The device is a pretended one (`pretend.py`), so this runs on machines that have none.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import (
    generator,
    random_ids,
    real_images,
    save_tiny_uni,
    tiny_backbone,
    tiny_config,
    tiny_judge,
    tiny_tokenizer,
    tiny_uni,
    use_digits,
)
from pretend import MixedDevices, PretendDevice
from tiny_runs import BACKBONE, SHORT, TOKENIZER, backbone_run, judge_run, tokenizer_run

import minillada
from minillada import masks
from minillada.commands import common
from minillada.commit import Tokens
from minillada.config import JudgeConfig, PainterConfig, Preset, SamplingConfig
from minillada.datasets.pool import mnist_pool
from minillada.datasets.table import MNIST
from minillada.evaluation import bench, evaluate, noise, suite
from minillada.evaluation.likelihood import likelihood
from minillada.experts import combine, combine_at_once
from minillada.extras import levenshtein
from minillada.extras.sprint import Sprint
from minillada.measure import timing
from minillada.measure.frechet import frechet_distance
from minillada.moe import MixtureOfExperts
from minillada.painter import Painter
from minillada.painting import paint
from minillada.sampler import generate
from minillada.settings import changed
from minillada.training import recipes, train
from minillada.training.loop import fit
from minillada.training.painters import Lesson, painter_loss, turbo_loss
from minillada.uni import Uni
from minillada.vocab import load_vocabulary
from minillada.vq import Codebook

# A tiny vocabulary has few words.
pytestmark = pytest.mark.filterwarnings("ignore:this model knows no word")

# Apple's GPUs have no float64, and their names are not CUDA's.
PLACES = {"cuda": True, "mps": False}
EXPECTED: dict = {}  # name of a test -> what the CPU gives
MOE = dict(
    num_experts=8, num_experts_per_tok=2, n_group=4, topk_group=2, moe_intermediate_size=8,
    num_shared_experts=1, first_k_dense_replace=1, routed_scaling_factor=2.5,
)  # fmt: skip


@pytest.fixture(params=PLACES)
def device(request, monkeypatch):
    # Too old a card for grouped products, which have a test of their own.
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    # Autocast asks the system before it is told that it is off.
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *version: True)
    with PretendDevice(request.param, PLACES[request.param]) as pretended:
        yield pretended


@pytest.fixture
def check_same(device, request):
    """Whether `compute(device)` gives what it gives on the CPU, and does work there.

    What the CPU gives is computed once for both devices.
    """
    test = request.node.callspec
    others = [part for part in test.id.split("-") if part != device.place.type]
    name = (request.function.__name__, *others)

    def check(compute, fewest_calls: int = 100) -> None:
        if name not in EXPECTED:
            EXPECTED[name] = compute("cpu")
            assert device.calls == 0
        assert_equal(compute(str(device.place)), EXPECTED[name])
        assert device.calls >= fewest_calls

    return check


def assert_equal(found, expected) -> None:
    """Whole numbers are equal; others are up to rounding, as CUDA attends with other kernels."""
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found.cpu(), expected.cpu(), rtol=1e-3, atol=1e-5)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for a, b in zip(found, expected):
            assert_equal(a, b)
    else:
        assert found == expected


# --- the instrument ------------------------------------------------------------------------------


def test_a_tensor_left_on_the_cpu_is_refused(device):
    a, b = torch.ones(3, device=device.place), torch.ones(3)
    forgotten = [
        lambda: a + b,
        lambda: torch.cat([a, b]),
        lambda: torch.stack([a[0], b[0]]),
        lambda: torch.where(a > 0, a, b),
        lambda: torch.nn.functional.mse_loss(a, b),
        lambda: torch.arange(3)[a.long()],
        lambda: a.masked_fill(b > 0, 0.0),
        lambda: a.__setitem__(b > 0, b),
        lambda: torch.nn.Linear(3, 3).to(device.place)(b),
        lambda: torch.randn(3, device=device.place, generator=generator()),
        lambda: a.numpy(),
    ]
    for call in forgotten:
        with pytest.raises(MixedDevices):
            call()


def test_what_a_gpu_allows_is_allowed(device):
    a, b = torch.ones(3, device=device.place), torch.ones(3)
    results = [a + b.sum(), a * 2, a[b > 0], torch.where(a > 0, a, torch.tensor(0.0)), a.copy_(b)]
    a[1:] = b[1:]
    for result in results:
        assert result.device.type == device.place.type
    assert (a.cpu() + b).device.type == "cpu" and b.device.type == "cpu"
    assert b.to(a).device == a.device == torch.zeros_like(a).device
    assert a.to(torch.int).device == a.device and a.tolist() == [1.0, 1.0, 1.0]


def test_parameters_and_gradients_are_where_they_belong(device):
    layer = torch.nn.Linear(3, 2).to(device.place)
    layer(torch.ones(1, 3, device=device.place)).sum().backward()
    for parameter in layer.parameters():
        assert parameter.device == parameter.grad.device == device.place


def test_a_forgotten_tensor_inside_the_package_is_found(device, monkeypatch):
    """The mask of a decoding step is planted on the CPU."""
    from minillada import guidance

    right = guidance.block_causal_mask
    monkeypatch.setattr(guidance, "block_causal_mask", lambda *args: right(*args).cpu())
    with pytest.raises(MixedDevices):
        tiny_uni().to(device.place).draw(["a thick seven"], steps=2)


def test_numbers_that_a_device_lacks_are_refused():
    with PretendDevice("mps", float64=False), pytest.raises(TypeError, match="no float64"):
        torch.ones(3, device="mps").double()


@pytest.mark.parametrize(
    ("there", "best"),
    [((), "cpu"), (("mps",), "mps"), (("mps", "xpu"), "xpu"), (("cuda",), "cuda")],
)
def test_the_best_device_is_the_first_that_is_there(monkeypatch, there, best):
    for kind in ("cuda", "xpu", "mps"):
        monkeypatch.setattr(getattr(torch, kind), "is_available", lambda kind=kind: kind in there)
    assert minillada.best_device() == best


def test_auto_is_a_device_that_works(monkeypatch):
    monkeypatch.setattr(common, "best_device", lambda: "cpu")
    assert common.check_device("auto") == "cpu"
    monkeypatch.setattr(common, "best_device", lambda: "cuda:77")
    with pytest.raises(ValueError, match="device 'cuda:77' is not available here"):
        common.check_device("auto")


def test_other_devices_are_waited_for_before_the_clock_is_read(monkeypatch):
    order = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda place: order.append(place.type))
    timing.elapsed(lambda: order.append("call"), "mps")
    assert order == ["mps", "call", "mps"]
    timing.elapsed(lambda: order.append("call"), "cpu")
    assert order == ["mps", "call", "mps", "call"]


def test_a_benchmark_names_the_card(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda place: f"card {place.index}")
    ratio = {"ratio": 2.0}
    monkeypatch.setattr(timing, "speed_ratio", lambda *args: ratio)
    assert bench.Setting("cuda:1").compare(print, print)["card"] == "card 1"
    assert bench.Setting("cpu").compare(print, print)["card"] is None


# --- kernels of a GPU ----------------------------------------------------------------------------


def attention_calls(monkeypatch, mask: torch.Tensor | None, dtype: torch.dtype) -> list[int]:
    """Heads of the keys that attention with 4 query heads and 2 key heads hands to PyTorch."""
    heads, plain = [], F.scaled_dot_product_attention

    def count(query, key, value, **options):
        heads.append(key.shape[1])
        assert key.shape == value.shape
        return plain(query, key, value, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", count)
    query, key, value = (torch.randn(2, n, 6, 8, generator=generator(n)) for n in (4, 2, 2))
    expected = masks.attend(query.to(dtype), key.to(dtype), value.to(dtype), mask)
    with PretendDevice("cuda"):
        here = [part.to("cuda", dtype) for part in (query, key, value)]
        found = masks.attend(*here, None if mask is None else mask.cuda())
    assert torch.allclose(found, expected, atol=1e-6)
    return heads


def test_fused_attention_of_a_gpu_gets_the_heads_that_it_knows(monkeypatch):
    index = torch.arange(6)
    mask = masks.block_causal_mask(index, index, 2)
    assert attention_calls(monkeypatch, mask, torch.float32) == [2, 4]
    assert attention_calls(monkeypatch, mask, torch.bfloat16) == [2, 4]
    assert attention_calls(monkeypatch, None, torch.float32) == [2, 4]
    assert attention_calls(monkeypatch, None, torch.bfloat16) == [2, 2]  # flash attention


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_is_in_the_type_of_autocast(monkeypatch):
    seen = []
    plain = masks.flex_kernel(False)

    def note(query, key, value, **options):
        seen.append((query.dtype, key.dtype, value.dtype))
        return plain(query, key, value, **options)

    monkeypatch.setattr(masks, "flex_kernel", lambda cuda: note)
    index = torch.arange(32)
    mask = masks.flex_mask(masks.training_places(index, index, 4))
    query, key, value = (torch.randn(2, n, 64, 16, generator=generator(n)) for n in (4, 2, 2))
    expected = masks.attend(query, key, value, mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = masks.attend(query, key, value, mask)
    assert seen == [(torch.float32,) * 3, (torch.bfloat16,) * 3]
    assert torch.allclose(found.float(), expected, atol=0.05)


def seen_precision(module: torch.nn.Module, call) -> set[str]:
    """The precision of convolutions on a GPU while `call` runs `module`."""
    seen = set()
    hook = module.register_forward_pre_hook(
        lambda *_: seen.add(torch.backends.cudnn.conv.fp32_precision)
    )
    with hook:
        call()
    return seen


def test_convolutions_that_decide_are_in_full_precision():
    before = torch.backends.cudnn.conv.fp32_precision
    tokenizer, judge, painter = tiny_tokenizer(), tiny_judge(), Painter(PAINTER)
    codes = torch.zeros(2, 4, 4, dtype=torch.long)
    assert seen_precision(tokenizer.encoder, lambda: tokenizer.encode(DIGITS)) == {"ieee"}
    assert seen_precision(tokenizer.decoder, lambda: tokenizer.decode(codes)) == {"ieee"}
    assert seen_precision(judge.body, lambda: judge.classify(DIGITS)) == {"ieee"}
    assert seen_precision(painter.enter, lambda: paint(painter, codes, DIGITS, 1)) == {"ieee"}
    assert seen_precision(judge.body, lambda: judge(DIGITS)) == {before}
    with pytest.raises(ValueError):
        tokenizer.encode(2 * DIGITS)
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_the_codebook_adds_in_one_order(monkeypatch):
    """`index_add_` of a GPU does not: a run could not be repeated to the bit."""
    added = set()
    plain = torch.Tensor.index_add_

    def note(total, dim, index, source):
        added.add((place, source.ndim))
        return plain(total, dim, index, source)

    monkeypatch.setattr(torch.Tensor, "index_add_", note)
    features = torch.randn(3, 4, 2, 2, generator=generator())
    books = []
    for place in ("cpu", "cuda"):
        torch.manual_seed(0)
        with PretendDevice("cuda"):
            book = Codebook(5, 4).to(place)
            seen = book(features.to(place))
            book.update(seen.features, seen.codes, generator())
        books.append(book.embedding)
    assert torch.equal(*books)
    # Counts are not added here: they are whole numbers, exact in any order.
    assert added == {("cpu", 2)}


# --- training ------------------------------------------------------------------------------------


def trained(module, loss, config=SHORT):
    """Records of two steps and all weights after them."""
    records = fit(module, loss, config, stop_after=2)
    return [record["loss"] for record in records], list(module.state_dict().values())


def teacher(device: str):
    return tiny_judge().to(device).requires_grad_(False)


def run_judge(device):
    return trained(*judge_run(1, device))


def run_judge_of_photos(device):
    config = JudgeConfig(width=4, features=16, whitened=True, flips=True, label_smoothing=0.2)
    muon = changed(SHORT, optimizer="muon")
    preset = Preset(name="photos", kind="judge", model=config, training=muon)
    module = train.new_model(preset, device)
    return trained(module, recipes.judge_loss(module, real_images(40), muon), muon)


def run_tokenizer(device):
    return trained(*tokenizer_run(1, device))


def run_tokenizer_with_a_teacher(device):
    preset = changed(TOKENIZER, feature_weight=0.1, colour_weight=1.0, unquantised_steps=1)
    module = train.new_model(preset, device)
    config = changed(SHORT, operation_share=0.5)
    text, images = load_vocabulary(16), real_images(40)
    return trained(
        module, recipes.tokenizer_loss(module, images, MNIST, text, config, teacher(device))
    )


def run_backbone(device):
    return trained(*backbone_run(1, device=device))


def run_backbone_with_every_term(device):
    again = device != "cuda"  # what is computed again does not see where it is (`pretend`)
    preset = changed(
        BACKBONE, views=2, complementary=True, mask_rate=(0.1, 0.9), edit_noise=0.2, mask_noise=0.1,
        confidence_weight=0.5, planted_errors=0.3, objective="count", optimizer="muon",
        activation_checkpointing=again, fresh_codes=True,
    )  # fmt: skip
    module, loss = backbone_run(1, preset, device)
    return trained(module, loss, preset.training)


def run_packed_backbone(device):
    return trained(*backbone_run(1, changed(BACKBONE, pack_length=128), device))


def run_experts(device):
    preset = changed(BACKBONE, **MOE, balance_rate=0.01, optimizer="muon", objective="reweighted")
    module, loss = backbone_run(1, preset, device)
    return trained(module, loss, preset.training)


PAINTER = PainterConfig(width=8, condition_width=8, codebook_size=16, code_dim=8, blocks=1)
PAINTING = Preset(name="painter", kind="painter", model=PAINTER, training=SHORT)


def lesson(preset: Preset, device: str) -> Lesson:
    preset = changed(preset, mirrored=True, unconditional_rate=0.5)
    return Lesson(preset, tiny_tokenizer().to(device), real_images(40), teacher(device))


def run_painter(device):
    made = lesson(PAINTING, device)
    painter = train.new_model(PAINTING, device, made.tokenizer)
    return trained(painter, painter_loss(painter, made))


def run_turbo_painter(device):
    preset = changed(PAINTING, turbo=True, painting_steps=4)
    made = lesson(preset, device)
    source = train.new_model(PAINTING, device, made.tokenizer)
    painter = train.new_model(preset, device, made.tokenizer, source)
    return trained(painter, turbo_loss(painter, source, made))


TRAININGS = [
    run_judge, run_judge_of_photos, run_tokenizer, run_tokenizer_with_a_teacher, run_backbone,
    run_backbone_with_every_term, run_packed_backbone, run_experts, run_painter, run_turbo_painter,
]  # fmt: skip


@pytest.mark.parametrize("run", TRAININGS, ids=lambda run: run.__name__)
def test_training(check_same, run):
    check_same(run)


@pytest.mark.parametrize("preset", [TOKENIZER, BACKBONE], ids=["tokenizer", "backbone"])
def test_a_run_starts_from_other_weights(device, tmp_path, monkeypatch, preset):
    use_digits(monkeypatch, real_images(40))
    folder = save_tiny_uni(tmp_path)
    start = folder if preset is BACKBONE else folder.parent / "tokenizer"
    preset = changed(preset, tokenizer=str(folder.parent / "tokenizer"), steps=1)
    if preset.kind == "tokenizer":
        preset = changed(preset, tokenizer=None, codebook_size=20)
    train.train(preset, tmp_path / "new", str(device.place), start=str(start))


# --- decoding ------------------------------------------------------------------------------------

DIGITS = real_images(2).floats()


def model(place: str) -> Uni:
    """A tiny model of all tasks, with room for a thought."""
    uni = tiny_uni().to(place)
    uni.backbone.config = changed(uni.backbone.config, max_position_embeddings=512)
    return uni


UPPER = torch.zeros(32, 32, dtype=torch.bool)
UPPER[:16] = True
TASKS = {
    "draw": lambda uni: uni.draw(["a thick seven", "a thin three"], steps=3, guidance=2.0),
    "draw without cache": lambda uni: uni.draw_traced(["a one"], use_cache=False, steps=2).images,
    "describe": lambda uni: uni.describe(DIGITS, steps=3),
    "answer": lambda uni: uni.answer([(DIGITS[0], DIGITS[1])], ["what digit is this?"], steps=3),
    "edit": lambda uni: uni.edit(
        DIGITS, "make it thicker", steps=3, guidance_text=2, guidance_image=1.5
    ),
    "think": lambda uni: uni.think_and_draw(["draw the sum of two and two"], steps=2),
    "interleave": lambda uni: uni.interleave("count from two to four", steps=2),
    "inpaint": lambda uni: uni.inpaint(DIGITS, UPPER, "a thick seven", steps=2),
    "infill": lambda uni: uni.infill("a ___ leaning right", DIGITS[:1], steps=2),
}


@pytest.mark.parametrize("task", TASKS)
def test_tasks(check_same, task):
    check_same(lambda place: TASKS[task](model(place)))


SETTINGS = {
    "text": dict(threshold=0.9),
    "samples": dict(temperature=1.0, top_k=9, top_p=0.9),
    "margin": dict(strategy="top_k_margin", adaptive=True),
    "entropy": dict(strategy="neg_entropy", edit_threshold=0.3),
    "in order": dict(strategy="left_to_right", gather=True),
    "at random": dict(strategy="random", fill_tail=False),
    "guided": dict(guidance=2.0, rescale=0.7),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("experts", [{}, MOE], ids=["dense", "experts"])
def test_sampling(check_same, setting, experts):
    config = SamplingConfig(block_size=4, steps=4, **SETTINGS[setting])

    def compute(place):
        backbone = tiny_backbone(**experts).to(place)
        prompt, other = random_ids(2, 6).to(place), random_ids(1, 5, seed=1).to(place)
        guidance = (other,) if config.guidance != 1 else ()
        made = generate(backbone, prompt, 9, config, Tokens(0, 1), guidance)
        return made.ids, made.passes, list(made.steps)

    check_same(compute)


def test_sprint_and_repair(check_same):
    def compute(place):
        backbone = tiny_backbone().to(place)
        sprint = Sprint(torch.arange(24) > 12, keep_text=0.7, keep_image=0.5)
        config = SamplingConfig(block_size=4, steps=4)
        prompt = random_ids(2, 8).to(place)
        made = generate(backbone, prompt, 8, config, Tokens(0, 1), cache=sprint)
        vocab = load_vocabulary(16)
        speller = tiny_backbone(vocab_size=vocab.size, block_size=8).to(place)
        prompt, draft = (random_ids(2, 8, 200, seed).to(place) for seed in (1, 2))
        return made.ids, levenshtein.repair(speller, prompt, draft, vocab, rounds=2)

    check_same(compute)


@pytest.mark.parametrize("turbo", [False, True])
def test_painting(check_same, turbo):
    def compute(place):
        torch.manual_seed(0)
        painter = Painter(changed(PAINTER, painting_steps=3, turbo=turbo)).to(place)
        codes = torch.randint(16, (2, 4, 4), generator=generator())
        return paint(painter, codes, DIGITS, seed=1, guidance=2.0)

    check_same(compute)


# --- evaluation ----------------------------------------------------------------------------------


def test_likelihood(check_same):
    def compute(place):
        uni = tiny_uni().to(place)
        codes = uni.encode(DIGITS)
        texts = ["a thick seven", "a thin two"]
        # Stored codes are on the CPU, those of `encode` are not.
        given = (False, codes), (True, codes), (False, codes.cpu())
        return [likelihood(uni.backbone, uni.vocab, c, texts, 2, 0, s) for s, c in given]

    check_same(compute)


def test_measures(check_same):
    """All of `evaluate` with a tiny model."""
    images = real_images(20)

    def compute(place):
        uni = tiny_uni().to(place)
        judge = tiny_judge().to(place)
        subject = evaluate.Subject(uni, judge, MNIST, images, 20, 0, rival=False)
        report: dict = {}
        for name in ("tokenizer", "drawing", "variety", "describing", "likelihood"):
            report |= evaluate.MEASURES[name](subject)
        return report

    check_same(compute)


def test_the_suite_of_tasks(check_same):
    pool = mnist_pool(real_images(300))

    def compute(place):
        marked = suite.run(model(place), tiny_judge().to(place), pool, samples=2)
        return suite.scores(marked)

    check_same(compute)


def test_distances_and_noise(check_same):
    def compute(place):
        judge = tiny_judge().to(place)
        images = real_images(40).floats().to(place)
        features = judge.features(images)
        module, loss = backbone_run(1, device=place)
        measured = noise.gradient_noise(module, loss, 3)
        return frechet_distance(features[:20], features[20:]), judge.classify(images), measured

    check_same(compute)


@pytest.mark.skipif(not hasattr(F, "grouped_mm"), reason="this PyTorch has no grouped products")
def test_grouped_products(monkeypatch):
    """What a new card does in bfloat16, with the products of the CPU."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    torch.manual_seed(0)
    config = tiny_config(**MOE | {"num_experts_per_tok": 3})
    mixture, x = MixtureOfExperts(config).bfloat16().eval(), torch.randn(9, 16).bfloat16()
    chosen, weights = mixture.gate(x)
    expected = combine_at_once(mixture.experts, x, chosen, weights)
    with PretendDevice("cuda") as pretended:
        found = combine(mixture.experts.to("cuda"), x.cuda(), chosen.cuda(), weights.cuda())
    assert torch.equal(found, expected) and pretended.calls > 10

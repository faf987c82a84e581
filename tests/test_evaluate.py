"""Statistics against closed forms, and every measurement on models whose score is known in advance."""

import math
from types import SimpleNamespace

import pytest
import torch
from helpers import few, generator, real_images, tiny_judge, tiny_uni
from hypothesis import given
from hypothesis import strategies as st

from minillada import batching, checkpoint, layout
from minillada.datasets import captions, mnist
from minillada.datasets.mnist import Images
from minillada.diffusion import nll_bound
from minillada.measure import evaluate, likelihood
from minillada.measure.evaluate import balanced_prompts
from minillada.measure.frechet import frechet_distance
from minillada.measure.intervals import fraction, wilson_ci95
from minillada.measure.noise import gradient_noise

# --- statistics --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(50, 100, 0.4038, 0.5962), (8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (990, 1000, 0.9817, 0.9946)],
)
def test_wilson_interval_of_the_tables(successes, n, low, high):
    assert wilson_ci95(successes, n) == pytest.approx((high - low) / 2, abs=1e-4)


def test_fraction_names_value_interval_and_count():
    report = fraction("hit", torch.tensor([True, False, True, True]))
    assert report == {"hit": 0.75, "hit_ci95": wilson_ci95(3, 4), "hit_n": 4}


def gaussian(mean, covariance, n: int = 400, seed: int = 0) -> torch.Tensor:
    """Samples whose *sample* mean and covariance are exactly the given ones."""
    dim = len(mean)
    x = torch.randn(n, dim, generator=generator(seed), dtype=torch.double)
    x = x - x.mean(0)
    white = x @ torch.linalg.inv(torch.linalg.cholesky(x.T.cov())).T
    return white @ torch.linalg.cholesky(torch.as_tensor(covariance, dtype=torch.double)).T + torch.as_tensor(mean, dtype=torch.double)


@few
@given(
    means=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=3, max_size=3),
    spreads=st.lists(st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)), min_size=3, max_size=3),
)
def test_frechet_distance_of_diagonal_gaussians(means, spreads):
    """Σ (μ_a − μ_b)² + (σ_a − σ_b)²"""
    (ma, mb), (sa, sb) = torch.tensor(means, dtype=torch.double).T, torch.tensor(spreads, dtype=torch.double).T
    a, b = gaussian(ma, (sa**2).diag(), seed=1), gaussian(mb, (sb**2).diag(), 300, seed=2)
    expected = float((ma - mb).square().sum() + (sa - sb).square().sum())
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-6)


def test_frechet_distance_of_correlated_gaussians():
    """The trace of (A^½ B A^½)^½ through symmetric roots, which is another way to the same number."""
    roots = torch.randn(2, 5, 5, generator=generator(3), dtype=torch.double)
    covariance_a, covariance_b = (r @ r.T + 0.1 * torch.eye(5, dtype=torch.double) for r in roots)
    a, b = gaussian([0, 1, 2, 3, 4], covariance_a, seed=1), gaussian([1, 1, 1, 1, 1], covariance_b, seed=2)

    def root(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors @ values.clamp_min(0).sqrt().diag() @ vectors.T

    half = root(covariance_a)
    cross = torch.linalg.eigvalsh(half @ covariance_b @ half).clamp_min(0).sqrt().sum()
    expected = (1 + 0 + 1 + 4 + 9) + float(covariance_a.trace() + covariance_b.trace() - 2 * cross)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(a + 100, b + 100) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 2) == pytest.approx(5 * 4, rel=1e-6)


def test_frechet_distance_survives_dead_features():
    """A feature that is always 0, as a ReLU may give, makes the covariance singular."""
    a = torch.randn(50, 4, generator=generator())
    a[:, 2] = 0
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-5) and math.isfinite(frechet_distance(a, torch.zeros(50, 4)))


def test_prompts_are_balanced():
    rows = balanced_prompts(1000)
    assert [sum(r[0] == d for r in rows) for d in range(10)] == [100] * 10
    for n in (60, 600):
        assert all(balanced_prompts(n).count((d, t, s)) == n // 60 for d in range(10) for t in range(2) for s in range(3))


# --- measurements on models whose score is known -----------------------------------------------------------------------


def stroke(thickness: int, slant: int) -> torch.Tensor:
    """A bar `[1, 1, 32, 32]` that measures as the given classes."""
    y, x = torch.meshgrid(torch.arange(32) - 15.5, torch.arange(32) - 15.5, indexing="ij")
    a, width = math.radians((-25, 5, 30)[slant]), (1.5, 5.0)[thickness]
    along, across = x * math.sin(a) - y * math.cos(a), x * math.cos(a) + y * math.sin(a)
    return ((width / 2 + 0.5 - across.abs()).clamp(0, 1) * (10.5 - along.abs()).clamp(0, 1))[None, None]


class PerfectPainter:
    """Draws a bar with the asked attributes and hides the asked digit in a corner pixel, where `CornerJudge` reads it."""

    def draw(self, prompts, seed=0, wrong=0, **sampling):
        pictures = []
        for i, prompt in enumerate(prompts):
            digit, thickness, slant = captions.parse(prompt)
            pictures.append(stroke(thickness, slant if i >= wrong else (slant + 1) % 3))
            pictures[-1][0, 0, 0, 0] = (digit if i >= 2 * wrong else (digit + 1) % 10) / 1000
        return torch.cat(pictures)


class CornerJudge:
    def classify(self, images):
        return (images[:, 0, 0, 0] * 1000).round().long()


def test_drawing_scores_are_counts():
    perfect = evaluate.evaluate_drawing(PerfectPainter(), CornerJudge(), 60, 0)
    assert [perfect[f"draw_{k}_accuracy"] for k in ("digit", "thickness", "slant")] == [1, 1, 1]
    assert perfect["draw_digit_accuracy_n"] == 60
    flawed = evaluate.evaluate_drawing(PerfectPainter(), CornerJudge(), 60, 0, wrong=6)
    assert flawed["draw_digit_accuracy"] == pytest.approx(48 / 60) and flawed["draw_slant_accuracy"] == pytest.approx(54 / 60)
    assert flawed["draw_thickness_accuracy"] == 1


def test_caption_scores_are_counts():
    images = real_images(10)
    true = [list(captions.parse(t)) for t in captions.describe_pixels(images.floats(), images.labels)]
    answers = [captions.caption(*row) for row in true]
    answers[0] = captions.caption((true[0][0] + 1) % 10, *true[0][1:])  # wrong digit
    answers[1] = captions.caption(true[1][0])  # attributes missing
    answers[2] += "!"  # every word right, yet not word for word … and the last word is no longer a word
    answers[3] = "  " + answers[3]  # parsed as right, not exact
    answers[4] = ""
    uni = SimpleNamespace(describe=lambda part: [answers.pop(0) for _ in part])
    report = evaluate.evaluate_describing(uni, images.floats(), images.labels)
    assert report["caption_digit_accuracy"] == pytest.approx(0.8)
    assert report["caption_thickness_accuracy"] == pytest.approx(0.8)
    assert report["caption_slant_accuracy"] == pytest.approx(0.7)
    assert report["caption_exact_accuracy"] == pytest.approx(0.5)
    assert report["caption_exact_accuracy_n"] == 10


def test_tokenizer_scores_by_hand():
    images, labels = real_images(20).floats() * 0.5, real_images(20).labels
    codes = torch.arange(20 * 16).view(20, 4, 4) % 8
    uni = SimpleNamespace(
        encode=lambda x: codes,
        decode=lambda c: images + 0.1,  # an error of 0.1 everywhere is 20 dB
        tokenizer=SimpleNamespace(config=SimpleNamespace(codebook_size=16, tokens=16)),
    )
    judge = SimpleNamespace(classify=lambda x: labels if float(x.min()) == 0 else (labels + (torch.arange(20) < 3)) % 10)
    report = evaluate.evaluate_tokenizer(uni, judge, images, labels)
    assert report["judge_accuracy"] == 1 and report["reconstruction_accuracy"] == pytest.approx(17 / 20)
    assert report["reconstruction_psnr_db"] == pytest.approx(20, abs=1e-3)
    assert report["codebook_used"] == 0.5 and report["codebook_perplexity"] == pytest.approx(8, rel=1e-4)
    assert report["tokens_per_image"] == 16


def test_variety_compares_drawings_and_reconstructions_with_the_test_set():
    test = Images(torch.randint(256, (80, 1, 8, 8), generator=generator(), dtype=torch.uint8), torch.arange(80) % 10)
    judge = SimpleNamespace(features=lambda images: images.flatten(1)[:, :5])
    drawn = torch.rand(40, 1, 8, 8, generator=generator(1))
    seen = []
    uni = SimpleNamespace(draw=lambda prompts, seed: seen.append(prompts) or drawn, encode=lambda x: x, decode=lambda x: x)
    report = evaluate.evaluate_variety(uni, judge, test, 40, 3)
    chosen = torch.randperm(80, generator=generator(3))[:40]
    assert seen[0] == captions.describe_pixels(test.floats(chosen), test.labels[chosen])
    everything = judge.features(test.floats())
    assert report["frechet_distance"] == pytest.approx(frechet_distance(judge.features(drawn), everything))
    assert report["frechet_floor"] == pytest.approx(frechet_distance(judge.features(test.floats(chosen)), everything))
    assert report["frechet_ratio"] == pytest.approx(report["frechet_distance"] / report["frechet_floor"])


@pytest.mark.parametrize("block_size", [1, 16])
def test_bits_per_token_by_hand(block_size):
    """Nats of the whole response, padding included, over its real tokens; the mean over sequences, 1.96 standard errors."""
    uni, images = tiny_uni(block_size=block_size), real_images(6)
    codes = uni.encode(images.floats())
    texts = captions.describe_pixels(images.floats(), images.labels)
    report = likelihood.likelihood(uni.backbone, uni.vocab, codes, texts, samples=3, seed=4)
    assert report.keys() == {"draw", "describe"}
    for task in report:
        if task == "draw":
            sequences = [layout.draw_sequence(uni.vocab, t, c) for t, c in zip(texts, codes, strict=True)]
        else:
            sequences = [layout.describe_sequence(uni.vocab, c, t) for t, c in zip(texts, codes, strict=True)]
        batch = batching.collate(sequences, uni.vocab, 16)
        source = generator(4)
        draws = [nll_bound(uni.backbone, batch, block_size, uni.vocab.mask_id, source) for _ in range(3)]
        nats = draws[0] if block_size == 1 else sum(draws) / 3  # exact at block size 1: one sample is enough
        lengths = torch.tensor([len(s.ids) - s.prompt_length for s in sequences])
        bits = nats / math.log(2) / lengths
        mean = float(bits.mean())
        spread = math.sqrt(float(((bits - mean) ** 2).sum()) / 5 / 6) * 1.96
        assert report[task] == pytest.approx((mean, spread), rel=1e-4)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_checkpoints_are_ranked_by_the_tasks_they_were_trained_on(monkeypatch, share):
    bits = {"a": (2.0, 9.0), "b": (3.0, 1.0), "c": (4.0, 1.0)}  # drawing, describing
    training = {"training": {"draw_share": share}}
    monkeypatch.setattr(likelihood, "load", lambda path, _: SimpleNamespace(backbone=path, vocab=None, encode=lambda x: x, info=training))
    monkeypatch.setattr(likelihood, "likelihood", lambda name, *_, **__: {"draw": (bits[name][0], 0.1), "describe": (bits[name][1], 0.1)})
    ranked = likelihood.rank_checkpoints(["c", "a", "b"], None, [])
    assert ranked == ([("a", 2.0), ("b", 3.0), ("c", 4.0)] if share == 1 else [("b", 2.0), ("c", 2.5), ("a", 5.5)])


def test_validation_images_are_no_reported_ones():
    images, texts = likelihood.validation_images(3)
    test = mnist.load_mnist("test")
    assert torch.equal(images, test.floats(slice(8000, 8003))) and likelihood.VALIDATION.start >= 2000  # the first 2,000 are reported
    assert texts == captions.describe_pixels(images, test.labels[8000:8003])


def test_model_and_rival_are_reported_side_by_side(monkeypatch):
    images = torch.tensor([1.0, 2.0, 3.0, 6.0])
    fake = {"a": {"draw": images, "describe": -images}, "b": {"draw": images, "describe": images + 1}}
    monkeypatch.setattr(evaluate, "bits_per_image", lambda backbone, *rest: fake[backbone])
    report = evaluate.evaluate_likelihood(SimpleNamespace(backbone="a", vocab=None), "b", [0] * 4, [], 1, 0)
    half = 1.96 * math.sqrt(14 / 3 / 4)
    assert report["bits_n"] == 4
    # The tasks share their images: what one gains on an image the other loses, so the average is certain.
    assert report["bits_per_token"] == 0 and report["bits_per_token_ci95"] == 0
    assert report["bits_per_image_token"] == 3.0 and report["bits_per_image_token_ci95"] == pytest.approx(half)
    assert report["bits_per_token_ar"] == 3.5 and report["bits_per_token_ar_ci95"] == pytest.approx(half)
    assert report["bits_per_text_token_ar"] == 4.0
    alone = evaluate.evaluate_likelihood(SimpleNamespace(backbone="a", vocab=None), None, [0], [], 1, 0)
    assert alone["bits_per_token_ar"] is None and alone["bits_per_image_token"] == 3.0


def test_timing_counts_tokens_and_forwards(monkeypatch):
    uni, seconds = tiny_uni(), iter([0.5, 2.0])
    monkeypatch.setattr(evaluate.timing, "measure", lambda call, device: evaluate.timing.Timing(next(seconds), 0, 0, 7, "wall clock", None))
    report = evaluate.evaluate_timing(uni, batch=10, steps=4)
    assert report["cache_speedup"] == 4 and report["tokens_per_second"] == 10 * 16 / 0.5
    forwards = uni.draw_traced([captions.caption(*row) for row in balanced_prompts(10)], steps=4).generation.forwards
    assert report["tokens_per_forward"] == 16 / forwards


# --- everything together -----------------------------------------------------------------------------------------------

FRACTIONS = [
    "judge_accuracy", "reconstruction_accuracy", "draw_digit_accuracy", "draw_thickness_accuracy", "draw_slant_accuracy",
    "caption_digit_accuracy", "caption_exact_accuracy",
]  # fmt: skip
NUMBERS = ["reconstruction_psnr_db", "frechet_distance", "frechet_floor", "bits_per_token", "bits_per_token_ar"]


def test_the_report_has_every_number(monkeypatch):
    monkeypatch.setattr(evaluate, "load", lambda name, device: tiny_uni())
    monkeypatch.setattr(mnist, "load_mnist", lambda split: real_images(30))
    rival = tiny_uni(block_size=1).backbone
    monkeypatch.setattr(checkpoint, "shipped", lambda name: True)
    monkeypatch.setattr(checkpoint, "load_model", lambda name, kind, *rest: (tiny_judge() if kind == "judge" else rival, {}))
    monkeypatch.setattr(evaluate.timing, "measure", lambda call, device: call() and evaluate.timing.Timing(1, 1, 1, 1, "wall clock", None))
    report = evaluate.evaluate("mnist", samples=25, seed=1)
    for name in FRACTIONS:
        assert 0 <= report[name] <= 1 and 0 < report[f"{name}_ci95"] < 0.5 and report[f"{name}_n"] == 25
    for name in NUMBERS:
        assert math.isfinite(report[name]), name
    assert report["bits_per_token_ci95"] > 0 and report["bits_per_token_ar_ci95"] > 0 and report["bits_n"] == 25
    assert report["timing"]["cached"]["clock"] == "wall clock" and report["model"] == "mnist"


def test_too_few_samples():
    with pytest.raises(ValueError, match="19 samples say nothing; ask for at least 20"):
        evaluate.evaluate("mnist", samples=19)


def test_gradient_noise_of_known_gradients():
    """Gradients (1, ±1) have variance 1 + 1/(K−1) and a mean of squared length 1."""
    weight = torch.nn.Linear(2, 1, bias=False)
    ratio, half = gradient_noise(weight, lambda step: ((weight.weight * torch.tensor([[1.0, (-1.0) ** step]])).sum(), {}), 40)
    signal = 1 - 1 / 39  # unbiased: the squared mean less its own noise
    assert ratio == pytest.approx((40 / 39) / signal, rel=1e-5) and half > 0
    none, _ = gradient_noise(weight, lambda step: (weight.weight.sum(), {}), 5)
    assert none == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="at least 3"):
        gradient_noise(weight, lambda step: (weight.weight.sum(), {}), 2)

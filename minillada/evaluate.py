"""How good a model is, in numbers that anyone can check: every answer is compared with pixels and labels.

Notable choices
- Drawn digits are marked by the judge, thickness and slant by the same pixel measurements that wrote the captions.
- The Fréchet distance is taken in the judge's 64 features. It is never 0, because the tokenizer loses detail and the
  sample is finite; the tokenizer's own reconstructions of equally many test images give the floor to compare with.
- Every fraction comes with the half-width of its 95 % confidence interval (Wilson) and the sample count.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from . import captions, checkpoint, data, layout, timing, vq
from .diffusion import nll_bound
from .model import Backbone
from .tasks import BATCH_SIZE, Uni, load
from .train import Loss
from .vocab import Vocabulary


def wilson_ci95(successes: float, n: int) -> float:
    """Half-width of the Wilson score interval of a fraction; unlike the textbook one it is not 0 at 0 % or 100 %."""
    z, p = 1.96, successes / n
    return z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))


def fraction(name: str, hits: Tensor) -> dict:
    """`{name, name_ci95, name_n}` of a boolean tensor."""
    n, right = hits.numel(), float(hits.sum())
    return {name: right / n, f"{name}_ci95": wilson_ci95(right, n), f"{name}_n": n}


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to features `[N, D]` and `[M, D]` (Heusel et al. 2017).

    ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½); the trace of the square root is the sum of the roots of the eigenvalues
    of the product, which are real and not negative.
    """
    a, b = a.double(), b.double()
    cov_a, cov_b = (torch.atleast_2d(x.T.cov()) for x in (a, b))  # for one feature `cov` returns a number
    root = torch.linalg.eigvals(cov_a @ cov_b).real.clamp_min(0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root)


def balanced_prompts(n: int) -> list[tuple[int, int, int]]:
    """`n` classes (digit, thickness, slant) with every digit and, within it, every attribute pair equally often."""
    styles = [(t, s) for t in range(len(captions.THICKNESS_WORDS)) for s in range(len(captions.SLANT_WORDS))]
    return [(i % 10, *styles[i // 10 % len(styles)]) for i in range(n)]


def evaluate_tokenizer(uni: Uni, judge, images: Tensor, labels: Tensor) -> dict:
    """Judge on originals and on reconstructions, signal-to-noise ratio of the latter, codebook use."""
    codes = uni.encode(images)
    again = uni.decode(codes)
    error = (again - images).square().mean()
    share, perplexity = vq.codebook_usage(codes.cpu(), uni.tokenizer.config.codebook_size)
    return {
        **fraction("judge_accuracy", judge.classify(images) == labels),
        **fraction("reconstruction_accuracy", judge.classify(again) == labels),
        "reconstruction_psnr_db": float(-10 * error.log10()),
        "tokens_per_image": uni.tokenizer.config.tokens,
        "codebook_used": share,
        "codebook_perplexity": perplexity,
    }


def evaluate_drawing(uni: Uni, judge, n: int, seed: int, **sampling) -> dict:
    """Is the drawn digit the asked one, and are thickness and slant as asked? `n` balanced prompts."""
    asked = torch.tensor(balanced_prompts(n))
    drawn = uni.draw([captions.caption(*row) for row in asked.tolist()], seed=seed, **sampling)
    style = captions.attributes(drawn)
    return {
        **fraction("draw_digit_accuracy", judge.classify(drawn) == asked[:, 0]),
        **fraction("draw_thickness_accuracy", style[:, 0] == asked[:, 1]),
        **fraction("draw_slant_accuracy", style[:, 1] == asked[:, 2]),
    }


def evaluate_variety(uni: Uni, judge, test: data.Images, n: int, seed: int, **sampling) -> dict:
    """Fréchet distance to the whole test set: of drawings from `n` test captions, and of `n` reconstructions (the floor)."""
    chosen = torch.randperm(len(test.labels), generator=torch.Generator().manual_seed(seed))[:n]
    images = test.floats(chosen)
    drawn = uni.draw(captions.describe_pixels(images, test.labels[chosen]), seed=seed + 1, **sampling)
    everything = judge.features(test.floats())
    distance = frechet_distance(judge.features(drawn), everything)
    floor = frechet_distance(judge.features(uni.decode(uni.encode(images))), everything)
    return {"frechet_distance": distance, "frechet_floor": floor, "frechet_ratio": distance / floor, "frechet_n": n}


def evaluate_describing(uni: Uni, images: Tensor, labels: Tensor) -> dict:
    """Is each word of the caption right, and is the whole caption right, word for word?"""
    classes = captions.caption_classes(images, labels).tolist()
    answers = []
    for part in tqdm(images.split(BATCH_SIZE), desc="describing", leave=False):
        answers += uni.describe(part)
    named = [captions.parse(answer) for answer in answers]
    hits = torch.tensor([[a == b for a, b in zip(got, true, strict=True)] for got, true in zip(named, classes, strict=True)])
    exact = torch.tensor([answer == captions.caption(*true) for answer, true in zip(answers, classes, strict=True)])
    return {
        **fraction("caption_digit_accuracy", hits[:, 0]),
        **fraction("caption_thickness_accuracy", hits[:, 1]),
        **fraction("caption_slant_accuracy", hits[:, 2]),
        **fraction("caption_exact_accuracy", exact),
    }


def mean_ci95(values: Tensor) -> tuple[float, float]:
    """Mean of `[N]` and the half-width of its 95 % interval."""
    return float(values.mean()), float(1.96 * values.std() / math.sqrt(len(values)))


def bits_per_image(
    backbone: Backbone, vocab: Vocabulary, codes: Tensor, texts: list[str], samples: int, seed: int, spread: bool = False
) -> dict[str, Tensor]:
    """Bits per token of each image `[N]`, for drawing and for describing: `{"draw": …, "describe": …}`.

    The padding behind the end of a sequence is predicted too and its cost counted, but not its tokens: what a sequence
    costs in all, over the tokens that carry something. `spread` takes the mask samples together (`diffusion.nll_bound`):
    the same expectation with less noise. The recorded numbers were drawn without it.
    """
    block = backbone.config.block_size
    samples = samples if block > 1 else 1  # exact at block size 1
    together = samples if spread else 1
    result = {}
    for task, build in (("draw", layout.draw_sequence), ("describe", layout.describe_sequence)):
        sequences = [build(vocab, t, c) if task == "draw" else build(vocab, c, t) for c, t in zip(codes.cpu(), texts, strict=True)]
        batch = layout.collate(sequences, vocab, max(block, 16))
        generator = torch.Generator().manual_seed(seed)
        nats = []
        for part in torch.arange(len(sequences)).split(BATCH_SIZE):
            ids, targets = batch.ids[part].to(codes.device), batch.targets[part].to(codes.device)
            draws = [nll_bound(backbone, ids, targets, block, vocab.mask_id, generator, together) for _ in range(samples // together)]
            nats.append(torch.stack(draws).mean(0).cpu())
        result[task] = torch.cat(nats) / math.log(2) / batch.real.sum(1)
    return result


def likelihood(
    backbone: Backbone, vocab: Vocabulary, codes: Tensor, texts: list[str], samples: int, seed: int, spread: bool = False
) -> dict[str, tuple[float, float]]:
    """Mean of `bits_per_image` with the half-width of its 95 % interval, which covers images and mask samples alike."""
    return {task: mean_ci95(bits) for task, bits in bits_per_image(backbone, vocab, codes, texts, samples, seed, spread).items()}


def evaluate_likelihood(uni: Uni, rival: Backbone | None, codes: Tensor, texts: list[str], samples: int, seed: int) -> dict:
    """Bits per token of the model and of an autoregressive one (`rival`), drawing and describing averaged by task.

    Both tasks use the same images, and an image that is hard to draw may be hard to describe: the interval of their
    average is that of each image's own average.
    """
    report = {"bits_n": len(codes)}
    for suffix, backbone in (("", uni.backbone), ("_ar", rival)):
        if backbone is None:
            report |= {f"bits_per_token{suffix}": None}
            continue
        bits = bits_per_image(backbone, uni.vocab, codes, texts, samples, seed)
        both = {"token": (bits["draw"] + bits["describe"]) / 2, "image_token": bits["draw"], "text_token": bits["describe"]}
        for name, values in both.items():
            report[f"bits_per_{name}{suffix}"], report[f"bits_per_{name}{suffix}_ci95"] = mean_ci95(values)
    return report


# Test images that choose among checkpoints. The reported bound is measured on others, the first 2,000.
VALIDATION = slice(8000, 9000)


def validation_images(count: int) -> tuple[Tensor, list[str]]:
    """The first `count` images `[count, C, H, W]` of `VALIDATION` and their captions."""
    test = data.load_mnist("test")
    chosen = torch.arange(VALIDATION.start, VALIDATION.stop)[:count]
    return test.floats(chosen), captions.describe_pixels(test.floats(chosen), test.labels[chosen])


def rank_checkpoints(
    paths: list[Path], images: Tensor, texts: list[str], device: str = "cpu", samples: int = 2, seed: int = 0
) -> list[tuple[Path, float]]:
    """Checkpoints with their bound on images they were not trained on, `[N, C, H, W]`, in bits per token; the best come first.

    All see the same masks, so their order is much surer than each number.
    """
    bits = {}
    for path in tqdm(paths, desc="validating", leave=False):
        uni = load(path, device)
        by_task = likelihood(uni.backbone, uni.vocab, uni.encode(images), texts, samples, seed, spread=True)
        share = uni.info["training"]["draw_share"]  # a task that was never trained says nothing about the weights
        bits[path] = share * by_task["draw"][0] + (1 - share) * by_task["describe"][0]
    return sorted(bits.items(), key=lambda entry: entry[1])


def noise_to_signal(gram: Tensor) -> float:
    """tr Cov(g) / ‖E g‖² of K random vectors, both parts unbiased, from their inner products `[K, K]`."""
    draws, total, own = len(gram), float(gram.sum()), float(gram.trace())
    return ((own - total / draws) / (draws - 1)) / ((total - own) / (draws * (draws - 1)))


def gradient_noise(module: nn.Module, loss: Loss, draws: int) -> tuple[float, float]:
    """How noisy the gradient of `loss(0)`, `loss(1)`, … is: its variance over the squared length of its mean, and a 95 % half-width.

    Losses differ in scale and in what they expect, so only the ratio can be compared. The interval is the jackknife's:
    leave out one draw at a time, all from the table of inner products.
    """
    if draws < 3:
        raise ValueError(f"{draws} gradients have no error bar; take at least 3 draws")
    parameters = [p for p in module.parameters() if p.requires_grad]
    rows = []
    for step in range(draws):
        gradients = torch.autograd.grad(loss(step)[0], parameters, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in gradients]))
    gram = torch.stack(rows)
    gram = (gram @ gram.T).double()
    keep = [[k for k in range(draws) if k != left_out] for left_out in range(draws)]
    jackknife = torch.tensor([noise_to_signal(gram[rows][:, rows]) for rows in keep])
    return noise_to_signal(gram), 1.96 * float((jackknife.var(correction=0) * (draws - 1)).sqrt())


def evaluate_timing(uni: Uni, batch: int = 16, **sampling) -> dict:
    """Latency and throughput of drawing, with and without the prefix cache."""
    prompts = [captions.caption(*row) for row in balanced_prompts(batch)]
    report: dict = {"batch": batch, "device": str(uni.device)}
    for name, cached in (("cached", True), ("uncached", False)):
        taken = timing.measure(lambda c=cached: uni.draw_traced(prompts, use_cache=c, **sampling), uni.device)
        report[name] = taken._asdict()
    forwards = uni.draw_traced(prompts, **sampling).generation.forwards
    tokens = uni.tokenizer.config.tokens
    return report | {
        "cache_speedup": report["uncached"]["median"] / report["cached"]["median"],
        "tokens_per_second": batch * tokens / report["cached"]["median"],
        "tokens_per_forward": tokens / forwards,
    }


def evaluate(name: str | Path = "mnist", samples: int = 10_000, seed: int = 0, device: str = "cpu") -> dict:
    """All measurements of one model on the MNIST test set as one flat dictionary, `timing` nested.

    `samples` bounds how many test images are described; drawings use at most 1,000, the likelihood at most 2,000.
    """
    if samples < 20:
        raise ValueError(f"{samples} samples say nothing; ask for at least 20")
    uni = load(name, device)
    judge, _ = checkpoint.load_model("mnist-judge", "judge")
    test = data.load_mnist("test")
    samples = min(samples, len(test.labels))
    images, labels = test.floats(slice(0, samples)), test.labels[:samples]
    drawings, bounded = min(samples, 1000), min(samples, 2000)
    rival = checkpoint.load_model("mnist-ar", "backbone", device)[0] if checkpoint.shipped("mnist-ar") else None
    stages = {
        "tokenizer": lambda: evaluate_tokenizer(uni, judge, images, labels),
        "drawing": lambda: evaluate_drawing(uni, judge, drawings, seed),
        "variety": lambda: evaluate_variety(uni, judge, test, drawings, seed),
        "captions": lambda: evaluate_describing(uni, images, labels),
        "likelihood": lambda: evaluate_likelihood(
            uni, rival, uni.encode(images[:bounded]), captions.describe_pixels(images[:bounded], labels[:bounded]), 4, seed
        ),
        "timing": lambda: {"timing": evaluate_timing(uni)},
    }
    report = {"model": str(name), "seed": seed, "device": device}
    for stage in (bar := tqdm(stages)):
        bar.set_description(f"evaluating {stage}")
        report |= stages[stage]()
    return report

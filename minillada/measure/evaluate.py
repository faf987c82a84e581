"""How good a model is, in numbers that anyone can check: every answer is compared with pixels and labels.

Notable choices
- Drawn digits are marked by the judge, thickness and slant by the same pixel measurements that wrote the captions.
- The Fréchet distance is taken in the judge's 64 features. It is never 0, because the tokenizer loses detail and the
  sample is finite; the tokenizer's own reconstructions of equally many test images give the floor to compare with.
- Every fraction comes with the half-width of its 95 % confidence interval (Wilson) and the sample count.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import checkpoint, vq
from ..datasets import captions, mnist
from ..measure import timing
from ..measure.frechet import frechet_distance
from ..measure.intervals import fraction, mean_ci95
from ..measure.judge import load_judge
from ..measure.likelihood import bits_per_image
from ..model import Backbone
from ..uni import BATCH_SIZE, Uni, load


def balanced_prompts(n: int) -> list[tuple[int, int, int]]:
    """`n` classes (digit, thickness, slant) with every digit and, within it, every attribute pair equally often."""
    styles = [(t, s) for t in range(len(captions.THICKNESS_WORDS)) for s in range(len(captions.SLANT_WORDS))]
    return [(i % 10, *styles[i // 10 % len(styles)]) for i in range(n)]


def evaluate_tokenizer(uni: Uni, judge, images: Tensor, labels: Tensor) -> dict:
    """Judge on originals and on reconstructions, signal-to-noise ratio of the latter, codebook use."""
    codes = uni.encode(images)
    again = uni.decode(codes)
    error = (again - images).square().mean()
    share, perplexity = vq.codebook_usage(codes.cpu(), len(uni.tokenizer.embedding))
    return {
        **fraction("judge_accuracy", judge.classify(images) == labels),
        **fraction("reconstruction_accuracy", judge.classify(again) == labels),
        "reconstruction_psnr_db": float(-10 * error.log10()),
        "tokens_per_image": uni.tokenizer.grid**2,
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


def evaluate_variety(uni: Uni, judge, test: mnist.Images, n: int, seed: int, **sampling) -> dict:
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


def evaluate_timing(uni: Uni, batch: int = 16, **sampling) -> dict:
    """Latency and throughput of drawing, with and without the prefix cache."""
    prompts = [captions.caption(*row) for row in balanced_prompts(batch)]
    report: dict = {"batch": batch, "device": str(uni.device)}
    for name, cached in (("cached", True), ("uncached", False)):
        taken = timing.measure(lambda c=cached: uni.draw_traced(prompts, use_cache=c, **sampling), uni.device)
        report[name] = taken._asdict()
    forwards = uni.draw_traced(prompts, **sampling).generation.forwards
    tokens = uni.tokenizer.grid**2
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
    judge = load_judge()
    test = mnist.load_mnist("test")
    samples = min(samples, len(test.labels))
    images, labels = test.floats(slice(0, samples)), test.labels[:samples]
    drawings, bounded = min(samples, 1000), min(samples, 2000)
    rival = checkpoint.load_model("mnist-ar", Backbone, device)[0] if checkpoint.shipped("mnist-ar") else None
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

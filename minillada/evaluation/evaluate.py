"""How good a model is, in numbers: answers are compared with pixel measurements and labels.

Notable choices
- What a drawing shows is marked by the judge. Its style (thickness and slant of a digit, brightness
  and colour of a photo) is marked by the same pixel measurements that wrote the captions.
- The Fréchet distance is taken in the judge's features. It is never 0, because the tokenizer
  loses detail and the sample is finite. The tokenizer's own reconstructions of equally many test
  images give the floor to compare with.
- Every accuracy comes with both ends of its 95 % interval (Wilson) and the sample count. Beside
  accuracies of drawings and captions stands how many forward passes an answer took.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .. import asking, checkpoint
from ..datasets import edits
from ..datasets.images import Images
from ..datasets.pool import Pool
from ..datasets.table import MNIST, DataSet, data_set_of
from ..measure import timing
from ..measure.codebook import codebook_usage
from ..measure.frechet import frechet_distance
from ..measure.intervals import fraction
from ..measure.judge import Judge, load_judge
from ..model import Backbone
from ..tasks import editing
from ..tasks.base import Example, both, inputs
from ..uni import Uni, load
from ..writer import BATCH_SIZE
from . import suite
from .likelihood import bits_per_image, captioned, entries

FEWEST_SAMPLES = 20
# A task of `suite` -> what its marks are called in a report.
EDITS = {"edit_operation": "edit_operation_accuracy", "edit_label": "edit_class_accuracy"}


def balanced_prompts(n: int, data: DataSet = MNIST) -> list[tuple[int, ...]]:
    """`n` rows of classes, such as (digit, thickness, slant), for prompts.

    All are equally often among them if their number, 60 for digits and 80 for photos, divides `n`.
    """
    labels, *others = (len(words) for words in data.grammar.words.values())
    styles = list(itertools.product(*(range(size) for size in others)))
    # Ten labels in one style, then ten in the next.
    return [(i % labels, *styles[i // labels % len(styles)]) for i in range(n)]


def name_of(column: str) -> str:
    """How a column is called in a report: the label of a photo is its class."""
    return "class" if column == "label" else column


def evaluate_tokenizer(uni: Uni, judge: Judge, images: Tensor, labels: Tensor) -> dict:
    """Judge on originals and on reconstructions, their signal-to-noise ratio, codebook use."""
    codes = uni.encode(images)
    again = uni.decode(codes)
    # Peak signal-to-noise ratio: the peak of pixels in [0, 1] is 1.
    error = (again - images).square().mean()
    share, perplexity = codebook_usage(codes.cpu(), len(uni.tokenizer.embedding))
    return {
        **fraction("judge_accuracy", judge.classify(images) == labels),
        **fraction("reconstruction_accuracy", judge.classify(again) == labels),
        "reconstruction_psnr_db": float(-10 * error.log10()),
        "tokens_per_image": uni.tokenizer.grid**2,
        "codebook_used": share,
        "codebook_perplexity": perplexity,
    }


def evaluate_drawing(
    uni: Uni, judge: Judge, n: int, seed: int, data: DataSet = MNIST, **sampling
) -> dict:
    """Is the drawn label the asked one, and is its style? `n` balanced prompts."""
    asked = torch.tensor(balanced_prompts(n, data))  # [n, columns]
    texts = [data.grammar.caption(*row) for row in asked.tolist()]
    # Drawing takes a fixed number of steps; with guidance each pass has two rows an image.
    with timing.counted(uni) as passes:
        drawn = uni.draw(texts, seed=seed, **sampling)
    right = data.classes(drawn, judge.classify(drawn)) == asked  # [n, columns]
    report: dict = {}
    for column, (name, words) in enumerate(data.grammar.words.items()):
        # A class without a word, such as the colour of a grey photo, was not asked for.
        said = torch.tensor([bool(words[kind]) for kind in asked[:, column].tolist()])
        report |= fraction(f"draw_{name_of(name)}_accuracy", right[said, column])
    report["draw_passes"] = passes.rows / n  # rows: one row in one forward pass counts 1
    return report


def evaluate_variety(
    uni: Uni, judge: Judge, test: Images, n: int, seed: int, data: DataSet = MNIST, **sampling
) -> dict:
    """Fréchet distances to the test images that were not chosen.

    One is that of drawings from the captions of `n` chosen images, at most half of all. Another is
    that of their reconstructions: the floor, because no drawing of the decoder can hold more detail
    than the tokenizer keeps. The chosen images are not compared with: each reconstruction would
    find its own original there, and come out too near.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(test.labels), generator=generator)
    n = min(n, len(order) // 2)
    chosen, others = order[:n], order[n:]
    images, texts = captioned(test, chosen, data)
    drawn = uni.draw_traced(texts, seed=seed + 1, **sampling)
    # Distances to the same set are comparable only at the same number of samples.
    reference = judge.features(test.floats(others))
    distance = frechet_distance(judge.features(drawn.images), reference)
    floor = frechet_distance(judge.features(uni.decode(uni.encode(images))), reference)
    report = {"frechet_distance": distance, "frechet_floor": floor}
    report |= {"frechet_ratio": distance / floor, "frechet_n": n}
    # The same codes through the turbo painter, where the tokenizer has one; the floor stays.
    if has_turbo(uni):
        painted = uni.paint(drawn.codes, "turbo", seed=seed + 1, sketch=drawn.images)
        distance = frechet_distance(judge.features(painted), reference)
        report |= {"frechet_painted": distance, "frechet_ratio_painted": distance / floor}
    return report


def has_turbo(uni: Uni) -> bool:
    """Whether a turbo painter of the model's tokenizer is shipped."""
    name = f"{uni.info.get('tokenizer', '').removesuffix('-tokenizer')}-painter-turbo"
    return checkpoint.shipped(name)


def evaluate_describing(uni: Uni, images: Tensor, labels: Tensor, data: DataSet = MNIST) -> dict:
    """Is each word of the caption right, and is the whole caption right, word for word?"""
    truth = data.classes(images, labels).tolist()
    answers: list[str] = []
    with timing.counted(uni) as passes:
        for part in tqdm(images.split(BATCH_SIZE), desc="describing", leave=False):
            answers += uni.describe(part)
    hits, exact = [], []
    # A word that is missing reads as None, which no true class is.
    for answer, classes in zip(answers, truth):
        said = data.grammar.parse(answer)
        hits.append([word == true for word, true in zip(said, classes)])
        exact.append(answer == data.grammar.caption(*classes))
    report: dict = {}
    for name, right in zip(data.grammar.words, torch.tensor(hits).T):
        report |= fraction(f"caption_{name_of(name)}_accuracy", right)
    report |= fraction("caption_exact_accuracy", torch.tensor(exact))
    report["caption_passes"] = passes.rows / len(answers)
    return report


def evaluate_likelihood(
    uni: Uni, rival: Backbone | None, codes: Tensor, texts: list[str], samples: int, seed: int
) -> dict:
    """Bits per token of the model and of an autoregressive one (`rival`), by task and averaged."""
    own = bits_per_image(uni.backbone, uni.vocab, codes, texts, samples, seed)
    report = {"bits_n": len(codes), **entries(own)}
    if rival is None:
        return report | {"bits_per_token_ar": None}
    return report | entries(bits_per_image(rival, uni.vocab, codes, texts, samples, seed), "_ar")


def evaluate_editing(uni: Uni, judge: Judge, n: int, seed: int, data: DataSet) -> dict:
    """Exact edits done with the label kept, and photos turned into a class that is named.

    `n` of each. One time in ten the class that is named is the photo's own (`tasks/editing.py`).
    """
    pool = suite.unseen_pool(data.name)
    marked = suite.run(uni, judge, pool, n, seed, list(EDITS))
    report: dict = {}
    for task, name in EDITS.items():
        report |= fraction(name, torch.tensor(marked[task].right[""]))
    return report | compare_edits(uni, judge, pool, marked["edit_operation"].examples, seed)


def compare_edits(uni: Uni, judge: Judge, pool: Pool, asked: list[Example], seed: int) -> dict:
    """The same marks for the exact results of edits: as they are, and encoded and decoded.

    A model that draws by codes can hardly do better than the second (`_codes`). Where a turbo
    painter is shipped, it paints these codes, and those that the model writes (`_painted`).
    """
    images, instructions = inputs(pool, asked)
    exact = edits.apply(editing.operations(asked), torch.stack([image for (image,) in images]))
    codes = uni.encode(exact)
    ways = {"exact": exact, "codes": uni.decode(codes)}
    if has_turbo(uni):
        ways["codes_painted"] = uni.paint(codes, "turbo", seed=seed, sketch=ways["codes"])
        ways["painted"] = uni.edit(images, instructions, seed=seed, painter="turbo")
    report: dict = {}
    for end, results in ways.items():
        right = both(*editing.judge_operations(judge, pool, asked, results))
        report |= fraction(f"{EDITS['edit_operation']}_{end}", torch.tensor(right))
    return report


def evaluate_timing(uni: Uni, batch: int = 16, data: DataSet = MNIST, **sampling) -> dict:
    """Latency and throughput of drawing, with and without the prefix cache."""
    prompts = [data.grammar.caption(*row) for row in balanced_prompts(batch, data)]
    draw = partial(uni.draw_traced, prompts, **sampling)
    cached = timing.measure(draw, uni.device)
    uncached = timing.measure(partial(draw, use_cache=False), uni.device)
    forwards = draw().generation.forwards
    tokens = uni.tokenizer.grid**2
    return {
        "batch": batch,
        "device": str(uni.device),
        "cached": cached._asdict(),
        "uncached": uncached._asdict(),
        "cache_speedup": uncached.median / cached.median,
        "tokens_per_second": batch * tokens / cached.median,
        "tokens_per_forward": tokens / forwards,
    }


def meaning(info: dict) -> tuple:
    """What gives the ids of a model their meaning: its tokenizer and its text pieces."""
    return info.get("tokenizer_sha256"), info.get("text", "mnist-text")  # older JSONs name no text


@dataclass(frozen=True)
class Subject:
    """What is measured, and on what: at most `samples` test images, fewer where it takes long."""

    uni: Uni
    judge: Judge
    data: DataSet
    test: Images
    samples: int
    seed: int
    rival: bool = True  # also measure the likelihood of the shipped autoregressive model

    @property
    def drawings(self) -> int:
        return min(self.samples, 1000)

    def images(self) -> tuple[Tensor, Tensor]:
        """The first test images `[N, C, H, W]` and their labels `[N]`."""
        return self.test.floats(slice(0, self.samples)), self.test.labels[: self.samples]

    def likelihood(self) -> dict:
        images, texts = captioned(self.test, slice(0, min(self.samples, 2000)), self.data)
        # The autoregressive model of the same size, where it is shipped and reads the same ids.
        rival, name = None, f"{self.data.name}-ar"
        if self.rival and checkpoint.shipped(name):
            other, about = checkpoint.load_model(name, Backbone, self.uni.device)
            rival = other if meaning(about) == meaning(self.uni.info) else None
        codes = self.uni.encode(images)
        return evaluate_likelihood(self.uni, rival, codes, texts, 4, self.seed)


# What `only` names -> what measures it.
MEASURES: dict[str, Callable[[Subject], dict]] = {
    "tokenizer": lambda s: evaluate_tokenizer(s.uni, s.judge, *s.images()),
    "drawing": lambda s: evaluate_drawing(s.uni, s.judge, s.drawings, s.seed, s.data),
    "variety": lambda s: evaluate_variety(s.uni, s.judge, s.test, s.drawings, s.seed, s.data),
    "describing": lambda s: evaluate_describing(s.uni, *s.images(), s.data),
    "editing": lambda s: evaluate_editing(s.uni, s.judge, s.drawings, s.seed, s.data),
    "likelihood": Subject.likelihood,
    "timing": lambda s: {"timing": evaluate_timing(s.uni, data=s.data)},
}


def check_learned(info: dict, measure: str) -> None:
    """`NotLearned` for a measure of what the model with the JSON `info` never learned."""
    if measure == "describing":
        asking.check_learned(info, "describe")
    if measure == "editing" and not EDITS.keys() <= asking.learned_tasks(info):
        tasks = " and ".join(EDITS)
        raise asking.NotLearned(f"editing needs a model that learned {tasks}, such as cifar")


def evaluate(
    name: str | Path = "mnist",
    samples: int = 10_000,
    seed: int = 0,
    device: str = "cpu",
    only: Sequence[str] | None = None,
    report: dict | None = None,
) -> dict:
    """Measurements of one model on its test set as one flat dictionary, `timing` nested.

    All of `MEASURES`, or `only` the named ones. `samples` bounds how many test images are
    described; drawings use at most 1,000, the likelihood at most 2,000. If none are named, measures
    of what the model never learned are left out. A `report` that is given is filled on the way: if
    a measure fails, those before it are not lost. `ValueError` for less than `FEWEST_SAMPLES`, an
    unknown measure, or a named one of what was never learned.
    """
    if samples < FEWEST_SAMPLES:
        raise ValueError(f"{samples} samples say nothing; ask for at least {FEWEST_SAMPLES}")
    for measure in only or ():
        if measure not in MEASURES:
            raise ValueError(f"there is no measure {measure!r}; choose from {', '.join(MEASURES)}")
    # All that every measure needs is loaded once.
    uni = load(name, device)
    for measure in only or ():
        check_learned(uni.info, measure)
    data = data_set_of(uni.info)
    test = data.load("test")
    judge = load_judge(device, data.judge)
    subject = Subject(uni, judge, data, test, min(samples, len(test.labels)), seed)
    report = {} if report is None else report
    progress = tqdm([measure for measure in MEASURES if not only or measure in only])
    for measure in progress:
        progress.set_description(f"evaluating {measure}")
        try:
            check_learned(uni.info, measure)
        except asking.NotLearned as error:
            progress.write(f"{measure} is left out: {error}", file=sys.stderr)
            continue
        found = MEASURES[measure](subject)
        report |= {"model": str(name), "seed": seed, "device": device} | found
    return report

"""What does each way of decoding faster cost?

Draws and describes with many settings, repairs drafts, and times a pruned pass. Four short runs
from `mnist` are trained on the way: two with the confidence-aware (CAP) term, one as long without
it, and one that learns token editing alone. Forty minutes on one core; notebook 13 shows it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .. import layout
from ..commit import row_generators
from ..config import STRATEGIES, SamplingConfig
from ..datasets import captions, mnist
from ..evaluation import evaluate, likelihood
from ..extras import levenshtein
from ..extras.sprint import Sprint
from ..measure import timing
from ..measure.frechet import frechet_distance
from ..measure.intervals import Interval, Z, fraction
from ..measure.judge import Judge
from ..model import KVCache
from ..presets import get_preset
from ..sampler import Tokens, generate
from ..settings import changed
from ..uni import DESCRIBE, DRAW, Uni
from .runner import Experiment, Lab, Point, main

DRAWINGS, DECIDING, IMAGES, REPAIRS = 500, 1500, 1000, 300
SHORT = {
    "steps": 800,
    "batch_size": 32,
    "learning_rate": 1e-3,
    "warmup_steps": 20,
    "seed": 5,
    "bfloat16": True,
}
RUNS: dict[str, dict[str, Any]] = {
    "cap-2": {"confidence_weight": 2.0},
    "cap-10": {"confidence_weight": 10.0},
    "longer": {},  # without the term
    "edit": {"edit_noise": 0.2},
}
CAP = ("cap-2", "cap-10")
STEPS = (8, 6, 4, 3, 2)
PRUNED = (
    {"keep_image": 0.8},
    {"keep_image": 0.5},
    {"keep_text": 0.5, "keep_image": 0.5},
    {"keep_text": 0.25, "keep_image": 0.25},
)
ERRORS = {
    "none": [],
    "substitute": ["substitute"],
    "delete": ["delete"],
    "insert": ["insert"],
    "two": ["substitute", "insert"],
    "three": ["substitute", "delete", "insert"],
}


def load(lab: Lab, model: str) -> Uni:
    """A shipped model, or one of `RUNS`, which starts from `mnist`."""
    if model not in RUNS:
        return lab.load(model)
    preset = changed(get_preset("mnist"), **SHORT, **RUNS[model])
    return lab.load(lab.train(preset, model, start="mnist"))


def command(lab: Lab, model: str) -> str:
    """The command line that trains one of `RUNS`."""
    return load(lab, model).info["command"]


@cache
def captioned_images(count: int) -> tuple[Tensor, list[str]]:
    """The first test images `[count, C, H, W]` and their captions."""
    return likelihood.captioned(mnist.load_mnist("test"), slice(0, count))


@cache
def reference_features(judge: Judge) -> Tensor:
    """What the judge sees in the whole test set."""
    return judge.features(mnist.load_mnist("test").floats())


def decode(
    uni: Uni,
    prompts: list[list[int]],
    length: int,
    config: SamplingConfig,
    sprint: dict | None,
    tokens: Tokens,
    guidance: tuple[Tensor, ...] = (),
) -> tuple[Tensor, Tensor]:
    """Ids `[B, length]` after prompts of one length, and the passes each row needed `[B]`."""
    generators = row_generators(0, len(prompts))
    ids, passes = [], []
    for first in range(0, len(prompts), 250):
        rows = slice(first, first + 250)
        prompt, theirs = torch.tensor(prompts[rows]), generators[rows]
        cache = True if sprint is None else Sprint(uni.vocab.is_image(), **sprint)
        written = generate(uni.backbone, prompt, length, config, tokens, guidance, theirs, cache)
        ids.append(written.ids)
        passes.append(written.passes)
    return torch.cat(ids), torch.cat(passes).float()


def speed(tokens: Tensor, passes: Tensor) -> dict[str, float]:
    """Tokens per forward: all tokens over all passes; the interval is the delta method's."""
    ratio = float(tokens.sum() / passes.sum())
    spread = float((tokens - ratio * passes).std() / passes.mean()) / len(tokens) ** 0.5
    interval = Interval(ratio, ratio - Z * spread, ratio + Z * spread, len(tokens))
    return interval.entries("tokens_per_forward")


def draw(
    lab: Lab, model: str, family: str, settings: dict, sprint: dict | None, prompts: int
) -> dict[str, Any]:
    """Judge and pixels on balanced prompts, and how far the drawings are from test images."""
    uni, judge = load(lab, model), lab.judge()
    vocab, grid = uni.vocab, uni.tokenizer.grid
    asked = torch.tensor(evaluate.balanced_prompts(prompts))
    texts = [captions.caption(*row) for row in asked.tolist()]
    unconditional = torch.tensor([layout.draw_prompt(vocab, None, grid)])
    tokens = uni.tokens(vocab.is_image())
    begun = [layout.draw_prompt(vocab, text, grid) for text in texts]
    config = uni.sampling(DRAW, **settings)
    ids, passes = decode(uni, begun, grid**2, config, sprint, tokens, (unconditional,))
    drawn = uni.decode(vocab.codes(ids).view(-1, grid, grid))
    right = captions.caption_classes(drawn, judge.classify(drawn)) == asked  # [N, 3]
    return {
        "model": model,
        "family": family,
        "settings": settings,
        "sprint": sprint,
        **fraction("digit", right[:, 0]),
        **fraction("whole", right.all(1)),
        **speed(torch.full_like(passes, grid**2), passes),
        "frechet": frechet_distance(judge.features(drawn), reference_features(judge)),
    }


def describe(
    lab: Lab, model: str, family: str, settings: dict, sprint: dict | None, images: int
) -> dict[str, Any]:
    """Captions that are right word for word; the end of a caption counts as a token."""
    uni = load(lab, model)
    pictures, true = captioned_images(images)
    prompts = [layout.describe_prompt(uni.vocab, codes) for codes in uni.encode(pictures)]
    eos = uni.vocab.eos_id
    config = uni.sampling(DESCRIBE, **settings)
    tokens = uni.tokens(uni.vocab.is_text())
    ids, passes = decode(uni, prompts, uni.answer_length, config, sprint, tokens)
    written = [[token for token in row if token != eos] for row in ids.tolist()]
    hits = [uni.vocab.decode(row) == text for row, text in zip(written, true)]
    lengths = torch.tensor([len(row) + 1.0 for row in written])
    point = {"model": model, "family": family, "settings": settings, "sprint": sprint}
    return {**point, **fraction("whole", torch.tensor(hits)), **speed(lengths, passes)}


def spoil(tokens: list[int], kinds: list[str], pool: list[int], rng: random.Random) -> list[int]:
    """`tokens` with one error of each of the `kinds`, each at another place."""
    # From the back, so that the places before stay where they are.
    places = sorted(rng.sample(range(len(tokens)), len(kinds)), reverse=True)
    draft = list(tokens)
    for place, kind in zip(places, rng.sample(kinds, len(kinds))):
        other = rng.choice([token for token in pool if token != tokens[place]])
        changes = {"substitute": [other], "delete": [], "insert": [other, tokens[place]]}
        draft[place : place + 1] = changes[kind]
    return draft


def repair(lab: Lab, model: str, images: int) -> dict[str, Any]:
    """How often drafts with planted errors become right, and captions that `mnist` wrote."""
    uni, rng = load(lab, model), random.Random(0)
    pictures, true = captioned_images(images)
    vocab, codes = uni.vocab, uni.encode(pictures)
    prompt = torch.tensor([layout.describe_prompt(vocab, code) for code in codes])
    # The draft fills the rest of the block in which the prompt ends (`levenshtein.repair`).
    room = -prompt.shape[1] % uni.backbone.config.block_size
    pool = sorted({token for text in captions.all_captions() for token in vocab.encode(text)})
    answers = [vocab.encode(text) for text in true]

    def fill(rows: list[list[int]]) -> Tensor:
        """Rows with the end of text behind them, `[N, room]`."""
        return torch.tensor([(row + [vocab.eos_id] * room)[:room] for row in rows])

    drafts = {
        name: [spoil(row, kinds, pool, rng) for row in answers] for name, kinds in ERRORS.items()
    }
    drafts["written by mnist"] = list(map(vocab.encode, lab.load("mnist").describe_codes(codes)))
    target = fill(answers)  # [N, room]
    report = {}
    for name, rows in drafts.items():
        states = levenshtein.repair(uni.backbone, prompt, fill(rows), vocab)
        right = [(state == target).all(1) for state in states]
        shares = [float(hits.float().mean()) for hits in right]
        report[name] = {**fraction("right", right[-1]), "right_after_round": shares}
    return report


@torch.no_grad()
def sprint_speed(lab: Lab, lengths: list[int]) -> dict[str, list]:
    """How many times as fast a pass over a block is when half of its prefix is kept, eight rows.

    What choosing the half costs is left out.
    """
    backbone = lab.load("mnist").backbone
    config, speedup = backbone.config, []
    block = torch.zeros(8, config.block_size, dtype=torch.long)
    positions = torch.arange(config.block_size)[None]
    for length in lengths:
        seconds = []
        for kept in (length, length // 2):
            cached = KVCache(config.num_hidden_layers)
            for layer in range(config.num_hidden_layers):
                # keys and values [8, heads, kept, head_dim]
                shape = (8, config.num_key_value_heads, kept, config.head_dim)
                cached.extend(layer, torch.randn(shape), torch.randn(shape), keep=kept)

            def call(cached=cached):
                return backbone.hidden_states(block, None, positions, cached)

            seconds.append(timing.measure(call, "cpu", repeats=15).median)
        speedup.append(seconds[0] / seconds[1])
    return {"prompt": lengths, "speedup": speedup}


Setting = tuple[str, str, dict, dict | None]  # model, family, of the sampler, of SPRINT


def drawing_settings() -> Iterator[Setting]:
    """Everything else is as in `DRAW`."""
    cap = ((model, STEPS) for model in CAP)
    for model, choices in (("mnist", (16, *STEPS, 1)), *cap, ("longer", (8, 3, 2))):
        for steps in choices:
            yield model, "steps", {"steps": steps}, None
    yield "mnist-ar", "one by one", {"steps": 1}, None  # blocks of one code
    for steps in STEPS[1:]:
        yield "mnist", "temperature 0.7", {"steps": steps, "temperature": 0.7}, None
    yield "mnist", "threshold", {"steps": 16, "threshold": 0.05}, None
    for model in ("mnist", *CAP):
        for steps in (3, 2):
            yield model, "adaptive", {"steps": steps, "adaptive": True}, None
    for strategy in STRATEGIES[1:]:
        yield "mnist", "strategy", {"steps": 4, "strategy": strategy}, None
    for steps in (8, 4, 2, 1):
        yield "mnist-editor", "steps", {"steps": steps}, None
    for steps, passes in ((1, 1), (1, 4), (2, 2)):
        settings = {"steps": steps, "edit_threshold": 0.0, "post_steps": passes}
        yield "mnist-editor", "editing", settings, None
    for pruned in PRUNED:
        yield "mnist", "sprint", {}, pruned


def describing_settings() -> Iterator[Setting]:
    """Everything else is as in `DESCRIBE`."""
    for model in ("mnist", "cap-10", "mnist-editor"):
        for threshold in (1.0, 0.95, 0.85, 0.5, 0.0):
            yield model, "threshold", {"threshold": threshold}, None
    yield "longer", "threshold", {"threshold": 0.95}, None
    yield "mnist-editor", "quality", {"threshold": 0.7, "edit_threshold": 0.5}, None
    yield "mnist-editor", "speed", {"threshold": 0.5, "edit_threshold": 0.0}, None
    for strategy in STRATEGIES:
        settings = {"threshold": 1.0, "steps": 4, "strategy": strategy}
        yield "mnist", "strategy", settings, None
    for pruned in (None, *PRUNED):  # None keeps all
        yield "mnist", "sprint", {"threshold": 0.95, "adaptive": True}, pruned


def title(model: str, family: str, settings: dict, sprint: dict | None) -> str:
    """A setting in words, as a name among the results."""
    given = [f"{key}={value}" for key, value in {**settings, **(sprint or {})}.items()]
    return ", ".join([model, family, *given])


def deciding(model: str, family: str, settings: dict) -> bool:
    """Points that conclusions rest on are drawn more often."""
    if family in ("adaptive", "one by one"):
        return True
    return family == "steps" and model != "mnist-editor" and settings["steps"] in (8, 6, 4)


POINTS = [Point(("commands", model), command, {"model": model}) for model in RUNS]
for model, family, settings, sprint in drawing_settings():
    prompts = DECIDING if deciding(model, family, settings) else DRAWINGS
    values = dict(model=model, family=family, settings=settings, sprint=sprint, prompts=prompts)
    POINTS.append(Point(("drawing", title(model, family, settings, sprint)), draw, values))
for model, family, settings, sprint in describing_settings():
    values = dict(model=model, family=family, settings=settings, sprint=sprint, images=IMAGES)
    POINTS.append(Point(("describing", title(model, family, settings, sprint)), describe, values))
for model in ("mnist-editor", "edit"):
    POINTS.append(Point(("repair", model), repair, {"model": model, "images": REPAIRS}))
POINTS.append(Point(("sprint_speed",), sprint_speed, {"lengths": [64, 512, 2048, 8192]}))
EXPERIMENT = Experiment(__file__, __doc__, POINTS)

if __name__ == "__main__":
    main(EXPERIMENT)

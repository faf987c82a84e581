"""Compare ways to decode faster, and store the result in `data/weights/decoding.json`, which notebook 10 shows.

`python tests/compare_decoding.py` draws and describes with every setting below. Three short runs from the `mnist` weights come first,
unless `runs/` holds them: two with the confidence-aware (CAP) term, one that learns token editing alone. `mnist-editor` is shipped.
Half an hour on one core, training included; stages can be named:
`python tests/compare_decoding.py describing repair`.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .. import layout
from ..commit import STRATEGIES
from ..config import SamplingConfig
from ..datasets import captions, mnist
from ..evaluation import evaluate
from ..extras import levenshtein
from ..extras.sprint import Sprint
from ..files import RESULTS_DIR, atomic
from ..measure import timing
from ..measure.frechet import frechet_distance
from ..measure.intervals import Interval, Z, fraction
from ..measure.judge import load_judge
from ..model import KVCache
from ..presets import get_preset
from ..sampler import generate
from ..settings import changed
from ..training import train
from ..training.run import Run
from ..uni import ANSWER_LENGTH, DESCRIBE, DRAW, Uni
from ..uni import load as load_uni

DRAWINGS, DECIDING, IMAGES, REPAIRS = 500, 1500, 1000, 300


STORED = RESULTS_DIR / "decoding.json"


CAP = {"cap-2": dict(confidence_weight=2.0), "cap-10": dict(confidence_weight=10.0)}


RUNS = CAP | {"edit": dict(edit_noise=0.2)}


STEPS = (8, 6, 4, 3, 2)


EDITS = {"quality": dict(threshold=0.7, edit_threshold=0.5), "speed": dict(threshold=0.5, edit_threshold=0.0)}


# (model, family, settings of the sampler, settings of SPRINT); everything else as in `DRAW`.
DRAWING = [("mnist", "steps", dict(steps=s), None) for s in (16, *STEPS, 1)]


DRAWING += [(model, "steps", dict(steps=s), None) for model in CAP for s in STEPS]


DRAWING += [("mnist", "temperature 0.7", dict(steps=s, temperature=0.7), None) for s in STEPS[1:]]


DRAWING += [("mnist", "threshold", dict(steps=16, threshold=t), None) for t in (0.05,)]


DRAWING += [(model, "adaptive", dict(steps=s, adaptive=True), None) for model in ("mnist", *CAP) for s in (3, 2)]


DRAWING += [("mnist", "strategy", dict(steps=4, strategy=name), None) for name in STRATEGIES[1:]]


DRAWING += [("mnist-editor", "steps", dict(steps=s), None) for s in (8, 4, 2, 1)]


EDITED = ((1, 0.0, 1), (1, 0.0, 4), (2, 0.0, 2))


DRAWING += [("mnist-editor", "editing", dict(steps=s, edit_threshold=t, post_steps=p), None) for s, t, p in EDITED]


PRUNED = [dict(keep_image=0.8), dict(keep_image=0.5), dict(keep_text=0.5, keep_image=0.5), dict(keep_text=0.25, keep_image=0.25)]


DRAWING += [("mnist", "sprint", {}, changes) for changes in PRUNED]


# Everything else as in `DESCRIBE`.
DESCRIBING = [
    (model, "threshold", dict(threshold=t), None) for model in ("mnist", "cap-10", "mnist-editor") for t in (1.0, 0.95, 0.85, 0.5, 0.0)
]


DESCRIBING += [("mnist-editor", name, settings, None) for name, settings in EDITS.items()]


DESCRIBING += [("mnist", "strategy", dict(threshold=1.0, steps=4, strategy=name), None) for name in STRATEGIES]


DESCRIBING += [("mnist", "sprint", dict(threshold=0.95, adaptive=True), changes) for changes in (None, *PRUNED)]  # None keeps all


def load(name: str) -> Uni:
    """A shipped model, or one of `RUNS`, trained if it is not there yet."""
    if name not in RUNS:
        return load_uni(name)
    run, preset = Path("runs") / name, get_preset("mnist")
    if not (run / "weights.safetensors").exists():
        changes = dict(steps=800, batch_size=32, learning_rate=1e-3, warmup_steps=20, seed=5, bfloat16=True)
        train.train(changed(preset, **changes, **RUNS[name]), Run(run, resume=True), start="mnist")
    return load_uni(run)


def decode(uni: Uni, prompts: list[list[int]], length: int, config: SamplingConfig, pruned: dict | None, **call):
    """Ids `[B, length]` after prompts of one length, and the passes each row needed."""
    parts, source = [], torch.Generator().manual_seed(0)
    for part in torch.tensor(prompts).split(250):
        sprint = None if pruned is None else Sprint(uni.vocab.is_image(), **pruned)
        parts.append(generate(uni.backbone, part, length, config, uni.vocab.mask_id, generator=source, sprint=sprint, **call))
    return torch.cat([part.ids for part in parts]), torch.cat([part.passes for part in parts]).float()


def speed(tokens: torch.Tensor, passes: torch.Tensor) -> dict:
    """Tokens per forward: all tokens over all passes, with the interval of that ratio (delta method)."""
    ratio = float(tokens.sum() / passes.sum())
    spread = float((tokens - ratio * passes).std() / passes.mean()) / len(tokens) ** 0.5
    return Interval(ratio, ratio - Z * spread, ratio + Z * spread, len(tokens)).entries("tokens_per_forward")


def measure_drawing(uni: Uni, judge, real: torch.Tensor, n: int, settings: dict, pruned: dict | None) -> dict:
    """Judge and pixels on `n` balanced prompts, and how far the drawings are from test images (less varied ones are farther)."""
    asked, vocab, grid = torch.tensor(evaluate.balanced_prompts(n)), uni.vocab, uni.tokenizer.grid
    prompts = [layout.draw_prompt(vocab, captions.caption(*row), grid) for row in asked.tolist()]
    unconditional = torch.tensor([layout.draw_prompt(vocab, None, grid)])
    config = uni.sampling(DRAW, **settings)
    ids, passes = decode(uni, prompts, grid**2, config, pruned, allowed=vocab.is_image(), unconditional=unconditional)
    drawn = uni.decode(vocab.codes(ids).view(-1, grid, grid))
    right = torch.cat([judge.classify(drawn)[:, None], captions.attributes(drawn)], 1) == asked
    return {
        **fraction("digit", right[:, 0]),
        **fraction("whole", right.all(1)),
        **speed(torch.full_like(passes, grid**2), passes),
        "frechet": frechet_distance(judge.features(drawn), real),
    }


def measure_describing(uni: Uni, codes: torch.Tensor, true: list[str], settings: dict, pruned: dict | None) -> dict:
    """Whole captions that are right, word for word; the end of a caption counts as a token."""
    vocab = uni.vocab
    prompts = [layout.describe_prompt(vocab, c) for c in codes]
    config = uni.sampling(DESCRIBE, **settings)
    ids, passes = decode(uni, prompts, ANSWER_LENGTH, config, pruned, allowed=vocab.is_text(), eos_id=vocab.eos_id)
    texts = [[i for i in row if i != vocab.eos_id] for row in ids.tolist()]
    hits = torch.tensor([vocab.decode(text) == t for text, t in zip(texts, true, strict=True)])
    return {**fraction("whole", hits), **speed(torch.tensor([len(t) + 1.0 for t in texts]), passes)}


def spoil(tokens: list[int], kinds: list[str], pool: list[int], rng: random.Random) -> list[int]:
    """`tokens` with one error of each of the `kinds`, at places of their own; the result always differs."""
    places = sorted(rng.sample(range(len(tokens)), len(kinds)), reverse=True)
    draft = list(tokens)
    for place, kind in zip(places, rng.sample(kinds, len(kinds)), strict=True):
        other = rng.choice([t for t in pool if t != tokens[place]])
        draft[place : place + 1] = {"substitute": [other], "delete": [], "insert": [other, tokens[place]]}[kind]
    return draft


def measure_repair(uni: Uni, codes: torch.Tensor, true: list[str], written: list[str]) -> dict:
    """How often drafts with planted errors, and captions that the model `mnist` wrote, become the right caption."""
    vocab, rng = uni.vocab, random.Random(0)
    answers = [vocab.encode(t) for t in true]
    pool = sorted({token for text in captions.all_captions() for token in vocab.encode(text)})
    prompt = torch.tensor([layout.describe_prompt(vocab, c) for c in codes])
    room = -prompt.shape[1] % uni.backbone.config.block_size
    cases = {"none": [], "substitute": ["substitute"], "delete": ["delete"], "insert": ["insert"]}
    cases |= {"two": ["substitute", "insert"], "three": ["substitute", "delete", "insert"], "written by mnist": None}
    report = {}
    for name, kinds in cases.items():
        drafts = [vocab.encode(t) for t in written] if kinds is None else [spoil(a, kinds, pool, rng) for a in answers]
        ids, target = (torch.tensor([(row + [vocab.eos_id] * room)[:room] for row in rows]) for rows in (drafts, answers))
        states = levenshtein.repair(uni.backbone, prompt, ids, vocab)
        report[name] = {
            **fraction("right", (states[-1] == target).all(1)),
            "right_after_round": [float((state == target).all(1).float().mean()) for state in states],
        }
    return report


@torch.no_grad()
def sprint_speed(uni: Uni, lengths=(64, 512, 2048, 8192)) -> dict:
    """How many times as fast a pass over a block is when half of a prefix is kept, eight rows; what choosing the half costs is left out."""
    config, report = uni.backbone.config, {"prompt": list(lengths), "speedup": []}
    block, positions = torch.zeros(8, config.block_size, dtype=torch.long), torch.arange(config.block_size)[None]
    for length in lengths:
        seconds = []
        for kept in (length, length // 2):
            cache = KVCache(config.num_hidden_layers)
            for layer in range(config.num_hidden_layers):
                prefix = torch.randn(2, 8, config.num_key_value_heads, kept, config.head_dim)
                cache.extend(layer, *prefix, keep=kept)
            call = lambda cache=cache: uni.backbone.hidden_states(block, None, positions, cache)  # noqa: E731
            seconds.append(timing.measure(call, "cpu", repeats=15).median)
        report["speedup"].append(seconds[0] / seconds[1])
    return report


def store(report: dict) -> None:
    with atomic(STORED) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    stages = sys.argv[1:] or ["drawing", "describing", "repair", "speed"]
    judge = load_judge()
    test = mnist.load_mnist("test")
    images, labels = test.floats(slice(0, IMAGES)), test.labels[:IMAGES]
    true = captions.describe_pixels(images, labels)
    models = {name: load(name) for name in ("mnist", "mnist-editor", *RUNS)}
    codes = models["mnist"].encode(images)
    report = json.loads(STORED.read_text()) if STORED.exists() else {}
    report["commands"] = {name: models[name].info["command"] for name in RUNS}
    real = judge.features(test.floats()) if "drawing" in stages else None
    for stage in [stage for stage in ("drawing", "describing") if stage in stages]:
        known, report[stage] = report.get(stage, []), []
        for model, family, settings, pruned in tqdm(DRAWING if stage == "drawing" else DESCRIBING):
            point = {"model": model, "family": family, "settings": settings, "sprint": pruned}
            old = [p for p in known if {k: p[k] for k in point} == point]  # an interrupted run goes on
            if not old and stage == "drawing":
                deciding = family == "adaptive" or family == "steps" and model != "mnist-editor" and settings["steps"] in (8, 6, 4)
                n = DECIDING if deciding else DRAWINGS
                old = [point | measure_drawing(models[model], judge, real, n, settings, pruned)]
            elif not old:
                old = [point | measure_describing(models[model], codes, true, settings, pruned)]
            report[stage] += old
            print(json.dumps(old[0]), flush=True)
            store({**report, stage: report[stage] + [p for p in known if p not in report[stage]]})
    if "repair" in stages:
        some, texts = codes[:REPAIRS], true[:REPAIRS]
        written = models["mnist"].describe_codes(some)
        report["repair"] = {model: measure_repair(models[model], some, texts, written) for model in ("mnist-editor", "edit")}
        print(json.dumps(report["repair"]))
    if "speed" in stages:
        report["sprint_speed"] = sprint_speed(models["mnist"])
        print(report["sprint_speed"])
    store(report)

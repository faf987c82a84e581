"""The shipped models say and draw, and a few runs lose, what the golden file holds.

The file was stored before the package was rearranged. It holds short digests of tokens and texts,
and losses in digits. Sampled drawings were stored again when every row got its own generator.
`python tests/test_golden.py` stores a new one, after a change that is meant to change results.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import astuple
from pathlib import Path
from random import Random

import pytest
import torch
from torch import Tensor

import minillada
from minillada import checkpoint
from minillada.datasets import captions
from minillada.datasets.mnist import Images, load_mnist
from minillada.datasets.pool import Pool, mnist_pool
from minillada.datasets.table import MNIST
from minillada.evaluation.evaluate import balanced_prompts
from minillada.presets import get_preset
from minillada.settings import changed
from minillada.tasks.base import Source, inputs
from minillada.tasks.dropping import drop
from minillada.tasks.table import TASKS
from minillada.training import recipes, train
from minillada.training.loop import fit
from minillada.uni import Uni
from minillada.vocab import load_vocabulary
from minillada.vq import ImageTokenizer

GOLDEN = Path(__file__).parent / "golden.json"
COUNT, EXAMPLES, STEPS = 200, 50, 3
# The place of a task in this list seeds its examples.
EXAMPLES_OF = (
    "draw", "describe", "digit", "thickness", "slant", "parity", "arithmetic", "compare",
    "edit_operation", "edit_turn", "edit_digit", "multi_reference",
    "sum_direct", "sum_thinking", "count_on", "repeat", "go_on", "interleave",
)  # fmt: skip
MIX = dict(mixture=(("draw", 1.0), ("describe", 1.0)), varied=True)
VIEWS = dict(
    views=2, complementary=True, mask_rate=(0.1, 0.9), objective="count", confidence_weight=2.0
)
# name -> preset and what is changed of its training settings
RUNS = {
    "mnist-judge": ("mnist-judge", {}),
    "mnist-uni-tokenizer": ("mnist-uni-tokenizer", {}),
    "mnist-uni-drills": ("mnist-uni-drills", {}),
    "mnist-cpu": ("mnist-cpu", MIX),
    "mnist-cpu, views": ("mnist-cpu", MIX | VIEWS),
    "mnist-cpu, packed": ("mnist-cpu", MIX | dict(pack_length=160, objective="uniform")),
    "mnist-editor": ("mnist-editor", MIX),
    "mnist-wsd": ("mnist-wsd", MIX | dict(mask_noise=0.1)),
    "mnist-moe": ("mnist-moe", MIX),
}


def digest(*parts: str | Tensor) -> str:
    """Six hexadecimal digits that stand for texts and codes."""
    total = hashlib.sha256()
    for part in parts:
        text = json.dumps(part.tolist()) if isinstance(part, Tensor) else part
        total.update((text + "\n").encode())
    return total.hexdigest()[:6]


@functools.cache
def pool() -> Pool:
    return mnist_pool(load_mnist("test"))


@functools.cache
def loaded(name: str) -> Uni:
    return minillada.load(name)


def first_drawings(**sampling) -> list[str]:
    prompts = [captions.caption(*row) for row in balanced_prompts(COUNT)]
    return [digest(codes) for codes in loaded("mnist").draw_traced(prompts, **sampling).codes]


def first_descriptions() -> list[str]:
    return [
        digest(text)
        for text in loaded("mnist").describe(load_mnist("test").floats(slice(0, COUNT)))
    ]


def examples_of(task: str) -> tuple[list, list]:
    """Plain examples of a task, and varied ones of which some were dropped for guidance."""
    rng = Random(EXAMPLES_OF.index(task))
    make = TASKS[task].make
    plain = [make(Source(pool(), rng)) for _ in range(EXAMPLES)]
    varied = [drop(make(Source(pool(), rng, varied=True)), rng, 0.3) for _ in range(EXAMPLES)]
    return plain, varied


def digest_of_examples(examples: list) -> str:
    return digest(*[json.dumps([e.user, e.response, e.given], default=astuple) for e in examples])


def answers(task: str) -> list[str]:
    """What `mnist-uni` makes of the plain examples of a task, without chance."""
    uni, asked = loaded("mnist-uni"), examples_of(task)[0]
    texts, system = [example.user[-1] for example in asked], asked[0].system
    if system == "draw":
        return [digest(codes) for codes in uni.draw_traced(texts, temperature=0.0).codes]
    if system == "describe":
        return [digest(text) for text in uni.answer(*inputs(pool(), asked))]
    if system == "edit":
        images, instructions = inputs(pool(), asked)
        return [digest(codes) for codes in uni.edit_traced(uni.shown(images), instructions).codes]
    if system == "think":
        said, images = uni.think_and_draw(texts, temperature=0.0)
        return [digest(text, uni.encode(image[None])[0]) for text, image in zip(said, images)]
    stories = uni.interleave_all(texts, temperature=0.0)
    return [
        digest(*[p if isinstance(p, str) else uni.encode(p[None])[0] for p in story])
        for story in stories
    ]


def losses(run: str) -> list[float]:
    """The losses of the first steps of a run on 2,000 images."""
    name, changes = RUNS[run]
    preset = get_preset(name)
    preset = changed(preset, batch_size=16, **changes)
    test = load_mnist("test")
    images = Images(test.pixels[:2000], test.labels[:2000])
    if preset.kind == "backbone":
        tokenizer, _ = checkpoint.load_model(preset.tokenizer, ImageTokenizer)
        vocab = load_vocabulary(tokenizer.config.codebook_size, preset.text)
        module = train.new_model(preset, "cpu", tokenizer)
        loss = recipes.backbone_loss(module, tokenizer, vocab, mnist_pool(images), preset)
    elif preset.kind == "tokenizer":
        module = train.new_model(preset, "cpu")
        vocab = load_vocabulary(preset.model.codebook_size)
        loss = recipes.tokenizer_loss(module, images, MNIST, vocab, preset.training)
    else:
        module = train.new_model(preset, "cpu")
        loss = recipes.judge_loss(module, images, preset.training)
    return [
        round(record["loss"], 4) for record in fit(module, loss, preset.training, stop_after=STEPS)
    ]


def everything() -> dict:
    """All that the golden file holds."""
    golden = {
        "draw_mnist": first_drawings(temperature=0.0),
        "draw_mnist_sampled": first_drawings(seed=3),
        "describe_mnist": first_descriptions(),
        "losses": {run: losses(run) for run in RUNS},
    }
    for task in EXAMPLES_OF:
        plain, varied = examples_of(task)
        golden[f"examples_{task}"] = [digest_of_examples(plain), digest_of_examples(varied)]
        golden[f"answers_{task}"] = answers(task)
    return golden


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_drawings(golden):
    assert first_drawings(temperature=0.0) == golden["draw_mnist"]
    assert first_drawings(seed=3) == golden["draw_mnist_sampled"]


def test_descriptions(golden):
    assert first_descriptions() == golden["describe_mnist"]


@pytest.mark.parametrize("task", EXAMPLES_OF)
def test_examples(golden, task):
    plain, varied = examples_of(task)
    assert [digest_of_examples(plain), digest_of_examples(varied)] == golden[f"examples_{task}"]


@pytest.mark.parametrize("task", EXAMPLES_OF)
def test_answers(golden, task):
    assert answers(task) == golden[f"answers_{task}"]


@pytest.mark.parametrize("run", RUNS)
def test_losses(golden, run):
    assert losses(run) == pytest.approx(golden["losses"][run], abs=2e-3)


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.write_text(json.dumps(everything(), indent=0) + "\n", encoding="utf-8")

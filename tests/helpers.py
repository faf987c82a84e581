"""Tiny random models and data that several test files share, small enough for one core."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import symtable
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from hypothesis import settings
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from minillada import checkpoint
from minillada.config import JudgeConfig, ModelConfig, TokenizerConfig
from minillada.datasets import mnist
from minillada.datasets.mnist import Images, load_mnist
from minillada.datasets.pool import mnist_pool
from minillada.measure.judge import Judge
from minillada.model import Backbone
from minillada.settings import to_dict
from minillada.tasks.numbers import NUMBERS
from minillada.training import train
from minillada.uni import Uni
from minillada.vocab import SPECIAL_TOKENS, Vocabulary, load_vocabulary, train_bpe
from minillada.vq import ImageTokenizer

MASK, EOS = 0, 1  # ids used with `tiny_backbone`, which has no text attached

# Reproducible, no time limit (the machine may be busy), no examples stored on disk.
few = settings(max_examples=15, deadline=None, derandomize=True, database=None)
many = settings(max_examples=60, deadline=None, derandomize=True, database=None)

needs_fork = pytest.mark.skipif(
    sys.platform in ("win32", "darwin"), reason="workers are forks, unsafe on this system"
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbers_in(text: str) -> list[int]:
    """The numbers that a text says, as words or as numerals."""
    found = []
    for word in re.findall(r"\w+", text):
        if word in NUMBERS:
            found.append(NUMBERS.index(word))
        elif word.isdigit() and word != "90":  # the degrees of a quarter turn
            found.append(int(word))
    return found


def tiny_config(**changes) -> ModelConfig:
    values = dict(
        vocab_size=24, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, intermediate_size=24, initializer_range=0.4,
        max_position_embeddings=64, block_size=4, rope_theta=100.0,
    )  # fmt: skip
    return ModelConfig(**values | changes)


def storable(module):
    """The module in evaluation mode, with values that a weights file (float16) holds exactly."""
    return module.half().float().eval()


def tiny_backbone(seed: int = 0, **changes) -> Backbone:
    """A random backbone with confident, varied predictions.

    Norm weights are random, too, so that a skipped norm shows.
    """
    torch.manual_seed(seed)
    backbone = Backbone(tiny_config(**changes))
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    return storable(backbone)


def random_ids(batch: int, length: int, vocab_size: int = 24, seed: int = 0) -> Tensor:
    """Ids `[batch, length]` without mask and end of text."""
    return torch.randint(2, vocab_size, (batch, length), generator=generator(seed))


@functools.cache
def tiny_vocab(codebook_size: int = 16) -> Vocabulary:
    """Bytes, special tokens and three merges, then the image codes."""
    return Vocabulary(
        train_bpe(["the thin thing"] * 9, 256 + len(SPECIAL_TOKENS) + 3), codebook_size
    )


def tiny_tokenizer(seed: int = 0, **changes) -> ImageTokenizer:
    torch.manual_seed(seed)
    values = dict(image_size=32, patch_size=8, codebook_size=16, code_dim=8, width=8)
    return storable(ImageTokenizer(TokenizerConfig(**values | changes)))


def tiny_uni(seed: int = 0, block_size: int = 16, channels: int = 1) -> Uni:
    """32 px images, 16 codes an image, and the shipped text pieces."""
    tokenizer = tiny_tokenizer(seed, channels=channels)
    vocab = load_vocabulary(tokenizer.config.codebook_size)
    backbone = tiny_backbone(
        seed, vocab_size=vocab.size, block_size=block_size, max_position_embeddings=128
    )
    return Uni(backbone, tokenizer, vocab).eval()


def save_tiny_uni(folder: Path, channels: int = 1, dataset: str = "mnist") -> Path:
    """Weights of `tiny_uni` as the command line expects them; returns the run's folder."""
    uni = tiny_uni(channels=channels)
    checkpoint.save_model(
        folder / "tokenizer" / "weights.safetensors",
        uni.tokenizer,
        describe("tokenizer", uni.tokenizer),
    )
    about = json.loads((folder / "tokenizer" / "weights.json").read_text())
    extra = {"tokenizer": str(folder / "tokenizer"), "tokenizer_sha256": about["sha256"]}
    extra["dataset"] = dataset
    checkpoint.save_model(
        folder / "run" / "weights.safetensors",
        uni.backbone,
        describe("backbone", uni.backbone) | extra,
    )
    return folder / "run"


def describe(kind: str, module) -> dict:
    return {
        "kind": kind,
        "config": to_dict(module.config),
        "parameters": sum(p.numel() for p in module.parameters()),
    }


def use_digits(monkeypatch, images: Images) -> None:
    """Train on these digits instead of the 60,000; their columns are measured, not read."""
    monkeypatch.setattr(mnist, "load_mnist", lambda split="train", root=None: images)
    monkeypatch.setattr(train, "stored_pool", lambda data, split: mnist_pool(images))


def tiny_judge(seed: int = 0) -> Judge:
    torch.manual_seed(seed)
    return storable(Judge(JudgeConfig(width=4, features=6)))


@functools.cache
def mnist_test_images() -> Images:
    """The 10,000 real test images."""
    return load_mnist("test")


def real_images(count: int = 64) -> Images:
    """The first few test images, as a data set of their own."""
    images = mnist_test_images()
    return Images(images.pixels[:count], images.labels[:count])


class Kernels(TorchDispatchMode):
    """In this context, the types of what PyTorch's own code multiplies are written down."""

    def __init__(self) -> None:
        super().__init__()
        self.types: list[torch.dtype] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in ("mm", "bmm", "addmm", "baddbmm", "convolution"):
            self.types += [part.dtype for part in args if isinstance(part, Tensor)]
        return function(*args, **(kwargs or {}))


class Names(NamedTuple):
    """Names of the notebook that a code cell gives a meaning to, and those that it looks up."""

    bound: set[str]
    read: set[str]


def names_of_cell(source: str) -> Names:
    """What a code cell binds and reads on the level of the notebook; names in functions are not."""
    source = re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)
    top, *inner = tables_of(symtable.symtable(source, "cell", "exec"))
    names = Names(set(), set())
    for symbol in top.get_symbols():
        if symbol.is_assigned() or symbol.is_imported():
            names.bound.add(symbol.get_name())
        if symbol.is_referenced():
            names.read.add(symbol.get_name())
    for table in inner:
        for symbol in table.get_symbols():
            if symbol.is_global() and symbol.is_referenced():
                names.read.add(symbol.get_name())
    return names


def tables_of(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    """A table of names, and those of all functions and classes in it."""
    yield table
    for child in table.get_children():
        yield from tables_of(child)


def needed_cells(sources: list[str], wanted: list[int]) -> list[int]:
    """Places of the wanted code cells, and of those above that bind what they read, in order."""
    names, todo = [names_of_cell(source) for source in sources], list(wanted)
    kept: set[int] = set()
    while todo:
        place = todo.pop()
        kept.add(place)
        for name in names[place].read - names[place].bound:
            # The cell above that says last what the name means.
            above = [k for k in range(place) if name in names[k].bound]
            if above and above[-1] not in kept:
                todo.append(above[-1])
    return sorted(kept)


def script(place: str) -> ModuleType:
    """A file of the repository that is no part of the package, as a module."""
    path = Path(__file__).resolve().parent.parent / place
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

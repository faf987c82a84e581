"""One training loop for judge, tokenizer and backbone, resumable to the bit, and the recipe each preset follows.

Notable choices
- Every random number of step n comes from a generator seeded with (seed, n). Nothing depends on what was drawn before,
  so a run that is stopped after any step and resumed ends with bit-identical weights, without storing generator states.
- The optimiser is AdamW, or Muon for the matrices of the layers, with linear warm-up and cosine decay; gradients are clipped by norm.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import checkpoint
from ..config import ModelConfig, Preset
from ..datasets import mnist
from ..extras import transfer
from ..extras.conversion import check_block_schedule
from ..files import atomic
from ..measure.judge import Judge
from ..model import Backbone
from ..presets import get_preset
from ..settings import settings, to_dict
from ..training.loop import fit
from ..training.recipes import backbone_loss, bpe_corpus, judge_loss, tokenizer_loss
from ..vocab import load_vocabulary, train_bpe
from ..vq import ImageTokenizer

MODULES: dict[str, Any] = {"judge": Judge, "tokenizer": ImageTokenizer, "backbone": Backbone}


def new_model(preset: Preset, device: str | torch.device, tokenizer: ImageTokenizer | None = None) -> nn.Module:
    """An untrained model of a preset, seeded; a backbone's image rows start from the tokenizer's codebook."""
    torch.manual_seed(preset.training.seed)
    module = checkpoint.build(MODULES[preset.kind], to_dict(preset.model))
    if isinstance(preset.model, ModelConfig) and tokenizer is not None:
        offset = preset.model.vocab_size - tokenizer.config.codebook_size
        module.start_image_rows(tokenizer.codebook.embedding.cpu(), offset)
    # Convolutions run up to twice as fast in this memory layout on CPUs.
    return module.to(device, memory_format=torch.channels_last)


def command(preset: Preset, tokenizer_weights: str | None, start: str | None) -> str:
    """The command line that repeats this run, for the JSON beside the weights."""
    shipped = get_preset(preset.name)
    parts = ["minillada train", preset.name]
    original = settings(shipped)
    for name, value in settings(preset).items():
        if value == original[name]:
            continue
        if name in ("steps", "learning_rate", "seed"):
            parts.append(f"--{name.replace('_', '-')} {value}")
        elif name == "bfloat16":
            parts.append("--bf16")
        else:
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            parts.append(f"--set {name}={text}")
    parts += [f"--tokenizer {tokenizer_weights}"] if tokenizer_weights else []
    parts += [f"--start {start}"] if start else []
    return " ".join(parts)


def train(
    preset: Preset,
    out: Path,
    device: str = "cpu",
    resume: bool = False,
    stop_after: int | None = None,
    tokenizer_weights: str | None = None,
    start: str | None = None,
    snapshot_every: int | None = None,
) -> tuple[nn.Module | None, list[dict]]:
    """Train a preset on MNIST into the folder `out`; returns the module and the records of `fit`.

    `start` names weights to start from instead of random ones: a second round of the same recipe, or another block size.
    `snapshot_every` so many steps the weights are kept as `step-NNNNNN.safetensors` too, to be looked at or merged later.
    Writes `weights.safetensors` and its JSON when the run is complete (text pieces: `text.json`, and no module).
    """
    if preset.kind == "text":
        with atomic(out / "text.json") as temporary:
            train_bpe(bpe_corpus(preset.model.every_task), preset.model.vocab_size, preset.model.max_grid).save(str(temporary))
        return None, []
    check_block_schedule(preset)
    images = mnist.load_mnist("train")
    info = {
        "preset": preset.name,
        "kind": preset.kind,
        "command": command(preset, tokenizer_weights, start),
        "config": to_dict(preset.model),
        "training": to_dict(preset.training),
    }
    tokenizer = None
    if preset.kind == "backbone":
        tokenizer, tokenizer_info = checkpoint.load_model(tokenizer_weights or preset.tokenizer, ImageTokenizer, device)
        info |= {"tokenizer": tokenizer_weights or preset.tokenizer, "tokenizer_sha256": tokenizer_info["sha256"], "text": preset.text}
        vocab = load_vocabulary(tokenizer.config.codebook_size, preset.text)
    module = new_model(preset, device, tokenizer)
    if start:
        other, start_info = checkpoint.load_model(start, MODULES[preset.kind])
        tensors = transfer.grown(other.state_dict(), module.state_dict())
        if preset.kind == "backbone" and start_info["tokenizer_sha256"] != tokenizer_info["sha256"]:
            theirs, _ = checkpoint.load_model(start_info["tokenizer"], ImageTokenizer)
            vocabs = load_vocabulary(theirs.config.codebook_size, start_info.get("text", "mnist-text")), vocab
            codebooks = theirs.codebook.embedding, tokenizer.codebook.embedding.cpu()
            tensors = transfer.translated(tensors, {k: v.cpu() for k, v in module.state_dict().items()}, vocabs, codebooks)
        checkpoint.load_tensors(module, tensors, checkpoint.resolve(start))
        info["start"] = {key: start_info[key] for key in ("command", "training", "start") if key in start_info}
    if preset.kind == "judge":
        loss = judge_loss(module, images, preset.training)
    elif preset.kind == "tokenizer":
        loss = tokenizer_loss(module, images, load_vocabulary(preset.model.codebook_size), preset.training)
    else:
        loss = backbone_loss(module, tokenizer, vocab, images, preset)
    began = time.perf_counter()

    def snapshot(step: int) -> None:
        if snapshot_every and step % snapshot_every == 0:
            checkpoint.save_model(checkpoint.snapshot_path(out, step), module, info | {"step": step})

    records = fit(module, loss, preset.training, out, resume, stop_after, description=preset.name, after_step=snapshot)
    weights = out / "weights.safetensors"
    complete = stop_after is None or stop_after >= preset.training.steps
    if complete and (records or not weights.exists()):  # resuming a finished run leaves its JSON, with its time, as it was
        info |= {
            "parameters": sum(p.numel() for p in module.parameters()),
            "seconds": round(time.perf_counter() - began),
            "data_md5": mnist.MNIST_MD5,
        }
        checkpoint.save_model(weights, module, info)
    return module, records

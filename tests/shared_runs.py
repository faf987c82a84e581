"""Tiny runs that several processes share: what each process does, and how they start."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from helpers import real_images, tiny_tokenizer
from tiny_runs import BACKBONE, TOKENIZER

from minillada.config import Preset
from minillada.datasets.pool import mnist_pool
from minillada.datasets.table import MNIST
from minillada.settings import changed
from minillada.training import recipes, train
from minillada.training.distributed import Processes, joined
from minillada.training.loop import fit
from minillada.training.run import Run
from minillada.vocab import load_vocabulary

# Nine rows of four tasks: no number of processes divides them, and some shapes have few rows.
TASKS = (("draw", 1.0), ("describe", 1.0), ("digit", 1.0), ("sum_thinking", 1.0))
DENSE = changed(BACKBONE, batch_size=9, mixture=TASKS, max_position_embeddings=256)
EXPERTS = dict(num_experts=4, n_group=2, num_experts_per_tok=2, moe_intermediate_size=8)
PRESETS = {
    "dense": DENSE,
    "experts": changed(
        DENSE, **EXPERTS, objective="reweighted", views=2, complementary=True, balance_rate=0.05
    ),
    "errors": changed(DENSE, objective="count", edit_noise=0.2, planted_errors=0.3),
    "packed": changed(
        DENSE, pack_length=240, objective="uniform", activation_checkpointing=True, text_weight=3.0
    ),
    "muon": changed(DENSE, optimizer="muon"),
}
# In the third step the codebook starts from features; from then on it moves.
CODES = changed(
    TOKENIZER, batch_size=8, unquantised_steps=2, operation_share=0.5, learning_rate=3e-4
)
TOKENIZERS = {"codes": CODES, "codes-alone": changed(CODES, alignment_weight=0.0)}


def backbone_run(preset: Preset):
    """A backbone with its first weights, and its loss."""
    tokenizer, vocab = tiny_tokenizer(), load_vocabulary(16)
    module = train.new_model(preset, "cpu", tokenizer)
    pool = mnist_pool(real_images(300))
    return module, recipes.backbone_loss(module, tokenizer, vocab, pool, preset)


def tokenizer_run(preset: Preset):
    """An image tokenizer with its first weights, and its loss."""
    module = train.new_model(preset, "cpu")
    text = load_vocabulary(16)
    return module, recipes.tokenizer_loss(module, real_images(40), MNIST, text, preset.training)


def trained(
    preset: Preset,
    folder: Path,
    processes: Processes,
    stop_after: int | None = None,
    resume: bool = False,
) -> list[dict]:
    """Train a preset into a folder, from the first weights of its seed; the records."""
    module, loss = (tokenizer_run if preset.kind == "tokenizer" else backbone_run)(preset)
    run = Run(folder, resume=resume, save_every=3, processes=processes)
    return fit(module, loss, preset.training, run, stop_after)


@contextmanager
def process(rank: int, count: int, port: int) -> Iterator[Processes]:
    """What torchrun would have set before it starts this process."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    with joined("ddp", "cpu") as processes:
        yield processes


def work(rank: int, count: int, port: int, jobs: list[tuple], results: Path) -> None:
    """What one process does: every job, a folder and a preset with a way to share it."""
    records = {}
    with process(rank, count, port) as processes:  # joining again would need another port
        for folder, preset, sharding, more in jobs:
            how = replace(processes, sharding=sharding)
            records[folder.name] = trained(preset, folder, how, **more)
    torch.save(records, results / f"records-{rank}.pt")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(function, count: int, *arguments: object) -> None:
    """Run `function(rank, count, port, …)` in processes; an exception if one of them fails."""
    # A copy of this process need not import PyTorch again; with CUDA it would not work.
    copied = sys.platform == "linux" and not torch.cuda.is_available()
    torch.multiprocessing.start_processes(
        function,
        (count, free_port(), *arguments),
        count,
        start_method="fork" if copied else "spawn",
    )

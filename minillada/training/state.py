"""What a stopped run needs to go on."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import checkpoint
from ..config import TrainingConfig
from ..files import atomic
from ..settings import to_dict


def open_log(out: Path, start: int):
    """`metrics.jsonl` for appending, cut back to the steps before `start` so that a resumed run logs each step once."""
    path = out / "metrics.jsonl"
    kept = []
    if start and path.exists():
        kept = [line for line in path.read_text().splitlines() if line.endswith("}") and json.loads(line)["step"] < start]
    with atomic(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))
    return open(path, "a")


def save_state(out: Path, module: nn.Module, optimizers: list[torch.optim.Optimizer], step: int, config: TrainingConfig) -> None:
    """Model, optimiser moments and step in one atomic file."""
    tensors = {f"model.{k}": v for k, v in module.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{index}.{k}": v for k, v in moments.items()}
    metadata = {"step": str(step), "training": json.dumps(to_dict(config))}
    checkpoint.save_tensors(out / "state.safetensors", tensors, metadata)


def load_state(out: Path, module: nn.Module, optimizers: list[torch.optim.Optimizer], config: TrainingConfig) -> int:
    """Restore what `save_state` wrote; returns the step to continue with."""
    path = out / "state.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"nothing to resume in {out}; start without --resume")
    tensors, metadata = checkpoint.read_tensors(path)
    if metadata.get("training") != json.dumps(to_dict(config)):
        raise ValueError(f"{path} belongs to a run with other training settings; resume with the settings it was started with")
    model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    checkpoint.load_tensors(module, model, path)
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, index, name = key.split(".")
            states[int(number)].setdefault(int(index), {})[name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])

"""What a stopped run needs to go on: weights, the averages of the optimisers, and the step.

Notable choices
- All of it is one file, written atomically, so a crash leaves the last complete state.
- A state belongs to one run. It holds the story of that run: everything that decides what the run
  computes. It is compared before the run goes on, so no run changes its settings half-way.
- A digest of all bytes stands in the file. A state that was damaged on disk is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .. import checkpoint

STATE = "state.safetensors"


@dataclass
class Learner:
    """What a training step changes: a module, and the averages of its optimisers."""

    module: nn.Module
    optimizers: list[torch.optim.Optimizer]


def averages_of(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The averages of optimisers, called optimizer.NUMBER.PARAMETER.NAME."""
    tensors = {}
    for number, optimizer in enumerate(optimizers):
        for index, moments in optimizer.state_dict()["state"].items():
            for name, value in moments.items():
                tensors[f"optimizer.{number}.{index}.{name}"] = value
    return tensors


def put_averages(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Give optimisers what `averages_of` took; learning rate and decay stay as they are."""
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in tensors.items():
        _, number, index, name = key.split(".")
        states[int(number)].setdefault(int(index), {})[name] = value
    for optimizer, state in zip(optimizers, states):
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def differences(before: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two stories, as `block_size: 4 before, 16 now`."""
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for key in sorted(before.keys() | now.keys()):
            found += differences(before.get(key), now.get(key), key)
        return found
    return [] if before == now else [f"{name}: {before} before, {now} now"]


def in_words(different: list[str]) -> str:
    """The first five differences, and how many more there are."""
    more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
    return "; ".join(different[:5]) + more


def save_state(
    folder: Path, learner: Learner, step: int, story: dict[str, Any], seconds: float
) -> None:
    """Write the state after `step` steps. `ValueError` if a number in it is not finite."""
    tensors = {f"model.{key}": value for key, value in learner.module.state_dict().items()}
    tensors |= averages_of(learner.optimizers)
    checkpoint.check_finite(tensors, folder / STATE)
    settings = {
        "step": str(step),
        "story": json.dumps(story, sort_keys=True),
        "seconds": f"{seconds:.1f}",
    }
    # Last, because it covers the other settings, too.
    settings["digest"] = checkpoint.tensors_digest(tensors, settings)
    checkpoint.save_tensors(folder / STATE, tensors, settings)


@dataclass
class State:
    """What `save_state` wrote."""

    path: Path
    tensors: dict[str, Tensor]
    step: int  # steps that were done
    seconds: float  # of training so far
    digest: str  # SHA-256 of all of it (`checkpoint.tensors_digest`)

    def restore(self, learner: Learner) -> None:
        """Put weights and averages back. `ValueError` if they are those of another model."""
        model, averages = {}, {}
        for key, value in self.tensors.items():
            if key.startswith("model."):
                model[key.removeprefix("model.")] = value
            else:
                averages[key] = value
        checkpoint.load_tensors(learner.module, model, self.path)
        put_averages(learner.optimizers, averages)


def read_state(folder: Path, story: dict[str, Any]) -> State:
    """The state in a folder. `ValueError` if it is damaged or belongs to another run."""
    path = folder / STATE
    tensors, settings = checkpoint.read_tensors(path)
    stored = settings.pop("digest", "")
    if stored != checkpoint.tensors_digest(tensors, settings):
        raise ValueError(
            f"{path} is damaged, or another version wrote it (its digest differs); start again "
            "with --overwrite"
        )
    different = differences(json.loads(settings["story"]), story)
    if different:
        raise ValueError(
            f"{path} belongs to another run ({in_words(different)}); resume it as it was started, "
            "or choose another folder"
        )
    return State(path, tensors, int(settings["step"]), float(settings["seconds"]), stored)


def saved_step(path: Path) -> str:
    """The step of a state, as its file says, or `?` where the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("step", "?")
    except SafetensorError:
        return "?"

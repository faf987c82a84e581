"""The mean of several checkpoints of one run, weight by weight (LLaDA2.0, section 3).

The idea: late in a run the weights move about near the best place, so their mean may be nearer to
it. In notebook 15, the mean of the best was better than the best alone at a constant learning rate,
and a little worse after a decay. It is not a moving average, which would be taken during training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..checkpoint import M, Stored, load_model, load_tensors, read_info, resolve, shipped
from ..settings import from_dict, to_dict

SAME = ("config", "tokenizer_sha256", "text_sha256")  # what checkpoints of one model share
# What is true of one checkpoint, and not of a mean.
ALONE = ("command", "step", "seconds", "metrics", "tasks")


def snapshot_path(run: Path, step: int) -> Path:
    """Where a run keeps its weights after `step` steps."""
    return run / f"step-{step:06d}.safetensors"


def snapshots(name: str | Path) -> list[Path]:
    """The snapshots of a run's folder, oldest first; if there are none, its one set of weights."""
    found = [] if shipped(name) else sorted(Path(name).glob("step-*.safetensors"))
    return found or [resolve(name)]


def distinct(names: list[str]) -> list[Path]:
    """The snapshots of all names, each once: equal weights in two files would count twice."""
    found: dict[str, Path] = {}
    for name in names:
        for path in snapshots(name):
            found.setdefault(read_info(path).get("sha256", str(path)), path)
    return list(found.values())


def merge(paths: list[Path], cls: Stored[M]) -> tuple[M, dict[str, Any]]:
    """The arithmetic mean of checkpoints, and its info, which names its parts.

    `ValueError` if they are not checkpoints of one model, or fewer than two.
    """
    if len(paths) < 2:
        raise ValueError(
            f"a mean needs at least two checkpoints, got {len(paths)}; "
            "keep some with `minillada train … --snapshot-every N`"
        )
    modules, infos = [], []
    for path in paths:
        module, info = load_model(path, cls)
        modules.append(module)
        # The whole configuration: a JSON of an older version lacks newer fields.
        infos.append(info | {"config": to_dict(from_dict(cls.config_class, info["config"]))})
        check_same(paths[0], infos[0], path, infos[-1])

    states = [module.state_dict() for module in modules]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    load_tensors(modules[0], mean, paths[0])

    parts = []
    for info in infos:
        parts.append({key: info.get(key) for key in ("command", "step", "sha256")})
    about = {key: value for key, value in infos[0].items() if key not in ALONE}
    return modules[0], about | {"merged": parts}


def check_same(first: Path, first_info: dict, path: Path, info: dict) -> None:
    """`ValueError` unless the infos of two checkpoints are of one model."""
    for key in SAME:
        values = first_info.get(key), info.get(key)
        if None not in values and values[0] != values[1]:
            raise ValueError(
                f"{path} and {first} differ in {key}; "
                "only checkpoints of the same model can be merged"
            )

"""Weights on disk: a safetensors file and, beside it, a JSON that says how they came to be.

Notable choices
- Everything is written under a temporary name and renamed when complete, so an interruption leaves the old file.
- The JSON holds the configuration the modules are rebuilt from and the SHA-256 of the weights; a truncated, altered or
  mismatched pair is refused in one sentence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .files import WEIGHTS_DIR, atomic, checksum
from .settings import Config, from_dict

M = TypeVar("M", bound=nn.Module, covariant=True)


class Stored(Protocol[M]):
    """A class whose modules can be stored: its kind by name, and the class of its configuration."""

    kind: ClassVar[str]
    config_class: ClassVar[type[Config]]

    def __call__(self, config: Any, /) -> M: ...


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically."""
    with atomic(path) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, temporary, metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, on the CPU."""
    if not path.exists():
        raise FileNotFoundError(f"no weights at {path}; restore shipped ones with `git checkout -- data` or train them first")
    try:
        with safe_open(path, "pt") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error}); restore or retrain it") from None


def save_model(path: Path, module: nn.Module, info: dict) -> None:
    """Write `path` (.safetensors) and its JSON; `info` needs at least `kind` and `config`.

    Floats are stored as float16: half the bytes, and 11 significant bits are more than a trained weight holds.
    """
    save_tensors(path, {k: v.half() if v.is_floating_point() else v for k, v in module.state_dict().items()})
    write_info(path, info | {"sha256": checksum(path)})


def write_info(path: Path, info: dict) -> None:
    """Write the JSON beside a weights file atomically."""
    with atomic(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def resolve(name: str | Path) -> Path:
    """Where weights called `name` live: a shipped preset, a .safetensors file, or a training run's folder."""
    path = Path(name)
    if path.suffix == ".safetensors":
        return path
    if path.is_dir():
        return path / "weights.safetensors"
    shipped = WEIGHTS_DIR / f"{name}.safetensors"
    if not shipped.exists():
        known = ", ".join(sorted(p.stem for p in WEIGHTS_DIR.glob("*.safetensors"))) or "none; restore them with `git checkout -- data`"
        raise FileNotFoundError(f"no weights called {str(name)!r}; shipped: {known} (a run's folder or a .safetensors file works too)")
    return shipped


def read_info(path: Path) -> dict:
    """The JSON beside a weights file."""
    path = path.with_suffix(".json")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; weights need the JSON that was written beside them")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        info = None
    if not isinstance(info, dict):
        raise ValueError(f"{path} is not a valid JSON object; restore it with `git checkout -- data` or train again")
    return info


def build(cls: Stored[M], config: dict) -> M:
    """A fresh module of a class from its configuration as plain JSON."""
    try:
        return cls(from_dict(cls.config_class, config))
    except (TypeError, RuntimeError, ArithmeticError) as error:  # sizes that do not fit together
        raise ValueError(f"this configuration does not describe a {cls.kind}: {error}") from None


def load_model(
    name: str | Path, cls: Stored[M], device: str | torch.device = "cpu"
) -> tuple[M, dict[str, Any]]:
    """The module (evaluation mode) and its info.

    `ValueError` if file, JSON and configuration do not belong together.
    """
    path = resolve(name)
    tensors, _ = read_tensors(path)
    info = read_info(path)
    kind = info.get("kind")
    if kind != cls.kind:
        raise ValueError(f"{path} holds a {kind}, not a {cls.kind}; pass the weights of a {cls.kind}")
    if info.get("sha256") != checksum(path):
        raise ValueError(
            f"{path} and its JSON do not belong together (checksum differs); restore or retrain both"
        )
    module = build(cls, info.get("config", {}))
    load_tensors(module, tensors, path)
    return module.to(device).eval(), info


def load_tensors(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """`load_state_dict` with one clear sentence about the first tensor that does not fit."""
    expected = module.state_dict()
    for key in sorted(expected.keys() | tensors.keys()):
        if key not in tensors or key not in expected:
            raise ValueError(f"{path} does not fit its configuration: tensor {key!r} is {'missing' if key in expected else 'unexpected'}")
        if expected[key].shape != tensors[key].shape:
            have, want = list(tensors[key].shape), list(expected[key].shape)
            raise ValueError(f"{path} does not fit its configuration: {key!r} has shape {have}, expected {want}")
    module.load_state_dict(tensors)


def snapshot_path(run: Path, step: int) -> Path:
    """Where a run keeps its weights after `step` steps."""
    return run / f"step-{step:06d}.safetensors"


def snapshots(name: str | Path) -> list[Path]:
    """The snapshots of a run's folder, oldest first; of anything else, and of a folder without any, its one set of weights."""
    return sorted(Path(name).glob("step-*.safetensors")) or [resolve(name)]


def merge(paths: list[Path], cls: Stored[M]) -> tuple[M, dict[str, Any]]:
    """The arithmetic mean of checkpoints of one model, weight by weight, and its info (LLaDA2.0, section 3: not a moving average).

    It works because they are points of one path through one valley: the mean is nearer to the bottom than most of them.
    `ValueError` if they are not checkpoints of one configuration, or fewer than two.
    """
    if len(paths) < 2:
        raise ValueError(f"a mean needs at least two checkpoints, got {len(paths)}; keep some with `minillada train … --snapshot-every N`")
    loaded = [load_model(path, cls) for path in paths]
    for path, (_, info) in zip(paths, loaded, strict=True):
        for key in ("config", "tokenizer_sha256"):
            if info.get(key) != loaded[0][1].get(key):
                raise ValueError(f"{path} and {paths[0]} differ in {key}; only checkpoints of the same model can be merged")
    module, info = loaded[0][0], {key: value for key, value in loaded[0][1].items() if key != "step"}
    states = [other.state_dict() for other, _ in loaded]
    load_tensors(module, {key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]}, paths[0])
    return module, info | {"merged": [{key: about.get(key) for key in ("command", "step", "sha256")} for _, about in loaded]}


def shipped(name: str) -> bool:
    """Whether weights of this name are in `data/weights`."""
    return (WEIGHTS_DIR / f"{name}.safetensors").exists()

"""Files of the official checkpoint: found, checked and read.

Notable choices
- Every fault is one sentence that names the file and the tensor. Names, shapes and types are
  compared before a number is read, and numbers are checked before anything is computed with them.
- A module is built without memory (on PyTorch's meta device) and takes over the tensors that were
  read. Weights are therefore in memory once, not twice.
- Nothing in a checkpoint is run: no remote code, and pickles are read with `weights_only`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..settings import Config

C = TypeVar("C", bound=Config)
Shapes = dict[str, tuple[int, ...]]
# By safetensors' names. Others, such as FP8 and int8, need scales that we do not know.
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def find(folder: Path, *names: str) -> Path:
    """The first of these files that is in the folder. `FileNotFoundError` if none is."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{folder} holds no {' or '.join(names)}; pass the folder of a complete download"
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file ({error}); download it again") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object; download it again")
    return values


def whole(config: dict[str, Any], key: str, path: Path) -> int:
    """A positive whole number of a configuration."""
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{path}: {key} must be a positive whole number, got {value!r}")
    return value


def configured(cls: type[C], values: Any, path: Path) -> C:
    """A configuration from the fields that it knows; a file may say more than we need."""
    if not isinstance(values, dict):
        raise ValueError(f"{path} has no settings for {cls.__name__}; download it again")
    try:
        return cls(**{key: value for key, value in values.items() if key in cls.model_fields})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


# --- weights -------------------------------------------------------------------------------------


def load_safetensors(
    module: nn.Module,
    path: Path,
    device: str | torch.device,
    dtype: torch.dtype,
    rename: Callable[[str], str] = str,
) -> None:
    """Give a module the weights of a file.

    `rename` turns a name of the file into a name of the module; `str` changes nothing.
    `ValueError` for a broken file, for tensors that are missing, unexpected or misshapen, and for
    numbers that are not finite.
    """
    try:
        with safe_open(path, "pt") as file:
            # 1. compare the header with the module
            names = renamed(file.keys(), rename, path)
            shapes = {}
            for name, key in names.items():
                piece = file.get_slice(key)
                check_type(piece.get_dtype(), key, path)
                shapes[name] = tuple(piece.get_shape())
            check_shapes(module, shapes, path)
            # 2. only now read
            tensors = ((name, file.get_tensor(key)) for name, key in names.items())
            take(module, tensors, path, device, dtype)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a complete safetensors file ({error})") from None


def renamed(keys: Iterable[str], rename: Callable[[str], str], path: Path) -> dict[str, str]:
    """New name -> name in the file. `ValueError` if two tensors would get the same name."""
    names: dict[str, str] = {}
    for key in keys:
        if rename(key) in names:
            raise ValueError(f"{path}: {key} and {names[rename(key)]} are the same tensor")
        names[rename(key)] = key
    return names


def load_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt` file by name.

    `ValueError` for a pickle that is damaged or runs code, and for tensors of unknown types.
    """
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # where a pickle is damaged, any kind
        first = str(error).split("\n")[0][:200]
        raise ValueError(f"{path} is not a plain file of tensors ({first})") from None
    plain = isinstance(tensors, dict) and all(
        isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided
        for key, value in tensors.items()
    )
    if not plain:
        raise ValueError(f"{path} must hold tensors by name and nothing else; download it again")
    for key, tensor in tensors.items():
        check_type(tensor.dtype, key, path)
    return tensors


def check_type(found: str | torch.dtype, key: str, path: Path) -> None:
    """`ValueError` unless numbers of this type can be read without further scales."""
    if found not in TYPES and found not in TYPES.values():
        raise ValueError(
            f"{path}: {key} is stored as {found}, and only {', '.join(TYPES)} can be read; "
            "use the bfloat16 release"
        )


def shapes_of(module: nn.Module) -> Shapes:
    """What a module stores."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def check_shapes(module: nn.Module, found: Shapes, path: Path) -> None:
    """`compare_shapes` with what a module stores."""
    compare_shapes(shapes_of(module), found, path)


def compare_shapes(wanted: Shapes, found: Shapes, path: Path) -> None:
    """`ValueError` that lists the tensors that are missing, unexpected or misshapen."""
    misshapen = []
    for key in sorted(wanted.keys() & found.keys()):
        if wanted[key] != found[key]:
            misshapen.append(f"{key} {list(found[key])}, not {list(wanted[key])}")
    faults = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "misshapen": misshapen,
    }
    texts = []
    for kind, keys in faults.items():
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            texts.append(f"{kind}: {', '.join(keys[:3])}{more}")
    if texts:
        raise ValueError(f"{path} does not fit its configuration; {'; '.join(texts)}")


def take(
    module: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    path: Path,
    device: str | torch.device,
    dtype: torch.dtype,
) -> None:
    """Make tensors the weights of a module, and freeze it. `ValueError` for NaN or infinity."""
    taken = {}
    for name, tensor in tensors:
        taken[name] = tensor.to(device, dtype)
        # Checked in the new type: there, a number that is too large for it is infinite.
        if not torch.isfinite(taken[name]).all():
            raise ValueError(f"{path}: {name} holds NaN or infinity; download it again")
    # The tensors become the parameters, so the module's own (without memory) are dropped.
    module.load_state_dict(taken, assign=True)
    module.requires_grad_(False).eval()

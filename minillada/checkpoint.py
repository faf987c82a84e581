"""Weights on disk: a safetensors file and, beside it, a JSON that says how they came to be.

Notable choices
- The JSON holds the module's configuration, the SHA-256 (a checksum) of the weights file and one of
  its own content, the `digest`. So a damaged, altered or exchanged file is noticed.
- Shapes are compared before memory is taken: on torch's `meta` device, tensors have no numbers.
- Floats are stored as float16: half the bytes of float32, and 11 significant bits (3 digits).
"""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .experts import Experts
from .files import WEIGHTS_DIR, Name, atomic, checksum, find, is_shipped, need_data
from .settings import Config, from_dict

M = TypeVar("M", bound=nn.Module, covariant=True)  # the class of a module
Tensors = dict[str, Tensor]  # as in a state dict
RESTORE = "restore it with `git checkout -- data` or train again"  # the end of many messages


class Stored(Protocol[M]):  # only for the type checker, and never made
    """A class whose modules can be stored, for example `Backbone`."""

    kind: str  # "backbone", the name in the JSON
    config_class: type[Config]  # `ModelConfig`

    def __call__(self, config: Any, /) -> M: ...  # `Backbone(config)` makes a module


# --- names ---------------------------------------------------------------------------------------


def shipped(name: Name) -> bool:
    """Whether `data/weights` has weights of this name. A path, such as `./mnist`, is no name."""
    return is_shipped(name, ".safetensors")


def resolve(name: Name) -> Path:
    """Where weights called `name` are, by `files.find`; `FileNotFoundError` if there are none."""
    found = find(name, ".safetensors", "weights.safetensors")
    if found is not None:
        return found
    need_data()
    known = ", ".join(sorted(file.stem for file in WEIGHTS_DIR.glob("*.safetensors"))) or "none"
    problem = f"no weights called {str(name)!r}"
    # For a folder or a Path the whole path is shown: it may be another one than the user meant.
    if isinstance(name, Path) or Path(name).is_dir():
        problem = f"no weights at {Path(name).absolute() / 'weights.safetensors'}"
    hint = "a run's folder or a .safetensors file works too"
    raise FileNotFoundError(f"{problem}; shipped: {known} ({hint})")


def full_name(name: Name) -> str:
    """A shipped name as it is, any other as a whole path: right from every working folder."""
    return str(name) if shipped(name) else str(resolve(name).absolute())


# --- tensors -------------------------------------------------------------------------------------


def save_tensors(
    path: Path, tensors: Tensors, metadata: dict[str, str] | None = None, info: dict | None = None
) -> None:
    """Write a safetensors file and, if `info` is given, the JSON beside it.

    The JSON gets its name first: a kill in between never leaves weights without a JSON.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # a full disk, for example
            raise OSError(f"{path} cannot be written: {error}") from None
        if info is not None:
            # Taken before the file gets its name: later, another process may replace it.
            write_info(path, info | {"sha256": checksum(temporary)})


def read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a safetensors file, on the CPU."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; {RESTORE}")
    path.open("rb").close()  # raises PermissionError; the library would call the file missing
    try:
        with safe_open(path, "pt") as file:
            # Copies, not views of the file: Windows replaces no file that is mapped into memory.
            return {key: file.get_tensor(key).clone() for key in file.keys()}, file.metadata() or {}
    except SafetensorError:
        raise ValueError(f"{path} is not a complete safetensors file; {RESTORE}") from None


def tensors_digest(tensors: Tensors, settings: dict[str, str]) -> str:
    """SHA-256 over the settings and over the tensors with their names, types and shapes."""
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        # The bytes themselves; a single number has to become a row first.
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def check_finite(tensors: Tensors, path: Path) -> None:
    """`ValueError` names the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            problem = f"tensor {name!r} holds NaN, infinity or a number too large for its type"
            raise ValueError(f"{path}: {problem}; train again with a lower learning rate")


def check_fit(expected: Tensors, tensors: Tensors, path: Path) -> None:
    """`ValueError` names the first tensor whose name, shape or type is not the expected one."""
    problem = f"{path} does not fit its configuration: "
    different = sorted(expected.keys() ^ tensors.keys())  # names that only one of them has
    if different:
        state = "missing" if different[0] in expected else "unexpected"
        raise ValueError(f"{problem}tensor {different[0]!r} is {state}")
    for key, want in expected.items():
        have = tensors[key]
        if have.shape != want.shape:
            shapes = f"has shape {list(have.shape)}, expected {list(want.shape)}"
            raise ValueError(f"{problem}{key!r} {shapes}")
        # Floats may be stored in half precision. An integer is never taken for a float.
        stored_float = want.is_floating_point() and have.dtype == torch.float16
        if have.dtype != want.dtype and not stored_float:
            raise ValueError(f"{problem}{key!r} has type {have.dtype}, expected {want.dtype}")


def load_tensors(module: nn.Module, tensors: Tensors, path: Path) -> None:
    """`load_state_dict`; `ValueError` names the first tensor that does not fit or is not finite."""
    check_fit(module.state_dict(), tensors, path)
    check_finite(tensors, path)
    module.load_state_dict(tensors)


# --- the JSON ------------------------------------------------------------------------------------


def digest(info: dict) -> str:
    """SHA-256 of a JSON without its own field `digest`; the order of names means nothing."""
    rest = {key: value for key, value in info.items() if key != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def write_info(path: Path, info: dict) -> None:
    """Write the JSON beside a weights file, with a digest of its content."""
    info = json.loads(json.dumps(info))  # as read later: tuples are lists, and keys are strings
    text = json.dumps(info | {"digest": digest(info)}, indent=2) + "\n"
    with atomic(path.with_suffix(".json")) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_info(path: Path) -> dict:
    """The JSON beside a weights file. `FileNotFoundError`; `ValueError` if it was changed."""
    path = path.with_suffix(".json")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; weights need the JSON written beside them")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        raise ValueError(f"{path} is not a valid JSON object; {RESTORE}")
    if "digest" in info and info["digest"] != digest(info):  # older JSONs have none
        raise ValueError(f"{path} was changed after it was written (digest differs); {RESTORE}")
    return info


# --- models --------------------------------------------------------------------------------------


def save_model(path: Path, module: nn.Module, info: dict) -> None:
    """Write `path` (.safetensors) and its JSON; `info` needs at least `kind` and `config`."""
    tensors = {}
    for name, tensor in module.state_dict().items():
        tensors[name] = tensor.half() if tensor.is_floating_point() else tensor
    check_finite(tensors, path)  # after rounding: float16 ends at 65,504
    save_tensors(path, tensors, info=info)


def build(cls: Stored[M], config: Any) -> M:
    """A fresh module of a class from its configuration, in float32 whatever the default is."""
    try:
        return cls(config).float()
    except (TypeError, RuntimeError, ArithmeticError) as error:  # sizes that do not fit together
        raise ValueError(f"this configuration does not describe a {cls.kind}: {error}") from None


class NoNumbers(TorchFunctionMode):
    """On `meta`, two calls return their input. To run them would load torch's compiler (1 s)."""

    def __torch_function__(self, call, types, args=(), kwargs=None):  # whatever torch calls
        if call in (nn.init.normal_, nn.functional.normalize):
            return args[0] if args else kwargs["tensor"]  # torch passes `tensor=` to `normal_`
        return call(*args, **kwargs or {})


def check_sizes(cls: Stored[M], config: Any, tensors: Tensors, path: Path) -> None:
    """`ValueError`, before memory is taken, unless the configuration asks for these tensors."""
    made = []  # for each parameter made so far: how many tensors of a file it is
    mine = threading.get_ident()

    # A wrong configuration may ask for 100,000 experts, and to build them takes minutes, even on
    # `meta`. So torch calls `count` for each new parameter: it raises at more than the file has.
    def count(module: nn.Module, name: str, parameter: Any) -> None:
        if threading.get_ident() == mine:  # the hook is one for all threads
            made.append(len(parameter) if isinstance(module, Experts) else 1)  # a stack is many
        if sum(made) > len(tensors):
            raise ValueError(f"{path} does not fit its configuration: it holds too few tensors")

    hook = nn.modules.module.register_module_parameter_registration_hook(count)
    with hook, torch.device("meta"), NoNumbers():  # the hook is removed at the end
        check_fit(build(cls, config).state_dict(), tensors, path)


def load_model(name: Name, cls: Stored[M], device: str | torch.device = "cpu") -> tuple[M, dict]:
    """The module in evaluation mode, and its info. `FileNotFoundError`, `ValueError`: bad files."""
    # 1. both files are whole and belong together
    path = resolve(name)
    tensors, _ = read_tensors(path)
    info = read_info(path)
    kind, config = info.get("kind"), info.get("config", {})
    if kind != cls.kind:
        raise ValueError(f"{path} holds a {kind}, not a {cls.kind}; pass weights of a {cls.kind}")
    if info.get("sha256") != checksum(path):
        raise ValueError(f"{path} and its JSON do not belong together; {RESTORE}")
    # 2. the module has these tensors, so it is built and filled
    try:
        config = from_dict(cls.config_class, config)
    except ValueError as error:
        raise ValueError(f"{path.with_suffix('.json')}: {error}") from None
    check_sizes(cls, config, tensors, path)
    with torch.device("cpu"):  # whatever the default device is
        module = build(cls, config)
    load_tensors(module, tensors, path)
    return module.to(device).eval(), info

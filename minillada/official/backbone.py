"""The official backbone, from its files into the same class as the small one.

Notable choices
- The module is built without memory. Then it gets memory for its weights, and the numbers of the
  files are read into it: the experts of a projection are one parameter, of which each expert of a
  file fills its part. So weights are in memory once.
- Names, shapes and types are compared before a number is read.
- Experts may stay in their files (`mapped.py`), or be rounded to 8 bits (`eight_bit.py`) or to 4
  (`four_bit.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import ModelConfig
from ..experts import Expert
from ..extras.halves import quick_products
from ..model import Backbone
from ..moe import MixtureOfExperts
from .config import read_config
from .eight_bit import EightBitExperts
from .four_bit import FourBitExperts, library
from .free import check_room
from .mapped import Recent, StoredExperts
from .names import Layout, backbone_entries, prefixed, unprefixed
from .reading import Shapes, compare_shapes
from .shards import (
    INDEX,
    Stored,
    by_file,
    check_finite,
    mapped_tensors,
    read_file,
    stored_tensors,
    would_fill_memory,
)
from .sums import check_files, read_sums

ROUNDED = {8: EightBitExperts, 4: FourBitExperts}  # by the bits of a number
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
ROUTED = ".mlp.experts."
# layer, number of the expert (none where they are stacked), projection
EXPERT = r"model\.layers\.(\d+)\.mlp\.experts\.(?:(\d+)\.)?(\w+_proj)(?:\.weight)?"
MOST_EXPERTS = 10_000  # of a layer
READERS = 2  # files that are read at the same time
SMALL_FILES = ("config.json", "tokenizer.json", INDEX)


class OfficialBackbone(Backbone):
    """`Backbone` in bfloat16, which some CPUs multiply slowly unless it is done in `halves`."""

    def hidden_states(self, input_ids: Tensor, *given: Any, **named: Any) -> Tensor:
        with quick_products(input_ids.device):
            return super().hidden_states(input_ids, *given, **named)

    def logits(self, hidden: Tensor) -> Tensor:
        with quick_products(hidden.device):
            return super().logits(hidden)


def load_backbone(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "bfloat16",
    mapped: bool = False,
    experts_on_gpu: int | None = None,
    bits: int | None = None,
) -> Backbone:
    """The backbone of a checkpoint's folder, in evaluation mode.

    `mapped`: experts are not read but mapped from their files on the CPU, so that the model runs
    with less memory than its weights; they keep the file's type. `experts_on_gpu`: the experts
    are mapped, too, and copied to `device` when a token needs them; so many stay there, the ones
    used last. `bits`: experts are rounded to 8 or 4 bits. `ValueError` for files that are damaged,
    hostile or of another model.
    """
    folder, device, dtype = Path(path), torch.device(device), as_dtype(dtype)
    check_mode(device, mapped, experts_on_gpu, bits)
    # 1. what the files say, compared with each other
    config = read_config(folder)
    sums = read_sums(folder)
    small = [folder / name for name in SMALL_FILES if (folder / name).is_file()]
    check_files(folder, small, sums)
    stored = official_names(stored_tensors(folder))
    check_against(config, stored, folder)

    # 2. a module with memory for what is read
    with torch.device("meta"):
        backbone = OfficialBackbone(config).to(dtype).requires_grad_(False).eval()
    recent = None if experts_on_gpu is None else Recent(experts_on_gpu, device, dtype)
    if mapped or recent is not None:
        leave_experts(backbone, stored, recent)
    elif bits is not None:
        round_experts(backbone, bits)
    check_room(backbone, device)
    backbone.to_empty(device=device)
    for part in backbone.modules():
        if isinstance(part, MixtureOfExperts):  # routers compute in float32, whatever the type
            part.gate.expert_bias = torch.zeros(config.num_experts, device=device)
            part.gate.received.zero_()  # no file holds it

    # 3. the numbers; those of mapped experts are only checked
    fill(backbone, stored, sums)
    return backbone


def check_mode(
    device: torch.device,
    mapped: bool = False,
    experts_on_gpu: int | None = None,
    bits: int | None = None,
) -> None:
    """`ValueError` for options of `load_backbone` that do not go together."""
    if mapped and experts_on_gpu is None and device.type != "cpu":
        raise ValueError(f"mapped experts are on the CPU; for {device} give experts_on_gpu as well")
    if experts_on_gpu is not None and experts_on_gpu < 1:
        raise ValueError(f"experts_on_gpu must be at least 1, got {experts_on_gpu}")
    if bits is not None and bits not in ROUNDED:
        raise ValueError(f"experts are rounded to 8 or 4 bits, not to {bits}")
    if bits is not None and (mapped or experts_on_gpu is not None):
        raise ValueError(
            "experts that stay in their files cannot be rounded; give bits without mapped and "
            "experts_on_gpu"
        )
    if bits == 4:
        library()  # its absence is said before a download


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A type by its name. `ValueError` for one in which the model does not run."""
    found = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if found is None or found not in DTYPES.values():
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}, not {dtype!r}")
    return found


def official_names(stored: list[Stored]) -> dict[str, Stored]:
    """Tensors by the released names, whichever prefix the files have."""
    sibling = any(one.key.startswith(prefixed("model.")) for one in stored)
    named: dict[str, Stored] = {}
    for one in stored:
        name = unprefixed(one.key) if sibling else one.key
        if name in named:
            raise ValueError(f"{one.path}: {one.key} and {named[name].key} are the same tensor")
        named[name] = one
    return named


def check_against(config: ModelConfig, stored: dict[str, Stored], folder: Path) -> None:
    """`ValueError` unless the files hold exactly the tensors of this configuration."""
    layout = layout_of(config, stored, folder)
    wanted: Shapes = {entry.key: entry.shape for entry in backbone_entries(config, layout)}
    compare_shapes(wanted, {name: one.shape for name, one in stored.items()}, folder)


def layout_of(config: ModelConfig, names: Collection[str], folder: Path) -> Layout:
    """How the experts of these tensors are stored.

    `ValueError` if the configuration has many more tensors: a wrong number of layers or experts
    would make the list of their names endless.
    """
    fused = any(name.endswith(ROUTED + "gate_proj") for name in names)
    sparse = max(config.num_hidden_layers - config.first_k_dense_replace, 0)
    least = config.num_hidden_layers + sparse * (3 if fused else 3 * config.num_experts)
    if least > len(names) or config.num_experts > MOST_EXPERTS:
        raise ValueError(
            f"{folder} holds {len(names)} tensors, and its config.json asks for more than {least}, "
            f"with {config.num_experts} experts a layer; do they belong together?"
        )
    return "fused" if fused else "released"


def leave_experts(backbone: Backbone, stored: dict[str, Stored], recent: Recent | None) -> None:
    """Give the layers experts that are views of their files.

    `ValueError` without `recent` if the files have another type than the model: nobody would
    convert them.
    """
    names = {one.key: name for name, one in stored.items()}
    dtype = backbone.lm_head.weight.dtype
    views = {}
    for path, inside in by_file(one for name, one in stored.items() if ROUTED in name):
        for one in inside:
            if recent is None and one.dtype != dtype:
                raise ValueError(
                    f"mapped experts keep the type of {path}, which is {one.dtype}, and are not "
                    f"converted to {dtype}; ask for that type, or leave mapped out"
                )
        for key, view in mapped_tensors(path, inside).items():
            views[names[key]] = view
    for number, layer in enumerate(backbone.model.layers):
        if isinstance(layer.mlp, MixtureOfExperts):
            start = f"model.layers.{number}{ROUTED}"
            experts = [expert_of(views, start, e) for e in range(backbone.config.num_experts)]
            layer.mlp.experts = StoredExperts(experts, number, recent)  # type: ignore[assignment]


def expert_of(views: dict[str, Tensor], start: str, number: int) -> Expert:
    """One expert, from the matrices of either layout."""
    matrices = []
    for name in Expert._fields:
        if start + name in views:
            matrices.append(views[start + name][number])  # fused
        else:
            matrices.append(views[f"{start}{number}.{name}.weight"])
    return Expert(*matrices)


def round_experts(backbone: Backbone, bits: int) -> None:
    """Give the layers experts in so many bits, still without memory."""
    config = backbone.config
    for layer in backbone.model.layers:
        if isinstance(layer.mlp, MixtureOfExperts):
            sizes = config.num_experts, config.hidden_size, config.moe_intermediate_size
            with torch.device("meta"):
                layer.mlp.experts = ROUNDED[bits](*sizes)  # type: ignore[assignment]


def fill(backbone: Backbone, stored: dict[str, Stored], sums: dict[str, str]) -> None:
    """Read all files into the module; numbers of mapped experts are checked and left there."""
    # The state dict has an entry for each expert, and the parameters are those of the fused layout.
    places = backbone.state_dict() | dict(backbone.named_parameters())
    names = {one.key: name for name, one in stored.items()}
    layers: Any = backbone.model.layers  # for the type checker: only some have experts

    def place(one: Stored, start: int, numbers: Tensor) -> None:
        # 1. the type in which these numbers are kept
        name = names[one.key]
        expert = re.fullmatch(EXPERT, name)
        experts = layers[int(expert[1])].mlp.experts if expert else None
        if isinstance(experts, EightBitExperts | FourBitExperts):
            kept = torch.float32  # until they are rounded
        elif isinstance(experts, StoredExperts):  # converted later, when they are fetched
            kept = backbone.lm_head.weight.dtype
        else:
            kept = places[name].dtype
        # 2. A number that is finite in the file may be too large for this type.
        if kept.itemsize < one.dtype.itemsize:
            numbers = numbers.to(kept)
            check_finite(numbers, one)
        # 3. their place
        if isinstance(experts, StoredExperts):
            return
        if expert and isinstance(experts, EightBitExperts | FourBitExperts):
            # The row in the stack: matrices have one.shape[-2] rows each. Of fused experts, `start`
            # counts from the first one on.
            first = int(expert[2] or 0) * one.shape[-2] + start // one.shape[-1]
            experts.put(expert[3], first, numbers.view(-1, one.shape[-1]))
            return
        places[name].view(-1)[start : start + len(numbers)].copy_(numbers)

    forget = would_fill_memory(stored.values())

    def read(file: tuple[Path, list[Stored]]) -> None:
        # A model made in inference mode can only be filled in it, and each thread has its own mode.
        with torch.inference_mode():
            read_file(*file, place, sums, forget)

    # While one file waits for the disk, numbers of another one are checked and copied.
    with ThreadPoolExecutor(READERS) as readers:
        list(readers.map(read, by_file(stored.values())))  # raises the first fault

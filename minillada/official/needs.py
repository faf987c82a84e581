"""Which memory a checkpoint needs, in each way to run it, and what fits where.

Memory counts weights in bfloat16. What a forward pass needs besides depends on the picture's size:
leave a tenth of the memory free.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from ..config import ModelConfig
from .config import read_config
from .free import Free
from .inspection import Part, count
from .names import backbone_entries
from .reading import shapes_of
from .siglip import SigLIPVQ
from .sizes import Size, sizes_of

USABLE = 0.9  # of the free memory, for weights
# The parts of a painter, with the parameters of the released ones. They are written down here, as
# most of their classes come from `diffusers`, which may be missing.
PAINTER_PARTS = {
    "decoder-turbo": 6_160_808_512,
    "painter's embedding": 100_671_488,
    "vae": 83_819_683,
}
CACHED = 1000  # experts on a small GPU
EIGHT, FOUR = 8.03, 4.5  # bits of a rounded weight with its share of the scales
GIB = 2**30 / 1e9


class Weights(NamedTuple):
    """Gigabytes (10⁹ bytes) of a checkpoint's parts, in bfloat16."""

    dense: float  # the backbone without its routed experts
    experts: float  # all of them
    expert: float  # one
    tokenizer: float
    painter: float  # one of them, with its embedding and VAE


class Need(NamedTuple):
    """Gigabytes of weights that a way to run needs."""

    mode: str
    call: str  # what to give to `load`
    gpu: float
    ram: float


def weights_of(config: ModelConfig, parameters: dict[str, int]) -> Weights:
    """Sizes of the parts; `parameters` by the names of `INSPECTIONS`."""
    sparse = max(config.num_hidden_layers - config.first_k_dense_replace, 0)
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    experts = sparse * config.num_experts * expert
    painter = sum(parameters.get(name, 0) for name in PAINTER_PARTS)
    dense, tokenizer = parameters["backbone"] - experts, parameters.get("image tokenizer", 0)
    numbers = (dense, experts, expert, tokenizer, painter)
    return Weights(*(number * torch.bfloat16.itemsize / 1e9 for number in numbers))


def released_weights(size: Size = "full") -> Weights:
    """Sizes of a released checkpoint."""
    sizes = sizes_of(size)
    parameters = {"backbone": sum(entry.count for entry in backbone_entries(sizes.backbone))}
    if sizes.images:
        with torch.device("meta"):
            tokenizer = SigLIPVQ(sizes.vision, sizes.quantiser)
        parameters |= PAINTER_PARTS | {"image tokenizer": count(shapes_of(tokenizer))}
    return weights_of(sizes.backbone, parameters)


def needs_of(folder: Path, parts: list[Part]) -> list[Need]:
    """`needs` and `rounded_needs` of an inspected checkpoint."""
    parameters = {part.name: part.parameters for part in parts}
    weights = weights_of(read_config(folder), parameters)
    return needs(weights) + rounded_needs(weights)


def needs(weights: Weights) -> list[Need]:
    """What each way to run needs: on a GPU, then without one, each from most to least memory."""
    dense, experts, expert, tokenizer, painter = weights
    backbone, others = dense + experts, tokenizer + painter
    turn = max(tokenizer, painter)  # on the GPU one after the other
    cached = min(CACHED * expert, experts)
    by_turns = f"'cuda', experts_on_gpu={CACHED}, offload=True"
    ways = [
        Need("all on the GPU", "'cuda'", backbone + others, 0),
        Need("parts by turns on the GPU", "'cuda', offload=True", backbone + turn, others),
        Need("experts from files to the GPU", by_turns, dense + cached + turn, others),
        Need("all in main memory", "'cpu'", 0, backbone + others),
        Need("experts stay in their files", "'cpu', mapped=True", 0, dense + others),
    ]
    if not others:  # a model of text alone has no parts that could wait
        del ways[1]
    return ways


def rounded_needs(weights: Weights) -> list[Need]:
    """The same where experts are rounded from 16 bits to 8 or to 4."""
    dense, experts, _, tokenizer, painter = weights
    eight, four = (dense + experts * bits / 16 for bits in (EIGHT, FOUR))
    others, turn = tokenizer + painter, max(tokenizer, painter)
    return [
        Need("experts in 8 bits, by turns", "'cuda', bits=8, offload=True", eight + turn, others),
        Need("experts in 4 bits, in memory", "'cpu', bits=4", 0, four + others),
    ]


def fits(need: Need, free: Free) -> bool | None:
    """Whether weights take at most `USABLE` of what is free; None if that is not known."""
    if need.gpu > USABLE * (free.gpu or 0):
        return False
    return None if free.ram is None else need.ram <= USABLE * free.ram


def memory_lines(needs: list[Need], free: Free) -> list[str]:
    """The needs as lines, each with a word about this machine."""
    words = {True: "fits here", False: "does not fit here", None: "free memory unknown"}
    lines = []
    for need in needs:
        numbers = f"GPU {need.gpu:7.3f} GB, main memory {need.ram:7.3f} GB"
        lines.append(f"{need.mode:31s}{numbers}  {words[fits(need, free)]}: load(…, {need.call})")
    gpu = "no GPU" if free.gpu is None else f"GPU {free.gpu:.1f} GB"
    ram = "main memory unknown" if free.ram is None else f"main memory {free.ram:.1f} GB"
    return [*lines, f"free now: {gpu}, {ram}"] if lines else []


# Card and main memory; the system keeps 4 GB for itself.
MACHINES = {
    "24 GB card, 32 GB": Free(24 * GIB, 32 * GIB - 4),
    "48 GB card, 64 GB": Free(48 * GIB, 64 * GIB - 4),
    "80 GB card, 128 GB": Free(80 * GIB, 128 * GIB - 4),
    "laptop, 16 GB": Free(None, 16 * GIB - 4),
    "laptop, 32 GB": Free(None, 32 * GIB - 4),
}


def memory_table(size: Size = "full") -> str:
    """What fits where, for the sizes of a released checkpoint, as a table in Markdown."""
    weights = released_weights(size)
    only_asking = weights._replace(painter=0)
    lines = [f"| {' | '.join(['`load(…)` with', 'GPU', 'memory', *MACHINES])} |"]
    lines.append("|---" * (3 + len(MACHINES)) + "|")
    drawing, asking = (needs(some) + rounded_needs(some) for some in (weights, only_asking))
    for need, ask in zip(drawing, asking):
        cells = [f"`{need.call}`", f"{need.gpu:.1f} GB", f"{need.ram:.1f} GB"]
        for free in MACHINES.values():
            otherwise = "no drawing" if fits(ask, free) else "–"
            cells.append("yes" if fits(need, free) else otherwise)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)

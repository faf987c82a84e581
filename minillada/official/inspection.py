"""What a checkpoint's folder holds, whether it is complete, and which memory it needs.

Notable choices
- Only headers are read, so 60 GB take seconds. `wrong_digests` reads every byte.
- Every fault of every file is listed, not the first one alone.
- Memory counts weights in bfloat16. What a forward pass needs besides depends on the picture's
  size: leave a tenth of the memory free.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

import torch
from tqdm import tqdm

from ..config import ModelConfig
from ..extras.packages import load_package
from ..files import checksum
from ..presets.official import LLADA2_UNI
from .backbone import layout_of
from .config import read_config
from .free import Free
from .names import backbone_entries, prefixed
from .painter import (
    DECODER_WEIGHTS,
    VAE_WEIGHTS,
    build_transformer,
    build_vae,
    diffusers_name,
    load_sigvq,
)
from .reading import Shapes, find, read_json, renamed, shapes_of
from .shards import INDEX, SINGLE, read_header, read_index
from .siglip import QuantiserConfig, SigLIPVQ, described_tokenizer
from .sums import SUMS, known_sums
from .text import check_codebook, load_vocabulary
from .vision import VisionConfig
from .writing import Entry

USABLE = 0.9  # of the free memory, for weights


class Part(NamedTuple):
    """One part of a checkpoint: its parameters, and one sentence for each fault."""

    name: str
    parameters: int
    faults: list[str]
    note: str = ""  # why it was counted and not checked


# --- headers -------------------------------------------------------------------------------------


def header_shapes(path: Path, rename: Callable[[str], str] = str) -> Shapes:
    """Names and shapes of a safetensors file; `ValueError` for a broken one or a type like FP8."""
    shapes = {stored.key: stored.shape for stored in read_header(path)}
    return {name: shapes[key] for name, key in renamed(shapes, rename, path).items()}


def differences(wanted: Shapes, found: Shapes) -> list[str]:
    """One sentence for each tensor that is missing, unexpected or misshapen."""
    faults = [f"{key} is missing" for key in sorted(wanted.keys() - found.keys())]
    faults += [f"{key} is unexpected" for key in sorted(found.keys() - wanted.keys())]
    for key in sorted(wanted.keys() & found.keys()):
        if wanted[key] != found[key]:
            faults.append(f"{key} has shape {list(found[key])}, not {list(wanted[key])}")
    return faults


def count(shapes: Shapes) -> int:
    """Numbers in all tensors."""
    return sum(torch.Size(shape).numel() for shape in shapes.values())


# --- parts ---------------------------------------------------------------------------------------


Inspection = Callable[[Path], tuple[Shapes, list[str]]]  # of a folder: tensors, and faults
# The files with the weights of a part, one of which is there; the part's folder has its name.
NEED_DIFFUSERS = {
    "decoder-turbo": DECODER_WEIGHTS,
    "decoder": DECODER_WEIGHTS,
    "vae": (VAE_WEIGHTS,),
}
# The tensors that tell how many codes a part has, which condition a decoder reads, and the latents
# that it makes and the VAE reads.
CODES = {
    "image tokenizer": "model.vqmodel.quantize.embedding.weight",
    "painter's embedding": "prior_token_embedding.weight",
}
CONDITION = "cap_embedder.1.weight"
PATCHES, LATENT = "all_x_embedder.2-1.weight", "decoder.conv_in.weight"


def inspected(name: str, way: Inspection, folder: Path) -> tuple[Part, Shapes]:
    """A part as found in this way; what makes it unreadable becomes its one fault."""
    try:
        shapes, faults = way(folder)
    except (ValueError, OSError) as error:
        return Part(name, 0, [str(error)]), {}
    return Part(name, count(shapes), faults), shapes


def inspect_backbone(folder: Path) -> tuple[Shapes, list[str]]:
    """Shards against `config.json`, and against the index that says which file has which tensor."""
    config = read_config(folder)
    path = find(folder, INDEX, SINGLE)
    faults: list[str] = []
    if path.name == SINGLE:
        found = header_shapes(path)
        layout = layout_of(config, found, folder)
    else:
        layout = layout_of(config, read_index(path), folder)
        found, faults = indexed_shapes(path)
    wanted = backbone_entries(config, layout)
    if any(key.startswith("model.language_model.") for key in found):
        wanted = [Entry(prefixed(entry.key), entry.shape) for entry in wanted]
    return found, faults + differences({entry.key: entry.shape for entry in wanted}, found)


def indexed_shapes(path: Path) -> tuple[Shapes, list[str]]:
    """The tensors of all files of an index, and how they differ from it."""
    where, faults = read_index(path), []
    found: Shapes = {}
    size = 0
    for name in sorted(set(where.values())):
        if not (path.parent / name).is_file():
            faults.append(f"{name} is missing")
            continue
        for stored in read_header(path.parent / name):
            size += stored.end - stored.begin
            if stored.key in found:
                faults.append(f"{stored.key} stands twice")
            elif stored.key not in where:
                faults.append(f"{stored.key} of {name} is not in {INDEX}")
            elif where[stored.key] != name:
                faults.append(f"{stored.key} is in {name}, not where {INDEX} says")
            found[stored.key] = stored.shape
    total = read_json(path).get("metadata", {}).get("total_size", size)
    if total != size and not faults:
        faults.append(f"{INDEX} speaks of {total} bytes, and its files hold {size}")
    return found, faults


def inspect_text(folder: Path) -> tuple[Shapes, list[str]]:
    load_vocabulary(folder)  # small enough to be read
    return {}, []


def inspect_tokenizer(folder: Path) -> tuple[Shapes, list[str]]:
    tokenizer, files = described_tokenizer(folder / "image_tokenizer")
    found = header_shapes(files[-1])
    return found, differences(shapes_of(tokenizer), found)


def inspect_sigvq(folder: Path) -> tuple[Shapes, list[str]]:
    """0.4 GB without a header, so it is read as a whole, but not kept."""
    path = find(folder / "image_tokenizer", "sigvq_embedding.pt")
    return shapes_of(load_sigvq(path, "cpu", torch.bfloat16)), []


def painter_shapes(folder: Path, name: str) -> Shapes:
    """What the weights of a decoder or of the VAE hold, by the names of `diffusers`."""
    return header_shapes(find(folder / name, *NEED_DIFFUSERS[name]), diffusers_name)


def counted(folder: Path, name: str) -> tuple[Shapes, list[str]]:
    """A part whose class is in `diffusers`, where that is not installed."""
    return painter_shapes(folder, name), []


def inspect_decoder(folder: Path, name: str) -> tuple[Shapes, list[str]]:
    """One of the two diffusion transformers."""
    path = find(folder / name, "config.json")
    found = painter_shapes(folder, name)
    condition = found.get(CONDITION, ())
    if len(condition) != 2:
        raise ValueError(f"{folder / name} has no matrix {CONDITION}; download it again")
    # Its own width here; `compare_parts` compares it with the embedding's.
    wanted = shapes_of(build_transformer(read_json(path), condition[1], path))
    return found, differences(wanted, found)


def inspect_vae(folder: Path) -> tuple[Shapes, list[str]]:
    path = find(folder / "vae", "config.json")
    wanted = shapes_of(build_vae(path))
    found = painter_shapes(folder, "vae")
    return found, differences(wanted, found)


INSPECTIONS: dict[str, Inspection] = {
    "backbone": inspect_backbone,
    "text tokenizer": inspect_text,
    "image tokenizer": inspect_tokenizer,
    "painter's embedding": inspect_sigvq,
    "decoder-turbo": partial(inspect_decoder, name="decoder-turbo"),
    "decoder": partial(inspect_decoder, name="decoder"),
    "vae": inspect_vae,
}


def inspect(folder: Path) -> list[Part]:
    """Every part of a checkpoint's folder; without `diffusers` some are counted, not checked."""
    parts, note = [], ""
    try:
        load_package("diffusers", "official")
    except ValueError as error:
        note = f"not checked: {error}"
    found: dict[str, Shapes] = {}
    for name, inspection in INSPECTIONS.items():
        unchecked = note and name in NEED_DIFFUSERS
        way: Inspection = partial(counted, name=name) if unchecked else inspection
        part, found[name] = inspected(name, way, folder)
        parts.append(part._replace(note=note) if unchecked and not part.faults else part)
    compare_parts(parts, found, folder)
    return parts


def compare_parts(parts: list[Part], found: dict[str, Shapes], folder: Path) -> None:
    """Add a fault to each part that is whole but belongs to another model than the rest."""
    whole = {part.name: part for part in parts if not part.faults and not part.note}
    for name, key in CODES.items():
        if name in whole and "text tokenizer" in whole:
            try:
                check_codebook(name, found[name][key][0], folder)
            except ValueError as error:
                whole[name].faults.append(str(error))
    embedding = found["painter's embedding"].get(CODES["painter's embedding"], ())
    for name in ("decoder-turbo", "decoder"):
        if name not in whole:
            continue
        reads = found[name][CONDITION][-1]
        if "painter's embedding" in whole and embedding[-1] != reads:
            whole[name].faults.append(
                f"it reads conditions of {reads} features, and the painter's embedding makes "
                f"{embedding[-1]}; they belong to different models"
            )
        channels = found[name][PATCHES][-1] // 4  # a patch has 2 x 2 places
        if "vae" in whole and found["vae"][LATENT][1] != channels:
            whole[name].faults.append(
                f"it makes latents of {channels} channels, and the VAE reads "
                f"{found['vae'][LATENT][1]}; they belong to different models"
            )


def inspect_sums(folder: Path) -> tuple[Shapes, list[str]]:
    """Every byte, against SHA256SUMS."""
    return {}, wrong_digests(folder)


def wrong_digests(folder: Path) -> list[str]:
    """One sentence for each file that is missing or not the one that SHA256SUMS describes, and
    for each file of weights that it does not name: loading would refuse it, or warn.
    """
    if not (folder / SUMS).is_file():
        raise ValueError(f"{folder} has no {SUMS}, so its bytes cannot be checked")
    sums = known_sums(folder)
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".safetensors", ".pt")]
    names = [path.relative_to(folder).as_posix() for path in files]
    faults = [f"{SUMS} does not name {name}; make it again" for name in names if name not in sums]
    for name, digest in tqdm(sums.items(), "digests", leave=False):
        path = folder / name
        # Only the name is looked at: files of a download are links that lead out of the folder.
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise ValueError(f"{folder / SUMS} names {name}, which is outside the folder")
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif checksum(path) != digest:
            faults.append(f"{name} is not the file that {SUMS} describes")
    return faults


# --- memory --------------------------------------------------------------------------------------

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


def released_weights() -> Weights:
    """Sizes of the released checkpoint."""
    with torch.device("meta"):
        tokenizer = count(shapes_of(SigLIPVQ(VisionConfig(), QuantiserConfig())))
    backbone = sum(entry.count for entry in backbone_entries(LLADA2_UNI))
    parameters = PAINTER_PARTS | {"backbone": backbone, "image tokenizer": tokenizer}
    return weights_of(LLADA2_UNI, parameters)


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
    return [
        Need("all on the GPU", "'cuda'", backbone + others, 0),
        Need("parts by turns on the GPU", "'cuda', offload=True", backbone + turn, others),
        Need("experts from files to the GPU", by_turns, dense + cached + turn, others),
        Need("all in main memory", "'cpu'", 0, backbone + others),
        Need("experts stay in their files", "'cpu', mapped=True", 0, dense + others),
    ]


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


def memory_table() -> str:
    """What fits where, for the released sizes, as a table in Markdown."""
    weights = released_weights()
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

"""What a checkpoint's folder holds, and whether it is complete.

Notable choices
- Only headers are read, so 60 GB take seconds. `wrong_digests` reads every byte.
- Every fault of every file is listed, not the first one alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple

import torch
from tqdm import tqdm

from ..extras.packages import load_package
from ..files import checksum
from .backbone import layout_of
from .config import read_config
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
from .siglip import described_tokenizer
from .sums import SUMS, known_sums
from .text import check_codebook, is_text_model, load_vocabulary
from .writing import Entry


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


def inspections(folder: Path) -> dict[str, Inspection]:
    """Those of the parts that a folder should have."""
    try:
        text_alone = is_text_model(read_json(find(folder, "config.json")), folder)
    except (ValueError, OSError):  # the first inspection says what is wrong
        text_alone = False
    names = ("backbone", "text tokenizer") if text_alone else INSPECTIONS
    return {name: INSPECTIONS[name] for name in names}


def inspect(folder: Path) -> list[Part]:
    """Every part of a checkpoint's folder; without `diffusers` some are counted, not checked."""
    parts, note = [], ""
    try:
        load_package("diffusers", "official")
    except ValueError as error:
        note = f"not checked: {error}"
    found: dict[str, Shapes] = {}
    for name, inspection in inspections(folder).items():
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
    embedding = found.get("painter's embedding", {}).get(CODES["painter's embedding"], ())
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

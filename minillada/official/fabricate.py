"""A random checkpoint in the layout of the official folder: what it draws and says is noise.

It serves to try the code that reads the real one, at a size that fits: `tiny` has a few MB, `full`
the real shapes (33 GB for the backbone, 60 GB in all), fewer with `layers`. Models of text alone
have three sizes of their own (`sizes`).

Notable choices
- Files are written number by number, so memory stays small at every size.
- SHA256SUMS beside the files says what they should be (`sums.py`).
- The text tokenizer is a real one, trained on a few sentences. Its special tokens have other ids
  than the released ones: code that assumes an id fails here.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn

from ..config import ModelConfig
from ..extras.packages import load_package
from ..files import atomic
from ..vocab import BOI, END_IMAGE, EOS, IMAGE, MASK, size_token
from .names import Layout, backbone_entries, prefixed, root_config
from .painter import VAE_WEIGHTS, SigVQ, build, build_transformer, official_name
from .reading import shapes_of
from .siglip import SigLIPVQ
from .sizes import Size, Sizes, sizes_of
from .sums import write_sums
from .writing import Entry, tensors, write_json, write_safetensors

PARTS = ("backbone", "image_tokenizer", "decoder", "decoder-turbo", "vae")
SENTENCES = ["A fox in the snow.", "What is on the table?", "Make the background a beach."]


# --- what each file holds ------------------------------------------------------------------------


def shards_of(entries: list[Entry], count: int) -> list[list[Entry]]:
    """The tensors in their order, in `count` files of about equal size."""
    total = sum(entry.bytes for entry in entries)
    shards: list[list[Entry]] = [[] for _ in range(count)]
    before = 0
    for entry in entries:
        # A tensor belongs to the file in which its middle lies.
        shards[min(count - 1, (before + entry.bytes // 2) * count // total)].append(entry)
        before += entry.bytes
    return [shard for shard in shards if shard]


def entries_of(module: nn.Module, dtype: torch.dtype = torch.bfloat16) -> list[Entry]:
    """What a module stores."""
    return [Entry(key, shape, dtype) for key, shape in shapes_of(module).items()]


def tokenizer_entries(sizes: Sizes) -> list[Entry]:
    with torch.device("meta"):
        return entries_of(SigLIPVQ(sizes.vision, sizes.quantiser))


def sigvq_entries(sizes: Sizes) -> list[Entry]:
    with torch.device("meta"):
        sigvq = SigVQ(sizes.quantiser.num_embeddings, sizes.condition)
    return entries_of(sigvq, torch.float32)


def decoder_entries(sizes: Sizes) -> list[Entry]:
    transformer = build_transformer(sizes.decoder, sizes.condition, Path("config.json"))
    return [replace(entry, key=official_name(entry.key)) for entry in entries_of(transformer)]


def vae_entries(sizes: Sizes) -> list[Entry]:
    return entries_of(build("AutoencoderKL", sizes.vae, Path("config.json")))


def part_entries(part: str, sizes: Sizes) -> list[Entry]:
    """The tensors of one of `PARTS`."""
    if part == "backbone":
        return backbone_entries(sizes.backbone)
    if part == "image_tokenizer":
        return tokenizer_entries(sizes) + sigvq_entries(sizes)
    return vae_entries(sizes) if part == "vae" else decoder_entries(sizes)


# --- the folder ----------------------------------------------------------------------------------


def fabricate(
    folder: Path,
    size: Size = "tiny",
    seed: int = 0,
    layers: int | None = None,
    layout: Layout = "released",
    sibling: bool = False,
    parts: tuple[str, ...] | None = None,
) -> None:
    """Write a random checkpoint into a new or empty folder.

    `layers` of the backbone, if not all; `layout` and `sibling` as in `names`; `parts` of the
    checkpoint, if not all that it has. The same seed gives the same numbers in every layout.
    `ValueError` for a folder that holds something, and for names that are none.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; choose a new one")
    sizes = sizes_of(size, layers)
    known = PARTS if sizes.images else PARTS[:1]  # a model of text alone is a backbone
    parts = known if parts is None else parts
    for part in parts:
        if part not in known:
            raise ValueError(f"there is no part {part!r}; choose from {', '.join(known)}")
    if layout not in get_args(Layout):
        raise ValueError(f"a layout is 'released' or 'fused', not {layout!r}")
    if not {"decoder", "decoder-turbo", "vae"}.isdisjoint(parts):
        load_package("diffusers", "official")  # its absence is said before anything is written
    check_disk(folder, sizes, parts)
    if "backbone" in parts:
        write_backbone(folder, sizes, seed, layout, sibling)
    if "image_tokenizer" in parts:
        write_image_tokenizer(folder / "image_tokenizer", sizes, seed)
    if "decoder" in parts:
        write_decoder(folder / "decoder", sizes, seed)
    if "decoder-turbo" in parts:
        write_decoder(folder / "decoder-turbo", sizes, seed + 1)
    if "vae" in parts:
        config = sizes.vae | {"_class_name": "AutoencoderKL"}
        write_json(folder / "vae" / "config.json", config)
        write_safetensors(folder / "vae" / VAE_WEIGHTS, vae_entries(sizes), seed)
    write_sums(folder)


def check_disk(folder: Path, sizes: Sizes, parts: tuple[str, ...]) -> None:
    """`ValueError` if the weights are larger than what is free on the disk."""
    needed = sum(entry.bytes for part in parts for entry in part_entries(part, sizes)) / 1e9
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    if needed > free:
        raise ValueError(
            f"{folder} takes {needed:.1f} GB, and its disk has {free:.1f} GB free; choose another "
            "place, fewer layers or fewer parts"
        )


def write_backbone(folder: Path, sizes: Sizes, seed: int, layout: Layout, sibling: bool) -> None:
    """Text tokenizer, `config.json`, shards and their index."""
    tokenizer = text_tokenizer()
    with atomic(folder / "tokenizer.json") as temporary:
        tokenizer.save(str(temporary))
    eos_id, config = tokenizer.get_vocab()[EOS], sizes.backbone
    codes = sizes.quantiser.num_embeddings  # the last ids
    offset = config.vocab_size - codes if sizes.images else None
    write_weights(folder, config, offset, eos_id, sizes.shards, seed, layout, sibling)


def write_weights(
    folder: Path,
    config: ModelConfig,
    offset: int | None,
    eos_id: int,
    files: int,
    seed: int,
    layout: Layout = "released",
    sibling: bool = False,
) -> None:
    """`config.json`, shards and their index of a backbone, in so many files."""
    write_json(folder / "config.json", root_config(config, offset, eos_id, layout))
    shards = shards_of(backbone_entries(config, layout), files)
    rename: Callable[[str], str] = prefixed if sibling else str
    where = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / name, shard, seed, rename)
        for entry in shard:
            where[rename(entry.key)] = name
    total = sum(entry.bytes for shard in shards for entry in shard)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write_json(folder / "model.safetensors.index.json", index)


def text_tokenizer() -> Tokenizer:
    """A byte-level BPE with the official special tokens and sizes up to 64."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    sizes = [size_token(n) for n in range(1, 65)]
    # As released, roles and `<uncondition>` are no special tokens: they are split.
    tokenizer.add_special_tokens([EOS, MASK, "<|role_end|>", IMAGE, END_IMAGE, BOI, *sizes])
    return tokenizer


def write_image_tokenizer(folder: Path, sizes: Sizes, seed: int) -> None:
    """The image tokenizer and, beside it, the painter's embedding."""
    config = {
        "vision_config": sizes.vision.model_dump(),
        "vq_config": sizes.quantiser.model_dump(),
    }
    write_json(folder / "config.json", config)
    half = [0.5, 0.5, 0.5]
    preprocessing = {"image_mean": half, "image_std": half, "patch_size": sizes.vision.patch_size}
    preprocessing |= {"merge_size": 1, "temporal_patch_size": 1, "rescale_factor": 1 / 255}
    write_json(folder / "preprocessor_config.json", preprocessing)
    write_safetensors(folder / "model.safetensors", tokenizer_entries(sizes), seed)
    with atomic(folder / "sigvq_embedding.pt") as temporary:
        torch.save(tensors(sigvq_entries(sizes), seed), temporary)


def write_decoder(folder: Path, sizes: Sizes, seed: int) -> None:
    """One diffusion transformer; loading replaces three settings of its file."""
    released = {"axes_lens": [1024, 512, 512], "cap_feat_dim": 2560, "siglip_feat_dim": None}
    name = {"_class_name": "ZImageTransformer2DModel"}
    write_json(folder / "config.json", sizes.decoder | released | name)
    write_safetensors(folder / "model.safetensors", decoder_entries(sizes), seed)

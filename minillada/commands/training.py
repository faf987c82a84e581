"""Commands that make weights and codes: train, encode and merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from .. import checkpoint
from ..datasets.pool import store_pools
from ..datasets.table import DATASETS, data_set_of, named
from ..evaluation import likelihood
from ..extras import merging
from ..model import Backbone
from ..presets import PRESETS, get_preset, read_settings
from ..settings import changed
from ..training import train as training
from ..training.distributed import joined, local_device
from ..training.run import Run
from ..vq import ImageTokenizer
from .common import (
    Device,
    Json,
    OptionalSeed,
    Seed,
    Tensorboard,
    argument,
    best_device,
    check_device,
    option,
    print_json,
)

Overwrite = Annotated[bool, option("Replace the run in the folder.", "--overwrite")]


def train(
    preset: Annotated[str, argument("One of: " + ", ".join(sorted(PRESETS)))],
    out: Annotated[Path | None, option("Folder of the run; default runs/PRESET.")] = None,
    steps: Annotated[int | None, option("Training steps.")] = None,
    learning_rate: Annotated[float | None, option("Peak learning rate.")] = None,
    resume: Annotated[bool, option("Go on with a stopped run, to the bit.", "--resume")] = False,
    overwrite: Overwrite = False,
    save_every: Annotated[int | None, option("Steps between saved states.")] = None,
    bf16: Annotated[bool, option("Compute in bfloat16.", "--bf16")] = False,
    tokenizer: Annotated[str | None, option("Image tokenizer to read with.")] = None,
    start: Annotated[str | None, option("Weights to start from, by name or folder.")] = None,
    setting: Annotated[list[str] | None, option("NAME=VALUE; repeatable.", "--set")] = None,
    snapshot_every: Annotated[int | None, option("Steps between weights kept for `merge`.")] = None,
    tensorboard: Tensorboard = False,
    sharding: Annotated[str, option("Under torchrun: ddp or fsdp.")] = "none",
    device: Device = "cpu",
    seed: OptionalSeed = None,
    as_json: Json = False,
) -> None:
    """Train a preset: text pieces, judge, image tokenizer, backbone or painter.

    What is not given is the preset's. Any other setting is changed by --set, such as views=2.
    `torchrun --nproc-per-node N -m minillada train …` shares the work among N processes.
    """
    settings = read_settings(
        setting or [],
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        bfloat16=bf16 or None,
        tokenizer=tokenizer,
    )
    chosen = changed(get_preset(preset), **settings)
    out = out or Path("runs") / preset
    # Each process checks its own GPU, and touches no other.
    device = local_device(best_device() if device == "auto" else device)
    with joined(sharding, check_device(device)) as processes:
        run = Run(
            out,
            resume,
            overwrite,
            save_every,
            snapshot_every,
            tensorboard=tensorboard,
            processes=processes,
        )
        _, records = training.train(chosen, run, processes.device, start)
    last = records[-1] if records else {}
    if not processes.is_first:
        return
    if as_json:
        print_json({"out": str(out), **last})
    else:
        print(f"finished in {out}; last step: {last or 'none left to do'}")


def encode(
    dataset: Annotated[str, argument("One of: " + ", ".join(DATASETS))],
    tokenizer: Annotated[
        str | None, option("Image tokenizer whose codes are stored; none: columns alone.")
    ] = None,
    out: Annotated[Path | None, option("File to write; default the shipped one.")] = None,
    device: Device = "cpu",
    seed: Seed = 0,  # without effect: nothing is random
) -> None:
    """Measure every image of a data set, encode it, and store both for trainings."""
    data, module, about = named(dataset), None, None
    if tokenizer is not None:
        module, info = checkpoint.load_model(tokenizer, ImageTokenizer, check_device(device))
        about = {"tokenizer": tokenizer, "tokenizer_sha256": info["sha256"]}
    print(f"saved {store_pools(data, module, about, out)}")


def merge(
    weights: Annotated[
        list[str], argument("Runs' folders (all their snapshots), .safetensors files or names.")
    ],
    top: Annotated[int, option("How many of the best to average.", min=2)] = 3,
    samples: Annotated[int, option("Validation images that choose them.", min=2, max=1000)] = 500,
    out: Annotated[Path, option("Folder of the result.")] = Path("runs/merged"),
    overwrite: Overwrite = False,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Average the best checkpoints of a backbone, chosen by the bound on held-out images."""
    device = check_device(device)
    # 1. everything is checked before the minutes that ranking takes
    paths = merging.distinct(weights)
    if len(paths) < top:
        raise ValueError(
            f"too few different checkpoints ({len(paths)}) to choose the best {top}; "
            "keep more with `minillada train … --snapshot-every N`"
        )
    if out.resolve() in [path.parent.resolve() for path in paths]:
        raise ValueError(f"{out} holds what is to be averaged; choose another folder with --out")
    run = Run(out, overwrite=overwrite)
    run.check_folder(trains=False)
    data, *others = sorted({data_set_of(checkpoint.read_info(path)).name for path in paths})
    if others:
        raise ValueError(
            f"some checkpoints learned from {data}, some from {others[0]}; "
            "only checkpoints of the same model can be merged"
        )
    images, texts = likelihood.validation_images(samples, DATASETS[data])
    with run.locked():
        run.check_folder(trains=False)  # once more: another run may have begun
        # 2. the best, and their mean
        ranked = likelihood.rank_checkpoints(paths, images, texts, device, seed=seed)
        merged, info = merging.merge([path for path, _ in ranked[:top]], Backbone)
        run.clear()
        path = out / "weights.safetensors"
        checkpoint.save_model(path, merged, info)
        # 3. The mean is measured like its parts: on the same images, with the same masks.
        [(_, bits)] = likelihood.rank_checkpoints([path], images, texts, device, seed=seed)
    if as_json:
        by_path = {str(path): value for path, value in ranked}
        print_json({"out": str(out), "merged_bits": bits, "top": top, "bits": by_path})
        return
    for place, (path, value) in enumerate(ranked):
        print(f"{value:8.4f} bits per token  {path}{'  averaged' if place < top else ''}")
    print(f"{bits:8.4f} bits per token  {out}, their mean")

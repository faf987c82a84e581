"""What the commands share: options, checks that come before the work, saving and printing.

Notable choices
- Whatever can be refused is refused before a model is loaded.
- A picture's file is opened before the picture is drawn, and it is saved before anything is
  printed: neither a full disk nor an odd terminal can cost the work.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from unicodedata import category

import typer
from torch import Tensor

from .. import checkpoint
from ..datasets.table import DataSet, data_set_of
from ..files import atomic
from ..training.state import saved_step
from ..uni import Uni, as_device, best_device, load


def option(help: str, *names: str, **rules: Any) -> Any:
    """An option with its help text; `names` if it is not called as its parameter is."""
    return typer.Option(*names, help=help, **rules)


def argument(help: str) -> Any:
    """A positional argument with its help text."""
    return typer.Argument(help=help)


# What PIL calls the format of a picture, by the ending of its name.
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
# In a row or column. Each is 34 px, three times enlarged: 51,000 px. A JPEG has 65,535 at most.
MOST_PICTURES = 500
LARGEST_TYPED = 10**9  # a seed on the command line: far below `LARGEST_SEED`, for some count on
JOINERS = "\u200c\u200d"  # without width: Persian words and many emoji are written with them


def check_range(name: str, value: float, low: int, high: int) -> None:
    """`ValueError` unless a number lies between two limits."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be at least {low} and at most {high:,}, got {value}")


def check_seed(seed: int | None) -> int | None:
    """The seed, as a callback of its option."""
    if seed is not None:
        check_range("seed", seed, 0, LARGEST_TYPED)
    return seed


def check_texts(texts: Sequence[str]) -> None:
    """`UnicodeError` for text that was typed in another encoding than the terminal's."""
    for text in texts:
        text.encode("utf-8")


Model = Annotated[str, option("Shipped weights by name, a run's folder, or a .safetensors file.")]
Device = Annotated[
    str, option("cpu, cuda, cuda:1, xpu, mps, or auto: the first GPU that is there.")
]
Seed = Annotated[int, option("Seed of every random choice.", callback=check_seed)]
OptionalSeed = Annotated[int | None, option("Seed, if not the preset's.", callback=check_seed)]
Json = Annotated[bool, option("Print JSON and nothing else.", "--json")]
Tensorboard = Annotated[
    bool, option("Write the metrics for TensorBoard, too, into the run's folder.", "--tensorboard")
]
Out = Annotated[Path, option("Picture to write: .png or .jpg.")]


def check_device(name: str) -> str:
    """The device name, or `ValueError` if this machine cannot compute on it."""
    name = best_device() if name == "auto" else name
    as_device(name)
    return name


def check_finished(name: str) -> None:
    """`ValueError`, with what to do, for the folder of a run that was stopped."""
    folder = Path(name)
    if checkpoint.shipped(name) or (folder / "weights.safetensors").exists():
        return
    snapshots = sorted(folder.glob("step-*.safetensors")) if folder.is_dir() else []
    state = folder / "state.safetensors"
    if not snapshots and not state.exists():
        return  # no run at all: loading says so
    advice = f"finish it with `minillada train PRESET --out {name} --resume`"
    if snapshots:
        advice += f", or take a snapshot: {snapshots[-1]}"
    reached = f"it was stopped after step {saved_step(state)}" if state.exists() else "no weights"
    raise ValueError(f"the run in {name} is not finished ({reached}); {advice}")


def load_finished(name: str, device: str) -> Uni:
    """The model of a name, on a device that is there."""
    device = check_device(device)
    check_finished(name)
    if checkpoint.shipped(name) and (Path(name) / "weights.safetensors").is_file():
        text = f"{name!r} is the shipped model; write ./{name} for the run in that folder"
        warnings.warn(text, stacklevel=2)
    return load(name, device)


def images_of(name: str) -> tuple[DataSet, int]:
    """The data set of a model, and the channels of its tokenizer's images; 1 if that is unknown."""
    check_finished(name)
    info = checkpoint.read_info(checkpoint.resolve(name))
    data = data_set_of(info)
    if "tokenizer" not in info:
        return data, 1  # loading says what is wrong
    about = checkpoint.read_info(checkpoint.resolve(info["tokenizer"]))
    return data, about.get("config", {}).get("channels", 1)


def check_picture(out: Path) -> None:
    """`ValueError` for a name that no picture has, or that is a folder's."""
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"cannot write {out}: a picture's name ends in {' or '.join(FORMATS)}")
    if out.is_dir():
        raise ValueError(f"cannot write {out}: it is a folder; choose another name")


@contextmanager
def picture_file(out: Path, used: Iterable[Path] = ()) -> Iterator[tuple[Path, str]]:
    """A temporary path that becomes `out`, and its format. `ValueError` if `out` is `used`, too."""
    check_picture(out)
    if os.path.realpath(out) in map(os.path.realpath, used):
        raise ValueError(f"{out} is also another file of this command; choose another name")
    with atomic(out) as temporary:
        yield temporary, FORMATS[out.suffix.lower()]


def save_images(images: Tensor, columns: int, file: tuple[Path, str]) -> None:
    """Save images `[B, C, H, W]` in rows of `columns`, enlarged, in a `file` of `picture_file`."""
    from ..show import grids  # it imports matplotlib, which takes a second

    picture = grids.to_pil(grids.tile(images, columns))
    # 0 is the nearest neighbour: each pixel of the model stays a sharp square.
    picture = picture.resize((picture.width * 3, picture.height * 3), 0)
    picture.save(*file)


def escaped(text: object) -> str:
    """Text without characters that would move a terminal's cursor or hide something."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def paragraphs(text: str) -> str:
    """A long answer: as `escaped`, but lines, blanks of any width and joined letters stay."""
    shown = []
    for character in text:
        stays = character in JOINERS or character in "\n\t" or category(character) == "Zs"
        shown.append(character if stays else escaped(character))
    return "".join(shown)


def print_texts(names: Sequence[object], texts: list[str], as_json: bool) -> None:
    """One text for each name, as lines or as a JSON list."""
    if as_json:
        return print_json([{"name": str(name), "text": text} for name, text in zip(names, texts)])
    for name, text in zip(names, texts):
        print(f"{escaped(name)}: {escaped(text)}")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


def print_report(report: dict, as_json: bool) -> None:
    """A flat report as JSON or as lines."""
    if as_json:
        return print_json(report)
    for name, value in report.items():
        print(f"{escaped(name)}: {escaped(value)}")

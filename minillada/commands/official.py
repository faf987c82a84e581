"""Commands for the official checkpoint: official info | check | memory | draw | describe | answer |
edit | think | interleave | fabricate.

Notable choices
- `official` is imported inside the commands: it needs more packages than the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from PIL import Image

from .common import (
    Device,
    Json,
    Out,
    Seed,
    argument,
    check_device,
    check_texts,
    escaped,
    option,
    picture_file,
    print_json,
    print_report,
)

if TYPE_CHECKING:
    from ..official.calls import OfficialModel

Place = Annotated[str, argument("Folder of the checkpoint, or its name on the Hugging Face hub.")]
Text = Annotated[str, argument("What to draw, to change or to tell.")]
Number = Annotated[Literal["bfloat16", "float32"], option("Type of the weights.")]
Mapped = Annotated[bool, option("Leave the experts in their files.", "--mapped")]
ExpertsOnGPU = Annotated[int | None, option("Keep so many; fetch others from files.", min=1)]
Offload = Annotated[bool, option("Let tokenizer and painter wait in main memory.", "--offload")]
Painter = Annotated[Literal["turbo", "normal"], option("turbo: 8 steps; normal: 50.")]
PainterSteps = Annotated[int | None, option("Steps of the painter, if not those.", min=1)]
Side = Annotated[int, option("Side of the picture in pixels, a multiple of 32.")]
Steps = Annotated[int, option("Steps for a block of 32 tokens.", min=1)]


def official_model(
    place: str,
    device: str,
    dtype: str,
    mapped: bool,
    offload: bool,
    experts_on_gpu: int | None,
    painter_steps: int | None = None,
) -> OfficialModel:
    """The checkpoint, as the options say."""
    from ..official import load

    more: dict[str, Any] = {"mapped": mapped, "offload": offload, "experts_on_gpu": experts_on_gpu}
    model = load(place, check_device(device), dtype, **more)
    if painter_steps:
        model.painter_steps = dict.fromkeys(model.painter_steps, painter_steps)
    return model


def open_photo(path: Path) -> Image.Image:
    """A picture file; `ValueError` if it is none."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise ValueError(f"there is no picture {path}") from None
    except Exception as error:  # every format has its own
        raise ValueError(f"{path} is not a picture that can be read ({error})") from None


def info(place: Place, as_json: Json = False) -> None:
    """What a checkpoint is: sizes, parameters, special ids."""
    from ..official import inspection
    from ..official.config import read_config
    from ..official.hub import local_folder
    from ..official.text import load_vocabulary

    folder = local_folder(place)
    config, vocab = read_config(folder), load_vocabulary(folder)
    report = {"folder": str(folder), "context": config.max_position_embeddings}
    for name in ("num_hidden_layers", "hidden_size", "num_experts", "num_experts_per_tok"):
        report[name] = getattr(config, name)
    for part in inspection.inspect(folder):
        report[f"parameters of the {part.name}"] = part.parameters
    report |= {"text ids": vocab.image_token_offset, "image codes": vocab.codebook_size}
    report |= {"id of the mask": vocab.mask_id, "id of the end": vocab.eos_id}
    print_report(report, as_json)


def check(
    place: Place,
    digests: Annotated[bool, option("Read every byte, too, against SHA256SUMS.")] = False,
    as_json: Json = False,
) -> None:
    """What is missing, extra or misshapen, and which memory is needed; exit code 2 for a fault."""
    from ..official import inspection
    from ..official.hub import local_folder

    folder = local_folder(place)
    parts = inspection.inspect(folder)
    faults = [f"{part.name}: {fault}" for part in parts for fault in part.faults]
    if digests:
        faults += inspection.wrong_digests(folder)
    free = inspection.free_memory()
    needs = [] if faults else inspection.needs_of(folder, parts)
    if as_json:
        memory = [need._asdict() | {"fits": inspection.fits(need, free)} for need in needs]
        found = [part._asdict() for part in parts]
        print_json({"parts": found, "faults": faults, "memory": memory, "free": free._asdict()})
    else:
        print_parts(parts)
        for line in inspection.memory_lines(needs, free):
            print(line)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ValueError(f"{faults[0]}{more}")


def print_parts(parts: list) -> None:
    """A line for each part, then its first faults."""
    for part in parts:
        state = part.note or (f"{len(part.faults)} faults" if part.faults else "complete")
        print(f"{part.name + ':':22s}{part.parameters:>15,} parameters, {escaped(state)}")
        for fault in part.faults[:5]:
            print(f"    {escaped(fault)}")


def memory() -> None:
    """What fits where: a table for the released sizes, without a checkpoint."""
    from ..official.inspection import memory_table

    print(memory_table())


def draw(
    place: Place,
    prompt: Text,
    size: Side = 1024,
    steps: Steps = 8,
    guidance: Annotated[float, option("Guidance scale; 1 is none.")] = 2.0,
    painter: Painter = "turbo",
    painter_steps: PainterSteps = None,
    out: Out = Path("outputs/official.png"),
    device: Device = "cpu",
    dtype: Number = "bfloat16",
    mapped: Mapped = False,
    experts_on_gpu: ExpertsOnGPU = None,
    offload: Offload = False,
    seed: Seed = 0,
) -> None:
    """Draw a text."""
    check_texts([prompt])
    model = official_model(place, device, dtype, mapped, offload, experts_on_gpu, painter_steps)
    with picture_file(out) as (path, kind):
        picture = model.draw(
            prompt, size=size, steps=steps, guidance=guidance, painter=painter, seed=seed
        )
        picture.save(path, kind)
    print(f"saved {out}")


def describe(
    place: Place,
    photo: Annotated[Path, argument("A picture file.")],
    device: Device = "cpu",
    dtype: Number = "bfloat16",
    mapped: Mapped = False,
    experts_on_gpu: ExpertsOnGPU = None,
    offload: Offload = False,
    length: Annotated[int, option("Tokens at most.", min=1)] = 2048,
) -> None:
    """Describe a photo."""
    read = open_photo(photo)
    model = official_model(place, device, dtype, mapped, offload, experts_on_gpu)
    print(escaped(model.describe(read, length=length)))


def answer(
    place: Place,
    photos: Annotated[list[Path], argument("Picture files, all about one question.")],
    question: Annotated[str, option("What to ask.")],
    device: Device = "cpu",
    dtype: Number = "bfloat16",
    mapped: Mapped = False,
    experts_on_gpu: ExpertsOnGPU = None,
    offload: Offload = False,
    length: Annotated[int, option("Tokens at most.", min=1)] = 2048,
) -> None:
    """Answer a question about one photo or several."""
    check_texts([question])
    read = [open_photo(photo) for photo in photos]
    model = official_model(place, device, dtype, mapped, offload, experts_on_gpu)
    print(escaped(model.answer(read, question, length=length)))


def edit(
    place: Place,
    photo: Annotated[Path, argument("A picture file.")],
    instruction: Annotated[str, option("For example 'make the background a beach'.")],
    steps: Steps = 8,
    guidance_text: Annotated[float, option("Scale of (instruction - none).")] = 4.0,
    guidance_image: Annotated[float, option("Scale of (image - none).")] = 0.0,
    crop: Annotated[
        Literal["served", "released"], option("served: resize, then cut; released: cut alone.")
    ] = "served",
    painter: Painter = "turbo",
    painter_steps: PainterSteps = None,
    out: Out = Path("outputs/official.png"),
    device: Device = "cpu",
    dtype: Number = "bfloat16",
    mapped: Mapped = False,
    experts_on_gpu: ExpertsOnGPU = None,
    offload: Offload = False,
    seed: Seed = 0,
) -> None:
    """Edit a photo."""
    check_texts([instruction])
    read = open_photo(photo)
    model = official_model(place, device, dtype, mapped, offload, experts_on_gpu, painter_steps)
    scales = {"guidance_text": guidance_text, "guidance_image": guidance_image}
    with picture_file(out) as (path, kind):
        edited = model.edit(
            read, instruction, steps=steps, crop=crop, painter=painter, seed=seed, **scales
        )
        edited.save(path, kind)
    print(f"saved {out}")


def think(
    place: Place,
    prompt: Text,
    size: Side = 1024,
    steps: Steps = 8,
    painter: Painter = "turbo",
    painter_steps: PainterSteps = None,
    out: Out = Path("outputs/official.png"),
    device: Device = "cpu",
    dtype: Number = "bfloat16",
    mapped: Mapped = False,
    experts_on_gpu: ExpertsOnGPU = None,
    offload: Offload = False,
    seed: Seed = 0,
) -> None:
    """Think in words, then draw."""
    check_texts([prompt])
    model = official_model(place, device, dtype, mapped, offload, experts_on_gpu, painter_steps)
    with picture_file(out) as (path, kind):
        text, picture = model.think_and_draw(
            prompt, size=size, steps=steps, painter=painter, seed=seed
        )
        picture.save(path, kind)
    print(escaped(text))
    print(f"saved {out}")


def interleave(
    place: Place,
    prompt: Text,
    size: Side = 1024,
    steps: Steps = 32,
    images: Annotated[int, option("At most so many.", min=1)] = 10,
    painter: Painter = "turbo",
    painter_steps: PainterSteps = None,
    out: Annotated[Path, option("Folder for the pictures.")] = Path("outputs/official-story"),
    device: Device = "cpu",
    dtype: Number = "bfloat16",
    mapped: Mapped = False,
    experts_on_gpu: ExpertsOnGPU = None,
    offload: Offload = False,
    seed: Seed = 0,
) -> None:
    """Texts and pictures in turn."""
    check_texts([prompt])
    model = official_model(place, device, dtype, mapped, offload, experts_on_gpu, painter_steps)
    story = model.interleave(
        prompt, size=size, steps=steps, painter=painter, seed=seed, images=images
    )
    number = 0
    for part in story:
        if isinstance(part, str):
            print(escaped(part))
            continue
        number += 1
        with picture_file(out / f"{number}.png") as (path, kind):
            part.save(path, kind)
        print(f"[{out / f'{number}.png'}]")


def fabricate(
    folder: Annotated[Path, argument("A new folder.")],
    size: Annotated[
        Literal["tiny", "full"], option("tiny: a few MB; full: the real shapes, 60 GB.")
    ] = "tiny",
    layers: Annotated[int | None, option("Of the backbone, if not all.", min=1)] = None,
    part: Annotated[list[str] | None, option("Only this part; may be given again.")] = None,
    seed: Seed = 0,
) -> None:
    """Write a random checkpoint in the official layout: it draws and says noise."""
    from ..official.fabricate import PARTS
    from ..official.fabricate import fabricate as write

    write(folder, size, seed, layers, parts=tuple(part) if part else PARTS)
    print(f"wrote {folder}")


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The official 16B checkpoint, from a folder or from the Hugging Face hub.",
)
for command in (
    info, check, memory, draw, describe, answer, edit, think, interleave, fabricate,
):  # fmt: skip
    app.command()(command)

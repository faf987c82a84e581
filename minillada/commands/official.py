"""Commands for official checkpoints: official info | check | memory | chat | draw | describe |
answer | edit | think | interleave | fabricate.

Notable choices
- `official` is imported inside the commands: it needs more packages than the others.
- The options that say how a checkpoint is opened stand once, in `Reading` and `Opening`.
- Reading a checkpoint takes minutes. Texts, sizes and files are looked at before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..datasets.pictures import open_picture
from ..files import check_writable
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
    paragraphs,
    picture_file,
    print_json,
    print_report,
)

if TYPE_CHECKING:
    from PIL import Image

    from ..official.calls import OfficialModel
    from ..official.parts import PainterName

Place = Annotated[str, argument("Folder of the checkpoint, or its name on the Hugging Face hub.")]
Text = Annotated[str, argument("What to draw or to tell.")]
Photo = Annotated[Path, argument("A picture file.")]
Painter = Annotated[Literal["turbo", "normal"], option("turbo: 8 steps; normal: 50.")]
PainterSteps = Annotated[
    int | None, option("Steps of the painter, if not 8 or 50.", min=1, max=1000)
]
Side = Annotated[int, option("Side of the picture in pixels, a multiple of 32.")]
Steps = Annotated[int, option("Steps for a block of 32 tokens.", min=1)]
Length = Annotated[int, option("Tokens at most.", min=1)]
Guidance = Annotated[float, option("Guidance scale; 1 is none.")]
GuidanceImage = Annotated[float, option("Scale of (image - none).")]
PICTURE = Path("outputs/official.png")


@dataclass(frozen=True)
class Reading:
    """How the backbone of a checkpoint is read."""

    device: Device = "cpu"
    dtype: Annotated[Literal["bfloat16", "float32"], option("Type of the weights.")] = "bfloat16"
    mapped: Annotated[bool, option("Leave the experts in their files.", "--mapped")] = False
    experts_on_gpu: Annotated[int | None, option("Keep so many; fetch others.", min=1)] = None
    bits: Annotated[int | None, option("Round experts to 8 bits; with bitsandbytes to 4.")] = None

    def options(self) -> dict[str, Any]:
        """What `load` and `load_backbone` take."""
        return asdict(self) | {"device": check_device(self.device)}


@dataclass(frozen=True)
class Opening(Reading):
    """How a checkpoint is opened: the options of every command that draws or answers."""

    offload: Annotated[bool, option("Tokenizer and painter wait in memory.", "--offload")] = False
    context: Annotated[int | None, option("Tokens, if not those of the file.", min=1)] = None

    def load(
        self, place: str, painter: PainterName = "turbo", painter_steps: int | None = None
    ) -> OfficialModel:
        """The model; its painters take `painter_steps`, or their usual number of steps.

        `ValueError` before anything is read if they are too few for `painter`.
        """
        from ..official import load
        from ..official.parts import check_painter

        check_painter(painter, painter_steps)
        model = load(place, **self.options())
        if painter_steps:
            model.painter_steps = dict.fromkeys(model.painter_steps, painter_steps)
        return model


def opens(command: Callable[..., None]) -> Callable[..., None]:
    """A command that has the options of `Opening` or `Reading` behind its own, as `opening`."""
    # The command line reads names, types and defaults from the signature.
    own = dict(signature(command, eval_str=True).parameters)
    kind = own.pop("opening").annotation

    @wraps(command)
    def run(**given: Any) -> None:
        options = {field.name: given.pop(field.name) for field in fields(kind)}
        command(**given, opening=kind(**options))

    parameters = own | signature(kind, eval_str=True).parameters
    # By name: so an argument without a default may follow one with a default.
    by_name = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in parameters.values()]
    vars(run)["__signature__"] = Signature(by_name)
    # The site would look for these parameters in the source of the command, where they are not.
    del vars(run)["__wrapped__"]
    return run


def check_asked(text: str) -> None:
    """`ValueError` for an empty text, `UnicodeError` for one in another encoding."""
    check_texts([text])
    if not text.strip():
        raise ValueError("the text is empty; say what you want, for example 'a fox in the snow'")


def check_side(size: int) -> None:
    """`ValueError` for a side that no picture has. Later, the vocabulary refuses one too large."""
    if size < 32 or size % 32:
        raise ValueError(f"the side of a picture is a multiple of 32 pixels, not {size}")


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
        count = "not complete" if part.faults else part.parameters
        if part.name != "text tokenizer":  # it has none
            report[f"parameters of the {part.name}"] = count
    report |= {"text ids": vocab.image_token_offset, "image codes": vocab.codebook_size}
    report |= {"id of the mask": vocab.mask_id, "id of the end": vocab.eos_id}
    print_report(report, as_json)


def check(
    place: Place,
    digests: Annotated[bool, option("Read every byte, too, against SHA256SUMS.")] = False,
    as_json: Json = False,
) -> None:
    """What is missing, extra or misshapen, and the memory it takes; exit code 2 for a fault."""
    from ..official import inspection, needs
    from ..official.free import free_memory
    from ..official.hub import local_folder

    folder = local_folder(place)
    parts = inspection.inspect(folder)
    if digests:
        parts.append(inspection.inspected("checksums", inspection.inspect_sums, folder)[0])
    faults = [f"{part.name}: {fault}" for part in parts for fault in part.faults]
    free = free_memory()
    ways = [] if faults else needs.needs_of(folder, parts)
    if as_json:
        memory = [need._asdict() | {"fits": needs.fits(need, free)} for need in ways]
        found = [part._asdict() for part in parts]
        print_json({"parts": found, "faults": faults, "memory": memory, "free": free._asdict()})
    else:
        print_parts(parts)
        for line in needs.memory_lines(ways, free):
            print(line)
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ValueError(f"{faults[0]}{more}")


def print_parts(parts: list) -> None:
    """A line for each part, then its first faults."""
    for part in parts:
        count = "1 fault" if len(part.faults) == 1 else f"{len(part.faults)} faults"
        state = part.note or (count if part.faults else "complete")
        print(f"{part.name + ':':22s}{part.parameters:>15,} parameters, {escaped(state)}")
        for fault in part.faults[:5]:
            print(f"    {escaped(fault)}")


def memory(
    size: Annotated[
        Literal["full", "mini", "flash"], option("full: Uni; mini, flash: text alone.")
    ] = "full",
) -> None:
    """What fits where: a table for the released sizes, without a checkpoint."""
    from ..official.needs import memory_table

    print(memory_table(size))


@opens
def chat(
    place: Place,
    question: Annotated[str | None, argument("What to say; left out: a talk.")] = None,
    *,
    system: Annotated[str, option("How to answer, for example 'Answer in one sentence.'")] = "",
    length: Length = 2048,
    threshold: Annotated[float, option("Commit what is surer than this.", min=0, max=1)] = 0.95,
    edit_threshold: Annotated[
        float, option("Rewrite where another token is surer; 1: never.", min=0, max=1)
    ] = 1.0,
    opening: Opening,
) -> None:
    """Chat without pictures, with models of text alone (LLaDA2.0, LLaDA2.1), too."""
    if question is not None:
        check_asked(question)
    wishes: dict[str, Any] = {"system": system, "length": length, "threshold": threshold}
    wishes |= {"edit_threshold": edit_threshold}
    model = opening.load(place)
    said: list[str] = []
    for text in [question] if question is not None else typed_lines():
        answer = model.chat([*said, text], **wishes)
        print(paragraphs(answer))
        said += [text, answer]


def typed_lines() -> Iterator[str]:
    """What a user types, line by line; an empty line or the end of the input ends it."""
    while True:
        try:
            line = input("> ")
        except EOFError:
            return
        if not line.strip():
            return
        yield line


@opens
def draw(
    place: Place,
    prompt: Text,
    *,
    size: Side = 1024,
    steps: Steps = 8,
    guidance: Guidance = 2.0,
    painter: Painter = "turbo",
    painter_steps: PainterSteps = None,
    out: Out = PICTURE,
    seed: Seed = 0,
    opening: Opening,
) -> None:
    """Draw a text."""
    check_asked(prompt)
    check_side(size)
    wishes: dict[str, Any] = {"steps": steps, "guidance": guidance, "painter": painter}
    with picture_file(out) as (path, kind):
        model = opening.load(place, painter, painter_steps)
        model.draw(prompt, size=size, seed=seed, **wishes).save(path, kind)
    print(f"saved {out}")


@opens
def describe(place: Place, photo: Photo, *, length: Length = 2048, opening: Opening) -> None:
    """Describe a photo."""
    read = open_picture(photo)
    print(paragraphs(opening.load(place).describe(read, length=length)))


@opens
def answer(
    place: Place,
    photos: Annotated[list[Path], argument("Picture files, all about one question.")],
    question: Annotated[str, option("What to ask.")],
    *,
    length: Length = 2048,
    opening: Opening,
) -> None:
    """Answer a question about one photo or several."""
    check_asked(question)
    read = [open_picture(photo) for photo in photos]
    print(paragraphs(opening.load(place).answer(read, question, length=length)))


@opens
def edit(
    place: Place,
    photo: Photo,
    instruction: Annotated[str, option("For example 'make the background a beach'.")],
    *,
    steps: Steps = 8,
    guidance_text: Annotated[float, option("Scale of (instruction - none).")] = 4.0,
    guidance_image: GuidanceImage = 0.0,
    crop: Annotated[
        Literal["served", "released"], option("served: resize, then cut; released: cut alone.")
    ] = "served",
    painter: Painter = "turbo",
    painter_steps: PainterSteps = None,
    out: Out = PICTURE,
    seed: Seed = 0,
    opening: Opening,
) -> None:
    """Edit a photo."""
    check_asked(instruction)
    read = open_picture(photo)
    wishes: dict[str, Any] = {"guidance_text": guidance_text, "guidance_image": guidance_image}
    wishes |= {"steps": steps, "crop": crop, "painter": painter, "seed": seed}
    with picture_file(out, [photo]) as (path, kind):
        model = opening.load(place, painter, painter_steps)
        model.edit(read, instruction, **wishes).save(path, kind)
    print(f"saved {out}")


@opens
def think(
    place: Place,
    prompt: Text,
    *,
    size: Side = 1024,
    steps: Steps = 8,
    guidance: Guidance = 2.0,
    painter: Painter = "turbo",
    painter_steps: PainterSteps = None,
    length: Length = 4096,
    out: Out = PICTURE,
    seed: Seed = 0,
    opening: Opening,
) -> None:
    """Think in words, then draw."""
    check_asked(prompt)
    check_side(size)
    wishes: dict[str, Any] = {"steps": steps, "guidance": guidance, "painter": painter}
    with picture_file(out) as (path, kind):
        model = opening.load(place, painter, painter_steps)
        text, picture = model.think_and_draw(prompt, size=size, length=length, seed=seed, **wishes)
        picture.save(path, kind)
    print(paragraphs(text))
    print(f"saved {out}")


@opens
def interleave(
    place: Place,
    prompt: Text,
    *,
    size: Side = 1024,
    steps: Steps = 32,
    guidance: Guidance = 7.5,
    guidance_image: GuidanceImage = 1.5,
    images: Annotated[int, option("At most so many.", min=1)] = 10,
    painter: Painter = "turbo",
    painter_steps: PainterSteps = None,
    length: Length = 8192,
    out: Annotated[Path, option("Folder for the pictures.")] = Path("outputs/official-story"),
    seed: Seed = 0,
    opening: Opening,
) -> None:
    """Texts and pictures in turn."""
    check_asked(prompt)
    check_side(size)
    check_writable(out / "1.png", "it is not a folder, or you may not write there: choose another")
    model = opening.load(place, painter, painter_steps)
    wishes: dict[str, Any] = {"steps": steps, "guidance": guidance, "painter": painter}
    wishes |= {"guidance_image": guidance_image, "images": images, "length": length}
    story = model.interleave(prompt, size=size, seed=seed, **wishes)
    lines: list[str] = []
    pictures: dict[Path, Image.Image] = {}
    for part in story:
        if isinstance(part, str):
            lines.append(paragraphs(part))
            continue
        file = out / f"{len(pictures) + 1}.png"
        pictures[file] = part
        lines.append(f"[{file}]")
    try:
        for file, picture in pictures.items():
            with picture_file(file) as (path, kind):
                picture.save(path, kind)
    finally:  # no full disk can cost the texts
        for line in lines:
            print(line)


def fabricate(
    folder: Annotated[Path, argument("A new folder.")],
    size: Annotated[
        Literal["tiny", "full", "tiny-text", "mini", "flash"],
        option("tiny: a few MB; full: the real shapes, 60 GB; the others: text alone."),
    ] = "tiny",
    layers: Annotated[int | None, option("Of the backbone, if not all.", min=1)] = None,
    part: Annotated[list[str] | None, option("Only this part; may be given again.")] = None,
    seed: Seed = 0,
) -> None:
    """Write a random checkpoint in the official layout: it draws and says noise."""
    from ..official.fabricate import fabricate as write

    write(folder, size, seed, layers, parts=tuple(part) if part else None)
    print(f"wrote {folder}")


@opens
def bench(
    folder: Annotated[Path, argument("Folder of an official checkpoint, or a fabricated one.")],
    *,
    tokens: Annotated[int, option("Tokens of the forward pass.", min=1)] = 64,
    seed: Seed = 0,
    as_json: Json = False,
    opening: Reading,
) -> None:
    """Memory and time of loading the official backbone, and of forward passes (Linux)."""
    from ..official import memory

    report = memory.measure(folder, tokens=tokens, seed=seed, **opening.options())
    print_report(report, as_json)


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="The official 16B checkpoint, from a folder or from the Hugging Face hub.",
)
for command in (
    info, check, memory, chat, draw, describe, answer, edit, think, interleave, fabricate,
):  # fmt: skip
    app.command()(command)

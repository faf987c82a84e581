"""Commands that use a model: demo, draw, describe, answer, edit, inpaint, infill, …"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from .. import layout
from ..datasets import captions, mnist
from ..datasets.cifar10 import load_cifar10_or_sample
from ..datasets.pictures import read as read_picture
from ..datasets.pictures import read_mask
from ..datasets.pictures import steps as picture_steps
from ..datasets.table import CIFAR10
from ..filling import between_blanks
from ..measure.judge import load_judge
from ..tasks.filling import HOLES, hole
from ..uni import load
from .common import (
    MOST_PICTURES,
    Device,
    Json,
    Model,
    Out,
    Seed,
    argument,
    check_device,
    check_picture,
    check_range,
    check_texts,
    escaped,
    images_of,
    load_finished,
    option,
    picture_file,
    print_texts,
    save_images,
)

OWN = "default: the model's own"
ANY_PICTURES = argument("Picture files of up to 50 megapixels: PNG, JPEG, …")
PictureFiles = Annotated[list[Path], ANY_PICTURES]
ShowSteps = Annotated[
    Path | None, option("Picture to write: how each file of a digit is read, step by step.")
]
Together = Annotated[
    bool, option("It is about all pictures together, in this order, not about each.", "--together")
]
PainterName = Annotated[
    str, option("conv (the tokenizer's decoder), flow, turbo, or a painter's weights.")
]
PainterSteps = Annotated[int | None, option("Its steps; default: its own.", max=1000)]


def demo(out: Out = Path("outputs/demo.png"), device: Device = "cpu", seed: Seed = 0) -> None:
    """Draw ten digits from captions, describe ten real test images, save one picture of both."""
    began = time.perf_counter()
    device = check_device(device)
    with picture_file(out) as (path, kind):
        typer.echo("loading the shipped weights …", err=True)
        uni = load("mnist", device)
        test = mnist.load_mnist("test")

        typer.echo("drawing ten digits …", err=True)
        # Thickness and slant of each digit are random, and so are the test images below.
        generator = torch.Generator().manual_seed(seed)
        prompts = []
        for digit in range(10):
            thickness = int(torch.randint(2, (1,), generator=generator))
            slant = int(torch.randint(3, (1,), generator=generator))
            prompts.append(captions.caption(digit, thickness, slant))
        traced = uni.draw_traced(prompts, seed=seed)

        typer.echo("describing ten test images …", err=True)
        chosen = torch.randperm(len(test.labels), generator=generator)[:10]
        real = test.floats(chosen)
        written = uni.describe(real)
        true = captions.describe_pixels(real, test.labels[chosen])

        from ..show import grids, strips  # matplotlib takes a second

        frames = strips.film_frames(uni, traced)
        figure = grids.demo_figure(prompts, traced.images, frames, real, written)
        figure.savefig(path, format=kind)

    # The picture is safe; only now is anything printed.
    read = load_judge().classify(traced.images).tolist()
    print(f"{'asked for':38s}the judge sees")
    for digit, prompt in enumerate(prompts):
        remark = "" if read[digit] == digit else "   (not what was asked)"
        print(f"  {prompt:36s}{mnist.DIGITS[read[digit]]}{remark}")
    print(f"\n{'the model wrote':38s}measured from the pixels")
    for got, want in zip(written, true):
        remark = "" if got == want else "   (differs)"
        print(f"  {escaped(got):36s}{want}{remark}")
    print(f"\nsaved {out} after {time.perf_counter() - began:.0f} s.", end=" ")
    print("Next: `make lab` (or `jupyter lab notebooks`) opens the notebooks.")


def draw(
    caption: Annotated[
        list[str], argument("What to draw, for example 'a thick seven leaning right'.")
    ],
    count: Annotated[int, option(f"How many of each, {MOST_PICTURES} at most.")] = 8,
    steps: Annotated[int | None, option(f"Denoising steps per block; {OWN}.")] = None,
    guidance: Annotated[float | None, option(f"Guidance scale, 1 is none; {OWN}.")] = None,
    temperature: Annotated[float | None, option(f"0 takes the most likely code; {OWN}.")] = None,
    painter: PainterName = "conv",
    painter_steps: PainterSteps = None,
    out: Out = Path("outputs/draw.png"),
    model: Model = "mnist",
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Draw captions; one row of the picture for each."""
    check_range("count", count, 1, MOST_PICTURES)
    check_range("the number of captions", len(caption), 1, MOST_PICTURES)
    check_texts(caption)
    asked = [text for text in caption for _ in range(count)]
    wishes: dict[str, Any] = {"steps": steps, "guidance": guidance, "temperature": temperature}
    wishes |= {"painter": painter, "painter_steps": painter_steps}
    with picture_file(out) as file:
        uni = load_finished(model, device)
        save_images(uni.draw(asked, seed=seed, **wishes), count, file)
    print(f"saved {out}")


def describe(
    pictures: Annotated[list[Path] | None, ANY_PICTURES] = None,
    test: Annotated[int, option("Describe this many random test images, too.")] = 0,
    question: Annotated[str, option("What to ask.")] = layout.DESCRIBE_QUESTION,
    show_steps: ShowSteps = None,
    model: Model = "mnist",
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write a caption for each picture."""
    check_range("test", test, 0, 10_000)
    check_texts([question])
    if not pictures and not test:
        raise ValueError("nothing to describe; give picture files or --test N")
    names = [str(path) for path in pictures or []]
    images = [image[None] for image in read_files(pictures or [], model, show_steps)]
    if test:
        chosen, real = some_test_images(model, test, seed)
        names += [f"test image {index}" for index in chosen]
        images.append(real)
    uni = load_finished(model, device)
    print_texts(names, uni.describe(torch.cat(images), question=question), as_json)


def read_files(paths: list[Path], model: str, show_steps: Path | None = None) -> list[Tensor]:
    """Picture files as the model reads them, `[C, 32, 32]`, and a figure of how in `show_steps`."""
    if show_steps is not None:  # first: they may show why a picture is refused
        save_steps(paths, model, show_steps)
    if not paths:
        return []
    data, channels = images_of(model)
    return [read_picture(path, channels, data.digits) for path in paths]


def save_steps(paths: list[Path], model: str, out: Path) -> None:
    """A row of pictures for each file: what becomes of it until the model reads it."""
    if not paths or not images_of(model)[0].digits:
        raise ValueError("--show-steps is for picture files of digits; others are only made small")
    from ..show import grids  # matplotlib takes a second

    rows = [picture_steps(path) for path in paths]
    with picture_file(out, paths) as (path, kind):
        grids.steps_page(rows, [escaped(path) for path in paths]).savefig(path, format=kind)


def some_test_images(model: str, count: int, seed: int) -> tuple[list[int], Tensor]:
    """Some random test images of the data set of a model: their places, and `[N, C, H, W]`."""
    data, _ = images_of(model)
    images = load_cifar10_or_sample("test") if data is CIFAR10 else data.load("test")
    # The sample of photos is small, and fewer images than asked for would come without a word.
    check_range("test", count, 1, len(images.labels))
    order = torch.randperm(len(images.labels), generator=torch.Generator().manual_seed(seed))
    return order[:count].tolist(), images.floats(order[:count])


def read_pictures(
    paths: list[Path], together: bool, model: str, show_steps: Path | None
) -> list[Tensor | tuple[Tensor, ...]]:
    """What `Uni.answer` and `Uni.edit` take: single images, or one tuple of all."""
    images = read_files(paths, model, show_steps)
    return [tuple(images)] if together else list(images)


def answer(
    pictures: PictureFiles,
    question: Annotated[str | None, option("What to ask; default: what it shows.")] = None,
    together: Together = False,
    show_steps: ShowSteps = None,
    model: Model = "mnist-uni",
    device: Device = "cpu",
    seed: Seed = 0,  # without effect: answers are not sampled
    as_json: Json = False,
) -> None:
    """Answer a question about each picture, or about all of them together."""
    check_texts([question or ""])
    if question is None:
        question = "what digit is this?" if images_of(model)[0].digits else "what is this?"
    images = read_pictures(pictures, together, model, show_steps)
    names = [" + ".join(map(str, pictures))] if together else [str(path) for path in pictures]
    answers = load_finished(model, device).answer(images, question)
    print_texts(names, answers, as_json)


def edit(
    pictures: PictureFiles,
    instruction: Annotated[
        str, option("For example 'make it thicker', 'mirror it' or 'turn it into a four'.")
    ],
    together: Together = False,
    show_steps: ShowSteps = None,
    guidance_text: Annotated[float | None, option(f"Scale of (instruction - none); {OWN}.")] = None,
    guidance_image: Annotated[
        float | None, option(f"Scale of (image - none), 0 leaves it out; {OWN}.")
    ] = None,
    painter: PainterName = "conv",
    painter_steps: PainterSteps = None,
    out: Out = Path("outputs/edit.png"),
    model: Model = "mnist-uni",
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Edit each picture, or all of them together into one."""
    check_range("the number of pictures", len(pictures), 1, MOST_PICTURES)
    check_texts([instruction])
    images = read_pictures(pictures, together, model, show_steps)
    wishes: dict[str, Any] = {"guidance_text": guidance_text, "guidance_image": guidance_image}
    wishes |= {"painter": painter, "painter_steps": painter_steps}
    with picture_file(out, [*pictures, show_steps] if show_steps else pictures) as file:
        uni = load_finished(model, device)
        edited = uni.edit(images, instruction, seed=seed, **wishes)
        save_images(edited, len(edited), file)
    print(f"saved {out}")


def inpaint(
    pictures: PictureFiles,
    hide: Annotated[
        str | None, option(f"What to fill in: {', '.join(HOLES)}; default: {HOLES[1]}.")
    ] = None,
    mask: Annotated[
        Path | None,
        option("Instead of --hide: a picture, white where to fill in (digits: 32 x 32)"),
    ] = None,
    caption: Annotated[
        str | None, option("What the whole picture shows; default: the model decides.")
    ] = None,
    guidance: Annotated[float | None, option(f"Guidance scale of a caption; {OWN}.")] = None,
    out: Out = Path("outputs/inpaint.png"),
    model: Model = "mnist-uni",
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Fill in a part of each picture. The upper row shows what is left, the lower row the result.

    Pictures are brought to 32 x 32 pixels first, and so is the mask. But a digit is also moved and
    scaled, so its mask is drawn over the digit as it is read (`describe --show-steps`).
    """
    check_range("the number of pictures", len(pictures), 1, MOST_PICTURES)
    check_texts([hide or "", caption or ""])
    if hide is not None and mask is not None:
        raise ValueError("--hide and --mask both say what to fill in; give one of them")
    images = torch.stack(read_files(pictures, model))
    size = images.shape[2:]
    digits = images_of(model)[0].digits
    hidden = read_mask(mask, digits) if mask else hole(HOLES[1] if hide is None else hide, *size)
    with picture_file(out, [*pictures, mask] if mask else pictures) as file:
        uni = load_finished(model, device)
        filled = uni.inpaint(images, hidden, caption, guidance=guidance, seed=seed)
        shown = images.masked_fill(hidden, 0.5)
        save_images(torch.cat([shown, filled]), len(images), file)
    print(f"saved {out}")


def infill(
    text: Annotated[str, argument("A caption with blanks, for example 'a thick ___'.")],
    pictures: PictureFiles,
    model: Model = "mnist-uni",
    device: Device = "cpu",
    seed: Seed = 0,  # without effect: the likeliest words are taken
    as_json: Json = False,
) -> None:
    """Fill in the blanks (___) of a caption, for each picture."""
    check_texts([text])
    between_blanks(text)  # a mistake is told before anything is read or loaded
    images = torch.stack(read_files(pictures, model))
    said = load_finished(model, device).infill(text, images)
    print_texts([str(path) for path in pictures], said, as_json)


def think(
    prompt: Annotated[
        list[str], argument("What to draw, for example 'draw the sum of two and five'.")
    ],
    out: Out = Path("outputs/think.png"),
    model: Model = "mnist-uni",
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Think in words, then draw."""
    check_range("the number of prompts", len(prompt), 1, MOST_PICTURES)
    check_texts(prompt)
    with picture_file(out) as file:
        uni = load_finished(model, device)
        texts, images = uni.think_and_draw(prompt, seed=seed)
        save_images(images, len(images), file)
    print_texts(prompt, texts, as_json=False)
    print(f"saved {out}")


def interleave(
    prompt: Annotated[str, argument("What to show, for example 'count from three to six'.")],
    out: Out = Path("outputs/interleave.png"),
    model: Model = "mnist-uni",
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Text and images in turn."""
    check_texts([prompt])
    check_picture(out)
    # How many images there will be is known at the end, so their file is opened late.
    story = load_finished(model, device).interleave(prompt, seed=seed)
    images = [part for part in story if isinstance(part, Tensor)]
    try:
        if images:
            with picture_file(out) as file:
                save_images(torch.stack(images), len(images), file)
    finally:  # no full disk can cost the texts
        print(" ".join("[image]" if isinstance(part, Tensor) else escaped(part) for part in story))
    print(f"saved {out}" if images else "no image in this answer, so no picture was saved")

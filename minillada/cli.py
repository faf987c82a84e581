"""The command line: `minillada demo | train | draw | describe | answer | edit | think | interleave | evaluate | bench | info`, the same as `python -m minillada …`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from . import checkpoint, layout
from .datasets import captions, mnist
from .datasets.pictures import read as read_picture
from .extras import merging
from .files import DATA_DIR, WEIGHTS_DIR, atomic
from .measure.intervals import interval_of
from .measure.judge import load_judge
from .model import Backbone
from .presets import PRESETS, get_preset
from .settings import changed, read_settings
from .show import grids, strips
from .uni import DRAW, EDIT, load

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


benchmarks = typer.Typer(no_args_is_help=True, help="Speed against a plainer way of computing the same thing.")


app.add_typer(benchmarks, name="bench")


Model = Annotated[str, typer.Option(help="Shipped weights by name, a training run's folder, or a .safetensors file.")]


Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")]


Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]


def check_device(name: str) -> str:
    """The device name, or `ValueError` if this machine cannot use it."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(f"device {name!r} is not available here; use --device cpu") from None
    return str(device)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("outputs/demo.png"),
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Draw ten digits from captions, describe ten real test images, save one picture of both."""
    began = time.perf_counter()
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    say("loading the shipped weights …")
    uni = load("mnist", check_device(device))
    test = mnist.load_mnist("test")
    style = torch.Generator().manual_seed(seed)
    prompts = [captions.caption(d, *(int(torch.randint(n, (1,), generator=style)) for n in (2, 3))) for d in range(10)]
    say("drawing ten digits …")
    traced = uni.draw_traced(prompts, seed=seed)
    chosen = torch.randperm(len(test.labels), generator=style)[:10]
    real = test.floats(chosen)
    say("describing ten test images …")
    written = uni.describe(real)
    true = captions.describe_pixels(real, test.labels[chosen])
    judge = load_judge()
    seen = judge.classify(traced.images).tolist()
    print("asked for                             the judge sees")
    for digit, prompt in enumerate(prompts):
        print(f"  {prompt:36s}{mnist.DIGITS[seen[digit]]}{'' if seen[digit] == digit else '   (not what was asked)'}")
    print("\nthe model wrote                       measured from the pixels")
    for got, want in zip(written, true, strict=True):
        print(f"  {got:36s}{want}{'' if got == want else '   (differs)'}")
    figure = grids.demo_figure(prompts, traced.images, strips.film_frames(uni, traced), real, written)
    with atomic(out) as temporary:
        figure.savefig(temporary, format="png")
    print(f"\nsaved {out} after {time.perf_counter() - began:.0f} s. Next: `make lab` (or `jupyter lab notebooks`) opens the notebooks.")


@app.command()
def train(
    preset: Annotated[str, typer.Argument(help="One of: " + ", ".join(sorted(PRESETS)))],
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/PRESET.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps, if not the preset's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate, if not the preset's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run; the result is bit-identical.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in the folder.")] = False,
    save_every: Annotated[
        int | None, typer.Option(min=1, help="Steps between saved states; default a tenth of the run, at most 500.")
    ] = None,
    bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16 autocast: faster where the processor supports it.")] = False,
    tokenizer: Annotated[str | None, typer.Option(help="Image tokenizer weights, if not the preset's.")] = None,
    start: Annotated[str | None, typer.Option(help="Weights to start from: a shipped name or a run's folder.")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other setting as NAME=VALUE: objective=uniform, views=2, block_size=4, …; repeatable."),
    ] = None,
    snapshot_every: Annotated[
        int | None, typer.Option(min=1, help="Keep the weights every so many steps too, for `minillada merge`.")
    ] = None,
    device: Device = "cpu",
    seed: Annotated[int | None, typer.Option(help="Seed, if not the preset's.")] = None,
    as_json: Json = False,
) -> None:
    """Train a preset on MNIST: text pieces, judge, image tokenizer or backbone."""
    from .training import train as training
    from .training.run import Run

    changes = {"steps": steps, "learning_rate": learning_rate, "seed": seed, "bfloat16": bf16 or None, "tokenizer": tokenizer}
    given = {name: value for name, value in changes.items() if value is not None}
    chosen = changed(get_preset(preset), **read_settings(setting or []), **given)
    out = out or Path("runs") / preset
    run = Run(out, resume, overwrite, save_every, snapshot_every)
    _, records = training.train(chosen, run, check_device(device), start)
    last = records[-1] if records else {}
    print(json.dumps({"out": str(out), **last}) if as_json else f"finished in {out}; last step: {last or 'none left to do'}")


@app.command()
def merge(
    weights: Annotated[list[str], typer.Argument(help="Runs' folders (all their snapshots), .safetensors files or shipped names.")],
    top: Annotated[int, typer.Option(min=2, help="How many of the best to average.")] = 3,
    samples: Annotated[int, typer.Option(min=1, max=1000, help="Validation images that choose them.")] = 500,
    out: Annotated[Path, typer.Option(help="Folder of the result.")] = Path("runs/merged"),
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Average the weights of the best checkpoints of a backbone, chosen by the bound on held-out images."""
    from .evaluation import likelihood as evaluation

    paths = [path for name in weights for path in merging.snapshots(name)]
    if len(paths) < top:
        raise ValueError(
            f"{len(paths)} checkpoints are too few to choose the best {top}; keep more with `minillada train … --snapshot-every N`"
        )
    images, texts = evaluation.validation_images(samples)
    ranked = evaluation.rank_checkpoints(paths, images, texts, check_device(device), seed=seed)
    merged, info = merging.merge([path for path, _ in ranked[:top]], Backbone)
    checkpoint.save_model(out / "weights.safetensors", merged, info)
    [(_, bits)] = evaluation.rank_checkpoints([out], images, texts, device, seed=seed)
    report = {"out": str(out), "merged_bits": bits, "top": top, "bits": {str(path): value for path, value in ranked}}
    if as_json:
        print(json.dumps(report, indent=2))
        return
    for place, (path, value) in enumerate(ranked):
        print(f"{value:8.4f} bits per token  {path}{'  averaged' if place < top else ''}")
    print(f"{bits:8.4f} bits per token  {out}, their mean")


@app.command()
def draw(
    caption: Annotated[list[str], typer.Argument(help="What to draw, for example 'a thick seven leaning right'.")],
    count: Annotated[int, typer.Option(help="How many of each.")] = 8,
    steps: Annotated[int, typer.Option(help="Denoising steps per block.")] = DRAW.steps,
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 is none.")] = DRAW.guidance,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely code.")] = DRAW.temperature,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("outputs/draw.png"),
    model: Model = "mnist",
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Draw captions; one row of the picture for each."""
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    uni = load(model, check_device(device))
    images = uni.draw([c for c in caption for _ in range(count)], seed=seed, steps=steps, guidance=guidance, temperature=temperature)
    save_images(images, count, out)


def save_images(images: torch.Tensor, columns: int, out: Path) -> None:
    """Images `[B, C, H, W]` in rows of `columns`, three times enlarged, as a PNG."""
    with atomic(out) as temporary:
        picture = grids.to_pil(grids.tile(images, columns))
        picture.resize((picture.width * 3, picture.height * 3), 0).save(temporary, "PNG")
    print(f"saved {out}")


@app.command()
def describe(
    pictures: Annotated[list[Path] | None, typer.Argument(help="Picture files of digits, of any size: PNG, JPEG, …")] = None,
    test: Annotated[int, typer.Option(help="Describe this many random test images instead.")] = 0,
    question: Annotated[str, typer.Option(help="What to ask.")] = layout.DESCRIBE_QUESTION,
    model: Model = "mnist",
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write a caption for each picture."""
    if not pictures and test < 1:
        raise ValueError("nothing to describe; give picture files or --test N")
    names = [str(p) for p in pictures or []]
    images = [read_picture(path)[None] for path in pictures or []]
    if test > 0:
        digits = mnist.load_mnist("test")
        chosen = torch.randperm(len(digits.labels), generator=torch.Generator().manual_seed(seed))[:test]
        names += [f"test image {i}" for i in chosen.tolist()]
        images.append(digits.floats(chosen))
    written = load(model, check_device(device)).describe(torch.cat(images), question=question)
    if as_json:
        print(json.dumps(dict(zip(names, written, strict=True)), indent=2))
    else:
        for name, text in zip(names, written, strict=True):
            print(f"{name}: {text}")


UniModel = Annotated[str, typer.Option(help="Weights of a model of every task: a shipped name or a run's folder.")]


Pictures = Annotated[list[Path], typer.Argument(help="Picture files of digits, of any size: PNG, JPEG, …")]


Together = Annotated[
    bool, typer.Option("--together", help="All pictures are about one question, in this order; else each is about its own.")
]


def read_pictures(paths: list[Path], together: bool) -> list:
    """What `Uni.answer` and `Uni.edit` take: single images, or one tuple of all."""
    images = [read_picture(path) for path in paths]
    return [tuple(images)] if together else images


@app.command()
def answer(
    pictures: Pictures,
    question: Annotated[str, typer.Option(help="What to ask.")] = "what digit is this?",
    together: Together = False,
    model: UniModel = "mnist-uni",
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Answer a question about each picture, or about all of them together."""
    images = read_pictures(pictures, together)
    answers = load(model, check_device(device)).answer(images, question)
    names = [" + ".join(map(str, pictures))] if together else list(map(str, pictures))
    print(json.dumps(answers) if as_json else "\n".join(f"{name}: {text}" for name, text in zip(names, answers, strict=True)))


@app.command()
def edit(
    pictures: Pictures,
    instruction: Annotated[str, typer.Option(help="For example 'make it thicker', 'mirror it' or 'turn it into a four'.")],
    together: Together = False,
    guidance_text: Annotated[float, typer.Option(help="Scale of (instruction - none).")] = EDIT.guidance,
    guidance_image: Annotated[float, typer.Option(help="Scale of (image - none); 0 leaves it out.")] = EDIT.guidance_image,
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("outputs/edit.png"),
    model: UniModel = "mnist-uni",
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Edit each picture, or all of them together into one."""
    images = read_pictures(pictures, together)
    uni = load(model, check_device(device))
    edited = uni.edit(images, instruction, seed=seed, guidance_text=guidance_text, guidance_image=guidance_image)
    save_images(edited, len(edited), out)


@app.command()
def think(
    prompt: Annotated[list[str], typer.Argument(help="What to draw, for example 'draw the sum of two and five'.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("outputs/think.png"),
    model: UniModel = "mnist-uni",
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Think in words, then draw."""
    texts, images = load(model, check_device(device)).think_and_draw(prompt, seed=seed)
    for asked, text in zip(prompt, texts, strict=True):
        print(f"{asked}: {text}")
    save_images(images, len(images), out)


@app.command()
def interleave(
    prompt: Annotated[str, typer.Argument(help="What to show, for example 'count from three to six'.")],
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("outputs/interleave.png"),
    model: UniModel = "mnist-uni",
    device: Device = "cpu",
    seed: Seed = 0,
) -> None:
    """Text and images in turn."""
    story = load(model, check_device(device)).interleave(prompt, seed=seed)
    print(" ".join(part if isinstance(part, str) else "[image]" for part in story))
    if images := [part for part in story if not isinstance(part, str)]:
        save_images(torch.stack(images), len(images), out)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Shipped weights by name, or a training run's folder.")] = "mnist",
    samples: Annotated[
        int, typer.Option(help="Test images to describe, or examples a task (at most 500); fewer is faster and less precise.")
    ] = 10_000,
    suite: Annotated[str, typer.Option(help="`model`: tokenizer, drawing, captions, likelihood, speed; `tasks`: every task.")] = "model",
    pictures: Annotated[Path | None, typer.Option(help="Folder for one page of examples a task (--suite tasks).")] = None,
    record: Annotated[bool, typer.Option("--record", help="Store the result in the JSON beside the weights.")] = False,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure a model on the MNIST test set."""
    if suite not in ("model", "tasks"):
        raise ValueError(f"there is no suite {suite!r}; choose model or tasks")
    if suite == "tasks":
        report = evaluate_tasks(model, min(samples, 500), pictures, seed, device)
    else:
        from .evaluation.evaluate import evaluate as measure

        report = measure(model, samples, seed, check_device(device))
    if record:
        path = checkpoint.resolve(model)
        checkpoint.write_info(path, checkpoint.read_info(path) | {"metrics" if suite == "model" else "tasks": report})
    if as_json:
        print(json.dumps(report, indent=2))
        return
    if suite == "tasks":
        for task, score in report.items():
            print(f"{task:32s}{interval_of(score, 'accuracy').percent()}")
        return
    for key, value in report.items():
        if isinstance(value, float) and not key.endswith(("_low", "_high")):
            one = interval_of(report, key)
            print(f"{key:32s}{value:10.4f}" + (f"   ({one.low:.4f} to {one.high:.4f})" if one.n else ""))
    speed = report["timing"]
    print(
        f"drawing {speed['batch']} digits: {speed['cached']['median']:.2f} s ({speed['cached']['clock']}), cache speed-up {speed['cache_speedup']:.2f}"
    )


def evaluate_tasks(model: str, samples: int, pictures: Path | None, seed: int, device: str) -> dict:
    """The scores of `suite.run`, and a page of examples for each task in the folder `pictures`."""
    from .evaluation import suite

    uni = load(model, check_device(device))
    judge = load_judge()
    pool = suite.unseen_pool()
    marked = suite.run(uni, judge, pool, samples, seed)
    for task, result in marked.items() if pictures else ():
        with atomic(pictures / f"{task}.png") as temporary:
            grids.task_page(pool, task, result).savefig(temporary, format="png")
    return suite.scores(marked)


@app.command()
def info(
    name: Annotated[str | None, typer.Argument(help="Preset or weights to look at; all if left out.")] = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """What is installed, which presets exist, which weights are shipped and how they were made."""
    if name is None:
        shipped = {p.stem: checkpoint.read_info(p) for p in sorted(WEIGHTS_DIR.glob("*.safetensors"))}
        report = {"torch": torch.__version__, "cuda": torch.cuda.is_available(), "device": check_device(device)}
        report |= {"data": str(DATA_DIR), "presets": sorted(PRESETS)}
        report["shipped"] = {k: {"kind": v["kind"], "parameters": v["parameters"]} for k, v in shipped.items()}
    else:
        report = checkpoint.read_info(checkpoint.resolve(name))
    print(json.dumps(report, indent=2) if as_json else "\n".join(f"{k}: {v}" for k, v in report.items()))


Pairs = Annotated[int, typer.Option(min=1, help="Pairs of runs, one of each, to take the median over.")]


@benchmarks.command("sampler")
def benchmark_sampler(
    length: Annotated[int, typer.Option(min=32, help="New tokens a row.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Rows.")] = 8,
    pairs: Pairs = 3,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Cached decoding against diffusers' LLaDA2Pipeline, which recomputes the prefix (needs `pip install -e .[bench]`)."""
    from .evaluation.bench import bench_sampler

    report_benchmark(bench_sampler(length, batch, pairs=pairs, device=check_device(device), seed=seed), as_json)


@benchmarks.command("train")
def benchmark_train(
    length: Annotated[int, typer.Option(min=16, help="Tokens a row, a multiple of 16.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Rows.")] = 4,
    views: Annotated[int, typer.Option(min=1, help="Pairs of complementary views of every row.")] = 2,
    pairs: Pairs = 3,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """A training step with shared clean pass and tiled attention against a dense [x_t ; x_0] step for each view."""
    from .evaluation.bench import bench_train

    report_benchmark(bench_train(length, batch, views, pairs=pairs, device=check_device(device), seed=seed), as_json)


@benchmarks.command("moe")
def benchmark_moe(pairs: Pairs = 15, device: Device = "cpu", seed: Seed = 0, as_json: Json = False) -> None:
    """Mixture of experts: the grouped path against the formula over all experts, and against a sparse loop."""
    from .evaluation.bench import bench_moe

    report_benchmark(bench_moe(pairs=pairs, device=check_device(device), seed=seed), as_json)


def report_benchmark(report: dict, as_json: bool) -> None:
    """One benchmark's result, as JSON or as lines."""
    print(json.dumps(report, indent=2) if as_json else "\n".join(f"{k}: {v}" for k, v in report.items()))


def main() -> None:
    """Run the command line; expected errors end in one sentence and exit code 2, never in a traceback."""
    try:
        app()
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(f"minillada: {error}", file=sys.stderr)
        sys.exit(2)

"""Commands that measure and look: evaluate, info, and the group bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch

from .. import checkpoint
from ..datasets.pool import Pool
from ..datasets.table import data_set_of
from ..evaluation import bench, painting, suite
from ..evaluation import evaluate as measures
from ..evaluation import steps as training_steps
from ..evaluation.profile import profile_sampler
from ..files import DATA_DIR, WEIGHTS_DIR, check_writable
from ..measure.intervals import interval_of
from ..measure.judge import load_judge
from ..painter import Painter
from ..presets import PRESETS, get_preset, read_settings
from ..settings import changed, to_dict
from ..tasks.base import Marked
from ..uni import load
from .common import (
    Device,
    Json,
    OptionalSeed,
    Seed,
    argument,
    check_device,
    check_finished,
    check_range,
    option,
    picture_file,
    print_json,
    print_report,
)


def evaluate(
    model: Annotated[str, argument("Shipped weights by name, or a run's folder.")] = "mnist",
    samples: Annotated[
        int,
        option("Test images to describe, or examples a task (at most 500); fewer is less precise."),
    ] = 10_000,
    choice: Annotated[
        str, option("`model`: what --only lists; `tasks`: every task.", "--suite")
    ] = "model",
    only: Annotated[
        list[str] | None,
        option(f"Some of {', '.join(measures.MEASURES)} (or tasks); repeatable, or with commas."),
    ] = None,
    pictures: Annotated[
        Path | None, option("Folder for one page of examples a task (--suite tasks).")
    ] = None,
    record: Annotated[
        bool, option("Store the result in the JSON beside the weights.", "--record")
    ] = False,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure a model on the test images of its data set."""
    if choice not in ("model", "tasks"):
        raise ValueError(f"there is no suite {choice!r}; choose model or tasks")
    if pictures is not None and choice == "model":
        raise ValueError("--pictures shows examples of tasks; add --suite tasks, or leave it out")
    check_range("samples", samples, 1, 10_000)
    device = check_device(device)
    check_finished(model)
    path = checkpoint.resolve(model)
    about = checkpoint.read_info(path)
    # `--only a,b --only c` names three.
    names = [name for text in only or [] for name in text.split(",")] or None
    painter = about.get("kind") == Painter.kind
    if painter and (names or choice == "tasks"):
        raise ValueError(f"{model} is a painter, measured as a whole; leave --suite and --only out")
    way = {"seed": seed, "device": device}
    if pictures is not None:
        check_writable(pictures / "page.png", "choose another with --pictures")
    if record:
        check_writable(path.with_suffix(".json"), "copy it, or leave --record out")
        if names:
            check_same(about.get("metrics" if choice == "model" else "tasks_way", {}), way)

    # What was measured is printed even if a later measure fails, and before anything is stored: no
    # full disk can cost it.
    report: dict = {}
    marked: dict[str, Marked] = {}
    try:
        if painter:
            report |= painting.evaluate_painter(model, samples, seed, device)
        elif choice == "model":
            measures.evaluate(model, samples, seed, device, names, report)
        else:
            uni, count = load(model, device), min(samples, 500)
            data = data_set_of(uni.info)
            pool = suite.unseen_pool(data.name)
            suite.run(uni, load_judge(device, data.judge), pool, count, seed, names, marked)
    finally:
        report |= suite.scores(marked)
        show = print_metrics if choice == "model" else print_scores
        if report:
            print_json(report) if as_json else show(report)
    if record:
        store(path, choice, report, way, keep=bool(names))
    if pictures is not None:
        save_pages(pictures, pool, marked)  # pictures are of tasks, so there is a pool


def check_same(recorded: dict, way: dict) -> None:
    """`ValueError` if recorded numbers, some of which stay, have another seed or device."""
    for name, value in way.items():
        if recorded.get(name, value) != value:
            raise ValueError(
                f"the recorded numbers have {name} {recorded[name]}, not {value}: measure with it, "
                "or record all numbers anew, without --only"
            )


def store(path: Path, choice: str, report: dict, way: dict, keep: bool) -> None:
    """Write a report into the JSON beside weights; `keep` what was recorded and not measured."""
    about = checkpoint.read_info(path)
    key = "metrics" if choice == "model" else "tasks"
    about[key] = (about.get(key, {}) if keep else {}) | report
    if choice == "tasks":  # metrics hold their seed and device, scores of tasks do not
        about["tasks_way"] = way
    checkpoint.write_info(path, about)


def save_pages(folder: Path, pool: Pool, marked: dict[str, Marked]) -> None:
    """One page of examples per task."""
    from ..show import grids  # matplotlib takes a second

    for task, result in marked.items():
        with picture_file(folder / f"{task}.png") as (file, kind):
            grids.task_page(pool, task, result).savefig(file, format=kind)


def print_scores(scores: dict[str, dict]) -> None:
    """One line a task: its share with both ends, and the passes an answer took."""
    for task, score in scores.items():
        share = interval_of(score, "accuracy").percent()
        print(f"{task:40s} {share:40s}{score['passes']:6.1f} passes an answer")


def print_metrics(report: dict) -> None:
    """One line a number, with both ends where there are some."""
    for name, value in report.items():
        if not isinstance(value, float) or name.endswith(("_low", "_high")):
            continue
        # Numbers without a count, such as a ratio of distances, have no interval.
        measured = interval_of(report, name)
        ends = f"   ({measured.low:.4f} to {measured.high:.4f})" if measured.n else ""
        print(f"{name:40s}{value:11.4f}{ends}")
    if "timing" in report:
        speed = report["timing"]
        seconds = f"{speed['cached']['median']:.2f} s ({speed['cached']['clock']})"
        print(f"drawing {speed['batch']} pictures: {seconds}, ", end="")
        print(f"cache speed-up {speed['cache_speedup']:.2f}")


def info(
    name: Annotated[str | None, argument("Weights or preset to look at; all if left out.")] = None,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """What is installed, which presets exist, which weights are shipped, how they were made."""
    if name is not None:
        check_finished(name)
        preset = name in PRESETS and not checkpoint.shipped(name)
        found = to_dict(PRESETS[name]) if preset else checkpoint.read_info(checkpoint.resolve(name))
        print_report(found, as_json)
        return
    shipped = {}
    for path in sorted(WEIGHTS_DIR.glob("*.safetensors")):
        about = checkpoint.read_info(path)
        shipped[path.stem] = {"kind": about["kind"], "parameters": about["parameters"]}
    report = {
        "torch": torch.__version__,
        "cuda": torch.cuda.is_available(),
        "device": check_device(device),
        "data": str(DATA_DIR),
        "presets": sorted(PRESETS),
        "shipped": shipped,
    }
    print_report(report, as_json)


Pairs = Annotated[int, option("Pairs of runs, one of each, for the median.", min=1, max=1000)]
Rows = Annotated[int, option("Rows.", min=1, max=10_000)]


def bench_sampler(
    length: Annotated[int, option("New tokens a row.", min=32, max=100_000)] = 512,
    batch: Rows = 8,
    profile: Annotated[
        bool, option("Instead: shares of matrix products, attention and the rest.", "--profile")
    ] = False,
    pairs: Pairs = 3,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Cached decoding against diffusers' LLaDA2Pipeline, which recomputes the prefix.

    Needs `pip install -e ".[bench]"`, but not with --profile.
    """
    setting = bench.Setting(check_device(device), seed, pairs)
    measure = profile_sampler if profile else bench.bench_sampler
    print_report(measure(setting, length, batch), as_json)


def bench_train(
    length: Annotated[int, option("Tokens a row, a multiple of 16.", min=16, max=100_000)] = 512,
    batch: Rows = 4,
    views: Annotated[int, option("Pairs of complementary views a row.", min=1, max=1000)] = 2,
    pairs: Pairs = 3,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """A training step with shared clean pass and tiled attention, against a dense step a view."""
    setting = bench.Setting(check_device(device), seed, pairs)
    print_report(bench.bench_train(setting, length, batch, views), as_json)


def bench_step(
    preset: Annotated[str, argument("What is trained: a preset of `minillada train`.")],
    steps: Annotated[int, option("Steps that are timed.", min=2, max=10_000)] = 20,
    changes: Annotated[list[str] | None, option("NAME=VALUE; repeatable.", "--set")] = None,
    device: Device = "cpu",
    seed: OptionalSeed = None,
    as_json: Json = False,
) -> None:
    """A training step of a preset, against what its products alone would take."""
    chosen = changed(get_preset(preset), **read_settings(changes or [], seed=seed))
    setting = bench.Setting(check_device(device), chosen.training.seed)
    print_report(training_steps.bench_step(chosen, setting, steps), as_json)


def bench_moe(
    pairs: Pairs = 15, device: Device = "cpu", seed: Seed = 0, as_json: Json = False
) -> None:
    """The grouped experts against the formula over all experts, and against a sparse loop."""
    print_report(bench.bench_moe(bench.Setting(check_device(device), seed, pairs)), as_json)

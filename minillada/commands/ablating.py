"""The command that compares settings: ablate."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..ablation.folder import check_same, check_sources, read_plan, write_plan
from ..ablation.launch import Launch, estimate
from ..ablation.passes import read_passes
from ..ablation.plan import Plan, backbone_preset, check_plan, read_measures, read_varied
from ..ablation.report import FILES, Report
from ..extras.packages import load_package
from ..presets import read_settings
from ..settings import changed
from ..training.locking import lock
from .common import (
    Device,
    Json,
    Seed,
    Tensorboard,
    argument,
    check_device,
    check_range,
    option,
    print_json,
)


def ablate(
    preset: Annotated[str | None, argument("The preset that runs are changes of.")] = None,
    vary: Annotated[
        list[str] | None,
        option("NAME=VALUE,VALUE: any setting, also sampling.NAME; repeatable.", "--vary"),
    ] = None,
    setting: Annotated[
        list[str] | None, option("NAME=VALUE for all runs; repeatable.", "--set")
    ] = None,
    seeds: Annotated[int, option("Runs of each choice of settings.")] = 3,
    measure: Annotated[
        list[str] | None,
        option("NAME:SAMPLES of `evaluate --only` or of a task; repeatable, or with commas."),
    ] = None,
    passes: Annotated[
        str | None, option("Forward passes of a drawing, such as 9,16; equal for all runs.")
    ] = None,
    steps: Annotated[int | None, option("Training steps of all runs.")] = None,
    start: Annotated[str | None, option("Weights that all runs start from.")] = None,
    jobs: Annotated[int, option("Runs at once.")] = 1,
    executor: Annotated[str, option("`local`, or `slurm` on a cluster.")] = "local",
    partition: Annotated[str | None, option("Of the cluster.")] = None,
    minutes: Annotated[int, option("Limit of a job on a cluster.")] = 240,
    out: Annotated[Path | None, option("Folder of the ablation.")] = None,
    report: Annotated[bool, option("Only print what --out holds now.", "--report")] = False,
    tensorboard: Tensorboard = False,
    device: Device = "cpu",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train a preset with every choice of some settings and seeds, and compare what is measured.

    The same command goes on after a crash: finished runs are kept, stopped ones go on.
    """
    for package in ("pandas", "scipy"):
        load_package(package, "ablate")
    if report:
        if out is None:
            raise ValueError("name the folder of the ablation with --out")
        stored = read_plan(out)
        if preset is None:
            return show(Report(out, stored), as_json)
    if preset is None:
        raise ValueError("name the preset that the runs are changes of")
    out = out or Path("runs") / f"ablate-{preset}"
    # 1. everything is checked before anything is written
    fixed = read_settings(setting or [], steps=steps)
    varied = read_varied(vary or [])
    check_range("seeds", seeds, 1, 1000)
    chosen = backbone_preset(preset)
    plan = Plan(
        preset=preset,
        fixed=tuple(sorted(fixed.items())),
        varied=varied,
        seeds=tuple(range(seed, seed + seeds)),
        measures=read_measures(measure or ["drawing"], chosen.dataset),
        start=start,
    )
    plan = changed(plan, passes=read_passes(passes, plan, out))
    plan = check_same(plan, out)
    if report:
        return show(Report(out, plan), as_json)
    check_plan(plan)
    plan = check_sources(plan)
    check_range("jobs", jobs, 1, 1000)
    check_range("minutes", minutes, 1, 100_000)
    if executor != "slurm":  # a cluster has devices that this machine may not have
        device = check_device(device)
    elif device == "auto":
        raise ValueError("this machine does not know the devices of the cluster; name one, as cuda")
    launch = Launch(out, jobs, executor, partition, minutes, device, tensorboard)
    run(plan, launch, as_json)


def run(plan: Plan, launch: Launch, as_json: bool) -> None:
    """Run what is left of a plan, and show the result. Exit code 1 if a run failed."""
    notes = sys.stderr if as_json else sys.stdout
    why_one_job = launch.check()
    if why_one_job:
        print(why_one_job, file=notes)
        launch = replace(launch, jobs=1)
    with lock(launch.folder):
        before = Report(launch.folder, plan)
        before.check_files()
        left = before.trials_that_are("new", "stopped", "failed")
        expected = duration(plan, launch, left)
        print(f"{len(before.trials)} runs{expected}; {before.progress()}", file=notes)
        print(before.work(), file=notes, flush=True)
        write_plan(plan, launch.folder, launch.options())
        launch.run(left)
        after = Report(launch.folder, plan)
        if len(after.rows):
            after.save()
        show(after, as_json)
        if len(after.rows) and not as_json:
            files = f"{launch.folder}/{{{', '.join(FILES)}}}"
            print(f"saved {files}; the same command goes on after a crash")
    # All runs that could be measured are; a script still has to notice the others.
    if len(after.trials_that_are("done")) < len(after.trials):
        raise typer.Exit(1)


def duration(plan: Plan, launch: Launch, left: list) -> str:
    """`, about 27 min on 2 cores, 3 of them for measuring (…)`; nothing where nobody knows."""
    if not left or launch.executor == "slurm":
        return ""
    expected = estimate(plan, left, launch)
    minutes, measuring = sum(expected) / 60, expected.measuring / 60
    if math.isnan(minutes):
        return ""
    cores = launch.jobs * (launch.threads or 1)
    total = f"{minutes:.0f} min" if minutes >= 1 else "a minute"
    part = f", {measuring:.0f} of them for measuring" if measuring >= 0.5 else ""
    on = f"{cores} core{'s' if cores > 1 else ''}"
    return f", about {total} on {on}{part} (timed on a few steps and samples)"


def show(report: Report, as_json: bool) -> None:
    """Print, and write nothing: the folder may be one that only others may write to."""
    if as_json:
        print_json(report.to_json())
    else:
        print("\n".join(report.lines()))

"""The one runner: which points an experiment measures, in which order, and where they are stored.

An experiment is a short file of this folder:

    def draw(lab, tokenizer, steps):
        preset = changed(get_preset("mnist-cpu"), steps=steps, tokenizer=tokenizer)
        uni = lab.load(lab.train(preset))
        return evaluate_drawing(uni, lab.judge(), 1000, seed=0)

    EXPERIMENT = Experiment(__file__, __doc__, [Point(("pixels",), draw, {"steps": 400, ...}), ...])
    if __name__ == "__main__":
        main(EXPERIMENT)

Notable choices
- The result file (JSON) is stored after every point. A point that it holds with the same settings
  is skipped, so an interrupted experiment goes on when it is started again.
- Models come from a `Lab` alone. It notes the SHA-256 of every shipped weights file that is read,
  also by a training, and the name of a run that the experiment did not train itself.
- A result file whose weights were replaced is refused: old and new points could not be compared.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import checkpoint
from ..config import Preset
from ..files import WEIGHTS_DIR, check_writable
from ..measure.judge import Judge, load_judge
from ..training.run import Run
from ..training.train import train
from ..uni import Uni, load
from . import results


@dataclass(frozen=True)
class Point:
    """One measurement: what `measure(lab, **settings)` returns is stored under the keys `at`."""

    at: tuple[str, ...]  # path in the result file; the first key is the PART of the command line
    measure: Callable[..., Any]
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        return "/".join(self.at)


def over_seeds(seeds: Iterable[int], points: list[Point]) -> list[Point]:
    """Every point with every seed, which is a setting and part of the name."""
    repeated = []
    for seed in seeds:
        for point in points:
            at = (*point.at[:-1], f"{point.at[-1]}, seed {seed}")
            repeated.append(Point(at, point.measure, {**point.settings, "seed": seed}))
    return repeated


@dataclass(frozen=True)
class Experiment:
    """What a file of this folder measures. `facts` stand among the results, such as sizes."""

    file: str
    about: str | None
    points: list[Point]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return Path(self.file).stem

    @property
    def parts(self) -> list[str]:
        return list(dict.fromkeys(point.at[0] for point in self.points))


class Lab:
    """Where measuring functions get their models. `folder` is where runs are trained."""

    def __init__(self, folder: Path, overwrite: bool = False):
        self.folder, self.overwrite = folder, overwrite
        self.point: Point | None = None  # the one that is being measured
        self.weights: dict[str, str] = {}  # shipped name -> SHA-256
        self.trained: set[Path] = set()

    def judge(self) -> Judge:
        """The shipped judge."""
        self.note("mnist-judge")
        return self._judge

    @cached_property
    def _judge(self) -> Judge:
        return load_judge()

    def load(self, name: str | Path) -> Uni:
        """A shipped model by name, or a run."""
        self.note(name)
        return load(name)

    def module(self, name: str | Path, cls: Any) -> Any:
        """The bare module of a class, such as `Backbone`."""
        self.note(name)
        return checkpoint.load_model(name, cls)[0]

    def train(
        self,
        preset: Preset,
        name: str = "",
        start: str | None = None,
        snapshot_every: int | None = None,
    ) -> Path:
        """The folder of a finished run, by default one named after the point that is measured.

        An interrupted run goes on, and a finished one is kept.
        """
        if not name and self.point is not None:
            name = self.point.name
        folder = self.folder / re.sub(r"[^\w.=-]+", "-", name).strip("-")
        for used in (preset.tokenizer, preset.teacher, preset.source, start):
            self.note(used)
        # If several points use a run, only the first of them trains it, or checks that it is there.
        if folder not in self.trained:
            keep = not self.overwrite
            run = Run(folder, resume=keep, overwrite=not keep, snapshot_every=snapshot_every)
            train(preset, run, start=start)
            self.trained.add(folder)
        return folder

    def note(self, name: str | Path | None) -> None:
        """Write down shipped weights, and the tokenizer that belongs to them; nothing for None."""
        if name is None:
            return
        path = checkpoint.resolve(name)
        if path.parent.resolve() == WEIGHTS_DIR.resolve():
            self.weights[path.stem] = results.shipped_sum(path.stem)
        elif not path.resolve().is_relative_to(self.folder.resolve()):
            # The run of somebody, which the experiment did not train itself.
            self.weights[path.parent.name] = results.NOT_SHIPPED
        self.note(checkpoint.read_info(path).get("tokenizer"))


def make_parser(experiment: Experiment) -> argparse.ArgumentParser:
    """The command line that all experiments share."""
    parser = argparse.ArgumentParser(
        prog=f"python -m minillada.experiments.{experiment.name}",
        description=experiment.about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listed = ", ".join(experiment.parts)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all, or some of: {listed}")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this point alone; repeatable (see --list)"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the points")
    parser.add_argument("--out", type=Path, default=results.result_path(experiment.name))
    parser.add_argument("--runs", type=Path, default=Path("runs") / experiment.name)
    parser.add_argument(
        "--overwrite", action="store_true", help="train and measure anew what is stored already"
    )
    return parser


def choose(experiment: Experiment, parts: list[str], only: list[str] | None) -> list[Point]:
    """The points of some parts, or of all; with `only`, of these the named ones.

    `ValueError` for an unknown name, and for a point of another part.
    """
    chosen = [point for point in experiment.points if not parts or point.at[0] in parts]
    known = [point.name for point in chosen]
    for kind, names, choices in (("part", parts, experiment.parts), ("point", only or [], known)):
        for name in names:
            if name not in choices:
                raise ValueError(f"there is no {kind} {name!r}; choose from: {'; '.join(choices)}")
    return [point for point in chosen if not only or point.name in only]


def run(experiment: Experiment, arguments: list[str]) -> None:
    """Measure what the arguments ask for, apart from what the file holds already."""
    options = make_parser(experiment).parse_args(arguments)
    chosen = choose(experiment, options.parts, options.only)
    if options.list:
        print("\n".join(point.name for point in chosen))
        return
    lab = Lab(options.runs, options.overwrite)
    done: dict[str, dict[str, Any]] = {}  # name -> settings, commit, value
    check_writable(options.out, "choose another place with --out")
    if options.out.exists():
        stored = results.read_result(options.out)
        if stored["experiment"] != experiment.name:
            raise ValueError(
                f"{options.out} holds results of the experiment {stored['experiment']}; "
                "give another --out"
            )
        done = stored_points(experiment, stored)
        if options.overwrite:
            # The points that were not chosen are kept.
            for point in chosen:
                done.pop(point.name, None)
        if done:
            check_weights(stored["weights"], options.out)
            lab.weights |= stored["weights"]
    command = f"python -m minillada.experiments.{experiment.name} {shlex.join(arguments)}".strip()
    commit = results.current_commit()
    for point in chosen:
        # Settings are compared as JSON gives them back: tuples are lists there.
        settings = json.loads(json.dumps(point.settings))
        if point.name in done and done[point.name]["settings"] == settings:
            print(f"{point.name}: stored already")
            continue
        lab.point = point
        value = point.measure(lab, **point.settings)
        done[point.name] = {"settings": settings, "commit": commit, "value": value}
        head = {"experiment": experiment.name, "command": command, "commit": commit}
        weights = {"weights": dict(sorted(lab.weights.items()))}
        # Stored before it is printed: no terminal can cost the work.
        results.write_result(options.out, head | weights | body(experiment, done))
        print(f"{point.name}: {json.dumps(value)[:500]}", flush=True)


def check_weights(weights: dict[str, str], path: Path) -> None:
    """`ValueError` if shipped weights that were measured have been replaced."""
    replaced = results.replaced_weights(weights)
    if replaced:
        raise ValueError(
            f"{path} was measured with other weights of {', '.join(replaced)}; "
            "measure everything again with --overwrite alone, or give another --out"
        )


def stored_points(experiment: Experiment, stored: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings, commit and value of each point that a file holds; `ValueError` without a value."""
    done = {}
    for point in experiment.points:
        if point.name in stored["points"]:
            value = stored["results"]
            for key in point.at:
                if not isinstance(value, dict) or key not in value:
                    raise ValueError(f"the file lacks the result of {point.name}; move it away")
                value = value[key]
            done[point.name] = stored["points"][point.name] | {"value": value}
    return done


def body(experiment: Experiment, done: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """`points` and `results` of a file, in the order of the experiment."""
    points: dict[str, Any] = {}
    values = copy.deepcopy(experiment.facts)
    for point in experiment.points:
        if point.name not in done:
            continue
        entry = done[point.name]
        points[point.name] = {"settings": entry["settings"], "commit": entry["commit"]}
        place = values
        for key in point.at[:-1]:
            place = place.setdefault(key, {})
        place[point.at[-1]] = entry["value"]
    return {"points": points, "results": values}


def main(experiment: Experiment) -> None:
    """Run from the command line; a mistake is one sentence and exit code 2."""
    try:
        run(experiment, sys.argv[1:])
    except KeyboardInterrupt:
        words = "stopped; the same command goes on (with --overwrite, from the beginning)"
        print(f"{experiment.name}: {words}", file=sys.stderr)
        sys.exit(130)
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"{experiment.name}: {error}", file=sys.stderr)
        sys.exit(2)

"""What an ablation asks: which settings vary, with how many seeds, and how each run is measured.

Notable choices
- A plan is data. It is stored in the folder, and the folder is refused to any other plan. The same
  plan with more seeds or more measures may go on in it: what is there is kept.
- A setting called `sampling.NAME` belongs to decoding: a run is trained once and measured with
  each of its values. All others are settings of the preset, found by `settings.changed`.
- Equal work is the default: all runs take the steps of the preset, and all drawings equally many
  forward passes (`passes.py`).
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from .. import checkpoint
from ..asking import NotLearned
from ..config import Preset, SamplingConfig
from ..evaluation import evaluate, suite
from ..presets import get_preset, read_settings
from ..settings import Config, changed, plain_fields, to_dict
from ..training.checks import READ_BY, check_settings
from ..training.distributed import Processes, check_shared
from ..training.optim import make_optimizers
from ..training.train import new_model, read_materials, start_from
from ..vocab import text_info

SAMPLING = "sampling."
USUAL_COUNT, USUAL_COUNT_OF_TASKS = 600, 300  # samples of a measure, if no number is given
MOST_SAMPLES, MOST_SEEDS, MOST_RUNS = 10_000, 1000, 10_000
# `evaluate` takes no more samples than these for a measure, however many are asked for.
MOST_OF = {"drawing": 1000, "variety": 1000, "editing": 1000, "likelihood": 2000}
LONGEST_NAME = 60  # letters of a value in the name of a folder

# What measures do not depend on: some decode nothing, and guidance is for pictures.
NO_DECODING = ("tokenizer", "likelihood")
GUIDANCE = tuple(SAMPLING + name for name in ("guidance", "guidance_image", "rescale"))

SOME = Field(min_length=1)  # at least one
Values = tuple[tuple[str, Annotated[tuple[Any, ...], SOME]], ...]  # (name, its values), …


@dataclass(frozen=True)
class Measurement:
    """One measure of one run: how many samples, decoded how, in how many passes a drawing."""

    measure: str
    count: int
    sampling: tuple[tuple[str, Any], ...]  # settings of decoding that are not the usual ones
    passes: int | None

    @property
    def key(self) -> str:
        """Its name in the file that holds what was measured."""
        parts = [f"{self.measure}:{self.count}"]
        parts += [f"{SAMPLING}{name}={word(value)}" for name, value in self.sampling]
        if self.passes is not None:
            parts.append(f"passes={self.passes}")
        return " ".join(parts)


@dataclass(frozen=True)
class Trial:
    """One run to train: the folder is named after what differs, the seed included."""

    name: str
    settings: dict[str, Any]
    seed: int
    preset: Preset


class Plan(Config):
    """Everything that decides what an ablation measures."""

    preset: str
    fixed: tuple[tuple[str, Any], ...] = ()  # settings that all runs share
    varied: Values = ()
    seeds: Annotated[tuple[int, ...], SOME] = (0,)
    # what is measured, and on how many samples
    measures: Annotated[tuple[tuple[str, int], ...], SOME] = (("drawing", 600),)
    passes: tuple[int, ...] = ()  # of a drawing; empty: as many as the decoding settings lead to
    start: str | None = None  # weights that all runs start from
    sources: tuple[tuple[str, str], ...] = ()  # `read_sources` when the first runs began

    def read_sources(self) -> tuple[tuple[str, str], ...]:
        """All that runs start from, such as `tokenizer=runs/codes`, with its SHA-256 now."""
        presets = [trial.preset for trial in changed(self, seeds=self.seeds[:1]).trials()]
        found = {f"text={p.text}": text_info(p.text)["text_sha256"] for p in presets}
        weights = {("tokenizer", preset.tokenizer) for preset in presets} | {("start", self.start)}
        for kind, name in weights:
            if name:
                found[f"{kind}={name}"] = checkpoint.read_info(checkpoint.resolve(name))["sha256"]
        return tuple(sorted(found.items()))

    @property
    def trained(self) -> Values:
        """The varied settings that need a training for each value."""
        return tuple(pair for pair in self.varied if not pair[0].startswith(SAMPLING))

    @property
    def decoded(self) -> Values:
        """The varied settings of decoding, with the prefix."""
        return tuple(pair for pair in self.varied if pair[0].startswith(SAMPLING))

    def fixed_settings(self, decoding: bool) -> dict[str, Any]:
        """What is fixed, of decoding (with the prefix) or of all else."""
        return {name: v for name, v in self.fixed if name.startswith(SAMPLING) == decoding}

    def preset_with(self, **values: Any) -> Preset:
        """The preset with all that is fixed, and with `values`."""
        return changed(get_preset(self.preset), **self.fixed_settings(decoding=False) | values)

    def trials(self) -> list[Trial]:
        """Every run. All settings come with the first seed before any comes with the second."""
        found, taken = [], set()
        for seed in self.seeds:
            for chosen in combinations(self.trained):
                name = folder_name({**chosen, "seed": seed})
                # Two long values may begin alike, and on some systems `A` and `a` are one folder. A
                # plan keeps its order, and new seeds come last. So a run keeps its name.
                while name.casefold() in taken:
                    name += "+"
                taken.add(name.casefold())
                found.append(Trial(name, chosen, seed, self.preset_with(seed=seed, **chosen)))
        return found

    def measurements(self) -> list[Measurement]:
        """Everything that is measured on each run, each once."""
        fixed = self.fixed_settings(decoding=True)
        found: dict[Measurement, None] = {}
        for measure, count in self.measures:
            for chosen in combinations(self.decoded):
                for passes in self.passes or (None,):
                    found[self.measurement(measure, count, {**fixed, **chosen}, passes)] = None
        return list(found)

    def measurement(
        self, measure: str, count: int, sampling: dict[str, Any], passes: int | None
    ) -> Measurement:
        """How a measure is taken: `sampling` and `passes`, if it depends on them at all."""
        task = suite.SUITES[get_preset(self.preset).dataset].get(measure)
        draws = task.draws if task else measure != "describing"
        if measure in NO_DECODING:
            sampling, passes = {}, None
        elif not draws:
            sampling = {name: value for name, value in sampling.items() if name not in GUIDANCE}
            passes = None
        pairs = [(name.removeprefix(SAMPLING), value) for name, value in sampling.items()]
        return Measurement(measure, count, tuple(pairs), passes)

    def command(self) -> str:
        """The command line that repeats the ablation."""
        words = ["minillada", "ablate", self.preset]
        for name, values in self.varied:
            words += ["--vary", f"{name}={','.join(map(word, values))}"]
        for name, value in self.fixed:
            words += ["--set", f"{name}={word(value)}"]
        words += ["--seeds", str(len(self.seeds)), "--seed", str(self.seeds[0])]
        words += ["--measure", ",".join(f"{name}:{count}" for name, count in self.measures)]
        if self.passes:
            words += ["--passes", ",".join(map(str, self.passes))]
        if self.start:
            words += ["--start", self.start]
        return shlex.join(words)


def word(value: Any) -> str:
    """A value as a command line writes it: words as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def combinations(varied: Values) -> list[dict[str, Any]]:
    """Every choice of one value for each name; the last name changes fastest."""
    names = [name for name, _ in varied]
    return [dict(zip(names, chosen)) for chosen in itertools.product(*(v for _, v in varied))]


def folder_name(settings: dict[str, Any]) -> str:
    """`block_size=4,objective=bound,seed=0`, in letters that every file system allows."""
    parts = []
    for name, value in settings.items():
        text = re.sub(r"[^\w.+-]+", "-", word(value)).strip("-")
        parts.append(f"{name}={text[:LONGEST_NAME]}")
    return ",".join(parts)


# --- from words ----------------------------------------------------------------------------------


def read_varied(texts: Sequence[str]) -> Values:
    """`["block_size=4,8", "mask_rate=[0.1,1.0],[0.3,1.0]"]` as names with their values.

    `ValueError` for a name without values, a name given twice, or a value given twice.
    """
    found: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        if not name or not equals:
            raise ValueError(f"what varies is written NAME=VALUE,VALUE, got {text!r}")
        if name in found:
            raise ValueError(f"{name} varies twice; give all of its values in one --vary")
        values = [read_settings([f"{name}={value}"])[name] for value in split_list(listed)]
        for number, value in enumerate(values):
            if value == "":
                raise ValueError(f"--vary {text!r} has an empty value; leave out the comma")
            if value in values[:number]:
                raise ValueError(f"{name} has the value {word(value)} twice; give each value once")
        found[name] = tuple(values)
    return tuple(found.items())


def split_list(text: str) -> list[str]:
    """The parts between commas; commas within brackets belong to a part."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def read_measures(texts: Sequence[str], dataset: str = "mnist") -> tuple[tuple[str, int], ...]:
    """`["drawing:600,likelihood", "digit:100"]` as names with counts.

    `ValueError` for a name that the data set does not know, or a count that says nothing.
    """
    found: dict[str, int] = {}
    known = (*evaluate.MEASURES, *suite.SUITES[dataset])
    for text in ",".join(texts).split(","):
        name, colon, number = text.partition(":")
        if name not in known:
            raise ValueError(f"there is no measure {name!r}; choose from {', '.join(known)}")
        if name in found:
            raise ValueError(f"{name} is measured twice; name each measure once")
        count = USUAL_COUNT if name in evaluate.MEASURES else USUAL_COUNT_OF_TASKS
        if colon:
            count = int(number) if number.isascii() and number.isdigit() else 0
        most = MOST_OF.get(name, MOST_SAMPLES)
        if not evaluate.FEWEST_SAMPLES <= count <= most:
            raise ValueError(
                f"{text!r}: a measure is written NAME:SAMPLES; {name} takes "
                f"{evaluate.FEWEST_SAMPLES} to {most:,} samples"
            )
        found[name] = count
    return tuple(found.items())


def backbone_preset(name: str) -> Preset:
    """The preset called `name`. `ValueError` unless it trains a backbone on an image tokenizer."""
    preset = get_preset(name)
    if preset.kind != "backbone" or not preset.tokenizer:
        raise ValueError(f"{name} is no backbone; only backbones can be compared here")
    return preset


def check_plan(plan: Plan) -> None:
    """`ValueError` or `FileNotFoundError` for a plan with a run that cannot be.

    So nothing is written, and no run is trained, if one of the later ones is bound to fail.
    """
    preset = backbone_preset(plan.preset)
    known = plain_fields(preset).keys() - {"name", "kind", "seed", "dataset"}
    known -= {name for name, kinds in READ_BY.items() if preset.kind not in kinds}
    known |= {SAMPLING + name for name in plain_fields(SamplingConfig())}
    varied = [name for name, _ in plan.varied]
    for name in (*varied, *(name for name, _ in plan.fixed)):
        if name == "seed":
            raise ValueError("seeds are not settings here; --seeds says how many, --seed the first")
        if name not in known:
            raise ValueError(
                f"there is no setting {name!r}; choose one of {', '.join(sorted(known))}"
            )
    for name, _ in plan.fixed:
        if name in varied:
            raise ValueError(f"{name} is varied and set to one value; choose one of them")
    if len(plan.seeds) > MOST_SEEDS:
        raise ValueError(f"there are at most {MOST_SEEDS} seeds")
    if math.prod(len(values) for _, values in plan.trained) * len(plan.seeds) > MOST_RUNS:
        raise ValueError(f"these are more than {MOST_RUNS:,} runs; vary less at once")
    # Settings are tried together, as the runs have them: some fit only beside others.
    for chosen in combinations(plan.decoded):
        values = plan.fixed_settings(decoding=True) | chosen
        changed(SamplingConfig(), **{k.removeprefix(SAMPLING): v for k, v in values.items()})
    for trial in changed(plan, seeds=plan.seeds[:1]).trials():
        check_trial(trial, plan)


def check_trial(trial: Trial, plan: Plan) -> None:
    """`ValueError` or `FileNotFoundError` for a run that cannot be: it is made, but not trained."""
    preset, start = trial.preset, plan.start
    check_settings(preset, start)
    check_shared(preset, Processes())
    materials = read_materials(preset, "cpu")
    module = new_model(preset, "cpu", materials.tokenizer)
    make_optimizers(module, preset.training)
    if start:
        start_from(start, module, preset, materials)
    info = lessons(preset, start)
    for measure, _ in plan.measures:
        check_measure(measure, info, preset.dataset)


def check_measure(measure: str, info: dict[str, Any], dataset: str) -> None:
    """`NotLearned` for a measure that says nothing of a model with the JSON `info`."""
    try:
        if measure in evaluate.MEASURES:
            evaluate.check_learned(info, measure)
        else:
            suite.check_tasks(info, dataset, [measure])
    except NotLearned as error:
        reason = f"{error}".split(";")[0]  # what follows speaks of a model that is there already
        raise NotLearned(
            f"--measure {measure} says nothing of these runs ({reason}); leave it out, or change "
            "what they learn (mixture, held_out, --start)"
        ) from None


def lessons(preset: Preset, start: str | None) -> dict[str, Any]:
    """What the JSON of a run will say about what it learned, in this run and before."""
    info: dict[str, Any] = {"dataset": preset.dataset, "training": to_dict(preset.training)}
    if start:
        info["start"] = checkpoint.read_info(checkpoint.resolve(start))
    return info

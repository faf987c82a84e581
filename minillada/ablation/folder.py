"""The folder of an ablation: the plan in it, and how its files are read and written."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import checkpoint
from ..files import atomic
from ..settings import changed, from_dict, to_dict
from ..training.state import differences
from .plan import Plan

PLAN = "ablation.json"
GROWING = ("seeds", "measures")  # parts of a plan to which more may be added later


def read_plan(folder: Path) -> Plan:
    """The plan that a folder holds. `FileNotFoundError` without one, `ValueError` for no plan."""
    if not (folder / PLAN).exists():
        raise FileNotFoundError(f"{folder} holds no ablation; start one with `minillada ablate`")
    stored = read_json(folder / PLAN, "preset")
    try:
        return from_dict(Plan, stored)
    except ValueError as error:
        raise ValueError(f"{folder / PLAN} holds no plan: {error}") from None


def read_json(path: Path, *fields: str) -> dict[str, Any]:
    """A file of an ablation, which must be an object with these fields.

    `ValueError` if it is not, and if its `digest`, which older files lack, does not fit the rest.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, IsADirectoryError):
        stored = None
    whole = isinstance(stored, dict) and stored.keys() >= {*fields}
    if not whole or stored.get("digest") not in (None, checkpoint.digest(stored)):
        raise damaged(path)
    return stored


def write_json(path: Path, value: Any) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def damaged(path: Path) -> ValueError:
    return ValueError(f"{path} is damaged, was changed, or is no file of an ablation; move it away")


def grows(before: Plan, now: Plan) -> bool:
    """Whether `now` is the plan `before`, perhaps with more seeds or more measures."""
    for name in GROWING:
        if not set(getattr(before, name)) <= set(getattr(now, name)):
            return False
    return changed(now, **{name: getattr(before, name) for name in GROWING}) == before


def check_same(plan: Plan, folder: Path) -> Plan:
    """The plan, as the folder writes it. `ValueError` for a folder with something else.

    More seeds and more measures than those of the folder are allowed, fewer are not. Values are
    compared as numbers: `0.0` goes on where `0` began, and is then written `0`, as in its folders.
    """
    if not (folder / PLAN).exists():
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file; choose another folder with --out")
        # The lock may be there, and what a system keeps in folders that were looked at.
        if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise ValueError(f"{folder} holds something else; choose another folder with --out")
        return plan
    before = read_plan(folder)
    plan = changed(plan, sources=before.sources)  # `check_sources` compares them
    if not grows(before, plan):
        different = differences(to_dict(before), to_dict(plan))
        raise ValueError(
            f"{folder} holds another ablation ({'; '.join(different[:3])}); go on with it as it "
            "was started, or with more seeds or measures, or choose another folder with --out"
        )
    return changed(plan, fixed=before.fixed, varied=before.varied)


def check_sources(plan: Plan) -> Plan:
    """The plan with the SHA-256 of all that its runs start from (`Plan.read_sources`).

    `ValueError` if they are not those of the first runs: seeds of different weights are no seeds of
    one training.
    """
    now = plan.read_sources()
    for name, before in plan.sources:
        if dict(now).get(name) != before:
            raise ValueError(
                f"{name} was replaced after this ablation began; put the old one back, or start "
                "again in another folder with --out"
            )
    return changed(plan, sources=now)


def write_plan(plan: Plan, folder: Path, options: Sequence[str] = ()) -> None:
    """Write the plan, and the command that goes on with it: `options` say how it is run."""
    write_json(folder / PLAN, to_dict(plan))
    with atomic(folder / "command.txt") as temporary:
        command = f"{plan.command()} {shlex.join(['--out', str(folder), *options])}\n"
        temporary.write_text(command, encoding="utf-8")

"""Results on disk: one JSON an experiment in `data/results`, with what made it.

    {"experiment", "command", "commit", "weights", "points", "results"}

Notable choices
- `weights` has the SHA-256 of every shipped weights file that was read, by name. So results of
  weights that were replaced since are found. For a run of somebody it has "not shipped".
- `points` has the settings of each point, and the commit at which it was measured: a file that was
  measured in several sittings may hold points of several commits.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from ..files import RESULTS_DIR, WEIGHTS_DIR, atomic

ROOT = Path(__file__).resolve().parents[2]
NOT_SHIPPED = "not shipped"


def result_path(name: str) -> Path:
    """Where the results of an experiment are stored."""
    return RESULTS_DIR / f"{name}.json"


def load_result(name: str) -> Any:
    """What the experiment called `name` measured, for notebooks.

    `FileNotFoundError` if it has no stored results.
    """
    path = result_path(name)
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in RESULTS_DIR.glob("*.json"))) or "none"
        raise FileNotFoundError(
            f"no results called {name!r}; stored: {known}. Restore them with "
            f"`git checkout -- data` or measure: `python -m minillada.experiments.{name}`"
        )
    return read_result(path)["results"]


def read_result(path: Path) -> dict[str, Any]:
    """A stored file with everything around its results. `ValueError` if it is not one."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, IsADirectoryError):
        stored = None
    needed = {"experiment", "weights", "points", "results"}
    if not isinstance(stored, dict) or not needed <= stored.keys():
        raise ValueError(f"{path} does not hold the results of an experiment; move it away")
    return stored


def write_result(path: Path, stored: dict[str, Any]) -> None:
    """Write a file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def shipped_sum(name: str) -> str:
    """The SHA-256 of the shipped weights called `name`, as their JSON says it."""
    about = WEIGHTS_DIR / f"{name}.json"
    if not about.exists():
        return NOT_SHIPPED
    return json.loads(about.read_text(encoding="utf-8")).get("sha256", NOT_SHIPPED)


def replaced_weights(weights: dict[str, str]) -> list[str]:
    """Names whose shipped file is no longer the one with this sum."""
    return [n for n, measured in weights.items() if measured not in (NOT_SHIPPED, shipped_sum(n))]


def current_commit(root: Path = ROOT) -> str:
    """The commit of the code, with "+changes" where files differ from it; "unknown" without git."""
    top = git(root, "rev-parse", "--show-toplevel")
    commit = git(root, "rev-parse", "HEAD")
    # An installed package may lie within the repository of somebody else.
    # The same folder may have two names: through a link, or in other capitals on macOS.
    if not top or not commit or not os.path.samefile(top, root):
        return "unknown"
    # What an experiment stores between its points is no change of the code.
    changes = git(root, "status", "--porcelain", "--", ".", ":!data/results")
    return commit[:12] + ("+changes" if changes else "")


def git(root: Path, *arguments: str) -> str:
    """What a git command prints; nothing if it fails or git is not installed."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True)
    except OSError:
        return ""
    # It prints names of files as they are stored, whatever encoding a terminal would have.
    return os.fsdecode(done.stdout).strip() if done.returncode == 0 else ""

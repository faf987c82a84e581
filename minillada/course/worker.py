"""The process that runs a student's functions: it knows the inputs, and not the right answers.

Notable choices
- Of a notebook only imports, functions, classes and constants are taken. No cell is run.
- Answers leave the process as files of plain data (JSON and safetensors), which cannot carry code.
  The grader compares them in its own process, where no student's code ever runs. So it does not
  help to redefine a check, `torch.equal`, or what a comparison means.
- Limits of time and memory, an own folder and a closed output protect against accidents and
  clumsy attacks. A process with limits is no sandbox (docs/TEACHING.md, "Grading").
"""

from __future__ import annotations

import ast
import faulthandler
import json
import linecache
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from ..exercises.checking import Outcome, call
from .pages import python_of

LATE = 3.0  # seconds after which a call that cannot be stopped ends its process
LONGEST_TEXT = 1_000  # characters of a failure, and of a note
MOST_NUMBERS = 1_000_000  # in an answer
MOST_PARTS = 10_000  # of a list or dictionary
# A constant is made of these parts of Python, and of calls such as `set()` or `float("inf")`.
CONSTANT = (
    *(ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp, ast.Call),
    *(ast.unaryop, ast.operator, ast.expr_context),
)
CALLED = ("set", "dict", "list", "float")


class Task(NamedTuple):
    """What to call: a function by name, and the inputs of all cases."""

    function: str
    inputs: list[tuple]


class Job(NamedTuple):
    """All that the process is told."""

    imports: list[str]  # of the page, so that a student cannot break them by accident
    cells: list[str]  # code of the student
    tasks: list[Task]
    folder: Path  # holds `work`, where it runs, and `out`, where answers are written
    seconds: float  # for all cases of an exercise
    memory: int  # bytes above what a fresh process has


# --- what the process may do ----------------------------------------------------------------------


def confine(job: Job) -> None:
    """Own folder, no output, one thread, and limits where the system has them."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):  # a gigabyte that is printed costs time, and no disk
        os.dup2(nothing, number)
    # Also objects that wrote elsewhere (a test runner replaces them) write nowhere now.
    sys.stdout = sys.stderr = os.fdopen(nothing, "w")
    sys.argv = ["grade"]  # the words of the command line are not for students
    os.chdir(job.folder / "work")
    for name in ("HOME", "USERPROFILE", "TMPDIR", "TEMP", "TMP"):
        os.environ[name] = str(job.folder / "work")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if hasattr(os, "setsid"):
        os.setsid()  # its children can be ended with it
    try:
        import resource
    except ImportError:  # Windows: the grader watches the memory
        return
    limits = {resource.RLIMIT_FSIZE: 50_000_000, resource.RLIMIT_CORE: 0}
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + job.memory
    for which, limit in limits.items():
        resource.setrlimit(which, (limit, limit))


def serve(job: Job) -> None:
    """Write `out/loaded.json`, then `out/0-0.json`, … for every case; the parent reads them."""
    confine(job)
    out = job.folder / "out"
    namespace, notes = build(job)
    write(out / "loaded.json", {"notes": notes[:20]})
    for number, task in enumerate(job.tasks):
        began = time.monotonic()
        function = namespace.get(task.function)
        for case, inputs in enumerate(task.inputs):
            left = max(0.1, job.seconds - (time.monotonic() - began))
            # Some calls into C cannot be stopped from Python: then the process ends itself.
            faulthandler.dump_traceback_later(left + LATE, exit=True, file=sys.stderr)
            outcome = answer(function, task.function, inputs, left)
            save(outcome, out, f"{number}-{case}")
            if outcome.failure:
                break
        if outcome.failure and "longer than" in outcome.failure:
            os._exit(0)  # its thread may still be running: the rest gets a fresh process
    os._exit(0)  # without what a student registered for the end


def answer(function: Any, name: str, inputs: tuple, seconds: float) -> Outcome:
    """One call, as in the notebook."""
    if function is None:
        return Outcome(failure=f"there is no function {name} in your notebook")
    try:
        return call(function, inputs, seconds)
    except BaseException as error:
        return Outcome(failure=f"your answer cannot be read ({type(error).__name__})")


# --- the student's functions ----------------------------------------------------------------------


def build(job: Job) -> tuple[dict[str, Any], list[str]]:
    """The names that the student defined, and what could not be read or run."""
    namespace: dict[str, Any] = {"__name__": "submission"}
    notes: list[str] = []
    for statement in job.imports:
        run(statement, "<imports>", namespace, [])
    for number, source in enumerate(job.cells, start=1):
        name = f"<cell {number}>"
        try:
            source = python_of(source)
            body = ast.parse(source).body
        except Exception as error:
            place = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            notes.append(f"code cell {number} cannot be read ({type(error).__name__}{place})")
            continue
        linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
        for node in body:
            if is_taken(node, namespace):
                run(ast.Module([node], []), name, namespace, notes)
    return namespace, notes


def run(code: str | ast.Module, name: str, namespace: dict[str, Any], notes: list[str]) -> None:
    """One statement of the cell called `name`; what it raises becomes a note."""
    try:
        # Some errors, such as `break` outside a loop, are found only here, not by `ast.parse`.
        exec(compile(code, name, "exec"), namespace)
    except BaseException as error:
        notes.append(f"{type(error).__name__}: {error}"[:LONGEST_TEXT])


def is_taken(node: ast.stmt, namespace: dict[str, Any]) -> bool:
    """Whether a statement is an import, a function, a class or a constant."""
    if isinstance(node, ast.FunctionDef):
        # An unfinished copy below an answer does not take its place.
        return not (node.name in namespace and is_unfinished(node))
    if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
        return isinstance(node.value, ast.Lambda) or is_constant(node.value)
    return isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef)


def is_constant(node: ast.expr) -> bool:
    """Numbers, texts, lists of them, and arithmetic such as `1 / 3`."""
    for part in ast.walk(node):
        known = isinstance(part, ast.Name) and part.id in CALLED
        if not known and not isinstance(part, CONSTANT):
            return False
    return True


def is_unfinished(node: ast.FunctionDef) -> bool:
    """Whether nothing but `raise NotImplementedError` stands in a function."""
    body = node.body[ast.get_docstring(node) is not None :]
    raises = len(body) == 1 and isinstance(body[0], ast.Raise)
    return raises and "NotImplementedError" in ast.dump(body[0])


# --- answers as plain data ------------------------------------------------------------------------


def save(outcome: Outcome, folder: Path, name: str) -> None:
    """One outcome as `name.json`, and its tensors beside it."""
    tensors: dict[str, Tensor] = {}
    text = outcome.failure
    try:
        value = plain(outcome.answer, tensors) if text is None else None
    except (ValueError, RecursionError, MemoryError, RuntimeError) as error:
        value, text = None, f"your answer is too large or too deep ({type(error).__name__})"
        tensors = {}
    if tensors:
        (folder / f"{name}.safetensors").write_bytes(safetensors.torch.save(tensors))
    failure = text if text is None else text[:LONGEST_TEXT]
    write(folder / f"{name}.json", {"failure": failure, "answer": value})


def write(path: Path, value: Any) -> None:
    """JSON under a temporary name first, so that a file is whole or absent."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value), encoding="utf-8")
    os.replace(part, path)


def plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`[kind, value]`; `ValueError` where an answer is too large to be one."""
    if value is None or type(value) in (bool, int, float, str):
        if isinstance(value, str) and len(value) > MOST_NUMBERS:
            raise ValueError("a long text")
        return ["value", value]
    if isinstance(value, list | tuple | frozenset):  # a set is no answer in the notebook either
        if len(value) > MOST_PARTS:
            raise ValueError("many parts")
        return ["list", [plain(part, tensors) for part in value]]
    if isinstance(value, dict):
        if len(value) > MOST_PARTS:
            raise ValueError("many parts")
        return ["dict", [[str(key), plain(part, tensors)] for key, part in value.items()]]
    try:
        tensor = torch.as_tensor(value).detach().cpu()
    except Exception:  # an object that is no answer: its type is all that is told
        return ["object", type(value).__name__[:100]]
    if tensor.numel() > MOST_NUMBERS:
        raise ValueError("many numbers")
    name = str(len(tensors))
    tensors[name] = tensor.clone().contiguous()
    return ["tensor", name]


def restored(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `plain` wrote, in the process of the grader."""
    kind, content = value
    if kind == "list":
        return [restored(part, tensors) for part in content]
    if kind == "dict":
        return {key: restored(part, tensors) for key, part in content}
    if kind == "tensor":
        return tensors[content]
    if kind == "object":
        return type(str(content), (), {})()
    return content

"""The process that runs a student's functions: it knows the inputs, and not the right answers.

Notable choices
- Of a notebook only imports, functions, classes and constants are taken. No cell is run. Where an
  answer needs a name that another statement binds, a note says so.
- Answers leave the process as files of plain data (JSON and safetensors), which cannot carry code.
  The grader compares them in its own process, where no student's code ever runs. So it does not
  help to redefine a check, `torch.equal`, or what a comparison means.
- Limits of time and memory, a folder of its own and a closed output protect against accidents and
  clumsy attacks. A process with limits is no sandbox (docs/TEACHING.md, "Grading").
"""

from __future__ import annotations

import ast
import builtins
import dis
import errno
import faulthandler
import json
import linecache
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from ..exercises.checking import Outcome, call
from ..files import rename
from .pages import python_of

NO_ROOM = 74  # exit code of a process that cannot store an answer, as in sysexits.h
LATE = 3.0  # seconds after which a call that cannot be stopped ends its process
LONGEST_TEXT = 1_000  # characters of a failure, and of a note
MOST_NUMBERS = 1_000_000  # in an answer
MOST_PARTS = 10_000  # of a list or dictionary
NOT_TAKEN = "only imports, functions, classes and constants are"
TAKEN_WHOLE = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
# A constant is made of these parts of Python, of names that are known, and of harmless calls.
CONSTANT = (
    ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp, ast.Attribute,
    ast.keyword, ast.unaryop, ast.operator, ast.expr_context,
)  # fmt: skip
# None of these calls what it is given, so no function of a student runs.
CALLED: list[Any] = [value for value in vars(math).values() if callable(value)]
CALLED += [set, frozenset, dict, list, tuple, range, int, float, partial, torch.tensor]


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
    """A folder of its own, no output, one thread, and limits where the system has them."""
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
    """Write `out/loaded.json`, then `out/0-1.json` for case 1 of task 0, and so on.

    The parent reads them.
    """
    confine(job)
    try:
        answer_all(job)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        os._exit(NO_ROOM)
    os._exit(0)  # without what a student registered for the end


def answer_all(job: Job) -> None:
    """The student's answers, each in a file, up to one that takes too long."""
    out = job.folder / "out"
    namespace, notes = build(job)
    write(out / "loaded.json", {"notes": notes[:20]})
    hint = "; see the notes" if notes else ""
    for number, task in enumerate(job.tasks):
        began = time.monotonic()
        function = namespace.get(task.function)
        for case, inputs in enumerate(task.inputs):
            left = max(0.1, job.seconds - (time.monotonic() - began))
            # Some calls into C cannot be stopped from Python: then the process ends itself.
            faulthandler.dump_traceback_later(left + LATE, exit=True, file=sys.stderr)
            outcome = answer(function, task.function, inputs, left, hint)
            save(outcome, out, f"{number}-{case}")
            if outcome.failure:
                break
        if outcome.ran_out:
            return  # its thread may still run, its memory be held: the rest starts afresh


def answer(function: Any, name: str, inputs: tuple, seconds: float, hint: str = "") -> Outcome:
    """One call, as in the notebook; `hint` ends the sentence about a function that is missing."""
    if function is None:
        return Outcome(failure=f"there is no function {name} in your notebook{hint}")
    try:
        return call(function, inputs, seconds)
    except BaseException as error:
        return Outcome(failure=f"your answer cannot be read ({type(error).__name__})")


# --- the student's functions ----------------------------------------------------------------------


def build(job: Job) -> tuple[dict[str, Any], list[str]]:
    """The names that the student defined, and what could not be read or run."""
    namespace: dict[str, Any] = {"__name__": "submission"}
    notes: list[str] = []
    reads: dict[str, set[str]] = {}  # name -> names that its statement reads
    left_out: dict[str, str] = {}  # name -> note about the statement that would bind it
    written: set[str] = set()  # functions that are not only a stub
    wanted = {task.function for task in job.tasks}
    for statement in job.imports:
        run(compile(statement, "<imports>", "exec"), namespace)
    for node, code in statements(job.cells, notes):
        if isinstance(node, ast.FunctionDef) and node.name in namespace and is_unfinished(node):
            continue  # an unfinished copy below an answer does not take its place
        bound = names_in([code], "STORE_NAME")
        # A statement that was left out would have changed its names: what they held before is not
        # what the student means.
        known = {name: value for name, value in namespace.items() if name not in left_out}
        problem = run(code, namespace) if is_taken(node, known) else NOT_TAKEN
        reads |= dict.fromkeys(bound, names_in(with_parts(code), "LOAD_NAME", "LOAD_GLOBAL"))
        words = linecache.getline(code.co_filename, node.lineno).strip()[:80]
        place = code.co_filename.strip("<>")  # "cell 3"
        note = f"code {place}: `{words}` was not run ({problem})"
        if problem is None:
            left_out = {name: why for name, why in left_out.items() if name not in bound}
            if isinstance(node, ast.FunctionDef) and not is_unfinished(node):
                if node.name in written & wanted:
                    notes.append(f"{node.name} is defined more than once; the last one counts")
                written.add(node.name)
        elif isinstance(node, TAKEN_WHOLE):
            notes.append(note)
        else:
            left_out |= dict.fromkeys(bound, note)
    needed = needed_by(wanted, reads)
    missed = [note for name, note in left_out.items() if name in needed]
    return namespace, [*dict.fromkeys(missed), *notes]


def statements(cells: list[str], notes: list[str]) -> Iterator[tuple[ast.stmt, CodeType]]:
    """Every statement of the cells that can be read; the others become notes."""
    for number, source in enumerate(cells, start=1):
        name = f"<cell {number}>"
        try:
            source = python_of(source)
            body = ast.parse(source).body
        except Exception as error:
            why = type(error).__name__
            if isinstance(error, SyntaxError):
                why = f"{error.msg}, line {error.lineno}: `{(error.text or '').strip()[:80]}`"
            notes.append(f"code cell {number} cannot be read ({why})")
            continue
        # From here, notes and `checking.line` quote the lines of the cell.
        linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
        for node in body:
            try:
                # Some errors, such as `break` outside a loop, are found only here.
                code = compile(ast.Module([node], []), name, "exec")
            except Exception as error:
                notes.append(in_words(error))
            else:
                yield node, code


def run(code: CodeType, namespace: dict[str, Any]) -> str | None:
    """Run one statement; what it raises, in words."""
    try:
        exec(code, namespace)
    except BaseException as error:
        return in_words(error)
    return None


def in_words(error: BaseException) -> str:
    """Type and text of what was raised."""
    return f"{type(error).__name__}: {error}"[:LONGEST_TEXT]


def with_parts(code: CodeType) -> Iterator[CodeType]:
    """Code, and that of the functions and classes in it."""
    yield code
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from with_parts(part)


def names_in(codes: Iterable[CodeType], *operations: str) -> set[str]:
    """Names that these operations of Python's bytecode read or bind.

    Local names of functions are read and bound by other operations, so none of them is found.
    """
    steps = (step for code in codes for step in dis.get_instructions(code))
    return {step.argval for step in steps if step.opname in operations}


def needed_by(names: Iterable[str], reads: dict[str, set[str]]) -> set[str]:
    """These names, and all that their definitions read, and so on."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += reads.get(name, ())
    return found


def is_taken(node: ast.stmt, known: dict[str, Any]) -> bool:
    """Whether a statement is an import, a function, a class or a constant made of `known` names."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return isinstance(node, TAKEN_WHOLE)
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    parts = [part for target in targets for part in ast.walk(target)]
    if any(isinstance(part, ast.Call) for part in parts):  # `make()[0] = 1` runs a function
        return False
    return isinstance(node.value, ast.Lambda) or is_constant(node.value, known)


def is_constant(node: ast.expr, known: dict[str, Any]) -> bool:
    """Numbers, texts, lists of them, known names, and arithmetic such as `1 / 3` or `log(2)`."""
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            good = part.id in known or hasattr(builtins, part.id)
        elif isinstance(part, ast.Call):
            function = value_of(part.func, known)
            good = any(function is one for one in CALLED)  # `in` might run a student's `__eq__`
        else:
            good = isinstance(part, CONSTANT)
        if not good:
            return False
    return True


def value_of(node: ast.expr, known: dict[str, Any]) -> Any:
    """What `name` or `module.name` stands for, found without running code; None if unknown."""
    if isinstance(node, ast.Name):
        return known.get(node.id, getattr(builtins, node.id, None))
    if isinstance(node, ast.Attribute):
        module = value_of(node.value, known)
        return vars(module).get(node.attr) if isinstance(module, ModuleType) else None
    return None


def is_unfinished(node: ast.FunctionDef) -> bool:
    """Whether nothing but `raise NotImplementedError` stands in a function."""
    body = node.body if ast.get_docstring(node) is None else node.body[1:]
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
    rename(part, path)


def plain(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`[kind, value]`; `ValueError` where an answer is too large to be one."""
    unusual = isinstance(value, int) and value.bit_length() > 63  # no tensor can hold it
    if value is None or (type(value) in (bool, int, float, str) and not unusual):
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
    if tensor.is_complex():
        tensor = tensor.to(torch.complex64)  # the one complex type that a file can hold
    name = str(len(tensors))
    # A sparse answer is right in the notebook, too; it becomes dense once its size is known.
    tensors[name] = tensor.to_dense().clone().contiguous()
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
        return type(str(content), (), {})()  # of it, only the name of its type is ever told
    return content

"""Grading a folder of notebooks: every submission in its own process, with inputs nobody has seen.

Notable choices
- All submissions are read before the first one runs, so none can change another.
- The process of a student gets inputs and gives answers; they are compared here. A process that
  hangs or ends costs the exercise it was in; a fresh one goes on with the next exercise.
- Limits are no sandbox (docs/TEACHING.md, "Grading").
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

import safetensors.torch

from ..exercises.checking import Case, Outcome, diagnosis
from ..files import atomic
from . import processes, worker
from .pages import Asked, asked, cells_of, checks_of, imports_of, read_json, read_page

LONGEST_NAME = 50  # letters of a student's name in that of a file
LARGEST_ANSWER = 50_000_000  # bytes of a file that a student's process wrote
ROOM = 1_000_000  # bytes that answers may need, for a test of the disk
RIGHT = "right"
NOT_GRADED = "this submission could not be graded; look at it yourself"


@dataclass(frozen=True)
class Limits:
    """What a submission may use."""

    seconds: float = 5.0  # for each exercise
    memory: int = 1_000_000_000  # bytes above what a fresh process has


@dataclass(frozen=True)
class Page:
    """What is graded: the exercises of one notebook, with hidden inputs."""

    exercises: list[Asked]
    cases: list[list[Case]]  # of each exercise
    imports: list[str]
    solutions: frozenset[str]  # printed solutions: a copy of such a cell is not the student's

    @classmethod
    def read(cls, path: Path, seed: int) -> Page:
        """The page at `path`; equal seeds give equal inputs. `ValueError` if it checks nothing."""
        cells = cells_of(read_page(path))
        found = asked(cells)
        if not found:
            raise ValueError(f"{path.name} has no exercise with a check")
        cases = [check.cases(seed) for check in checks_of(found)]
        printed = frozenset(cell.source.strip() for cell in cells if cell.solution)
        return cls(found, cases, imports_of(cells), printed)


@dataclass
class Grade:
    """What one student gets."""

    student: str
    marks: list[str]  # for each exercise: "right", or what is wrong
    notes: list[str] = field(default_factory=list)
    lost: bool = False  # whether its process was lost, perhaps because of another submission

    @property
    def points(self) -> int:
        return self.marks.count(RIGHT)


@dataclass(frozen=True)
class Submission:
    """A student and the code of the notebook; `problem` says why there is none."""

    student: str
    cells: list[str]
    problem: str | None = None
    notes: tuple[str, ...] = ()


# --- reading --------------------------------------------------------------------------------------


def submissions(folder: Path, page: Page, number: str) -> list[Submission]:
    """Every notebook in a folder; in folders of students, the one with this number.

    `FOLDER/ann.ipynb` belongs to `ann`, and so does `FOLDER/ann/…/05_backbone.ipynb`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; give one with notebooks of students")
    found: dict[str, list[Path]] = {}
    for path in notebooks_in(folder):
        parts = path.relative_to(folder).parts
        found.setdefault(parts[0] if len(parts) > 1 else path.stem, []).append(path)
    if not found:
        raise FileNotFoundError(f"there is no notebook (*.ipynb) in {folder}")
    names = sorted(found, key=lambda name: (name.casefold(), name))
    return [chosen(name, found[name], page, folder, number) for name in names]


def notebooks_in(folder: Path) -> list[Path]:
    """Every notebook, those nearest to the top first.

    Copies that JupyterLab keeps are none, nor is what macOS puts beside a file (`._ann.ipynb`).
    Some systems write endings in capitals.
    """
    paths = []
    for path in folder.rglob("*.[iI][pP][yY][nN][bB]"):
        copy = ".ipynb_checkpoints" in path.relative_to(folder).parts
        if path.is_file() and not copy and not path.name.startswith("._"):
            paths.append(path)
    # At the same depth a shorter name comes first: `05_backbone`, then `05_backbone-Copy1`.
    return sorted(paths, key=lambda path: (len(path.parts), len(path.name), path))


def without_notebook(folder: Path) -> list[str]:
    """Names of files and folders that hold no notebook: an instructor must look at them."""
    graded = {path.relative_to(folder).parts[0] for path in notebooks_in(folder)}
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return sorted(names - graded)


def chosen(student: str, paths: list[Path], page: Page, folder: Path, number: str) -> Submission:
    """Of a student's notebooks the first with the number, or with the name of the student.

    A note names it if there was a doubt. A second notebook with another number raises none.
    """
    own = [path for path in paths if path.name.startswith(number) or path.parent == folder]
    path = (own or paths)[0]
    submission = read(student, path, page)
    others = [one for one in paths if one in own or not re.match(r"\d\d_", one.name)]
    rest = [str(one.relative_to(folder)) for one in others if one != path]
    if own and not rest:
        return submission
    note = f"graded: {path.relative_to(folder)}"
    note += (
        f"; not graded: {', '.join(rest)}" if rest else f", whose name does not begin with {number}"
    )
    return replace(submission, notes=(note, *submission.notes))


def read(student: str, path: Path, page: Page) -> Submission:
    """One notebook, without printed solutions that are still in it."""
    try:
        cells = cells_of(read_json(path))
    except ValueError as error:
        return Submission(student, [], str(error))
    asked_for = [exercise.function for exercise in page.exercises]
    if not any(name in cell.source for cell in cells for name in asked_for):
        words = f"{path.name} names none of {', '.join(asked_for)}; is it another notebook?"
        return Submission(student, [], words)
    own = []
    copies = 0
    for cell in cells:
        printed = cell.source.strip() in page.solutions
        if printed and not cell.solution:
            copies += 1
        if cell.kind == "code" and not (cell.solution or printed):
            own.append(cell.source)
    note = f"copies of printed solutions that do not count: {copies}"
    return Submission(student, own, notes=(note,) if copies else ())


# --- one submission -------------------------------------------------------------------------------


def grade(submission: Submission, page: Page, limits: Limits) -> Grade:
    """The grade of one student; whatever the code does, it costs this student alone."""
    try:
        return graded(submission, page, limits)
    except Exception as error:  # of this file, at something that the student's code wrote
        note = f"{type(error).__name__}: {error}"[: worker.LONGEST_TEXT]
        marks = [NOT_GRADED] * len(page.exercises)
        return Grade(submission.student, marks, [*submission.notes, note], lost=True)


def graded(submission: Submission, page: Page, limits: Limits) -> Grade:
    """As `grade`; every known way in which the student's process ends becomes a mark."""
    if submission.problem:
        marks = [submission.problem] * len(page.exercises)
        return Grade(submission.student, marks, [*submission.notes])
    outcomes: list[list[Outcome]] = []
    notes: list[str] = []
    lost = False
    while len(outcomes) < len(page.exercises):
        first = len(outcomes)
        got, more, end = attempt(submission, page, first, limits)
        # A fresh process says again what it could not read, but nothing about exercises before.
        notes += [note for note in more if note not in notes]
        gone = end.endswith((processes.LOST, processes.FULL))
        lost = lost or gone
        if not got:  # not even the definitions could be read: no exercise can be answered
            failure = Outcome(failure=f"reading your definitions {end}")
            outcomes += [[failure]] * (len(page.exercises) - first)
        # A server may end because of another submission, or because of the exercise before this
        # one. So the last exercise is not decided, but tried once more in a fresh process. Where
        # it is the only one, it counts: else this loop might never end.
        outcomes += got[:-1] if gone and len(got) > 1 else got
    marks = []
    for exercise, cases, answers in zip(page.exercises, page.cases, outcomes):
        marks.append(mark(cases, answers, exercise.function))
    return Grade(submission.student, marks, [*submission.notes, *notes], lost)


def mark(cases: list[Case], outcomes: list[Outcome], function: str) -> str:
    """`RIGHT`, or what is wrong in words that are not too long."""
    try:
        words = diagnosis(cases, outcomes, function)
    except Exception:  # numbers of a kind that cannot be compared
        words = "your answer cannot be compared with the right one"
    return RIGHT if words is None else words[: worker.LONGEST_TEXT]


def attempt(
    submission: Submission, page: Page, first: int, limits: Limits
) -> tuple[list[list[Outcome]], list[str], str]:
    """One process, from exercise `first` on, until it is done or ends.

    Returns the outcomes of every exercise it came to, its notes, and how it ended.
    """
    tasks = []
    for exercise, cases in zip(page.exercises[first:], page.cases[first:]):
        tasks.append(worker.Task(exercise.function, [case.inputs for case in cases]))
    folder = Path(tempfile.mkdtemp(prefix="grade-"))
    try:
        (folder / "work").mkdir()
        (folder / "out").mkdir()
        allowed = limits.seconds, limits.memory
        end = processes.run(worker.Job(page.imports, submission.cells, tasks, folder, *allowed))
        loaded = json_in(folder / "out" / "loaded.json")
        if loaded is None:
            return [], [], end
        outcomes = list(collected(folder / "out", tasks, end))
        notes = loaded.get("notes")
        notes = notes[:20] if isinstance(notes, list) else []  # a student may have written it
        return outcomes, [str(note)[: worker.LONGEST_TEXT] for note in notes], end
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def collected(folder: Path, tasks: list[worker.Task], end: str) -> Iterator[list[Outcome]]:
    """The outcomes of each exercise; the last one of an exercise that was not finished says why."""
    for number, task in enumerate(tasks):
        outcomes: list[Outcome] = []
        for case in range(len(task.inputs)):
            outcome = outcome_of(folder, f"{number}-{case}")
            if outcome is None:
                yield [*outcomes, Outcome(failure=f"your function {end}")]
                return
            outcomes.append(outcome)
            if outcome.failure:
                break
        yield outcomes
        if outcomes and outcomes[-1].ran_out:
            return  # the process ended itself here


def outcome_of(folder: Path, name: str) -> Outcome | None:
    """An outcome as `worker.save` wrote it; None if it is absent or damaged."""
    value = json_in(folder / f"{name}.json")
    if value is None:
        return None
    if value.get("failure"):
        return Outcome(failure=str(value["failure"])[: worker.LONGEST_TEXT])
    try:
        data = plain_file(folder / f"{name}.safetensors")
        tensors = safetensors.torch.load(data) if data is not None else {}
        return Outcome(worker.restored(value["answer"], tensors))
    except Exception:  # written by a student's code
        return Outcome(failure="your answer cannot be read")


def json_in(path: Path) -> dict | None:
    """A JSON object; None if it is absent or damaged."""
    try:
        value = json.loads(plain_file(path) or b"")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def plain_file(path: Path) -> bytes | None:
    """The bytes of a file; None for what is no plain file: a folder, or a pipe that never ends."""
    # Windows has neither flag: a pipe is not waited for, and a link is not followed.
    more = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | more)) as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_size > LARGEST_ANSWER:
                return None
            return file.read()
    except OSError:
        return None


# --- a class --------------------------------------------------------------------------------------


def grade_all(
    found: list[Submission],
    page: Page,
    limits: Limits,
    jobs: int = 2,
    known: dict[str, Grade] | None = None,
    keep: Callable[[Grade], None] = lambda one: None,
) -> list[Grade]:
    """Grades in the order of the submissions, `jobs` of them at once.

    Who is `known` has a grade already. `keep` gets each other one as soon as it is final.
    """
    grades = dict(known or {})
    rest = [one for one in found if one.student not in grades]
    lost = []
    processes.preload(page.imports)
    with ThreadPoolExecutor(jobs) as pool, processes.stopping(pool):
        waiting = {pool.submit(grade, one, page, limits): one for one in rest}
        for done in as_completed(waiting):
            one = done.result()
            if one.lost:
                lost.append(waiting[done])
            else:
                grades[one.student] = one
                keep(one)
    # One submission may have ended the server of the others, or filled the disk: those are graded
    # again, alone.
    for submission in lost:
        one = grade(submission, page, limits)
        if one.lost:
            check_room()
        grades[one.student] = one
        keep(one)
    return [grades[one.student] for one in found]


def check_room() -> None:
    """`OSError` where answers of students cannot be stored, whatever their code does."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(ROOM))
    except OSError as error:
        words = "no room for the answers of students (TMPDIR names another folder)"
        raise OSError(error.errno, words, tempfile.gettempdir()) from None


def check_places(folder: Path, csv: Path, feedback: Path | None) -> None:
    """`ValueError` where grades would replace a submission or each other."""
    if csv.suffix.lower() != ".csv":
        raise ValueError(f"--csv names a table, such as grades.csv, not {str(csv)!r}")
    if feedback:
        place, table = feedback.resolve(), csv.resolve()
        if place == folder.resolve() or table in (place, *place.parents):
            raise ValueError(f"give --feedback a folder of its own, not {feedback}")


def summary(grades: list[Grade], found: list[Submission], most: int) -> str:
    """How many submissions there are, and the mean of those that hold the notebook.

    A folder may hold a whole week: the files of other notebooks have no points, and say nothing
    about the class.
    """
    read = [one.points for one, submission in zip(grades, found) if not submission.problem]
    count = f"{len(found)} submission{'s' if len(found) > 1 else ''}"
    if not read:
        return f"{count}, none of which is this notebook"
    words = f"{count}, {sum(read) / len(read):.1f} of {most} exercises right on average"
    left = len(found) - len(read)
    return f"{words}, without {left} of another notebook or damaged" if left else words


def save_csv(grades: list[Grade], page: Page, path: Path) -> None:
    """One row a student: points, one column for each exercise, and what is wrong in words."""
    names = [exercise.check for exercise in page.exercises]
    # With a mark at the beginning, Excel sees that names are in UTF-8.
    with atomic(path) as part, open(part, "w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow(["student", "points", "of", *names, "feedback", "notes"])
        for one in grades:
            marks = [int(mark == RIGHT) for mark in one.marks]
            row = [harmless(one.student), one.points, len(marks), *marks]
            words = feedback_of(one, page).replace("\n", " | ")
            table.writerow([*row, harmless(words), harmless(" | ".join(one.notes))])


def harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula, without characters that are not printed."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def feedback_of(one: Grade, page: Page) -> str:
    """A line for each exercise: what a student is told."""
    lines = []
    for exercise, mark in zip(page.exercises, one.marks):
        lines.append(f"{exercise.title} ({exercise.function}): {mark}")
    return "\n".join(lines)


def feedback_files(students: list[str]) -> list[str]:
    """The name of each student's text file; names that would be the same file get a number."""
    taken: dict[str, None] = {}  # a dictionary keeps the order
    for student in students:
        # Short enough for every file system, in letters of up to four bytes.
        name = plain = re.sub(r"[^\w.-]", "_", student)[:LONGEST_NAME]
        number = 1
        while f"{name}.txt".casefold() in map(str.casefold, taken):  # Ann and ann: one on Windows
            number += 1
            name = f"{plain}-{number}"
        taken[f"{name}.txt"] = None
    return list(taken)


def save_feedback(grades: list[Grade], page: Page, folder: Path) -> None:
    """One text file a student."""
    for one, name in zip(grades, feedback_files([one.student for one in grades])):
        notes = "".join(f"\nNote: {note}" for note in one.notes)
        right = f"Right: {one.points} of {len(one.marks)} exercises."
        text = f"{harmless(one.student)}\n{right}\n\n{feedback_of(one, page)}\n{notes}\n"
        with atomic(folder / name) as part:
            part.write_text(text, encoding="utf-8", errors="replace")

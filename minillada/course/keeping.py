"""Grades that are known before all are: a run of `grade` that was interrupted goes on from them.

Notable choices
- They stand in a file beside the table until the table and the feedback are written. It is written
  after each student, whole.
- The file is sealed: it holds a digest of all that is in it and of the seed. So no program of a
  student can put a grade there while others are graded, and the digest is too slow for trying all
  seeds.
- The seed itself is added when a run is stopped. One that is killed has no time for that: it goes
  on with the seed that it printed.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..files import atomic
from .grading import Grade, Limits, Page, Submission

ROUNDS = 20_000  # of the digest: 10 ms, or months for all seeds
LARGEST_SEED = 10**9  # of those that are drawn by lot
DAMAGED = "is no file of kept grades, or damaged; delete it to grade all submissions anew"


class Kept:
    """The grades of a run, until it is finished; a context that ends with the run.

    Inside, SIGTERM and a window that is closed stop the run as Ctrl-C does.
    """

    def __init__(self, csv: Path) -> None:
        self.path = csv.with_name(f"{csv.name}.unfinished")
        self.stored = self.read()
        seed = self.stored.get("seed")
        self.seed = secrets.randbelow(LARGEST_SEED) if seed is None else seed
        self.known: dict[str, Grade] = {}  # by the name of the student
        self.written = 0  # how many of them stand in the file
        self.about = ""  # what the grades are of: notebook and limits
        self.sent: dict[str, str] = {}  # student -> digest of the submission
        self.before: dict[int, Any] = {}  # handlers of signals

    def read(self) -> dict[str, Any]:
        """What an earlier run left, or nothing; `ValueError` if it cannot be read."""
        try:
            stored = json.loads(self.path.read_bytes())
            if isinstance(stored["grades"], dict) and isinstance(stored["seed"], int | None):
                return stored
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError, KeyError, TypeError):
            pass
        raise ValueError(f"{self.path} {DAMAGED}")

    def begin(self, found: list[Submission], page: Page, limits: Limits, seed: int) -> None:
        """Take over what is known of these submissions; `ValueError` if it is of another run."""
        self.seed = seed
        parts = [*page.exercises, *page.imports, *sorted(page.solutions), limits]
        self.about = digest(*map(repr, parts))
        self.sent = {one.student: digest(repr(one)) for one in found}
        if not self.stored:
            return
        grades = self.stored["grades"]
        if self.stored.get("seal") != self.seal(grades):
            raise ValueError(
                f"{self.path} holds the grades of a run that was stopped, or still runs; repeat "
                "its command, with the --seed that it printed, or delete the file"
            )
        for student, row in grades.items():
            if row["sent"] == self.sent.get(student):
                self.known[student] = Grade(student, row["marks"], row["notes"])
        print(f"graded before, and kept: {len(self.known)} of {len(found)}")
        self.write()  # without the seed

    def add(self, grade: Grade) -> None:
        """A grade that is final."""
        self.known[grade.student] = grade
        self.write()

    def seal(self, grades: dict[str, Any]) -> str:
        """A digest that only a program that knows the seed can make."""
        text = json.dumps([self.about, grades], sort_keys=True).encode()
        return hashlib.pbkdf2_hmac("sha256", str(self.seed).encode(), text, ROUNDS).hex()

    def write(self, seed: int | None = None) -> None:
        """All grades that are known."""
        grades = {}
        for student, one in self.known.items():
            grades[student] = {"sent": self.sent[student], "marks": one.marks, "notes": one.notes}
        stored = {"seed": seed, "seal": self.seal(grades), "grades": grades}
        with atomic(self.path) as part:
            part.write_text(json.dumps(stored), encoding="utf-8")
        self.written = len(grades)

    def __enter__(self) -> Kept:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGTERM", "SIGHUP"):
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                if number and signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores it
                    self.before[number] = signal.signal(number, stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, *about: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if kind is None:
            self.path.unlink(missing_ok=True)
        elif self.written:
            way = f"the same command with --seed {self.seed} goes on"
            with suppress(OSError):  # the disk is full: what was written before stays
                self.write(self.seed)
                way = "the same command goes on"
            print(
                f"minillada: students kept in {self.path}: {self.written}; {way}", file=sys.stderr
            )


def stop(number: int, frame: object) -> None:
    """Handle a signal."""
    raise SystemExit(128 + number)


def digest(*texts: str) -> str:
    """One digest of several texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()

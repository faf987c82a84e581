"""How an exercise is marked: cases with inputs, the right answer and named wrong answers.

Notable choices
- A check prints exactly one diagnosis and never raises, so a notebook with open exercises runs from
  top to bottom. Its `Verdict` is true only for a correct answer.
- The student's function gets copies of the inputs. Changing them in place is reported.
- The function runs in a thread of its own with a time limit, so an endless loop costs seconds and
  not the kernel. Signals would do the same, but not on Windows.
- Inputs come from a `Chance`: seed 0 in a notebook, a seed of the instructor when work is graded.
- A hint is printed only if the function gave the named wrong answer in every case: one case alone
  may agree by chance, and a wrong hint costs a student more time than no hint. For an answer of
  several parts, it is enough that the hint explains the first wrong part, again in every case. A
  part that is one whole number does not count: too many mistakes give the same one.
- Without a hint, the first place that differs is named, but never the right value.
"""

from __future__ import annotations

import ctypes
import linecache
import os.path
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

SECONDS = 10.0  # that one call of a student's function may take; a right one takes milliseconds
TAKES_LONGER = "your function takes longer than"
NEEDS_MORE = "your function needs more memory than it may have"


class Chance:
    """Where a check takes its random inputs from: equal seeds give equal inputs."""

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.source = self.generator(0)  # what `whole` draws from

    def generator(self, number: int) -> torch.Generator:
        """A generator for one part of a check; parts of different numbers do not share inputs."""
        # No check has so many parts that a number of one seed could be that of the next seed.
        return torch.Generator().manual_seed(1_000_003 * self.seed + number)

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.source))


@dataclass(frozen=True)
class Case:
    """One call of the student's function. A `right` frozenset stands for texts in any order.

    `mistakes` maps a hint to the wrong answer it explains. A hint that a case does not name belongs
    to a mistake that does not show in this case. `inputs` can be pickled: a grader sends them to
    another process.
    """

    inputs: tuple
    right: Any
    mistakes: dict[str, Any] = field(default_factory=dict)


Cases = Iterator[Case]


class Outcome(NamedTuple):
    """What a call of the student's function gave: an answer, or in words why there is none."""

    answer: Any = None
    failure: str | None = None

    @property
    def ran_out(self) -> bool:
        """Whether time or memory was used up: what comes next in this process may find none."""
        return (self.failure or "").startswith((TAKES_LONGER, NEEDS_MORE))


class Try(NamedTuple):
    """What the student's function did in one case; `problem` is None if it was right."""

    case: Case
    answer: Any
    problem: str | None


class Verdict:
    """What a check returns: true for a right answer.

    It shows nothing as the last line of a cell. A bool would print False below the diagnosis.
    """

    def __init__(self, right: bool):
        self.right = right

    def __bool__(self) -> bool:
        return self.right

    def _ipython_display_(self) -> None:
        """IPython calls this instead of printing the object."""


class Exercise:
    """The check of one exercise: `check_margin(my_margin)` prints a diagnosis."""

    def __init__(self, success: str, make: Callable[[Chance], Iterable[Case]]):
        self.success = success
        self.make = make
        self.__name__ = make.__name__
        self.__doc__ = make.__doc__  # what `check_margin?` shows

    def cases(self, seed: int = 0) -> list[Case]:
        """The calls that are tried; the notebook shows seed 0, a grader takes another one."""
        return list(self.make(Chance(seed)))

    def __call__(self, function: Callable, seed: int = 0) -> Verdict:
        return Verdict(check(function, self.cases(seed), self.success))


def exercise(success: str) -> Callable[[Callable[[Chance], Iterable[Case]]], Exercise]:
    """Decorator: a generator of cases becomes a check, which prints `success` if all are right."""
    return partial(Exercise, success)


def check(
    function: Callable, cases: Iterable[Case], success: str, seconds: float = SECONDS
) -> bool:
    """Call `function` for every case, print one diagnosis, and return whether all is right."""
    cases = list(cases)
    outcomes = outcomes_of(function, [case.inputs for case in cases], seconds)
    words = diagnosis(cases, outcomes, getattr(function, "__name__", "function"))
    print(words or success)
    return words is None


def outcomes_of(function: Callable, inputs: Iterable[tuple], seconds: float) -> Iterator[Outcome]:
    """One call after the other; the first that gives no answer is the last."""
    for given in inputs:
        outcome = call(function, given, seconds)
        yield outcome
        if outcome.failure:
            return


def diagnosis(cases: list[Case], outcomes: Iterable[Outcome], name: str) -> str | None:
    """What is wrong with the answers of the function called `name`; None if all are right."""
    # 1. every answer is compared, as far as there are answers
    tries: list[Try] = []
    for case, outcome in zip(cases, outcomes):
        if outcome.failure and not any(t.problem for t in tries):
            return outcome.failure
        if outcome.failure:  # a case before this one was wrong already, and is easier to explain
            break
        tries.append(Try(case, outcome.answer, difference(outcome.answer, case.right)))
    # 2. the first wrong one is explained
    first = next((t for t in tries if t.problem), None)
    if first is None:
        return None
    return (explanation(tries, first) or first.problem or "") + example(name, first.case.inputs)


def call(function: Callable, inputs: tuple, seconds: float = SECONDS) -> Outcome:
    """The answer of the student's function, or what went wrong with the call itself."""
    if not callable(function):  # `check_margin(my_margin(logits))`
        words = f"that is of type {type(function).__name__}; give the check the name of your"
        return Outcome(failure=f"{words} function alone, without ( )")
    given = copied(inputs)
    answer, error, frames = timed(function, given, seconds)
    where = line(function, frames) + example(getattr(function, "__name__", "function"), inputs)
    if isinstance(error, TookTooLong):
        return Outcome(failure=f"{TAKES_LONGER} {seconds:.2g} seconds{where}")
    # Torch's words for a full memory name files of torch; a student needs none of them.
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return Outcome(failure=f"{NEEDS_MORE}{where}")
    # Torch raises this error, too, but with words: `torch.arange(3).softmax(0)`.
    if isinstance(error, NotImplementedError) and not str(error):
        words = "not done yet: replace `raise NotImplementedError` by your code"
        return Outcome(failure=words)
    if error is not None:
        words = f"your function raised {type(error).__name__}: {error}{where}"
        return Outcome(failure=words)
    if answer is None:
        return Outcome(failure=f"your function returns None; did you forget `return`?{where}")
    for number, (now, before) in enumerate(zip(given, inputs), start=1):
        if difference(now, before):
            words = f"your function changes its argument {number} in place; work on a copy"
            return Outcome(failure=words)
    return Outcome(answer)


class TookTooLong(BaseException):
    """Ends a call that ran out of time; `except Exception` in a student's loop lets it through."""


Frames = list[tuple[FrameType, int]]  # with the number of the line that was running


def timed(
    function: Callable, given: tuple, seconds: float
) -> tuple[Any, BaseException | None, Frames]:
    """The answer, the exception, and the lines that were running when it was raised."""
    answers: list[Any] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            answer = function(*given)
            # A generator can be read once only, and its code runs while it is read.
            answers.append(list(answer) if isinstance(answer, Iterator) else answer)
        except BaseException as error:  # whatever a student's code does, the notebook goes on
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        thread.join(seconds)
        running = sys._current_frames().get(thread.ident or 0)
        if thread.is_alive() and running is not None:
            frames = list(traceback.walk_stack(running))[::-1]  # the innermost one comes last
            return None, TookTooLong(), frames
    finally:  # also where the reader interrupts the kernel
        stop(thread)
    if errors:
        return None, errors[0], list(traceback.walk_tb(errors[0].__traceback__))
    return answers[0] if answers else None, None, []


def stop(thread: threading.Thread) -> None:
    """End a thread at its next line of Python; what hangs inside C cannot be ended."""
    for _ in range(3):  # a bare `except:` in the student's code may catch the first
        if not thread.is_alive():
            return
        number = ctypes.c_ulong(thread.ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(TookTooLong))
        thread.join(0.3)


def line(function: Callable, frames: Frames) -> str:
    """Where in the student's function something happened, counted from its `def`."""
    code = getattr(function, "__code__", None)
    found = ""
    for frame, number in frames:
        if frame.f_code is code:  # the last one counts: a function may call itself
            source = linecache.getline(code.co_filename, number).strip()
            found = f" (line {number - code.co_firstlineno + 1} of {code.co_name}: `{source}`)"
    return found


def copied(value: Any) -> Any:
    """A copy of tensors and of what holds them; anything else, such as a vocabulary, is shared."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, list | tuple):
        return type(value)(copied(part) for part in value)
    if isinstance(value, dict):
        return {key: copied(part) for key, part in value.items()}
    return value


def explanation(tries: list[Try], first: Try) -> str | None:
    """The hint that explains the answers of all cases, or at least the first wrong part."""
    for hint in first.case.mistakes:
        # A case without this mistake must have been answered right.
        named = [(t.answer, t.case.mistakes.get(hint, t.case.right)) for t in tries]
        if all(difference(mine, wrong) is None for mine, wrong in named):
            return hint
    # An answer of several parts may hold several mistakes: then the first wrong part is explained.
    mine, right = first.answer, first.case.right
    if not isinstance(mine, list | tuple) or not isinstance(right, list | tuple):
        return None
    wrong_parts = [i for i, pair in enumerate(zip(mine, right)) if difference(*pair)]
    if not wrong_parts:  # only the length is wrong
        return None
    part = wrong_parts[0]
    if isinstance(right[part], int):  # too many mistakes give the same whole number
        return None
    for hint in first.case.mistakes:
        named = [(t.answer, t.case.mistakes.get(hint, t.case.right)) for t in tries]
        if all(same_part(mine, wrong, part) for mine, wrong in named):
            return f"part [{part}] of the answer: {hint}"
    return None


def same_part(mine: Any, wrong: Any, part: int) -> bool:
    """Whether two answers of several parts, equally many, have the same part of this number."""
    # One of them may be one number instead of several, for example.
    several = isinstance(mine, list | tuple) and isinstance(wrong, list | tuple)
    alike = several and len(mine) == len(wrong) > part
    return alike and difference(mine[part], wrong[part]) is None


def example(name: str, inputs: tuple) -> str:
    """The call that went wrong, where its inputs are short enough to be read."""
    if not inputs or not all(isinstance(value, int | float | str | list) for value in inputs):
        return ""
    text = f"{name}({', '.join(map(repr, inputs))})"
    # A tensor in a list is rounded when it is printed, so such a call cannot be tried again.
    return f" (seen with {text})" if len(text) <= 150 and "tensor(" not in text else ""


def difference(mine: Any, right: Any, place: str = "") -> str | None:
    """The first difference of an answer from the right one, in words; None if there is none."""
    at = f" at {place}" if place else ""
    kind = f"your answer{at} is of type {type(mine).__name__}"
    # A tensor or an array of the right length is as good as a list of its rows.
    if isinstance(right, list | tuple) and getattr(mine, "ndim", 0) > 0 and len(mine) == len(right):
        mine = list(mine)
    # 1. one value: numbers, texts, and what only Python can compare
    if isinstance(right, Tensor | int | float):
        return number_difference(mine, right, at)
    if isinstance(right, str) and isinstance(mine, str) and mine != right:
        start = len(os.path.commonprefix([mine, right]))
        return f"the text{at} is wrong from character {start} on: {mine!r}"
    if isinstance(right, str):
        return None if isinstance(mine, str) else f"{kind}, a text was expected"
    if not isinstance(right, frozenset | dict | list | tuple):
        return None if type(mine) is type(right) and mine == right else f"{kind}; that is wrong"
    # 2. several values: the right keys, the right texts in any order, or the right length
    if isinstance(right, dict):
        if not isinstance(mine, dict) or mine.keys() != right.keys():
            return f"your answer{at} should be a dictionary with the keys {', '.join(right)}"
        places: Iterable = right
    elif not isinstance(mine, list | tuple | type(right)):
        return f"{kind}, a list of {len(right)} was expected"
    elif isinstance(right, frozenset):
        strange = [part for part in mine if not isinstance(part, str) or part not in right]
        if strange:
            return f"{strange[0]!r} does not belong to the answer"
        if len(mine) > len(frozenset(mine)):
            return f"{next(part for part in mine if list(mine).count(part) > 1)!r} is there twice"
        missing = len(right) - len(mine)
        return f"{missing} of {len(right)} are missing" if missing else None
    elif len(mine) != len(right):
        return f"the length{at} should be {len(right)}, yours is {len(mine)}"
    else:
        places = range(len(right))
    # 3. the first part that differs; `place` grows by its key or index
    found = (difference(mine[p], right[p], f"{place}[{p!r}]") for p in places)
    return next((text for text in found if text), None)


def number_difference(mine: Any, right: Tensor | int | float, at: str) -> str | None:
    """`difference` for numbers: tensors, Python's own, and lists of them."""
    kind = f"your answer{at} is of type {type(mine).__name__}"
    if isinstance(mine, bool) and type(right) is int:
        return f"{kind}, a whole number was expected"
    try:
        if isinstance(mine, list | tuple) and any(isinstance(row, Tensor) for row in mine):
            mine = torch.stack([torch.as_tensor(row) for row in mine])  # rows, one at a time
        answer = torch.as_tensor(mine).detach().cpu().to_dense()  # `isclose` knows no sparse ones
        if answer.dtype == torch.float32 and not isinstance(mine, Tensor):
            answer = torch.as_tensor(mine, dtype=torch.float64)  # what a float of Python is
    except Exception:  # a text, an object, a ragged list
        return f"{kind}, numbers were expected"
    if answer.is_complex():
        return f"{kind} with complex numbers, real ones were expected"
    expected = torch.as_tensor(right)
    shapes = list(expected.shape), list(answer.shape)
    if shapes[0] != shapes[1]:
        return f"the shape{at} should be {shapes[0]}, yours is {shapes[1]}"
    # A float64 answer is as good as a float32 one. But 16 bits are wrong where they are not asked
    # for, and nothing else is right where they are.
    halves = [dtype in (torch.float16, torch.bfloat16) for dtype in (expected.dtype, answer.dtype)]
    if any(halves) and expected.is_floating_point() and expected.dtype != answer.dtype:
        return f"the dtype{at} should be {expected.dtype}, yours is {answer.dtype}"
    # Whole numbers must be equal, up to the last bits of a float64. Others may differ by 1e-5 of
    # their size, and by 1e-4 near 0.
    whole = not expected.is_floating_point()
    rtol = 1e-15 if whole else 1e-5
    close = torch.isclose(
        answer.double(), expected.double(), rtol=rtol, atol=10 * rtol, equal_nan=True
    )
    if close.all():
        return None
    index = (~close).nonzero()[0].tolist()
    value = answer[tuple(index)].item()
    shown = value if whole else f"{value:.6g}"  # a count of bytes is shown to the last one
    where = f"values{at} are wrong, the first one at {index}" if index else f"number{at} is wrong"
    return f"the {where}: yours is {shown}"

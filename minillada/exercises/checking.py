"""How an exercise is marked: cases with inputs, the right answer and named wrong answers.

Notable choices
- A check prints exactly one diagnosis and never raises, so a notebook with open exercises runs from
  top to bottom. Its `Verdict` is true only for a correct answer.
- The student's function gets copies of the inputs. Changing them in place is reported.
- A hint is printed only if the function gave the named wrong answer in every case: one case alone
  may agree by chance, and a wrong hint costs a student more time than no hint. For an answer of
  several parts, it is enough that the hint explains the first wrong part.
- Without a hint, the first place that differs is named, but never the right value.
"""

from __future__ import annotations

import linecache
import os.path
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One call of the student's function; a frozenset as right answer: texts in any order.

    `mistakes` maps a hint to the wrong answer it explains. A hint that a case does not name belongs
    to a mistake that does not show in this case.
    """

    inputs: tuple
    right: Any
    mistakes: dict[str, Any] = field(default_factory=dict)


Cases = Iterator[Case]


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

    def __init__(self, success: str, cases: Callable[[], Iterable[Case]]):
        self.success = success
        self.cases = cases
        self.__name__ = cases.__name__
        self.__doc__ = cases.__doc__  # what `check_margin?` shows

    def __call__(self, function: Callable) -> Verdict:
        return Verdict(check(function, self.cases(), self.success))


def exercise(success: str) -> Callable[[Callable[[], Iterable[Case]]], Exercise]:
    """Decorator: a generator of cases becomes a check, which prints `success` if all are right."""
    return partial(Exercise, success)


def check(function: Callable, cases: Iterable[Case], success: str) -> bool:
    """Call `function` for every case, print one diagnosis, and return whether all is right."""
    # 1. every case is tried, as far as the function can be called
    tries: list[Try] = []
    for case in cases:
        answer, failure = call(function, case.inputs)
        if failure and not any(t.problem for t in tries):
            print(failure)
            return False
        if failure:  # a case before this one was wrong already, and that is easier to explain
            break
        tries.append(Try(case, answer, difference(answer, case.right)))
    # 2. the first wrong one is explained
    first = next((t for t in tries if t.problem), None)
    if first is None:
        print(success)
        return True
    print((explanation(tries, first) or first.problem or "") + example(function, first.case.inputs))
    return False


def call(function: Callable, inputs: tuple) -> tuple[Any, str | None]:
    """The answer of the student's function, and what went wrong with the call itself."""
    given = copied(inputs)
    try:
        answer = function(*given)
    except NotImplementedError:
        return None, "not done yet: replace `raise NotImplementedError` by your code"
    except Exception as error:  # whatever a student's code does, the notebook goes on
        return None, f"your function raised {type(error).__name__}: {error}{line(function, error)}"
    if answer is None:
        return None, "your function returns None; did you forget `return`?"
    for number, (now, before) in enumerate(zip(given, inputs), start=1):
        if difference(now, before):
            return None, f"your function changes its argument {number} in place; work on a copy"
    return answer, None


def line(function: Callable, error: Exception) -> str:
    """Where in the student's function the error occurred, counted from its `def`."""
    code = getattr(function, "__code__", None)
    found = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
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
    if isinstance(mine, list | tuple) and isinstance(right, list | tuple):
        pairs = enumerate(zip(mine, right))
        part = next((i for i, pair in pairs if difference(*pair)), len(right))
        for hint, wrong in first.case.mistakes.items():
            if part < len(wrong) == len(right) and not difference(mine[part], wrong[part]):
                return f"part [{part}] of the answer: {hint}"
    return None


def example(function: Callable, inputs: tuple) -> str:
    """The call that went wrong, where its inputs are short enough to be read."""
    if not inputs or not all(isinstance(value, int | float | str | list) for value in inputs):
        return ""
    name = getattr(function, "__name__", "function")
    text = f"{name}({', '.join(map(repr, inputs))})"
    return f" (seen with {text})" if len(text) <= 150 else ""


def difference(mine: Any, right: Any, place: str = "") -> str | None:
    """The first difference of an answer from the right one, in words; None if there is none."""
    at = f" at {place}" if place else ""
    kind = f"your answer{at} is of type {type(mine).__name__}"
    # 1. one value: numbers, texts, and what only Python can compare
    if isinstance(right, Tensor | int | float):
        return number_difference(mine, right, at)
    if isinstance(right, str) and isinstance(mine, str) and mine != right:
        start = len(os.path.commonprefix([mine, right]))
        return f"the text{at} is wrong from character {start} on: {mine!r}"
    if isinstance(right, str) or not isinstance(right, frozenset | dict | list | tuple):
        return None if type(mine) is type(right) and mine == right else f"{kind}; that is wrong"
    # 2. several values: the right keys, the right texts in any order, or the right length
    if isinstance(right, dict):
        if not isinstance(mine, dict) or mine.keys() != right.keys():
            return f"your answer{at} should be a dictionary with the keys {', '.join(right)}"
        places: Iterable = right
    elif not isinstance(mine, list | tuple | frozenset):
        return f"{kind}, a list of {len(right)} was expected"
    elif isinstance(right, frozenset):
        strange = [part for part in mine if not isinstance(part, str) or part not in right]
        if strange:
            return f"{strange[0]!r} does not belong to the answer"
        missing = len(right) - len(frozenset(mine))
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
        answer = torch.as_tensor(mine).detach().cpu()
    except Exception:  # a text, an object, a ragged list
        return f"{kind}, numbers were expected"
    expected = torch.as_tensor(right)
    shapes = list(expected.shape), list(answer.shape)
    if shapes[0] != shapes[1]:
        return f"the shape{at} should be {shapes[0]}, yours is {shapes[1]}"
    # A float64 answer is as good as a float32 one, but 16 bits are asked for on purpose.
    if expected.dtype == torch.float16 and answer.dtype != torch.float16:
        return f"the dtype{at} should be {expected.dtype}, yours is {answer.dtype}"
    # Whole numbers must be equal. Others may differ by 1e-5 of their size, and by 1e-4 near 0.
    rtol = 1e-5 if expected.is_floating_point() else 0.0
    close = torch.isclose(answer.double(), expected.double(), rtol, 10 * rtol, equal_nan=True)
    if close.all():
        return None
    index = (~close).nonzero()[0].tolist()
    value = answer[tuple(index)].item()
    where = f"values{at} are wrong, the first one at {index}" if index else f"number{at} is wrong"
    return f"the {where}: yours is {value:.6g}"

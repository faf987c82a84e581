"""`check_*` functions that tell a student what is wrong with an exercise of the notebooks.

Each prints one diagnosis and returns True only for a correct answer; none raises, so a notebook with open exercises
runs from top to bottom. `tests/test_exercises.py` holds a correct and several wrong answers for every check.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def attempt(function: Callable, *inputs):
    """What the student's function returns, or None after printing why it returned nothing usable."""
    try:
        result = function(*inputs)
    except NotImplementedError:
        print("not done yet: replace `raise NotImplementedError` by your code")
        return None
    except Exception as error:  # whatever a student's code does, the notebook goes on
        print(f"your function raised {type(error).__name__}: {error}")
        return None
    if result is None:
        print("your function returns None; did you forget `return`?")
    return result


def same(result, expected: Tensor, hints: dict[str, Tensor] | None = None) -> bool:
    """Compare with the right answer; print the hint whose wrong answer was given, if it is a known one."""
    try:
        result = torch.as_tensor(result)
    except (TypeError, ValueError, RuntimeError):
        print(f"numbers were expected, your function returns {type(result).__name__}")
        return False
    if result.shape != expected.shape:
        print(f"the shape should be {list(expected.shape)}, yours is {list(result.shape)}")
        return False
    if torch.allclose(result.double(), expected.double(), atol=1e-4):
        return True
    for hint, wrong in (hints or {}).items():
        if wrong.shape == result.shape and torch.allclose(result.double(), wrong.double(), atol=1e-4):
            print(hint)
            return False
    print(f"the shape is right, the values are not: expected {expected.flatten()[:4].tolist()} …, got {result.flatten()[:4].tolist()} …")
    return False


def known_mistake(result, right: Tensor, hints: dict[str, Tensor]) -> bool:
    """Print the hint whose wrong answer was given, of whatever shape; `same` recognises those of the right shape only."""
    try:
        result = torch.as_tensor(result).double()
    except (TypeError, ValueError, RuntimeError):
        return False  # `same` says what is wrong with it
    for hint, wrong in hints.items():
        if result.shape == wrong.shape and torch.allclose(result, wrong.double()) and not torch.equal(wrong, right):
            print(hint)
            return True
    return False

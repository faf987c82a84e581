"""The mechanism behind every exercise: one diagnosis, no exception, nothing given away."""

import contextlib
import sys
import threading

import numpy
import pytest
import torch

from minillada.exercises.checking import Case, Exercise, check, exercise

SUCCESS = "correct: well done"


def said(function, cases, capsys):
    """What a check prints; proves that it is one line, and True only with the success sentence."""
    capsys.readouterr()
    result = check(function, cases, SUCCESS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1, lines
    assert result is (lines[0] == SUCCESS)
    return lines[0]


def returns(answer):
    return lambda *_: answer


def recursive(n):
    if n:
        return recursive(n - 1)
    return 1 // n


GRID = torch.tensor([[1.5, 2.25], [3.125, 4.0625]])

RIGHT = [
    (4, torch.tensor(4)),
    (4, 4.0),
    (144_000_576_000_512, 144_000_576_000_512.0),  # more digits than a float32 has
    ([10**12 + 1, 3], [1e12 + 1, 3.0]),
    (3, 0.1 * 3 * 10),
    (2.5, torch.tensor(2.5)),
    (2.5, 2.500001),
    (GRID, GRID.tolist()),
    (GRID, GRID.double()),
    (GRID, list(GRID)),
    (GRID, [GRID[0], [3.125, 4.0625]]),
    (GRID > 2, [[0, 1], [1, 1]]),
    (torch.tensor([1, 2]), (1, 2)),
    ("a seven", "a seven"),
    (["a", "b"], ("a", "b")),
    ((7, None, 1), [7, None, 1]),
    ([GRID, "a", [1, 2]], [GRID.clone(), "a", torch.tensor([1, 2]).tolist()]),
    ({"step": 1, "weight": GRID}, {"weight": GRID.clone(), "step": torch.tensor(1)}),
    (frozenset({"a", "b"}), ["b", "a"]),
    ([1, 2, 3], torch.tensor([1, 2, 3])),
    ([1, 2, 3], numpy.array([1, 2, 3])),
    ((GRID[0], GRID[1]), GRID),
    ([0.5, 1.5], (n + 0.5 for n in range(2))),
    (["a", "b"], iter("ab")),
    (GRID, map(list, GRID.tolist())),
    (GRID.half(), GRID.half()),
]

WRONG = [
    (4, 5, "the number is wrong: yours is 5"),
    (102_812_000_000, 102_812_000_001, "the number is wrong: yours is 102812000001"),
    (3, 3.0000004, "the number is wrong: yours is 3.0000004"),
    (144_000_576_000_512, 144_000_576_000_513.0, "the number is wrong: yours is 144000576000513.0"),
    (4, True, "type bool, a whole number was expected"),
    (10**7, 10**7 + 1, "the number is wrong"),  # whole numbers are compared exactly
    (torch.tensor(157_184), 157_185, "the number is wrong"),
    (2.5, float("nan"), "the number is wrong: yours is nan"),
    (2.5, "2.5", "type str, numbers were expected"),
    (2.5, object(), "type object, numbers were expected"),
    (2.5, torch.tensor(2.5, device="meta"), "numbers were expected"),
    (GRID, [[1.0], [2.0, 3.0]], "type list, numbers were expected"),
    (GRID, GRID[0], "the shape should be [2, 2], yours is [2]"),
    (GRID, [GRID[0], GRID[0], GRID[1]], "the shape should be [2, 2], yours is [3, 2]"),
    (GRID, [GRID[0], GRID], "type list, numbers were expected"),
    (GRID[0], [1.5, 2.25, 3.0], "the shape should be [2], yours is [3]"),
    (GRID, [[1.5, 2.25], [3.125, 9.0]], "the first one at [1, 1]: yours is 9"),
    (GRID.half(), GRID, "the dtype should be torch.float16, yours is torch.float32"),
    (GRID, GRID.bfloat16(), "the dtype should be torch.float32, yours is torch.bfloat16"),
    (2.5, torch.tensor(2.5).half(), "the dtype should be torch.float32, yours is torch.float16"),
    ("a seven", "a eight", "the text is wrong from character 2 on: 'a eight'"),
    ("a seven", "a sevens", "from character 7 on"),
    ("a seven", 7, "type int"),
    (["a", "b"], ["a", "b", "c"], "the length should be 2, yours is 3"),
    (["a", "b"], ["a", "c"], "the text at [1] is wrong"),
    (["a", "b"], "ab", "type str, a list of 2 was expected"),
    ([1, 2], frozenset({1, 2}), "type frozenset, a list of 2 was expected"),
    ([1, 2], GRID.view(4), "type Tensor, a list of 2 was expected"),
    ([1, 2], torch.tensor(1), "type Tensor, a list of 2 was expected"),
    ([1, 2], torch.tensor([1, 3]), "the number at [1] is wrong: yours is 3"),
    (["a", "b"], ["a", ["b"]], "your answer at [1] is of type list, a text was expected"),
    ((7, None, 1), (7, 0, 1), "at [1] is of type int"),
    ((7, None, 1), (7, None, None), "at [2] is of type NoneType"),
    ([GRID, [1, 2]], [GRID, [1, 3]], "the number at [1][1] is wrong"),
    ({"step": 1}, {"stop": 1}, "a dictionary with the keys step"),
    ({"step": GRID}, {"step": GRID + 1}, "the values at ['step'] are wrong"),
    (frozenset({"a", "b"}), ["a"], "1 of 2 are missing"),
    (frozenset({"a", "b"}), ["a", "b", ["c"]], "['c'] does not belong"),
    (frozenset({"a", "b"}), 7, "a list of 2 was expected"),
    (frozenset({"a", "b"}), ["a", "b", "a"], "'a' is there twice"),
    (frozenset({"a", "b"}), ["b", "b"], "'b' is there twice"),
    (GRID, torch.zeros(2, 2).to_sparse(), "the first one at [0, 0]"),
    (GRID, GRID.to(torch.complex128), "type Tensor with complex numbers, real ones were expected"),
    (2.5, 2.5 + 0j, "type complex with complex numbers"),
]


@pytest.mark.parametrize(("right", "answer"), RIGHT)
def test_right_answers_of_every_type(right, answer, capsys):
    assert said(returns(answer), [Case((), right)], capsys) == SUCCESS


@pytest.mark.parametrize(("right", "answer", "words"), WRONG)
def test_wrong_answers_of_every_type(right, answer, words, capsys):
    assert words in said(returns(answer), [Case((), right)], capsys)


def test_the_right_values_are_not_given_away(capsys):
    secret = torch.tensor([1.5, 2.25, 3.125, 4.0625])
    text = said(returns(torch.tensor([1.5, 0.0, 0.0, 0.0])), [Case((), secret)], capsys)
    assert "[1]" in text and not any(str(value) in text for value in secret.tolist())
    text = said(returns(["no", "no"]), [Case((), ["secret", "word"])], capsys)
    assert "secret" not in text and "word" not in text


def test_inputs_are_copies_and_changing_them_is_noticed(capsys):
    tensor, words = torch.ones(3), ["a", "b"]
    state = {"weight": torch.ones(2)}

    def changes_tensor(tensor, words, state):
        tensor += 1
        return 7

    def changes_list(tensor, words, state):
        words.pop()
        return 7

    def changes_state(tensor, words, state):
        state["weight"].zero_()
        return 7

    cases = [Case((tensor, words, state), 7)]
    for number, function in enumerate((changes_tensor, changes_list, changes_state), start=1):
        assert f"argument {number} in place" in said(function, cases, capsys)
    assert tensor.eq(1).all() and words == ["a", "b"] and state["weight"].eq(1).all()


def test_calls_that_fail(capsys):
    def unfinished(x):
        raise NotImplementedError

    def rounded(x):
        return torch.tensor([x, x]).softmax(0)

    def broken(x):
        y = x - x
        return [1][y + 5]

    def helped(x):
        return broken(x)

    cases = [Case((3,), 4)]
    assert said(unfinished, cases, capsys).startswith("not done yet")
    assert "not implemented for 'Long' (line 2 of rounded: " in said(rounded, cases, capsys)
    assert "did you forget `return`?" in said(returns(None), cases, capsys)
    text = said(broken, cases, capsys)
    assert "IndexError: list index out of range (line 3 of broken: `return [1][y + 5]`)" in text
    assert "(line 2 of helped: `return broken(x)`)" in said(helped, cases, capsys)
    assert "ZeroDivisionError" in said(recursive, cases, capsys)
    assert "(line 4 of recursive: `return 1 // n`)" in said(recursive, cases, capsys)
    assert "TypeError" in said(lambda: 4, cases, capsys)
    for answer, kind in (([4], "list"), (None, "NoneType")):  # `check_double(my_double(2))`
        words = f"that is of type {kind}; give the check the name of your function alone"
        assert words in said(answer, cases, capsys)


def test_the_call_that_fails_is_shown(capsys):
    def forgets_a_case(n):
        if n > 2:
            return n + 1

    def lazy(n):
        yield 6 // (n - 2)

    cases = [Case((3,), 4), Case((2,), 3)]
    text = said(forgets_a_case, cases, capsys)
    assert text.endswith("did you forget `return`? (seen with forgets_a_case(2))")
    text = said(lazy, [Case((3,), [6]), Case((2,), [6])], capsys)
    assert text.endswith("(line 2 of lazy: `yield 6 // (n - 2)`) (seen with lazy(2))")


def test_a_hint_must_explain_every_case(capsys):
    cases = [Case((2,), 3, {"that is the square": 4}), Case((3,), 4, {"that is the square": 9})]
    assert "that is the square" in said(lambda n: n * n, cases, capsys)
    # In the first case the double is the square, too.
    assert "the number is wrong: yours is 4 (seen with <lambda>(2))" == said(
        lambda n: 2 * n, cases, capsys
    )


def test_a_hint_that_a_case_does_not_name_means_the_right_answer(capsys):
    cases = [Case((0,), 0), Case((2,), 3, {"that is the square": 4})]
    assert "that is the square" in said(lambda n: n * n, cases, capsys)
    assert "the number is wrong" in said(lambda n: 4, cases, capsys)


def test_the_first_wrong_part_is_explained_although_another_is_wrong_too(capsys):
    mistakes = {"first is late": ([2], "b"), "second is loud": ([1], "B")}
    cases = [Case((), ([1], "b"), mistakes)]
    assert "part [0] of the answer: first is late" in said(returns(([2], "c")), cases, capsys)
    assert said(returns(([1], "B")), cases, capsys) == "second is loud"


def test_a_part_is_explained_only_by_a_mistake_that_every_case_shows(capsys):
    cases = [
        Case((-2,), (2.0, "b"), {"the sign is wrong": (-2.0, "b")}),
        Case((3,), (3.0, "b"), {"the sign is wrong": (-3.0, "b")}),
    ]
    assert "part [0] of the answer: the sign" in said(lambda n: (-abs(n), "c"), cases, capsys)
    for slip in (float, lambda n: (n, "c"), lambda n: (n,) * abs(n)):
        assert "the sign" not in said(slip, cases, capsys)


def test_one_whole_number_of_several_is_too_little_for_a_hint(capsys):
    mistakes = {"those come in turn": [2, 3, 1]}
    cases = [Case((), [1, 2, 3], mistakes)]
    assert said(returns([2, 2, 2]), cases, capsys) == "the number at [0] is wrong: yours is 2"
    assert said(returns([2, 3, 1]), cases, capsys) == "those come in turn"


def test_a_mistake_of_another_form_explains_no_part(capsys):
    cases = [Case((), (1, 2), {"that is one number": 1})]
    assert "at [1]" in said(returns((1, 3)), cases, capsys)
    assert said(returns(1), cases, capsys) == "that is one number"


def test_a_wrong_answer_comes_before_an_exception_in_a_later_case(capsys):
    cases = [Case((1,), 1, {"that is twice as much": 2}), Case((0,), 0)]
    assert "that is twice as much" in said(lambda n: 2 * n // n, cases, capsys)


def test_a_call_with_tensors_in_a_list_is_not_shown(capsys):
    assert said(returns(5), [Case(([2, 3],), 4)], capsys).endswith("(seen with <lambda>([2, 3]))")
    assert said(returns(5), [Case(([GRID],), 4)], capsys) == "the number is wrong: yours is 5"


def test_exercise_turns_cases_into_a_check(capsys):
    @exercise(SUCCESS)
    def check_double(chance):
        """`function(n) -> int`: twice n."""
        n = chance.whole(2, 1000)
        yield Case((n,), 2 * n)

    assert isinstance(check_double, Exercise)
    assert check_double.__name__ == "check_double" and "twice n" in check_double.__doc__
    assert check_double(lambda n: 2 * n) and not check_double(lambda n: n)
    assert check_double.cases(5)[0].inputs == check_double.cases(5)[0].inputs
    assert check_double.cases(5)[0].inputs != check_double.cases(6)[0].inputs


def test_an_endless_loop_costs_seconds_and_names_its_line(capsys):
    def endless(n):
        while n:
            n += 1

    def stubborn(n):
        while True:
            with contextlib.suppress(Exception):
                n += 1

    def generates(n):
        while True:
            yield n

    threads = threading.active_count()
    for function in (endless, stubborn, generates):
        assert not check(function, [Case((3,), 4)], SUCCESS, seconds=0.2)
        said = capsys.readouterr().out
        assert said.startswith("your function takes longer than 0.2 seconds (line ")
        assert f" of {function.__name__}: `" in said
    assert threading.active_count() == threads, "the loop goes on"


def test_leaving_python_is_an_exception_like_others(capsys):
    assert "SystemExit" in said(lambda n: sys.exit(0), [Case((3,), 4)], capsys)

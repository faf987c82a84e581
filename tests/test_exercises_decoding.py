"""Every check of notebook 10 accepts the right answer, names common mistakes, and never raises."""

import pytest
import torch
from helpers import checks

from minillada.exercises import faster_decoding


def edits(p, ids, masked, threshold):
    best, token = p.max(-1)
    return (token != ids) & ~masked & (best > threshold)


def lcs(a, b):
    if not a or not b:
        return 0
    return lcs(a[1:], b[1:]) + 1 if a[0] == b[0] else max(lcs(a[1:], b), lcs(a, b[1:]))


def longest_piece(a, b):
    pieces = [k for i in range(len(a)) for j in range(len(b)) for k in range(1, len(a) + 1) if a[i : i + k] == b[j : j + k]]
    return max(pieces, default=0)


def a_round(draft, labels, length, mask=("mask",), keep=True, cut=True, pad=True):
    out = []
    for token, label in zip(draft, labels, strict=True):
        if label == "INSERT":
            out += [*mask, token] if keep else list(mask)
        elif label != "DELETE":
            out.append(label)
    out += ["."] * (length - len(out)) if pad else []
    return out[:length] if cut else out


# check -> (right answer, {part of the diagnosis: wrong answer})
CASES = {
    "check_edits": (
        edits,
        {
            "leave masked positions out": lambda p, ids, masked, threshold: edits(p, ids, masked & False, threshold),
            "already stands": lambda p, ids, masked, threshold: ~masked & (p.amax(-1) > threshold),
            "likelier than the threshold": lambda p, ids, masked, threshold: edits(p, ids, masked, 0.0),
            "not that of the token that stands there": lambda p, ids, masked, threshold: (
                edits(p, ids, masked, 0.0) & (p.gather(1, ids[:, None])[:, 0] < threshold)
            ),
            "the shape should be [12]": lambda p, ids, masked, threshold: edits(p, ids, masked, threshold)[None],
            "numbers were expected": lambda *_: "everywhere",
        },
    ),
    "check_lcs": (
        lcs,
        {
            "in any order": lambda a, b: len(set(a) & set(b)),
            "longest common piece": longest_piece,
            "count the ones that can stay": lambda a, b: max(len(a), len(b)) - lcs(a, b),
            "the values are not": lambda a, b: 99,
        },
    ),
    "check_round": (
        a_round,
        {
            "pad with '.' or cut": lambda d, k, n: a_round(d, k, n, pad=False),
            "so that 4 tokens remain": lambda d, k, n: a_round(d, k, n, cut=False),
            "puts 'mask' before the token": lambda d, k, n: a_round(d, k, n, mask=()),
            "never stand in the text": lambda d, k, n: [*k][:n],
            "the answer is": lambda d, k, n: a_round(d, k, n, keep=False),
        },
    ),
}


exercises_decoding = checks(faster_decoding)

@pytest.mark.parametrize("name", CASES)
def test_right_answers_pass(name, capsys):
    assert getattr(exercises_decoding, name)(CASES[name][0]) is True
    assert "correct" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "diagnosis"), [(name, d) for name, (_, wrong) in CASES.items() for d in wrong])
def test_wrong_answers_are_diagnosed(name, diagnosis, capsys):
    assert getattr(exercises_decoding, name)(CASES[name][1][diagnosis]) is False
    assert diagnosis in capsys.readouterr().out


@pytest.mark.parametrize("name", CASES)
def test_open_and_broken_exercises_are_no_error(name, capsys):
    def unfinished(*_):
        raise NotImplementedError

    check = getattr(exercises_decoding, name)
    for answer, words in ((unfinished, "not done yet"), (lambda *_: None, "did you forget"), (lambda *_: 1 / 0, "ZeroDivisionError")):
        assert check(answer) is False
        assert words in capsys.readouterr().out


def test_every_check_is_tested():
    assert {name for name in dir(exercises_decoding) if name.startswith("check_")} == set(CASES)
    assert torch.is_tensor(edits(torch.ones(1, 2) / 2, torch.zeros(1).long(), torch.zeros(1).bool(), 0.1))

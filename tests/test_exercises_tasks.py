"""Every check of notebook 09 accepts the right answer, names common mistakes, and never raises."""

import re

import pytest
import torch
from helpers import checks

from minillada import layout
from minillada.exercises import every_task
from minillada.tasks.numbers import counting_trace


def unfinished(*_):
    raise NotImplementedError


def _branches(vocab, full, no_text, no_image, task="edit", grid=4):
    return tuple(layout.prompt(vocab, task, user, grid) for user in (full, no_text, no_image))


def _story(vocab, ids, keep=(), offset=True, swap=False, flat=False, texts=True):
    """The reader, and the mistakes one can make in it."""
    image, boi, end = (vocab.markup(token)[0] for token in ("<|image|>", "<boi>", "<|/image|>"))
    parts, text, i = [], [], 0
    while i < len(ids):
        if ids[i] == image:
            if texts:
                parts.append(vocab.decode(text))
            height, width = (int(re.search(r"\d+", vocab.token(t))[0]) for t in ids[i + 1 : i + 3])
            codes = torch.tensor(ids[i + 4 : i + 4 + height * width])
            codes = vocab.codes(codes) if offset else codes
            parts.append(codes if flat else codes.view(width, height) if swap else codes.view(height, width))
            text, i = [], i + 4 + height * width
        elif ids[i] in (boi, end, vocab.eos_id) and ids[i] not in [vocab.markup(k)[0] for k in keep]:
            i += 1
        else:
            text.append(ids[i])
            i += 1
    return parts


def _parts(trace):
    return trace.split("; ")


def _right_parts(a, b, trace):
    count = 0
    for mine, right in zip(_parts(trace), _parts(counting_trace(a, b)), strict=False):
        if mine != right:
            break
        count += 1
    return count


def _matches(a, b, trace):
    return sum(one == two for one, two in zip(_parts(trace), _parts(counting_trace(a, b)), strict=False))


# check -> (right answer, {what its diagnosis must contain: wrong answer})
CASES: dict = {
    "check_edit_branches": (
        lambda v, c, t: _branches(v, [c, t], [c, None], [t]),
        {
            "image comes first": lambda v, c, t: _branches(v, [t, c], [c, None], [t]),
            "leaving the instruction out": lambda v, c, t: _branches(v, [c, t], [c], [t]),
            "as if a user had typed it": lambda v, c, t: _branches(v, [c, t], [c, "<uncondition>"], [t]),
            "the image stays": lambda v, c, t: _branches(v, [c, t], [None], [t]),
            "leaves nothing behind": lambda v, c, t: _branches(v, [c, t], [c, None], [None, t]),
            "the instruction stays": lambda v, c, t: _branches(v, [c, t], [c, None], [None]),
            "the other way round": lambda v, c, t: _branches(v, [c, t], [c, None], [c, None]),
            "behind the header": lambda v, c, t: _branches(v, [c, t], [c, None], [t], grid=None),
            "another task": lambda v, c, t: _branches(v, [c, t], [c, None], [t], task="draw"),
            "three lists": lambda v, c, t: [c, t],
            "about the branch full": lambda v, c, t: _branches(v, [t], [c, None], [t]),
        },
    ),
    "check_story_parts": (
        _story,
        {
            "subtract the offset": lambda v, i: _story(v, i, offset=False),
            "height first": lambda v, i: _story(v, i, swap=True),
            "is a grid": lambda v, i: _story(v, i, flat=True),
            "special tokens are no text": lambda v, i: _story(v, i, keep=("<|/image|>",)),
            "in turn": lambda v, i: _story(v, i, texts=False),
            "yours is empty": lambda v, i: [],
            "a list of texts": lambda v, i: v.decode(i),
            "the text should be": lambda v, i: [part.upper() if isinstance(part, str) else part for part in _story(v, i)],
        },
    ),
    "check_right_parts": (
        _right_parts,
        {
            "stop at the first mistake": _matches,
            "all or nothing": lambda a, b, t: len(_parts(t)) * (t == counting_trace(a, b)),
            "number of parts": lambda a, b, t: len(_parts(t)),
            "a comma stands within a step": lambda a, b, t: sum(
                one == two
                for one, two in zip(
                    t.replace("; ", ", ").split(", "), counting_trace(a, b).replace("; ", ", ").split(", "), strict=False
                )
            ),
            "a whole number": lambda a, b, t: t == counting_trace(a, b),
            "yours is 99": lambda a, b, t: 99,
        },
    ),
}


exercises_tasks = checks(every_task)

@pytest.mark.parametrize("name", sorted(CASES))
def test_check_tells_right_from_wrong(name, capsys):
    check, (right, wrong) = getattr(exercises_tasks, name), CASES[name]
    assert check(right), capsys.readouterr().out
    assert "correct" in capsys.readouterr().out
    for diagnosis, answer in (wrong | {"not done yet": unfinished, "returns None": lambda *_: None}).items():
        assert not check(answer)
        assert diagnosis in (said := capsys.readouterr().out), f"{diagnosis!r} is not in {said!r}"


def test_every_check_has_cases():
    assert {n for n in dir(exercises_tasks) if n.startswith("check_")} == set(CASES)

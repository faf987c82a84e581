"""Every check accepts the right answer, names common mistakes, and never raises."""

import pytest
import torch
from helpers import checks

from minillada.exercises import backbone, block_diffusion


def unfinished(*_):
    raise NotImplementedError


def views_mask(length, block_size, views, noisy_noisy=lambda a, b: a == b, noisy_clean=lambda i, j: i > j, clean_noisy=False):
    """A double loop, so that the check is not compared with itself."""
    places = [(view, k // block_size) for view in range(views) for k in range(length)]
    places += [(None, k // block_size) for k in range(length)]
    mask = torch.zeros(len(places), len(places), dtype=torch.bool)
    for q, (view, i) in enumerate(places):
        for k, (other, j) in enumerate(places):
            if view is not None and other is not None:
                mask[q, k] = noisy_noisy(view, other) and i == j
            elif view is not None:
                mask[q, k] = noisy_clean(i, j)
            elif other is None:
                mask[q, k] = i >= j
            else:
                mask[q, k] = clean_noisy and i == j
    return mask


def reweighted(nats, masked, power=-0.5, mean=True):
    terms = []
    for row, asked in zip(nats, masked, strict=True):
        n = int(asked.sum())
        terms.append((n**power, float(row[asked].sum()) / (n if mean else 1)))
    return sum(beta * value for beta, value in terms) / sum(beta for beta, _ in terms)


def expert_weights(scores, bias, k, biased=False, scale=2.5, by=None):
    out = torch.zeros_like(scores)
    for t, row in enumerate(scores):
        best = (row + bias if by is None else by[t]).argsort(descending=True)[:k]
        values = (row + bias if biased else row)[best]
        out[t, best] = scale * values / values.sum()
    return out


# check -> (right answer, wrong answers that deserve their own hint, other wrong answers)
CASES: dict = {
    "check_views_mask": (
        views_mask,
        [
            lambda n, b, k: views_mask(n, b, k, noisy_noisy=lambda *_: True),
            lambda n, b, k: views_mask(n, b, k, clean_noisy=True),
            lambda n, b, k: views_mask(n, b, k, noisy_clean=lambda i, j: i >= j),
            lambda n, b, k: views_mask(n, b, k).T,
            lambda n, b, k: views_mask(n, b, k).roll((n, n), (0, 1)),
        ],
        [lambda n, b, k: views_mask(n, b, k + 1), lambda n, b, k: ~views_mask(n, b, k), lambda n, b, k: "mask"],
    ),
    "check_reweighted": (
        reweighted,
        [
            lambda nats, masked: nats[masked].mean(),
            lambda nats, masked: reweighted(nats, masked, 0),
            lambda nats, masked: reweighted(nats, masked, -1),
            lambda nats, masked: reweighted(nats, masked, 0.5),
            lambda nats, masked: reweighted(nats, masked, mean=False),
        ],
        [lambda nats, masked: nats.mean(), lambda nats, masked: nats],
    ),
    "check_expert_weights": (
        expert_weights,
        [
            lambda s, b, k: expert_weights(s, b, k, by=s),
            lambda s, b, k: expert_weights(s, b, k, biased=True),
            lambda s, b, k: expert_weights(s, b, k, scale=1.0),
            lambda s, b, k: expert_weights(s, b, k, by=-s - b),
        ],
        [lambda s, b, k: s, lambda s, b, k: expert_weights(s, b, k).sum(1)],
    ),
}


exercises_objectives = checks(block_diffusion, backbone)

@pytest.mark.parametrize("name", sorted(CASES))
def test_check_tells_right_from_wrong(name, capsys):
    check, (right, known, other) = getattr(exercises_objectives, name), CASES[name]
    assert check(right), capsys.readouterr().out
    for answer in [*known, *other, unfinished, lambda *_: None]:
        capsys.readouterr()
        assert not check(answer)
        said = capsys.readouterr().out
        assert said.strip(), "a wrong answer deserves a sentence"
        assert answer not in known or "the values are not" not in said, "this mistake is common and deserves its own hint"


def test_every_check_has_cases():
    assert set(CASES) <= {n for n in dir(exercises_objectives) if n.startswith("check_")}

"""Every check accepts the right answer, names common mistakes, and never raises."""

import pytest
import torch
from helpers import checks

from minillada.exercises import from_autoregression_to_diffusion


def unfinished(*_):
    raise NotImplementedError


def merged(weights, bits, k):
    return weights[bits.argsort()[:k]].mean(0)


# check -> (right answer, wrong answers that deserve their own hint, other wrong answers)
CASES: dict = {
    "check_block_size_at": (
        lambda schedule, steps, step: [size for start, size in schedule if start * steps <= step][-1],
        [
            lambda schedule, steps, step: [size for start, size in schedule if start * steps < step or not start][-1],
            lambda schedule, steps, step: max(size for start, size in schedule if start * steps <= step),
            lambda schedule, steps, step: next((size for start, size in schedule if start * steps > step), schedule[-1][1]),
            lambda schedule, steps, step: schedule[0][1],
            lambda schedule, steps, step: [size for start, size in schedule if start <= step][-1],
        ],
        [lambda schedule, steps, step: schedule[step]],
    ),
    "check_noisy_masks": (
        lambda x, ids, mask, noise, std: x + std * noise * (ids == mask)[..., None],
        [
            lambda x, ids, mask, noise, std: x + std * noise,
            lambda x, ids, mask, noise, std: x + std * noise * (ids != mask)[..., None],
            lambda x, ids, mask, noise, std: x + noise * (ids == mask)[..., None],
            lambda x, ids, mask, noise, std: torch.where((ids == mask)[..., None], std * noise, x),
            lambda x, ids, mask, noise, std: x,
        ],
        [
            lambda x, ids, mask, noise, std: x + std * noise[:, :1] * (ids == mask)[..., None],
            lambda x, ids, mask, noise, std: x + std * noise * (ids == mask),
        ],
    ),
    "check_merge_best": (
        merged,
        [
            lambda w, b, k: merged(w, -b, k),
            lambda w, b, k: w[-k:].mean(0),
            lambda w, b, k: w.mean(0),
            lambda w, b, k: merged(w, b, k) * k,
            lambda w, b, k: w[b.argmin()],
            lambda w, b, k: (w[b.argsort()[:k]] / b.sort().values[:k, None]).sum(0) / (1 / b.sort().values[:k]).sum(),
        ],
        [lambda w, b, k: w[b.argsort()[:k]].median(0).values],
    ),
}


exercises_training = checks(from_autoregression_to_diffusion)

@pytest.mark.parametrize("name", sorted(CASES))
def test_check_tells_right_from_wrong(name, capsys):
    check, (right, recognised, strangers) = getattr(exercises_training, name), CASES[name]
    assert check(right), capsys.readouterr().out
    for answer in [*recognised, *strangers, unfinished, lambda *_: None]:
        capsys.readouterr()
        assert not check(answer)
        said = capsys.readouterr().out.strip()
        assert said, "a wrong answer deserves a sentence"
        assert answer not in recognised or "values are not" not in said, said


def test_every_check_has_cases():
    assert {n for n in dir(exercises_training) if n.startswith("check_")} == set(CASES)

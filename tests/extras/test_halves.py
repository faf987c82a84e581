"""bfloat16 where a processor has no instructions for it: the same numbers, by other code."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from helpers import Kernels
from torch import nn

from minillada.config import TrainingConfig
from minillada.extras import halves
from minillada.settings import changed
from minillada.training import loop, optim, train


@pytest.fixture
def slow(monkeypatch):
    """A processor without bfloat16."""
    monkeypatch.setattr(halves, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(loop, "has_bfloat16", lambda device: False)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


A, B, C = random(6, 5), random(5, 7, seed=1), random(6, 7, seed=2)
STACK, OTHER = random(2, 6, 5), random(2, 5, 7, seed=1)
IMAGE, KERNEL, BIAS = random(2, 3, 8, 8), random(4, 3, 3, 3, seed=1), random(4, seed=2)
WEIGHT, OFFSET = random(7, 5, seed=1), random(7, seed=2)

CASES = {
    "matmul": (lambda: torch.matmul(A, B), A.float() @ B.float()),
    "@": (lambda: A @ B, A.float() @ B.float()),
    "mm": (lambda: A.mm(B), A.float() @ B.float()),
    "bmm": (lambda: torch.bmm(STACK, OTHER), STACK.float() @ OTHER.float()),
    "addmm": (
        lambda: torch.addmm(C, A, B, beta=2.0, alpha=0.5),
        2 * C.float() + 0.5 * A.float() @ B.float(),
    ),
    "baddbmm": (
        lambda: torch.baddbmm(random(2, 6, 7), STACK, OTHER),
        random(2, 6, 7).float() + STACK.float() @ OTHER.float(),
    ),
    "linear": (lambda: F.linear(A, WEIGHT), A.float() @ WEIGHT.float().T),
    "linear, stack": (
        lambda: F.linear(STACK, WEIGHT, bias=OFFSET),
        STACK.float() @ WEIGHT.float().T + OFFSET.float(),
    ),
    "conv2d": (
        lambda: F.conv2d(IMAGE, KERNEL, BIAS, padding=1),
        F.conv2d(IMAGE.float(), KERNEL.float(), BIAS.float(), padding=1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_product_is_the_rounded_product_of_float32(name):
    compute, exact = CASES[name]
    with halves.Float32Products():
        found = compute()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact.bfloat16(), atol=1e-2, rtol=1e-2)
    # one rounding, of the result: more would show in many of its numbers
    assert (found == exact.bfloat16()).float().mean() > 0.9


@pytest.mark.parametrize("name", CASES)
def test_no_product_is_left_to_the_slow_code(name):
    with halves.Float32Products(), Kernels() as kernels:
        CASES[name][0]()
    assert set(kernels.types) == {torch.float32}


def test_a_long_weight_is_taken_in_pieces_with_the_same_result(monkeypatch):
    x, weight, bias = random(9, 16), random(50, 16, seed=1), random(50, seed=2)
    with halves.Float32Products():
        whole = F.linear(x, weight, bias)
        monkeypatch.setattr(halves, "PIECE", 7 * 16)
        pieces = F.linear(x, weight, bias)
    torch.testing.assert_close(pieces, whole, atol=1e-2, rtol=1e-2)
    exact = F.linear(x.float(), weight.float(), bias.float()).bfloat16()
    assert (pieces == exact).float().mean() > 0.9


def test_other_types_are_left_alone():
    with halves.Float32Products():
        assert torch.equal(A.float() @ B.float(), torch.matmul(A.float(), B.float()))
        with pytest.raises(RuntimeError, match="dtype"):
            A @ B.float()  # an error without the mode, and with it


def test_a_result_for_a_tensor_of_the_caller_reaches_it():
    place = torch.zeros(6, 7, dtype=torch.bfloat16)
    with halves.Float32Products():
        torch.mm(A, B, out=place)
    torch.testing.assert_close(place, (A.float() @ B.float()).bfloat16(), atol=2e-2, rtol=2e-2)


def test_a_processor_with_instructions_changes_nothing(monkeypatch):
    monkeypatch.setattr(halves, "has_bfloat16", lambda device: True)
    with halves.quick_products("cpu") as mode:
        assert mode is None


def test_muon_moves_as_it_does_in_pytorch(slow):
    """Also in a stack of matrices; only roundings of bfloat16 differ."""
    start = [torch.randn(12, 20), torch.randn(3, 8, 6)]
    moved = []
    for quick in (True, False):
        parameters = [nn.Parameter(values.clone()) for values in start]
        optimizer = optim.Muon(parameters, 0.1, 0.3)
        for parameter in parameters:
            parameter.grad = parameter.detach().cos()
        if quick:
            optimizer.step()
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(halves, "has_bfloat16", lambda device: True)
                optimizer.step()
        moved.append([parameter.detach() for parameter in parameters])
    for quick_result, usual, before in zip(*moved, start):
        step = (usual - before).abs().max()
        assert step > 0.01
        torch.testing.assert_close(quick_result, usual, atol=float(0.03 * step), rtol=0)


def first_loss(config: TrainingConfig) -> tuple[float, torch.Tensor]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 1))
    x = torch.randn(32, 8)
    records = loop.fit(module, lambda step: (module(x).square().mean(), {}), config)
    return records[0]["loss"], copy.deepcopy(module[0].weight.detach())


def test_training_asks_for_bfloat16_and_gets_float32(slow):
    config = changed(TrainingConfig(), steps=3, bfloat16=True)
    (loss, weight), (other, same) = first_loss(config), first_loss(changed(config, bfloat16=False))
    assert loss == other
    assert torch.equal(weight, same)


def test_a_run_says_in_what_it_was_computed(slow):
    asked = changed(TrainingConfig(), bfloat16=True)
    with pytest.warns(UserWarning, match=r"slowly on this device \(cpu\): .* in float32"):
        assert train.computed_in(asked, "cpu", train.Processes()) == "float32"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = changed(asked, bfloat16=False)
        assert train.computed_in(plain, "cpu", train.Processes()) == "float32"

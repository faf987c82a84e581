"""The learning rate at its ends, and which parameter is moved by what."""

import pytest
import torch
from helpers import generator, tiny_backbone
from tiny_runs import SHORT
from torch import nn

from minillada.config import JudgeConfig, PainterConfig, TokenizerConfig, TrainingConfig
from minillada.experts import Experts
from minillada.measure.judge import Judge
from minillada.painter import Painter
from minillada.settings import changed
from minillada.training import optim
from minillada.vq import ImageTokenizer


def test_learning_rate_end_points():
    config = changed(
        TrainingConfig(), steps=100, warmup_steps=10, learning_rate=0.5, final_lr_fraction=0.1
    )
    rates = [optim.learning_rate(config, step) for step in range(101)]
    # The peak is reached at the last step of the warm-up.
    assert rates[0] == pytest.approx(0.05)
    assert rates[9] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.5)
    assert rates[55] == pytest.approx((0.5 + 0.05) / 2)  # half-way down the cosine
    assert rates[100] == pytest.approx(0.05)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert optim.learning_rate(changed(config, warmup_steps=0), 0) == pytest.approx(0.5)


def test_only_matrices_decay():
    module = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    (optimizer,) = optim.make_optimizers(module, SHORT)
    matrices, vectors = optimizer.param_groups
    assert [tuple(p.shape) for p in matrices["params"]] == [(2, 3)]
    assert [tuple(p.shape) for p in vectors["params"]] == [(2,), (2,), (2,)]
    assert matrices["weight_decay"] == 0.1
    assert vectors["weight_decay"] == 0.0


def muon_pair():
    backbone = tiny_backbone()
    config = changed(SHORT, optimizer="muon", weight_decay=0.0)
    return backbone, *optim.make_optimizers(backbone, config)


def test_muon_takes_the_matrices_of_the_layers_and_adamw_the_rest():
    backbone, adamw, muon = muon_pair()
    taken = []
    for group in adamw.param_groups + muon.param_groups:
        taken += [id(p) for p in group["params"]]
    assert sorted(taken) == sorted(id(p) for p in backbone.parameters()), "every parameter once"
    layers = {id(p) for p in muon.param_groups[0]["params"]}
    names = {name for name, p in backbone.named_parameters() if id(p) in layers}
    assert len(names) > 4
    assert all(name.startswith("model.layers.") and "norm" not in name for name in names)


@pytest.mark.parametrize(
    ("model", "tables"),
    [
        (tiny_backbone(), ["model.word_embeddings.weight", "lm_head.weight"]),
        (Judge(JudgeConfig(width=4, features=6)), ["head.weight"]),
        (Painter(PainterConfig()), ["embedding.weight"]),
        (ImageTokenizer(TokenizerConfig()), ["tower.pieces.weight"]),
    ],
    ids=["backbone", "judge", "painter", "tokenizer"],
)
def test_muon_leaves_tables_of_rows_alone(model, tables):
    adamw, muon = optim.make_optimizers(model, changed(SHORT, optimizer="muon"))
    names = {id(p): name for name, p in model.named_parameters()}
    left = {names[id(p)] for p in adamw.param_groups[0]["params"] if p.ndim in (2, 3)}
    taken = {names[id(p)] for p in muon.param_groups[0]["params"] if id(p) in names}
    assert left == set(tables) and not left & taken


def test_muon_moves_all_directions_alike_as_far_as_adamw_does():
    backbone, _, muon = muon_pair()
    layers = muon.param_groups[0]["params"]
    before = [p.detach().clone() for p in layers]
    for p in layers:
        # Gradients differ a hundredfold between directions.
        spread = torch.diag(torch.logspace(0, -2, p.shape[-1]))
        p.grad = torch.randn(p.shape, generator=generator(3)) @ spread
    untouched = backbone.lm_head.weight.detach().clone()
    muon.step()
    for p, old in zip(layers, before):
        step = old - p.detach()
        values = torch.linalg.svdvals(step)
        assert values.max() / values.min() < 4
        size = float(step.square().mean().sqrt())
        assert size == pytest.approx(0.2 * SHORT.optim.learning_rate, rel=0.3)
    assert torch.equal(backbone.lm_head.weight, untouched)


class Apart(nn.Module):
    """The same matrices as the stacks of `experts`, each a parameter of its own."""

    def __init__(self, stacks: Experts):
        super().__init__()
        matrices = [matrix for expert in stacks.apart() for matrix in expert]
        self.matrices = nn.ParameterList(matrix.detach().clone() for matrix in matrices)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_stacked_experts_move_as_separate_matrices_do(optimizer):
    stacks = Experts(5, 12, 8)
    apart = Apart(stacks)
    config = changed(SHORT, optimizer=optimizer, weight_decay=0.1)
    ours = optim.make_optimizers(stacks, config)
    theirs = optim.make_optimizers(apart, config)
    before = [matrix.clone() for matrix in apart.matrices]
    for step in range(3):
        source = generator(step)
        for stack in stacks.parameters():
            stack.grad = torch.zeros_like(stack)
        matrices = iter(apart.matrices)
        for number in range(5):
            for stack in stacks.parameters():
                matrix = next(matrices)
                matrix.grad = torch.randn(matrix.shape, generator=source)
                stack.grad[number] = matrix.grad
        for one in ours + theirs:
            one.step()
    matrices = [matrix for expert in stacks.apart() for matrix in expert]
    for moved, matrix, old in zip(matrices, apart.matrices, before):
        assert torch.equal(moved, matrix)
        assert not torch.equal(moved, old)


def test_both_optimisers_decay_matrices_by_the_same_share():
    """Without a gradient, a step is the decay alone."""
    config = changed(SHORT, optimizer="muon", weight_decay=0.3)
    backbone = tiny_backbone()
    before = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    for parameter in backbone.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for optimizer in optim.make_optimizers(backbone, config):
        optimizer.step()
    for name, moved in backbone.named_parameters():
        share = 1 - 0.3 * config.optim.learning_rate if moved.ndim > 1 else 1
        torch.testing.assert_close(moved.detach(), share * before[name], msg=name)


@pytest.mark.parametrize("shape", [(64, 256), (256, 64), (3, 8, 128)])
def test_a_step_of_muon_is_as_large_for_matrices_of_every_shape(shape):
    weight = nn.Parameter(torch.zeros(shape))
    weight.grad = torch.randn(shape, generator=generator(3))
    optim.Muon([weight], 0.5, 0.0).step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2 * 0.5, rel=0.3)

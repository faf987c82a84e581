"""Mixture of experts: router against a loop, grouped path against the formula, balance, layouts."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import MASK, few, generator, many, random_ids, tiny_backbone, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from minillada import experts, moe
from minillada.config import SamplingConfig, TrainingConfig
from minillada.model import Backbone
from minillada.presets.official import LLADA2_UNI
from minillada.sampler import Tokens, generate
from minillada.settings import changed
from minillada.training.loop import fit
from minillada.training.run import Run

EXPERTS = dict(
    num_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, moe_intermediate_size=12
)


def tiny_moe(seed: int = 0, **changes) -> moe.MixtureOfExperts:
    torch.manual_seed(seed)
    mixture = moe.MixtureOfExperts(tiny_config(**EXPERTS | changes))
    mixture.gate.expert_bias.uniform_(-0.3, 0.3)
    return mixture.eval()


def route_by_hand(
    x: list[float], weight: list[list[float]], bias: list[float], config
) -> dict[int, float]:
    """Expert -> weight for one token."""
    s = [1 / (1 + math.exp(-sum(a * b for a, b in zip(x, row, strict=True)))) for row in weight]
    biased, size = [a + b for a, b in zip(s, bias, strict=True)], len(s) // config.n_group
    groups = [list(range(g * size, (g + 1) * size)) for g in range(config.n_group)]
    best_groups = sorted(
        groups, key=lambda group: -sum(sorted((biased[e] for e in group), reverse=True)[:2])
    )[: config.topk_group]
    chosen = sorted((e for group in best_groups for e in group), key=lambda e: -biased[e])[
        : config.num_experts_per_tok
    ]
    total = sum(s[e] for e in chosen) + 1e-20 if len(chosen) > 1 else 1
    return {e: config.routed_scaling_factor * s[e] / total for e in chosen}


@many
@given(
    seed=st.integers(0, 999),
    groups=st.sampled_from([(1, 1), (2, 1), (4, 2), (8, 8)]),
    k=st.integers(1, 4),
)
def test_router_is_the_loop_over_tokens(seed, groups, k):
    mixture = tiny_moe(
        seed,
        n_group=groups[0],
        topk_group=groups[1],
        num_experts_per_tok=min(k, 8 // groups[0] * groups[1]),
    )
    x = torch.randn(5, 16, generator=generator(seed))
    chosen, weights = mixture.gate(x)
    for token in range(5):
        expected = route_by_hand(
            x[token].tolist(),
            mixture.gate.weight.tolist(),
            mixture.gate.expert_bias.tolist(),
            mixture.gate.config,
        )
        assert set(chosen[token].tolist()) == set(expected)
        for e, w in zip(chosen[token].tolist(), weights[token].tolist(), strict=True):
            assert math.isclose(w, expected[e], rel_tol=1e-4)


def test_bias_steers_the_choice_and_never_the_weight():
    gate = tiny_moe(n_group=1, topk_group=1, num_experts_per_tok=2).gate
    x = torch.randn(1, 16, generator=generator())
    gate.expert_bias.zero_()
    gate.expert_bias[5] += 10
    chosen, weights = gate(x)
    scores = (x @ gate.weight.T).sigmoid()[0]
    assert 5 in chosen[0].tolist() and math.isclose(weights.sum().item(), 2.5, rel_tol=1e-5)
    ratio = weights[0, chosen[0].tolist().index(5)] / weights[0, 1 - chosen[0].tolist().index(5)]
    other = next(e for e in chosen[0].tolist() if e != 5)
    assert torch.allclose(ratio, scores[5] / scores[other], rtol=1e-4)
    (gradient,) = torch.autograd.grad(weights.sum(), gate.weight)
    assert gradient.abs().max() < 1e-6, "the sum is always 2.5"


def test_scores_of_zero_give_weights_of_zero():
    gate = tiny_moe().gate
    with torch.no_grad():
        gate.weight.fill_(-100.0)
    _, weights = gate(torch.ones(1, 16))
    assert not weights.any()  # nor NaN


def test_the_router_is_in_float32_under_autocast():
    gate, x = tiny_moe().gate, torch.randn(9, 16, generator=generator())
    with torch.autocast("cpu", torch.bfloat16):
        low = gate(x)
    assert all(torch.equal(a, b) for a, b in zip(low, gate(x), strict=True))


def test_the_router_is_in_float32_in_a_model_of_bfloat16():
    gate, x = tiny_moe().gate.bfloat16(), torch.randn(99, 16, generator=generator()).bfloat16()
    chosen, weights = gate(x)
    assert weights.dtype == torch.float32
    wanted = gate.float()(x.float())  # the same numbers, with room for more digits
    assert torch.equal(chosen, wanted[0]) and torch.equal(weights, wanted[1])


@few
@given(
    tokens=st.integers(1, 40),
    seed=st.integers(0, 999),
    idle=st.sampled_from([slice(0), slice(4), slice(4, 8)]),
)
def test_grouped_experts_are_the_formula_with_equal_gradients(tokens, seed, idle):
    mixture, x = tiny_moe(seed), torch.randn(tokens, 16, generator=generator(seed))
    mixture.gate.expert_bias[idle] = -10.0  # these experts receive nobody
    results = []
    for combine in (
        experts.combine_dense,
        experts.combine_grouped,
        *([experts.combine_at_once] if hasattr(F, "grouped_mm") else []),
    ):
        mixture.zero_grad()
        inputs = x.clone().requires_grad_()
        out = combine(mixture.experts, inputs, *mixture.gate(inputs))
        out.square().sum().backward()
        results.append(
            [
                out,
                inputs.grad,
                mixture.gate.weight.grad,
                *(p.grad for p in mixture.experts.parameters()),
            ]
        )
    for fast in results[1:]:
        for a, b in zip(fast, results[0], strict=True):
            a, b = (
                torch.zeros(()) if g is None else g for g in (a, b)
            )  # an expert without tokens has no gradient, or zeros
            assert torch.allclose(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="grouped products in bfloat16 need a GPU")
def test_grouped_products_on_a_gpu_are_the_formula_up_to_rounding():
    mixture = tiny_moe(1, hidden_size=64, moe_intermediate_size=32).cuda().bfloat16()
    x = torch.randn(50, 64, generator=generator()).cuda().bfloat16()
    chosen, weights = mixture.gate(x)
    exact = experts.combine_dense(mixture.experts.float(), x.float(), chosen, weights)
    assert torch.allclose(
        experts.combine(mixture.experts.bfloat16(), x, chosen, weights).float(),
        exact,
        atol=0.05 * float(exact.abs().max()),
    )


def test_the_router_learns_even_if_one_expert_is_chosen():
    """As released: the weights of one alone are not divided by themselves."""
    mixture, x = tiny_moe(num_experts_per_tok=1), torch.randn(6, 16, generator=generator())
    _, weights = mixture.gate(x)
    weights.sum().backward()
    assert mixture.gate.weight.grad.abs().max() > 1e-3


@pytest.mark.parametrize("shared", [1, 2])
def test_mixture_adds_the_shared_experts(shared):
    """In value and in the gradient of its input, which passes through the router, too."""
    mixture = tiny_moe(num_shared_experts=shared)
    assert len(mixture.shared_experts.up_proj.weight) == 12 * shared
    x = torch.randn(2, 3, 16, generator=generator()).requires_grad_()
    tokens = x.view(6, 16)
    routed = experts.combine_dense(mixture.experts, tokens, *mixture.gate(tokens)).view(2, 3, 16)
    both = mixture(x), routed + mixture.shared_experts(x)
    assert torch.allclose(*both, atol=1e-6)
    fast, slow = (torch.autograd.grad(out.square().sum(), x)[0] for out in both)
    assert torch.allclose(fast, slow, atol=1e-4, rtol=1e-4)


def test_even_loads_and_no_loads_favour_nobody():
    gate = tiny_moe().gate
    gate.expert_bias.zero_()
    for received in (0, 5):
        gate.received.fill_(received)
        gate.balance(0.1)
        assert (gate.expert_bias == gate.expert_bias[0]).all() and gate.expert_bias.isfinite().all()


def test_balance_lowers_the_bias_of_the_busy_and_evens_the_load():
    mixture = tiny_moe(n_group=1, topk_group=1, num_experts_per_tok=1)
    gate = mixture.gate.train()
    gate.expert_bias.zero_()
    gate.received[:] = torch.tensor([5.0, 1, 1, 1, 0, 0, 0, 0])
    share = gate.received / 8
    expected = -0.1 * (share - 0.125) / (share - 0.125).square().mean().sqrt()
    gate.balance(0.1)
    assert torch.allclose(gate.expert_bias, expected) and not gate.received.any()
    gate.expert_bias.zero_()
    x = (
        torch.randn(400, 16, generator=generator()) + 0.7
    )  # a common direction makes some experts everybody's favourites

    def load():
        gate(x)
        share = gate.received / gate.received.sum()
        gate.balance(0.02)
        return float(share.max())

    shares = [load() for _ in range(200)]
    assert shares[0] > 0.3 and max(shares[-10:]) < 0.16


def test_only_training_counts():
    gate = tiny_moe().gate
    gate(torch.randn(4, 16))
    assert gate.received.sum() == 0
    for _ in range(4):
        gate.train()(torch.randn(1, 16))
    assert gate.received.sum() == 12 and "received" not in gate.state_dict()


def test_first_layer_stays_dense_and_cached_decoding_is_exact():
    backbone = tiny_backbone(2, **EXPERTS)
    dense, sparse = (layer.mlp for layer in backbone.model.layers)
    assert isinstance(dense, moe.SwiGLU) and isinstance(sparse, moe.MixtureOfExperts)
    config = SamplingConfig(block_size=4, steps=3, guidance=2.0)
    branch = (random_ids(1, 5, seed=1),)
    a, b = (
        generate(backbone, random_ids(2, 6), 10, config, Tokens(MASK), branch, cache=cached).ids
        for cached in (True, False)
    )
    assert torch.equal(a, b)


def test_a_run_with_experts_resumes_to_the_bit(tmp_path):
    config = changed(
        TrainingConfig(), steps=6, learning_rate=1e-2, warmup_steps=1, balance_rate=0.05
    )

    def train(run, **how):
        backbone = tiny_backbone(3, **EXPERTS)

        def loss(step):
            ids = random_ids(4, 8, seed=step)
            return torch.nn.functional.cross_entropy(backbone(ids).flatten(0, 1), ids.flatten()), {}

        fit(backbone, loss, config, run, **how)
        return backbone.state_dict()

    whole = train(Run(tmp_path / "whole"))
    train(Run(tmp_path / "parts"), stop_after=3)
    parts = train(Run(tmp_path / "parts", resume=True))
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert whole["model.layers.1.mlp.gate.expert_bias"].abs().sum() > 0


def test_the_official_model_has_16_billion_parameters():
    with torch.device("meta"):
        backbone = Backbone(changed(LLADA2_UNI))
    total = sum(p.numel() for p in backbone.parameters())
    expert = 3 * 2048 * 512
    attention = 2048 * (16 + 2 * 4) * 128 + 16 * 128 * 2048 + 2 * 128
    layer = attention + 2 * 2048
    by_hand = (
        2 * 173_568 * 2048 + 2048 + 20 * layer + 3 * 2048 * 5120 + 19 * (257 * expert + 256 * 2048)
    )
    assert total == by_hand and 16e9 < total < 17e9
    keys = backbone.state_dict().keys()
    assert {
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.19.mlp.experts.255.down_proj.weight",
    } <= keys
    assert {
        "model.layers.1.mlp.gate.weight",
        "model.layers.1.mlp.gate.expert_bias",
        "model.layers.1.mlp.shared_experts.up_proj.weight",
    } <= keys


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"n_group": 3}, "8 experts do not make 3 equal groups"),
        ({"topk_group": 5}, "topk_group must lie between 1 and n_group = 4, got 5"),
        ({"num_experts_per_tok": 5}, "5 experts per token cannot be chosen from 2 groups of 2"),
        ({"num_shared_experts": 0}, "num_shared_experts must be at least 1, got 0"),
    ],
)
def test_routers_that_cannot_choose(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Backbone(tiny_config(**EXPERTS | changes))

"""Where the time of decoding goes: what is written down, and what the shares are shares of."""

import pytest
import torch
import torch.nn.functional as F
from helpers import generator

from minillada.evaluation import profile
from minillada.evaluation.bench import Setting
from minillada.measure import timing


def test_products_and_attention_are_written_down_once_for_each_weight():
    layers = [torch.nn.Linear(8, 8) for _ in range(2)]
    x = torch.randn(3, 8, generator=generator())
    heads = torch.randn(1, 2, 3, 4, generator=generator())
    with profile.Calls() as calls, torch.no_grad():
        for layer in (*layers, *layers):
            y = layer(x).relu()
        F.scaled_dot_product_attention(heads, heads, heads, attn_mask=None)
        layers[0](x[:2])
    assert len(calls.made["products"]) == 5 and len(calls.made["attention"]) == 1
    assert len(calls.known) == 4  # two weights, one of them with two shapes, and attention
    assert torch.equal(calls.made["products"][1]().relu(), y)


def test_the_calls_are_made_again_as_they_were(monkeypatch):
    """As many products as the model has matrices, in every step."""
    decoding = profile.Decoding(Setting(), 32, 2)
    with profile.Calls() as calls:
        steps = decoding.ours().forwards
    backbone = decoding.backbone
    matrices = [part for part in backbone.modules() if isinstance(part, torch.nn.Linear)]
    assert len(calls.made["products"]) == steps * len(matrices)
    assert len(calls.made["attention"]) == steps * len(backbone.model.layers)
    again = []
    monkeypatch.setattr(F, "linear", lambda *args: again.append(args))
    calls.again("products")
    assert not again, "the function itself was written down, not its name"


def test_shares_of_a_known_clock(monkeypatch):
    # A run of everything takes 10 seconds, products alone 4, attention alone 1.
    monkeypatch.setattr(profile.Calls, "again", lambda self, kind: None)
    lasts = [10.0, 4.0, 1.0]
    taken = []

    def elapsed(call, device):
        taken.append(call)
        return lasts[(len(taken) - 1) % 3]

    monkeypatch.setattr(timing, "elapsed", elapsed)
    report = profile.profile_sampler(Setting(pairs=2), length=32, batch=1)
    assert report["share_products"] == pytest.approx(0.4)
    assert report["share_attention"] == pytest.approx(0.1)
    assert report["share_rest"] == pytest.approx(0.5)
    assert report["times_the_limit"] == pytest.approx(2.0)
    assert report["milliseconds_a_step"] == pytest.approx(10_000 / report["steps"])
    assert len(taken) == 9, "a warm-up and two runs, of three parts each"

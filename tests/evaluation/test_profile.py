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
        for mask in (None, torch.ones(3, 3, dtype=torch.bool)):
            F.scaled_dot_product_attention(heads, heads, heads, attn_mask=mask)
        layers[0](x[:2])
    assert len(calls.made["products"]) == 5 and len(calls.made["attention"]) == 2
    # two weights, one of them with two shapes, and attention with a mask and without
    assert len(calls.known) == 5
    if hasattr(F, "grouped_mm"):  # the products of experts on a GPU
        assert profile.KINDS[F.grouped_mm] == "products"
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
    # Runs of everything take 10 and 20 seconds, products alone 4 and 10, attention alone 1.
    lasts = iter([1000.0, 1.0, 1.0, 10.0, 4.0, 1.0, 20.0, 10.0, 1.0])
    taken, made = [], []
    monkeypatch.setattr(profile.Calls, "again", lambda self, kind: made.append(kind))

    def elapsed(call, device):
        if len(taken) % 3:
            call()
        taken.append(call)
        return next(lasts)

    monkeypatch.setattr(timing, "elapsed", elapsed)
    monkeypatch.setattr(profile, "graph_steps", lambda setting, decoding: {"graphs": decoding})
    monkeypatch.setattr(profile.Decoding, "ours", None)  # recorded steps could not be taken apart
    report = profile.profile_sampler(Setting(pairs=2), length=32, batch=1)
    assert report["share_products"] == pytest.approx((0.4 + 0.5) / 2)
    assert report["share_attention"] == pytest.approx((0.1 + 0.05) / 2)
    assert report["share_rest"] == pytest.approx((0.5 + 0.45) / 2)
    assert report["times_the_limit"] == pytest.approx((10 / 5 + 20 / 11) / 2)
    assert report["milliseconds_a_step"] == pytest.approx(15_000 / report["steps"])
    assert made == ["products", "attention"] * 3
    assert len(taken) == 9, "a warm-up and two runs, of three parts each"
    decoding = report["graphs"]
    assert taken[0] == decoding.eager and decoding.length == report["new_tokens"] == 32
    assert decoding.ids.shape == (1, 64) and report["batch"] == 1

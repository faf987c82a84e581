"""The official backbone and its decoding against an independent, slow reference.

Every case is a random tiny checkpoint on disk, in one of the layouts. The reference computes from
the formulas in float64 (`tests/reference.py`) and shares no code with the package.
"""

import math
import tempfile
import warnings
from pathlib import Path

import pytest
import torch
from helpers import EOS, MASK, generator, random_ids
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Weights, official_decode, padded_logits

from minillada.config import ModelConfig, SamplingConfig
from minillada.masks import block_causal_mask
from minillada.official import load_backbone
from minillada.official.divergence import divergences, first_divergence
from minillada.official.fabricate import write_weights
from minillada.official.names import backbone_entries
from minillada.official.writing import tensors
from minillada.sampler import Tokens, generate

VOCAB, OFFSET = 40, 24  # ids from the offset on are image codes


def choose(options: list):
    return st.sampled_from(options)


@st.composite
def configs(draw) -> ModelConfig:
    """Tiny models of every shape that the official configuration allows."""
    heads, shared = draw(choose([(1, 1), (2, 1), (4, 2), (3, 3)]))
    count, groups, kept, chosen = draw(
        choose([(4, 1, 1, 2), (8, 4, 2, 3), (8, 2, 1, 4), (6, 3, 2, 1), (4, 4, 4, 4)])
    )
    return ModelConfig(
        vocab_size=VOCAB,
        hidden_size=draw(choose([8, 12])),
        num_hidden_layers=draw(choose([1, 2, 3])),
        num_attention_heads=heads,
        num_key_value_heads=shared,
        head_dim=draw(choose([4, 8])),
        intermediate_size=draw(choose([8, 10])),
        rms_norm_eps=draw(choose([1e-6, 1e-5])),
        rope_theta=draw(choose([100.0, 600_000.0])),
        partial_rotary_factor=draw(choose([0.5, 1.0])),
        max_position_embeddings=64,
        num_experts=count,
        num_experts_per_tok=chosen,
        num_shared_experts=draw(choose([1, 2])),
        n_group=groups,
        topk_group=kept,
        moe_intermediate_size=draw(choose([4, 6])),
        routed_scaling_factor=draw(choose([1.0, 2.5])),
        first_k_dense_replace=draw(choose([0, 1])),
    )


def load_quietly(folder: Path, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no checksums
        return load_backbone(folder, **how)


def checkpoint(folder: Path, config: ModelConfig, seed: int, layout: str):
    """A backbone loaded from its files in float32, and its weights for the reference."""
    plain = "fused" if layout == "fused" else "released"
    write_weights(folder, config, OFFSET, EOS, 2, seed, plain, layout == "sibling")
    exact: Weights = {}
    for key, tensor in tensors(backbone_entries(config), seed).items():
        exact[key] = tensor.double()
    return load_quietly(folder, dtype="float32"), exact


def branches_of(kind: str, prompt: list[int]) -> list[list[int]]:
    """Prompts to compare with: shorter ones are padded on the left, longer ones are cut."""
    if kind == "none":
        return []
    if kind == "one":
        return [prompt[len(prompt) // 2 :]]
    return [prompt[1:], [7, 9, *prompt, 5]]


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    config=configs(),
    seed=st.integers(0, 10**6),
    layout=choose(["released", "fused", "sibling"]),
    kind=choose(["none", "one", "two"]),
    image=st.booleans(),
    prompt_length=st.integers(2, 6),
    length=st.integers(1, 6),
    block=choose([3, 4]),
    threshold=choose([0.05, 0.1, 0.95]),
)
def test_logits_and_decoded_tokens_are_those_of_the_reference(
    config, seed, layout, kind, image, prompt_length, length, block, threshold
):
    with tempfile.TemporaryDirectory() as folder:
        backbone, exact = checkpoint(Path(folder), config, seed, layout)
    # 1. logits, with padding in front
    padding = seed % 3
    ids = random_ids(1, prompt_length + length, VOCAB, seed)
    index = torch.arange(ids.shape[1])
    mask = block_causal_mask(index, index, block) & (index >= padding)
    positions = (index - padding).clamp_min(0)[None]
    with torch.no_grad():
        ours = backbone(ids, mask, positions)[0, padding:]
    theirs = padded_logits(exact, config, ids[0].tolist(), padding, block)[padding:]
    assert (ours - theirs).abs().max() < 1e-5
    # 2. the tokens that are decoded
    prompt = ids[0, :prompt_length].tolist()
    others = branches_of(kind, prompt)
    sampling = SamplingConfig(
        block_size=block,
        steps=2,
        threshold=threshold,
        guidance=3.0 if others else 1.0,
        guidance_image=1.5 if len(others) == 2 else 0.0,
        rescale=0.7 if others else 0.0,
    )
    is_code = torch.arange(VOCAB) >= OFFSET
    allowed = is_code if image else None
    eos = None if image else EOS
    result = generate(
        backbone,
        torch.tensor([prompt]),
        length,
        sampling,
        Tokens(MASK, eos, allowed=allowed),
        [torch.tensor([other]) for other in others],
    )
    may = range(OFFSET, VOCAB) if image else [i for i in range(VOCAB) if i != MASK]
    expected = official_decode(exact, config, [prompt, *others], length, sampling, list(may), eos)
    assert result.ids[0].tolist() == expected


# --- bfloat16 ------------------------------------------------------------------------------------

CONFIG = ModelConfig(
    vocab_size=VOCAB, hidden_size=16, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, head_dim=8, intermediate_size=24, max_position_embeddings=64,
    num_experts=8, num_experts_per_tok=3, n_group=4, topk_group=2, moe_intermediate_size=12,
)  # fmt: skip


def test_bfloat16_is_the_reference_up_to_rounding(tmp_path):
    _, exact = checkpoint(tmp_path, CONFIG, 3, "released")
    backbone = load_quietly(tmp_path)
    ids = random_ids(1, 20, VOCAB)
    with torch.no_grad():
        ours = backbone(ids)[0]
    assert ours.dtype == torch.float32 and torch.equal(ours, ours.bfloat16().float())
    theirs = padded_logits(exact, CONFIG, ids[0].tolist(), 0, 64)
    assert (ours - theirs).abs().mean() < 0.03 * theirs.std()


# --- where two models part -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("model.layers.1.attention.key_layernorm.weight", "model.layers.1.attention.key_layernorm"),
        ("model.layers.2.mlp.experts.3.up_proj.weight", "model.layers.2.mlp"),
        ("model.layers.2.mlp.gate.weight", "model.layers.2.mlp.gate"),
        ("model.word_embeddings.weight", "model.word_embeddings"),
        ("lm_head.weight", "lm_head"),
    ],
)
def test_the_first_module_that_differs_is_named(tmp_path, key, place):
    first, _ = checkpoint(tmp_path, CONFIG, 3, "released")
    other, _ = checkpoint(tmp_path, CONFIG, 3, "fused")
    ids = random_ids(2, 20, VOCAB)
    assert first_divergence(first, other, ids) is None
    planted = other.state_dict()[key]
    planted += 0.1 * torch.randn(planted.shape, generator=generator(1))
    assert first_divergence(first, other, ids) == place
    shares = divergences(first, other, ids)
    assert list(shares)[0] == "model.word_embeddings" and list(shares)[-1] == "lm_head"
    assert math.isfinite(shares["lm_head"]) and shares["lm_head"] > 1e-4


def test_models_of_other_sizes_part_where_shapes_do(tmp_path):
    first, _ = checkpoint(tmp_path / "a", CONFIG, 3, "released")
    wide = CONFIG.model_copy(update={"moe_intermediate_size": 16})
    other, _ = checkpoint(tmp_path / "b", wide, 3, "released")
    ids = random_ids(1, 8, VOCAB)
    # The shapes of what an expert puts out are the same; the shared expert shows the width.
    assert first_divergence(first, other, ids) == "model.layers.1.mlp.shared_experts.gate_proj"
    short = CONFIG.model_copy(update={"num_hidden_layers": 2})
    fewer, _ = checkpoint(tmp_path / "c", short, 3, "released")
    assert divergences(first, fewer, ids)["model.layers.2"] == float("inf")

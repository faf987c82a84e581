"""The backbone against loops and complex numbers, and the properties that decoding relies on."""

import math

import pytest
import torch
from helpers import MASK, few, generator, random_ids, tiny_backbone, tiny_config
from hypothesis import given
from hypothesis import strategies as st

from minillada.config import SamplingConfig
from minillada.extras.transfer import start_image_rows
from minillada.masks import block_causal_mask, block_diffusion_mask
from minillada.model import Attention, Backbone, KVCache, RMSNorm, apply_rotary, rotary
from minillada.sampler import Tokens, generate


def official_keys(config) -> dict[str, list[int]]:
    """Names and shapes of the official checkpoint with dense layers."""
    v, h, f, d = config.vocab_size, config.hidden_size, config.intermediate_size, config.head_dim
    nq, nkv = config.num_attention_heads, config.num_key_value_heads
    keys = {
        "model.word_embeddings.weight": [v, h],
        "model.norm.weight": [h],
        "lm_head.weight": [v, h],
    }
    for i in range(config.num_hidden_layers):
        layer = f"model.layers.{i}"
        keys |= {
            f"{layer}.input_layernorm.weight": [h],
            f"{layer}.post_attention_layernorm.weight": [h],
            f"{layer}.attention.query_key_value.weight": [(nq + 2 * nkv) * d, h],
            f"{layer}.attention.query_layernorm.weight": [d],
            f"{layer}.attention.key_layernorm.weight": [d],
            f"{layer}.attention.dense.weight": [h, nq * d],
            f"{layer}.mlp.gate_proj.weight": [f, h],
            f"{layer}.mlp.up_proj.weight": [f, h],
            f"{layer}.mlp.down_proj.weight": [h, f],
        }
    return keys


def test_state_dict_keys_are_the_official_ones():
    config = tiny_config(num_hidden_layers=3)
    assert {k: list(v.shape) for k, v in Backbone(config).state_dict().items()} == official_keys(
        config
    )


# --- an independent implementation ---------------------------------------------------------------


def norm_by_hand(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def rotate_by_hand(x: torch.Tensor, position: int, config) -> torch.Tensor:
    """RoPE of a vector `[head_dim]` by complex numbers: dimension i pairs with i + dims/2."""
    dims = int(config.head_dim * config.partial_rotary_factor)
    out = x.clone()
    for i in range(dims // 2):
        angle = position * config.rope_theta ** (-2 * i / dims)
        turned = complex(x[i], x[i + dims // 2]) * complex(math.cos(angle), math.sin(angle))
        out[i], out[i + dims // 2] = turned.real, turned.imag
    return out


def attention_by_hand(
    weights: dict, x: torch.Tensor, positions: list[int], mask: torch.Tensor, config
) -> torch.Tensor:
    """One row `[L, H]`: a loop over query heads, each naming the key-value head it shares."""
    d, nq, nkv, length = (
        config.head_dim,
        config.num_attention_heads,
        config.num_key_value_heads,
        len(x),
    )
    matrix = weights["query_key_value.weight"]
    q_rows, k_rows, v_rows = (
        matrix[: nq * d],
        matrix[nq * d : (nq + nkv) * d],
        matrix[(nq + nkv) * d :],
    )
    heads = []
    for head in range(nq):
        shared = head // (nq // nkv)
        q = norm_by_hand(
            x @ q_rows[head * d : (head + 1) * d].T,
            weights["query_layernorm.weight"],
            config.rms_norm_eps,
        )
        k = norm_by_hand(
            x @ k_rows[shared * d : (shared + 1) * d].T,
            weights["key_layernorm.weight"],
            config.rms_norm_eps,
        )
        v = x @ v_rows[shared * d : (shared + 1) * d].T
        q = torch.stack([rotate_by_hand(q[i], positions[i], config) for i in range(length)])
        k = torch.stack([rotate_by_hand(k[i], positions[i], config) for i in range(length)])
        rows = []
        for i in range(length):
            seen = [j for j in range(length) if mask[i, j]]
            weight = torch.stack([q[i] @ k[j] / math.sqrt(d) for j in seen]).softmax(0)
            rows.append(sum(w * v[j] for w, j in zip(weight, seen, strict=True)))
        heads.append(torch.stack(rows))
    return torch.cat(heads, dim=-1) @ weights["dense.weight"].T


def backbone_by_hand(
    backbone: Backbone, ids: torch.Tensor, mask: torch.Tensor, positions: list[int]
) -> torch.Tensor:
    """Logits `[L, V]` of one row in float64, from the state dict alone."""
    state, config = {k: v.double() for k, v in backbone.state_dict().items()}, backbone.config
    x = state["model.word_embeddings.weight"][ids]
    for i in range(config.num_hidden_layers):
        layer = {
            k.removeprefix(f"model.layers.{i}."): v
            for k, v in state.items()
            if k.startswith(f"model.layers.{i}.")
        }
        attention = {
            k.removeprefix("attention."): v for k, v in layer.items() if k.startswith("attention.")
        }
        y = norm_by_hand(x, layer["input_layernorm.weight"], config.rms_norm_eps)
        x = x + attention_by_hand(attention, y, positions, mask, config)
        y = norm_by_hand(x, layer["post_attention_layernorm.weight"], config.rms_norm_eps)
        gate = y @ layer["mlp.gate_proj.weight"].T
        x = (
            x
            + (gate / (1 + (-gate).exp()) * (y @ layer["mlp.up_proj.weight"].T))
            @ layer["mlp.down_proj.weight"].T
        )
    return (
        norm_by_hand(x, state["model.norm.weight"], config.rms_norm_eps) @ state["lm_head.weight"].T
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4},
        {"partial_rotary_factor": 1.0},
        {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 12},
        {"rms_norm_eps": 0.1},  # so large that a misplaced eps shows
    ],
)
def test_backbone_equals_loops(changes):
    backbone = tiny_backbone(1, **changes)
    ids = random_ids(2, 7, seed=3)
    index = torch.arange(7)
    mask = block_causal_mask(index, index, 3)
    positions = torch.tensor([[0, 1, 2, 3, 4, 5, 6], [9, 0, 0, 1, 2, 30, 4]])
    with torch.no_grad():
        logits = backbone(ids, mask, positions)
        for row in range(2):
            expected = backbone_by_hand(backbone, ids[row], mask[0], positions[row].tolist())
            assert torch.allclose(logits[row].double(), expected, atol=2e-4, rtol=1e-4)


def test_defaults_are_full_attention_and_positions_from_zero():
    backbone, ids = tiny_backbone(2), random_ids(3, 6)
    full = torch.ones(1, 6, 6, dtype=torch.bool)
    with torch.no_grad():
        assert torch.allclose(backbone(ids), backbone(ids, full, torch.arange(6)[None]), atol=1e-5)


def test_mask_may_differ_between_rows():
    backbone, ids = tiny_backbone(2), random_ids(1, 5).repeat(2, 1)
    masks = torch.stack([torch.ones(5, 5).tril().bool(), torch.ones(5, 5).bool()])
    with torch.no_grad():
        both = backbone(ids, masks)
        for row in range(2):
            assert torch.allclose(both[row], backbone(ids[:1], masks[row : row + 1])[0], atol=1e-5)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


# --- parts ---------------------------------------------------------------------------------------


def test_rmsnorm_is_computed_in_float32_cast_back_then_weighted():
    norm = RMSNorm(64, 1e-6).bfloat16()
    with torch.no_grad():
        norm.weight.copy_(torch.rand(64, generator=generator()) + 0.5)
    x = (torch.randn(9, 64, generator=generator(1)) * 3).bfloat16()
    wide = x.float()
    unit = (wide * (wide.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()).bfloat16()
    result = norm(x)
    assert result.dtype == torch.bfloat16
    assert torch.equal(result, unit * norm.weight)
    weighted_first = (
        wide * (wide.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * norm.weight.float()
    ).bfloat16()
    assert not torch.equal(result, weighted_first), "this input should tell the two orders apart"


def test_rmsnorm_survives_half_precision_overflow():
    x = torch.full((1, 8), 300.0, dtype=torch.float16)  # 300² is more than float16 can hold
    assert torch.equal(RMSNorm(8, 1e-6).half()(x), torch.ones(1, 8, dtype=torch.float16))


def test_rope_leaves_the_other_dimensions_untouched():
    config = tiny_config(head_dim=12, partial_rotary_factor=0.5)
    x = torch.randn(2, 3, 5, 12, generator=generator())
    turned = apply_rotary(x, *rotary(torch.arange(5)[None] + 3, config))
    assert torch.equal(turned[..., 6:], x[..., 6:])
    assert (turned[..., :6] != x[..., :6]).all()


def test_rope_is_multiplication_by_complex_numbers():
    config = tiny_config(head_dim=16, partial_rotary_factor=0.5, rope_theta=600_000.0)
    x = torch.randn(1, 2, 4, 16, generator=generator())
    positions = [0, 1, 7, 301]  # 301 is no number of bfloat16
    turned = apply_rotary(x, *rotary(torch.tensor([positions]), config))
    for head in range(2):
        for i, position in enumerate(positions):
            assert torch.allclose(
                turned[0, head, i], rotate_by_hand(x[0, head, i], position, config), atol=1e-5
            )
    assert torch.equal(turned[:, :, 0], x[:, :, 0])  # position 0 turns nothing


@few
@given(
    m=st.integers(0, 200), n=st.integers(0, 200), shift=st.integers(0, 300), seed=st.integers(0, 99)
)
def test_rope_scores_depend_on_distance_alone(m, n, shift, seed):
    config = tiny_config(head_dim=8, partial_rotary_factor=1.0)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=generator(seed))

    def score(i, j):
        return (
            apply_rotary(q, *rotary(torch.tensor([[i]]), config))
            * apply_rotary(k, *rotary(torch.tensor([[j]]), config))
        ).sum()

    assert torch.allclose(score(m, n), score(m + shift, n + shift), atol=1e-3)


def test_backbone_depends_on_relative_positions_only():
    backbone, ids = tiny_backbone(3), random_ids(1, 6)
    with torch.no_grad():
        here, there = backbone(ids), backbone(ids, position_ids=torch.arange(6)[None] + 20)
        stretched = backbone(ids, position_ids=torch.arange(6)[None] * 2)
    assert torch.allclose(here, there, atol=1e-3)
    assert not torch.allclose(here, stretched, atol=1e-2)


def test_query_heads_must_share_key_heads_evenly():
    with pytest.raises(ValueError, match="cannot share"):
        Attention(tiny_config(num_attention_heads=4, num_key_value_heads=3))


@pytest.mark.parametrize(("head_dim", "share"), [(15, 1.0), (30, 0.5)])
def test_an_odd_number_of_a_head_cannot_turn(head_dim, share):
    with pytest.raises(ValueError, match="15 numbers of a head cannot turn in pairs"):
        Attention(tiny_config(head_dim=head_dim, partial_rotary_factor=share))


@pytest.mark.parametrize("experts", [{}, dict(num_experts=16, moe_intermediate_size=32)])
def test_initialisation_has_the_configured_spread(experts):
    torch.manual_seed(0)
    sizes = dict(hidden_size=64, intermediate_size=128, vocab_size=200)
    backbone = Backbone(tiny_config(**sizes, **experts, initializer_range=0.05))
    for name, parameter in backbone.named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            assert float(parameter.detach().std()) == pytest.approx(0.05, rel=0.1), name


# --- what may depend on what ---------------------------------------------------------------------


@few
@given(
    block_size=st.integers(1, 5), blocks=st.integers(2, 4), seed=st.integers(0, 999), data=st.data()
)
def test_a_later_token_never_changes_earlier_blocks(block_size, blocks, seed, data):
    backbone, length = tiny_backbone(seed % 5), block_size * blocks
    changed = data.draw(st.integers(block_size, length - 1))
    ids = random_ids(2, length, seed=seed)
    other = ids.clone()
    other[:, changed] = (other[:, changed] - 1) % 24
    index = torch.arange(length)
    mask = block_causal_mask(index, index, block_size)
    with torch.no_grad():
        before, after = backbone(ids, mask), backbone(other, mask)
    edge = changed // block_size * block_size
    assert torch.equal(before[:, :edge], after[:, :edge])
    assert not torch.allclose(
        before[:, edge : edge + block_size], after[:, edge : edge + block_size], atol=1e-4
    )


@few
@given(block_size=st.integers(1, 4), seed=st.integers(0, 999))
def test_noisy_half_never_leaks_into_the_clean_half(block_size, seed):
    backbone, length = tiny_backbone(seed % 5), 3 * block_size
    clean, noisy, other = (random_ids(2, length, seed=seed + i) for i in range(3))
    index = torch.arange(length)
    mask, positions = (
        block_diffusion_mask(index, index, block_size),
        torch.cat([index, index])[None],
    )
    with torch.no_grad():
        a = backbone.hidden_states(torch.cat([noisy, clean], 1), mask, positions)
        b = backbone.hidden_states(torch.cat([other, clean], 1), mask, positions)
        plain = backbone.hidden_states(clean, block_causal_mask(index, index, block_size))
    assert torch.equal(a[:, length:], b[:, length:])
    assert torch.allclose(
        a[:, length:], plain, atol=1e-4
    )  # the clean half is an ordinary block-causal forward


@few
@given(block_size=st.integers(1, 4), block=st.integers(0, 2), seed=st.integers(0, 999))
def test_a_noisy_block_never_sees_its_own_answer(block_size, block, seed):
    backbone, length = tiny_backbone(seed % 5), 3 * block_size
    noisy, clean, other = (random_ids(1, length, seed=seed + i) for i in range(3))
    start, stop = block * block_size, (block + 1) * block_size
    index = torch.arange(length)
    mask, positions = (
        block_diffusion_mask(index, index, block_size),
        torch.cat([index, index])[None],
    )
    changed_clean, changed_noisy = clean.clone(), other.clone()
    changed_clean[:, start:] = other[:, start:]  # its own and all later clean blocks
    changed_noisy[:, start:stop] = noisy[:, start:stop]  # all other noisy blocks
    with torch.no_grad():
        a = backbone.hidden_states(torch.cat([noisy, clean], 1), mask, positions)[:, start:stop]
        b = backbone.hidden_states(torch.cat([changed_noisy, changed_clean], 1), mask, positions)[
            :, start:stop
        ]
    assert torch.equal(a, b)


# --- cache ---------------------------------------------------------------------------------------


@few
@given(
    block_size=st.integers(1, 5),
    blocks=st.integers(1, 4),
    repeats=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_cached_hidden_states_equal_a_full_forward(block_size, blocks, repeats, seed):
    """Block after block, each several times with changing content before it is final."""
    backbone, length = tiny_backbone(seed % 5), block_size * blocks
    ids, drafts = random_ids(2, length, seed=seed), random_ids(2, length, seed=seed + 1)
    index = torch.arange(length)
    mask = block_causal_mask(index, index, block_size)
    with torch.no_grad():
        cache = KVCache(2)
        for start in range(0, length, block_size):
            stop = start + block_size
            for repeat in range(repeats):  # drafts of the block: seen, never stored
                known = cache.length
                draft = torch.cat([ids[:, known:start], drafts[:, start:stop].roll(repeat, 1)], 1)
                got = backbone.hidden_states(
                    draft,
                    mask[:, known:stop, :stop],
                    index[None, known:stop],
                    cache,
                    keep=start - known,
                )
                whole = torch.cat([ids[:, :start], drafts[:, start:stop].roll(repeat, 1)], 1)
                expected = backbone.hidden_states(whole, mask[:, :stop, :stop])
                assert torch.allclose(got, expected[:, known:], atol=1e-4)
                assert cache.length == start


@pytest.mark.parametrize("experts", [0, 4])
def test_states_at_some_positions_are_those_of_the_whole(experts):
    changes = dict(num_experts=experts, num_experts_per_tok=2, first_k_dense_replace=1)
    backbone, ids = tiny_backbone(3, **changes), random_ids(3, 8)
    where = torch.rand(3, 8, generator=generator()) < 0.4
    where[1] = False  # a row may have none
    full, cache = KVCache(2), KVCache(2)
    with torch.no_grad():
        whole = backbone.hidden_states(ids, cache=full, keep=8)
        some = backbone.hidden_states(ids, cache=cache, keep=8, where=where)
    assert some.shape == (int(where.sum()), 16) and 0 < len(some) < 24
    assert torch.allclose(some, whole[where], atol=1e-5)
    backbone.activation_checkpointing = True  # with gradients, which need no cache
    assert torch.allclose(backbone.hidden_states(ids, where=where), whole[where], atol=1e-5)
    for layer in range(2):  # the cache holds all positions all the same
        for stored, expected in zip(cache.stored(layer), full.stored(layer)):
            assert torch.equal(stored, expected)


def test_cache_keeps_exactly_the_first_keep_tokens():
    cache = KVCache(1)
    key = torch.arange(6.0).view(1, 1, 6, 1)
    assert cache.length == 0
    seen, _ = cache.extend(0, key[:, :, :4], -key[:, :, :4], keep=3)
    assert seen.flatten().tolist() == [0, 1, 2, 3] and cache.length == 3
    seen, values = cache.extend(0, key[:, :, 4:], -key[:, :, 4:], keep=0)
    assert seen.flatten().tolist() == [0, 1, 2, 4, 5] and values.flatten().tolist() == [
        0,
        -1,
        -2,
        -4,
        -5,
    ]
    assert cache.length == 3
    seen, _ = cache.extend(0, key[:, :, 4:], -key[:, :, 4:], keep=1)
    assert cache.length == 4
    assert [part.flatten().tolist() for part in cache.stored(0)] == [[0, 1, 2, 4], [0, -1, -2, -4]]
    long = torch.arange(50.0).view(
        1, 1, 50, 1
    )  # more than the buffer has room for: what is stored moves along
    seen, _ = cache.extend(0, long, -long, keep=50)
    assert seen.flatten().tolist() == [0, 1, 2, 4, *range(50)] and cache.length == 54
    small = KVCache(1)
    small.extend(0, key.half(), key.half(), keep=6)
    assert {part.dtype for part in small.stored(0)} == {torch.half}, "no more memory than it needs"


# --- precision -----------------------------------------------------------------------------------


def test_bfloat16_backbone_gives_float32_logits_and_decodes():
    backbone = tiny_backbone(4)
    ids = random_ids(2, 8)
    with torch.no_grad():
        exact = backbone(ids)
        low = tiny_backbone(4).bfloat16()
        logits = low(ids)
        hidden = low.hidden_states(ids)
    assert logits.dtype == torch.float32 and hidden.dtype == torch.bfloat16
    # As in the official code, the head runs in bfloat16, and its output is cast afterwards.
    assert torch.equal(logits, (hidden @ low.lm_head.weight.T).float())
    assert torch.equal(logits, logits.bfloat16().float())
    assert (logits - exact).abs().mean() < 0.1 * exact.abs().mean()
    out = generate(low, ids, 8, SamplingConfig(block_size=4, steps=4), Tokens(MASK))
    assert out.ids.shape == (2, 8) and not (out.ids == MASK).any()


def test_logits_are_float32_under_autocast():
    backbone, ids = tiny_backbone(4), random_ids(1, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        hidden = backbone.hidden_states(ids)
        logits = backbone.logits(hidden)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, hidden.float() @ backbone.lm_head.weight.T, atol=1e-6)
    low = hidden.bfloat16()
    assert torch.equal(backbone.logits(low), backbone.logits(low.float())), "type of the weights"


# --- inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        (torch.tensor([[0, 24]]), r"must lie in \[0, 24\), got 0 to 24"),
        (torch.tensor([[-1, 3]]), r"must lie in \[0, 24\), got -1 to 3"),
        (torch.tensor([1, 2]), "int64 tensor of shape"),
        ([[1, 2]], r"int64 tensor of shape \[B, L\], got \[\[1, 2\]\]"),
        (torch.tensor([[1.0, 2.0]]), "int64 tensor of shape"),
        (torch.tensor([[1, 2]], dtype=torch.int32), "int64 tensor of shape"),
        (torch.ones(1, 65, dtype=torch.long), "65 tokens exceed the context of 64"),
    ],
)
def test_bad_ids_are_named(ids, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_backbone()(ids)


@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16, torch.long])
def test_a_mask_that_is_not_boolean_is_refused(dtype):
    """Zeros and ones would be added to the scores, and change most predictions in silence."""
    mask = torch.ones(1, 5, 5).tril()
    with pytest.raises(ValueError, match=r"mask is boolean, got torch.*; use mask.bool\(\)"):
        tiny_backbone()(random_ids(1, 5), mask.to(dtype))


@pytest.mark.parametrize(
    ("positions", "sentence"),
    [
        (torch.tensor([[0, 9999]]), r"positions must lie in \[0, 64\), got 0 to 9999"),
        (torch.tensor([[-1, 0]]), r"positions must lie in \[0, 64\), got -1 to 0"),
        (torch.tensor([[0.0, 0.5]]), "positions must be an int64 tensor"),
        (torch.tensor([0, 1]), "positions must be an int64 tensor of shape"),
        # PyTorch would repeat the first, and put all tokens in one place
        (torch.tensor([[0]]), r"positions must have shape \[1, 2\], got \[1, 1\]"),
        (torch.tensor([[0, 1, 2]]), r"positions must have shape \[1, 2\], got \[1, 3\]"),
        (torch.tensor([[0, 1], [0, 1]]), r"positions must have shape \[1, 2\], got \[2, 2\]"),
    ],
)
def test_bad_positions_are_named(positions, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_backbone()(random_ids(1, 2), position_ids=positions)


@pytest.mark.parametrize("shape", [(4, 5), (5, 5), (4, 1, 5, 5), (3, 5, 5), (1, 5, 1)])
def test_a_mask_of_another_shape_is_refused(shape):
    """Of these, `[B, L]` would be read as one mask a head where there are B heads."""
    mask = torch.ones(shape, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"a mask must have shape \[4, 5, 5\], got "):
        tiny_backbone()(random_ids(4, 5), mask)


def test_smallest_and_largest_legal_inputs_run():
    with torch.no_grad():
        assert tiny_backbone()(torch.empty(2, 0, dtype=torch.long)).shape == (2, 0, 24)
        assert tiny_backbone()(torch.full((1, 64), 23)).isfinite().all()


def test_image_rows_start_with_the_angles_of_the_codebook():
    torch.manual_seed(0)
    backbone = Backbone(tiny_config(vocab_size=40, hidden_size=512, num_hidden_layers=1))
    tables = backbone.model.word_embeddings.weight, backbone.lm_head.weight
    before = [table.detach().clone() for table in tables]
    codebook = torch.nn.functional.normalize(torch.randn(16, 6, generator=generator()) + 1, dim=-1)
    start_image_rows(backbone, codebook, 20)
    centred = torch.nn.functional.normalize(codebook - codebook.mean(0), dim=-1)
    for table, old in zip(tables, before, strict=True):
        new = table.detach()
        assert torch.equal(new[:20], old[:20]) and torch.equal(new[36:], old[36:])
        rows = torch.nn.functional.normalize(new[20:36], dim=-1)
        assert torch.allclose(rows @ rows.T, centred @ centred.T, atol=0.15)
        assert float(new[20:36].norm(dim=1).mean()) == pytest.approx(
            float(old[:20].norm(dim=1).mean()), rel=0.2
        )

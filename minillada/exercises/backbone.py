"""Exercises of notebook 05, the backbone."""

from typing import Any

import torch
from torch import Tensor

from .checking import Case, Cases, Chance, exercise


@exercise("correct: this is model.RMSNorm")
def check_rms_norm(chance: Chance) -> Cases:
    """`function(x [..., H], weight [H], eps) -> [..., H]`: computed in float32, returned as `x`."""
    generator = chance.generator(5)
    of_sum = "that divides by the root of the sum of the squares; take their mean"
    centred = "RMSNorm subtracts no mean; that is LayerNorm"
    for shape, scale in (((3, 8), 1.0), ((2, 3, 8), 0.02), ((8, 8), 30.0)):
        x = scale * (torch.randn(shape, generator=generator) + 0.7)  # a mean, so that it matters
        weight, eps = torch.rand(8, generator=generator) + 0.5, 1e-3
        over_rows, over_second, power = (x.square().mean(n, keepdim=True) for n in (0, 1, -1))
        away = x - x.mean(-1, keepdim=True)
        roots = {
            of_sum: (8 * power + eps).sqrt(),
            "eps is missing: it keeps a zero vector from dividing by zero": power.sqrt(),
            "eps belongs under the root, added to the mean square": power.sqrt() + eps,
            "the mean runs over the last dimension, not over rows": (over_rows + eps).sqrt(),
            "take the eps that is given; it need not be 1e-6": (power + 1e-6).sqrt(),
            "the last dimension is -1; it is 1 only if there are two": (over_second + eps).sqrt(),
        }
        mistakes = {hint: x / root * weight for hint, root in roots.items()}
        mistakes[centred] = away / (away.square().mean(-1, keepdim=True) + eps).sqrt() * weight
        plain = x / (power + eps).sqrt()
        mistakes["the weight is missing: multiply every dimension by its own"] = plain
        yield Case((x, weight, eps), plain * weight, mistakes)

    # In float16, 300 squared is infinite. All entries are equal, so LayerNorm gives zeros.
    x, one = torch.full((1, 8), 300.0).half(), torch.ones(8).half()
    mistakes = {
        "300 squared overflows in float16: square x.float()": 0 * x,
        "float16 in, float16 out: cast back with .to(x.dtype)": torch.ones(1, 8),
        of_sum: x / 300 / 8**0.5,
        centred: 0 * x,
    }
    yield Case((x, one, 1e-6), one[None], mistakes)


def rotated(x: Tensor, angle: Tensor, neighbours: bool = False) -> Tensor:
    """`x` `[L, D]` with every pair turned by its `angle` `[L, D/2]`; pairs are i and i + D/2."""
    a, b = (x[:, ::2], x[:, 1::2]) if neighbours else x.chunk(2, dim=1)
    turned = [a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()]
    return torch.stack(turned, dim=-1).flatten(1) if neighbours else torch.cat(turned, dim=1)


@exercise("correct: this is model.apply_rotary with partial_rotary_factor 1")
def check_rotate_half(chance: Chance) -> Cases:
    """`function(x [L, D], positions [L], theta) -> [L, D]`: RoPE on all dimensions."""
    generator = chance.generator(6)
    for length, dims, theta in ((5, 8, 100.0), (3, 16, 600_000.0)):
        x = torch.randn(length, dims, generator=generator)
        positions = torch.arange(length) + 2
        share = torch.arange(dims // 2) / dims
        angle = positions[:, None] * theta ** (-2 * share)  # [L, D/2]
        from_zero = torch.arange(length)[:, None] * theta ** (-2 * share)
        slow = positions[:, None] * theta**-share
        neighbours = rotated(x, angle, neighbours=True)
        first, second = x.chunk(2, dim=1)
        early = first * angle.cos() - second * angle.sin()
        late = torch.cat([early, early * angle.sin() + second * angle.cos()], dim=1)
        twins = torch.cat([-second, first], dim=1) * angle.sin().repeat_interleave(2, dim=1)
        mistakes = {
            "the second half is turned with the old first half; keep a copy of it": late,
            "i and i + D/2 have the same angle: torch.cat([angle, angle]), not repeat_interleave": (
                x * angle.cos().repeat_interleave(2, dim=1) + twins
            ),
            "you pair neighbours 2i and 2i+1; rotate-half pairs i and i + D/2": neighbours,
            "you turn the wrong way: check the signs of the two sines": rotated(x, -angle),
            "the speed of pair i is theta ** (-2 i / D); the 2 is missing": rotated(x, slow),
            "nothing has changed; is the result returned?": x,
            "use the positions given, they need not start at 0": rotated(x, from_zero),
        }
        yield Case((x, positions, theta), rotated(x, angle), mistakes)


@exercise("correct: as many as model.Attention has")
def check_attention_parameters(chance: Chance) -> Cases:
    """`function(hidden_size, heads, kv_heads, head_dim) -> int`: all weights of the module."""
    shared, groups = chance.whole(2, 5), chance.whole(2, 4)
    random = (chance.whole(50, 400), shared * groups, shared, chance.whole(5, 30))
    for hidden, heads, kv, width in ((160, 4, 2, 32), (2048, 16, 4, 128), (96, 6, 1, 24), random):
        joint, out, norms = (heads + 2 * kv) * width * hidden, heads * width * hidden, 2 * width
        right, square = joint + out + norms, hidden**2
        norm_a_head, biases = (heads + kv) * width, (heads + 2 * kv) * width + hidden
        mistakes = {
            "4·H² is for heads of size H / heads without sharing; count each matrix": 4 * square,
            "query heads share keys and values: there are only kv_heads of those": 4 * out + norms,
            "the two QK-norms are missing: head_dim weights each": joint + out,
            "all heads share one QK-norm for queries, one for keys": joint + out + norm_a_head,
            "keys and values have a matrix each; one is missing": right - kv * width * hidden,
            "the output matrix is missing": joint + norms,
            "there are no biases": right + biases,
            "the output matrix reads all heads: it need not be square": joint + square + norms,
        }
        yield Case((hidden, heads, kv, width), right, mistakes)


@exercise("correct: chosen by s + b, weighed by s")
def check_expert_weights(chance: Chance) -> Cases:
    """`function(scores [T, E], bias [E], k) -> [T, E]`: the weight of each expert, no groups."""
    generator = chance.generator(6)
    for experts, k in ((6, 2), (8, 3), (5, 1), (4, 4)):
        scores = torch.rand(7, experts, generator=generator)
        bias = torch.rand(experts, generator=generator) - 0.5

        def weights(values: Tensor, choose_by: Tensor, k: int = k) -> Tensor:
            chosen = torch.zeros_like(values).scatter(1, choose_by.topk(k, dim=1).indices, 1.0)
            return 2.5 * values * chosen / (values * chosen).sum(1, keepdim=True)

        right, biased = weights(scores, scores + bias), weights(scores + bias, scores + bias)
        undivided, all_scores = 2.5 * scores * (right > 0), scores.sum(1, keepdim=True)
        best = (scores + bias).topk(k, dim=1).indices
        mistakes = {
            "the bias is forgotten: choose by scores + bias": weights(scores, scores),
            "the bias decides the choice only; weigh by the scores alone": biased,
            "the weights of a token must add up to 2.5": right / 2.5,
            "divide by the sum over the chosen experts": undivided,
            "divide by the sum over the chosen experts, not over all": undivided / all_scores,
            "those are the scores; experts that are not chosen get 0": scores,
            "a row has an entry for every expert, not only for the chosen": right.gather(1, best),
            "choose the largest k, not the smallest": weights(scores, -scores - bias),
        }
        yield Case((scores, bias, k), right, mistakes)


def look(query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None = None) -> Tensor:
    """Attention of one head: `[n, D]`, `[m, D]`, `[m, D]` -> `[n, D]`."""
    scores = query @ key.T / query.shape[1] ** 0.5
    if visible is not None:
        scores = scores.masked_fill(~visible, -torch.inf)
    return scores.softmax(-1) @ value


@exercise("correct: a block was forwarded, the blocks before it were only looked up")
def check_cached_block(chance: Chance) -> Cases:
    """`function(x [n, D], w_q, w_k, w_v, keys [m, D], values [m, D]) -> (out, keys, values)`.

    `x` is a new block, `keys` and `values` those of all blocks before it. `out` `[n, D]`; the new
    keys and values `[m + n, D]` are what the next block needs.
    """
    generator = chance.generator(7)
    for n, m, dims in ((3, 4, 4), (2, 6, 8), (4, 0, 4)):
        x, w_q = (torch.randn(rows, dims, generator=generator) for rows in (n, dims))
        w_k, w_v = torch.randn(2, dims, dims, generator=generator)
        old_keys, old_values = torch.randn(2, m, dims, generator=generator)
        q, k, v = x @ w_q, x @ w_k, x @ w_v
        keys, values = torch.cat([old_keys, k]), torch.cat([old_values, v])
        out = look(q, keys, values)
        left_to_right = torch.ones(n, m + n, dtype=torch.bool).tril(m)
        unscaled = (q @ keys.T).softmax(-1) @ values
        mistakes: dict[str, Any] = {
            "that is `out` alone; return the keys and values for the next block, too": out,
            "divide the scores by the root of D": (unscaled, keys, values),
            "within a block every token sees every other, later ones too": (
                look(q, keys, values, left_to_right), keys, values,
            ),
            "the block must see itself, not only what is stored": (
                look(q, old_keys, old_values), keys, values,
            ),
            "what is stored must grow by this block": (out, old_keys, old_values),
        }  # fmt: skip
        if m:  # with an empty cache the other mistakes do not show
            reverse = torch.cat([k, old_keys]), torch.cat([v, old_values])
            twice = torch.cat([old_keys @ w_k, k]), torch.cat([old_values @ w_v, v])
            mistakes |= {
                "what is stored are keys and values already: only x is multiplied": (
                    look(q, *twice), *twice,
                ),
                "the block must see the blocks before it: use the stored keys and values": (
                    look(q, k, v), keys, values,
                ),
                "the next block needs all keys and values, not only the new ones": (out, k, v),
                "old ones first: their positions come before those of the block": (
                    out, *reverse,
                ),
            }  # fmt: skip
        yield Case((x, w_q, w_k, w_v, old_keys, old_values), (out, keys, values), mistakes)

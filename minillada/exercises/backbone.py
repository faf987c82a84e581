"""exercises.backbone"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..exercises.checking import attempt, same


def check_rms_norm(function: Callable) -> bool:
    """Notebook 06: `function(x [..., H], weight [H], eps) -> [..., H]` in the dtype of `x`, computed in float32."""
    generator = torch.Generator().manual_seed(5)
    for shape, scale in (((3, 8), 1.0), ((2, 3, 8), 0.02), ((8, 8), 30.0)):
        x = scale * (torch.randn(shape, generator=generator) + 0.7)  # a mean, so that subtracting it shows
        weight, eps = torch.rand(8, generator=generator) + 0.5, 1e-3
        power = x.square().mean(-1, keepdim=True)
        centred = x - x.mean(-1, keepdim=True)
        hints = {
            "the weight is missing: multiply every dimension by its own": x / (power + eps).sqrt(),
            "that is the length (root of the sum of squares); take the mean of the squares": x / (8 * power + eps).sqrt() * weight,
            "eps is missing: it keeps a zero vector from dividing by zero": x / power.sqrt() * weight,
            "eps belongs under the root, added to the mean square": x / (power.sqrt() + eps) * weight,
            "RMSNorm subtracts no mean; that is LayerNorm": centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight,
            "the mean runs over the last dimension, one for each position": x / (x.square().mean(0, keepdim=True) + eps).sqrt() * weight,
        }
        result = attempt(function, x, weight, eps)
        if result is None or not same(result, x / (power + eps).sqrt() * weight, hints):
            return False
    x = torch.full((1, 8), 300.0, dtype=torch.float16)
    result = attempt(function, x, torch.ones(8, dtype=torch.float16), 1e-6)
    if result is None or not same(result, torch.ones(1, 8), {"300 squared overflows in float16: square x.float()": torch.zeros(1, 8)}):
        return False
    if result.dtype != torch.float16:
        print("for a float16 input the result should be float16 again: cast back with .to(x.dtype)")
        return False
    print("correct: this is model.RMSNorm")
    return True


def check_rotate_half(function: Callable) -> bool:
    """Notebook 06: `function(x [L, D], positions [L], theta) -> [L, D]`, rotate-half RoPE over all D dimensions."""
    generator = torch.Generator().manual_seed(6)
    for length, dims, theta in ((5, 8, 100.0), (3, 16, 600_000.0)):
        x, positions = torch.randn(length, dims, generator=generator), torch.arange(length) + 2

        def turn(pairs, exponent=2.0, sign=1.0, positions=positions, x=x, dims=dims, theta=theta):
            angle = sign * positions[:, None] * theta ** (-exponent * torch.arange(dims // 2) / dims)
            a, b = pairs(x)
            return a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()

        halves, neighbours = lambda x: x.chunk(2, dim=-1), lambda x: (x[:, ::2], x[:, 1::2])
        hints = {
            "you pair neighbours 2i and 2i+1; rotate-half pairs i and i + D/2": torch.stack(turn(neighbours), -1).flatten(1),
            "you turn the wrong way round: check the signs of the two sines": torch.cat(turn(halves, sign=-1.0), -1),
            "the speed of pair i is theta ** (-2 i / D); the 2 is missing": torch.cat(turn(halves, exponent=1.0), -1),
            "use the positions given, they need not start at 0": torch.cat(turn(halves, positions=torch.arange(length)), -1),
        }
        result = attempt(function, x, positions, theta)
        if result is None or not same(result, torch.cat(turn(halves), -1), hints):
            return False
    print("correct: this is model.apply_rotary with partial_rotary_factor 1")
    return True


def check_attention_parameters(function: Callable) -> bool:
    """Notebook 06: `function(hidden_size, heads, kv_heads, head_dim) -> int`, all weights of one `model.Attention`."""
    for hidden, heads, kv, width in ((160, 4, 2, 32), (2048, 16, 4, 128), (96, 6, 1, 24)):
        joint, out, norms = (heads + 2 * kv) * width * hidden, heads * width * hidden, 2 * width
        hints = {
            "every query head has its own key and value in your count; kv_heads are shared": 4 * out + norms,
            "the two QK-norms are missing: head_dim weights each": joint + out,
            "there is one QK-norm weight for queries and one for keys, shared by all heads": joint + out + (heads + kv) * width,
            "the output matrix is missing": joint + norms,
            "there are no biases": joint + out + norms + (heads + 2 * kv) * width + hidden,
            "the output matrix goes from heads * head_dim to hidden_size": joint + hidden * hidden + norms,
        }
        result = attempt(function, hidden, heads, kv, width)
        if result is None or not same(result, torch.tensor(joint + out + norms), {h: torch.tensor(n) for h, n in hints.items()}):
            return False
    print("correct: as many as model.Attention has")
    return True


def check_expert_weights(function: Callable) -> bool:
    """Notebook 06: `function(scores [T, E], bias [E], k) -> [T, E]`, the weight of each expert for each token, without groups."""
    source = torch.Generator().manual_seed(6)
    for experts, k in ((6, 2), (8, 3), (5, 1), (4, 4)):
        scores, bias = torch.rand(7, experts, generator=source), torch.rand(experts, generator=source) - 0.5

        def weigh(values, by, k=k, scale=2.5):
            chosen = torch.zeros_like(values).scatter(1, by.topk(k, dim=1).indices, 1.0)
            return scale * values * chosen / (values * chosen).sum(1, keepdim=True)

        hints = {
            "the bias is forgotten: choose by scores + bias": weigh(scores, scores),
            "the bias steers the choice only; weigh by the scores alone": weigh(scores + bias, scores + bias),
            "the weights of a token must add up to 2.5": weigh(scores, scores + bias, scale=1.0),
            "divide by the sum over the chosen experts": 2.5 * scores * (weigh(scores, scores + bias) > 0),
            "divide by the sum over the chosen experts, not over all": 2.5
            * scores
            * (weigh(scores, scores + bias) > 0)
            / scores.sum(1, keepdim=True),
            "choose the largest k, not the smallest": weigh(scores, -scores - bias),
        }
        result = attempt(function, scores, bias, k)
        if result is None or not same(result, weigh(scores, scores + bias), hints):
            return False
    print("correct: chosen by s + b, weighed by s")
    return True

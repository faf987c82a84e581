"""`check_*` functions that tell a student what is wrong with an exercise of the notebooks.

Each prints one diagnosis and returns True only for a correct answer; none raises, so a notebook with open exercises
runs from top to bottom. `tests/test_exercises.py` holds a correct and several wrong answers for every check.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from . import captions, layout, train


def attempt(function: Callable, *inputs):
    """What the student's function returns, or None after printing why it returned nothing usable."""
    try:
        result = function(*inputs)
    except NotImplementedError:
        print("not done yet: replace `raise NotImplementedError` by your code")
        return None
    except Exception as error:  # whatever a student's code does, the notebook goes on
        print(f"your function raised {type(error).__name__}: {error}")
        return None
    if result is None:
        print("your function returns None; did you forget `return`?")
    return result


def same(result, expected: Tensor, hints: dict[str, Tensor] | None = None) -> bool:
    """Compare with the right answer; print the hint whose wrong answer was given, if it is a known one."""
    try:
        result = torch.as_tensor(result)
    except (TypeError, ValueError, RuntimeError):
        print(f"numbers were expected, your function returns {type(result).__name__}")
        return False
    if result.shape != expected.shape:
        print(f"the shape should be {list(expected.shape)}, yours is {list(result.shape)}")
        return False
    if torch.allclose(result.double(), expected.double(), atol=1e-4):
        return True
    for hint, wrong in (hints or {}).items():
        if wrong.shape == result.shape and torch.allclose(result.double(), wrong.double(), atol=1e-4):
            print(hint)
            return False
    print(f"the shape is right, the values are not: expected {expected.flatten()[:4].tolist()} …, got {result.flatten()[:4].tolist()} …")
    return False


def check_sprint_commits(function: Callable) -> bool:
    """Notebook 08: `function(confidence [n], masked bool [n], steps_left, threshold) -> bool [n]`, SPRINT's commit rule."""
    generator = torch.Generator().manual_seed(8)
    for threshold, steps_left in ((0.9, 3), (0.5, 2), (1.0, 4), (0.0, 5)):
        confidence, masked = torch.rand(13, generator=generator), torch.rand(13, generator=generator) < 0.7
        masked[0], confidence[0] = False, 0.999  # the surest position is already decided
        asked = confidence.masked_fill(~masked, -1.0)
        order, above, share = asked.argsort(descending=True), asked > threshold, masked.sum() / steps_left
        up, down = (above.scatter(0, order[: int(count)], True) for count in (share.ceil(), share.floor()))
        hints = {
            "positions that are not masked are decided already; they must stay False": up | (confidence > threshold),
            "when few are sure, the most confident ones must fill up the share, or decoding may never end": above,
            "round the share up: with the floor, some positions are still masked after the last step": down,
        }
        result = attempt(function, confidence, masked, steps_left, threshold)
        if result is None or not same(result, up, hints):
            return False
    print("correct: everything sure is committed, and never less than the share that must be")
    return True


def check_margin(function: Callable) -> bool:
    """Notebook 08: `function(logits [B, n, V]) -> [B, n]`, probability of the best token minus that of the second best."""
    logits = 2 * torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(9))
    best, values = logits.softmax(-1).topk(2).values, logits.topk(2).values
    hints = {
        "that is the probability of the best token alone; subtract the second best": best[..., 0],
        "those are differences of logits; take the softmax first": values[..., 0] - values[..., 1],
    }
    result = attempt(function, logits)
    if result is None or not same(result, best[..., 0] - best[..., 1], hints):
        return False
    print("correct: a margin near 0 means the model hesitates between two tokens")
    return True


def check_wilson(function: Callable) -> bool:
    """Notebook 12: `function(successes, n) -> (low, high)`, the 95 % Wilson interval of a fraction."""
    for successes, n in ((0, 20), (7, 10), (990, 1000), (50, 50)):
        p, z = torch.tensor(successes / n), 1.96
        spread = z * (p * (1 - p) / n + z**2 / (4 * n**2)).sqrt()
        plain = z * (p * (1 - p) / n).sqrt()
        centre, shrink, ends = p + z**2 / (2 * n), 1 + z**2 / n, torch.tensor([-1.0, 1.0])
        hints = {
            "that is the textbook interval p ± z √(p(1−p)/n); its width is 0 at 0 % and 100 %": p + ends * plain,
            "the width is right, but the centre is (p + z²/2n) / (1 + z²/n), not p": p + ends * spread / shrink,
            "both ends must be divided by 1 + z²/n": centre + ends * spread,
        }
        result = attempt(function, successes, n)
        if result is None or not same(result, (centre + ends * spread) / shrink, hints):
            return False
    print("correct: it never leaves [0, 1] and is never of width 0")
    return True


def check_frechet_diagonal(function: Callable) -> bool:
    """Notebook 12: `function(mean_a, var_a, mean_b, var_b) -> float`, each `[D]`, for Gaussians with independent dimensions."""
    generator = torch.Generator().manual_seed(12)
    for size in (1, 3, 8):
        a, b = torch.randn(2, size, generator=generator)
        u, v = torch.rand(2, size, generator=generator) * 3
        means, spreads = (a - b).square().sum(), (u.sqrt() - v.sqrt()).square().sum()
        hints = {
            "compare standard deviations, not variances: take the roots first": means + (u - v).square().sum(),
            "the means are compared, the spreads are not": means,
            "the spreads are compared, the means are not": spreads,
            "no root at the end: the Fréchet distance in use is the squared one": (means + spreads).sqrt(),
        }
        result = attempt(function, a, u, b, v)
        if result is None or not same(result, means + spreads, hints):
            return False
    print("correct: without correlations it is the squared distance of means and of standard deviations")
    return True


def check_tokens_per_forward(function: Callable) -> bool:
    """Notebook 08: `function(committed bool [S, B, n]) -> [B]`, tokens a row committed per pass in which it committed any."""
    share = torch.tensor([0.9, 0.5, 0.2])[None, :, None]
    committed = torch.rand(6, 3, 8, generator=torch.Generator().manual_seed(13)) < share
    committed[2:, 0] = committed[4:, 1] = False  # the first two rows are ready early
    tokens, passes = committed.sum((0, 2)), committed.any(2).sum(0)
    hints = {
        "a row that is ready early does not use the later passes: do not divide by all of them": tokens / len(committed),
        "that is the number of tokens; divide by passes": tokens.float(),
        "that is the number of passes; you want tokens over passes": passes.float(),
    }
    result = attempt(function, committed)
    if result is None or not same(result, tokens / passes, hints):
        return False
    print("correct: that is how many tokens one look of the model is worth")
    return True


def check_bits_per_token(function: Callable) -> bool:
    """Notebook 12: `function(nats [B, L], real bool [B, L]) -> [B]`, bits per token of every sequence.

    `nats` holds −log p at every target, padding included, and 0 in the prompt; `real` marks the targets that are no padding.
    """
    position = torch.arange(12)
    real = (position >= 4) & (position < torch.tensor([12, 9, 6])[:, None])
    nats = 3 * torch.rand(3, 12, generator=torch.Generator().manual_seed(14)) * (position >= 4)
    total, count, ln2 = nats.sum(1), real.sum(1), math.log(2)
    hints = {
        "those are nats per token; a bit is ln 2 nats, so divide by ln 2": total / count,
        "a nat is more than a bit: divide by ln 2 instead of multiplying": total * ln2 / count,
        "the padding is predicted too, and its cost is part of what the sequence costs": (nats * real).sum(1) / ln2 / count,
        "divide by the tokens that carry something, not by all positions": total / ln2 / nats.shape[1],
        "those are bits per sequence; divide by its real tokens": total / ln2,
    }
    result = attempt(function, nats, real)
    if result is None or not same(result, total / ln2 / count, hints):
        return False
    print("correct: this is the unit of evaluate.likelihood")
    return True


def check_wishes(function: Callable) -> bool:
    """Notebook 00: `function() -> list[str]`, one caption of every digit, all thick and leaning left."""
    result = attempt(function)
    if result is None:
        return False
    for caption in [captions.caption(digit, thickness=1, slant=0) for digit in range(10)]:
        if not isinstance(result, list | tuple) or caption not in result:
            print(f"{caption!r} is missing; the answer is a list of ten strings, with digits as words and no full stop")
            return False
    print("correct: ten sentences the model can draw")
    return True


def check_code_count(function: Callable) -> bool:
    """Notebook 00: `function(image_size, patch_size) -> int`, how many codes a square image becomes."""
    for image_size, patch_size in ((32, 8), (32, 4), (1024, 32), (64, 64)):
        side = image_size // patch_size
        hints = {
            "that is the number of codes along one side; the grid has as many columns as rows": torch.tensor(side),
            "that is how many pixels one code stands for": torch.tensor(patch_size**2),
            "divide both sides of the image by the patch size, not only one": torch.tensor(image_size * side),
        }
        result = attempt(function, image_size, patch_size)
        if result is None or not same(result, torch.tensor(side**2), hints):
            return False
    print("correct: 16 codes for our 32-pixel digits, 1,024 for an official image of 1,024 pixels and patches of 32")
    return True


def check_slant(function: Callable) -> bool:
    """Notebook 01: `function(image [H, W]) -> degrees`, the lean of a digit from its second moments, positive to the right."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        image = F.avg_pool2d(torch.rand(1, 40, 30, generator=generator), 5, 2)[0] ** 4
        y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float) for n in image.shape), indexing="ij")
        mean = lambda v: (image * v).sum() / image.sum()  # noqa: E731, B023
        dx, dy = x - mean(x), y - mean(y)
        shear = -mean(dx * dy) / mean(dy * dy)
        hints = {
            "the sign is wrong: rows count downwards, so a digit that leans right has negative cov(x, y)": -shear.atan().rad2deg(),
            "that is the angle in radians; 180 degrees are π": shear.atan(),
            "that is the shear, the tangent of the angle; take the arc tangent, in degrees": shear,
            "divide by the variance of y, not of x: the angle is taken from vertical": (-mean(dx * dy) / mean(dx * dx)).atan().rad2deg(),
            "measure x and y from the centre of mass, not from the corner": (-mean(x * y) / mean(y * y)).atan().rad2deg(),
        }
        result = attempt(function, image)
        if result is None or not same(result, shear.atan().rad2deg(), hints):
            return False
    print("correct: it agrees with captions.slant")
    return True


def check_parse_caption(function: Callable) -> bool:
    """Notebook 01: `function(text) -> (digit, thickness, slant)` as class indices, `None` for what the caption leaves out."""
    partial = [captions.caption(7), captions.caption(8, slant=0), captions.caption(1, thickness=1), captions.caption(3, slant=1)]
    for text in captions.all_captions() + partial:
        result, expected = attempt(function, text), captions.parse(text)
        if result is None:
            return False
        if not isinstance(result, tuple | list) or len(result) != 3:
            print(f"return three values, digit, thickness and slant; yours is {result!r}")
            return False
        if tuple(result) == expected:
            continue
        print(f"for {text!r} the answer is {expected}, yours is {result}")
        if "upright" in text and tuple(result)[:2] == expected[:2]:
            print("hint: the letters of 'right' also occur in 'upright'; compare whole words")
        elif None in expected:
            print("hint: a caption may leave out thickness or slant; say None for it")
        return False
    print("correct: you can mark what a model writes")
    return True


def check_cosine_lookup(function: Callable) -> bool:
    """Notebook 02: `function(features [N, C], codebook [K, C]) -> codes [N]`, the code of largest cosine similarity."""
    generator = torch.Generator().manual_seed(2)
    features, codebook = torch.randn(60, 4, generator=generator), torch.randn(9, 4, generator=generator)
    codebook *= torch.arange(1, 10)[:, None]  # lengths differ, so forgetting to normalise shows
    cosine = F.normalize(features, dim=1) @ F.normalize(codebook, dim=1).T
    hints = {
        "a longer code wins too often: divide by the length of the codes (F.normalize)": (features @ codebook.T).argmax(1),
        "that is the nearest code by distance; lengths should not matter, only directions": torch.cdist(features, codebook).argmin(1),
        "the nearest code has the largest cosine, not the smallest": cosine.argmin(1),
        "those are the similarities; return the index of the best": cosine.max(1).values,
    }
    result = attempt(function, features, codebook)
    if result is None or not same(result, cosine.argmax(1), hints):
        return False
    print("correct: this is Codebook.forward without its gradient")
    return True


def check_perplexity(function: Callable) -> bool:
    """Notebook 02: `function(codes [N], codebook_size) -> float`, exp of the entropy of how often each code is used."""
    generator = torch.Generator().manual_seed(3)
    for size in (4, 50, 300):
        codes = (torch.rand(200, generator=generator) ** 2 * size).long()
        share = torch.bincount(codes, minlength=size) / len(codes)
        entropy = -(share * share.clamp_min(1e-12).log()).sum()
        hints = {
            "that is the entropy in nats; the perplexity is its exponential": entropy,
            "that is the entropy in bits; the perplexity is 2 to that power": entropy / torch.tensor(2.0).log(),
            "entropy and power must use one base: exp goes with the natural logarithm": (entropy / torch.tensor(2.0).log()).exp(),
            "that counts the codes in use; perplexity also asks how evenly they are used": (share > 0).float().sum(),
            "the sign is wrong: entropy is minus the sum of p log p": (-entropy).exp(),
        }
        result = attempt(function, codes, size)
        if isinstance(result, int | float | Tensor) and torch.as_tensor(result).isnan().any():
            print("the result is NaN: 0 · log 0 counts as 0, so leave unused codes out")
            return False
        if result is None or not same(result, entropy.exp(), hints):
            return False
    print("correct: as many codes as if all were used equally often")
    return True


def check_siglip(function: Callable) -> bool:
    """Notebook 02: `function(image [B, E], text [N, E], index [B], scale, bias) -> loss`, unit vectors, SigLIP's sigmoid loss."""
    generator = torch.Generator().manual_seed(4)
    image, text = (F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (5, 8))
    index, scale, bias = torch.tensor([0, 3, 3, 7, 1]), 4.0, -2.0
    cosine, sign = image @ text.T, 2 * F.one_hot(index, 8) - 1
    loss = lambda logits: -F.logsigmoid(logits).sum(1).mean()  # noqa: E731
    logits = scale * cosine + bias
    hints = {
        "a caption that does not belong to the image must be pushed away: its sign is -1": loss(logits),
        "sum over the captions, then average over the images": loss(sign * logits) / 8,
        "average over the images at the end": loss(sign * logits) * 5,
        "the bias is missing; without it nearly all pairs start out wrong": loss(sign * scale * cosine),
        "multiply the whole logit by the sign, bias included": loss(sign * scale * cosine + bias),
        "that is the softmax loss of CLIP, where captions compete; here each pair stands alone": F.cross_entropy(logits, index),
    }
    result = attempt(function, image, text, index, scale, bias)
    if result is None or not same(result, loss(sign * logits), hints):
        return False
    print("correct: this is the loss of CaptionTower")
    return True


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


def check_learning_rate(function: Callable) -> bool:
    """Notebook 07: `function(step, steps, peak, warmup, final_fraction) -> float`, linear warm-up, then cosine decay."""
    for steps, peak, warmup, final in ((40, 1.0, 8, 0.1), (25, 3e-2, 5, 0.02)):
        when = torch.arange(steps).double()
        rising = peak * (when + 1) / warmup
        decay = lambda progress, peak=peak, final=final: peak * (final + (1 - final) * 0.5 * (1 + (torch.pi * progress).cos()))  # noqa: E731
        after, late = (when - warmup) / (steps - warmup), when >= warmup
        right = torch.where(late, decay(after), rising)
        hints = {
            "the first step would learn nothing: warm up with (step + 1) / warmup": torch.where(late, decay(after), peak * when / warmup),
            "the warm-up is missing": decay(when / steps),
            "the decay begins after the warm-up: its progress counts from there": torch.where(late, decay(when / steps), rising),
            "after the warm-up the rate should fall": rising.clamp_max(peak),
            "the decay is a cosine, not a straight line": torch.where(late, peak * (1 - (1 - final) * after), rising),
            "the rate should end near final_fraction * peak, yours goes to 0": torch.where(late, decay(after, final=0.0), rising),
        }
        results = []
        for step in range(steps):
            results.append(attempt(function, step, steps, peak, warmup, final))
            if results[-1] is None:
                return False
        if not same(results, right, hints):
            return False
    print("correct: this is train.learning_rate")
    return True


def check_loss_normalisation(function: Callable) -> bool:
    """Notebook 07: `function(nats [B, L], masked [B, L], rates [B, L / block_size], targets [B, L], block_size) -> loss`."""
    generator = torch.Generator().manual_seed(7)
    for block_size in (4, 8):
        nats = 6 * torch.rand(3, 16, generator=generator)
        targets = torch.arange(16) >= torch.tensor([[5], [9], [2]])
        rates = 0.2 + 0.6 * torch.rand(3, 16 // block_size, generator=generator)
        t = rates.repeat_interleave(block_size, dim=1)
        masked = targets & (torch.rand(3, 16, generator=generator) < t)
        kept = nats * masked
        hints = {
            "the weight 1/t is missing": kept.sum() / targets.sum(),
            "that is the mean over masked tokens, without 1/t; it is not a bound on the likelihood": kept.sum() / masked.sum(),
            "1/t already makes up for visible targets: divide by all targets, not by masked ones": (kept / t).sum() / masked.sum(),
            "prompt tokens are never asked: divide by the number of targets, not by all positions": (kept / t).mean(),
            "each rate belongs to a whole block: repeat_interleave, not repeat": (kept / rates.repeat(1, block_size)).sum() / targets.sum(),
            "only masked positions count; visible ones were given away": (nats * targets / t).sum() / targets.sum(),
        }
        result = attempt(function, nats, masked, rates, targets, block_size)
        if result is None or not same(result, (kept / t).sum() / targets.sum(), hints):
            return False
    print("correct: this is the last line of diffusion.block_diffusion_loss")
    return True


def check_exact_resume(function: Callable) -> bool:
    """Notebook 07: `function(state, end) -> state`, the toy training run that must not notice an interruption.

    `state` holds `step`, `weight` `[4]`, `momentum` `[4]`; the noise of step n comes from a generator seeded with n.
    """

    def run(begin: dict, end: int, old_noise: bool, old_momentum: bool, old_rate: bool) -> dict:
        weight, momentum = begin["weight"], torch.zeros(4) if old_momentum else begin["momentum"]
        shared = torch.Generator().manual_seed(0)
        for step in range(begin["step"], end):
            noise = torch.randn(4, generator=shared if old_noise else torch.Generator().manual_seed(step))
            momentum = 0.9 * momentum + weight - noise
            weight = weight - 0.1 / (1 + step - (begin["step"] if old_rate else 0)) * momentum
        return {"step": end, "weight": weight, "momentum": momentum}

    start = {"step": 0, "weight": torch.tensor([1.0, -2.0, 0.5, 3.0]), "momentum": torch.zeros(4)}
    given = {"step": 0, "weight": start["weight"].clone(), "momentum": torch.zeros(4)}
    state = given
    for end in (4, 10):
        state = attempt(function, state, end)
        if state is None:
            return False
        if not isinstance(state, dict) or not {"step", "weight", "momentum"} <= state.keys() or state["step"] != end:
            print(f"return a dictionary with 'step' ({end} now), 'weight' and 'momentum': what the next piece needs")
            return False
    if given["step"] or not torch.equal(given["weight"], start["weight"]) or given["momentum"].any():
        print("the state you were given has changed; compute new tensors and return a new dictionary")
        return False
    slips = ("the noise of step n depends on when the run began", "the momentum is thrown away", "the learning rate starts again")
    flags = [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]
    ends = {f: run(run(start, 4, *f), 10, *f)["weight"] for f in flags}
    hints = {"; ".join(slip for slip, there in zip(slips, f, strict=True) if there): weight for f, weight in ends.items() if any(f)}
    if not same(state["weight"], ends[flags[0]], hints):
        return False
    print("correct: ten steps, stopped after four, end where ten steps in a row end")
    return True


def known_mistake(result, right: Tensor, hints: dict[str, Tensor]) -> bool:
    """Print the hint whose wrong answer was given, of whatever shape; `same` recognises those of the right shape only."""
    try:
        result = torch.as_tensor(result).double()
    except (TypeError, ValueError, RuntimeError):
        return False  # `same` says what is wrong with it
    for hint, wrong in hints.items():
        if result.shape == wrong.shape and torch.allclose(result, wrong.double()) and not torch.equal(wrong, right):
            print(hint)
            return True
    return False


def check_code_of(function: Callable) -> bool:
    """Notebook 03: `function(ids [n], offset) -> [n]`, the image code of every id, −1 where the id is text."""
    for offset, seed in ((384, 0), (157_184, 1), (10, 2)):
        others = torch.randint(2 * offset, (9,), generator=torch.Generator().manual_seed(seed))
        ids = torch.cat([torch.tensor([0, offset - 1, offset, offset + 1]), others])
        hints = {
            "the first image code is 0 and its id is the offset itself: compare with >=": torch.where(ids > offset, ids - offset, -1),
            "text ids have no code: put −1 there": ids - offset,
            "that is the other direction: from id to code the offset is subtracted": torch.where(ids >= offset, ids + offset, -1),
        }
        result = attempt(function, ids, offset)
        if result is None or not same(result, torch.where(ids >= offset, ids - offset, -1), hints):
            return False
    print("correct: one comparison and one subtraction tell text from image")
    return True


def check_image_block(function: Callable) -> bool:
    """Notebook 03: `function(vocab, codes [h, w]) -> list of ids`, header, codes in raster order, closing token."""
    vocab = train.load_vocabulary(512)
    for h, w in ((2, 3), (4, 4), (5, 1)):
        codes = torch.randint(512, (h, w), generator=torch.Generator().manual_seed(h))
        right = torch.tensor(layout.image_block(vocab, codes))
        place = (torch.arange(4, 4 + h * w),)
        hints = {
            "height comes before width": right[[0, 2, 1, *range(3, len(right))]],
            "raster order goes row by row, not column by column": right.index_put(place, right[place].view(h, w).T.flatten()),
            "the codes need the offset: use vocab.image_ids": right.index_put(place, codes.flatten()),
            "the closing token <|/image|> is missing": right[:-1],
            "<boi> is missing between the sizes and the codes": torch.cat([right[:3], right[4:]]),
        }
        result = attempt(function, vocab, codes)
        if result is None:
            return False
        if known_mistake(result, right, hints) or not same(result, right):
            return False
    print("correct: four tokens of header, the codes row by row, one token to close")
    return True


def check_targets(function: Callable) -> bool:
    """Notebook 03: `function(prompt_lengths [B], lengths [B], total) -> bool [B, total]`, what training may mask."""
    for total in (8, 48):
        generator = torch.Generator().manual_seed(total)
        prompt = torch.randint(1, total // 2, (5,), generator=generator)
        end = prompt + 1 + torch.randint(total // 2, (5,), generator=generator)
        position, right = torch.arange(total), torch.arange(total) >= prompt[:, None]
        hints = {
            "padding is a target too: the model must learn that nothing follows the end": right & (position < end[:, None]),
            "one position too late: a prompt of length P fills positions 0 to P − 1, so P is a target": position > prompt[:, None],
            "that is the prompt; the targets are the rest": ~right,
        }
        result = attempt(function, prompt, end, total)
        if result is None or not same(result, right, hints):
            return False
    print("correct: everything from the end of the prompt, the padding included")
    return True


def check_corrupt(function: Callable) -> bool:
    """Notebook 04: `function(ids [B, L], targets [B, L], rates [B], noise [B, L], mask_id) -> x_t [B, L]`."""
    generator = torch.Generator().manual_seed(4)
    ids, noise = torch.randint(9, (6, 6), generator=generator), torch.rand(6, 6, generator=generator)
    rates, targets = torch.linspace(0.2, 0.8, 6), torch.arange(6).expand(6, 6) >= 2
    hints = {
        "the prompt was masked as well; only targets may be": ids.masked_fill(noise < rates[:, None], 9),
        "a token is masked with probability t, that is when its noise is below t, not above": ids.masked_fill(targets & (noise >= rates[:, None]), 9),
        "every row has its own rate: rates[:, None] lines it up with the rows": ids.masked_fill(targets & (noise < rates), 9),
        "that masks every target; compare the noise with the rate": ids.masked_fill(targets, 9),
    }  # fmt: skip
    result = attempt(function, ids, targets, rates, noise, 9)
    if result is None or not same(result, ids.masked_fill(targets & (noise < rates[:, None]), 9), hints):
        return False
    print("correct: each target falls independently, with the probability of its row")
    return True


def check_weighted_loss(function: Callable) -> bool:
    """Notebook 04: `function(nats [B, L], masked bool [B, L], rates [B]) -> [B]`, one sample of the bound a row."""
    generator = torch.Generator().manual_seed(5)
    nats, rates = 3 * torch.rand(4, 7, generator=generator), torch.tensor([0.3, 0.5, 0.7, 0.9])
    masked = torch.rand(4, 7, generator=generator) < rates[:, None]
    total, count = (nats * masked).sum(1), masked.sum(1)
    hints = {
        "the weight 1/t is missing": total,
        "divide by the rate instead of multiplying": total * rates,
        "that is the mean over masked tokens, without 1/t: what the released trainer minimises, but no bound": total / count,
        "that is 1/t times the mean; a bound on −log p of the whole row needs the sum": total / count / rates,
        "only masked positions count: at the others the answer is in the input": nats.sum(1) / rates,
        "each row keeps its own number: sum over positions, not over rows": (total / rates).sum(),
    }
    result = attempt(function, nats, masked, rates)
    if result is None:
        return False
    if known_mistake(result, total / rates, hints) or not same(result, total / rates):
        return False
    print("correct: averaged over t and masks, this number bounds −log p(x) from above")
    return True


def check_enumerated_bound(function: Callable) -> bool:
    """Notebook 04: `function(nats_of, length) -> float`, the bound as a sum over all masks.

    `nats_of(masked bool [L]) -> [L]` gives −log p at masked positions and 0 elsewhere.
    """
    for length in (1, 2, 3, 4):
        table = 3 * torch.rand(2**length, length, generator=torch.Generator().manual_seed(length))
        table = table * torch.tensor([[bool(s >> i & 1) for i in range(length)] for s in range(2**length)])
        sizes = (table > 0).sum(1).clamp_min(1)
        choose = torch.tensor([math.comb(length, int(n)) for n in sizes])
        rows, nats_of = table.sum(1), lambda m, t=table: t[int((torch.as_tensor(m).long() * 2 ** torch.arange(len(m))).sum())]
        hints = {
            "a mask of n tokens shares the weight 1/n with all C(L, n) masks of its size: divide by both": (rows / sizes).sum(),
            "1/C(L, n) is there; the factor 1/n, which is the integral over t, is missing": (rows / choose).sum(),
            "masks of different sizes are not equally likely: the weight is 1/(n · C(L, n))": rows.mean(),
            "that adds up all masks without a weight": rows.sum(),
        }
        result = attempt(function, nats_of, length)
        if result is None or not same(result, (rows / sizes / choose).sum(), hints):
            return False
    print("correct: a sum over all masks, every one with the weight that the integral over t leaves")
    return True


def check_offset_mask(function: Callable) -> bool:
    """Notebook 05: `function(noisy [N], clean [M], block_size) -> bool [N, M]`, the mask M_OBC."""
    for length, block in ((8, 2), (12, 4), (6, 1), (9, 3)):
        noisy, clean = torch.arange(length // 3, length), torch.arange(length)
        i, j = noisy[:, None], clean[None, :]
        hints = {
            "a noisy block must not see its own clean block, that is the answer: b(i) > b(j), not >=": i // block >= j // block,
            "compare blocks, not positions: a noisy token sees no clean token of its own block": i > j,
            "the other way round: noisy tokens see earlier clean blocks": i // block < j // block,
            "that is M_BD, the rule for noisy keys": i // block == j // block,
        }
        result = attempt(function, noisy, clean, block)
        if result is None or not same(result, i // block > j // block, hints):
            return False
    print("correct: noisy block b looks at clean blocks 0 to b − 1")
    return True


def check_shared_block(function: Callable) -> bool:
    """Notebook 05: `function(prompt_length, block_size) -> (block, tokens)`: the first block that generation fills, and how
    many prompt tokens stand in it."""
    for prompt, block in ((25, 16), (37, 16), (48, 16), (5, 32), (7, 1)):
        first, inside = divmod(prompt, block)
        hints = {
            "the last prompt token may end a block exactly; the first block to fill is P // L_B": torch.tensor([(prompt - 1) // block, inside]),
            "blocks are numbered from 0 and the shared one is not skipped: P // L_B, not rounded up": torch.tensor([-(-prompt // block), inside]),
            "the second number is P % L_B, the prompt tokens in that block; you counted the free places": torch.tensor([first, block - inside]),
            "the first number is the index of the block, not its first position": torch.tensor([first * block, inside]),
        }  # fmt: skip
        result = attempt(function, prompt, block)
        if result is None or not same(result, torch.tensor([first, inside]), hints):
            return False
    print("correct: the prompt's end is in the block that generation starts with, unless P is a multiple of L_B")
    return True


def check_positions(function: Callable) -> bool:
    """Notebook 05: `function(prompt_length, length, block_size) -> [N + M]`, positions of the trimmed `[x_t ; x_0]`."""
    for prompt, length, block in ((25, 48, 16), (4, 12, 4), (3, 8, 1), (2, 8, 8)):
        start, last = prompt // block * block, length - block
        noisy, clean = torch.arange(start, length), torch.arange(last)
        hints = {
            "both halves keep the positions of the sequence; the clean half starts again at 0": torch.cat([noisy, clean + length]),
            "positions count from 0 in the sequence, also when the first noisy blocks are left out": torch.cat([noisy - start, clean]),
            "the noisy half comes first: [x_t ; x_0]": torch.cat([clean, noisy]),
            "that numbers the input from 0 to its end; equal tokens must have equal positions": torch.arange(len(noisy) + last),
            "nothing was left out: drop noisy blocks without targets and the last clean block": torch.arange(length).repeat(2),
            "the noisy half starts at the block that holds the first target, not at the target": torch.cat([torch.arange(prompt, length), clean]),
        }  # fmt: skip
        right = torch.cat([noisy, clean])
        result = attempt(function, prompt, length, block)
        if result is None:
            return False
        if known_mistake(result, right, hints) or not same(result, right):
            return False
    print("correct: two halves, the same positions, and only the blocks that a loss depends on")
    return True

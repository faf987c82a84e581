"""Every check accepts the right answer, names common mistakes, and never raises."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import checks

from minillada.datasets import captions
from minillada.datasets.mnist import DIGITS
from minillada.exercises import (
    backbone,
    block_diffusion,
    data_and_captions,
    evaluation,
    image_tokenizer,
    masked_diffusion,
    one_vocabulary,
    quickstart,
    sampling,
    training,
)
from minillada.vocab import size_token


def unfinished(*_):
    raise NotImplementedError


# check -> (right answer, wrong answers)
CASES: dict = {}


def sprint_commits(confidence, masked, steps_left, threshold, share=math.ceil):
    chosen = masked & (confidence > threshold)
    order = confidence.masked_fill(~masked, -1).argsort(descending=True)
    chosen[order[: share(int(masked.sum()) / steps_left)]] = True
    return chosen


def wilson(successes, n, z=1.96, centred=True, shrink=True):
    p = successes / n
    spread = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    divisor = 1 + z**2 / n if shrink else 1
    centre = (p + z**2 / (2 * n)) / divisor if centred else p
    return centre - spread / divisor, centre + spread / divisor


def textbook(successes, n):
    p = successes / n
    spread = 1.96 * math.sqrt(p * (1 - p) / n)
    return p - spread, p + spread


def frechet_diagonal(mean_a, var_a, mean_b, var_b):
    return float(((mean_a - mean_b) ** 2 + (var_a.sqrt() - var_b.sqrt()) ** 2).sum())


def margin(values):
    best = values.topk(2).values
    return best[..., 0] - best[..., 1]


CASES |= {
    "check_sprint_commits": (
        sprint_commits,
        [
            lambda c, m, s, t: m & (c > t),
            lambda c, m, s, t: sprint_commits(c, m, s, t, math.floor),
            lambda c, m, s, t: sprint_commits(c, torch.ones_like(m), s, t),
            lambda c, m, s, t: sprint_commits(c, m, s, t) | (c > t),
        ],
    ),
    "check_margin": (lambda x: margin(x.softmax(-1)), [margin, lambda x: x.softmax(-1).max(-1).values, lambda x: margin(x.softmax(1))]),
    "check_wilson": (
        wilson,
        [
            textbook,
            lambda k, n: wilson(k, n, centred=False),
            lambda k, n: wilson(k, n, shrink=False),
            lambda k, n: wilson(k, n, z=2.58),
            lambda k, n: k / n,
        ],
    ),
    "check_frechet_diagonal": (
        frechet_diagonal,
        [
            lambda a, u, b, v: ((a - b) ** 2).sum() + ((u - v) ** 2).sum(),
            lambda a, u, b, v: ((a - b) ** 2).sum(),
            lambda a, u, b, v: ((u.sqrt() - v.sqrt()) ** 2).sum(),
            lambda a, u, b, v: frechet_diagonal(a, u, b, v) ** 0.5,
        ],
    ),
    "check_tokens_per_forward": (
        lambda c: c.sum((0, 2)) / c.any(2).sum(0),
        [lambda c: c.sum((0, 2)) / len(c), lambda c: c.sum((0, 2)), lambda c: c.any(2).sum(0), lambda c: c.sum() / len(c)],
    ),
    "check_bits_per_token": (
        lambda nats, real: nats.sum(1) / math.log(2) / real.sum(1),
        [
            lambda nats, real: nats.sum(1) / real.sum(1),
            lambda nats, real: nats.sum(1) * math.log(2) / real.sum(1),
            lambda nats, real: (nats * real).sum(1) / math.log(2) / real.sum(1),
            lambda nats, real: nats.mean(1) / math.log(2),
            lambda nats, real: nats.sum(1) / math.log(2),
            lambda nats, real: nats.sum() / math.log(2) / real.sum(),
        ],
    ),
}


def _slant(image, sign=-1, over="y", centre=True, degrees=True):
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float) for n in image.shape), indexing="ij")
    if centre:
        x, y = x - (image * x).sum() / image.sum(), y - (image * y).sum() / image.sum()
    angle = (sign * (image * x * y).sum() / (image * (y * y if over == "y" else x * x)).sum()).atan()
    return float(angle.rad2deg() if degrees else angle)


def _parse_by_letters(text):
    slants = next((i for i, word in enumerate(("left", "right", "upright")) if word in text), None)
    return (*captions.parse(text)[:2], None if slants is None else (0, 2, 1)[slants])


def _perplexity(codes, size, result="perplexity", base=math.e):
    share = torch.bincount(codes, minlength=size) / len(codes)
    share = share[share > 0]
    entropy = -(share * share.log()).sum() / math.log(base)
    return {"perplexity": entropy.exp(), "entropy": entropy, "used": len(share)}[result]


def _siglip(image, text, index, scale, bias, wrong=-1.0, average=False):
    total = 0.0
    for i in range(len(image)):
        for j in range(len(text)):
            sign = 1.0 if j == index[i] else wrong
            total = total + math.log(1 + math.exp(-sign * (scale * float(image[i] @ text[j]) + bias)))
    return total / len(image) / (len(text) if average else 1)


def _naive_perplexity(codes, size):
    share = torch.bincount(codes, minlength=size) / len(codes)
    return (-(share * share.log()).sum()).exp()


def _wishes(digits=DIGITS, form="a thick {} leaning left"):
    return [form.format(digit) for digit in digits]


CASES |= {
    "check_wishes": (
        _wishes,
        [
            lambda: "a thick zero leaning left",
            lambda: _wishes(range(10)),
            lambda: _wishes(DIGITS[:9]),
            lambda: _wishes([*DIGITS[:9], "eight"]),
            lambda: _wishes(form="a thin {} leaning left"),
        ],
    ),
    "check_code_count": (
        lambda size, patch: (size // patch) ** 2,
        [lambda size, patch: size // patch, lambda size, patch: patch**2, lambda size, patch: size**2 // patch, lambda size, patch: 16],
    ),
    "check_slant": (
        _slant,
        [
            lambda i: _slant(i, sign=1),
            lambda i: _slant(i, over="x"),
            lambda i: _slant(i, centre=False),
            lambda i: _slant(i, degrees=False),
            lambda i: math.tan(_slant(i, degrees=False)),
            lambda i: "left",
        ],
    ),
    "check_parse_caption": (
        captions.parse,
        [_parse_by_letters, lambda t: tuple(c or 0 for c in captions.parse(t)), lambda t: captions.parse(t)[:2], lambda t: 7],
    ),
    "check_cosine_lookup": (
        lambda f, c: (F.normalize(f, dim=1) @ F.normalize(c, dim=1).T).argmax(1),
        [
            lambda f, c: (f @ c.T).argmax(1),
            lambda f, c: torch.cdist(f, c).argmin(1),
            lambda f, c: (F.normalize(f, dim=1) @ F.normalize(c, dim=1).T).argmin(1),
            lambda f, c: F.normalize(f, dim=1) @ F.normalize(c, dim=1).T,
        ],
    ),
    "check_perplexity": (
        _perplexity,
        [
            lambda c, k: _perplexity(c, k, "entropy"),
            lambda c, k: _perplexity(c, k, "used"),
            lambda c, k: _perplexity(c, k, base=2),
            _naive_perplexity,
        ],
    ),
    "check_siglip": (
        _siglip,
        [
            lambda *a: _siglip(*a, wrong=1.0),
            lambda *a: _siglip(*a, wrong=0.0),
            lambda *a: _siglip(*a, average=True),
            lambda i, t, k, s, b: _siglip(i, t, k, s, 0.0),
            lambda i, t, k, s, b: F.cross_entropy(s * i @ t.T + b, k),
        ],
    ),
}


def rms_norm(x, weight, eps, power=lambda x: x.square().mean(-1, keepdim=True), wide=torch.float32):
    x_wide = x.to(wide) if wide else x
    return (x_wide / (power(x_wide) + eps).sqrt()).to(x.dtype) * weight


def rotate_half(x, positions, theta, sign=1, exponent=2):
    half = x.shape[1] // 2
    angle = positions[:, None] * theta ** (-exponent * torch.arange(half) / x.shape[1])
    first, second = x[:, :half], x[:, half:]
    return torch.cat([first * angle.cos() - sign * second * angle.sin(), sign * first * angle.sin() + second * angle.cos()], 1)


def rotate_neighbours(x, positions, theta):
    shuffled = rotate_half(torch.cat([x[:, ::2], x[:, 1::2]], 1), positions, theta)
    return torch.stack(shuffled.chunk(2, 1), -1).flatten(1)


def warm_cosine(step, steps, peak, warmup, final, first=1):
    if step < warmup:
        return peak * (step + first) / warmup
    return peak * (final + (1 - final) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2)


def normalised(nats, masked, rates, targets, block_size, over=None, power=-1):
    weight = rates.repeat_interleave(block_size, 1) ** power
    return (nats * weight)[masked].sum() / (targets if over is None else over(masked)).sum()


def toy_run(state, end, momentum=True, rate=True, noise=True):
    weight, speed = state["weight"], state["momentum"] if momentum else torch.zeros(4)
    generator = torch.Generator().manual_seed(0)
    for n, step in enumerate(range(state["step"], end)):
        if noise:
            generator = torch.Generator().manual_seed(step)
        speed = 0.9 * speed + weight - torch.randn(4, generator=generator)
        weight = weight - 0.1 / (1 + (step if rate else n)) * speed
    return {"step": end, "weight": weight, "momentum": speed}


def toy_run_in_place(state, end):
    new = toy_run(state, end)
    state["weight"].copy_(new["weight"])
    return new


CASES |= {
    "check_rms_norm": (
        rms_norm,
        [
            lambda x, w, e: rms_norm(x, torch.ones_like(w), e),
            lambda x, w, e: rms_norm(x, w, 0.0),
            lambda x, w, e: rms_norm(x, w, e, lambda x: x.square().sum(-1, keepdim=True)),
            lambda x, w, e: rms_norm(x, w, e, lambda x: x.square().mean(0, keepdim=True)),
            lambda x, w, e: rms_norm(x, w, e, wide=None),  # overflows in float16
            lambda x, w, e: rms_norm(x.float(), w, e).float(),
            lambda x, w, e: F.layer_norm(x.float(), w.shape, w.float(), eps=e).to(x.dtype),
        ],
    ),
    "check_rotate_half": (
        rotate_half,
        [
            rotate_neighbours,
            lambda x, p, t: rotate_half(x, p, t, sign=-1),
            lambda x, p, t: rotate_half(x, p, t, exponent=1),
            lambda x, p, t: rotate_half(x, torch.arange(len(x)), t),
            lambda x, p, t: x,
        ],
    ),
    "check_attention_parameters": (
        lambda h, n, k, d: (2 * n + 2 * k) * d * h + 2 * d,
        [
            lambda h, n, k, d: 4 * n * d * h + 2 * d,
            lambda h, n, k, d: (2 * n + 2 * k) * d * h,
            lambda h, n, k, d: (n + 2 * k) * d * h + 2 * d,
            lambda h, n, k, d: (2 * n + k) * d * h + 2 * d,
            lambda h, n, k, d: (n + 2 * k) * d * h + h * h + 2 * d,
            lambda h, n, k, d: "many",
        ],
    ),
    "check_learning_rate": (
        warm_cosine,
        [
            lambda *a: warm_cosine(*a, first=0),
            lambda step, steps, peak, warmup, final: warm_cosine(step, steps, peak, warmup, 0.0),
            lambda step, steps, peak, warmup, final: warm_cosine(step, steps, peak, 0, final),
            lambda step, steps, peak, warmup, final: peak * min((step + 1) / warmup, 1),
        ],
    ),
    "check_loss_normalisation": (
        normalised,
        [
            lambda *a: normalised(*a, power=0),
            lambda *a: normalised(*a, over=lambda m: m),
            lambda *a: normalised(*a, power=0, over=lambda m: m),
            lambda *a: normalised(*a, over=torch.ones_like),
            lambda *a: normalised(*a, power=1),
            lambda nats, masked, rates, targets, block: normalised(nats, targets, rates, targets, block),
        ],
    ),
    "check_exact_resume": (
        toy_run,
        [
            lambda s, e: toy_run(s, e, momentum=False),
            lambda s, e: toy_run(s, e, rate=False),
            lambda s, e: toy_run(s, e, noise=False),
            lambda s, e: toy_run(s, e, False, False, False),
            toy_run_in_place,
            lambda s, e: toy_run(s, e)["weight"],
            lambda s, e: toy_run(s, e + 1),
        ],
    ),
}


def _image_block(vocab, codes, swap=False, columns=False, offset=True, boi=True, end=True):
    h, w = reversed(codes.shape) if swap else codes.shape
    codes = codes.T if columns else codes
    ids = vocab.image_ids(codes) if offset else codes.flatten().tolist()
    head = ["<|image|>", size_token(h), size_token(w)] + ["<boi>"] * boi
    return [i for piece in head for i in vocab.markup(piece)] + ids + (vocab.markup("<|/image|>") if end else [])


def _enumerated(nats_of, length, weight=lambda n, length: 1 / (n * math.comb(length, n))):
    masks = [torch.tensor([bool(s >> i & 1) for i in range(length)]) for s in range(1, 2**length)]
    return sum(weight(int(m.sum()), length) * float(nats_of(m).sum()) for m in masks)


def _offset(noisy, clean, block, compare=torch.gt):
    return compare(noisy[:, None] // block, clean // block)


def _positions(prompt, length, block):
    return torch.cat([torch.arange(prompt // block * block, length), torch.arange(length - block)])


CASES |= {
    "check_code_of": (
        lambda ids, offset: torch.where(ids >= offset, ids - offset, -1),
        [
            lambda ids, offset: torch.where(ids > offset, ids - offset, -1),
            lambda ids, offset: ids - offset,
            lambda ids, offset: torch.where(ids >= offset, ids + offset, -1),
            lambda ids, offset: (ids - offset).clamp_min(0),
        ],
    ),
    "check_image_block": (
        _image_block,
        [
            lambda v, c: _image_block(v, c, swap=True),
            lambda v, c: _image_block(v, c, columns=True),
            lambda v, c: _image_block(v, c, offset=False),
            lambda v, c: _image_block(v, c, boi=False),
            lambda v, c: _image_block(v, c, end=False),
            lambda v, c: v.encode("<|image|>"),
            lambda v, c: "no ids",
        ],
    ),
    "check_targets": (
        lambda p, e, n: torch.arange(n) >= p[:, None],
        [
            lambda p, e, n: (torch.arange(n) >= p[:, None]) & (torch.arange(n) < e[:, None]),
            lambda p, e, n: torch.arange(n) > p[:, None],
            lambda p, e, n: torch.arange(n) < p[:, None],
            lambda p, e, n: torch.arange(n) >= p[0],
        ],
    ),
    "check_corrupt": (
        lambda x, targets, t, noise, mask: torch.where(targets & (noise < t[:, None]), mask, x),
        [
            lambda x, targets, t, noise, mask: torch.where(noise < t[:, None], mask, x),
            lambda x, targets, t, noise, mask: torch.where(targets & (noise > t[:, None]), mask, x),
            lambda x, targets, t, noise, mask: torch.where(targets & (noise < t), mask, x),
            lambda x, targets, t, noise, mask: torch.where(targets, mask, x),
            lambda x, targets, t, noise, mask: x,
        ],
    ),
    "check_weighted_loss": (
        lambda nats, masked, t: (nats * masked).sum(1) / t,
        [
            lambda nats, masked, t: (nats * masked).sum(1),
            lambda nats, masked, t: (nats * masked).sum(1) * t,
            lambda nats, masked, t: (nats * masked).sum(1) / masked.sum(1),
            lambda nats, masked, t: (nats * masked).sum(1) / masked.sum(1) / t,
            lambda nats, masked, t: nats.sum(1) / t,
            lambda nats, masked, t: ((nats * masked).sum(1) / t).sum(),
            lambda nats, masked, t: nats * masked / t[:, None],
        ],
    ),
    "check_enumerated_bound": (
        _enumerated,
        [
            lambda f, n: _enumerated(f, n, lambda k, m: 1 / k),
            lambda f, n: _enumerated(f, n, lambda k, m: 1 / math.comb(m, k)),
            lambda f, n: _enumerated(f, n, lambda k, m: 1 / 2**m),
            lambda f, n: _enumerated(f, n, lambda k, m: 1),
            lambda f, n: 0.0,
        ],
    ),
    "check_offset_mask": (
        _offset,
        [
            lambda i, j, b: _offset(i, j, b, torch.ge),
            lambda i, j, b: _offset(i, j, b, torch.lt),
            lambda i, j, b: _offset(i, j, b, torch.eq),
            lambda i, j, b: _offset(i, j, b).T,
            lambda i, j, b: i[:, None] > j,
            lambda i, j, b: 3,
        ],
    ),
    "check_shared_block": (
        divmod,
        [
            lambda p, b: ((p - 1) // b, p % b),
            lambda p, b: (-(-p // b), p % b),
            lambda p, b: (p // b, b - p % b),
            lambda p, b: (p // b * b, p % b),
            lambda p, b: p // b,
        ],
    ),
    "check_positions": (
        _positions,
        [
            lambda p, n, b: torch.arange(n).repeat(2),
            lambda p, n, b: torch.arange(len(_positions(p, n, b))),
            lambda p, n, b: torch.cat([torch.arange(n - p // b * b), torch.arange(n - b)]),
            lambda p, n, b: torch.cat([torch.arange(n - b), torch.arange(p // b * b, n)]),
            lambda p, n, b: torch.cat([torch.arange(p // b * b, n), n + torch.arange(n - b)]),
            lambda p, n, b: torch.cat([torch.arange(p, n), torch.arange(n - b)]),
        ],
    ),
}


exercises = checks(quickstart, data_and_captions, image_tokenizer, one_vocabulary, masked_diffusion, block_diffusion, backbone, training, sampling, evaluation)

@pytest.mark.parametrize("name", sorted(CASES))
def test_check_tells_right_from_wrong(name, capsys):
    check, (right, wrong) = getattr(exercises, name), CASES[name]
    assert check(right), capsys.readouterr().out
    for answer in [*wrong, unfinished, lambda *_: None]:
        capsys.readouterr()
        assert not check(answer)
        assert capsys.readouterr().out.strip(), "a wrong answer deserves a sentence"


def test_every_check_has_cases():
    assert set(CASES) <= {n for n in dir(exercises) if n.startswith("check_")}

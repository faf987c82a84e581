"""Every check accepts the right answer, gives each mistake its own hint, and gives nothing away."""

import colorsys
import importlib
import itertools
import json
import math
import pkgutil
import re

import numpy
import pytest
import torch
import torch.nn.functional as F

from minillada import exercises, flow, layout
from minillada.datasets import captions
from minillada.datasets.mnist import DIGITS
from minillada.exercises.checking import (
    Exercise,
    Outcome,
    diagnosis,
    difference,
    outcomes_of,
)
from minillada.masks import block_diffusion_mask
from minillada.tasks.numbers import counting_trace
from minillada.vocab import size_token

MODULES = [
    importlib.import_module(f"{exercises.__name__}.{module.name}")
    for module in pkgutil.iter_modules(exercises.__path__)
]
CHECKS = {
    name: check
    for module in MODULES
    for name, check in vars(module).items()
    if isinstance(check, Exercise)
}

# check -> (right answer, {part of the diagnosis: wrong answer})
ANSWERS: dict = {}


# 00 quickstart


def wishes(digits=DIGITS, form="a thick {} leaning left"):
    return [form.format(digit) for digit in digits]


ANSWERS |= {
    "check_wishes": (
        lambda: wishes()[::-1],
        {
            "type str, a list of 10 was expected": lambda: "a thick zero leaning left",
            "write the digits as words": lambda: wishes(range(10)),
            "nine is a digit": lambda: wishes(DIGITS[:9]),
            "zero is a digit": lambda: wishes(DIGITS[1:]),
            "that is thin": lambda: wishes(form="a thin {} leaning left"),
            "no full stop": lambda: wishes(form="a thick {} leaning left."),
            "ten is no digit": lambda: wishes([*DIGITS, "ten"]),
            "'a thick zero leaning left' is there twice": lambda: 2 * wishes(),
        },
    ),
    "check_code_count": (
        lambda size, patch: (size // patch) ** 2,
        {
            "that is one side": lambda size, patch: size // patch,
            "how many pixels": lambda size, patch: patch**2,
            "not only one": lambda size, patch: size**2 // patch,
            "for our digits": lambda size, patch: 16,
        },
    ),
}


# 01 data and captions


def slant(image, sign=-1, over="y", centre="mass", degrees=True):
    y, x = torch.meshgrid(*(torch.arange(float(n)) for n in image.shape), indexing="ij")
    if centre == "mass":
        x, y = x - (image * x).sum() / image.sum(), y - (image * y).sum() / image.sum()
    if centre == "image":
        x, y = x - x.mean(), y - y.mean()
    spread = (image * (y * y if over == "y" else x * x)).sum()
    angle = (sign * (image * x * y).sum() / spread).atan()
    return float(angle.rad2deg() if degrees else angle)


def parse(text, whole=True, absent=None):
    words = text.split()

    def find(options):
        for number, option in enumerate(options):
            if all(word in words for word in option.split()) if whole else option in text:
                return number
        return absent

    return find(DIGITS), find(captions.THICKNESS_WORDS), find(captions.SLANT_WORDS)


def parse_by_letters(text):
    numbers = {"left": 0, "right": 2, "upright": 1}
    return (*captions.parse(text)[:2], next((n for w, n in numbers.items() if w in text), None))


ANSWERS |= {
    "check_slant": (
        slant,
        {
            "the sign is wrong": lambda i: slant(i, sign=1),
            "variance of y": lambda i: slant(i, over="x"),
            "not from the corner": lambda i: slant(i, centre="corner"),
            "the middle of the image": lambda i: slant(i, centre="image"),
            "in radians": lambda i: slant(i, degrees=False),
            "the tangent": lambda i: math.tan(slant(i, degrees=False)),
            "weigh each with its ink": lambda i: slant(torch.ones_like(i)),
        },
    ),
    "check_parse_caption": (
        parse,
        {
            "'upright' holds the letters": parse_by_letters,
            "'fourteen' holds the letters of 'four'": lambda t: parse(t, whole=False),
            "None, not 0": lambda t: parse(t, absent=0),
            "None, not -1": lambda t: parse(t, absent=-1),
            "compare with None": lambda t: tuple(number or None for number in parse(t)),
            "the slant is missing": lambda t: parse(t)[:2],
            "the digit alone": lambda t: parse(t)[0],
        },
    ),
}


# 02 image tokenizer


def squared(f, c, sign=-2):
    return f.square().sum(1)[:, None] + sign * f @ c.T + c.square().sum(1)


def pair_counts(codes, labels, size):
    return F.one_hot(codes, size).float().T @ F.one_hot(labels, 10).float()


def bits_of(counts):
    return sum(-float(n / counts.sum() * (n / counts.sum()).log2()) for n in counts[counts > 0])


def shared_bits(codes, labels, size):
    table = pair_counts(codes, labels, size)
    return bits_of(table.sum(1)) + bits_of(table.sum(0)) - bits_of(table)


def shared_with_nan(codes, labels, size):
    p = pair_counts(codes, labels, size) / len(codes)
    return (p * (p / (p.sum(1, keepdim=True) * p.sum(0))).log2()).sum()


def clip_by_caption(image, text, index, scale, unused=False, total=False):
    logits, found = scale * image @ text.T, []
    for caption in range(len(text)):
        own = [
            float(logits[:, caption].log_softmax(0)[i])
            for i in range(len(image))
            if index[i] == caption
        ]
        if own or unused:
            found.append(sum(own) / (1 if total else max(len(own), 1)))
    return -sum(found) / len(found)


def clip_by_image(image, text, index, scale):
    return float(F.cross_entropy(scale * image @ text.T, index))


def clip(*inputs, **how):
    return (clip_by_image(*inputs) + clip_by_caption(*inputs, **how)) / 2


def clip_of_pairs(image, text, index, scale):
    pairs = F.cross_entropy(scale * text[index] @ image.T, torch.arange(len(image)))
    return (clip_by_image(image, text, index, scale) + float(pairs)) / 2


def clip_of_sums(image, text, index, scale):
    p = (scale * image @ text.T).softmax(0)
    sums = [float(p[index == caption, caption].sum().log()) for caption in index.unique()]
    return (clip_by_image(image, text, index, scale) - sum(sums) / len(sums)) / 2


def pairs_alone(image, text, index, scale):
    sign = torch.full((len(image), len(text)), -1.0)
    sign[torch.arange(len(image)), index] = 1.0
    return (1 + (-sign * scale * (image @ text.T)).exp()).log().sum() / len(image)


ANSWERS |= {
    "check_squared_distances": (
        squared,
        {
            "leave the root out": torch.cdist,
            "with a minus": lambda f, c: squared(f, c, sign=2),
            "counts twice": lambda f, c: squared(f, c, sign=-1),
            "of the feature is missing": lambda f, c: squared(0 * f, c) - 2 * f @ c.T,
            "of the code is missing": lambda f, c: squared(f, 0 * c) - 2 * f @ c.T,
            "a mean divides": lambda f, c: squared(f, c) / f.shape[1],
            "columns are codes": lambda f, c: squared(c, f),
            "return all distances": lambda f, c: squared(f, c).argmin(1),
            "that is the cosine": lambda f, c: F.normalize(f, dim=1) @ F.normalize(c, dim=1).T,
        },
    ),
    "check_shared_bits": (
        shared_bits,
        {
            "in nats": lambda c, d, k: shared_bits(c, d, k) * math.log(2),
            "of the digits alone": lambda c, d, k: bits_of(d.bincount()),
            "of the codes alone": lambda c, d, k: bits_of(c.bincount()),
            "both together": lambda c, d, k: bits_of(pair_counts(c, d, k)),
            "H(digit | code)": lambda c, d, k: bits_of(d.bincount()) - shared_bits(c, d, k),
            "H(code | digit)": lambda c, d, k: bits_of(c.bincount()) - shared_bits(c, d, k),
            "the sign is wrong": lambda c, d, k: -shared_bits(c, d, k),
            "NaN": shared_with_nan,
            "do not divide": lambda c, d, k: shared_bits(c, d, k) / bits_of(d.bincount()),
            "more than 512 codes": lambda c, d, k: (
                bits_of(c.bincount()) + bits_of(d.bincount()) - bits_of((512 * d + c).bincount())
            ),
        },
    ),
    "check_clip": (
        clip,
        {
            "images compete for each": clip_by_image,
            "captions compete for each": clip_by_caption,
            "not their sum": lambda *a: 2 * clip(*a),
            "a caption counts once": clip_of_pairs,
            "leave them out": lambda *a: clip(*a, unused=True),
            "take the mean, not the sum": lambda *a: clip(*a, total=True),
            "the scale is missing": lambda i, t, k, s: clip(i, t, k, 1.0),
            "not −log of the summed p": clip_of_sums,
            "its copies count as wrong": lambda i, t, k, s: clip(i, t[k], torch.arange(len(i)), s),
            "SigLIP's loss": pairs_alone,
        },
    ),
}


# 03 one vocabulary


def read_image(vocab, ids, shift=1, largest=16, view=torch.Tensor.view):
    begin = ids.index(vocab.markup("<boi>")[0])
    sizes = {vocab.markup(size_token(n))[0]: n for n in range(1, largest + 1)}
    height, width = sizes[ids[begin - 2]], sizes[ids[begin - 1]]
    found = torch.tensor(ids[begin + shift :][: height * width]) - vocab.image_token_offset
    return view(found, height, width)


ANSWERS |= {
    "check_code_of": (
        lambda ids, offset: torch.where(ids >= offset, ids - offset, -1),
        {
            "compare with >=": lambda ids, offset: torch.where(ids > offset, ids - offset, -1),
            "put −1 there": lambda ids, offset: ids - offset,
            "the other direction": lambda i, offset: torch.where(i >= offset, i + offset, -1),
            "text has none": lambda ids, offset: (ids - offset).clamp_min(0),
            "a remainder": lambda ids, offset: torch.where(ids >= offset, ids % offset, -1),
            "those are ids": lambda ids, offset: torch.where(ids >= offset, ids, -1),
        },
    ),
    "check_read_image": (
        read_image,
        {
            "the first size is the height": lambda v, ids: read_image(
                v, ids, view=lambda codes, h, w: codes.view(w, h)
            ),
            "row by row": lambda v, ids: read_image(
                v, ids, view=lambda codes, h, w: codes.view(w, h).T
            ),
            "use vocab.codes": lambda v, ids: read_image(v, ids) + v.image_token_offset,
            ".view(height, width)": lambda v, ids: read_image(v, ids).flatten(),
            "right behind <boi>": lambda v, ids: read_image(v, ids, shift=2),
            "some ids are not image codes": lambda v, ids: v.codes(
                torch.tensor(ids[15:][: read_image(v, ids).numel()])  # where it stood before
            ).view(read_image(v, ids).shape),
            "KeyError: 24": lambda v, ids: read_image(v, ids, largest=15),
        },
    ),
    "check_targets": (
        lambda p, e, n: torch.arange(n) >= p[:, None],
        {
            "padding is a target": lambda p, e, n: (
                (torch.arange(n) >= p[:, None]) & (torch.arange(n) < e[:, None])
            ),
            "ends at P − 1": lambda p, e, n: torch.arange(n) > p[:, None],
            "that is the prompt": lambda p, e, n: torch.arange(n) < p[:, None],
            "a prompt length of its own": lambda p, e, n: torch.arange(n) >= p[0],
        },
    ),
}


# 04 masked diffusion


def texts_in_groups(joint, groups, look=True):
    """`{text: probability}`, one text and one place at a time."""
    found = {}
    for text in itertools.product(range(3), repeat=joint.ndim):
        probability, known = 1.0, {}
        for group in groups:
            for place in group:
                condition = known if look else {}
                seen = [condition.get(i, slice(None)) for i in range(joint.ndim)]
                here = [
                    {**condition, place: text[place]}.get(i, slice(None)) for i in range(joint.ndim)
                ]
                probability *= float(joint[tuple(here)].sum() / joint[tuple(seen)].sum())
            known |= {place: text[place] for place in group}
        found[text] = probability
    return found


def price(joint, groups, look=True, log=math.log):
    q = texts_in_groups(joint, groups, look)
    return sum(float(joint[text]) * log(float(joint[text]) / q[text]) for text in q)


def price_backwards(joint, groups):
    q = texts_in_groups(joint, groups)
    return sum(q[text] * math.log(q[text] / float(joint[text])) for text in q)


def price_of_a_text(joint, groups):
    q = texts_in_groups(joint, groups)
    return sum(math.log(float(joint[text]) / q[text]) for text in q) / len(q)


def world_nats(joint):
    return -float((joint * joint.log()).sum())


def masked_sum(nats, masked):
    return (nats * masked).sum(1)


ANSWERS |= {
    "check_corrupt": (
        lambda x, targets, t, noise, mask: torch.where(targets & (noise < t[:, None]), mask, x),
        {
            "the prompt was masked": lambda x, targets, t, noise, mask: torch.where(
                noise < t[:, None], mask, x
            ),
            "below the rate, not above": lambda x, targets, t, noise, mask: torch.where(
                targets & (noise > t[:, None]), mask, x
            ),
            "rates belong to rows": lambda x, targets, t, noise, mask: torch.where(
                targets & (noise < t), mask, x
            ),
            "not <=": lambda x, targets, t, noise, mask: torch.where(
                targets & (noise <= t[:, None]), mask, x
            ),
            "masks every target": lambda x, targets, t, noise, mask: torch.where(targets, mask, x),
            "nothing has changed": lambda x, targets, t, noise, mask: x,
        },
    ),
    "check_weighted_loss": (
        lambda nats, m, t: masked_sum(nats, m) / t,
        {
            "the weight 1/t is missing": lambda nats, m, t: masked_sum(nats, m),
            "instead of multiplying": lambda nats, m, t: masked_sum(nats, m) * t,
            "mean over masked tokens": lambda nats, m, t: masked_sum(nats, m) / m.sum(1),
            "1/t times the mean": lambda nats, m, t: masked_sum(nats, m) / m.sum(1) / t,
            "number of masks": lambda nats, m, t: masked_sum(nats, m) / m.sum(1) * m.shape[1],
            "do not divide by L": lambda nats, m, t: (nats * m).mean(1) / t,
            "only masked positions": lambda nats, m, t: nats.sum(1) / t,
            "each row sums its own": lambda nats, m, t: nats[m].sum() / t,
            "each row keeps": lambda nats, m, t: (masked_sum(nats, m) / t).sum(),
            "one number for each row": lambda nats, m, t: nats * m / t[:, None],
        },
    ),
    "check_price": (
        price,
        {
            "condition on them": lambda p, g: price(p, g, look=False),
            "in bits": lambda p, g: price(p, g, log=math.log2),
            "the other way round": price_backwards,
            "the plain mean": price_of_a_text,
            "that is the cross-entropy": lambda p, g: price(p, g) + world_nats(p),
            "the entropy of p, whatever": lambda p, g: world_nats(p),
            "can only cost": lambda p, g: -price(p, g),
            "one by one": lambda p, g: 0.0,
        },
    ),
}


# 06 block diffusion and 14 objectives, views and packing


def offset_mask(noisy, clean, block, compare=torch.gt):
    return compare(noisy[:, None] // block, clean // block)


def positions(prompt, length, block):
    return torch.cat([torch.arange(prompt // block * block, length), torch.arange(length - block)])


def two(first, second):
    return torch.cat([torch.arange(*first), torch.arange(*second)])


def views_mask(
    length,
    size,
    views,
    among=False,
    own=False,
    past=False,
    clean_noisy=False,
    clean_clean=True,
    itself=True,
):
    """A double loop over places (copy, block); the clean copy is None."""
    places = [(view, k // size) for view in [*range(views), None] for k in range(length)]
    mask = torch.zeros(len(places), len(places), dtype=torch.bool)
    for q, (view, i) in enumerate(places):
        for k, (other, j) in enumerate(places):
            if view is None and other is None:
                mask[q, k] = (itself and i == j) or (clean_clean and i > j)
            elif view is None:
                mask[q, k] = clean_noisy and i == j
            elif other is None:
                mask[q, k] = i > j or (own and i == j)
            else:
                mask[q, k] = (among or view == other) and (i == j or (past and i > j))
    return mask


def reweighted(nats, masked, power=-0.5, mean=True):
    terms = []
    for row, asked in zip(nats, masked):
        n = int(asked.sum())
        terms.append((n**power, float(row[asked].sum()) / (n if mean else 1)))
    return sum(beta * value for beta, value in terms) / sum(beta for beta, _ in terms)


ANSWERS |= {
    "check_offset_mask": (
        offset_mask,
        {
            ">, not >=": lambda i, j, b: offset_mask(i, j, b, torch.ge),
            "the other way round": lambda i, j, b: offset_mask(i, j, b, torch.lt),
            "that is M_BD": lambda i, j, b: offset_mask(i, j, b, torch.eq),
            "compare blocks": lambda i, j, b: i[:, None] > j,
            "queries are rows": lambda i, j, b: offset_mask(i, j, b).T,
            "use the positions that are given": lambda i, j, b: offset_mask(
                torch.arange(len(i)), torch.arange(len(j)), b
            ),
        },
    ),
    "check_shared_block": (
        divmod,
        {
            "a prompt may end where": lambda p, b: ((p - 1) // b, p % b),
            "blocks count from 0": lambda p, b: (-(-p // b), p % b),
            "the free places": lambda p, b: (p // b, b - p % b),
            "not its first position": lambda p, b: (p // b * b, p % b),
            "that is the block alone": lambda p, b: p // b,
        },
    ),
    "check_positions": (
        positions,
        {
            "leave out": lambda p, n, b: two((n,), (n,)),
            "nobody reads the last": lambda p, n, b: two((p // b * b, n), (n,)),
            "of the prompt alone": lambda p, n, b: two((n,), (n - b,)),
            "the input is one row": lambda p, n, b: (range(p // b * b, n), range(n - b)),
            "you go on counting": lambda p, n, b: torch.arange(len(positions(p, n, b))),
            "positions count from": lambda p, n, b: two((n - p // b * b,), (n - b,)),
            "noisy half comes first": lambda p, n, b: two((n - b,), (p // b * b, n)),
            "the clean half keeps": lambda p, n, b: two((p // b * b, n), (n, n + n - b)),
            "where the block of the first": lambda p, n, b: two((p, n), (n - b,)),
        },
    ),
    "check_views_mask": (
        views_mask,
        {
            "views must not see each other": lambda *a: views_mask(*a, among=True),
            "the clean copy sees no view": lambda *a: views_mask(*a, clean_noisy=True),
            "its own clean block": lambda *a: views_mask(*a, own=True),
            "the clean copy sees its own": lambda *a: views_mask(*a, clean_clean=False),
            "queries are rows": lambda *a: views_mask(*a).T,
            "the clean copy comes last": lambda n, *a: views_mask(n, *a).roll((n, n), (0, 1)),
            "the shape should be": lambda n, b, k: views_mask(n, b, k + 1),
            "not that it is hidden": lambda *a: ~views_mask(*a),
            "not in itself": lambda *a: views_mask(*a, past=True),
            "its own block, too": lambda *a: views_mask(*a, itself=False),
        },
    ),
    "check_reweighted": (
        reweighted,
        {
            "the mean over all": lambda nats, masked: nats[masked].mean(),
            "weighs all samples alike": lambda nats, masked: reweighted(nats, masked, 0),
            "take the root": lambda nats, masked: reweighted(nats, masked, -1),
            "that has β_j = √n_j": lambda nats, masked: reweighted(nats, masked, 0.5),
            "not their sum": lambda nats, masked: reweighted(nats, masked, mean=False),
            "the mean over all positions": lambda nats, masked: nats.mean(),
            "divide by Σ β_j, too": lambda nats, masked: (
                reweighted(nats, masked) * (masked.sum(1) ** -0.5).sum()
            ),
        },
    ),
}


# 05 backbone


def rms_norm(x, weight, eps, wide=True, power=lambda x: x.square().mean(-1, keepdim=True)):
    values = x.float() if wide else x
    return (values / (power(values) + eps).sqrt()).to(x.dtype) * weight


def rotate_half(x, positions, theta, sign=1, exponent=2):
    half = x.shape[1] // 2
    angle = positions[:, None] * theta ** (-exponent * torch.arange(half) / x.shape[1])
    cos, sin = angle.cos(), sign * angle.sin()
    return torch.cat(
        [x[:, :half] * cos - x[:, half:] * sin, x[:, :half] * sin + x[:, half:] * cos], 1
    )


def rotate_in_place(x, positions, theta):
    x, half = x.clone(), x.shape[1] // 2
    angle = positions[:, None] * theta ** (-2 * torch.arange(half) / x.shape[1])
    x[:, :half] = x[:, :half] * angle.cos() - x[:, half:] * angle.sin()
    x[:, half:] = x[:, :half] * angle.sin() + x[:, half:] * angle.cos()
    return x


def rotate_with_twins(x, positions, theta):
    angle = positions[:, None] * theta ** (-2 * (torch.arange(x.shape[1]) // 2) / x.shape[1])
    first, second = x.chunk(2, dim=1)
    return x * angle.cos() + torch.cat([-second, first], 1) * angle.sin()


def rotate_neighbours(x, positions, theta):
    shuffled = rotate_half(torch.cat([x[:, ::2], x[:, 1::2]], 1), positions, theta)
    return torch.stack(shuffled.chunk(2, 1), -1).flatten(1)


def expert_weights(scores, bias, k, biased=False, scale=2.5, by=None):
    out = torch.zeros_like(scores)
    for t, row in enumerate(scores):
        best = (row + bias if by is None else by[t]).argsort(descending=True)[:k]
        values = (row + bias if biased else row)[best]
        out[t, best] = scale * values / values.sum()
    return out


ANSWERS |= {
    "check_rms_norm": (
        rms_norm,
        {
            "the weight is missing": lambda x, w, e: rms_norm(x, torch.ones_like(w), e),
            "eps is missing": lambda x, w, e: rms_norm(x, w, 0.0),
            "root of the sum": lambda x, w, e: rms_norm(
                x, w, e, power=lambda x: x.square().sum(-1, keepdim=True)
            ),
            "over the last dimension": lambda x, w, e: rms_norm(
                x, w, e, power=lambda x: x.square().mean(0, keepdim=True)
            ),
            "the last dimension is -1": lambda x, w, e: rms_norm(
                x, w, e, power=lambda x: x.square().mean(1, keepdim=True)
            ),
            "take the eps that is given": lambda x, w, e: rms_norm(x, w, 1e-6),
            "300 squared overflows": lambda x, w, e: rms_norm(x, w, e, wide=False),
            "cast back": lambda x, w, e: rms_norm(x.float(), w, e).float(),
            "that is LayerNorm": lambda x, w, e: F.layer_norm(
                x.float(), w.shape, w.float(), eps=e
            ).to(x.dtype),
        },
    ),
    "check_rotate_half": (
        rotate_half,
        {
            "you pair neighbours": rotate_neighbours,
            "the wrong way": lambda x, p, t: rotate_half(x, p, t, sign=-1),
            "the 2 is missing": lambda x, p, t: rotate_half(x, p, t, exponent=1),
            "use the positions given": lambda x, p, t: rotate_half(x, torch.arange(len(x)), t),
            "nothing has changed": lambda x, p, t: x,
            "with the old first half": rotate_in_place,
            "not repeat_interleave": rotate_with_twins,
        },
    ),
    "check_attention_parameters": (
        lambda h, n, k, d: (2 * n + 2 * k) * d * h + 2 * d,
        {
            "4·H²": lambda h, n, k, d: 4 * h**2,
            "share keys and values": lambda h, n, k, d: 4 * n * d * h + 2 * d,
            "QK-norms are missing": lambda h, n, k, d: (2 * n + 2 * k) * d * h,
            "output matrix is missing": lambda h, n, k, d: (n + 2 * k) * d * h + 2 * d,
            "it need not be square": lambda h, n, k, d: (n + 2 * k) * d * h + h * h + 2 * d,
            "one is missing": lambda h, n, k, d: (2 * n + k) * d * h + 2 * d,
        },
    ),
    "check_expert_weights": (
        expert_weights,
        {
            "the bias is forgotten": lambda s, b, k: expert_weights(s, b, k, by=s),
            "weigh by the scores alone": lambda s, b, k: expert_weights(s, b, k, biased=True),
            "add up to 2.5": lambda s, b, k: expert_weights(s, b, k, scale=1.0),
            "not the smallest": lambda s, b, k: expert_weights(s, b, k, by=-s - b),
            "those are the scores": lambda s, b, k: s,
            "an entry for every expert": lambda s, b, k: expert_weights(s, b, k).gather(
                1, (s + b).topk(k).indices
            ),
        },
    ),
}


# 07 training


def warm_cosine(step, steps, peak, warmup, final, first=1, begin=0, last=None):
    if step < warmup:
        return peak * (step + first) / warmup
    begun, whole = step - warmup + begin, (last or steps) - warmup + begin
    share = (1 + math.cos(math.pi * begun / whole)) / 2
    return peak * (final + (1 - final) * share)


def normalised(nats, masked, rates, targets, size, over=None, power=-1):
    weight = rates.repeat_interleave(size, 1) ** power
    return (nats * weight)[masked].sum() / (targets if over is None else over).sum()


def toy_run(state, end, momentum=True, rate=True, noise="step", new=True):
    weight, speed = state["weight"], state["momentum"] if momentum else torch.zeros(4)
    generator = torch.Generator().manual_seed(state["step"] if noise == "begin" else 0)
    for n, step in enumerate(range(state["step"], end)):
        if noise in ("step", "again"):
            generator = torch.Generator().manual_seed(step if noise == "step" else n)
        old, speed = speed, 0.9 * speed + weight - torch.randn(4, generator=generator)
        weight = weight - 0.1 / (1 + (step if rate else n)) * (speed if new else old)
    return {"step": end, "weight": weight, "momentum": speed}


def toy_run_in_place(state, end):
    new = toy_run(state, end)
    state["weight"].copy_(new["weight"])
    return new


ANSWERS |= {
    "check_learning_rate": (
        warm_cosine,
        {
            "the first step would learn nothing": lambda *a: warm_cosine(*a, first=0),
            "yours is 0": lambda n, of, peak, w, final: warm_cosine(n, of, peak, w, 0.0),
            "the warm-up is missing": lambda n, of, peak, w, f: warm_cosine(n, of, peak, 0, f),
            "the rate should fall": lambda n, of, peak, w, f: peak * min((n + 1) / w, 1),
            "one after the last": lambda *a: warm_cosine(*a, last=a[1] - 1),
            "the cosine begins there": lambda *a: warm_cosine(*a, begin=1),
            "the peak already": lambda n, of, peak, w, f: (
                peak * (n + 1) / (w + 1) if n < w else warm_cosine(n, of, peak, w, f)
            ),
            "a share of the peak": lambda n, of, peak, w, f: warm_cosine(n, of, peak, w, f / peak),
            "and is cut off": lambda n, of, peak, w, f: max(
                warm_cosine(n, of, peak, w, 0.0), f * peak * (n >= w)
            ),
        },
    ),
    "check_loss_normalisation": (
        normalised,
        {
            "the weight 1/t is missing": lambda *a: normalised(*a, power=0),
            "divide by all targets": lambda *a: normalised(*a, over=a[1]),
            "the mean over masked": lambda *a: normalised(*a, power=0, over=a[1]),
            "prompt tokens": lambda *a: normalised(*a, over=torch.ones_like(a[1])),
            "divide by the rate": lambda *a: normalised(*a, power=1),
            "repeat_interleave": lambda nats, m, r, t, s: (
                (nats * m / r.repeat(1, s)).sum() / t.sum()
            ),
            "only masked positions": lambda nats, m, r, t, s: normalised(nats, t, r, t, s),
            "one loss a sequence": lambda *a: sum(
                normalised(*(part[i : i + 1] for part in a[:4]), a[4]) / 3 for i in range(3)
            ),
            "the sum of the weights": lambda nats, m, r, t, s: (
                normalised(nats, m, r, t, s) / normalised(torch.ones_like(nats), m, r, t, s)
            ),
        },
    ),
    "check_exact_resume": (
        toy_run,
        {
            "the momentum is thrown away": lambda s, e: toy_run(s, e, momentum=False),
            "the learning rate starts": lambda s, e: toy_run(s, e, rate=False),
            "one generator serves all steps:": lambda s, e: toy_run(s, e, noise="zero"),
            "seeded where the run begins": lambda s, e: toy_run(s, e, noise="begin"),
            "; the learning rate starts": lambda s, e: toy_run(s, e, False, False, "zero"),
            "argument 1 in place": toy_run_in_place,
            "return the whole state": lambda s, e: toy_run(s, e)["weight"],
            "how many are done": lambda s, e: toy_run(s, e + 1),
            "but not including": lambda s, e: toy_run(s, e + 1) | {"step": e},
            "the first step is left out": lambda s, e: toy_run(s | {"step": s["step"] + 1}, e),
            "begin at 0 again": lambda s, e: toy_run(s | {"step": 0}, e),
            "the noise of a resumed run": lambda s, e: toy_run(s, e, noise="again"),
            "along the new momentum": lambda s, e: toy_run(s, e, new=False),
        },
    ),
}


# 08 sampling


def sprint_commits(confidence, masked, steps_left, threshold, share=math.ceil, above=torch.gt):
    chosen = masked & above(confidence, threshold)
    order = confidence.masked_fill(~masked, -1).argsort(descending=True)
    chosen[order[: share(int(masked.sum()) / steps_left)]] = True
    return chosen


def due(masked, steps_left):
    return math.ceil(int(masked.sum()) / steps_left)


def margin(values):
    best = values.topk(2).values
    return best[..., 0] - best[..., 1]


def margin_of_different(p):
    best = p.amax(-1, keepdim=True)
    return (best - p.masked_fill(p == best, 0).amax(-1, keepdim=True))[..., 0]


def up_to_the_last(committed):
    last = [int(committed[:, row].any(1).nonzero().max()) + 1 for row in range(3)]
    return committed.sum((0, 2)) / torch.tensor(last)


ANSWERS |= {
    "check_sprint_commits": (
        sprint_commits,
        {
            "make up the share": lambda c, m, s, t: m & (c > t),
            "round the share up": lambda *a: sprint_commits(*a, share=math.floor),
            "not >=": lambda *a: sprint_commits(*a, above=torch.ge),
            "the share alone": lambda c, m, s, t: sprint_commits(c, m, s, 2.0),
            "it stays False": lambda c, m, s, t: sprint_commits(c, m, s, t) | (c > t),
            "nor in the share": lambda c, m, s, t: sprint_commits(c, m | True, s, t),
            "no part in the order": lambda c, m, s, t: sprint_commits(
                c, m | True, s, t, share=lambda x: math.ceil(x * int(m.sum()) / len(m))
            ),
            "not all places": lambda c, m, s, t: sprint_commits(
                c, m, s, t, share=lambda x: math.ceil(x * len(m) / int(m.sum()))
            ),
            "the share on top": lambda c, m, s, t: (
                (m & (c > t)) | (sprint_commits(c, m & (c <= t), s, 2.0, lambda _: due(m, s)) & m)
            ),
        },
    ),
    "check_margin": (
        lambda x: margin(x.softmax(-1)),
        {
            "differences of logits": margin,
            "the best token alone": lambda x: x.softmax(-1).amax(-1),
            "the other way round": lambda x: -margin(x.softmax(-1)),
            "that is a ratio": lambda x: torch.exp(margin(x)),
            "the last dimension": lambda x: margin(x.softmax(1)),
            "the margin is 0": lambda x: margin_of_different(x.softmax(-1)),
            "not only over the two best": lambda x: margin(x.topk(2).values.softmax(-1)),
            "not the least likely": lambda x: x.softmax(-1).amax(-1) - x.softmax(-1).amin(-1),
        },
    ),
    "check_tokens_per_forward": (
        lambda c: c.sum((0, 2)) / c.any(2).sum(0),
        {
            "count its own": lambda c: c.sum((0, 2)) / len(c),
            "not only the late ones": up_to_the_last,
            "that is the number of tokens": lambda c: c.sum((0, 2)),
            "that is the number of passes": lambda c: c.any(2).sum(0),
            "each row has its own": lambda c: c.sum() / len(c),
        },
    ),
}


# 09 every task and 10 thinking and stages


def branches(vocab, full, no_text, no_image, task="edit", grid=4):
    return tuple(layout.prompt(vocab, task, user, grid) for user in (full, no_text, no_image))


def story(vocab, ids, keep=(), offset=True, swap=False, flat=False, texts=True, images=True):
    """The reader of exercise 2, and the mistakes one can make in it."""
    image, *special = (vocab.markup(t)[0] for t in ("<|image|>", "<boi>", "<|/image|>"))
    special = {*special, vocab.eos_id} - {vocab.markup(token)[0] for token in keep}
    parts, text, i = [], [], 0
    while i < len(ids):
        if ids[i] == image:
            height, width = (int(re.search(r"\d+", vocab.token(t))[0]) for t in ids[i + 1 : i + 3])
            codes = torch.tensor(ids[i + 4 : i + 4 + height * width])
            codes = vocab.codes(codes) if offset else codes
            shape = (-1,) if flat else (width, height) if swap else (height, width)
            parts += [vocab.decode(text)] * texts + [codes.view(shape)] * images
            text, i = [], i + 4 + height * width
        else:
            text += [] if ids[i] in special else [ids[i]]
            i += 1
    return parts + ([vocab.decode(text)] if "<|endoftext|>" in keep else [])


def parts_of(trace, separator="; "):
    return trace.replace("; ", separator).split(separator)


def right_parts(a, b, trace, separator="; "):
    count = 0
    for mine, right in zip(parts_of(trace, separator), parts_of(counting_trace(a, b), separator)):
        if mine != right:
            break
        count += 1
    return count


def matches(a, b, trace, separator="; "):
    pairs = zip(parts_of(trace, separator), parts_of(counting_trace(a, b), separator))
    return sum(one == two for one, two in pairs)


def whole_if_begun(a, b, trace):
    count = right_parts(a, b, trace)
    return len(parts_of(counting_trace(a, b))) if count == len(parts_of(trace)) else count


def beginnings(a, b, trace):
    right = parts_of(counting_trace(a, b))
    return max(k for k in range(len(right) + 1) if trace.startswith("; ".join(right[:k])))


def parts_without_end(a, b, trace):
    """Fails with an IndexError where a thought goes on after its end."""
    right, count = parts_of(counting_trace(a, b)), 0
    for number, part in enumerate(parts_of(trace)):
        if part != right[number]:
            break
        count += 1
    return count


ANSWERS |= {
    "check_edit_branches": (
        lambda v, c, t: branches(v, [c, t], [c, None], [t]),
        {
            "image comes first": lambda v, c, t: branches(v, [t, c], [c, None], [t]),
            "leaving the instruction out": lambda v, c, t: branches(v, [c, t], [c], [t]),
            "as if a user typed it": lambda v, c, t: branches(v, [c, t], [c, "<uncondition>"], [t]),
            "the image stays": lambda v, c, t: branches(v, [c, t], [None], [t]),
            "absent image is left out": lambda v, c, t: branches(v, [c, t], [c, None], [None, t]),
            "the instruction stays": lambda v, c, t: branches(v, [c, t], [c, None], [None]),
            "the other way round": lambda v, c, t: branches(v, [c, t], [c, None], [c, None]),
            "behind its image's header": lambda v, c, t: branches(
                v, [c, t], [c, None], [t], grid=None
            ),
            "another task": lambda v, c, t: branches(v, [c, t], [c, None], [t], task="draw"),
            "those are the parts": lambda v, c, t: ([c, t], [c, None], [t]),
            "part [0] of the answer: the image comes": lambda v, c, t: branches(
                v, [t, c], [c], [t]
            ),
            "the order is full, no_text": lambda v, c, t: branches(v, [c, t], [t], [c, None]),
            "full has both": lambda v, c, t: branches(v, [t], [c, None], [t]),
        },
    ),
    "check_story_parts": (
        story,
        {
            "subtract the offset": lambda v, i: story(v, i, offset=False),
            "height first": lambda v, i: story(v, i, swap=True),
            "is a grid": lambda v, i: story(v, i, flat=True),
            "special tokens are no text": lambda v, i: story(v, i, keep=["<|/image|>"]),
            "the last ones included": lambda v, i: story(
                v, i, keep=["<|/image|>", "<|endoftext|>"]
            ),
            "behind the last image included": lambda v, i: [
                *story(v, i, keep=["<|/image|>"]),
                "<|/image|>",
            ],
            "the end of text is no text": lambda v, i: story(v, i, keep=["<|endoftext|>"]),
            "images alone": lambda v, i: story(v, i, texts=False),
            "texts alone": lambda v, i: story(v, i, images=False),
            "reads codes as text": lambda v, i: v.decode(i),
        },
    ),
    "check_right_parts": (
        right_parts,
        {
            "stop at the first mistake": matches,
            "all or nothing": lambda a, b, t: len(parts_of(t)) * (t == counting_trace(a, b)),
            "number of parts": lambda a, b, t: len(parts_of(t)),
            "semicolons separate parts (seen": lambda a, b, t: right_parts(a, b, t, ", "),
            "semicolons separate parts, not commas": lambda a, b, t: matches(a, b, t, ", "),
            "that breaks off": whole_if_begun,
            "compare whole parts": beginnings,
            "the first wrong part": lambda a, b, t: min(right_parts(a, b, t) + 1, len(parts_of(t))),
            "whether all is right": lambda a, b, t: t == counting_trace(a, b),
            "IndexError": parts_without_end,
        },
    ),
}


# 13 faster decoding


def front(points, beats):
    kept = []
    for number, (speed, quality) in enumerate(points):
        others = points[:number] + points[number + 1 :]
        if not any(beats(s, q, speed, quality) for s, q in others):
            kept.append(number)
    return kept


def dominates(s, q, speed, quality):
    return s >= speed and q >= quality and (s > speed or q > quality)


def best_in_each(points):
    fastest, best = max(s for s, _ in points), max(q for _, q in points)
    return [i for i, (s, q) in enumerate(points) if s == fastest or q == best]


def levenshtein(a, b, replace=1):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a):
        old, row = row, [i + 1]
        for j, y in enumerate(b):
            row.append(min(row[j] + 1, old[j + 1] + 1, old[j] + replace * (x != y)))
    return row[-1]


def recursive_distance(a, b, delete=1, insert=1, rest=1, exchange=9):
    if not a or not b:
        return rest * (len(a) + len(b))
    prices = {(1, 0): delete, (0, 1): insert, (1, 1): a[0] != b[0]}
    if len(a) > 1 and a[:2] == b[1::-1]:
        prices[2, 2] = exchange
    how = {"delete": delete, "insert": insert, "rest": rest, "exchange": exchange}
    return min(price + recursive_distance(a[i:], b[j:], **how) for (i, j), price in prices.items())


def kept_words(a, b):
    return (len(a) + len(b) - levenshtein(a, b, replace=2)) // 2


def place_by_place(a, b):
    return sum(x != y for x, y in zip(a, b))


ANSWERS |= {
    "check_speedup": (
        lambda share, factor: 1 / (1 - share + share / factor),
        {
            "takes time, too": lambda share, factor: factor,
            "that is the time that is left": lambda share, factor: 1 - share + share / factor,
            "speeds do not": lambda share, factor: 1 - share + share * factor,
            "still takes time": lambda share, factor: 1 / (1 - share),
            "are exchanged": lambda share, factor: 1 / (share + (1 - share) / factor),
            "neither a time nor a speed": lambda share, factor: share * factor,
            "that is the time that is saved": lambda share, factor: share - share / factor,
            "twice as fast is 2": lambda share, factor: 1 / (1 - share + share / factor) - 1,
        },
    ),
    "check_front": (
        lambda points: front(points, dominates),
        {
            "worse in the other": lambda points: front(
                points, lambda s, q, speed, quality: s > speed and q > quality
            ),
            "keep both": lambda points: front(
                points, lambda s, q, speed, quality: s >= speed and q >= quality
            ),
            "the best in each": best_in_each,
            "you keep one": lambda points: sorted(
                {points.index(points[i]) for i in front(points, dominates)}
            ),
            "of less quality is beaten": lambda points: front(
                points, lambda s, q, speed, quality: s > speed and q >= quality
            ),
            "the slower one is beaten": lambda points: front(
                points, lambda s, q, speed, quality: s >= speed and q > quality
            ),
            "the smallest number": lambda points: sorted(
                front(points, dominates), key=points.__getitem__
            ),
            "faster is better": lambda points: front([(-s, q) for s, q in points], dominates),
            "return their numbers": lambda points: [points[i] for i in front(points, dominates)],
            "those are the beaten ones": lambda points: sorted(
                {*range(len(points))} - {*front(points, dominates)}
            ),
        },
    ),
    "check_edit_distance": (
        levenshtein,
        {
            "a replacement is one edit": lambda a, b: levenshtein(a, b, replace=2),
            "place with place": lambda a, b: place_by_place(a, b) + abs(len(a) - len(b)),
            "surplus tokens": place_by_place,
            "how many tokens stay": kept_words,
            "try all three": lambda a, b: max(len(a), len(b)) - kept_words(a, b),
            "order matters": lambda a, b: len({*a} ^ {*b}),
            "may be deleted": lambda a, b: recursive_distance(a, b, delete=9),
            "may be inserted": lambda a, b: recursive_distance(a, b, insert=9),
            "where one list has ended": lambda a, b: recursive_distance(a, b, rest=0),
            "exchanging two neighbours": lambda a, b: recursive_distance(a, b, exchange=1),
        },
    ),
}


# 11 painter


def euler(velocity, noise, steps):
    x = noise
    for step in range(steps):
        x = x + velocity(x, step / steps) / steps
    return x


def heun(velocity, noise, steps, ahead=1.0, later=1.0, mean=0.5, first_too=True):
    x, h = noise, 1 / steps
    for step in range(steps):
        first = velocity(x, step * h)
        second = velocity(x + ahead * h * first, (step + later) * h)
        x = x + (h * mean * (first + second) if first_too else h * second)
    return x


def heun_until_one(velocity, x, steps):
    t = 0.0
    while t < 1:  # ten times 0.1 is less
        first = velocity(x, t)
        x, t = x + (first + velocity(x + first / steps, t + 1 / steps)) / steps / 2, t + 1 / steps
    return x


ANSWERS |= {
    "check_line": (
        lambda picture, noise, t: (t * picture + (1 - t) * noise, picture - noise),
        {
            "t = 0 must be the noise": lambda picture, noise, t: (
                (1 - t) * picture + t * noise,
                picture - noise,
            ),
            "from the noise to the picture": lambda picture, noise, t: (
                t * picture + (1 - t) * noise,
                noise - picture,
            ),
            "does not depend on t": lambda picture, noise, t: (
                t * picture + (1 - t) * noise,
                t * (picture - noise),
            ),
            "then the velocity": lambda picture, noise, t: (
                picture - noise,
                t * picture + (1 - t) * noise,
            ),
            "without roots": lambda picture, noise, t: (
                t**0.5 * picture + (1 - t) ** 0.5 * noise,
                picture - noise,
            ),
            "divide by the time that is left": lambda picture, noise, t: (
                t * picture + (1 - t) * noise,
                (1 - t) * (picture - noise),
            ),
        },
    ),
    "check_jump": (
        lambda picture, fresh, then: then * picture + (1 - then) * fresh,
        {
            "swap the weights": lambda picture, fresh, then: (1 - then) * picture + then * fresh,
            "the picture is weighted": lambda picture, fresh, then: picture + (1 - then) * fresh,
            "the noise is weighted": lambda picture, fresh, then: then * picture + fresh,
            "the picture at time 1": lambda picture, fresh, then: picture,
        },
    ),
    "check_heun": (
        heun,
        {
            "that is Euler's method": euler,
            "take their mean": lambda *a: heun(*a, mean=1.0),
            "the time at the end": lambda *a: heun(*a, later=0.0),
            "not where it begins": lambda *a: heun(*a, ahead=0.0),
            "the second alone": lambda *a: heun(*a, first_too=False),
            "the size 1 / steps": lambda v, x, n: heun(v, x, n, ahead=n),
            "the midpoint method": lambda *a: heun(*a, ahead=0.5, later=0.5, first_too=False),
            "one step too many": heun_until_one,
        },
    ),
}


# 12 evaluation


def wilson(successes, n, z=1.96, centred=True, shrink=True):
    p = successes / n
    spread = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    divisor = 1 + z**2 / n if shrink else 1
    centre = (p + z**2 / (2 * n)) / divisor if centred else p
    return centre - spread / divisor, centre + spread / divisor


def wilson_half(successes, n):
    low, high = wilson(successes, n, shrink=False)
    return (high - low) / 2


def textbook(successes, n):
    p = successes / n
    spread = 1.96 * math.sqrt(p * (1 - p) / n)
    return p - spread, p + spread


def frechet(a, u, b, v):
    return float(((a - b) ** 2 + (u.sqrt() - v.sqrt()) ** 2).sum())


LN2 = math.log(2)

ANSWERS |= {
    "check_wilson": (
        wilson,
        {
            "of the textbooks": textbook,
            "the width is right": lambda k, n: wilson(k, n, centred=False),
            "must be divided": lambda k, n: wilson(k, n, shrink=False),
            "of 99 %": lambda k, n: wilson(k, n, z=2.58),
            "half of the width": lambda k, n: [
                sum(wilson(k, n)) / 2 + sign * wilson_half(k, n) for sign in (-1, 1)
            ],
            "before the division": lambda k, n: [
                end / (1 + 1.96**2 / n) for end in wilson(k, n, centred=False, shrink=False)
            ],
            "the lower end comes first": lambda k, n: wilson(k, n)[::-1],
            "these are percent": lambda k, n: [100 * end for end in wilson(k, n)],
            "the fraction itself": lambda k, n: k / n,
        },
    ),
    "check_frechet_diagonal": (
        frechet,
        {
            "take the roots first": lambda a, u, b, v: ((a - b) ** 2 + (u - v) ** 2).sum(),
            "the means are compared": lambda a, u, b, v: ((a - b) ** 2).sum(),
            "the spreads are compared": lambda a, u, b, v: ((u.sqrt() - v.sqrt()) ** 2).sum(),
            "no root at the end": lambda *a: frechet(*a) ** 0.5,
            "that is their mean": lambda *a: frechet(*a) / len(a[0]),
            "twice the root": lambda a, u, b, v: ((a - b) ** 2 + u + v - (u * v) ** 0.5).sum(),
        },
    ),
    "check_bits_per_token": (
        lambda nats, real: nats.sum(1) / LN2 / real.sum(1),
        {
            "divide by ln 2": lambda nats, real: nats.sum(1) / real.sum(1),
            "instead of multiplying": lambda nats, real: nats.sum(1) * LN2 / real.sum(1),
            "padding is predicted": lambda nats, real: (nats * real).sum(1) / LN2 / real.sum(1),
            "not by all positions": lambda nats, real: nats.mean(1) / LN2,
            "bits per sequence": lambda nats, real: nats.sum(1) / LN2,
            "each sequence has its own": lambda nats, real: nats.sum() / LN2 / real.sum(),
        },
    ),
}


# 15 from autoregression to diffusion


def begun(schedule, steps, step):
    return [size for start, size in schedule if round(start * steps) <= step]


def coming(schedule, steps, step):
    return [size for start, size in schedule if round(start * steps) > step] + [schedule[-1][1]]


def noisy(x, ids, mask, noise, std):
    return x + std * noise * (ids == mask)[..., None]


def merged(weights, bits, k):
    return weights[bits.argsort()[:k]].mean(0)


def weighted_merge(weights, bits, k):
    share = 1 / bits.sort().values[:k, None]
    return (weights[bits.argsort()[:k]] * share).sum(0) / share.sum()


ANSWERS |= {
    "check_block_size_at": (
        lambda *a: begun(*a)[-1],
        {
            "has not begun yet": lambda s, of, n: begun(s, of, n + 1)[-1],
            "int cuts off": lambda schedule, steps, step: [
                size for start, size in schedule if int(start * steps) <= step
            ][-1],
            "the entry of 0.25 has begun": lambda s, of, n: begun(s, of, max(0, n - 0.5))[-1],
            "the largest size so far": lambda *a: max(begun(*a)),
            "the next entry": lambda *a: coming(*a)[0],
            "the first entry": lambda schedule, steps, step: schedule[0][1],
            "is rounded": lambda schedule, steps, step: [
                size for start, size in schedule if start * steps <= step
            ][-1],
            "shares of the run": lambda schedule, steps, step: [
                size for start, size in schedule if start <= step
            ][-1],
            "return the size alone": lambda schedule, steps, step: [
                pair for pair in schedule if round(pair[0] * steps) <= step
            ][-1],
        },
    ),
    "check_noisy_masks": (
        noisy,
        {
            "must stay exactly": lambda x, ids, mask, noise, std: x + std * noise,
            "not on the known": lambda x, ids, mask, noise, std: (
                x + std * noise * (ids != mask)[..., None]
            ),
            "scale the noise by `std`": lambda x, i, mask, noise, std: noisy(
                x, i, mask, noise, 1.0
            ),
            "it need not be 0.1": lambda x, ids, mask, noise, std: noisy(x, ids, mask, noise, 0.1),
            "are wrong, the first one at": lambda x, ids, mask, noise, std: noisy(
                x, ids, ids.max(), noise, std
            ),
            "add the noise to": lambda x, ids, mask, noise, std: torch.where(
                (ids == mask)[..., None], std * noise, x
            ),
            "nothing has changed": lambda x, *_: x,
            "RuntimeError": lambda x, ids, mask, noise, std: x + std * noise * (ids == mask),
        },
    ),
    "check_merge_best": (
        merged,
        {
            "the worst ones": lambda w, b, k: merged(w, -b, k),
            "the last ones": lambda w, b, k: w[-k:].mean(0),
            "the first ones": lambda w, b, k: w[:k].mean(0),
            "not always three": lambda w, b, k: merged(w, b, 3),
            "of all checkpoints": lambda w, b, k: merged(w, b, k) * k / len(w),
            "the mean of all": lambda w, b, k: w.mean(0),
            "their sum": lambda w, b, k: merged(w, b, k) * k,
            "the best checkpoint alone": lambda w, b, k: w[b.argmin()],
            "not weighted": weighted_merge,
        },
    ),
}


# 16 block size


def student(values, t, less=1, power=0.5, root=True, centre=True):
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / (len(values) - less)
    half = t * (math.sqrt(spread) if root else spread) / len(values) ** power
    return [mean * centre - half, mean * centre + half]


def stepwise(p_values, factor=lambda m, place: m - place, least=True, most=1.0):
    """Holm's rule and its neighbours: `factor` of the p-value at a place, from 0 on."""
    out, largest = list(p_values), 0.0
    for place, i in enumerate(sorted(range(len(out)), key=p_values.__getitem__)):
        value = min(most, factor(len(out), place) * p_values[i])
        largest = max(largest, value)
        out[i] = largest if least else value
    return out


def from_above(p_values, factor):
    """The neighbours that take the minimum of all larger ones, not the maximum of smaller ones."""
    out, least = list(p_values), 1.0
    for place, i in reversed(list(enumerate(sorted(range(len(out)), key=p_values.__getitem__)))):
        least = min(least, factor(len(out), place) * p_values[i])
        out[i] = least
    return out


def counted(m, rates, ways=math.comb, of=lambda n: n, weight=True, visible=True):
    """A loop over numbers of masks."""
    out = []
    for n in range(1, m + 1):
        chances = ways(m, n) * rates**n * ((1 - rates) ** (m - n) if visible else 1)
        out.append(float((of(n) * chances / (rates if weight else 1)).mean()))
    return out


ANSWERS |= {
    "check_ends": (
        student,
        {
            "divides by n − 1": lambda values, t: student(values, t, less=0),
            "where single runs lie": lambda values, t: student(values, t, power=0),
            "not by n": lambda values, t: student(values, t, power=1),
            "1.96 is for many": lambda values, t: student(values, 1.96),
            "the root of the variance": lambda values, t: student(values, t, root=False),
            "lie around 0": lambda values, t: student(values, t, centre=False),
            "the lower end comes first": lambda values, t: student(values, t)[::-1],
            "its distance from the ends": lambda values, t: (
                sum(values) / len(values),
                student(values, t, centre=False)[1],
            ),
        },
    ),
    "check_holm": (
        stepwise,
        {
            "Bonferroni": lambda p: [min(1.0, len(p) * value) for value in p],
            "none may become smaller": lambda p: stepwise(p, least=False),
            "at most 1": lambda p: stepwise(p, most=math.inf),
            "or larger than 1": lambda p: stepwise(p, least=False, most=math.inf),
            "the values are wrong": lambda p: [  # equal ones are taken for one
                x * (p.index(p[i]) == i) for i, x in enumerate(stepwise(p))
            ],
            "in the order they came": lambda p: sorted(stepwise(p)),
            "not the largest": lambda p: stepwise(p, lambda m, place: place + 1, least=False),
            "nothing was corrected": lambda p: list(p),
            "yours by m + 1 and by 2": lambda p: stepwise(p, lambda m, place: m + 1 - place),
            "yours by m − 1 and by 0": lambda p: stepwise(p, lambda m, place: m - 1 - place),
            "Hochberg); Holm": lambda p: from_above(p, lambda m, place: m - place),
            "Benjamini": lambda p: from_above(p, lambda m, place: m / (place + 1)),
            "belongs to place order[i]": lambda p: [
                sorted(stepwise(p))[i] for i in sorted(range(len(p)), key=p.__getitem__)
            ],
        },
    ),
    "check_counted": (
        counted,
        {
            "has the weight 1/t": lambda m, rates: counted(m, rates, weight=False),
            "C(m, n) ways": lambda m, rates: counted(m, rates, ways=lambda m, n: 1),
            "each of them counts": lambda m, rates: counted(m, rates, of=lambda n: 1),
            "that is their sum": lambda m, rates: [len(rates) * x for x in counted(m, rates)],
            "have the chance 1 − t": lambda m, rates: counted(m, rates, visible=False),
            "visible ones 1 − t": lambda m, rates: [
                float((math.comb(m, n) * (1 - rates) ** n * rates ** (m - n) * n / rates).mean())
                for n in range(1, m + 1)
            ],
            "not with 0": lambda m, rates: [0.0, *counted(m, rates)[:-1]],
            "average last": lambda m, rates: [
                x / float(rates.mean()) for x in counted(m, rates, weight=False)
            ],
        },
    ),
}


# 19 full weights


def active(hidden, inner, experts, chosen, shared, matrices=3):
    return experts * hidden + (chosen + shared) * matrices * hidden * inner


def header(data, field="shape", skip=True):
    length = int.from_bytes(data[:8], "little")
    entries = json.loads(data[8 : 8 + length])
    if skip:
        del entries["__metadata__"]
    return {name: about.get(field, []) for name, about in entries.items()}


ANSWERS |= {
    "check_active": (
        active,
        {
            "its whole matrix is used": lambda h, i, e, k, s: active(h, i, 0, k, s),
            "shared experts see every token": lambda h, i, e, k, s: active(h, i, e, k, 0),
            "gate, up and down": lambda *sizes: active(*sizes, matrices=2),
            "those are all weights": lambda h, i, e, k, s: active(h, i, e, e, s),
            "not `inner`": lambda h, i, e, k, s: active(i, h, e, k, s),
            "only its matrix": lambda h, i, e, k, s: active(h, i, e, k, s) + e,
            "not only with the chosen": lambda h, i, e, k, s: active(h, i, k, k, s),
        },
    ),
    "check_experts_read": (
        lambda n, e, k: 1 - (1 - k / e) ** n,
        {
            "that nobody chose": lambda n, e, k: (1 - k / e) ** n,
            "it is read once": lambda n, e, k: n * k / e,
            "are all different": lambda n, e, k: 1 - (1 - 1 / e) ** (n * k),
            "that is for one token": lambda n, e, k: k / e,
            "does not mend that": lambda n, e, k: min(1, n * k / e),
            "a number of experts": lambda n, e, k: e * (1 - (1 - k / e) ** n),
        },
    ),
    "check_header": (
        header,
        {
            "the field is called shape": lambda data: header(data, "data_offsets"),
            "how many numbers": lambda data: {n: math.prod(s) for n, s in header(data).items()},
            "is about the file": lambda data: header(data, skip=False),
            "JSONDecodeError": lambda data: json.loads(data[8:]),
            "Unterminated": lambda data: header(data[:2] + bytes(6) + data[8:]),
        },
    ),
}


# 17 data and sharded parallelism


def kept_bytes(weights, processes, sharding, a_weight=16, shared=1.0, ddp="ddp"):
    """`shared`: the part of the bytes that fsdp divides by the processes."""
    whole = a_weight * weights
    if sharding == ddp:
        return whole
    return round(whole * (1 - shared)) + round(whole * shared) // processes


def joined_gradient(means, counts, divide=None, weigh=lambda count: count):
    total = sum(weigh(count) * mean for mean, count in zip(means, counts))
    return total / (sum(map(weigh, counts)) if divide is None else divide)


def resharded(shards, processes, drop=False):
    matrix = torch.cat(shards)
    most = -(-len(matrix) // processes)
    parts = [matrix[most * rank : most * rank + most] for rank in range(processes)]
    return [part for part in parts if len(part)] if drop else parts


def by_first_shard(shards, processes):
    most = math.ceil(len(shards[0]) * len(shards) / processes)
    return [torch.cat(shards)[most * rank : most * rank + most] for rank in range(processes)]


def one_more(shards, processes):
    matrix = torch.cat(shards)
    most = len(matrix) // processes + 1
    return [matrix[most * rank : most * rank + most] for rank in range(processes)]


def rounded_down(shards, processes):
    matrix = torch.cat(shards)
    few = len(matrix) // processes
    parts = [matrix[few * rank : few * rank + few] for rank in range(processes - 1)]
    return [*parts, matrix[few * (processes - 1) :]]


ANSWERS |= {
    "check_bytes": (
        kept_bytes,
        {
            "one of both is left out": lambda w, p, s: kept_bytes(w, p, s, 4),
            "yours is the other way round": lambda w, p, s: kept_bytes(w, p, s, ddp="fsdp"),
            "fsdp divides the weights, too": lambda w, p, s: kept_bytes(w, p, s, shared=0.75),
            "one of the four is missing": lambda w, p, s: kept_bytes(w, p, s, 12),
            "two averages are missing": lambda w, p, s: kept_bytes(w, p, s, 8),
            "ddp: every process keeps all": lambda w, p, s: kept_bytes(w, p, s, ddp=""),
            "fsdp divides all of it": lambda w, p, s: kept_bytes(w, p, "ddp"),
            "not the averages alone": lambda w, p, s: kept_bytes(w, p, s, shared=0.5),
        },
    ),
    "check_joined_gradient": (
        joined_gradient,
        {
            "the mean of the means": lambda m, c: sum(m) / len(m),
            "the sum of the means": lambda m, c: sum(m),
            "divide it by the number of all": lambda m, c: joined_gradient(m, c, 1),
            "not by the number of processes": lambda m, c: joined_gradient(m, c, len(m)),
            "the other way round": lambda m, c: joined_gradient(m, c, weigh=lambda n: 1 / n),
        },
    ),
    "check_reshard": (
        resharded,
        {
            "rounded down": rounded_down,
            "the shape at [0]": one_more,
            "as even as possible": lambda s, n: list(torch.cat(s).tensor_split(n)),
            "not dealt out in turn": lambda s, n: [torch.cat(s)[rank::n] for rank in range(n)],
            "in the wrong order": lambda s, n: resharded(s, n)[::-1],
            "fewer rows than the first": by_first_shard,
            "not always for four": lambda s, n: resharded(s, 4),
            "still gets a shard": lambda s, n: resharded(s, n, drop=True),
        },
    ),
}


# 18 colour


def grey_share(image, limit):
    grey = 0
    for red, green, blue in image.flatten(1).T.tolist():
        grey += max(red, green, blue) - min(red, green, blue) < limit
    return grey / image[0].numel()


def spread_of(image):
    return image.max(0).values - image.min(0).values


def hue_parts(rgb, height=0.75**0.5):
    red, green, blue = rgb
    return red - (green + blue) / 2, height * (green - blue)


def hue_of(rgb, height=0.75**0.5, sign=1):
    x, y = hue_parts(rgb, height)
    return torch.atan2(sign * y, x).rad2deg() % 360, torch.hypot(x, y)


def colour_counts(labels, colours):
    return F.one_hot(labels, 10).T @ F.one_hot(colours, 4)


ANSWERS |= {
    "check_grey_share": (
        grey_share,
        {
            "the other way round": lambda i, limit: 1 - grey_share(i, limit),
            "that is a count": lambda i, limit: grey_share(i, limit) * i[0].numel(),
            "that is the mean difference": lambda i, limit: spread_of(i).mean(),
            "of exactly `limit`": lambda i, limit: (spread_of(i) <= limit).float().mean(),
            "in per cent": lambda i, limit: 100 * grey_share(i, limit),
            "not of all numbers": lambda i, limit: grey_share(i, limit) / 3,
            "may be the first and the last": lambda i, limit: (
                (i.diff(dim=0).abs().amax(0) < limit).float().mean()
            ),
            "saturation": lambda i, limit: (spread_of(i) / i.amax(0) < limit).float().mean(),
            "dark is not grey": lambda i, limit: (i.mean(0) < limit).float().mean(),
            "not the standard deviation": lambda i, limit: (i.std(0) < limit).float().mean(),
            "not only the first two": lambda i, limit: (i[0] - i[1]).abs().lt(limit).float().mean(),
            "over the channels only": lambda i, limit: float(i.max() - i.min() < limit),
            "one number": lambda i, limit: spread_of(i) < limit,
        },
    ),
    "check_hue": (
        hue_of,
        {
            "in radians": lambda rgb: (
                torch.atan2(*hue_parts(rgb)[::-1]) % (2 * torch.pi),
                hue_of(rgb)[1],
            ),
            "green lies at +120": lambda rgb: hue_of(rgb, sign=-1),
            "never above 180": lambda rgb: (
                (hue_parts(rgb)[0] / hue_of(rgb)[1]).acos().rad2deg(),
                hue_of(rgb)[1],
            ),
            "the number at [0] is wrong": lambda rgb: (hue_of(rgb)[0] % 180, hue_of(rgb)[1]),
            "atan2 takes y first": lambda rgb: (
                torch.atan2(*hue_parts(rgb)).rad2deg() % 360,
                hue_of(rgb)[1],
            ),
            "±√3/2, not ±1": lambda rgb: hue_of(rgb, height=1),
            "another definition": lambda rgb: (
                360 * colorsys.rgb_to_hsv(*rgb.tolist())[0],
                hue_of(rgb)[1],
            ),
            "tells them apart": lambda rgb: (
                (hue_parts(rgb)[1] / hue_parts(rgb)[0]).atan().rad2deg() % 360,
                hue_of(rgb)[1],
            ),
            "degrees come first": lambda rgb: hue_of(rgb)[::-1],
            "root of x² + y²": lambda rgb: (hue_of(rgb)[0], hue_of(rgb)[1] ** 2),
            "take the remainder": lambda rgb: (
                torch.atan2(*hue_parts(rgb)[::-1]).rad2deg(),
                hue_of(rgb)[1],
            ),
        },
    ),
    "check_guess_from_class": (
        lambda labels, colours: colour_counts(labels, colours).amax(1).sum() / len(labels),
        {
            "one for each class": lambda labels, colours: (
                colour_counts(labels, colours).sum(0).max() / len(labels)
            ),
            "unsaid counts": lambda labels, colours: (
                colour_counts(labels, colours)[:, :3].amax(1).sum() / len(labels)
            ),
            "in per cent": lambda labels, colours: (
                100 * colour_counts(labels, colours).amax(1).sum() / len(labels)
            ),
            "do not average over classes": lambda labels, colours: (
                colour_counts(labels, colours).amax(1) / labels.bincount(minlength=10)
            ).mean(),
            "that is a count": lambda labels, colours: colour_counts(labels, colours).amax(1).sum(),
            "the other way round": lambda labels, colours: (
                colour_counts(labels, colours).amax(0).sum() / len(labels)
            ),
        },
    ),
}


# the harder exercises


def reverse_step(ids, p, s, t, mask, stay=None, keep=True, keep_prompt=True):
    """A loop over positions."""
    stay = s / t if stay is None else stay
    out = torch.zeros_like(p)
    for i, token in enumerate(ids.tolist()):
        if token == mask or not keep_prompt:
            out[i] = (1 - stay) * p[i]
            out[i, mask] += stay * keep
        else:
            out[i, token] = 1
    return out


def forgets(ids, p, s, t, mask, still=None):
    """Hides known tokens once more."""
    still = s if still is None else still
    out = reverse_step(ids, p, s, t, mask)
    for i, token in enumerate(ids.tolist()):
        if token != mask:
            out[i, token], out[i, mask] = 1 - still, still
    return out


def undivided(ids, p, s, t, mask):
    return reverse_step(ids, p, s, t, mask, stay=1 - t + s)


def cached_block(x, w_q, w_k, w_v, keys, values, see="all", store="all", scaled=True, ahead=True):
    new = x @ w_k, x @ w_v
    seen = {"all": [keys, new[0]], "new": [new[0]], "old": [keys]}[see]
    read = {"all": [values, new[1]], "new": [new[1]], "old": [values]}[see]
    scores = (x @ w_q) @ torch.cat(seen).T
    scores = scores / x.shape[1] ** 0.5 if scaled else scores
    if not ahead:
        for i in range(len(x)):
            scores[i, len(keys) + i + 1 :] = -math.inf
    out = scores.softmax(1) @ torch.cat(read)
    if store == "new":
        return out, *new
    if store == "old":
        return out, keys, values
    order = [1, 0] if store == "front" else [0, 1]
    kept = [[keys, new[0]], [values, new[1]]]
    return out, *(torch.cat([pair[i] for i in order]) for pair in kept)


def pairs(lengths, size, whole=True, among=False, half=False):
    """One block after the other."""
    blocks = [-(-n // size) if whole else n // size for n in lengths]
    if among:
        blocks = [sum(blocks)]
    total = 0
    for number in blocks:
        for block in range(number):
            total += (block + 1) * size**2  # what the clean block sees
            total += 0 if half else (1 + block) * size**2  # the noisy one itself, and clean ones
    return total


def pairs_by_mask(lengths, size):
    """Counts in a mask that is built."""
    total = 0
    for tokens in whole_tokens(lengths, size):
        mask = torch.zeros(2 * tokens, 2 * tokens, dtype=torch.bool)
        places = torch.arange(tokens)
        mask |= block_diffusion_mask(places, places, size)[0]
        total += int(mask.sum())
    return total


def whole_tokens(lengths, size):
    return [-(-n // size) * size for n in lengths]


def schedule(masks, steps, share=lambda x: math.cos(math.pi / 2 * x)):
    left = [math.floor(masks * share(step / steps)) for step in range(steps + 1)]
    return [left[i] - left[i + 1] for i in range(steps)]


def in_turn(masks, steps, after):
    left = [masks]
    for step in range(1, steps + 1):
        left.append(after(left[-1], math.cos(math.pi / 2 * step / steps)))
    return [left[i] - left[i + 1] for i in range(steps)]


def left(masks, steps):
    return [masks - sum(schedule(masks, steps)[: i + 1]) for i in range(steps)]


def step_errors(right, parts, begun=True, sound=True, divide=True, wrong=None):
    out = []
    for k in range(int(parts.max())):
        reached = (right >= k) if sound else torch.ones_like(right, dtype=torch.bool)
        reached = reached & (parts > k) if begun else reached
        failed = (right == k) & (parts > k)
        out.append(int(failed.sum()) / (int(reached.sum()) if divide else 1))
    return out


def difference_of(a, b, n, order="newcombe"):
    (low_a, high_a), (low_b, high_b) = wilson(a, n), wilson(b, n)
    gap = b / n - a / n
    down = math.hypot(b / n - low_b, high_a - a / n)
    up = math.hypot(high_b - b / n, a / n - low_a)
    if order == "one side":
        down = up
    if order == "same ends":
        down = math.hypot(b / n - low_b, a / n - low_a)
        up = math.hypot(high_b - b / n, high_a - a / n)
    return gap - down, gap + up


def textbook_gap(a, b, n):
    half = 1.96 * math.sqrt(sum(p * (1 - p) / n for p in (a / n, b / n)))
    return (b - a) / n - half, (b - a) / n + half


def shares(steps, saved, holds=lambda i, n: i < n, over=None):
    counts = [sum(holds(i, n) for n in saved) for i in range(steps)]
    return [count / (len(saved) if over is None else over) for count in counts]


def mean_hue(hues, distances, weighted=True, degrees=True, radians=True, swapped=False):
    x = y = 0.0
    for hue, distance in zip(hues.tolist(), distances.tolist()):
        angle = math.radians(hue) if radians else hue
        x += (distance if weighted else 1) * math.cos(angle)
        y += (distance if weighted else 1) * math.sin(angle)
    angle = math.atan2(x, y) if swapped else math.atan2(y, x)
    return math.degrees(angle) % 360 if degrees else angle % (2 * math.pi)


def tensor_of(
    data, name, skip=8, dtype=torch.bfloat16, shape=True, header=True, swap=False, length_last=False
):
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + length])[name]
    first, last = entry["data_offsets"]
    start = skip + length if header else 0
    end = first + last if length_last else last
    raw = bytearray(data[start + first : start + end])
    if swap:
        raw[::2], raw[1::2] = raw[1::2], raw[::2]
    values = torch.frombuffer(raw, dtype=dtype).float()
    return values.view(entry["shape"]) if shape else values


def bytes_of(data, name):
    length = int.from_bytes(data[:8], "little")
    first, last = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    return data[8 + length + first : 8 + length + last]


ANSWERS |= {
    "check_reverse_step": (
        reverse_step,
        {
            "the chances to stay hidden": lambda i, p, s, t, m: reverse_step(
                i, p, s, t, m, stay=1 - s / t
            ),
            "divide by t": undivided,
            "that forgets x_t": lambda i, p, s, t, m: reverse_step(i, p, s, t, m, stay=s),
            "never hidden again": forgets,
            "only hidden tokens may change": lambda *a: forgets(*a, still=a[2] / a[3]),
            "need not be the last one": lambda i, p, s, t, m: torch.where(
                i[:, None] == m,
                (1 - s / t) * p + s / t * (torch.arange(p.shape[1]) == p.shape[1] - 1),
                F.one_hot(i, p.shape[1]),
            ),
            "a visible one stays": lambda *a: reverse_step(*a, keep_prompt=False),
            "each row must add up": lambda *a: reverse_step(*a, keep=False),
            "that is p, as at rate 0": lambda i, p, s, t, m: p,
        },
    ),
    "check_cached_block": (
        cached_block,
        {
            "the root of D": lambda *a: cached_block(*a, scaled=False),
            "later ones too": lambda *a: cached_block(*a, ahead=False),
            "use the stored keys": lambda *a: cached_block(*a, see="new"),
            "must see itself": lambda *a: cached_block(*a, see="old"),
            "not only the new ones": lambda *a: cached_block(*a, store="new"),
            "must grow by this block": lambda *a: cached_block(*a, store="old"),
            "old ones first": lambda *a: cached_block(*a, store="front"),
            "only x is multiplied": lambda x, q, k, v, keys, values: cached_block(
                x, q, k, v, keys @ k, values @ v
            ),
            "return the keys and values": lambda *a: cached_block(*a)[0],
        },
    ),
    "check_pairs": (
        pairs,
        {
            "texts must not see": lambda *a: pairs(*a, among=True),
            "round up": lambda *a: pairs(*a, whole=False),
            "one half alone": lambda *a: pairs(*a, half=True),
            "those are all cells": lambda n, b: (2 * sum(whole_tokens(n, b))) ** 2,
            "sees all others": lambda n, b: sum(k * (k + 1) for k in whole_tokens(n, b)),
            "one of these is missing": lambda n, b: sum(k * k for k in whole_tokens(n, b)),
            "needs more memory than it may have": pairs_by_mask,  # 576 terabytes
            "counts pairs of blocks": lambda n, b: pairs(n, b) // b**2,
        },
    ),
    "check_cosine_schedule": (
        schedule,
        {
            "the masks that are left": left,
            "known in all": lambda n, k: [n - number for number in left(n, k)],
            "few tokens first": lambda n, k: schedule(
                n, k, lambda x: 1 - math.sin(math.pi / 2 * x)
            ),
            "the even share": lambda n, k: schedule(n, k, lambda x: 1 - x),
            "a quarter of a wave": lambda n, k: schedule(
                n, k, lambda x: (1 + math.cos(math.pi * x)) / 2
            ),
            "the first pass is s = 1": lambda n, k: [0, *schedule(n, k)[:-1]],
            "round down": lambda n, k: in_turn(n, k, lambda left, c: round(n * c)),
            "of all masks": lambda n, k: in_turn(n, k, lambda left, c: math.floor(left * c)),
            "has no minimum": lambda n, k: in_turn(
                n, k, lambda left, c: max(min(left - 1, math.floor(n * c)), 0)
            ),
            "as it does in float32": lambda n, k: [
                *schedule(n, k)[:-1],
                schedule(n, k)[-1] - math.floor(n * torch.tensor(math.pi / 2).cos()),
            ],
            "return differences": lambda n, k: [n, *left(n, k)],
        },
    ),
    "check_step_errors": (
        step_errors,
        {
            "not by all": lambda r, n: [
                x * int(((r >= k) & (n > k)).sum()) / len(r)
                for k, x in enumerate(step_errors(r, n))
            ],
            "with an earlier mistake": lambda r, n: step_errors(r, n, sound=False),
            "a thought that has ended": lambda r, n: step_errors(r, n, begun=False),
            "is not wrong": lambda r, n: [
                int((r == k).sum()) / int((r >= k).sum()) for k in range(int(n.max()))
            ],
            "the chance to be right": lambda r, n: [1 - x for x in step_errors(r, n)],
            "those are counts": lambda r, n: step_errors(r, n, divide=False),
            "as many entries": lambda r, n: step_errors(r, n)[: int(r.max())],
            "not before it": lambda r, n: [
                int(((r <= k) & (n > k)).sum()) / int((n > k).sum()) for k in range(int(n.max()))
            ],
            "the shape should be": lambda r, n: step_errors(r, n)[:-1],
        },
    ),
    "check_difference": (
        difference_of,
        {
            "is p_b − p_a": lambda a, b, n: difference_of(b, a, n),
            "where a is ahead": lambda a, b, n: difference_of(min(a, b), max(a, b), n),
            "goes the upper end of a": lambda a, b, n: difference_of(a, b, n, "same ends"),
            "add up in squares": lambda a, b, n: (
                wilson(b, n)[0] - wilson(a, n)[1],
                wilson(b, n)[1] - wilson(a, n)[0],
            ),
            "the textbook's": textbook_gap,
            "the lower end of b": lambda a, b, n: difference_of(a, b, n, "one side"),
            "of b alone": lambda a, b, n: wilson(b, n),
            "both ends of its interval": lambda a, b, n: (b - a) / n,
        },
    ),
    "check_shares": (
        shares,
        {
            "and not entry n": lambda k, saved: shares(k, saved, lambda i, n: i <= n),
            "holds entry n − 1, too": lambda k, saved: shares(k, saved, lambda i, n: i < n - 1),
            "not of updates": lambda k, saved: shares(k, saved, over=k),
            "divide by the number": lambda k, saved: shares(k, saved, over=1),
            "early updates are in every": lambda k, saved: [1 - x for x in shares(k, saved)],
            "need not add": lambda k, saved: [x / sum(shares(k, saved)) for x in shares(k, saved)],
            "not only its last one": lambda k, saved: shares(k, saved, lambda i, n: i == n - 1),
            "the shape should be": lambda k, saved: shares(k, saved)[:-1],
        },
    ),
    "check_mean_hue": (
        mean_hue,
        {
            "go round in a circle": lambda h, d: h.mean(),
            "weighing the numbers": lambda h, d: (h * d).sum() / d.sum(),
            "weigh by the distance": lambda h, d: mean_hue(h, d, weighted=False),
            "in radians": lambda h, d: mean_hue(h, d, degrees=False),
            "of torch want radians": lambda h, d: mean_hue(h, d, radians=False),
            "x and y are exchanged": lambda h, d: mean_hue(h, d, swapped=True),
            "tells them apart": lambda h, d: (
                math.degrees(math.atan(math.tan(math.radians(mean_hue(h, d))))) % 360
            ),
            "take the remainder": lambda h, d: (mean_hue(h, d) + 180) % 360 - 180,
            "never above 180": lambda h, d: abs((mean_hue(h, d) + 180) % 360 - 180),
            "negative degrees only": lambda h, d: (mean_hue(h, d) + 180) % 360 + 180,
        },
    ),
    "check_tensor": (
        tensor_of,
        {
            "stand before the header": lambda *a: tensor_of(*a, skip=0),
            "not of the file": lambda *a: tensor_of(*a, header=False),
            "they are bfloat16": lambda *a: tensor_of(*a, dtype=torch.float16),
            "is swapped": lambda *a: tensor_of(*a, swap=True),
            "give it the shape": lambda *a: tensor_of(*a, shape=False),
            "read them as numbers": bytes_of,
            "is invalid for input of size": lambda *a: tensor_of(*a, length_last=True),
            "the dtype should be torch.float32": lambda *a: tensor_of(*a).bfloat16(),
        },
    ),
}


# check -> right answers of another form

ALSO_RIGHT = {
    "check_cosine_schedule": [
        lambda *a: torch.tensor(schedule(*a)),
        lambda *a: (float(n) for n in schedule(*a)),
    ],
    "check_difference": [lambda *a: torch.tensor(difference_of(*a), dtype=torch.float64)],
    "check_edit_branches": [
        lambda v, c, t: map(
            lambda user: layout.prompt(v, "edit", user, 4), [[c, t], [c, None], [t]]
        )
    ],
    "check_front": [lambda points: numpy.array(front(points, dominates))],
    "check_jump": [lambda picture, fresh, then: flow.mix(picture, fresh, torch.tensor([then]))],
    "check_line": [
        lambda picture, noise, t: (flow.mix(picture, noise, torch.tensor([t])), picture - noise),
        lambda picture, noise, t: torch.stack([t * picture + (1 - t) * noise, picture - noise]),
    ],
    "check_step_errors": [lambda *a: (share for share in step_errors(*a))],
}


@pytest.mark.parametrize("name", sorted(ALSO_RIGHT))
def test_right_answers_of_another_form_pass(name, capsys):
    for answer in ALSO_RIGHT[name]:
        assert CHECKS[name](answer), capsys.readouterr().out


# what every check must do


# 20 preferences


def dpo(better, worse, beta):
    return -F.logsigmoid(beta * (better - worse)).mean()


def pull(better, worse, beta):
    return beta * (beta * (worse - better)).sigmoid()


def tries_until(share, wanted):
    return math.ceil(math.log(1 - wanted) / math.log(1 - share))


ANSWERS |= {
    "check_dpo": (
        dpo,
        {
            "better minus worse": lambda better, worse, beta: dpo(worse, better, beta),
            "multiplied by beta": lambda better, worse, beta: dpo(better, worse, 1.0),
            "inside of the sigmoid": lambda better, worse, beta: beta * dpo(better, worse, 1.0),
            "minus the logarithm": lambda *a: -dpo(*a),
            "that is a probability": lambda better, worse, beta: (
                (beta * (better - worse)).sigmoid().mean()
            ),
            "not the sum": lambda *a: len(a[0]) * dpo(*a),
            "then the mean": lambda better, worse, beta: (
                -F.logsigmoid(beta * (better - worse).mean())
            ),
            "loss of each pair; take": lambda better, worse, beta: (
                -F.logsigmoid(beta * (better - worse))
            ),
            "the worse drawing counts": lambda better, worse, beta: dpo(better, 0 * worse, beta),
        },
    ),
    "check_pull": (
        pull,
        {
            "pulls less": lambda better, worse, beta: pull(worse, better, beta),
            "a factor beta": lambda better, worse, beta: pull(better, worse, beta) / beta,
            "minus that": lambda *a: -pull(*a),
            "no division by N": lambda *a: pull(*a) / len(a[0]),
            "take its derivative": lambda better, worse, beta: (
                -F.logsigmoid(beta * (better - worse))
            ),
            "has one factor": lambda better, worse, beta: (
                pull(better, worse, beta) * pull(worse, better, beta) / beta
            ),
            "in the sigmoid, too": lambda better, worse, beta: beta * pull(better, worse, 1.0),
        },
    ),
    "check_best_of": (
        tries_until,
        {
            "round up": lambda share, wanted: tries_until(share, wanted) - 1,
            "yours is 3 (seen": lambda share, wanted: (
                int(math.log(1 - wanted) / math.log(1 - share)) + 1
            ),
            "do not add up": lambda share, wanted: math.ceil(wanted / share),
            "1 is too few": lambda share, wanted: 1,
            "how many fail together": lambda share, wanted: tries_until(1 - share, wanted),
        },
    ),
}


# 21 noise that is not a mask


def noise_kernel(betas, pi, kept=lambda betas: (1 - betas).prod()):
    alpha = kept(betas)
    return alpha * torch.eye(len(pi)) + (1 - alpha) * pi.expand(len(pi), -1)


def multiplied(betas, pi):
    result = torch.eye(len(pi))
    for beta in betas:
        result = result @ noise_kernel(beta[None], pi)
    return result


def noise_posterior(x_t, x_0, alpha_s, alpha_t, pi, step=None, whole=True, row=False):
    way = noise_kernel(torch.tensor([1 - alpha_s]), pi)[x_0]
    back = noise_kernel(torch.tensor([1 - (step or alpha_t / alpha_s)]), pi)
    joint = way * (back[x_t] if row else back[:, x_t])
    return joint / joint.sum() if whole else joint


def step_weights(alphas, over=None):
    over = alphas[1:] if over is None else over
    return [float((alphas[k] - alphas[k + 1]) / (1 - over[k])) for k in range(len(alphas) - 1)]


def chance_to_reveal(sigma, alpha_s, alpha_t):
    return (alpha_s - (1 - sigma) * alpha_t) / (1 - alpha_t)


def plainly(sigma, alpha_s, alpha_t):
    return chance_to_reveal(0, alpha_s, alpha_t)


def remasked(
    ids, p, sigma, alpha_s, alpha_t, mask_id, reveals=chance_to_reveal, hide=None, fresh=False
):
    reveal, hide = reveals(sigma, alpha_s, alpha_t), sigma if hide is None else hide
    rows = []
    for token, row in zip(ids.tolist(), p):
        clean = row if token == mask_id or fresh else F.one_hot(torch.tensor(token), len(row))
        kept = reveal if token == mask_id else 1 - hide
        new = kept * clean.float()
        new[mask_id] += 1 - kept
        rows.append(new)
    return torch.stack(rows)


def last_is_mask(ids, p, sigma, alpha_s, alpha_t, mask_id):
    result = remasked(ids, p, sigma, alpha_s, alpha_t, mask_id)
    result[:, -1] += result[:, mask_id] * (mask_id != 4)
    result[:, mask_id] *= mask_id == 4
    return result


ANSWERS |= {
    "check_kernel": (
        multiplied,
        {
            "do not add up": lambda b, pi: noise_kernel(b, pi, lambda b: 1 - b.sum()),
            "stays if no step": lambda b, pi: noise_kernel(b, pi, lambda b: b.prod()),
            "the last step": lambda b, pi: noise_kernel(b, pi, lambda b: 1 - b[-1]),
            "the first step": lambda b, pi: noise_kernel(b, pi, lambda b: 1 - b[0]),
            "belongs to the identity": lambda b, pi: noise_kernel(
                b, pi, lambda b: 1 - (1 - b).prod()
            ),
            "yours is transposed": lambda b, pi: multiplied(b, pi).T,
            "on the diagonal, too": lambda b, pi: (
                multiplied(b, pi) - torch.diag((1 - (1 - b).prod()) * pi)
            ),
            "do not average": lambda b, pi: noise_kernel(b, pi, lambda b: (1 - b).mean()),
        },
    ),
    "check_posterior": (
        noise_posterior,
        {
            "add up to 1": lambda *a: noise_posterior(*a, whole=False),
            "not with alpha_t": lambda *a: noise_posterior(*a, step=a[3]),
            "forgets x_0": lambda x_t, x_0, a_s, a_t, pi: F.normalize(
                noise_kernel(torch.tensor([1 - a_t / a_s]), pi)[:, x_t], p=1, dim=0
            ),
            "forgets x_t": lambda x_t, x_0, a_s, a_t, pi: noise_kernel(torch.tensor([1 - a_s]), pi)[
                x_0
            ],
            "s lies between": lambda x_t, x_0, a_s, a_t, pi: noise_kernel(
                torch.tensor([1 - a_t]), pi
            )[x_0],
            "take column x_t": lambda *a: noise_posterior(*a, row=True),
        },
    ),
    "check_step_weights": (
        step_weights,
        {
            "from the earlier one": lambda alphas: (alphas[1:] - alphas[:-1]) / (1 - alphas[1:]),
            "divide by that chance": lambda alphas: alphas[:-1] - alphas[1:],
            "not 1 - alphas[k - 1]": lambda alphas: (alphas[:-1] - alphas[1:]) / (1 - alphas[:-1]),
            "the chance to be masked": lambda alphas: step_weights(alphas, 1 - alphas[1:]),
            "the chance to stay masked": lambda alphas: (1 - alphas[:-1]) / (1 - alphas[1:]),
            "the first step of noise": lambda alphas: step_weights(alphas)[::-1],
        },
    ),
    "check_remask_step": (
        remasked,
        {
            "more masked ones must be revealed": lambda *a: remasked(*a, plainly),
            "hidden again with probability": lambda *a: remasked(*a, hide=0),
            "without remasking": lambda *a: remasked(*a, plainly, hide=0),
            "are exchanged": lambda *a: remasked(*a, lambda *b: 1 - chance_to_reveal(*b)),
            "not sampled anew": lambda *a: remasked(*a, fresh=True),
            "known to be masked": lambda *a: remasked(
                *a, lambda sigma, s, t: chance_to_reveal(sigma, s, t) * (1 - t)
            ),
            "as the schedule wants": lambda *a: remasked(*a, lambda sigma, s, t: 1 - sigma),
            "need not be the last": last_is_mask,
            "must add up to 1": lambda *a: (
                remasked(*a) * (1 - (a[0] == a[5])[:, None] * F.one_hot(torch.tensor(a[5]), 5))
            ),
        },
    ),
}


def unfinished(*_):
    raise NotImplementedError


BROKEN = {
    "not done yet": unfinished,
    "did you forget `return`?": lambda *_: None,
    "ZeroDivisionError": lambda *_: 1 / 0,
    "your answer": lambda *_: object(),
}


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_right_answers_pass(name, capsys):
    assert CHECKS[name](ANSWERS[name][0]), capsys.readouterr().out
    assert capsys.readouterr().out == f"{CHECKS[name].success}\n"


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_wrong_answers_are_diagnosed(name, capsys):
    for words, answer in (ANSWERS[name][1] | BROKEN).items():
        assert not CHECKS[name](answer), words
        said = capsys.readouterr().out
        assert words in said and said.count("\n") == 1, f"{words!r} is not in {said!r}"


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_every_named_mistake_has_its_own_hint(name, capsys):
    check = CHECKS[name]
    cases = check.cases()
    for hint in {hint for case in cases for hint in case.mistakes}:
        answers = iter([case.mistakes.get(hint, case.right) for case in cases])
        assert not check(lambda *_: next(answers)), hint  # noqa: B023
        assert capsys.readouterr().out.startswith(hint)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_inputs_are_copies(name, capsys):
    def spoils(*inputs):
        answer = ANSWERS[name][0](*inputs)
        for value in inputs:
            if isinstance(value, torch.Tensor):
                value.add_(1) if value.dtype != torch.bool else value.logical_not_()
            if isinstance(value, list):
                value.clear()
        return answer

    cases = CHECKS[name].cases()
    can_change = any(isinstance(v, torch.Tensor | list) and len(v) for c in cases for v in c.inputs)
    assert CHECKS[name](spoils) is not can_change
    assert ("in place" in capsys.readouterr().out) is can_change


def test_every_check_has_answers():
    assert set(CHECKS) == set(ANSWERS)


def test_the_block_mask_of_the_package_is_right_too():
    def of_package(length, size, views):
        places = torch.arange(length)
        return block_diffusion_mask(places, places, size, views)[0]

    assert CHECKS["check_views_mask"](of_package)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_three_common_mistakes_have_hints_of_their_own(name):
    hints = {hint for case in CHECKS[name].cases() for hint in case.mistakes}
    own = [part for part in ANSWERS[name][1] if any(part.split(" (")[0] in h for h in hints)]
    assert len(own) >= 3, own


def test_nine_of_ten_wrong_answers_have_hints_of_their_own():
    """The others get a message that fits every exercise: a shape, a type, an exception."""
    count, general = 0, []
    for name, check in CHECKS.items():
        cases = check.cases()
        hints = tuple({hint for case in cases for hint in case.mistakes})
        for wrong in ANSWERS[name][1].values():
            outcomes = outcomes_of(wrong, [case.inputs for case in cases], seconds=10.0)
            said = diagnosis(cases, outcomes, name) or ""
            count += 1
            if not re.sub(r"^part \[\d\] of the answer: ", "", said).startswith(hints):
                general.append(f"{name}: {said}")
    print(
        f"{count - len(general)} of {count} have a hint of their own; not these:",
        *general,
        sep="\n",
    )
    assert count >= 120
    assert len(general) <= 0.1 * count


SEEDS = (1, 2, 77)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_right_answers_pass_with_inputs_that_nobody_has_seen(name):
    check, right = CHECKS[name], ANSWERS[name][0]
    for seed in SEEDS:
        cases = check.cases(seed)
        outcomes = outcomes_of(right, [case.inputs for case in cases], seconds=10.0)
        assert diagnosis(cases, outcomes, name) is None


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_hints_are_the_same_with_other_inputs(name):
    check = CHECKS[name]
    hints = {hint for case in check.cases() for hint in case.mistakes}
    for seed in SEEDS:
        cases = check.cases(seed)
        for hint in hints:
            answers = [Outcome(case.mistakes.get(hint, case.right)) for case in cases]
            assert (diagnosis(cases, answers, name) or "right").startswith(hint), seed


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_no_named_mistake_passes_with_any_inputs(name):
    for seed in range(30):
        cases = CHECKS[name].cases(seed)
        hints = {hint for case in cases for hint in case.mistakes}
        for hint in hints:
            pairs = [(case.mistakes.get(hint, case.right), case.right) for case in cases]
            assert any(difference(wrong, right) for wrong, right in pairs), (seed, hint)


@pytest.mark.parametrize("name", sorted(set(CHECKS) - {"check_wishes"}))
def test_known_answers_do_not_pass_with_other_inputs(name):
    """Copying the answers of the notebook's own inputs does not pay where work is graded."""
    check = CHECKS[name]
    known = [(case.inputs, case.right) for case in check.cases()]

    def remembers(*inputs):
        for seen, right in known:
            if difference(inputs, seen) is None:
                return right
        return None

    cases = check.cases(seed=1)
    outcomes = outcomes_of(remembers, [case.inputs for case in cases], seconds=10.0)
    assert diagnosis(cases, outcomes, name)

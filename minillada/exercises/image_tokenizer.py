"""exercises.image_tokenizer"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..exercises.checking import attempt, same


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

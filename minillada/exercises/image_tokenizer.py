"""Exercises of notebook 02, the image tokenizer."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..exercises.checking import Case, Cases, Chance, exercise


@exercise("correct: this is Codebook.forward without its gradient")
def check_cosine_lookup(chance: Chance) -> Cases:
    """`function(features [N, C], codebook [K, C]) -> codes [N]`: largest cosine similarity."""
    generator = chance.generator(2)
    features = torch.randn(60, 4, generator=generator)
    codebook = torch.randn(9, 4, generator=generator)
    codebook *= torch.arange(1, 10)[:, None]  # lengths differ, so forgetting to normalise shows
    cosine = F.normalize(features, dim=1) @ F.normalize(codebook, dim=1).T
    products, distances = features @ codebook.T, torch.cdist(features, codebook)
    mistakes = {
        "long codes win too often: divide codes by their length (F.normalize)": products.argmax(1),
        "that is the nearest code by distance; only directions matter": distances.argmin(1),
        "the nearest code has the largest cosine, not the smallest": cosine.argmin(1),
        "those are the similarities; return the index of the best": cosine.max(1).values,
        "those are all similarities; return the index of the best": cosine,
    }
    yield Case((features, codebook), cosine.argmax(1), mistakes)


@exercise("correct: as many codes as if all were used equally often")
def check_perplexity(chance: Chance) -> Cases:
    """`function(codes [N], codebook_size) -> float`: exp of the entropy of the codes' shares."""
    generator = chance.generator(3)
    for size in (4, 50, 300):
        codes = (torch.rand(200, generator=generator) ** 2 * size).long()
        share = torch.bincount(codes, minlength=size) / len(codes)
        used = share[share > 0]
        entropy, of_all = -(used * used.log()).sum(), -(share * share.log()).sum()
        bits = entropy / math.log(2)
        mistakes = {
            "that is the entropy in nats; the perplexity is its exponential": entropy,
            "that is the entropy in bits; the perplexity is 2 to that power": bits,
            "use one base for both: exp goes with the natural logarithm": bits.exp(),
            "that counts the codes in use; it must also matter how evenly they are": len(used),
            "the sign is wrong: entropy is minus the sum of p log p": (-entropy).exp(),
            "the result is NaN: leave unused codes out, 0 · log 0 counts as 0": of_all.exp(),
        }
        yield Case((codes, size), entropy.exp(), mistakes)


def siglip(logits: Tensor) -> Tensor:
    """Sum over captions, mean over images."""
    return -F.logsigmoid(logits).sum(1).mean()


@exercise("correct: this is the loss of CaptionTower")
def check_siglip(chance: Chance) -> Cases:
    """`function(image [B, E], text [N, E], index [B], scale, bias) -> loss`, all unit vectors."""
    generator = chance.generator(4)
    image, text = (F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (5, 8))
    index, scale, bias = torch.tensor([0, 3, 3, 7, 1]), 4.0, -2.0
    sign = 2 * F.one_hot(index, len(text)) - 1
    similarity = scale * image @ text.T
    logits = similarity + bias
    right = siglip(sign * logits)
    clip = F.cross_entropy(logits, index)
    mistakes = {
        "a caption that does not belong to the image is pushed away: its sign is -1": siglip(
            logits
        ),
        "one-hot labels are 0 and 1; signs are -1 and +1": siglip((sign + 1) / 2 * logits),
        "sum over the captions, then average over the images": right / len(text),
        "average over the images at the end": right * len(image),
        "the bias is missing: most pairs are wrong, and it says so": siglip(sign * similarity),
        "multiply the whole logit by the sign, bias included": siglip(sign * similarity + bias),
        "that is CLIP's softmax, where captions compete; here each pair stands alone": clip,
    }
    yield Case((image, text, index, scale, bias), right, mistakes)

"""Exercises of notebook 02, the image tokenizer."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checking import Case, Cases, Chance, exercise


@exercise("correct: all squared distances; one product of matrices is enough")
def check_squared_distances(chance: Chance) -> Cases:
    """`function(features [N, C], codebook [K, C]) -> [N, K]`: squared Euclidean distances."""
    generator = chance.generator(2)
    features = torch.randn(6, 4, generator=generator)
    codebook = torch.randn(9, 4, generator=generator)
    own, theirs = features.square().sum(1)[:, None], codebook.square().sum(1)  # [N, 1] and [K]
    products = features @ codebook.T  # [N, K]
    right = own - 2 * products + theirs
    mistakes = {
        "those are the distances; leave the root out": right.clamp_min(0).sqrt(),
        "the product enters with a minus: similar vectors are near": own + 2 * products + theirs,
        "(a - b)² = a² - 2ab + b²: the product counts twice": own - products + theirs,
        "the squared length of the feature is missing": theirs - 2 * products,
        "the squared length of the code is missing": own - 2 * products,
        "add up the squares over C; a mean divides by C": right / features.shape[1],
        "rows are features, columns are codes": right.T,
        "those are the nearest codes; return all distances": right.argmin(1),
        "that is the cosine, as on the page; distances depend on lengths": F.normalize(features)
        @ F.normalize(codebook).T,
    }
    yield Case((features, codebook), right, mistakes)


def entropy(counts: Tensor) -> Tensor:
    """In bits, of counts of any shape."""
    share = counts / counts.sum()
    return -(share[share > 0] * share[share > 0].log2()).sum()


@exercise("correct: one code gives so many bits about the digit, on average")
def check_shared_bits(chance: Chance) -> Cases:
    """`function(codes [N], labels [N], codebook_size) -> float`: mutual information in bits."""
    generator = chance.generator(3)
    for size in (5, 30, 600):  # fewer and more than the 512 of the page
        labels = torch.randint(10, (300,), generator=generator)
        noise = torch.randint(size, (300,), generator=generator)
        known = torch.rand(300, generator=generator) < 0.6
        # Codes of even digits are 512 above those of the next digit, if the codebook is so large.
        codes = torch.where(known, (7 * (labels | 1) + 512 * (1 - labels % 2)) % size, noise)
        joint = torch.zeros(size, 10)
        joint.index_put_((codes, labels), torch.ones(300), accumulate=True)
        of_codes, of_labels, of_both = entropy(joint.sum(1)), entropy(joint.sum(0)), entropy(joint)
        right = of_codes + of_labels - of_both
        zeros = joint / joint.sum()
        mixed = entropy((512 * labels + codes).bincount().float())
        mistakes = {
            "that is in nats; one bit is ln 2 nats": right * math.log(2),
            "that is the entropy of the digits alone; what does the code add?": of_labels,
            "that is the entropy of the codes alone; which part is about the digit?": of_codes,
            "that is the entropy of both together": of_both,
            "that is what stays unknown about the digit, H(digit | code)": of_both - of_codes,
            "that is what stays unknown about the code, H(code | digit)": of_both - of_labels,
            "the sign is wrong: a mutual information is never negative": -right,
            "the result is NaN: leave empty pairs out, 0 · log 0 counts as 0": (
                zeros * (zeros / zeros.sum(1, keepdim=True) / zeros.sum(0)).log2()
            ).sum(),
            "that is a share of the digit's bits; do not divide": right / of_labels,
            "different pairs get one number: there may be more than 512 codes": (
                of_codes + of_labels - mixed
            ),
        }
        yield Case((codes, labels, size), right, mistakes)


def siglip(image: Tensor, text: Tensor, index: Tensor, scale: float) -> Tensor:
    """The loss of the page, without a bias."""
    sign = 2 * F.one_hot(index, len(text)) - 1
    return -F.logsigmoid(sign * (scale * image @ text.T)).sum(1).mean()


def clip(logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """The means over images and over captions that have an image, of logits `[B, N]`."""
    found = -logits.log_softmax(0)[torch.arange(len(index)), index]  # -log p(image | its caption)
    by_caption = [found[index == caption].mean() for caption in index.unique()]
    return F.cross_entropy(logits, index), torch.stack(by_caption).mean()


@exercise("correct: captions compete for an image, and images compete for a caption")
def check_clip(chance: Chance) -> Cases:
    """`function(image [B, E], text [N, E], index [B], scale) -> loss`: CLIP's, both directions."""
    generator = chance.generator(4)
    for scale in (3.0, 8.0):
        image, text = (F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (6, 5))
        index = torch.tensor([0, 3, 3, 4, 1, 3])  # caption 2 has no image, caption 3 has three
        logits = scale * image @ text.T
        first, second = clip(logits, index)
        # log p(image | its caption), [B]
        found = logits.log_softmax(0)[torch.arange(len(image)), index]
        sums = torch.zeros(len(text)).index_add(0, index, found)
        chances = torch.zeros(len(text)).index_add(0, index, found.exp())
        uses = index.bincount(minlength=len(text))
        used = uses > 0
        pairs = scale * image @ text[index].T  # a caption stands there once for each of its images
        mistakes = {
            "that is only one direction: images compete for each caption, too": first,
            "that is only one direction: captions compete for each image, too": second,
            "take the mean of the two directions, not their sum": first + second,
            "a caption counts once, however many images it has": (first - found.mean()) / 2,
            "captions without an image have no right answer: leave them out": (
                (first - (sums / uses.clamp_min(1)).mean()) / 2
            ),
            "of several images of a caption take the mean, not the sum": (
                (first - sums[used].mean()) / 2
            ),
            "take the mean of −log p over the images of a caption, not −log of the summed p": (
                (first - chances[used].log().mean()) / 2
            ),
            "each caption enters once: yours repeats a shared one, and its copies count as wrong": (
                sum(clip(pairs, torch.arange(len(image)))) / 2
            ),
            "the scale is missing": sum(clip(logits / scale, index)) / 2,
            "that is SigLIP's loss, where each pair stands alone": siglip(
                image, text, index, scale
            ),
        }
        yield Case((image, text, index, scale), (first + second) / 2, mistakes)

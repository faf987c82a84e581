"""Fill in a hidden part of a digit: what does autoregression do with the codes that come later?

A part of the codes of test digits is hidden, and `mnist` (blocks of 16) and `mnist-ar` (block size
1) fill it in. Codes are read row by row, so autoregression sees only what stands before a code:

- `mnist`: `Uni.inpaint`, two codes a pass; `one code a pass`; `likeliest`: temperature 0;
- `mnist-ar, what is before`: each hidden code after those before it, and the given ones are put
  back; also with temperature 0;
- `mnist-ar, best of 16`: of 16 such fillings the one whose whole image is likeliest, given codes
  after the hole included;
- `mnist-ar, 16 weighed`: one of the 16 at random, with weights that are the probability of the
  given codes. With more and more fillings this samples p(hidden | shown) of the model itself
  (importance resampling).

`kept` decodes the true codes: the tokenizer's own mistakes. Right is the digit that the judge reads
in the filled image; `caption` says that thickness and slant, measured by pixels, are right as well.
`passes` wait for one another, and `positions` are read in them, for one image. No caption is given.
About six minutes on one core; notebook 16 shows the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .. import batching, layout
from ..datasets import mnist
from ..datasets.table import MNIST
from ..diffusion import masked_cross_entropy
from ..measure.intervals import fraction
from ..model import Backbone
from ..objectives import hide
from ..tasks.filling import hole
from ..uni import Uni
from ..writer import BATCH_SIZE
from .runner import Experiment, Lab, Point, main

HOLES = ("upper half", "left half", "middle", "lower half")
TRIES = 16  # fillings, of which one is chosen
IMAGES = 250
WAYS: dict[str, dict[str, Any]] = {  # of `mnist`
    "mnist": {},
    "mnist, one code a pass": {"steps": 16},
    "mnist, likeliest": {"temperature": 0.0},
}
BEFORE: dict[str, dict[str, Any]] = {  # of `mnist-ar`
    "mnist-ar, what is before": {},
    "mnist-ar, what is before, likeliest": {"temperature": 0.0},
}


@torch.no_grad()
def nats_of_codes(ar: Uni, codes: Tensor) -> Tensor:
    """−log p `[N, h · w]` of each code after the prompt and the codes before it: block size 1."""
    rows = []
    for part in torch.arange(len(codes)).split(BATCH_SIZE):
        sequences = [layout.draw_sequence(ar.vocab, None, grid) for grid in codes[part]]
        batch = batching.collate(sequences, ar.vocab, 1)
        is_code = batch.targets & ar.vocab.is_image()[batch.ids]  # [n, L]
        view = hide(batch.ids, is_code, 1, ar.vocab.mask_id)
        rows.append(masked_cross_entropy(ar.backbone, batch, view, 1).view(len(part), -1))
    return torch.cat(rows)


def rerank(ar: Uni, codes: Tensor, hidden: Tensor, tries: int) -> dict[str, Tensor]:
    """Codes `[N, h, w]` by name: one of `tries` fillings of each image, chosen in two ways."""
    repeated = codes.repeat_interleave(tries, 0)  # [N · tries, h, w]
    filled = ar.inpaint_traced(repeated, hidden, seed=1).codes
    nats = nats_of_codes(ar, filled).view(len(codes), tries, -1)  # [N, tries, h · w]
    best = nats.sum(2).argmin(1)  # [N], the likeliest image as a whole
    weights = (-nats[:, :, ~hidden.flatten()].sum(2)).softmax(1)  # [N, tries], of what is given
    drawn = weights.multinomial(1, generator=torch.Generator().manual_seed(0))[:, 0]
    each, fillings = torch.arange(len(codes)), filled.unflatten(0, (-1, tries))
    return {
        f"mnist-ar, best of {tries}": fillings[each, best],
        f"mnist-ar, {tries} weighed": fillings[each, drawn],
    }


@contextmanager
def counting(backbone: Backbone) -> Iterator[dict[str, int]]:
    """Count the forward passes in the `with` block, and their positions over all rows."""
    found, inner = {"passes": 0, "positions": 0}, backbone.hidden_states

    def counted(ids: Tensor, *rest: Any, **named: Any) -> Tensor:
        found["passes"] += 1
        found["positions"] += ids.numel()
        return inner(ids, *rest, **named)

    backbone.hidden_states = counted  # type: ignore
    try:
        yield found
    finally:
        del backbone.hidden_states


def all_ways(
    uni: Uni, ar: Uni, codes: Tensor, hidden: Tensor, tries: int
) -> Iterator[tuple[list[str], dict[str, Tensor], dict[str, int]]]:
    """Every way in turn: its names, the codes by name, and what it cost."""
    for model, ways in ((uni, WAYS), (ar, BEFORE)):
        for name, sampling in ways.items():
            with counting(model.backbone) as cost:
                filled = model.inpaint_traced(codes, hidden, seed=1, **sampling).codes
            yield [name], {name: filled}, cost
    with counting(ar.backbone) as cost:
        chosen = rerank(ar, codes, hidden, tries)
    yield list(chosen), chosen, cost


def fill(lab: Lab, part: str, images: int, tries: int) -> dict[str, dict]:
    """For each way: the share of right digits and of right captions, and the cost of one image."""
    uni, ar, judge = lab.load("mnist"), lab.load("mnist-ar"), lab.judge()
    test = mnist.load_mnist("test")
    shown, labels = test.floats(slice(0, images)), test.labels[:images]
    wanted = MNIST.classes(shown, labels)  # [N, 3]: digit, thickness, slant
    codes, hidden = uni.encode(shown), hole(part, uni.tokenizer.grid, uni.tokenizer.grid)

    def marks(filled: Tensor) -> dict[str, Any]:
        drawn = uni.decode(filled)
        said = judge.classify(drawn)
        same = (MNIST.classes(drawn, said) == wanted).all(1)
        return fraction("digit", said == labels) | fraction("caption", same)

    report: dict[str, dict] = {"kept": marks(codes)}
    for _, chosen, _ in all_ways(uni, ar, codes, hidden, tries):
        for name, filled in chosen.items():
            report[name] = marks(filled)
    # One image alone: its passes wait for one another, and only its own positions are counted.
    for names, _, cost in all_ways(uni, ar, codes[:1], hidden, tries):
        for name in names:
            report[name] |= cost
    return report


POINTS = []
for part in HOLES:
    settings = {"part": part, "images": IMAGES, "tries": TRIES}
    POINTS.append(Point(("without a caption", part), fill, settings))
FACTS = {"holes": HOLES, "tries": TRIES, "images": IMAGES}
EXPERIMENT = Experiment(__file__, __doc__, POINTS, FACTS)

if __name__ == "__main__":
    main(EXPERIMENT)

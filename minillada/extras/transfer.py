"""Starting a model from weights with other codes or ids, or its image rows from a codebook.

LLaDA2.0-Uni (arXiv 2604.20796) grows out of a text model: text rows of embedding and head are kept,
new rows start at random. Here the image codes may change as well.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from ..model import Backbone
from ..vocab import Vocabulary


@torch.no_grad()
def start_image_rows(backbone: Backbone, codebook: Tensor, offset: int) -> None:
    """Start the image rows of embedding and head, from row `offset` on, at a codebook `[K, C]`.

    Similar codes get similar logits: what is learned about one code is learned about its neighbours
    from the first step on. The mean, which tells no code from another, is taken out. A random
    projection lifts C dimensions to the hidden size and keeps angles approximately.
    """
    centred = codebook - codebook.mean(0)
    centred = centred / centred.norm(dim=1).mean()
    config = backbone.config
    for rows in (backbone.model.word_embeddings.weight, backbone.lm_head.weight):
        projection = torch.randn(codebook.shape[1], config.hidden_size) * config.initializer_range
        rows[offset : offset + len(codebook)] = centred @ projection


def grown(old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """`old` with codebooks enlarged to the size, and residual blocks to the depth, of `new`.

    Old codes keep their numbers; further ones stay as they are in `new`. Codes of another length
    stay old, and loading refuses them. What is deeper in `new` (`vq.ResidualBlock.more`) stays new.
    """
    deeper = {key: value for key, value in new.items() if ".more." in key}
    enlarged = deeper | old
    for key, rows in old.items():
        fits = key in new and rows.shape[1:] == new[key].shape[1:]
        if key.startswith("codebook.") and fits:
            enlarged[key] = torch.cat([rows, new[key][len(rows) :]])
    return enlarged


def nearest_codes(old: Tensor, new: Tensor) -> Tensor:
    """The nearest code `[K]` of a codebook `[N, C]` to each of another one `[K, C]`.

    It says something only if one tokenizer was trained on from the other, or from the same weights.
    `ValueError` if codes of the two have different lengths C.
    """
    if old.shape[1] != new.shape[1]:
        raise ValueError(
            f"codes of {old.shape[1]} and of {new.shape[1]} numbers cannot be compared; leave "
            "--start out, or give both tokenizers the same code_dim"
        )
    return (new @ old.T).argmax(dim=1)  # codes have length 1: the nearest has the largest product


def ancestors(info: dict[str, Any]) -> set[str | None]:
    """SHA-256 of weights and of all they began from, by their JSON; None for unknown ones."""
    found = {info.get("sha256")}
    while "start" in info:
        found.add(info.get("start_sha256"))  # older files do not say it
        info = info["start"]
    return found


def warn_of_strange_codes(start: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    """A warning if two tokenizers share no weights: neither their own nor any they began from."""
    first, second = ancestors(old), ancestors(new)
    if not first & second and None not in first | second:
        warnings.warn(
            f"the image tokenizer of {start} and the new one were trained apart, so what {start} "
            "learned of codes is lost; train the new one on from the old one, or leave --start out",
            stacklevel=2,
        )


def translated(
    old: dict[str, Tensor],
    new: dict[str, Tensor],
    vocabs: tuple[Vocabulary, Vocabulary],
    codebooks: tuple[Tensor, Tensor],
) -> dict[str, Tensor]:
    """`old` with the rows of embedding and head moved from one vocabulary to another.

    `vocabs` and `codebooks` `[K, C]` are (old, new). A text piece keeps its row, wherever it stands
    now, and a new piece starts at random, as in `new`. An image code starts at the row of the old
    code that is nearest to it. Rows of another length stay old, and loading refuses them.
    `ValueError` if the codes have another length.
    """
    source, target = vocabs
    # 1. Text pieces that both vocabularies have: their places in the old and in the new one.
    old_places, new_places = [], []
    for place in range(target.image_token_offset):
        known = source.token_id(target.token(place))
        if known is not None:
            old_places.append(known)
            new_places.append(place)

    # 2. The nearest old code of every new one.
    nearest = nearest_codes(*codebooks) + source.image_token_offset  # [K]

    # 3. The same move for the input rows and for the output rows.
    moved = {}
    for key in ("model.word_embeddings.weight", "lm_head.weight"):
        if old[key].shape[1] != new[key].shape[1]:
            continue
        rows = new[key].clone()  # [V, H]
        rows[new_places] = old[key][old_places]
        rows[target.image_token_offset :] = old[key][nearest]
        moved[key] = rows
    return old | moved

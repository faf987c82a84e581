"""Starting a model from the weights of another with a smaller codebook or another vocabulary.

LLaDA2.0-Uni (arXiv 2604.20796) grows out of a text model in this way: text rows are kept, new rows of embedding and head start at
random. Here the image codes may change as well, and a new code starts at the row of the old one that is nearest to it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..vocab import Vocabulary


def grown(old: dict[str, Tensor], new: dict[str, Tensor]) -> dict[str, Tensor]:
    """`old` with codebooks enlarged to the size they have in `new`: old codes keep their numbers, further ones stay new."""
    enlarged = {k: torch.cat([v, new[k][len(v) :]]) for k, v in old.items() if k.startswith("codebook.") and k in new}
    return old | enlarged


def translated(
    old: dict[str, Tensor], new: dict[str, Tensor], vocabs: tuple[Vocabulary, Vocabulary], codebooks: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """`old` with the rows of embedding and head moved from one vocabulary to another; `vocabs` and `codebooks` `[K, C]` are (old, new).

    A text piece keeps its row, wherever it stands now, and a new one starts at random, as in `new`. An image code starts at the
    row of the old code that is nearest to it.
    """
    source, target = vocabs
    text = [(i, source.token_id(target.token(i))) for i in range(target.image_token_offset)]
    known = [(i, j) for i, j in text if j is not None]
    nearest = (codebooks[1] @ codebooks[0].T).argmax(1) + source.image_token_offset
    moved = {}
    for key in ("model.word_embeddings.weight", "lm_head.weight"):
        rows = new[key].clone()
        rows[[i for i, _ in known]] = old[key][[j for _, j in known]]
        rows[target.image_token_offset :] = old[key][nearest]
        moved[key] = rows
    return old | moved

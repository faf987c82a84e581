"""Guidance: one prompt in several branches, and how the logits of the branches mix.

A branch is the prompt, whole or with something left out: the caption, the instruction or the
image. Where the logits of two branches differ, the part left out is the reason. Guidance makes this
difference larger (Ho & Salimans, arXiv 2207.12598; for edits: InstructPix2Pix, arXiv 2211.09800).

Notable choices
- As in the official code, shorter branches are padded on the left and longer ones are cut from the
  left. Attention does not see the padding, and real tokens count their positions from 0. Blocks
  are counted with the padding: after 2 of padding, the first block of 4 has only 2 real tokens.
- The prefix cache (keys and values of finished tokens) may be pruned by any object with the methods
  of `Pruner` (`extras/sprint.py` is one).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .batching import padded_length
from .config import SamplingConfig
from .masks import block_causal_mask
from .model import Backbone, KVCache


class Pruner(Protocol):
    """What shortens the prefix cache of `Branches`, whose branches have R rows together."""

    warmup: int  # how many steps of a block, at least one, see the whole prefix

    def begin(self, rows: int, device: torch.device) -> None:
        """Forget the last generation."""

    def remember(self, logits: Tensor, ids: Tensor) -> None:
        """Tokens `[R, n]` have joined the prefix; their logits are `[R, n, V]`."""

    def prune(self, full: KVCache, padding: Tensor) -> tuple[KVCache, Tensor]:
        """A shorter cache, and which of its places hold nothing (bool `[R, kept]`).

        The first `padding` `[R, 1]` places of a row of the full cache are no tokens.
        """


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: u + s (c − u), with the initials of the parameters."""
    if scale == 1:
        return conditional  # u + (c − u) = c only up to rounding
    return unconditional + scale * (conditional - unconditional)


def guide_edit(
    full: Tensor, no_text: Tensor, no_image: Tensor, scale_text: float, scale_image: float
) -> Tensor:
    """Three-way guidance of editing: nt + s_text (full − nt) + s_image (nt − ni)."""
    return no_text + scale_text * (full - no_text) + scale_image * (no_text - no_image)


def rescale(guided: Tensor, conditional: Tensor, phi: float) -> Tensor:
    """φ g std(c) / std(g) + (1 − φ) g with g = guided, c = conditional; logits `[N, V]`.

    `std` is over the vocabulary. Guidance makes std(g) too large, so the model looks too sure.
    """
    ratio = conditional.std(-1, keepdim=True) / (guided.std(-1, keepdim=True) + 1e-6)
    return phi * guided * ratio + (1 - phi) * guided


def guided_logits(branches: Sequence[Tensor], config: SamplingConfig) -> Tensor:
    """One set of logits `[N, V]` from those of one, two or three branches."""
    full, *others = branches
    if not others:
        return full  # no guidance
    if len(others) == 1:
        guided = guide(full, others[0], config.guidance)
    else:
        no_text, no_image = others
        guided = guide_edit(full, no_text, no_image, config.guidance, config.guidance_image)
    return rescale(guided, full, config.rescale) if config.rescale else guided


def needed_branches(others: Sequence[Tensor], config: SamplingConfig) -> list[Tensor]:
    """Those of the `others` that the scales need: none, `[unconditional]`, `[no_text, no_image]`.

    `ValueError` for a scale that has no branch to compare with.
    """
    three_way = config.guidance_image != 0  # a scale of 0 changes nothing
    two_way = config.guidance != 1  # a scale of 1 changes nothing
    if two_way and not others:
        raise ValueError(
            f"guidance {config.guidance:g} has nothing to compare with: there is no prompt without "
            "its condition (`others`); leave guidance at 1"
        )
    if three_way and len(others) != 2:
        raise ValueError(
            f"guidance_image {config.guidance_image:g} compares a prompt without text with one "
            "without image, as edits and stories have them; leave guidance_image at 0"
        )
    if three_way:
        return list(others)
    return list(others[:1]) if two_way else []


def padding_of(start: int, length: int, config: SamplingConfig) -> int:
    """Padding before a prompt of `start` tokens; 0 unless `gather` asks for the fewest blocks."""
    # Prompt PPPPP, answer AAAA, blocks of 4:  PPPP|PAAA|A  With padding of 3:  ...P|PPPP|AAAA
    size, before = config.block_size, start % config.block_size  # P in the block of the first A
    if not config.gather or padded_length(before + length, size) == padded_length(length, size):
        return 0  # the fewest blocks already
    return -start % size  # the answer then begins with a block


def visible(queries: Tensor, keys: Tensor, block_size: int, padding: Tensor | None) -> Tensor:
    """Block-causal mask `[R or 1, Q, K]` without the `padding` `[R, 1]` of each row."""
    mask = block_causal_mask(queries, keys, block_size)  # [1, Q, K]
    if padding is not None:
        real = (keys >= padding)[:, None, :]  # [R, 1, K]
        # A query in the padding must see something, or its softmax is 0 / 0: it sees itself.
        itself = (queries[:, None] == keys)[None]  # [1, Q, K]
        mask = (mask & real) | itself
    return mask


class Branches:
    """Logits of one block for G branches, run as one batch of R = G · B rows over one cache.

    Rows are ordered by branch. The first branch is the prompt itself, `[B, P]`; the others are
    `[1 or B, P']`. All are padded on the left, or cut, to the same length, P + shift.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompts: Sequence[Tensor],
        block_size: int,
        pad_id: int,  # any id will do, because attention never sees the padding
        cache: KVCache | None = None,
        pruner: Pruner | None = None,
        shift: int = 0,  # padding of the first branch, which moves the borders of the blocks
    ):
        self.backbone, self.cache, self.pruner = backbone, cache, pruner
        self.block_size, self.branch_count = block_size, len(prompts)  # the latter is G
        rows, length = prompts[0].shape  # B, P
        self.start = length + shift  # the answer starts where the prompt ends
        branches, padding = [], []
        for prompt in prompts:  # the last P + shift tokens, or all of them behind padding
            prompt = prompt[:, max(prompt.shape[1] - self.start, 0) :].expand(rows, -1)
            missing = self.start - prompt.shape[1]
            filler = torch.full((rows, missing), pad_id, device=prompt.device)
            branches.append(torch.cat([filler, prompt], 1))  # [B, P + shift]
            padding += [missing] * rows
        self.prefix = torch.cat(branches)  # [R, P + shift]
        self.padding = torch.tensor(padding, device=self.prefix.device)[:, None]  # [R, 1]
        self.padded = any(padding)  # known here: asking the tensor would wait for a GPU
        self.pruned: tuple[KVCache, Tensor] | None = None
        if pruner:
            pruner.begin(len(self.prefix), self.prefix.device)

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor:
        """The function `visible`, for the padding of these branches."""
        return visible(queries, keys, self.block_size, self.padding if self.padded else None)

    def logits(self, canvas: Tensor, first: int, step: int, where: Tensor) -> list[Tensor]:
        """Logits `[N, V]` of the block at `first`, for each branch.

        Of `canvas` `[B, ...]` only the answer so far is read: a branch has its own prompt. `step`
        counts the steps of the block; `where` `[B, block]` is True at the N positions asked about.
        """
        asked = where.repeat(self.branch_count, 1)  # [R, block]: the same positions in every branch
        if self.pruner and step >= self.pruner.warmup:  # early steps see the whole prefix
            hidden = self.pruned_states(canvas, first, step, asked)
        else:
            hidden = self.states(canvas, first, asked)
        return list(self.backbone.logits(hidden).chunk(self.branch_count))

    def states(self, canvas: Tensor, first: int, asked: Tensor) -> Tensor:
        """States `[G · N, H]` of the block at `first`, where `asked` `[R, block]` is True."""
        end = first + self.block_size
        known = self.cache.length if self.cache else 0  # tokens that need no forward pass any more
        new = first - known  # tokens in front of the block that are final, but not in the cache yet

        # 1. What each branch reads.
        ids = self.read(canvas, known, end)  # [R, new + block]

        # 2. Where these tokens stand, and what each of them may see.
        index = torch.arange(end, device=canvas.device)
        positions = (index[known:] - self.padding).clamp_min(0)  # [R, new + block]
        # The tokens of the block alone see every key, so they need no mask.
        mask = None if new == 0 and not self.padded else self.visible(index[known:], index)

        # 3. One forward pass; the new tokens join the cache. A pruner wants their states, too.
        wanted = F.pad(asked, (new, 0), value=self.pruner is not None)  # [R, new + block]
        hidden = self.backbone.hidden_states(ids, mask, positions, self.cache, new, wanted)
        if self.pruner and new > 0:
            column = wanted.nonzero()[:, 1]  # where each state stands
            front = column < new  # the states of the new tokens; the others are the block's
            states = hidden[front].unflatten(0, (-1, new))  # [R, new, H]
            self.pruner.remember(self.backbone.logits(states), ids[:, :new])
            hidden = hidden[~front]
        return hidden

    def pruned_states(self, canvas: Tensor, first: int, step: int, asked: Tensor) -> Tensor:
        """`states` from a shorter cache, which is made once a block, after the warm-up."""
        assert self.pruner and self.cache
        if step == self.pruner.warmup:
            self.pruned = self.pruner.prune(self.cache, self.padding)
        assert self.pruned
        cache, empty = self.pruned  # empty: [R, kept]
        # 1. The block alone is read; its tokens keep their positions in the full sequence.
        end = first + self.block_size
        ids = self.read(canvas, first, end)  # [R, block]
        index = torch.arange(first, end, device=canvas.device)
        positions = (index - self.padding).clamp_min(0)

        # 2. The block sees every place of the short cache that holds a token, and itself.
        own = self.visible(index, index)  # [R or 1, block, block]
        seen = ~empty[:, None].expand(-1, self.block_size, -1)  # [R, block, kept]
        mask = torch.cat([seen, own.expand(len(seen), -1, -1)], 2)  # [R, block, kept + block]
        # `keep=0`: the block is not final, so nothing joins the cache.
        return self.backbone.hidden_states(ids, mask, positions, cache, keep=0, where=asked)

    def read(self, canvas: Tensor, begin: int, end: int) -> Tensor:
        """Ids `[R, end − begin]`: each branch has its own prompt, and all share the answer."""
        answer = canvas[:, self.start : end].repeat(self.branch_count, 1)
        return torch.cat([self.prefix, answer], 1)[:, begin:end]


def open_branches(
    backbone: Backbone,
    prompt: Tensor,
    config: SamplingConfig,
    pad_id: int,
    others: Sequence[Tensor],
    cache: bool | Pruner,
    shift: int = 0,
) -> Branches:
    """The prompt and the branches that the scales need; an empty cache unless `cache` is False."""
    prompts = [prompt, *needed_branches(others, config)]
    pruner = None if isinstance(cache, bool) else cache  # it shortens a cache, so there is one
    store = KVCache(backbone.config.num_hidden_layers) if cache else None
    return Branches(backbone, prompts, config.block_size, pad_id, store, pruner, shift)

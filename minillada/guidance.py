"""Guidance branches, and how their logits mix."""

from __future__ import annotations

import torch
from torch import Tensor

from .config import SamplingConfig
from .extras.sprint import Sprint
from .masks import block_causal_mask
from .model import Backbone, KVCache


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: u + s (c − u); scale 1 returns the conditional logits."""
    return conditional if scale == 1 else unconditional + scale * (conditional - unconditional)


def guide_edit(full: Tensor, no_text: Tensor, no_image: Tensor, scale_text: float, scale_image: float) -> Tensor:
    """Three-way guidance of editing: nt + s_text (full − nt) + s_image (nt − ni)."""
    return no_text + scale_text * (full - no_text) + scale_image * (no_text - no_image)


def rescale(guided: Tensor, conditional: Tensor, phi: float) -> Tensor:
    """φ z std(c) / std(z) + (1 − φ) z, std over the vocabulary: guidance overshoots, this takes the spread back; `[B, n, V]`."""
    spread = conditional.std(-1, keepdim=True) / (guided.std(-1, keepdim=True) + 1e-6)
    return phi * guided * spread + (1 - phi) * guided


class Branches:
    """Logits of one block for all guidance branches, run as one batch of `G · B` rows over one prefix cache.

    Rows are ordered by branch, the conditional one first. A branch is the prompt `[B, P]` or a shorter one `[1 or B, P']`.
    """

    def __init__(
        self, backbone: Backbone, prompts: list[Tensor], config: SamplingConfig, pad_id: int, cache: KVCache | None, sprint: Sprint | None
    ):
        self.backbone, self.block, self.cache, self.sprint = backbone, config.block_size, cache, sprint
        rows, self.start = prompts[0].shape
        self.count = len(prompts)
        padded, padding = [], []
        for prompt in prompts:
            missing = self.start - prompt.shape[1]
            if missing < 0:
                raise ValueError(
                    "a guidance prompt is longer than the prompt; it is padded on the left to the same length, so it must not be"
                )
            filler = torch.full((rows, missing), pad_id, device=prompt.device)  # never seen: hidden by the attention mask
            padded.append(torch.cat([filler, prompt.expand(rows, -1)], 1))
            padding += [missing] * rows
        if sprint:
            sprint.begin(len(padding), prompts[0].device)
        self.prefix = torch.cat(padded)
        self.padding = torch.tensor(padding, device=self.prefix.device)[:, None]

    def visible(self, queries: Tensor, keys: Tensor) -> Tensor | None:
        """Block-causal mask without the padding `[G · B or 1, Q, K]`, or None where everything may be seen."""
        if len(queries) <= self.block and not self.padding.any() and int(keys[-1]) // self.block == int(queries[0]) // self.block:
            return None
        mask = block_causal_mask(queries, keys, self.block)
        if self.padding.any():
            # A padding query must see something, if only itself.
            mask = mask & (keys >= self.padding)[:, None, :] | (queries[:, None] == keys)[None]
        return mask

    def logits(self, canvas: Tensor, first: int, step: int) -> list[Tensor]:
        """Logits `[B, block, V]` of the block at `first` for each branch; `canvas` `[B, ≥ first + block]` holds the ids so far."""
        last = first + self.block
        if self.sprint and step >= self.sprint.warmup:
            return self._pruned_logits(canvas, first, step)
        known = self.cache.length if self.cache else 0
        ids = torch.cat([self.prefix[:, known:], canvas[:, max(known, self.start) : last].repeat(self.count, 1)], 1)[:, : last - known]
        index = torch.arange(last, device=canvas.device)
        positions = (index[known:] - self.padding).clamp_min(0)
        mask = self.visible(index[known:], index)
        hidden = self.backbone.hidden_states(ids, mask, positions, self.cache, keep=first - known)
        if self.sprint and first > known:
            self.sprint.remember(self.backbone.logits(hidden[:, : first - known]), ids[:, : first - known])
        return list(self.backbone.logits(hidden[:, first - known :]).chunk(self.count))

    def _pruned_logits(self, canvas: Tensor, first: int, step: int) -> list[Tensor]:
        """The same from a cache that keeps only the positions SPRINT finds important, chosen once a block."""
        if step == self.sprint.warmup:
            self.sprint.prune(self.cache, self.padding)
        own = torch.arange(first, first + self.block, device=canvas.device)
        mask = None
        if self.sprint.hidden.any():
            mask = torch.cat([~self.sprint.hidden, torch.ones_like(self.sprint.hidden[:, :1]).expand(-1, self.block)], 1)[:, None].expand(
                -1, self.block, -1
            )
        hidden = self.backbone.hidden_states(
            canvas[:, first : first + self.block].repeat(self.count, 1), mask, own - self.padding, self.sprint.cache, keep=0
        )
        return list(self.backbone.logits(hidden).chunk(self.count))


def combine(branches: list[Tensor], config: SamplingConfig) -> Tensor:
    """One set of logits from those of one, two or three branches."""
    if len(branches) == 1:
        return branches[0]
    guided = guide(*branches, config.guidance) if len(branches) == 2 else guide_edit(*branches, config.guidance, config.guidance_image)
    return rescale(guided, branches[0], config.rescale) if config.rescale else guided

"""Levenshtein editing (LLaDA2.2): a model that may also delete and insert, so that a draft can change its length.

At every token of a draft the model names a token of the vocabulary or one of two operations:
  the same token: keep · another token: substitute · DELETE: drop it, what follows shifts left · INSERT: put a mask before it.
A round applies all of them at once, then the block is padded or cut to its length. The next round sees the masks and fills them.

Notable choices
- The right operations come from a longest common subsequence (LCS) of draft and target. Between two matched tokens, draft and
  target are paired in order; what the draft has too much is deleted, and for what it lacks one mask a round is inserted before
  the next matched token, the anchor. Both end with the end of text, which anchors what is missing at the end.
- DELETE and INSERT are the bytes 0xFE and 0xFF, which no UTF-8 text contains (`Vocabulary`): the vocabulary need not grow.
- The model was asked nothing new: labels are tokens at the position itself, so training is one forward pass and cross-entropy.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..batching import Batch, collate
from ..layout import Sequence
from ..masks import block_causal_mask
from ..model import Backbone
from ..vocab import Vocabulary


def align(draft: list[int], target: list[int], delete_id: int, insert_id: int) -> list[int]:
    """The right label of every token of `draft`; both end with the same token. A mask in the draft matches nothing."""
    if not draft or not target or draft[-1] != target[-1]:
        raise ValueError("draft and target must end with the same token, which anchors what is missing before it; append the end of text")
    n, m = len(draft) - 1, len(target) - 1
    longest = [[0] * (m + 1) for _ in range(n + 1)]  # LCS of draft[i:n] and target[j:m]
    for i in reversed(range(n)):
        for j in reversed(range(m)):
            same = draft[i] == target[j]
            longest[i][j] = longest[i + 1][j + 1] + 1 if same else max(longest[i + 1][j], longest[i][j + 1])
    anchors, i, j = [], 0, 0
    while i < n and j < m:
        if draft[i] == target[j]:
            anchors.append((i, j))
            i, j = i + 1, j + 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            i += 1
        else:
            j += 1
    labels, i, j = list(draft), 0, 0
    for anchor, partner in [*anchors, (n, m)]:
        have, want = range(i, anchor), range(j, partner)
        for k, place in enumerate(have):
            labels[place] = target[want[k]] if k < len(want) else delete_id
        if len(want) > len(have):
            labels[anchor] = insert_id
        i, j = anchor + 1, partner + 1
    return labels


def apply_labels(ids: Tensor, labels: Tensor, delete_id: int, insert_id: int, mask_id: int, pad_id: int) -> Tensor:
    """One round: `ids` `[B, n]` after the operations `labels` `[B, n]`, padded or cut to n tokens."""
    insert, keep = labels == insert_id, labels != delete_id
    end = (keep.long() + insert).cumsum(1)  # how many tokens there are up to and including what this one becomes
    length = ids.shape[1]
    out = torch.full((len(ids), length + 1), pad_id, device=ids.device)  # the last column collects what is cut
    for chosen, place, value in ((insert, end - 2, torch.full_like(ids, mask_id)), (keep, end - 1, torch.where(insert, ids, labels))):
        out.scatter_(1, torch.where(chosen, place.clamp_max(length), length), value)
    return out[:, :length]


def plant_errors(tokens: list[int], pool: list[int], rate: float, mask_id: int, generator: torch.Generator) -> list[int]:
    """`tokens` with errors: each is, with probability `rate`, dropped, replaced, masked, or preceded by one of the `pool`, in equal parts."""
    draft = []
    for token, kind in zip(tokens, torch.rand(len(tokens), generator=generator).tolist(), strict=True):
        other = pool[int(torch.randint(len(pool), (), generator=generator))]
        error = math.floor(4 * kind / rate) if rate and kind < rate else None
        draft += {None: [token], 0: [], 1: [other], 2: [mask_id], 3: [other, token]}[error]
    return draft


def plant(batch: Batch, vocab: Vocabulary, block_size: int, rate: float, generator: torch.Generator) -> tuple[Batch, Tensor] | None:
    """Drafts with errors instead of the answers of a batch, and their labels `[B', L]`; None if no answer is a text within one block."""
    if not 0 <= rate <= 1:
        raise ValueError(f"planted_errors is the share of an answer's tokens that get an error; use 0 to 1, not {rate}")
    if batch.documents is not None:
        raise ValueError("errors are planted into one sequence a row; set pack_length or planted_errors to 0")
    text = ~(vocab.is_image().to(batch.ids.device)[batch.ids] & batch.real).any(1)
    in_block = batch.targets.int().argmax(1) // block_size == (batch.ids.shape[1] - 1) // block_size
    rows = (text & in_block).nonzero().flatten().tolist()
    answers = {row: batch.ids[row, batch.real[row]].tolist() for row in rows}
    pool = sorted({token for answer in answers.values() for token in answer[:-1]})
    if not pool:
        return None
    sequences, labels = [], []
    for row, answer in answers.items():
        start = int(batch.targets[row].int().argmax())
        room = batch.ids.shape[1] - start - 1
        draft = plant_errors(answer[:-1], pool, rate, vocab.mask_id, generator)[:room] + answer[-1:]
        sequences.append(Sequence(batch.ids[row, :start].tolist() + draft, start))
        labels.append(align(draft, answer, vocab.delete_id, vocab.insert_id))
    planted = collate(sequences, vocab, batch.ids.shape[1])
    wanted = planted.ids.clone()
    wanted[planted.real] = torch.tensor([label for row in labels for label in row])
    return planted, wanted


def draft_loss(backbone: Backbone, batch: Batch, vocab: Vocabulary, block_size: int, rate: float, generator: torch.Generator) -> Tensor:
    """Mean cross-entropy of the right labels over the drafts planted into a training batch, padding included; 0 if there are none."""
    device = backbone.lm_head.weight.device
    planted = plant(batch, vocab, block_size, rate, generator)
    if planted is None:
        return torch.zeros((), device=device)
    (ids, targets, *_), labels = planted
    index = torch.arange(ids.shape[1], device=device)
    hidden = backbone.hidden_states(ids.to(device), block_causal_mask(index, index, block_size))
    return F.cross_entropy(backbone.logits(hidden[targets.to(device)]), labels[targets].to(device))


@torch.no_grad()
def repair(backbone: Backbone, prompt: Tensor, draft: Tensor, vocab: Vocabulary, rounds: int = 8) -> list[Tensor]:
    """Drafts `[B, n]` after `prompt` `[B, P]`, before and after each round, until nothing changes or `rounds` are over.

    The draft fills its block: P + n is a multiple of the block size and what follows the end of text is end of text.
    """
    block, length = backbone.config.block_size, prompt.shape[1] + draft.shape[1]
    if length % block or draft.shape[1] > block:
        raise ValueError(
            f"a draft of {draft.shape[1]} tokens behind {prompt.shape[1]} does not end with a block of {block}; pad it with end of text"
        )
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    index = torch.arange(length, device=prompt.device)
    possible = vocab.is_text().to(prompt.device)
    possible[[vocab.delete_id, vocab.insert_id, vocab.mask_id]] = torch.tensor([True, True, False], device=prompt.device)
    drafts = [draft]
    for _ in range(rounds):
        logits = backbone(torch.cat([prompt, drafts[-1]], 1), block_causal_mask(index, index, block))[:, prompt.shape[1] :]
        labels = logits.masked_fill(~possible, -math.inf).argmax(-1)
        edited = apply_labels(drafts[-1], labels, vocab.delete_id, vocab.insert_id, vocab.mask_id, vocab.eos_id)
        if torch.equal(edited, drafts[-1]):
            break
        drafts.append(edited)
    return drafts

"""Levenshtein editing (LLaDA2.2): a model that also deletes and inserts, so a draft changes length.

At every token of a draft the model names a token of the vocabulary, or one of two operations.
    the same token: keep · another token: substitute
    DELETE: drop it, what follows moves left · INSERT: put a mask before it
A round applies all labels at once; then the block is padded or cut to its length. The next round
sees the masks and fills them.

Notable choices
- The right labels come from a longest common subsequence (LCS) of draft and target. Between two
  matched tokens, draft and target are paired in order. Surplus tokens of the draft are deleted. If
  some are missing, one mask a round is inserted before the next matched token, the anchor. Both end
  with the end of text, which is the anchor of what is missing at the end.
- DELETE and INSERT are the bytes 0xFE and 0xFF, which no UTF-8 text contains (`Vocabulary`): the
  vocabulary need not grow.
- A label is a token at the position itself, as in masked diffusion. So training is one forward pass
  and cross-entropy.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ..batching import WHOLE, Batch, Portion, collate
from ..layout import TokenSequence
from ..masks import block_causal_mask
from ..model import Backbone
from ..vocab import Vocabulary

UNPACKED = "errors are planted into one sequence per row; set pack_length or planted_errors to 0"


def matched(draft: list[int], target: list[int]) -> list[tuple[int, int]]:
    """The pairs (place in draft, place in target) of a longest common subsequence, in order."""
    n, m = len(draft), len(target)
    # 1. longest[i][j]: the length of the LCS of draft[i:] and target[j:], from the ends on.
    longest = [[0] * (m + 1) for _ in range(n + 1)]
    for i in reversed(range(n)):
        for j in reversed(range(m)):
            if draft[i] == target[j]:
                longest[i][j] = longest[i + 1][j + 1] + 1
            else:
                longest[i][j] = max(longest[i + 1][j], longest[i][j + 1])

    # 2. From the starts on: take what matches, else skip where no match is lost.
    pairs, i, j = [], 0, 0
    while i < n and j < m:
        if draft[i] == target[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def align(draft: list[int], target: list[int], delete_id: int, insert_id: int) -> list[int]:
    """The right label of every token of `draft`. A mask in the draft matches nothing.

    `ValueError` unless both end with the same token.
    """
    if not draft or not target or draft[-1] != target[-1]:
        raise ValueError(
            "draft and target must end with the same token, which anchors what is missing before "
            "it; append the end of text"
        )
    labels = list(draft)  # a token that is its own label is kept
    anchors = [*matched(draft[:-1], target[:-1]), (len(draft) - 1, len(target) - 1)]
    i, j = 0, 0  # where the gap before the next anchor begins
    for anchor, partner in anchors:
        wanted = target[j:partner]
        for number, place in enumerate(range(i, anchor)):
            labels[place] = wanted[number] if number < len(wanted) else delete_id
        if len(wanted) > anchor - i:
            labels[anchor] = insert_id
        i, j = anchor + 1, partner + 1
    return labels


def apply_labels(
    ids: Tensor, labels: Tensor, delete_id: int, insert_id: int, mask_id: int, pad_id: int
) -> Tensor:
    """One round: `ids` `[B, n]` after the operations `labels` `[B, n]`; `[B, n]`, padded or cut."""
    inserted, kept = labels == insert_id, labels != delete_id
    # Every token becomes none, one or two; `end` counts those up to and including its own. So it
    # goes to place end - 1, and a mask before it to end - 2.
    end = (kept.long() + inserted.long()).cumsum(1)  # [B, n]
    out = torch.full((len(ids), ids.shape[1] + 1), pad_id, device=ids.device)
    put(out, end - 2, inserted, torch.full_like(ids, mask_id))
    put(out, end - 1, kept, torch.where(inserted, ids, labels))  # behind a mask the old token
    return out[:, :-1]  # what has no room is cut


def put(out: Tensor, places: Tensor, chosen: Tensor, values: Tensor) -> None:
    """Write the `chosen` of `values` `[B, n]` at their `places` in the rows of `out` `[B, n + 1]`.

    The last column takes what is not chosen and what has no room; it is cut off later.
    """
    last = out.shape[1] - 1
    out.scatter_(1, torch.where(chosen, places.clamp_max(last), last), values)


def plant_errors(
    tokens: list[int], pool: list[int], rate: float, mask_id: int, generator: Generator
) -> list[int]:
    """`tokens` of which each has an error with probability `rate`.

    An error drops the token, replaces it by one of the `pool`, masks it, or puts one of the `pool`
    before it; all four are equally likely.
    """
    draft: list[int] = []
    chances = torch.rand(len(tokens), generator=generator).tolist()
    for token, chance in zip(tokens, chances):
        other = pool[int(torch.randint(len(pool), (), generator=generator))]
        # Below the rate, the quarter in which the chance lies says which of the four errors it is.
        kind = math.floor(4 * chance / rate) if chance < rate else None
        if kind == 0:
            continue  # dropped
        if kind == 1:
            draft.append(other)  # replaced
        elif kind == 2:
            draft.append(mask_id)
        elif kind == 3:
            draft += [other, token]  # preceded
        else:
            draft.append(token)
    return draft


def operations(vocab: Vocabulary) -> tuple[int, int]:
    """Ids of DELETE and INSERT. `ValueError` for text pieces without the two bytes."""
    if vocab.delete_id is None or vocab.insert_id is None:
        raise ValueError("these text pieces lack the bytes 0xFE and 0xFF, DELETE and INSERT")
    return vocab.delete_id, vocab.insert_id


def short_answers(batch: Batch, vocab: Vocabulary, block_size: int) -> dict[int, list[int]]:
    """Row -> tokens of its answer, for the answers that are texts and lie within the last block."""
    is_image = vocab.is_image().to(batch.ids.device)[batch.ids] & batch.real  # [B, L]
    first_block = batch.targets.int().argmax(1) // block_size
    in_one_block = first_block == (batch.ids.shape[1] - 1) // block_size
    rows = (in_one_block & ~is_image.any(1)).nonzero().flatten().tolist()
    return {row: batch.ids[row, batch.real[row]].tolist() for row in rows}


def plant(
    batch: Batch, vocab: Vocabulary, block_size: int, rate: float, generator: Generator
) -> tuple[Batch, Tensor] | None:
    """Drafts with errors instead of the B' short answers of a batch, and their labels `[B', L]`.

    None if B' is 0. `ValueError` for packed rows and for a `rate` that is no share.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"planted_errors is a share of the tokens; use 0 to 1, not {rate}")
    if batch.documents is not None:
        raise ValueError(UNPACKED)
    answers = short_answers(batch, vocab, block_size)
    pool = sorted({token for answer in answers.values() for token in answer[:-1]})
    if not pool:
        return None
    drafts, labels = [], []
    for row, answer in answers.items():
        start = int(batch.targets[row].int().argmax())
        room = batch.ids.shape[1] - start - 1  # without the end of text
        wrong = plant_errors(answer[:-1], pool, rate, vocab.mask_id, generator)
        draft = wrong[:room] + answer[-1:]
        drafts.append(TokenSequence(batch.ids[row, :start].tolist() + draft, start))
        labels += align(draft, answer, *operations(vocab))
    planted = collate(drafts, vocab, batch.ids.shape[1])
    wanted = planted.ids.clone()  # padding keeps itself
    wanted[planted.real] = torch.tensor(labels)  # row after row, as they were collected
    return planted, wanted


def draft_loss(
    backbone: Backbone,
    batch: Batch,
    vocab: Vocabulary,
    block_size: int,
    rate: float,
    generator: Generator,
    portion: Portion = WHOLE,
) -> Tensor:
    """Mean nats of the right labels in the drafts planted into a batch; 0 if there are none.

    Numerator: nats of all labels of the `portion`, padding included; denominator: the number of all
    labels. So the losses of all portions add up to that of the batch.
    """
    device = backbone.lm_head.weight.device
    made = plant(batch, vocab, block_size, rate, generator)
    if made is None:
        return torch.zeros((), device=device)
    planted, labels = made[0].to(device), made[1].to(device)
    index = torch.arange(labels.shape[1], device=device)
    mine = portion.has(torch.arange(len(labels), device=device))  # [B']
    mask = block_causal_mask(index, index, block_size)
    hidden = backbone.hidden_states(planted.ids[mine], mask)
    targets, labels = planted.targets[mine], labels[mine]
    nats = F.cross_entropy(backbone.logits(hidden[targets]), labels[targets], reduction="sum")
    return nats / planted.targets.sum()


@torch.no_grad()
def repair(
    backbone: Backbone, prompt: Tensor, draft: Tensor, vocab: Vocabulary, rounds: int = 8
) -> list[Tensor]:
    """Drafts `[B, n]` behind `prompt` `[B, P]`: the given one, and one after each round.

    It ends when nothing changes, or after `rounds`. The draft fills its block: P + n is a multiple
    of the block size, and only end of text follows the end of text. `ValueError` otherwise.
    """
    if prompt.ndim != 2 or draft.ndim != 2 or len(prompt) != len(draft):
        raise ValueError(
            f"prompts are [B, P] and drafts [B, n], got {list(prompt.shape)} and "
            f"{list(draft.shape)}; give a draft for each prompt"
        )
    start, length, block = prompt.shape[1], draft.shape[1], backbone.config.block_size
    if (start + length) % block or length > block:
        raise ValueError(
            f"a draft of {length} tokens behind {start} does not end with a block of {block}; "
            "pad it with end of text"
        )
    ended = (draft == vocab.eos_id).cummax(1).values
    if (draft[ended] != vocab.eos_id).any():
        raise ValueError("a draft goes on behind its end of text; pad it with end of text alone")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    # A label is a text token or an operation, and never the mask.
    possible = vocab.is_text().to(prompt.device)
    changes = operations(vocab)
    possible[list(changes)] = True
    possible[vocab.mask_id] = False

    index = torch.arange(start + length, device=prompt.device)
    mask = block_causal_mask(index, index, block)
    drafts = [draft]
    for _ in range(rounds):
        logits = backbone(torch.cat([prompt, drafts[-1]], dim=1), mask)[:, start:]  # [B, n, V]
        labels = logits.masked_fill(~possible, -math.inf).argmax(-1)
        edited = apply_labels(drafts[-1], labels, *changes, vocab.mask_id, vocab.eos_id)
        if torch.equal(edited, drafts[-1]):
            break  # nothing changes any more
        drafts.append(edited)
    return drafts

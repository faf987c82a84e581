"""Slow, obvious versions of what the package does fast; the tests compare the two."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from helpers import MASK
from torch.distributions import Categorical

from minillada.config import SamplingConfig
from minillada.model import Backbone


def logits_of_prefix(backbone: Backbone, ids: list[int], block_size: int, shift: int = 0):
    """Logits `[L, V]` of a sequence by itself; blocks count `shift` tokens in front of it."""
    index = torch.arange(len(ids)) + shift
    mask = index[None, :, None] // block_size >= index[None, None, :] // block_size
    return backbone(torch.tensor([ids]), mask)[0]


@torch.no_grad()
def decode(
    backbone: Backbone,
    prompt: list[int],
    length: int,
    config: SamplingConfig,
    unconditional: list[int] | None = None,
) -> tuple[list[int], int]:
    """Greedy block decoding of one row, the whole prefix recomputed in every pass.

    Returns the answer and how many passes it took. The unconditional branch is an own forward of
    its unpadded tokens; its blocks fall where those of the prompt do.
    """
    start, end, size = len(prompt), len(prompt) + length, config.block_size
    total = math.ceil(end / size) * size
    last = total if config.fill_tail else end
    ids, passes = prompt + [MASK] * (total - start), 0
    steps = min(config.steps, length // config.minimal_topk)
    for first in range(start // size * size, end, size):
        own = [i for i in range(first, first + size) if start <= i < last]
        step, post_steps, changed = 0, 0, True
        while True:
            masked = [i for i in own if ids[i] == MASK]
            if not masked:
                post_steps += 1
                if config.edit_threshold == 1 or not changed or post_steps > config.post_steps:
                    break
            logits = logits_of_prefix(backbone, ids[: first + size], size)
            if unconditional is not None and config.guidance != 1:
                kept = unconditional[max(len(unconditional) - start, 0) :]
                shift = start - len(kept)
                answer = ids[start : first + size]
                other = logits_of_prefix(backbone, kept + answer, size, shift)
                for i in own:
                    u = other[i - shift]
                    logits[i] = u + config.guidance * (logits[i] - u)
            logits[:, MASK] = -math.inf
            best = {i: logits[i].softmax(-1).max(0) for i in own}

            # Commit all above the threshold if they are enough, else the quota's best.
            count = size // steps + (1 if step < size % steps else 0)
            if config.adaptive:
                share = math.ceil(len(masked) / max(steps - step, 1))
                count = max(share, config.minimal_topk)
            chosen = [i for i in masked if best[i].values > config.threshold]
            if len(chosen) < count:
                chosen = sorted(masked, key=lambda i: -best[i].values)[:count]
            # Rewrite where another token is likely enough.
            for i in own:
                sure = best[i].values > config.edit_threshold
                if i not in masked and sure and best[i].indices != ids[i]:
                    chosen.append(i)
            for i in chosen:
                ids[i] = int(best[i].indices)
            step, passes, changed = step + 1, passes + 1, bool(chosen)
    return ids[start:end], passes


@torch.no_grad()
def fill_in(
    backbone: Backbone,
    prompt: list[int],
    answer: list[int],
    config: SamplingConfig,
    unconditional: list[int] | None = None,
) -> list[int]:
    """Greedy filling of the masks in an answer, by quota, everything recomputed in every pass."""
    size, before, length = config.block_size, len(prompt), len(answer)

    def blocks(padding: int) -> int:
        start = padding + before
        return (start + length - 1) // size - start // size

    # The padding with the fewest blocks, of these the smallest.
    padding = min(range(size), key=lambda n: (blocks(n), n)) if config.gather else 0
    start, ids, steps = padding + before, list(answer), min(config.steps, length)
    for block in range(start // size, (start + length - 1) // size + 1):
        places = [i for i in range(length) if (start + i) // size == block]
        step = 0
        while any(ids[i] == MASK for i in places):
            seen = (ids + [MASK] * size)[: (block + 1) * size - start]
            logits = logits_of_prefix(backbone, prompt + seen, size, padding)[before:]
            if unconditional is not None:
                kept = unconditional[max(len(unconditional) - start, 0) :]
                other = logits_of_prefix(backbone, kept + seen, size, start - len(kept))
                other = other[len(kept) :]
                logits = other + config.guidance * (logits - other)
            logits[:, MASK] = -math.inf
            masked = [i for i in places if ids[i] == MASK]
            best = {i: logits[i].softmax(-1).max(0) for i in masked}
            count = size // steps + (1 if step < size % steps else 0)
            for i in sorted(masked, key=lambda i: -best[i].values)[:count]:
                ids[i] = int(best[i].indices)
            step += 1
    return ids


def commits(confidence: list[float], eligible: list[bool], count: int, threshold: float):
    """The places that one row commits, as a set."""
    places = [i for i, free in enumerate(eligible) if free]
    above = [i for i in places if confidence[i] > threshold]
    if len(above) >= count:
        return set(above)
    return set(sorted(places, key=lambda i: (-confidence[i], i))[:count])


def has_ended(row: list[int], eos: int) -> bool:
    """Whether a row holds an end of text with no mask before it."""
    for token in row:
        if token == MASK:
            return False
        if token == eos:
            return True
    return False


# --- losses --------------------------------------------------------------------------------------


def block_logits(
    backbone: Backbone, row: torch.Tensor, noisy_row: torch.Tensor, block: int, size: int
):
    """Logits `[size, V]` of one block, from a forward on [clean prefix ; noisy block]."""
    start, stop = block * size, (block + 1) * size
    ids = torch.cat([row[:start], noisy_row[start:stop]])[None]
    mask = [[i // size >= j // size for j in range(stop)] for i in range(stop)]
    return backbone(ids, torch.tensor(mask)[None])[0, start:]


def block_nats(
    backbone: Backbone, row: torch.Tensor, noisy_row: torch.Tensor, block: int, size: int
):
    """−log p(x_i) `[size]` for every position of one block."""
    logits = block_logits(backbone, row, noisy_row, block, size)
    return F.cross_entropy(logits, row[block * size : (block + 1) * size], reduction="none")


def autoregressive_nats(backbone: Backbone, row: torch.Tensor) -> torch.Tensor:
    """−log p(x_i | x_<i) left to right: a causal forward on [x_<i ; mask] for each i."""
    nats = []
    for i in range(len(row)):
        ids = torch.cat([row[:i], torch.tensor([MASK])])[None]
        causal = torch.ones(i + 1, i + 1).tril().bool()[None]
        nats.append(F.cross_entropy(backbone(ids, causal)[0, i], row[i]))
    return torch.stack(nats)


def token_weight(objective: str, rate, m: int, n: int, in_row: int):
    """What the nats of a masked token count: n of the m targets of its block are masked."""
    if objective == "bound":
        return 1 / rate
    if objective == "count":
        return (m + 1) / n
    if objective == "uniform":
        return 1
    return in_row**-0.5 / in_row  # reweighted: β_j / n_j


def row_total(objective: str, targets: int, masked: int):
    """What a row adds to the denominator of the loss."""
    if objective == "uniform":
        return masked
    if objective == "reweighted":
        return masked**-0.5 if masked else 0
    return targets


def loss_by_formula(backbone, ids, targets, size, views, objective, confidence_weight):
    """Any objective as loops over views (noisy, masked, rates), rows, blocks and positions."""
    numerator, denominator, entropies = 0.0, 0.0, []
    for noisy, masked, rates in views:
        for row in range(len(ids)):
            in_row = int(masked[row].sum())
            denominator += row_total(objective, int(targets[row].sum()), in_row)
            for block in range(ids.shape[1] // size):
                first = block * size
                m = int(targets[row, first : first + size].sum())
                n = int(masked[row, first : first + size].sum())
                logits = block_logits(backbone, ids[row], noisy[row], block, size)
                for place in range(size):
                    if not masked[row, first + place]:
                        continue
                    answer = ids[row, first + place]
                    nats = F.cross_entropy(logits[place], answer)
                    weight = token_weight(objective, rates[row, block], m, n, in_row)
                    numerator = numerator + weight * nats
                    if logits[place].argmax() == answer:
                        entropies.append(Categorical(logits=logits[place]).entropy())
    loss = numerator / denominator
    if confidence_weight and entropies:
        loss = loss + confidence_weight * sum(entropies) / len(entropies)
    return loss


# --- the official backbone -----------------------------------------------------------------------

# From the formulas, in float64, on weights by their released names. Nothing of the package is used.

Weights = dict[str, torch.Tensor]


def normed(x: torch.Tensor, weight: torch.Tensor, eps: float):
    """x / sqrt(mean(x²) + eps) · weight, over the last dimension."""
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def turned(head: torch.Tensor, positions: list[int], config):
    """RoPE of one head `[L, d]`: dimension i of the turning ones pairs with i + half of them."""
    dims = int(config.head_dim * config.partial_rotary_factor)
    half, out = dims // 2, head.clone()
    for i in range(half):
        for row, position in enumerate(positions):
            angle = position * config.rope_theta ** (-2 * i / dims)
            a, b = head[row, i], head[row, i + half]
            out[row, i] = a * math.cos(angle) - b * math.sin(angle)
            out[row, i + half] = b * math.cos(angle) + a * math.sin(angle)
    return out


def attention(x: torch.Tensor, w: Weights, start: str, config, visible, positions: list[int]):
    """One attention `[L, H]`; `visible[i][j]` says whether i sees j."""
    d, kv = config.head_dim, config.num_key_value_heads
    rows = (x @ w[start + "query_key_value.weight"].T).split(d, dim=1)  # a head each
    heads, eps = config.num_attention_heads, config.rms_norm_eps
    mixed = []
    for head in range(heads):
        shared = head * kv // heads  # which key-value head this query head uses
        query = normed(rows[head], w[start + "query_layernorm.weight"], eps)
        key = normed(rows[heads + shared], w[start + "key_layernorm.weight"], eps)
        query, key = turned(query, positions, config), turned(key, positions, config)
        scores = torch.einsum("id,jd->ij", query, key) / math.sqrt(d)
        powers = torch.where(visible, scores, torch.tensor(-1e9, dtype=x.dtype)).exp() * visible
        shares = powers / powers.sum(1, keepdim=True).clamp_min(1e-300)
        mixed.append(shares @ rows[heads + kv + shared])
    return torch.cat(mixed, dim=1) @ w[start + "dense.weight"].T


def swiglu(x: torch.Tensor, w: Weights, start: str):
    gate, up = x @ w[start + "gate_proj.weight"].T, x @ w[start + "up_proj.weight"].T
    return (gate / (1 + (-gate).exp()) * up) @ w[start + "down_proj.weight"].T


def expert_weights(token: torch.Tensor, w: Weights, start: str, config) -> dict[int, float]:
    """Expert -> weight for one token."""
    scores = (1 / (1 + (-(w[start + "gate.weight"] @ token)).exp())).tolist()
    biased = [s + b for s, b in zip(scores, w[start + "gate.expert_bias"].tolist())]
    size = len(scores) // config.n_group
    groups = [list(range(g * size, (g + 1) * size)) for g in range(config.n_group)]

    def two_best(group: list[int]) -> float:
        return sum(sorted((biased[e] for e in group), reverse=True)[:2])

    kept = sorted(groups, key=two_best, reverse=True)[: config.topk_group]
    inside = sorted([e for group in kept for e in group], key=lambda e: -biased[e])
    chosen = inside[: config.num_experts_per_tok]
    total = sum(scores[e] for e in chosen) + 1e-20 if len(chosen) > 1 else 1
    return {e: config.routed_scaling_factor * scores[e] / total for e in chosen}


def mixture(x: torch.Tensor, w: Weights, start: str, config):
    """Σ w_e expert_e(x) + shared(x), token after token."""
    rows = []
    for token in x:
        row = swiglu(token, w, start + "shared_experts.")
        for expert, weight in expert_weights(token, w, start, config).items():
            row = row + weight * swiglu(token, w, f"{start}experts.{expert}.")
        rows.append(row)
    return torch.stack(rows)


def official_logits(w: Weights, config, ids: list[int], visible, positions: list[int]):
    """Logits `[L, V]` of one sequence."""
    x = w["model.word_embeddings.weight"][ids]
    for layer in range(config.num_hidden_layers):
        start, eps = f"model.layers.{layer}.", config.rms_norm_eps
        inner = normed(x, w[start + "input_layernorm.weight"], eps)
        x = x + attention(inner, w, start + "attention.", config, visible, positions)
        inner = normed(x, w[start + "post_attention_layernorm.weight"], eps)
        sparse = config.num_experts > 0 and layer >= config.first_k_dense_replace
        if sparse:
            x = x + mixture(inner, w, start + "mlp.", config)
        else:
            x = x + swiglu(inner, w, start + "mlp.")
    x = normed(x, w["model.norm.weight"], config.rms_norm_eps)
    return x @ w["lm_head.weight"].T


def padded_logits(w: Weights, config, ids: list[int], padding: int, block: int):
    """Logits `[L, V]` of a row whose first `padding` places are padding."""
    length = len(ids)
    visible = torch.zeros(length, length, dtype=torch.bool)
    for i in range(length):
        for j in range(padding, length):
            visible[i, j] = j // block <= i // block  # blocks are counted with the padding
    positions = [max(i - padding, 0) for i in range(length)]
    return official_logits(w, config, ids, visible, positions)


def guided(rows: list[torch.Tensor], sampling: SamplingConfig):
    """One row of logits `[V]` from those of one, two or three branches."""
    full = rows[0]
    if len(rows) == 1:
        return full
    if len(rows) == 2:
        out = rows[1] + sampling.guidance * (full - rows[1])
    else:
        no_text, no_image = rows[1], rows[2]
        out = no_text + sampling.guidance * (full - no_text)
        out = out + sampling.guidance_image * (no_text - no_image)
    spread = full.std() / (out.std() + 1e-6)
    return sampling.rescale * out * spread + (1 - sampling.rescale) * out


def official_decode(
    w: Weights,
    config,
    prompts: list[list[int]],
    length: int,
    sampling: SamplingConfig,
    allowed: list[int],
    eos: int | None,
) -> list[int]:
    """The released loop: the whole prefix of every branch is computed again in each step.

    `prompts` are the prompt and its guidance branches.
    """
    start, size = len(prompts[0]), sampling.block_size
    blocks = math.ceil((start + length) / size)
    answer = [MASK] * (blocks * size - start)
    branches, paddings = [], []
    for prompt in prompts:
        kept = prompt[max(len(prompt) - start, 0) :]  # cut from the left
        paddings.append(start - len(kept))
        branches.append([MASK] * paddings[-1] + kept)
    steps = min(sampling.steps, length // sampling.minimal_topk)
    for block in range(start // size, blocks):
        places = range(max(block * size, start), (block + 1) * size)
        for step in range(steps):
            masked = [i for i in places if answer[i - start] == MASK]
            if not masked:
                break
            rows = []
            for branch, padding in zip(branches, paddings):
                ids = (branch + answer)[: (block + 1) * size]
                rows.append(padded_logits(w, config, ids, padding, size))
            best = {}
            for i in masked:
                mixed = guided([row[i] for row in rows], sampling)
                share = mixed[allowed].softmax(0)
                best[i] = float(share.max()), allowed[int(share.argmax())]
            quota = size // steps + (1 if step < size % steps else 0)
            chosen = [i for i in masked if best[i][0] > sampling.threshold]
            if len(chosen) < quota:
                chosen = sorted(masked, key=lambda i: -best[i][0])[:quota]
            for i in chosen:
                answer[i - start] = best[i][1]
        if eos is not None and has_ended(answer[:length], eos):
            break
    if eos in answer[:length]:
        end = answer.index(eos)
        answer[end:] = [eos] * (len(answer) - end)
    return answer[:length]


# --- the official image tokenizer ----------------------------------------------------------------


def standardised(x: torch.Tensor, w: Weights, start: str, eps: float):
    """LayerNorm over the last dimension."""
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return centred / spread * w[start + "weight"] + w[start + "bias"]


def affine(x: torch.Tensor, w: Weights, start: str):
    out = x @ w[start + "weight"].T
    return out + w[start + "bias"] if start + "bias" in w else out


def place_in_table(table: torch.Tensor, y: float, x: float):
    """The vector between four cells of a table `[n, n, C]`; beyond the border it is that there."""
    last = len(table) - 1
    y, x = min(max(y, 0), last), min(max(x, 0), last)
    top, left = int(y), int(x)
    below, right = min(top + 1, last), min(left + 1, last)
    upper = (1 - x + left) * table[top, left] + (x - left) * table[top, right]
    lower = (1 - x + left) * table[below, left] + (x - left) * table[below, right]
    return (1 - y + top) * upper + (y - top) * lower


def vision_features(w: Weights, vision, image: torch.Tensor):
    """Features `[h · w, C]` of an image `[3, H, W]` in [0, 1]; `w` has the official names."""
    start, size = "model.visual.", vision.patch_size
    rows, columns = image.shape[1] // size, image.shape[2] // size
    side = vision.image_size // size
    table = w[start + "embeddings.position_embedding.weight"].reshape(side, side, -1)
    kernel, bias = (w[start + f"patch_embed.proj.{name}"] for name in ("weight", "bias"))
    patches = []
    for i in range(rows):
        for j in range(columns):
            patch = image[:, i * size : (i + 1) * size, j * size : (j + 1) * size] * 2 - 1
            seen = torch.einsum("ocyx,cyx->o", kernel, patch) + bias
            # The centre of the patch, in cells of the table.
            y, x = (i + 0.5) * side / rows - 0.5, (j + 0.5) * side / columns - 0.5
            patches.append(seen + place_in_table(table, y, x))
    x = torch.stack(patches)
    for layer in range(vision.depth):
        x = vision_block(x, w, f"{start}blocks.{layer}.", vision)
    return x


def vision_block(x: torch.Tensor, w: Weights, start: str, vision):
    """One layer; every patch sees every other."""
    width = vision.hidden_size // vision.num_heads
    inner = standardised(x, w, start + "norm1.", vision.layer_norm_eps)
    heads = affine(inner, w, start + "attn.qkv.").split(width, dim=1)  # queries, keys, values
    mixed = []
    for head in range(vision.num_heads):
        query, key, value = heads[head :: vision.num_heads]
        scores = torch.einsum("id,jd->ij", query, key) / math.sqrt(width)
        powers = (scores - scores.max()).exp()
        mixed.append(powers / powers.sum(1, keepdim=True) @ value)
    x = x + affine(torch.cat(mixed, 1), w, start + "attn.proj.")
    inner = standardised(x, w, start + "norm2.", vision.layer_norm_eps)
    inner = affine(inner, w, start + "mlp.fc1.")
    gelu = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
    return x + affine(gelu, w, start + "mlp.fc2.")


def image_codes(w: Weights, vision, image: torch.Tensor) -> list[int]:
    """The codes of an image, in raster order."""
    start = "model.vqmodel."
    kernel = w[start + "quant_conv.weight"][:, :, 0, 0]
    features = vision_features(w, vision, image) @ kernel.T + w[start + "quant_conv.bias"]
    book = w[start + "quantize.embedding.weight"]
    book = [vector / vector.pow(2).sum().sqrt() for vector in book]
    codes = []
    for feature in features:
        feature = feature / feature.pow(2).sum().sqrt()
        distances = [float((feature - vector).pow(2).sum()) for vector in book]
        codes.append(distances.index(min(distances)))
    return codes

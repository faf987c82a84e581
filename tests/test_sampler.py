"""Decoding against a slow loop for one row, the commit rule by hand, and the cache against recomputing everything."""

import itertools
import math
from collections import Counter

import pytest
import torch
from helpers import EOS, MASK, few, generator, many, random_ids, tiny_backbone, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from minillada import checkpoint, guidance, layout
from minillada.commit import (
    STRATEGIES,
    choose_commits,
    choose_edits,
    choose_tokens,
    commit_score,
    filter_logits,
    quota,
)
from minillada.config import SamplingConfig
from minillada.datasets.captions import all_captions
from minillada.guidance import guide, guide_edit, rescale
from minillada.model import Backbone
from minillada.sampler import check_sampling, ended, generate
from minillada.uni import DESCRIBE, load

# --- commit rule -------------------------------------------------------------------------------------------------------


@many
@given(block=st.integers(1, 64), steps=st.integers(1, 80))
def test_quotas_sum_to_the_block_and_the_first_steps_take_the_remainder(block, steps):
    quotas = [quota(block, steps, s) for s in range(steps)]
    assert sum(quotas) == block
    assert quotas == sorted(quotas, reverse=True) and max(quotas) - min(quotas) <= 1


def test_quota_schedule_by_hand():
    assert [quota(16, 5, s) for s in range(5)] == [4, 3, 3, 3, 3]
    assert [quota(32, 32, s) for s in range(32)] == [1] * 32
    assert [quota(3, 5, s) for s in range(5)] == [1, 1, 1, 0, 0]


def commits(confidence, eligible, count, threshold):
    chosen = choose_commits(torch.tensor([confidence]), torch.tensor([eligible], dtype=torch.bool), count, threshold)
    return chosen[0].int().tolist()


def test_commit_rule_by_hand():
    some = [0.3, 0.99, 0.5, 0.97]
    everyone = [1, 1, 1, 1]
    # Two are above the threshold: with a quota of 1 or 2 all of them are committed, not only the quota.
    assert commits(some, everyone, 1, 0.95) == [0, 1, 0, 1]
    assert commits(some, everyone, 2, 0.95) == [0, 1, 0, 1]
    # A quota of 3 is more than the threshold gives: the three most confident.
    assert commits(some, everyone, 3, 0.95) == [0, 1, 1, 1]
    # Nobody is confident enough: the quota alone.
    assert commits(some, everyone, 1, 0.999) == [0, 1, 0, 0]
    # What is not masked any more is never chosen, however confident, and does not count towards the quota.
    assert commits(some, [1, 0, 1, 1], 1, 0.95) == [0, 0, 0, 1]
    assert commits(some, [1, 0, 1, 1], 2, 0.95) == [0, 0, 1, 1]
    # Fewer left than the quota: all of them.
    assert commits(some, [1, 0, 0, 0], 3, 0.95) == [1, 0, 0, 0]
    assert commits(some, [0, 0, 0, 0], 2, 0.95) == [0, 0, 0, 0]
    # A quota of 0 waits unless somebody is confident.
    assert commits(some, everyone, 0, 0.999) == [0, 0, 0, 0]
    assert commits(some, everyone, 0, 0.98) == [0, 1, 0, 0]


def test_commit_rule_ties_and_edges_by_hand():
    assert commits([0.5, 0.5, 0.5, 0.5], [1, 1, 1, 1], 2, 0.9) == [1, 1, 0, 0]  # ties: left to right
    assert commits([0.5, 0.5, 0.5, 0.5], [0, 1, 1, 1], 2, 0.9) == [0, 1, 1, 0]
    assert commits([0.5, 0.7], [1, 1], 1, 0.5) == [0, 1]  # the threshold itself is not above it
    assert commits([1.0, 1.0], [1, 1], 1, 1.0) == [1, 0]  # threshold 1 is never exceeded
    assert commits([0.0, 0.1], [1, 1], 1, 0.0) == [0, 1]
    assert commits([0.0, 0.0], [0, 1], 1, 0.5) == [0, 1]  # confidence 0 still beats "not eligible"


@many
@given(data=st.data(), n=st.integers(1, 8), count=st.integers(0, 9), threshold=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_commit_rule_is_the_loop(data, n, count, threshold):
    values = st.lists(st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.75, 1.0]), min_size=n, max_size=n)
    rows = [(data.draw(values), data.draw(st.lists(st.booleans(), min_size=n, max_size=n))) for _ in range(3)]
    chosen = choose_commits(torch.tensor([c for c, _ in rows]), torch.tensor([e for _, e in rows]), count, threshold)
    for row, (confidence, eligible) in enumerate(rows):
        places = [i for i in range(n) if eligible[i]]
        above = [i for i in places if confidence[i] > threshold]
        expected = above if len(above) >= count else sorted(places, key=lambda i: (-confidence[i], i))[:count]
        assert chosen[row].nonzero().flatten().tolist() == sorted(expected)


# --- guidance, filters, choice -----------------------------------------------------------------------------------------


def test_guidance_formula():
    c, u = torch.randn(2, 3, 5, 7, generator=generator())
    assert guide(c, u, 1.0) is c  # scale 1 is the conditional branch, to the bit
    assert torch.equal(guide(c, u, 0.0), u)
    assert torch.allclose(guide(c, u, 2.0), 2 * c - u, atol=1e-6)
    assert torch.allclose(guide(c, u, 0.3), 0.7 * u + 0.3 * c, atol=1e-6)


@many
@given(data=st.data(), k=st.none() | st.integers(1, 9), p=st.none() | st.floats(0.05, 1.0))
def test_filters_are_the_loop(data, k, p):
    size = 7
    logits = data.draw(st.lists(st.integers(-40, 40), min_size=size, max_size=size, unique=True))
    values = [x / 10 for x in logits]
    order = sorted(range(size), key=lambda i: -values[i])
    kept = order[: k or size]  # top-k first, then top-p among the survivors
    if p is not None and p < 1:
        weights = {i: math.exp(values[i]) for i in kept}
        total, mass, nucleus = sum(weights.values()), 0.0, []
        for i in kept:
            if mass / total >= p - 1e-6:
                if abs(mass / total - p) < 1e-5:
                    return  # on the edge rounding decides
                break
            nucleus.append(i)
            mass += weights[i]
        kept = nucleus
    result = filter_logits(torch.tensor(values), k, p)
    assert result.isfinite().nonzero().flatten().tolist() == sorted(kept)
    assert torch.equal(result[kept], torch.tensor(values)[kept])


def test_filters_work_on_every_row_alone():
    logits = torch.tensor([[[3.0, 2.0, 1.0], [1.0, 3.0, 2.0]]])
    assert filter_logits(logits, 1, None).isfinite().tolist() == [[[True, False, False], [False, True, False]]]
    assert filter_logits(logits, None, 0.8).isfinite().tolist() == [[[True, True, False], [False, True, True]]]
    assert torch.equal(filter_logits(logits, None, None), logits)


def test_temperature_zero_takes_the_most_likely_and_its_probability():
    logits = torch.randn(2, 5, 9, generator=generator())
    tokens, confidence = choose_tokens(logits, SamplingConfig(temperature=0.0, top_k=2), None)
    assert torch.equal(tokens, logits.argmax(-1))
    assert torch.allclose(confidence, logits.softmax(-1).amax(-1))


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1.0, None, None), (0.5, None, None), (2.0, 3, None), (1.0, None, 0.8)])
def test_tokens_are_drawn_with_their_probabilities(temperature, top_k, top_p):
    logits, samples = torch.tensor([2.0, 1.5, 0.0, -1.0, 1.0]), 20_000
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    tokens, confidence = choose_tokens(logits.expand(1, samples, 5), config, generator(3))
    probabilities = filter_logits(logits / temperature, top_k, top_p).softmax(-1)
    assert torch.allclose(confidence, probabilities[tokens], atol=1e-6)
    possible = probabilities > 0
    counts = torch.bincount(tokens.flatten(), minlength=5).float()
    assert (counts[~possible] == 0).all()
    expected = samples * probabilities[possible]
    chi_square = float(((counts[possible] - expected) ** 2 / expected).sum())
    assert chi_square < 18.5  # the 0.1 % point with four degrees of freedom


# --- decoding ----------------------------------------------------------------------------------------------------------


def decode_by_hand(backbone, prompt: list[int], length: int, config: SamplingConfig, unconditional: list[int] | None = None):
    """Greedy block decoding of one row as the released loop does it: the whole prefix recomputed at every step.

    The unconditional branch is its own unpadded forward: its tokens count positions from 0, its blocks fall where those
    of the conditional branch do.
    """
    start, end, size = len(prompt), len(prompt) + length, config.block_size
    ids = prompt + [MASK] * (-(-end // size) * size - start)

    def forward(tokens, shift):
        index = torch.arange(len(tokens)) + shift
        return backbone(torch.tensor([tokens]), index[None, :, None] // size >= index[None, None, :] // size)[0]

    for first in range(start // size * size, end, size):
        steps = min(config.steps, length // config.minimal_topk)
        for step in range(steps):
            places = [i for i in range(first, first + size) if start <= i < (len(ids) if config.fill_tail else end) and ids[i] == MASK]
            if not places:
                break
            logits = forward(ids[: first + size], 0)
            if unconditional is not None and config.guidance != 1:
                missing = start - len(unconditional)
                other = forward(unconditional + ids[start : first + size], missing)
                logits = torch.cat([torch.zeros(missing, logits.shape[1]), other]) * (1 - config.guidance) + config.guidance * logits
            logits[:, MASK] = -math.inf
            best = {i: logits[i].softmax(-1).max(0) for i in places}
            above = [i for i in places if best[i].values > config.threshold]
            count = size // steps + (1 if step < size % steps else 0)
            if config.adaptive:
                count = math.ceil(len(places) / (steps - step))
            for i in above if len(above) >= count else sorted(places, key=lambda i: -best[i].values)[:count]:
                ids[i] = int(best[i].indices)
    return ids[start:end]


def edit_by_hand(backbone, prompt: list[int], length: int, config: SamplingConfig):
    """Greedy decoding of one row with token editing (LLaDA2.1), the whole prefix recomputed at every pass; also counts the passes."""
    start, end, size = len(prompt), len(prompt) + length, config.block_size
    ids, passes = prompt + [MASK] * (-(-end // size) * size - start), 0
    for first in range(start // size * size, end, size):
        own = [i for i in range(first, first + size) if start <= i < (len(ids) if config.fill_tail else end)]
        step, post_steps, changed = 0, 0, True
        while True:
            places = [i for i in own if ids[i] == MASK]
            if not places:
                post_steps += 1
                if not changed or post_steps > config.post_steps:
                    break
            index = torch.arange(first + size)
            logits = backbone(torch.tensor([ids[: first + size]]), index[None, :, None] // size >= index[None, None, :] // size)[0]
            logits[:, MASK] = -math.inf
            best = {i: logits[i].softmax(-1).max(0) for i in own}
            above = [i for i in places if best[i].values > config.threshold]
            count = size // config.steps + (step < size % config.steps)
            chosen = above if len(above) >= count else sorted(places, key=lambda i: -best[i].values)[:count]
            chosen += [i for i in own if i not in places and best[i].values > config.edit_threshold and best[i].indices != ids[i]]
            for i in chosen:
                ids[i] = int(best[i].indices)
            step, passes, changed = step + 1, passes + 1, bool(chosen)
    return ids[start:end], passes


settings_of_decoding = dict(
    prompt=st.integers(1, 13),
    length=st.integers(1, 13),
    block=st.integers(1, 6),
    steps=st.integers(1, 7),
    threshold=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    guidance=st.sampled_from([1.0, 0.0, 1.7, 3.0]),
    seed=st.integers(0, 10_000),
)


@settings(few, max_examples=30)
@given(shorter=st.integers(0, 5), adaptive=st.booleans(), tail=st.booleans(), **settings_of_decoding)
def test_decoding_is_the_slow_loop(prompt, length, block, steps, threshold, guidance, seed, shorter, adaptive, tail):
    backbone = tiny_backbone(seed % 11)
    prompts = random_ids(2, prompt, seed=seed)
    unconditional = random_ids(1, max(prompt - shorter, 1), seed=seed + 1)
    config = SamplingConfig(block_size=block, steps=steps, threshold=threshold, guidance=guidance, adaptive=adaptive, fill_tail=tail, minimal_topk=1 + (length > 4))
    generation = generate(backbone, prompts, length, config, MASK, unconditional=unconditional)
    for row in range(2):
        with torch.no_grad():
            expected = decode_by_hand(backbone, prompts[row].tolist(), length, config, unconditional[0].tolist())
        assert generation.ids[row].tolist() == expected


@settings(few, max_examples=40)
@given(
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.none() | st.integers(1, 8),
    top_p=st.none() | st.floats(0.3, 1.0),
    rows=st.integers(1, 3),
    stop=st.booleans(),
    **settings_of_decoding,
)
def test_cached_decoding_gives_the_same_tokens(
    prompt, length, block, steps, threshold, guidance, seed, temperature, top_k, top_p, rows, stop
):
    backbone = tiny_backbone(seed % 11)
    config = SamplingConfig(block_size=block, steps=steps, threshold=threshold, temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance)
    results = [
        generate(
            backbone, random_ids(rows, prompt, seed=seed), length, config, MASK, EOS if stop else None,
            unconditional=random_ids(1, max(prompt - seed % 4, 1), seed=seed + 1), generator=generator(seed), use_cache=cached,
        )
        for cached in (True, False)
    ]  # fmt: skip
    assert torch.equal(results[0].ids, results[1].ids)
    assert results[0].forwards == results[1].forwards == len(results[0].steps)
    for a, b in zip(results[0].steps, results[1].steps, strict=True):
        assert a.start == b.start and torch.equal(a.ids, b.ids) and torch.equal(a.committed, b.committed)
        assert torch.allclose(a.confidence, b.confidence, atol=1e-4)


def widths_of(backbone, **call) -> list[int]:
    """How many tokens a row each forward of a generation processed."""
    widths, original = [], backbone.hidden_states
    backbone.hidden_states = lambda ids, *rest, **named: widths.append(ids.shape[1]) or original(ids, *rest, **named)
    generate(backbone, random_ids(1, 9), 12, SamplingConfig(block_size=4, steps=3, threshold=1.0, fill_tail=False), MASK, **call)
    return widths


def test_cache_forwards_every_finished_token_once():
    # A prompt of 9 ends in block 2. Its first forward carries the two prompt blocks; each later block brings the last one.
    assert widths_of(tiny_backbone()) == [12, 4, 8, 4, 4, 8, 4, 4, 8]
    assert widths_of(tiny_backbone(), use_cache=False) == [12, 12, 16, 16, 16, 20, 20, 20, 24]


@few
@given(missing=st.integers(0, 9), block=st.integers(1, 5), use_cache=st.booleans(), seed=st.integers(0, 999))
def test_left_padding_changes_nothing_for_the_unconditional_branch(missing, block, use_cache, seed):
    """Its logits are those of the unpadded sequence alone. Blocks are counted on the padded index, so where the padding is
    whole blocks that is simply `backbone` with its own block-causal mask."""
    backbone, start = tiny_backbone(seed % 11), 11
    unconditional, seen = random_ids(1, start - missing, seed=seed), []
    original = guidance.guide
    guidance.guide = lambda c, u, s: seen.append(u.clone()) or original(c, u, s)
    try:
        config = SamplingConfig(block_size=block, steps=2, guidance=2.0)
        generation = generate(
            backbone, random_ids(2, start, seed=seed + 1), 6, config, MASK, unconditional=unconditional, use_cache=use_cache
        )
    finally:
        guidance.guide = original
    total = -(-(start + 6) // block) * block
    canvas = torch.full((2, total - missing), MASK)
    canvas[:, : start - missing] = unconditional
    for logits, step in zip(seen, generation.steps, strict=True):
        tokens = canvas[:, : step.start + block - missing].clone()
        index = torch.arange(tokens.shape[1])
        shift = 0 if missing % block == 0 else missing
        visible = (index[:, None] + shift) // block >= (index + shift) // block
        with torch.no_grad():
            expected = backbone(tokens, visible[None])
        answered = slice(max(step.start, start) - missing, None)  # the positions that belong to the answer
        assert torch.allclose(logits[:, max(step.start, start) - step.start :], expected[:, answered], atol=1e-3)
        canvas[:, start - missing :][:, max(step.start - start, 0) : step.start + block - start] = step.ids[:, max(start - step.start, 0) :]


def test_padded_rows_count_positions_from_zero():
    """As the official code does. Attention sees only distances (RoPE), so no output could tell; the numbers themselves can."""
    backbone, seen = tiny_backbone(), []
    original = backbone.hidden_states

    def spy(ids, mask, positions, *rest, **named):
        seen.append((ids, positions))
        return original(ids, mask, positions, *rest, **named)

    backbone.hidden_states = spy
    unconditional = random_ids(1, 4, seed=1)
    generate(backbone, random_ids(1, 6), 4, SamplingConfig(block_size=4, steps=1, guidance=2.0), MASK, unconditional=unconditional)
    ids, positions = seen[0]
    assert positions.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 1, 2, 3, 4, 5]]
    assert torch.equal(ids[1, 2:6], unconditional[0])


def test_guidance_one_is_the_conditional_branch_alone():
    backbone, batches = tiny_backbone(5), []
    original = backbone.hidden_states
    backbone.hidden_states = lambda ids, *rest, **named: batches.append(len(ids)) or original(ids, *rest, **named)
    prompt, unconditional = random_ids(2, 6), random_ids(1, 4, seed=1)
    without = generate(backbone, prompt, 8, SamplingConfig(block_size=4, steps=2), MASK)
    one = generate(backbone, prompt, 8, SamplingConfig(block_size=4, steps=2, guidance=1.0), MASK, unconditional=unconditional)
    assert torch.equal(without.ids, one.ids) and set(batches) == {2}
    two = generate(backbone, prompt, 8, SamplingConfig(block_size=4, steps=2, guidance=2.0), MASK, unconditional=unconditional)
    assert set(batches) == {2, 4} and not torch.equal(one.ids, two.ids)


@few
@given(temperature=st.sampled_from([0.0, 1.0]), **settings_of_decoding)
def test_what_is_committed_stays_and_the_schedule_is_kept(prompt, length, block, steps, threshold, guidance, seed, temperature):
    backbone, rows = tiny_backbone(seed % 11), 2
    config = SamplingConfig(block_size=block, steps=steps, threshold=threshold, temperature=temperature)
    ids = random_ids(rows, prompt, seed=seed)
    generation = generate(backbone, ids, length, config, MASK, generator=generator(seed))
    assert generation.ids.shape == (rows, length) and not (generation.ids == MASK).any()
    canvas = torch.full((rows, prompt + length + block), MASK)
    canvas[:, :prompt] = ids
    numbers: Counter = Counter()
    for step in generation.steps:
        before = canvas[:, step.start : step.start + block].clone()
        masked = before == MASK
        assert not (step.committed & ~masked).any(), "only masked positions of the answer are committed"
        assert ((step.confidence > 0) <= masked).all()
        wanted = torch.minimum(masked.sum(1), torch.tensor(quota(block, min(steps, length), numbers[step.start])))
        assert (step.committed.sum(1) >= wanted).all()
        assert torch.equal(step.ids == before, ~step.committed), "the rest is left alone, the committed are filled"
        canvas[:, step.start : step.start + block] = step.ids
        numbers[step.start] += 1
    assert max(numbers.values()) <= steps
    assert torch.equal(canvas[:, prompt : prompt + length], generation.ids)
    assert torch.equal(canvas[:, :prompt], ids)


def test_number_of_forwards():
    backbone, prompt = tiny_backbone(), random_ids(2, 8)
    for steps, threshold, expected in ((4, 1.0, 8), (1, 1.0, 2), (3, 1.0, 6), (4, 0.0, 2)):
        config = SamplingConfig(block_size=4, steps=steps, threshold=threshold)
        assert generate(backbone, prompt, 8, config, MASK).forwards == expected
    assert generate(backbone, prompt, 0, SamplingConfig(block_size=4), MASK).ids.shape == (2, 0)


def test_sampling_at_block_size_one_follows_the_autoregressive_distribution():
    """Frequencies of all two-token answers against the product of conditionals."""
    backbone, samples = tiny_backbone(8, vocab_size=5, initializer_range=0.2), 12_000
    prompt = random_ids(1, 2, 5)
    causal = torch.ones(4, 4).tril().bool()[None]
    exact = {}
    with torch.no_grad():
        for a, b in itertools.product(range(1, 5), repeat=2):  # id 0 is the mask and never drawn
            ids = prompt[0].tolist()
            first = backbone(torch.tensor([[*ids, MASK]]), causal[:, :3, :3])[0, 2, 1:].softmax(-1)[a - 1]
            second = backbone(torch.tensor([[*ids, a, MASK]]), causal)[0, 3, 1:].softmax(-1)[b - 1]
            exact[a, b] = float(first * second)
    config = SamplingConfig(block_size=1, steps=1, temperature=1.0)
    drawn = generate(backbone, prompt.repeat(samples, 1), 2, config, MASK, generator=generator(5)).ids
    counts = Counter(map(tuple, drawn.tolist()))
    assert sum(exact.values()) == pytest.approx(1, abs=1e-5) and set(counts) <= set(exact)
    chi_square = sum((counts[k] - samples * p) ** 2 / (samples * p) for k, p in exact.items())
    assert chi_square < 37.7  # the 0.1 % point with fifteen degrees of freedom


def test_the_seed_decides():
    backbone, prompt, config = tiny_backbone(), random_ids(4, 8), SamplingConfig(block_size=4, steps=4, temperature=1.0)
    a, b, c = (generate(backbone, prompt, 8, config, MASK, generator=generator(s)).ids for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_allowed_restricts_every_token():
    allowed = torch.zeros(24, dtype=torch.bool)
    allowed[[0, 5, 9, 17]] = True  # the mask itself is never drawn, even if allowed
    config = SamplingConfig(block_size=4, steps=4, temperature=2.0)
    generation = generate(tiny_backbone(), random_ids(8, 5), 12, config, MASK, allowed=allowed, generator=generator())
    assert set(generation.ids.flatten().tolist()) == {5, 9, 17}


# --- end of text -------------------------------------------------------------------------------------------------------


class Scripted(Backbone):
    """Predicts `script[row][position]` with confidence `sure[position]`, whatever it sees."""

    def __init__(self, script: list[list[int]], sure: list[float]):
        super().__init__(tiny_config(num_hidden_layers=1))
        self.script, self.sure, self.rows = torch.tensor(script), torch.tensor(sure), None

    def hidden_states(self, ids, mask=None, positions=None, cache=None, keep=0):
        return positions.expand(len(ids), -1)[..., None].float()

    def logits(self, hidden):
        place = hidden[..., 0].long()
        other = (1 - self.sure[place]) / 23
        probabilities = other[..., None].repeat(1, 1, 24)
        return probabilities.scatter(-1, self.script.gather(1, place)[..., None], self.sure[place][..., None]).log()


@many
@given(rows=st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=3))
def test_ended_is_the_loop(rows):
    def has_ended(row):
        for token in row:
            if token == MASK:
                return False
            if token == EOS:
                return True
        return False

    assert ended(torch.tensor(rows), MASK, EOS).tolist() == [has_ended(r) for r in rows]


def test_a_row_ends_at_its_first_end_of_text():
    model = Scripted([[9, 9, 5, 6, EOS, 7, 8, 9, 2, 3], [9, 9, 5, 6, 7, 7, 8, EOS, 2, 3], [9, 9, 5, 6, 7, 7, 8, 4, 2, 3]], [0.9] * 10)
    prompt = torch.full((3, 2), 9)
    generation = generate(model, prompt, 8, SamplingConfig(block_size=2, steps=2, threshold=1.0), MASK, EOS)
    assert generation.ids.tolist() == [[5, 6, EOS, *[EOS] * 5], [5, 6, 7, 7, 8, EOS, EOS, EOS], [5, 6, 7, 7, 8, 4, 2, 3]]
    late = [step for step in generation.steps if step.start >= 6]
    assert not any(step.committed[0].any() for step in late), "a finished row costs no further commits"
    stopped = generate(model, prompt[:1], 8, SamplingConfig(block_size=2, steps=2, threshold=1.0), MASK, EOS)
    assert stopped.forwards == 3 and generation.forwards == 8  # two for the first block, one that committed the end
    kept = generate(model, prompt, 8, SamplingConfig(block_size=2, steps=2, threshold=1.0), MASK)
    assert kept.ids.tolist()[0] == [5, 6, EOS, 7, 8, 9, 2, 3]  # without eos_id nothing stops


def test_end_of_text_behind_a_mask_does_not_stop():
    """Position 3 is committed first; the row ends only when the positions before it are known."""
    script = [[9, 5, 6, EOS, 7, 7, 7, 7]]
    model = Scripted(script, [0.9, 0.5, 0.6, 0.95, 0.8, 0.8, 0.8, 0.8])
    generation = generate(model, torch.tensor([[9]]), 7, SamplingConfig(block_size=4, steps=4, threshold=1.0), MASK, EOS)
    assert [step.committed[0].int().tolist() for step in generation.steps] == [[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert generation.ids.tolist() == [[5, 6, EOS, EOS, EOS, EOS, EOS]]


# --- inputs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": -3}, "steps must be at least 1"),
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"threshold": 1.5}, r"threshold must be at most 1.0, got 1.5"),
        ({"threshold": -0.1}, "threshold must be"),
        ({"threshold": math.nan}, "threshold must be"),
        ({"temperature": -1.0}, "temperature must be"),
        ({"temperature": math.inf}, "temperature must be"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"temperature": 1e-42}, "temperature must be"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must be"),
        ({"top_p": 1.1}, "top_p must be"),
        ({"guidance": math.nan}, "guidance must be a finite number, got nan"),
        ({"guidance": math.inf}, "guidance must be a finite number, got inf"),
        ({"guidance": -math.inf}, "guidance must be a finite number"),
    ],
)
def test_settings_that_cannot_decode_are_named(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        check_sampling(SamplingConfig(**changes))
    with pytest.raises(ValueError, match=sentence):
        generate(tiny_backbone(), random_ids(1, 4), 4, SamplingConfig(**changes), MASK)


def test_legal_extremes_are_accepted():
    for changes in ({"threshold": 0.0}, {"threshold": 1.0}, {"top_p": 1.0}, {"top_k": 1}, {"guidance": -2.0}, {"temperature": 0.0}):
        config = SamplingConfig(block_size=4, **changes)
        ids = generate(tiny_backbone(), random_ids(2, 5), 7, config, MASK, unconditional=random_ids(1, 3)).ids
        assert (ids != MASK).all(), changes


def test_prompt_too_long_for_the_context():
    config = SamplingConfig(block_size=4)
    assert generate(tiny_backbone(), random_ids(1, 60), 4, config, MASK).ids.shape == (1, 4)  # 64 just fit
    with pytest.raises(ValueError, match="68 tokens exceed the context of 64"):
        generate(tiny_backbone(), random_ids(1, 61), 4, config, MASK)  # whole blocks count
    with pytest.raises(ValueError, match="exceed the context of 64"):
        generate(tiny_backbone(), random_ids(1, 70), 4, config, MASK)


def test_prompt_of_another_vocabulary():
    with pytest.raises(ValueError, match=r"must lie in \[0, 24\), got 24"):
        generate(tiny_backbone(), torch.full((1, 3), 24), 4, SamplingConfig(block_size=4), MASK)


def test_unconditional_prompt_must_not_be_longer():
    with pytest.raises(ValueError, match="guidance prompt is longer"):
        generate(tiny_backbone(), random_ids(1, 4), 4, SamplingConfig(guidance=2.0), MASK, unconditional=random_ids(1, 5))


# --- three branches, rescale, strategies -------------------------------------------------------------------------------


def test_three_way_guidance_formula():
    full, no_text, no_image = torch.randn(3, 2, 4, 7, generator=generator())
    assert torch.allclose(guide_edit(full, no_text, no_image, 1.0, 0.0), full, atol=1e-6)
    assert torch.allclose(guide_edit(full, no_text, no_image, 0.0, 1.0), 2 * no_text - no_image, atol=1e-6)
    assert torch.allclose(
        guide_edit(full, no_text, no_text, 4.0, 9.0), guide(full, no_text, 4.0), atol=1e-5
    )  # an empty difference adds nothing


def test_rescale_formula():
    guided, conditional = 3 * torch.randn(2, 4, 50, generator=generator()), torch.randn(2, 4, 50, generator=generator(1))
    whole = rescale(guided, conditional, 1.0)
    assert torch.allclose(whole.std(-1), conditional.std(-1), atol=1e-4)
    assert torch.allclose(rescale(guided, conditional, 0.7), 0.7 * whole + 0.3 * guided, atol=1e-5)
    assert torch.allclose(whole.argsort(-1), guided.argsort(-1))  # a positive factor per position keeps the order


@settings(few, max_examples=30)
@given(
    scales=st.tuples(st.sampled_from([0.0, 1.0, 4.0]), st.sampled_from([0.0, 1.0, -0.5])),
    phi=st.sampled_from([0.0, 0.7]),
    strategy=st.sampled_from(STRATEGIES),
    adaptive=st.booleans(),
    shorter=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    **{k: v for k, v in settings_of_decoding.items() if k != "guidance"},
)
def test_three_branches_cached_and_recomputed_give_the_same_tokens(
    scales, phi, strategy, adaptive, shorter, prompt, length, block, steps, threshold, seed
):
    backbone = tiny_backbone(seed % 11)
    config = SamplingConfig(block_size=block, steps=steps, threshold=threshold, temperature=0.8, guidance=scales[0], guidance_image=scales[1], rescale=phi, strategy=strategy, adaptive=adaptive)
    others = [random_ids(2, max(prompt - less, 1), seed=seed + 1 + i) for i, less in enumerate(shorter)]
    results = [
        generate(
            backbone, random_ids(2, prompt, seed=seed), length, config, MASK, EOS, unconditional=others[0], no_image=others[1],
            generator=generator(seed), use_cache=cached,
        )
        for cached in (True, False)
    ]  # fmt: skip
    assert torch.equal(results[0].ids, results[1].ids) and results[0].forwards == results[1].forwards


def test_each_row_has_its_own_guidance_prompt():
    backbone, prompt, other = tiny_backbone(3), random_ids(2, 7), random_ids(2, 5, seed=1)
    config = SamplingConfig(block_size=4, steps=2, guidance=3.0)
    both = generate(backbone, prompt, 8, config, MASK, unconditional=other).ids
    for row in range(2):
        assert torch.equal(generate(backbone, prompt[row : row + 1], 8, config, MASK, unconditional=other[row : row + 1]).ids[0], both[row])


def test_commit_scores_by_hand():
    logits = torch.tensor([[[0.6, 0.3, 0.1], [0.5, 0.5, 1e-9], [0.9, 0.05, 0.05]]]).log()
    confidence = logits.exp().amax(-1)
    assert torch.equal(commit_score("low_confidence", logits, confidence, None), confidence)
    assert torch.allclose(commit_score("top_k_margin", logits, confidence, None), torch.tensor([[0.3, 0.0, 0.85]]), atol=1e-5)
    entropy = [-sum(p * math.log(p) for p in row if p > 1e-8) for row in logits[0].exp().tolist()]
    assert torch.allclose(commit_score("neg_entropy", logits, confidence, None), -torch.tensor([entropy]), atol=1e-5)
    drawn = commit_score("random", logits, confidence, generator(1))
    assert drawn.shape == (1, 3) and not torch.equal(drawn, commit_score("random", logits, confidence, generator(2)))
    in_order = commit_score("left_to_right", logits, confidence, None)
    assert in_order[0, 0] > in_order[0, 1] > in_order[0, 2]
    # The strategy ranks; the threshold still looks at the confidence.
    margin = commit_score("top_k_margin", logits, confidence, None)
    assert choose_commits(confidence, torch.ones(1, 3).bool(), 1, 0.55, margin).tolist() == [[True, False, True]]
    assert choose_commits(confidence, torch.ones(1, 3).bool(), torch.tensor([[2]]), 0.95, margin).tolist() == [[True, False, True]]


def test_left_to_right_with_one_token_a_step_is_autoregression():
    backbone, prompt = tiny_backbone(4), random_ids(2, 5)
    config = SamplingConfig(block_size=4, steps=4, threshold=1.0, strategy="left_to_right")
    ids = prompt
    for _ in range(7):  # every next token by hand, the rest of its block masked
        canvas = torch.cat([ids, torch.full((2, 4 - ids.shape[1] % 4), MASK)], 1)
        blocks = torch.arange(canvas.shape[1]) // 4
        with torch.no_grad():
            logits = backbone(canvas, blocks[None, :, None] >= blocks[None, None, :])
        logits[..., MASK] = -math.inf
        ids = torch.cat([ids, logits[:, ids.shape[1]].argmax(-1, keepdim=True)], 1)
    assert torch.equal(generate(backbone, prompt, 7, config, MASK).ids, ids[:, 5:])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"guidance_image": math.nan}, "guidance_image must be a finite number"),
        ({"rescale": 1.5}, r"rescale must be"),
        ({"minimal_topk": 0}, "minimal_topk must be at least 1"),
        ({"minimal_topk": 9}, "minimal_topk 9 leaves no step for 8 tokens"),
        ({"strategy": "entropy"}, "strategy must be 'low_confidence', "),
    ],
)
def test_settings_of_the_released_loop_that_cannot_decode(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        generate(tiny_backbone(), random_ids(1, 4), 8, SamplingConfig(block_size=4, **changes), MASK)


# --- token editing -----------------------------------------------------------------------------------------------------


def test_edits_by_hand():
    logits = torch.tensor([[[0.1, 0.6, 0.3], [0.1, 0.6, 0.3], [0.8, 0.1, 0.1], [0.0, 0.45, 0.55]]]).log()
    ids, editable = torch.tensor([[1, 2, 1, 0]]), torch.tensor([[True, True, False, True]])

    def edited(threshold):
        tokens, confidence, edit = choose_edits(logits, ids, editable, threshold)
        assert tokens.tolist() == [[1, 1, 0, 2]] and torch.allclose(confidence, torch.tensor([[0.6, 0.6, 0.8, 0.55]]))
        return edit[0].int().tolist()

    # The first says the likeliest token already, the third may not be touched.
    assert edited(0.0) == edited(0.5) == [0, 1, 0, 1]
    assert edited(0.58) == [0, 1, 0, 0]
    assert edited(1.0) == [0, 0, 0, 0]


settings_of_editing = {k: v for k, v in settings_of_decoding.items() if k not in ("guidance", "threshold", "steps")} | dict(
    steps=st.integers(1, 4), threshold=st.sampled_from([0.3, 0.7]), edit=st.sampled_from([0.0, 0.3, 0.5]), post=st.integers(0, 4)
)


@settings(few, max_examples=25)
@given(tail=st.booleans(), **settings_of_editing)
def test_token_editing_is_the_slow_loop(prompt, length, block, steps, threshold, edit, post, seed, tail):
    """Also row by row: a row in a batch does what it would do alone, and needs as many passes."""
    backbone, prompts = tiny_backbone(seed % 11), random_ids(3, prompt, seed=seed)
    config = SamplingConfig(block_size=block, steps=min(steps, length), threshold=threshold, edit_threshold=edit, post_steps=post, fill_tail=tail)
    generation = generate(backbone, prompts, length, config, MASK)
    for row in range(3):
        with torch.no_grad():
            expected, passes = edit_by_hand(backbone, prompts[row].tolist(), length, config)
        assert generation.ids[row].tolist() == expected
        assert int(generation.passes[row]) == passes
    assert generation.forwards >= int(generation.passes.max())


@settings(few, max_examples=25)
@given(temperature=st.sampled_from([0.0, 1.0]), guidance=st.sampled_from([1.0, 2.0]), stop=st.booleans(), **settings_of_editing)
def test_token_editing_from_the_cache_gives_the_same_tokens(
    prompt, length, block, steps, threshold, edit, post, seed, temperature, guidance, stop
):
    config = SamplingConfig(block_size=block, steps=steps, threshold=threshold, temperature=temperature, guidance=guidance, edit_threshold=edit, post_steps=post)
    results = [
        generate(
            tiny_backbone(seed % 11), random_ids(2, prompt, seed=seed), length, config, MASK, EOS if stop else None,
            unconditional=random_ids(1, max(prompt - seed % 4, 1), seed=seed + 1), generator=generator(seed), use_cache=cached,
        )
        for cached in (True, False)
    ]  # fmt: skip
    assert torch.equal(results[0].ids, results[1].ids) and torch.equal(results[0].passes, results[1].passes)
    assert not (results[0].ids == MASK).any()


@few
@given(**settings_of_editing)
def test_an_edit_threshold_of_one_edits_nothing(prompt, length, block, steps, threshold, edit, post, seed):
    backbone, prompts = tiny_backbone(seed % 11), random_ids(2, prompt, seed=seed)
    plain = generate(backbone, prompts, length, SamplingConfig(block_size=block, steps=steps, threshold=threshold), MASK)
    never = generate(backbone, prompts, length, SamplingConfig(block_size=block, steps=steps, threshold=threshold, edit_threshold=1.0, post_steps=post), MASK)
    assert torch.equal(plain.ids, never.ids) and plain.forwards == never.forwards
    assert not any(step.edited.any() for step in never.steps)


@few
@given(**settings_of_editing)
def test_edits_touch_only_the_answer_in_its_block(prompt, length, block, steps, threshold, edit, post, seed):
    ids = random_ids(2, prompt, seed=seed)
    config = SamplingConfig(block_size=block, steps=steps, threshold=threshold, edit_threshold=edit, post_steps=post)
    canvas = torch.cat([ids, torch.full((2, length + block), MASK)], 1)
    after = Counter()
    for step in generate(tiny_backbone(seed % 11), ids, length, config, MASK).steps:
        before = canvas[:, step.start : step.start + block].clone()
        assert not (step.edited & ((before == MASK) | step.committed)).any(), "masks are committed, only what is no mask is edited"
        assert torch.equal(step.ids != before, step.committed | step.edited)
        after[step.start] += not (before == MASK).any()
        canvas[:, step.start : step.start + block] = step.ids
    assert torch.equal(canvas[:, :prompt], ids), "the prompt is never edited"
    assert all(passes <= max(post, 0) for passes in after.values()), "passes without masks are bounded"


class Undecided(Scripted):
    """Always prefers another token than the one that stands there: 5 after 6 and 6 after anything else."""

    def hidden_states(self, ids, mask=None, positions=None, cache=None, keep=0):
        return ids[..., None].float()

    def logits(self, hidden):
        return torch.nn.functional.one_hot(torch.where(hidden[..., 0] == 6, 5, 6), 24).float() * 9


def test_editing_that_never_settles_ends():
    model, prompt = Undecided([[9]], [0.9]), torch.full((2, 2), 9)
    generation = generate(model, prompt, 6, SamplingConfig(block_size=4, steps=2, threshold=0.5, edit_threshold=0.0, post_steps=16), MASK)
    assert generation.forwards == 2 * (1 + 16) and not (generation.ids == MASK).any()
    assert generate(model, prompt, 6, SamplingConfig(block_size=4, steps=2, threshold=0.5, edit_threshold=0.0, post_steps=0), MASK).forwards == 2


def test_a_row_ends_when_its_block_has_settled():
    """With editing, the block of the end of text is filled and edited before its row counts as finished."""
    model = Scripted([[9, 9, 5, EOS, 7, 7, 8, 9]], [0.9] * 8)
    config = SamplingConfig(block_size=4, steps=4, threshold=1.0, edit_threshold=0.5)
    generation = generate(model, torch.full((1, 2), 9), 6, config, MASK, EOS)
    assert (
        generation.ids.tolist() == [[5, EOS, EOS, EOS, EOS, EOS]] and generation.forwards == 3
    )  # two commits, one look that changes nothing


@pytest.mark.parametrize("edit", [0.3, 0.6])
def test_token_editing_against_the_released_rules(edit):
    """The scheduler of diffusers with the same threshold. It switches editing off at 0, where LLaDA2.1's speed mode always edits, and
    counts one more pass."""
    diffusers = pytest.importorskip("diffusers")
    from minillada.bench import PipelineModel

    class Maskless(PipelineModel):
        def forward(self, *inputs, **named):
            output = super().forward(*inputs, **named)
            output.logits[..., MASK] = -1e9  # theirs leaves it to the model never to choose the mask
            return output

    edits = 0
    for seed in range(6):
        backbone, prompt = tiny_backbone(seed, initializer_range=0.6), random_ids(1, 6, seed=seed)
        scheduler = diffusers.BlockRefinementScheduler(block_length=4)
        pipeline = diffusers.LLaDA2Pipeline(model=Maskless(backbone, 4), scheduler=scheduler)
        pipeline.set_progress_bar_config(disable=True)
        theirs = pipeline(
            input_ids=prompt, gen_length=10, block_length=4, num_inference_steps=8, temperature=0.0, sampling_method="greedy",
            threshold=0.7, editing_threshold=edit, max_post_steps=15, eos_early_stop=False, mask_token_id=MASK, output_type="seq",
        ).sequences  # fmt: skip
        ours = generate(backbone, prompt, 10, SamplingConfig(block_size=4, steps=8, threshold=0.7, edit_threshold=edit, post_steps=16), MASK)
        assert torch.equal(ours.ids, theirs)
        edits += sum(int(step.edited.sum()) for step in ours.steps)
    assert edits > 0, "nothing was edited, so nothing was compared"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"edit_threshold": 1.1}, r"edit_threshold must be at most 1.0, got 1.1"),
        ({"edit_threshold": -0.1}, "edit_threshold must be"),
        ({"edit_threshold": math.nan}, "edit_threshold must be"),
        ({"post_steps": -1}, "post_steps must be at least 0, got -1"),
    ],
)
def test_settings_that_cannot_edit(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        generate(tiny_backbone(), random_ids(1, 4), 8, SamplingConfig(block_size=4, **changes), MASK)


# --- the shipped model -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not checkpoint.shipped("mnist"), reason="the shipped weights are not there")
def test_cached_decoding_of_the_shipped_model_on_100_random_prompts():
    uni, source = load("mnist"), generator(17)
    digits, classes = torch.randint(10, (100,), generator=source), torch.randint(6, (100,), generator=source)
    prompts = [all_captions()[int(d) * 6 + int(c)] for d, c in zip(digits, classes, strict=True)]
    cached, uncached = (uni.draw_traced(prompts, seed=17, use_cache=c) for c in (True, False))
    assert torch.equal(cached.codes, uncached.codes)
    greedy = {"temperature": 0.0, "guidance": 1.0, "threshold": 0.8}
    cached, uncached = (uni.draw_traced(prompts[:20], use_cache=c, **greedy) for c in (True, False))
    assert torch.equal(cached.codes, uncached.codes)
    prompt = torch.tensor([layout.describe_prompt(uni.vocab, c) for c in cached.codes])
    config = uni.sampling(DESCRIBE)
    written = [generate(uni.backbone, prompt, 12, config, uni.vocab.mask_id, uni.vocab.eos_id, use_cache=c).ids for c in (True, False)]
    assert torch.equal(*written)


def test_a_row_ends_at_the_stop_token_and_keeps_it():
    """The same tokens as without, up to and including the first stop or end of text."""
    backbone = tiny_backbone(3)
    prompt, config = random_ids(6, 5), SamplingConfig(block_size=4, steps=4)
    free = generate(backbone, prompt, 24, config, MASK).ids
    stop = int(free[:, 2:20].flatten().bincount().argmax())
    stopped = generate(backbone, prompt, 24, config, MASK, EOS, stop).ids
    cut = 0
    for full, row in zip(free.tolist(), stopped.tolist(), strict=True):
        end = next((n for n, i in enumerate(full) if i in (stop, EOS)), 24)
        assert row[: end + 1] == full[: end + 1] and all(i == EOS for i in row[end + 1 :])
        cut += end < 23
    assert cut > 0

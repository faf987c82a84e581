"""Decoding against a slow loop for one row, and the cache against recomputing everything."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import reference
import torch
from helpers import EOS, MASK, few, many, random_ids, tiny_backbone, tiny_config
from hypothesis import given, settings
from hypothesis import strategies as st

from minillada import checkpoint, layout
from minillada.commit import Tokens, choose_edits, choose_tokens, quota, row_generators
from minillada.config import LARGEST_SEED, STRATEGIES, SamplingConfig
from minillada.datasets.captions import all_captions
from minillada.model import Backbone
from minillada.rows import Rows, decide
from minillada.sampler import generate
from minillada.uni import DESCRIBE, load

ANY = Tokens(MASK)

DECODING = dict(
    prompt=st.integers(1, 13),
    length=st.integers(1, 13),
    block=st.integers(1, 6),
    threshold=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    seed=st.integers(0, 10_000),
)
EDITING = DECODING | dict(
    threshold=st.sampled_from([0.3, 0.7]),
    edit=st.sampled_from([0.0, 0.3, 0.5]),
    post=st.integers(0, 4),
)
STEPS, SCALES = st.integers(1, 7), st.sampled_from([1.0, 0.0, 1.7, 3.0])

# --- the slow loop -------------------------------------------------------------------------------


@settings(few, max_examples=30)
@given(
    steps=STEPS,
    guidance=SCALES,
    shorter=st.integers(-3, 5),
    adaptive=st.booleans(),
    tail=st.booleans(),
    **DECODING,
)
def test_decoding_is_the_slow_loop(
    prompt, length, block, steps, threshold, guidance, seed, shorter, adaptive, tail
):
    backbone, prompts = tiny_backbone(seed % 11), random_ids(2, prompt, seed=seed)
    other = random_ids(1, max(prompt - shorter, 1), seed=seed + 1)
    config = SamplingConfig(
        block_size=block,
        steps=steps,
        threshold=threshold,
        guidance=guidance,
        adaptive=adaptive,
        fill_tail=tail,
        minimal_topk=1 + (length > 4),
    )
    generation = generate(backbone, prompts, length, config, ANY, (other,))
    for row in range(2):
        own = prompts[row].tolist()
        expected, passes = reference.decode(backbone, own, length, config, other[0].tolist())
        assert generation.ids[row].tolist() == expected
        assert int(generation.passes[row]) == passes


@settings(few, max_examples=25)
@given(steps=st.integers(1, 4), tail=st.booleans(), adaptive=st.booleans(), **EDITING)
def test_token_editing_is_the_slow_loop(
    prompt, length, block, steps, threshold, edit, post, seed, tail, adaptive
):
    """Also row by row: a row in a batch does what it would do alone, in as many passes."""
    backbone, prompts = tiny_backbone(seed % 11), random_ids(3, prompt, seed=seed)
    config = SamplingConfig(
        block_size=block,
        steps=min(steps, length),
        threshold=threshold,
        edit_threshold=edit,
        post_steps=post,
        adaptive=adaptive,
        fill_tail=tail,
    )
    generation = generate(backbone, prompts, length, config, ANY)
    for row in range(3):
        expected, passes = reference.decode(backbone, prompts[row].tolist(), length, config)
        assert generation.ids[row].tolist() == expected
        assert int(generation.passes[row]) == passes
    assert generation.forwards >= int(generation.passes.max())


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
    assert torch.equal(generate(backbone, prompt, 7, config, ANY).ids, ids[:, 5:])


# --- the cache -----------------------------------------------------------------------------------


def cached_and_recomputed(
    rows: int, prompt: int, length: int, config, stop: bool, seed: int, *less
):
    """Two generations with branches that are `less` tokens shorter than the prompt."""
    prompts = random_ids(rows, prompt, seed=seed)
    others = []
    for number, shorter in enumerate(less):
        others.append(random_ids(1, max(prompt - shorter, 1), seed=seed + 1 + number))
    tokens = Tokens(MASK, EOS if stop else None)
    results = []
    for cache in (True, False):
        source = row_generators(seed, rows)
        backbone = tiny_backbone(seed % 11)
        results.append(generate(backbone, prompts, length, config, tokens, others, source, cache))
    return results


@settings(few, max_examples=40)
@given(
    steps=STEPS,
    guidance=SCALES,
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.none() | st.integers(1, 8),
    top_p=st.none() | st.floats(0.3, 1.0),
    rows=st.integers(1, 3),
    stop=st.booleans(),
    **DECODING,
)
def test_cached_decoding_gives_the_same_tokens(
    prompt, length, block, threshold, seed, rows, stop, **sampling
):
    config = SamplingConfig(block_size=block, threshold=threshold, **sampling)
    a, b = cached_and_recomputed(rows, prompt, length, config, stop, seed, seed % 4)
    assert torch.equal(a.ids, b.ids)
    assert a.forwards == b.forwards == len(a.steps)
    for one, other in zip(a.steps, b.steps, strict=True):
        assert one.start == other.start
        assert torch.equal(one.ids, other.ids) and torch.equal(one.committed, other.committed)
        assert torch.allclose(one.confidence, other.confidence, atol=1e-4)


@settings(few, max_examples=30)
@given(
    steps=STEPS,
    guidance=st.sampled_from([0.0, 1.0, 4.0]),
    guidance_image=st.sampled_from([0.0, 1.0, -0.5]),
    rescale=st.sampled_from([0.0, 0.7]),
    strategy=st.sampled_from(STRATEGIES),
    adaptive=st.booleans(),
    shorter=st.tuples(st.integers(-2, 6), st.integers(0, 6)),
    **DECODING,
)
def test_three_branches_cached_and_recomputed_give_the_same_tokens(
    prompt, length, block, threshold, seed, shorter, **sampling
):
    config = SamplingConfig(block_size=block, threshold=threshold, temperature=0.8, **sampling)
    a, b = cached_and_recomputed(2, prompt, length, config, True, seed, *shorter)
    assert torch.equal(a.ids, b.ids) and a.forwards == b.forwards


@settings(few, max_examples=25)
@given(
    steps=st.integers(1, 4),
    temperature=st.sampled_from([0.0, 1.0]),
    guidance=st.sampled_from([1.0, 2.0]),
    stop=st.booleans(),
    **EDITING,
)
def test_token_editing_from_the_cache_gives_the_same_tokens(
    prompt, length, block, threshold, edit, post, seed, stop, **sampling
):
    config = SamplingConfig(
        block_size=block, threshold=threshold, edit_threshold=edit, post_steps=post, **sampling
    )
    a, b = cached_and_recomputed(2, prompt, length, config, stop, seed, seed % 4)
    assert torch.equal(a.ids, b.ids) and torch.equal(a.passes, b.passes)
    assert not (a.ids == MASK).any()


def widths_of(cache: bool) -> list[int]:
    """How many tokens a row each forward of a generation processed."""
    backbone, widths = tiny_backbone(), []
    original = backbone.hidden_states

    def spy(ids, *rest, **named):
        widths.append(ids.shape[1])
        return original(ids, *rest, **named)

    backbone.hidden_states = spy
    config = SamplingConfig(block_size=4, steps=3, threshold=1.0, fill_tail=False)
    generate(backbone, random_ids(1, 9), 12, config, ANY, cache=cache)
    return widths


def test_cache_forwards_every_finished_token_once():
    # A prompt of 9 ends in block 2. Its first forward carries the two prompt blocks; each later
    # block brings the last one.
    assert widths_of(cache=True) == [12, 4, 8, 4, 4, 8, 4, 4, 8]
    assert widths_of(cache=False) == [12, 12, 16, 16, 16, 20, 20, 20, 24]


# --- what a step may do --------------------------------------------------------------------------


@few
@given(steps=STEPS, temperature=st.sampled_from([0.0, 1.0]), **DECODING)
def test_what_is_committed_stays_and_the_schedule_is_kept(
    prompt, length, block, steps, threshold, seed, temperature
):
    config = SamplingConfig(
        block_size=block, steps=steps, threshold=threshold, temperature=temperature
    )
    ids = random_ids(2, prompt, seed=seed)
    source = row_generators(seed, 2)
    generation = generate(tiny_backbone(seed % 11), ids, length, config, ANY, generators=source)
    assert generation.ids.shape == (2, length) and not (generation.ids == MASK).any()
    canvas = torch.full((2, prompt + length + block), MASK)
    canvas[:, :prompt] = ids
    numbers: Counter = Counter()
    for step in generation.steps:
        before = canvas[:, step.start : step.start + block].clone()
        masked = before == MASK
        assert not (step.committed & ~masked).any(), "only masked positions are committed"
        assert ((step.confidence > 0) <= masked).all()
        share = quota(block, min(steps, length), numbers[step.start])
        assert (step.committed.sum(1) >= masked.sum(1).clamp_max(share)).all()
        assert torch.equal(step.ids == before, ~step.committed), "the rest is left alone"
        canvas[:, step.start : step.start + block] = step.ids
        numbers[step.start] += 1
    assert max(numbers.values()) <= steps
    assert torch.equal(canvas[:, prompt : prompt + length], generation.ids)
    assert torch.equal(canvas[:, :prompt], ids)


def test_number_of_forwards():
    backbone, prompt = tiny_backbone(), random_ids(2, 8)
    for steps, threshold, expected in ((4, 1.0, 8), (1, 1.0, 2), (3, 1.0, 6), (4, 0.0, 2)):
        config = SamplingConfig(block_size=4, steps=steps, threshold=threshold)
        assert generate(backbone, prompt, 8, config, ANY).forwards == expected


@pytest.mark.parametrize("prompt", [6, 8])
def test_nothing_to_write_takes_no_pass(prompt):
    generation = generate(tiny_backbone(), random_ids(2, prompt), 0, SamplingConfig(), ANY)
    assert generation.ids.shape == (2, 0) and generation.forwards == 0
    assert generation.passes.tolist() == [0, 0]


def test_a_mask_in_the_prompt_is_left_alone():
    prompt, config = random_ids(2, 6), SamplingConfig(block_size=4, steps=2)
    prompt[:, 5] = MASK
    first, *_ = generate(tiny_backbone(), prompt, 6, config, ANY).steps
    assert first.start == 4 and (first.ids[:, 1] == MASK).all()
    assert (first.confidence[:, :2] == 0).all() and not first.committed[:, :2].any()


def test_allowed_restricts_every_token():
    allowed = torch.zeros(24, dtype=torch.bool)
    allowed[[MASK, 5, 9, 17]] = True  # the mask itself is never written, even if allowed
    config = SamplingConfig(block_size=4, steps=4, temperature=2.0)
    tokens = Tokens(MASK, allowed=allowed)
    generation = generate(tiny_backbone(), random_ids(8, 5), 12, config, tokens)
    assert set(generation.ids.flatten().tolist()) == {5, 9, 17}


@few
@given(steps=st.integers(1, 4), **EDITING)
def test_an_edit_threshold_of_one_edits_nothing(
    prompt, length, block, steps, threshold, edit, post, seed
):
    backbone, prompts = tiny_backbone(seed % 11), random_ids(2, prompt, seed=seed)
    plain = SamplingConfig(block_size=block, steps=steps, threshold=threshold)
    never = SamplingConfig(
        block_size=block, steps=steps, threshold=threshold, edit_threshold=1.0, post_steps=post
    )
    a, b = (generate(backbone, prompts, length, config, ANY) for config in (plain, never))
    assert torch.equal(a.ids, b.ids) and a.forwards == b.forwards
    assert not any(step.edited.any() for step in b.steps)


@few
@given(steps=st.integers(1, 4), **EDITING)
def test_edits_touch_only_the_answer_in_its_block(
    prompt, length, block, steps, threshold, edit, post, seed
):
    ids = random_ids(2, prompt, seed=seed)
    config = SamplingConfig(
        block_size=block, steps=steps, threshold=threshold, edit_threshold=edit, post_steps=post
    )
    canvas = torch.cat([ids, torch.full((2, length + block), MASK)], 1)
    after: Counter = Counter()
    for step in generate(tiny_backbone(seed % 11), ids, length, config, ANY).steps:
        before = canvas[:, step.start : step.start + block].clone()
        masked = before == MASK
        assert not (step.edited & (masked | step.committed)).any(), "a mask is no text to edit"
        assert torch.equal(step.ids != before, step.committed | step.edited)
        after[step.start] += not masked.any()
        canvas[:, step.start : step.start + block] = step.ids
    assert torch.equal(canvas[:, :prompt], ids), "the prompt is never edited"
    assert all(passes <= post for passes in after.values()), "passes without masks are bounded"


# --- random numbers ------------------------------------------------------------------------------


def test_sampling_at_block_size_one_follows_the_autoregressive_distribution():
    """Frequencies of all two-token answers against the product of conditionals."""
    backbone, samples = tiny_backbone(8, vocab_size=5, initializer_range=0.2), 12_000
    prompt = random_ids(1, 2, 5)
    exact = {}
    with torch.no_grad():
        for a, b in itertools.product(range(1, 5), repeat=2):  # id 0 is the mask
            ids = prompt[0].tolist()
            first = reference.logits_of_prefix(backbone, [*ids, MASK], 1)[2, 1:].softmax(-1)
            second = reference.logits_of_prefix(backbone, [*ids, a, MASK], 1)[3, 1:].softmax(-1)
            exact[a, b] = float(first[a - 1] * second[b - 1])
    config = SamplingConfig(block_size=1, steps=1, temperature=1.0)
    drawn = generate(backbone, prompt.repeat(samples, 1), 2, config, ANY).ids
    counts = Counter(map(tuple, drawn.tolist()))
    assert sum(exact.values()) == pytest.approx(1, abs=1e-5) and set(counts) <= set(exact)
    chi_square = sum((counts[k] - samples * p) ** 2 / (samples * p) for k, p in exact.items())
    assert chi_square < 37.7  # the 0.1 % point with fifteen degrees of freedom


def test_the_seed_decides():
    """Also where it decides only which positions come first."""
    prompt = random_ids(4, 8)
    for changes in ({"temperature": 1.0}, {"strategy": "random", "threshold": 1.0}):
        config, results = SamplingConfig(block_size=4, steps=4, **changes), []
        for seed in (1, 1, 40):
            source = row_generators(seed, 4)
            made = generate(tiny_backbone(), prompt, 8, config, ANY, generators=source)
            results.append(torch.stack([step.ids for step in made.steps]))
        assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


@settings(few, max_examples=25)
@given(
    steps=st.integers(1, 4),
    temperature=st.sampled_from([0.0, 1.0]),
    strategy=st.sampled_from(["low_confidence", "random"]),
    adaptive=st.booleans(),
    **EDITING,
)
def test_a_row_alone_gets_what_it_gets_in_a_batch(
    prompt, length, block, threshold, edit, post, seed, **sampling
):
    """Row r uses seed + r, however long the other rows of its batch take."""
    backbone, prompts = tiny_backbone(seed % 11), random_ids(4, prompt, seed=seed)
    config = SamplingConfig(
        block_size=block, threshold=threshold, edit_threshold=edit, post_steps=post, **sampling
    )
    tokens = Tokens(MASK, EOS)
    source = row_generators(seed, 4)
    together = generate(backbone, prompts, length, config, tokens, generators=source)
    for row in range(4):
        source, own = row_generators(seed + row, 1), prompts[row : row + 1]
        alone = generate(backbone, own, length, config, tokens, generators=source)
        assert torch.equal(alone.ids[0], together.ids[row])
        assert int(alone.passes[0]) == int(together.passes[row])


def test_without_generators_row_r_uses_seed_r():
    prompt, config = random_ids(1, 5).repeat(3, 1), SamplingConfig(block_size=4, temperature=2.0)
    plain = generate(tiny_backbone(), prompt, 6, config, ANY)
    seeded = generate(tiny_backbone(), prompt, 6, config, ANY, generators=row_generators(0, 3))
    assert torch.equal(plain.ids, seeded.ids) and len(plain.ids.unique(dim=0)) == 3


def test_commits_are_sampled_and_edits_are_not():
    config = SamplingConfig(block_size=6, temperature=2.0, threshold=1.0, edit_threshold=0.3)
    nothing, masks = torch.zeros(2, 0, dtype=torch.long), torch.full((2, 6), MASK)
    rows = Rows(nothing, masks, 6, ANY, config)
    rows.ids[:, 3:] = 5  # written by earlier steps
    logits = 3 * torch.randn(12, 24)
    step = decide(rows, logits, 2, row_generators(1, 2))
    masked, editable = rows.open_positions()
    tokens, confidence = choose_tokens(logits, config, row_generators(1, 2), masked | editable)
    best, certainty, edit = choose_edits(logits.view(2, 6, 24), rows.ids, editable, 0.3)
    assert step.committed.sum(1).tolist() == [2, 2] and torch.equal(step.edited, edit)
    assert edit.any() and not torch.equal(tokens[edit], best[edit])
    expected = torch.where(edit, best, rows.ids)
    assert torch.equal(step.ids, torch.where(step.committed, tokens, expected))
    assert torch.equal(step.confidence, torch.where(masked, confidence, certainty))


def test_seeds_are_whole_numbers_in_range():
    first = torch.rand(3, generator=row_generators(7, 1)[0])
    assert torch.equal(first, torch.rand(3, generator=row_generators(np.int64(5), 3)[2]))
    assert len(row_generators(LARGEST_SEED, 2)) == 2
    for seed in (-1, LARGEST_SEED + 1, 10**20, 1.5, "one", None, True):
        with pytest.raises(ValueError, match="a seed is a whole number from 0 to 2147483648"):
            row_generators(seed, 1)


# --- end of text ---------------------------------------------------------------------------------


class Scripted(Backbone):
    """Predicts `script[row][position]` with confidence `sure[position]`, whatever it sees."""

    def __init__(self, script: list[list[int]], sure: list[float]):
        super().__init__(tiny_config(num_hidden_layers=1))
        self.script, self.sure = torch.tensor(script), torch.tensor(sure)

    def hidden_states(self, ids, mask, positions, cache, keep, where):
        row = torch.arange(len(ids))[:, None].expand_as(ids)
        return torch.stack([row, positions.expand_as(ids)], -1)[where].float()  # [N, 2]

    def logits(self, hidden):
        row, place = hidden.long().unbind(-1)
        sure = self.sure[place][..., None]
        probabilities = ((1 - sure) / 23).expand(*place.shape, 24)
        return probabilities.scatter(-1, self.script[row, place][..., None], sure).log()


@many
@given(rows=st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=3))
def test_ended_is_the_loop(rows):
    expected = [reference.has_ended(row, EOS) for row in rows]
    assert Tokens(MASK, EOS).ended(torch.tensor(rows)).tolist() == expected


def test_a_row_ends_at_its_first_end_of_text():
    script = [
        [9, 9, 5, 6, EOS, 7, 8, 9, 2, 3],
        [9, 9, 5, 6, 7, 7, 8, EOS, 2, 3],
        [9, 9, 5, 6, 7, 7, 8, 4, 2, 3],
    ]
    model, prompt = Scripted(script, [0.9] * 10), torch.full((3, 2), 9)
    config = SamplingConfig(block_size=2, steps=2, threshold=1.0)
    generation = generate(model, prompt, 8, config, Tokens(MASK, EOS))
    assert generation.ids.tolist() == [
        [5, 6, EOS, *[EOS] * 5],
        [5, 6, 7, 7, 8, EOS, EOS, EOS],
        [5, 6, 7, 7, 8, 4, 2, 3],
    ]
    late = [step for step in generation.steps if step.start >= 6]
    assert not any(step.committed[0].any() for step in late), "a finished row commits nothing"
    stopped = generate(model, prompt[:1], 8, config, Tokens(MASK, EOS))
    # Two passes for the first block, one that committed the end.
    assert stopped.forwards == 3 and generation.forwards == 8
    kept = generate(model, prompt, 8, config, ANY)
    assert kept.ids.tolist()[0] == [5, 6, EOS, 7, 8, 9, 2, 3]  # without eos nothing stops


def test_end_of_text_behind_a_mask_does_not_stop():
    """Position 3 is committed first; the row ends only when the positions before it are known."""
    model = Scripted([[9, 5, 6, EOS, 7, 7, 7, 7]], [0.9, 0.5, 0.6, 0.95, 0.8, 0.8, 0.8, 0.8])
    config = SamplingConfig(block_size=4, steps=4, threshold=1.0)
    generation = generate(model, torch.tensor([[9]]), 7, config, Tokens(MASK, EOS))
    commits = [step.committed[0].int().tolist() for step in generation.steps]
    assert commits == [[0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert generation.ids.tolist() == [[5, 6, EOS, EOS, EOS, EOS, EOS]]


def test_a_row_ends_at_the_stop_token_and_keeps_it():
    """The same tokens as without, up to and including the first stop or end of text."""
    backbone = tiny_backbone(3)
    prompt, config = random_ids(6, 5), SamplingConfig(block_size=4, steps=4)
    free = generate(backbone, prompt, 24, config, ANY).ids
    stop = int(free[:, 2:20].flatten().bincount().argmax())
    stopped = generate(backbone, prompt, 24, config, Tokens(MASK, EOS, stop)).ids
    unending = generate(backbone, prompt, 24, config, Tokens(MASK, None, stop)).ids
    assert torch.equal(unending, free), "without an end of text no row ends"
    cut = 0
    for full, row in zip(free.tolist(), stopped.tolist(), strict=True):
        end = next((n for n, i in enumerate(full) if i in (stop, EOS)), 24)
        assert row[: end + 1] == full[: end + 1]
        assert all(i == EOS for i in row[end + 1 :])
        cut += end < 23
    assert cut > 0


def test_the_head_and_the_last_mlp_run_at_open_positions_only():
    backbone, asked = tiny_backbone(), []
    for part in (backbone.model.layers[-1].mlp, backbone.lm_head):
        part.register_forward_hook(lambda part, inputs, out: asked.append(len(inputs[0])))
    config = SamplingConfig(block_size=4, steps=4, threshold=1.0)
    generate(backbone, random_ids(3, 6), 6, config, ANY)
    # The prompt ends in the middle of the first block; a step fills one position of each row.
    assert asked[0::2] == asked[1::2] == [3 * places for places in (2, 1, 4, 3, 2, 1)]


class Undecided(Scripted):
    """Always prefers another token than the one there: 5 after 6, and 6 after anything else."""

    def hidden_states(self, ids, mask, positions, cache, keep, where):
        return ids[where][..., None].float()

    def logits(self, hidden):
        tokens = torch.where(hidden[..., 0] == 6, 5, 6)
        return torch.nn.functional.one_hot(tokens, 24).float() * 9


@pytest.mark.parametrize("post", [0, 16])
def test_editing_that_never_settles_ends(post):
    model, prompt = Undecided([[9]], [0.9]), torch.full((2, 2), 9)
    config = SamplingConfig(
        block_size=4, steps=2, threshold=0.5, edit_threshold=0.0, post_steps=post
    )
    generation = generate(model, prompt, 6, config, ANY)
    assert generation.forwards == 2 * (1 + post) and not (generation.ids == MASK).any()


def test_a_row_ends_when_its_block_has_settled():
    """With editing, the block of the end is filled and edited before its row is finished."""
    model = Scripted([[9, 9, 5, EOS, 7, 7, 8, 9]], [0.9] * 8)
    config = SamplingConfig(block_size=4, steps=4, threshold=1.0, edit_threshold=0.5)
    generation = generate(model, torch.full((1, 2), 9), 6, config, Tokens(MASK, EOS))
    assert generation.ids.tolist() == [[5, EOS, EOS, EOS, EOS, EOS]]
    assert generation.forwards == 3  # two commits, one look that changes nothing


# --- inputs --------------------------------------------------------------------------------------


def test_legal_extremes_are_accepted():
    extremes = (
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"top_p": 1.0},
        {"top_k": 1},
        {"guidance": -2.0},
        {"temperature": 0.0},
    )
    for changes in extremes:
        config = SamplingConfig(block_size=4, **changes)
        ids = generate(tiny_backbone(), random_ids(2, 5), 7, config, ANY, (random_ids(1, 3),)).ids
        assert (ids != MASK).all(), changes


def test_prompt_too_long_for_the_context():
    backbone, config = tiny_backbone(), SamplingConfig(block_size=4)
    assert generate(backbone, random_ids(1, 60), 4, config, ANY).ids.shape == (1, 4)  # 64 just fit
    with pytest.raises(ValueError, match="61 tokens and .* 4 exceed .* 64, as they fill 68 in bl"):
        generate(backbone, random_ids(1, 61), 4, config, ANY)  # whole blocks count
    with pytest.raises(ValueError, match="shorten one of them, or take a model with more max_pos"):
        generate(backbone, random_ids(1, 70), 4, config, ANY)
    wide = SamplingConfig(block_size=48)
    with pytest.raises(ValueError, match="as they fill 96 in blocks of 48; choose a smaller block"):
        generate(backbone, random_ids(1, 40), 20, wide, ANY)  # the 60 tokens alone would fit


def test_prompt_of_another_vocabulary():
    wrong, config = torch.full((1, 3), 24), SamplingConfig(block_size=4)
    for prompt, answer in ((wrong, 4), (random_ids(1, 3), wrong)):
        with pytest.raises(ValueError, match=r"must lie in \[0, 24\), got 24"):
            generate(tiny_backbone(), prompt, answer, config, ANY)


@pytest.mark.parametrize(
    ("length", "changes", "sentence"),
    [
        (8, {"minimal_topk": 9}, "minimal_topk 9 leaves no step for 8 tokens"),
        (-1, {}, "length must be at least 0, got -1"),
    ],
)
def test_lengths_that_cannot_be_decoded(length, changes, sentence):
    config = SamplingConfig(block_size=4, **changes)
    with pytest.raises(ValueError, match=sentence):
        generate(tiny_backbone(), random_ids(1, 4), length, config, ANY)


def test_as_many_generators_as_rows():
    for count in (2, 4):
        source = row_generators(0, count)
        with pytest.raises(ValueError, match=f"{count} generators for 3 rows"):
            generate(tiny_backbone(), random_ids(3, 4), 4, SamplingConfig(), ANY, generators=source)


# --- peers and the shipped model -----------------------------------------------------------------


@pytest.mark.parametrize("edit", [0.3, 0.6])
def test_token_editing_against_the_released_rules(edit):
    """The scheduler of diffusers with the same threshold.

    It switches editing off at 0, where LLaDA2.1's speed mode always edits, and counts one more
    pass.
    """
    diffusers = pytest.importorskip("diffusers")
    from minillada.evaluation.bench import PipelineModel

    class Maskless(PipelineModel):
        def forward(self, *inputs, **named):
            output = super().forward(*inputs, **named)
            output.logits[..., MASK] = -1e9  # theirs leaves this to the model
            return output

    theirs = dict(
        gen_length=10,
        block_length=4,
        num_inference_steps=8,
        temperature=0.0,
        sampling_method="greedy",
        threshold=0.7,
        editing_threshold=edit,
        max_post_steps=15,
        eos_early_stop=False,
        mask_token_id=MASK,
        output_type="seq",
    )
    ours = SamplingConfig(block_size=4, steps=8, threshold=0.7, edit_threshold=edit, post_steps=16)
    edits = 0
    for seed in range(6):
        backbone, prompt = tiny_backbone(seed, initializer_range=0.6), random_ids(1, 6, seed=seed)
        scheduler = diffusers.BlockRefinementScheduler(block_length=4)
        pipeline = diffusers.LLaDA2Pipeline(model=Maskless(backbone, 4), scheduler=scheduler)
        pipeline.set_progress_bar_config(disable=True)
        generation = generate(backbone, prompt, 10, ours, ANY)
        assert torch.equal(generation.ids, pipeline(input_ids=prompt, **theirs).sequences)
        edits += sum(int(step.edited.sum()) for step in generation.steps)
    assert edits > 0, "nothing was edited, so nothing was compared"


@pytest.mark.skipif(not checkpoint.shipped("mnist"), reason="the shipped weights are not there")
def test_cached_decoding_of_the_shipped_model():
    """With and without guidance, and of text; notebook 08 compares a hundred guided drawings."""
    uni = load("mnist")
    prompts = all_captions()[::3]  # 20 of 60
    cached, uncached = (uni.draw_traced(prompts, seed=17, use_cache=c) for c in (True, False))
    assert torch.equal(cached.codes, uncached.codes)
    greedy = {"temperature": 0.0, "guidance": 1.0, "threshold": 0.8}
    cached, uncached = (uni.draw_traced(prompts, use_cache=c, **greedy) for c in (True, False))
    assert torch.equal(cached.codes, uncached.codes)
    prompt = torch.tensor([layout.describe_prompt(uni.vocab, c) for c in cached.codes])
    tokens, config = uni.tokens(), uni.sampling(DESCRIBE)
    written = [
        generate(uni.backbone, prompt, 12, config, tokens, cache=c).ids for c in (True, False)
    ]
    assert torch.equal(*written)

"""How branches are laid out and mixed: formulas by hand, branches against their own forward."""

import pytest
import torch
from helpers import MASK, few, generator, random_ids, tiny_backbone
from hypothesis import given
from hypothesis import strategies as st

from minillada import guidance
from minillada.config import SamplingConfig
from minillada.guidance import (
    Branches,
    guide,
    guide_edit,
    guided_logits,
    needed_branches,
    rescale,
)
from minillada.sampler import Tokens, generate

# --- formulas ------------------------------------------------------------------------------------


def test_guidance_formula():
    c, u = torch.randn(2, 3, 5, 7, generator=generator())
    assert guide(c, u, 1.0) is c  # scale 1 is the conditional branch, to the bit
    assert torch.equal(guide(c, u, 0.0), u)
    assert torch.allclose(guide(c, u, 2.0), 2 * c - u, atol=1e-6)
    assert torch.allclose(guide(c, u, 0.3), 0.7 * u + 0.3 * c, atol=1e-6)


def test_three_way_guidance_formula():
    full, no_text, no_image = torch.randn(3, 2, 4, 7, generator=generator())
    assert torch.allclose(guide_edit(full, no_text, no_image, 1.0, 0.0), full, atol=1e-6)
    only_image = guide_edit(full, no_text, no_image, 0.0, 1.0)
    assert torch.allclose(only_image, 2 * no_text - no_image, atol=1e-6)
    # An empty difference adds nothing.
    two = guide(full, no_text, 4.0)
    assert torch.allclose(guide_edit(full, no_text, no_text, 4.0, 9.0), two, atol=1e-5)


def test_rescale_formula():
    guided = 3 * torch.randn(2, 4, 50, generator=generator())
    conditional = torch.randn(2, 4, 50, generator=generator(1))
    whole = rescale(guided, conditional, 1.0)
    assert torch.allclose(whole.std(-1), conditional.std(-1), atol=1e-4)
    part = rescale(guided, conditional, 0.7)
    assert torch.allclose(part, 0.7 * whole + 0.3 * guided, atol=1e-5)
    # A positive factor per position keeps the order.
    assert torch.equal(whole.argsort(-1), guided.argsort(-1))
    assert rescale(torch.zeros(2, 5), torch.randn(2, 5), 0.7).isfinite().all()


def test_logits_are_rescaled_before_ids_are_forbidden():
    """The spread is that of the whole vocabulary, as in the released loop."""
    backbone, prompt, other = tiny_backbone(), random_ids(2, 4), random_ids(2, 4, seed=1)
    allowed = torch.arange(backbone.config.vocab_size) >= 16
    config = SamplingConfig(block_size=4, steps=1, guidance=3.0, rescale=0.7)
    [step] = generate(backbone, prompt, 4, config, Tokens(MASK, allowed=allowed), [other]).steps
    index, masks = torch.arange(8), torch.full((2, 4), MASK)
    visible = index[:, None] // 4 >= index // 4
    with torch.no_grad():
        full, less = (
            backbone(torch.cat([ids, masks], 1), visible[None])[:, 4:] for ids in (prompt, other)
        )
    mixed = rescale(guide(full, less, 3.0), full, 0.7)
    sure = mixed[..., allowed].softmax(-1).amax(-1)
    assert torch.allclose(step.confidence, sure, atol=1e-5)


def test_the_number_of_branches_chooses_the_formula():
    a, b, c = torch.randn(3, 4, 7, generator=generator())
    config = SamplingConfig(guidance=2.0, guidance_image=0.5)
    assert guided_logits([a], config) is a
    assert torch.equal(guided_logits([a, b], config), guide(a, b, 2.0))
    assert torch.equal(guided_logits([a, b, c], config), guide_edit(a, b, c, 2.0, 0.5))
    rescaled = SamplingConfig(guidance=2.0, rescale=0.7)
    assert torch.equal(guided_logits([a, b], rescaled), rescale(guide(a, b, 2.0), a, 0.7))


def test_only_the_branches_that_the_scales_need_are_run():
    no_text, no_image = others = (random_ids(1, 3), random_ids(1, 4))
    for text, image, needed in (
        (1.0, 0.0, ()),
        (2.0, 0.0, (no_text,)),
        (-1.0, 0.0, (no_text,)),
        (1.0, 1.5, others),
        (1.0, -0.5, others),
        (0.0, 1.0, others),
    ):
        found = needed_branches(others, SamplingConfig(guidance=text, guidance_image=image))
        assert list(map(id, found)) == list(map(id, needed)), (text, image)


# --- branches ------------------------------------------------------------------------------------


@few
@given(
    missing=st.integers(-4, 9),
    block=st.integers(1, 5),
    cache=st.booleans(),
    seed=st.integers(0, 999),
)
def test_a_branch_has_the_logits_of_its_own_forward(missing, block, cache, seed):
    """Also if it is shorter (padded) or longer (cut) than the prompt, here by `missing` tokens.

    Blocks are counted on the padded index. Where the padding is whole blocks that is simply
    `backbone` with its own block-causal mask.
    """
    backbone, start = tiny_backbone(seed % 11), 11
    unconditional, seen = random_ids(1, start - missing, seed=seed), []
    original = guidance.guide

    def spy(conditional, unconditional, scale):
        seen.append(unconditional.clone())
        return original(conditional, unconditional, scale)

    guidance.guide = spy
    try:
        config = SamplingConfig(block_size=block, steps=2, guidance=2.0)
        prompt = random_ids(2, start, seed=seed + 1)
        generation = generate(
            backbone, prompt, 6, config, Tokens(MASK), (unconditional,), cache=cache
        )
    finally:
        guidance.guide = original

    unconditional = unconditional[:, -start:]  # cut from the left, as released
    missing = start - unconditional.shape[1]
    total = -(-(start + 6) // block) * block
    canvas = torch.full((2, total), MASK)  # the first `missing` places are left out below
    canvas[:, missing:start] = unconditional
    for logits, step in zip(seen, generation.steps, strict=True):
        index = torch.arange(missing, step.start + block)
        visible = index[:, None] // block >= index // block
        with torch.no_grad():
            expected = backbone(canvas[:, index], visible[None])
        begin = max(step.start, start)  # the answer begins here in this block
        masked = canvas[:, begin : step.start + block] == MASK  # only these have logits
        assert torch.allclose(logits, expected[:, begin - missing :][masked], atol=1e-3)
        canvas[:, begin : step.start + block] = step.ids[:, begin - step.start :]


def test_padded_rows_count_positions_from_zero():
    """As the official code does. RoPE knows only distances, so no output could tell."""
    backbone, seen = tiny_backbone(), []
    original = backbone.hidden_states

    def spy(ids, mask, positions, *rest, **named):
        seen.append((ids, positions))
        return original(ids, mask, positions, *rest, **named)

    backbone.hidden_states = spy
    unconditional = random_ids(1, 4, seed=1)
    config = SamplingConfig(block_size=4, steps=1, guidance=2.0)
    generate(backbone, random_ids(1, 6), 4, config, Tokens(MASK), (unconditional,))
    ids, positions = seen[0]
    assert positions.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 0, 0, 1, 2, 3, 4, 5]]
    assert torch.equal(ids[1, 2:6], unconditional[0])


@pytest.mark.parametrize("first", [0, 4])
def test_padding_is_seen_by_itself_alone(first):
    """Every query sees something, also in the padding: else its softmax would be 0 / 0."""
    queries, keys = torch.arange(first, 8), torch.arange(8)
    mask = guidance.visible(queries, keys, 2, torch.tensor([[0], [3], [6]]))
    for row, padding in enumerate((0, 3, 6)):
        for q in range(first, 8):
            seen = [k for k in range(8) if k // 2 <= q // 2 and k >= padding or k == q]
            assert mask[row, q - first].nonzero().flatten().tolist() == seen


def test_a_longer_branch_is_cut_from_the_left():
    prompt, longer = random_ids(2, 6), random_ids(1, 9, seed=1)
    branches = Branches(tiny_backbone(), [prompt, longer], 4, MASK)
    assert branches.prefix[2:].tolist() == [longer[0, 3:].tolist()] * 2
    assert not branches.padding.any()


def test_guidance_one_is_the_conditional_branch_alone():
    backbone, batches = tiny_backbone(5), []
    original = backbone.hidden_states

    def spy(ids, *rest, **named):
        batches.append(len(ids))
        return original(ids, *rest, **named)

    backbone.hidden_states = spy
    prompt, other = random_ids(2, 6), random_ids(1, 4, seed=1)
    config = SamplingConfig(block_size=4, steps=2)
    without = generate(backbone, prompt, 8, config, Tokens(MASK))
    one = generate(backbone, prompt, 8, config, Tokens(MASK), (other,))
    assert torch.equal(without.ids, one.ids) and set(batches) == {2}
    config = SamplingConfig(block_size=4, steps=2, guidance=2.0)
    two = generate(backbone, prompt, 8, config, Tokens(MASK), (other,))
    assert set(batches) == {2, 4} and not torch.equal(one.ids, two.ids)


def test_each_row_has_its_own_branch():
    backbone, prompt, other = tiny_backbone(3), random_ids(2, 7), random_ids(2, 5, seed=1)
    config = SamplingConfig(block_size=4, steps=2, guidance=3.0)
    both = generate(backbone, prompt, 8, config, Tokens(MASK), (other,)).ids
    for row in range(2):
        own, branch = prompt[row : row + 1], other[row : row + 1]
        alone = generate(backbone, own, 8, config, Tokens(MASK), (branch,)).ids
        assert torch.equal(alone[0], both[row])


@pytest.mark.parametrize(
    ("changes", "count", "sentence"),
    [
        ({"guidance": 2.0}, 0, "guidance 2 has nothing to compare with"),
        ({"guidance": 0.0}, 0, "guidance 0 has nothing to compare with"),
        ({"guidance_image": 1.0}, 0, "guidance_image 1 compares a prompt without text"),
        ({"guidance_image": 1.0}, 1, "guidance_image 1 compares a prompt without text"),
    ],
)
def test_a_scale_without_its_branch_is_refused(changes, count, sentence):
    branches = [random_ids(1, 4, seed=seed) for seed in range(count)]
    with pytest.raises(ValueError, match=f"{sentence}.*; leave guidance(_image)? at [01]$"):
        config = SamplingConfig(block_size=4, **changes)
        generate(tiny_backbone(), random_ids(1, 4), 4, config, Tokens(MASK), branches)

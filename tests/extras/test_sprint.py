"""SPRINT: its formula against loops, the pin slip, and decoding that loses nothing it keeps."""

import math

import pytest
import torch
from helpers import MASK, few, many, random_ids, tiny_backbone
from hypothesis import example, given
from hypothesis import strategies as st

from minillada.config import SamplingConfig
from minillada.extras.sprint import Sprint, importance, keep_mask
from minillada.sampler import Tokens, generate

IS_IMAGE = torch.arange(24) >= 12  # the upper half of the tiny vocabulary counts as image codes


def test_importance_by_hand():
    norms, confidence = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 0.1, 0.9]])
    nobody = torch.zeros(1, 3, dtype=torch.bool)
    score = importance(norms, confidence, nobody, 0.5)
    assert torch.allclose(score, torch.tensor([[0.5, 0.55, 1.2]]))
    assert torch.equal(importance(norms, confidence, nobody, 0.0), confidence)


def test_the_slip_of_the_released_code_ranks_by_confidence_alone():
    norms, confidence = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 0.1, 0.9]])
    first = torch.tensor([[True, False, False]])
    right = importance(norms, confidence, first, 0.5)
    slipped = importance(norms, confidence, first, 0.5, pin_slip=True)
    assert right[0, 0] == slipped[0, 0] == math.inf
    assert torch.allclose(right[0, 1:], torch.tensor([0.55, 1.2]))
    assert torch.allclose(slipped[0, 1:], 0.5 * confidence[0, 1:])


@many
@given(
    data=st.data(), text=st.sampled_from([0.1, 0.5, 1.0]), image=st.sampled_from([0.25, 0.8, 1.0])
)
def test_keep_mask_is_the_loop(data, text, image):
    n = data.draw(st.integers(1, 9))
    is_image = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    real = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    score = data.draw(st.permutations([i / 4 for i in range(n)]))
    flags = torch.tensor([is_image]), torch.tensor([real])
    kept = keep_mask(torch.tensor([score]), *flags, text, image)
    expected = set()
    for kind, fraction in ((False, text), (True, image)):
        members = [i for i in range(n) if real[i] and is_image[i] == kind]
        best = sorted(members, key=lambda i: -score[i])
        expected |= set(best[: math.ceil(round(fraction * len(members), 6))])
    assert set(kept[0].nonzero().flatten().tolist()) == expected


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.6, 0.8])
def test_large_counts_are_not_rounded_up(share):
    """Tenths in whole numbers: ceil(share · n) is what -(-10 share · n // 10) says."""
    for n in (85, 200, 350, 4096, 8000):
        real, image = torch.ones(1, n, dtype=torch.bool), torch.zeros(1, n, dtype=torch.bool)
        kept = keep_mask(torch.rand(1, n), image, real, share, 1.0)
        assert int(kept.sum()) == -(-round(10 * share) * n // 10)
    real, image = torch.ones(1, 25, dtype=torch.bool), torch.zeros(1, 25, dtype=torch.bool)
    assert 0.28 * 25 > 7 == int(keep_mask(torch.rand(1, 25), image, real, 0.28, 1.0).sum())


@few
@given(
    prompt=st.integers(1, 13),
    length=st.integers(1, 13),
    block=st.integers(1, 6),
    warmup=st.integers(1, 3),
    guidance=st.sampled_from([1.0, 2.0]),
    shorter=st.integers(0, 5),
    seed=st.integers(0, 999),
)
# A prompt that ends inside the block: each branch sees the end of its own.
@example(prompt=2, length=6, block=6, warmup=1, guidance=2.0, shorter=1, seed=245)
def test_keeping_everything_changes_nothing(prompt, length, block, warmup, guidance, shorter, seed):
    backbone, prompts = tiny_backbone(seed % 11), random_ids(2, prompt, seed=seed)
    config = SamplingConfig(block_size=block, steps=4, threshold=0.8, guidance=guidance)
    branch = (random_ids(1, max(prompt - shorter, 1), seed=seed + 1),)
    sprint = Sprint(IS_IMAGE, 1.0, 1.0, warmup=warmup)
    plain = generate(backbone, prompts, length, config, Tokens(MASK), branch)
    kept = generate(backbone, prompts, length, config, Tokens(MASK), branch, cache=sprint)
    assert torch.equal(plain.ids, kept.ids) and plain.forwards == kept.forwards


def norms_of_keys(backbone, tokens, mask):
    """For each layer the mean norm `[L]` of its heads' keys (RoPE does not stretch them)."""
    keys = []
    layers = [layer.attention.key_layernorm for layer in backbone.model.layers]
    hooks = [m.register_forward_hook(lambda _, __, out: keys.append(out)) for m in layers]
    with torch.no_grad():
        backbone(tokens, mask)
    for hook in hooks:
        hook.remove()
    return [key[0].norm(dim=-1).mean(0) for key in keys]


def with_masks(backbone, tokens, visible):
    """Logits `[L, V]` of a sequence where each layer has a mask `[L, L]` of its own."""

    def exchange(attention, given):
        x, context = given
        return x, context._replace(mask=visible[attention.layer][None])

    layers = [layer.attention for layer in backbone.model.layers]
    hooks = [attention.register_forward_pre_hook(exchange) for attention in layers]
    with torch.no_grad():
        logits = backbone(tokens)[0]
    for hook in hooks:
        hook.remove()
    return logits


@few
@given(
    block=st.integers(2, 5),
    seed=st.integers(0, 999),
    text=st.sampled_from([0.3, 0.6, 1.0]),
    shorter=st.integers(0, 4),
)
# Padding takes no part in the mean norm.
@example(block=4, seed=124, text=0.3, shorter=1)
# All text is kept, and the best of the image codes, not the first.
@example(block=5, seed=7, text=1.0, shorter=0)
def test_a_pruned_step_is_attention_with_the_dropped_keys_masked(block, seed, text, shorter):
    """The slow way: the whole sequence; in each layer the block sees what it kept, and itself.

    The layers do not keep the same tokens.
    """
    backbone, start = tiny_backbone(seed % 11), 3 * block
    sprint, seen = Sprint(IS_IMAGE, text, 0.5, warmup=1), []
    original = backbone.logits

    def spy(hidden):
        seen.append(original(hidden))
        return seen[-1]

    prompt, other = random_ids(2, start, seed=seed), random_ids(1, start - shorter, seed=seed + 1)
    config = SamplingConfig(block_size=block, steps=2, threshold=1.0, guidance=2.0)
    backbone.logits = spy
    generation = generate(backbone, prompt, block, config, Tokens(MASK), (other,), cache=sprint)
    backbone.logits = original
    # Logits of the prefix in the first step, of the block in the first, of the block in the last.
    assert len(seen) == 3 and len(generation.steps) == 2
    masked = generation.steps[0].ids == MASK  # [2, block]: where the last step has logits
    rows = [(prompt[0], 0), (prompt[1], 0), (other[0], shorter), (other[0], shorter)]
    confidence, answer = seen[0].softmax(-1).amax(-1), seen[-1].chunk(len(rows))
    for row, (ids, missing) in enumerate(rows):
        length = len(ids)
        tokens = torch.cat([ids, generation.steps[0].ids[row % 2]])[None]
        block_of = (torch.arange(tokens.shape[1]) + missing) // block
        causal = block_of[:, None] >= block_of
        nobody, real = torch.zeros(1, length, dtype=torch.bool), torch.ones(1, length).bool()
        visible = []
        for norms in norms_of_keys(backbone, tokens, causal[None]):
            score = importance(norms[None, :length], confidence[[row], missing:], nobody, 0.5)
            kept = keep_mask(score, IS_IMAGE[ids][None], real, text, 0.5)[0]
            own = causal.clone()
            own[length:, :length] = kept
            visible.append(own)
        expected = with_masks(backbone, tokens, visible)[length:]
        assert torch.allclose(answer[row], expected[masked[row % 2]], atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"keep_text": 0.0}, r"text tokens to keep must lie in \(0, 1\], got 0"),
        ({"keep_image": 1.2}, r"image tokens to keep must lie in \(0, 1\], got 1.2"),
        ({"alpha": -0.1}, r"alpha must lie in \[0, 1\]"),
        ({"warmup": 0}, "warmup must be at least 1"),
    ],
)
def test_settings_that_cannot_prune(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sprint(IS_IMAGE, **changes)


def test_three_branches_can_be_pruned_too():
    config = SamplingConfig(block_size=4, steps=4, guidance=2.0, guidance_image=1.5)
    backbone, prompts = tiny_backbone(), random_ids(2, 9)
    others = random_ids(1, 7, seed=1), random_ids(1, 4, seed=2)
    plain = generate(backbone, prompts, 10, config, Tokens(MASK), others)
    whole, few = Sprint(IS_IMAGE, 1.0, 1.0), Sprint(IS_IMAGE, 0.2, 0.2)
    kept = generate(backbone, prompts, 10, config, Tokens(MASK), others, cache=whole)
    assert torch.equal(plain.ids, kept.ids)
    pruned = generate(backbone, prompts, 10, config, Tokens(MASK), others, cache=few)
    assert all(step.confidence.isfinite().all() for step in pruned.steps)

"""SPRINT: its formula against loops, the pin slip shown, and decoding that changes nothing while nothing is dropped."""

import math

import pytest
import torch
from helpers import MASK, few, generator, many, random_ids, tiny_backbone
from hypothesis import given
from hypothesis import strategies as st

from minillada.config import SamplingConfig
from minillada.extras.sprint import Sprint, importance, keep_mask
from minillada.sampler import generate

IS_IMAGE = torch.arange(24) >= 12  # the upper half of the tiny vocabulary counts as image codes


def test_importance_by_hand():
    norms, confidence = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, 0.1, 0.9]])
    nobody = torch.zeros(1, 3, dtype=torch.bool)
    assert torch.allclose(importance(norms, confidence, nobody, 0.5), torch.tensor([[0.5, 0.55, 1.2]]))
    assert torch.equal(importance(norms, confidence, nobody, 0.0), confidence)
    first = torch.tensor([[True, False, False]])
    right, slipped = importance(norms, confidence, first, 0.5), importance(norms, confidence, first, 0.5, pin_slip=True)
    assert right[0, 0] == slipped[0, 0] == math.inf
    assert torch.allclose(right[0, 1:], torch.tensor([0.55, 1.2]))
    assert torch.allclose(slipped[0, 1:], 0.5 * confidence[0, 1:]), "after the slip only confidence ranks"


@many
@given(data=st.data(), text=st.sampled_from([0.1, 0.5, 1.0]), image=st.sampled_from([0.25, 0.8, 1.0]))
def test_keep_mask_is_the_loop(data, text, image):
    n = data.draw(st.integers(1, 9))
    flags = lambda: data.draw(st.lists(st.booleans(), min_size=n, max_size=n))  # noqa: E731
    is_image, real = flags(), flags()
    score = data.draw(st.permutations([i / 4 for i in range(n)]))
    kept = keep_mask(torch.tensor([score]), torch.tensor([is_image]), torch.tensor([real]), text, image)
    expected = set()
    for kind, fraction in ((False, text), (True, image)):
        members = sorted((i for i in range(n) if real[i] and is_image[i] == kind), key=lambda i: -score[i])
        expected |= set(members[: math.ceil(round(fraction * len(members), 6))])
    assert set(kept[0].nonzero().flatten().tolist()) == expected


@few
@given(
    prompt=st.integers(1, 13), length=st.integers(1, 13), block=st.integers(1, 6), warmup=st.integers(1, 3),
    guidance=st.sampled_from([1.0, 2.0]), shorter=st.integers(0, 5), seed=st.integers(0, 999),
)  # fmt: skip
def test_keeping_everything_changes_nothing(prompt, length, block, warmup, guidance, shorter, seed):
    backbone, config = tiny_backbone(seed % 11), SamplingConfig(block_size=block, steps=4, threshold=0.8, guidance=guidance)
    call = dict(unconditional=random_ids(1, max(prompt - shorter, 1), seed=seed + 1))
    plain = generate(backbone, random_ids(2, prompt, seed=seed), length, config, MASK, **call)
    kept = generate(
        backbone, random_ids(2, prompt, seed=seed), length, config, MASK, sprint=Sprint(IS_IMAGE, 1.0, 1.0, warmup=warmup), **call
    )
    assert torch.equal(plain.ids, kept.ids) and plain.forwards == kept.forwards


@few
@given(block=st.integers(2, 5), seed=st.integers(0, 999), text=st.sampled_from([0.3, 0.6]), shorter=st.integers(0, 4))
def test_a_pruned_step_is_attention_with_the_dropped_keys_masked(block, seed, text, shorter):
    """The slow way: the whole sequence, in which the block may attend only to what was kept and to itself."""
    backbone, start = tiny_backbone(seed % 11), 3 * block
    sprint, seen = Sprint(IS_IMAGE, text, 0.5, warmup=1), []
    original = backbone.logits
    backbone.logits = lambda hidden: seen.append(original(hidden)) or seen[-1]
    prompt, other = random_ids(2, start, seed=seed), random_ids(1, start - shorter, seed=seed + 1)
    config = SamplingConfig(block_size=block, steps=2, threshold=1.0, guidance=2.0)
    generation = generate(backbone, prompt, block, config, MASK, unconditional=other, sprint=sprint)
    backbone.logits = original
    confidence, answer = seen[0].softmax(-1).amax(-1), seen[-1]  # prefix of the first step, block of the last
    assert len(seen) == 3 and len(generation.steps) == 2
    rows = [(prompt[0], 0), (prompt[1], 0), (other[0], shorter), (other[0], shorter)]
    for row, (ids, missing) in enumerate(rows):
        keys: list = []
        layers = [layer.attention.key_layernorm for layer in backbone.model.layers]
        hooks = [m.register_forward_hook(lambda _, __, out, keys=keys: keys.append(out)) for m in layers]
        tokens = torch.cat([ids, generation.steps[0].ids[row % 2]])[None]
        block_of = (torch.arange(tokens.shape[1]) + missing) // block
        causal = block_of[:, None] >= block_of
        with torch.no_grad():
            backbone(tokens, causal[None])
        norms = torch.stack([k[0].norm(dim=-1).mean(0) for k in keys]).mean(0)[: start - missing]  # RoPE turns, it does not stretch
        image = IS_IMAGE[ids]
        score = importance(norms[None], confidence[row : row + 1, missing:], torch.zeros(1, len(ids), dtype=torch.bool), 0.5)
        kept = keep_mask(score, image[None], torch.ones(1, len(ids), dtype=torch.bool), text, 0.5)[0]
        causal[start - missing :, : start - missing] = kept
        with torch.no_grad():
            expected = backbone(tokens, causal[None])[0, start - missing :]
        for hook in hooks:
            hook.remove()
        assert torch.allclose(answer[row], expected, atol=1e-3)


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


def test_sprint_needs_a_cache_and_at_most_two_branches():
    config = SamplingConfig(block_size=4, guidance=2.0, guidance_image=1.0)
    with pytest.raises(ValueError, match="without three-way guidance"):
        generate(tiny_backbone(), random_ids(1, 4), 4, config, MASK, use_cache=False, sprint=Sprint(IS_IMAGE), generator=generator())
    others = {"unconditional": random_ids(1, 4), "no_image": random_ids(1, 4)}
    with pytest.raises(ValueError, match="without three-way guidance"):
        generate(tiny_backbone(), random_ids(1, 4), 4, config, MASK, sprint=Sprint(IS_IMAGE), **others)

"""Recorded steps against the usual loop; on a CPU they run without being recorded."""

from __future__ import annotations

import pytest
import torch
from helpers import EOS, MASK, few, random_ids, tiny_backbone, tiny_uni
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from minillada import checkpoint
from minillada.commit import Tokens, row_generators
from minillada.config import STRATEGIES, SamplingConfig
from minillada.extras import graphs
from minillada.extras.graphs import Graphs
from minillada.guidance import open_branches
from minillada.model import Backbone
from minillada.sampler import Generation, generate
from minillada.vocab import load_vocabulary

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")


def check_equal(ours: Generation, expected: Generation) -> None:
    assert torch.equal(ours.ids, expected.ids)
    assert torch.equal(ours.passes, expected.passes)
    assert ours.forwards == expected.forwards == len(ours.steps)
    for one, other in zip(ours.steps, expected.steps, strict=True):
        assert one.start == other.start and torch.equal(one.ids, other.ids)
        assert torch.equal(one.committed, other.committed) and torch.equal(one.edited, other.edited)
        assert torch.allclose(one.confidence, other.confidence, atol=1e-4)


@settings(few, max_examples=40)
@given(
    prompt=st.integers(1, 13),
    length=st.integers(1, 13),
    block=st.integers(1, 6),
    rows=st.integers(1, 3),
    shorter=st.lists(st.integers(-3, 5), max_size=2),
    stop=st.booleans(),
    seed=st.integers(0, 10_000),
    steps=st.integers(1, 7),
    threshold=st.sampled_from([0.3, 0.8, 1.0]),
    temperature=st.sampled_from([0.0, 0.0, 0.8]),
    edit_threshold=st.sampled_from([1.0, 1.0, 0.4]),
    strategy=st.sampled_from(STRATEGIES),
    rescale=st.sampled_from([0.0, 0.7]),
    adaptive=st.booleans(),
    fill_tail=st.booleans(),
    gather=st.booleans(),
)
def test_fixed_steps_give_the_same_tokens(
    prompt, length, block, rows, shorter, stop, seed, **sampling
):
    """Two generations of each kind: the second finds what the first has left behind."""
    backbone, kept = tiny_backbone(seed % 11), Graphs()
    if shorter:
        sampling |= dict(guidance=1.7, guidance_image=1.2 if len(shorter) == 2 else 0.0)
    config = SamplingConfig(block_size=block, **sampling)
    others = []
    for number, less in enumerate(shorter):
        others.append(random_ids(1, max(prompt - less, 1), seed=seed + 5 + number))
    allowed = torch.rand(24, generator=torch.Generator().manual_seed(seed)) > 0.2
    tokens = Tokens(MASK, EOS if stop else None, allowed=allowed if seed % 2 else None)
    for again in range(2):
        ids = random_ids(rows, prompt, seed=seed + again)
        made = []
        for cache in (kept, True):
            source = row_generators(seed, rows)
            made.append(generate(backbone, ids, length, config, tokens, others, source, cache))
        check_equal(*made)
    assert len(kept.loops) == 1


def test_given_tokens_stay_and_whole_blocks_of_them_are_passed_over():
    backbone, config = tiny_backbone(), SamplingConfig(block_size=4, steps=3)
    answer = random_ids(2, 20, seed=1)
    answer[:, ::3] = MASK
    answer[:, 4:16] = random_ids(2, 12, seed=2)  # three blocks without a mask
    prompt, kept = random_ids(2, 8), Graphs()
    ours = generate(backbone, prompt, answer, config, Tokens(MASK), cache=kept)
    check_equal(ours, generate(backbone, prompt, answer, config, Tokens(MASK)))
    assert torch.equal(ours.ids[:, 4:16], answer[:, 4:16])


def test_an_answer_of_no_token_is_empty():
    config = SamplingConfig(block_size=4)
    made = generate(tiny_backbone(), random_ids(2, 5), 0, config, Tokens(MASK), cache=Graphs())
    assert made.ids.shape == (2, 0) and made.forwards == 0


def test_logits_of_the_whole_room_are_those_of_the_cache():
    """Two rows, two branches of which one is padded, and a block after the prompt's."""
    backbone, config = tiny_backbone(), SamplingConfig(block_size=4, guidance=2.0)
    prompt, other = random_ids(2, 9), random_ids(1, 6, seed=1)
    canvas = torch.full((2, 128), MASK)
    canvas[:, :9], canvas[:, 9:12] = prompt, random_ids(2, 3, seed=2)
    canvas[:, 13] = 7
    usual = open_branches(backbone, prompt, config, MASK, (other,), cache=True)
    fixed = graphs.FixedBranches(usual, room=128)
    fixed.load(usual)
    rows = type("Rows", (), dict(ids=canvas, here=torch.arange(8, 12)))
    everywhere = torch.ones(2, 4, dtype=torch.bool)
    with torch.no_grad():
        for first, width in ((8, 12), (8, 4), (12, 8), (12, 4)):
            rows.here = torch.arange(first, first + 4)
            expected = usual.logits(canvas, first, 0, everywhere)
            for one, two in zip(fixed.logits(rows, width), expected, strict=True):
                assert torch.allclose(one, two, atol=1e-5)


class Questions(TorchDispatchMode):
    """Notes the calls for which a GPU must be waited for, or whose result has no fixed shape."""

    kinds = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "unique")

    def __init__(self):
        super().__init__()
        self.calls, self.found = 0, []

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        self.calls += 1
        places = args[1] if "index" in str(call) and isinstance(args[1], list | tuple) else ()
        by_value = any(place is not None and place.dtype == torch.bool for place in places)
        if by_value or any(kind in str(call) for kind in self.kinds):
            self.found.append(str(call))
        return call(*args, **(kwargs or {}))


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("adaptive", [False, True])
def test_nothing_that_is_recorded_asks_for_a_value(guidance, adaptive, monkeypatch):
    original, found, calls = graphs.FixedLoop.play, [], []

    def spy(loop, work):
        with Questions() as questions:
            result = original(loop, work)
        calls.append(questions.calls)
        found.extend(questions.found)
        return result

    monkeypatch.setattr(graphs.FixedLoop, "play", spy)
    tokens = Tokens(MASK, EOS, allowed=torch.ones(24, dtype=torch.bool))
    for sampling in (dict(), dict(temperature=1.0), dict(edit_threshold=0.5)):
        config = SamplingConfig(block_size=4, guidance=guidance, adaptive=adaptive, **sampling)
        others = (random_ids(1, 5),) if guidance != 1 else ()
        generate(tiny_backbone(), random_ids(2, 9), 8, config, tokens, others, cache=Graphs())
    assert not found
    assert min(calls) > 100


def test_similar_lengths_share_what_is_recorded_and_the_oldest_is_dropped():
    backbone, config, kept = tiny_backbone(), SamplingConfig(block_size=4, steps=2), Graphs()
    for prompt, length in ((5, 7), (6, 8), (3, 12)):
        generate(backbone, random_ids(1, prompt), length, config, Tokens(MASK), cache=kept)
    assert len(kept.loops) == 1
    for steps in range(2, 2 + graphs.KEEP + 2):
        config = SamplingConfig(block_size=4, steps=steps)
        generate(backbone, random_ids(1, 5), 12, config, Tokens(MASK), cache=kept)
    assert len(kept.loops) == graphs.KEEP


def test_what_no_graph_repeats_is_refused():
    prompt, config = random_ids(1, 5), SamplingConfig(block_size=4, steps=2)
    experts = tiny_backbone(
        num_experts=4, num_experts_per_tok=2, n_group=2, topk_group=1, moe_intermediate_size=8
    )
    with pytest.raises(ValueError, match="choose their experts anew"):
        generate(experts, prompt, 4, config, Tokens(MASK), cache=Graphs())
    with pytest.raises(ValueError, match="autocast"), torch.autocast("cpu", torch.bfloat16):
        generate(tiny_backbone(), prompt, 4, config, Tokens(MASK), cache=Graphs())


@pytest.mark.filterwarnings("ignore:this model knows no word")
def test_a_model_decodes_all_its_tasks_with_its_recorder():
    uni, digits = tiny_uni(), torch.rand(2, 1, 32, 32)
    expected = uni.draw(["a seven", "a three"], steps=2), uni.describe(digits, steps=2)
    uni.recorder = Graphs()
    drawn, said = uni.draw(["a seven", "a three"], steps=2), uni.describe(digits, steps=2)
    assert torch.equal(drawn, expected[0]) and said == expected[1]
    assert len(uni.recorder.loops) == 2


# --- on a GPU ------------------------------------------------------------------------------------

KINDS = {
    "greedy": dict(threshold=0.9),
    "guided": dict(threshold=0.9, guidance=2.0, rescale=0.7),
    "adaptive": dict(threshold=0.95, adaptive=True),
    "sampled": dict(temperature=1.0, top_k=50),
    "at random": dict(strategy="random", threshold=1.0),
    "edited": dict(threshold=0.7, edit_threshold=0.5),
}


@needs_cuda
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("kind", KINDS)
def test_graphs_give_the_tokens_of_the_usual_loop(kind, rows):
    backbone, _ = checkpoint.load_model("mnist", Backbone, "cuda")
    config = SamplingConfig(block_size=16, steps=8, **KINDS[kind])
    tokens, kept = Tokens(load_vocabulary(512).mask_id), Graphs()
    other = random_ids(1, 9, 250, seed=9).cuda() if config.guidance != 1 else None
    for again in range(3):
        prompt = random_ids(rows, 20 + again, 250, seed=again).cuda()
        branches = () if other is None else (other,)
        made = []
        for cache in (kept, True):
            source = row_generators(again, rows)
            made.append(generate(backbone, prompt, 100, config, tokens, branches, source, cache))
        check_equal(*made)
    [loop] = kept.loops.values()
    assert sorted(loop.tape.recorded) == [16, 32]


@needs_cuda
def test_rows_that_end_early_end_early_with_graphs():
    backbone = tiny_backbone().cuda()
    config, prompt = SamplingConfig(block_size=4, steps=4, threshold=1.0), random_ids(3, 6).cuda()
    allowed = torch.arange(24) < 6
    tokens, kept = Tokens(MASK, EOS, allowed=allowed), Graphs()
    for _ in range(2):
        ours = generate(backbone, prompt, 40, config, tokens, cache=kept)
        check_equal(ours, generate(backbone, prompt, 40, config, tokens))


@needs_cuda
def test_graphs_in_bfloat16_are_deterministic():
    backbone, _ = checkpoint.load_model("mnist", Backbone, "cuda")
    backbone, kept = backbone.bfloat16(), Graphs()
    config, prompt = SamplingConfig(block_size=16, steps=8), random_ids(4, 20, 250).cuda()
    made = [
        generate(backbone, prompt, 64, config, Tokens(load_vocabulary(512).mask_id), cache=kept).ids
        for _ in range(3)
    ]
    assert torch.equal(made[0], made[1]) and torch.equal(made[1], made[2])

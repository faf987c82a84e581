"""What is shown stays to the token; the rest is filled in as the slow, obvious loop fills it in."""

import functools
import math

import pytest
import reference
import torch
from helpers import MASK, few, random_ids, real_images, tiny_backbone, tiny_uni
from hypothesis import given, settings
from hypothesis import strategies as st

import minillada
from minillada import filling, layout
from minillada.commit import row_generators
from minillada.config import SamplingConfig
from minillada.filling import LONGEST, between_blanks, candidates, log_likelihood
from minillada.sampler import Tokens, generate
from minillada.settings import changed
from minillada.uni import DESCRIBE

# The tiny model knows the words of captions alone.
pytestmark = pytest.mark.filterwarnings("ignore:this model knows no word")

uni = tiny_uni()
HALF = torch.tensor([[True] * 4, [True] * 4, [False] * 4, [False] * 4])


def codes_of(count: int) -> torch.Tensor:
    return uni.encode(real_images(count).floats())


# --- the sampler ---------------------------------------------------------------------------------


def some_given(rows: int, length: int, seed: int) -> torch.Tensor:
    """Answers of random ids, about half of them masked, not the same in every row."""
    ids = random_ids(rows, length, seed=seed)
    hidden = torch.rand(rows, length, generator=torch.Generator().manual_seed(seed)) < 0.5
    return ids.masked_fill(hidden, MASK)


@settings(few, max_examples=40)
@given(
    prompt=st.integers(1, 9),
    length=st.integers(1, 10),
    block=st.sampled_from([1, 3, 4, 8]),
    steps=st.integers(1, 5),
    guidance=st.sampled_from([1.0, 2.5]),
    shorter=st.integers(-2, 4),
    gather=st.booleans(),
    seed=st.integers(0, 50),
)
def test_filling_in_is_the_slow_loop(prompt, length, block, steps, guidance, shorter, gather, seed):
    """With cache and without: the same tokens, and what is given stays in its place."""
    backbone, prompts = tiny_backbone(seed % 5), random_ids(2, prompt, seed=seed)
    other = random_ids(1, max(prompt - shorter, 1), seed=seed + 1)
    answer = some_given(2, length, seed)
    config = SamplingConfig(
        block_size=block, steps=steps, threshold=1.0, guidance=guidance, gather=gather,
        fill_tail=False,
    )  # fmt: skip
    for cache in (True, False):
        filled = generate(backbone, prompts, answer, config, Tokens(MASK), (other,), cache=cache)
        shown = answer != MASK
        assert torch.equal(filled.ids[shown], answer[shown])
        for row in range(2):
            branch = other[0].tolist() if guidance != 1 else None
            own, asked = prompts[row].tolist(), answer[row].tolist()
            expected = reference.fill_in(backbone, own, asked, config, branch)
            assert filled.ids[row].tolist() == expected


def test_padding_is_no_part_of_a_prompt_that_is_too_long():
    """63 of 64 positions, but blocks of 4 from position 0: with padding of 1, 64 and 4 more."""
    config = SamplingConfig(block_size=4, gather=True)
    with pytest.raises(ValueError, match=r"prompt of 63 tokens and an answer of 4 .* fill 68 in"):
        generate(tiny_backbone(), random_ids(1, 63), 4, config, Tokens(MASK))


@pytest.mark.parametrize("gather", [False, True])
def test_masks_alone_are_an_answer_of_that_length(gather):
    prompts = random_ids(2, 6)
    config = SamplingConfig(block_size=4, temperature=1.0, guidance=2.0, gather=gather)
    others = (random_ids(1, 3),)
    masks = torch.full((2, 9), MASK)
    a = generate(tiny_backbone(), prompts, 9, config, Tokens(MASK), others)
    b = generate(tiny_backbone(), prompts, masks, config, Tokens(MASK), others)
    assert torch.equal(a.ids, b.ids) and a.forwards == b.forwards


def test_an_answer_without_masks_takes_no_pass():
    answer = random_ids(2, 9, seed=1)
    config = SamplingConfig(block_size=4, fill_tail=False)
    done = generate(tiny_backbone(), random_ids(2, 6), answer, config, Tokens(MASK))
    assert torch.equal(done.ids, answer) and done.forwards == 0


def test_given_tokens_are_never_rewritten():
    """Token editing changes what the model wrote, but not what it was given."""
    answer, changes = some_given(3, 12, 4), 0
    shown = answer != MASK
    for seed in range(6):
        config = SamplingConfig(block_size=4, steps=2, temperature=1.0, edit_threshold=0.05)
        source = row_generators(seed, 3)
        written = generate(
            tiny_backbone(), random_ids(3, 6), answer, config, Tokens(MASK), (), source
        )
        assert torch.equal(written.ids[shown], answer[shown])
        changes += sum(int(step.edited.sum()) for step in written.steps)
    assert changes > 0, "where nothing is rewritten, this would prove nothing"


def test_moved_borders_let_a_hole_see_all_that_is_shown():
    """A prompt of 6 tokens ends inside a block of 4, and an answer of 4 would lie in two."""
    prompt, config = random_ids(1, 6), SamplingConfig(block_size=4, fill_tail=False)
    answers = torch.tensor([[MASK, 5, 6, 7], [MASK, 5, 6, 8]])  # the last token differs
    steps = []
    for gather, start in ((False, 6), (True, 8)):
        moved = changed(config, gather=gather)
        for answer in answers:
            generation = generate(tiny_backbone(), prompt, answer[None], moved, Tokens(MASK))
            assert generation.start == start and list(generation.rows) == [0]
            steps.append(generation.steps[0].confidence.max())
    assert steps[0] == steps[1], "the last token is in a later block"
    assert steps[2] != steps[3], "one block holds the whole answer"


def test_answers_that_do_not_fit_the_prompts():
    for count in (1, 3):
        answers = random_ids(count, 4)
        with pytest.raises(ValueError, match=f"{count} answers for 2 prompts; give one for each"):
            generate(tiny_backbone(), random_ids(2, 3), answers, SamplingConfig(), Tokens(MASK))


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize("caption", [None, "a thin two"])
def test_what_is_shown_stays_and_the_rest_is_drawn(caption):
    codes = codes_of(3)
    traced = uni.inpaint_traced(codes, HALF, caption, seed=1)
    assert torch.equal(traced.codes[:, ~HALF], codes[:, ~HALF])
    assert not torch.equal(traced.codes[:, HALF], codes[:, HALF])
    assert torch.equal(traced.images, uni.decode(traced.codes))
    again = uni.inpaint(real_images(3).floats(), HALF, caption, seed=1)
    assert torch.equal(again, traced.images)
    again = uni.inpaint(real_images(3).floats(), HALF, caption, seed=1, steps=2)
    fewer = uni.inpaint_traced(codes, HALF, caption, seed=1, steps=2)
    assert torch.equal(again, fewer.images) and not torch.equal(fewer.codes, traced.codes)
    other = uni.inpaint_traced(codes, HALF, caption, seed=9).codes
    assert not torch.equal(other, traced.codes)


def test_a_fully_masked_image_is_a_drawing():
    codes, everything = codes_of(2), torch.ones(32, 32, dtype=torch.bool)
    for settings_ in ({}, {"guidance": 3.0, "steps": 4}):
        drawn = uni.draw_traced(["a thin two"] * 2, seed=5, **settings_)
        filled = uni.inpaint_traced(codes, everything, "a thin two", seed=5, **settings_)
        assert torch.equal(filled.codes, drawn.codes)
        assert filled.generation.forwards == drawn.generation.forwards


def test_holes_are_drawn_with_the_settings_of_the_model(monkeypatch):
    codes = codes_of(1)
    one, other = (uni.inpaint_traced(codes, HALF, "a seven", seed=s).codes for s in (1, 2))
    assert not torch.equal(one, other)
    monkeypatch.setattr(uni, "info", {"drawing": {"temperature": 0.0}})
    one, other = (uni.inpaint_traced(codes, HALF, "a seven", seed=s).codes for s in (1, 2))
    assert torch.equal(one, other)


def test_only_images_that_are_shown_in_part_move_the_borders():
    codes, nothing = codes_of(2), torch.ones(4, 4, dtype=torch.bool)
    length = len(layout.draw_prompt(uni.vocab, None, 4))
    for mask, start in ((HALF, 16 * -(-length // 16)), (nothing, length)):
        assert length % 16 and uni.inpaint_traced(codes, mask).generation.start == start
    assert uni.inpaint_traced(codes[:0], HALF).images.shape == (0, 1, 32, 32)


def test_codes_of_another_grid_are_refused():
    with pytest.raises(ValueError, match=r"codes must form a \[B, 4, 4\] grid"):
        uni.inpaint_traced(codes_of(1)[:, :2], HALF)


def test_with_nothing_masked_nothing_changes():
    images = real_images(2).floats()
    traced = uni.inpaint_traced(uni.encode(images), torch.zeros(4, 4, dtype=torch.bool))
    assert torch.equal(traced.codes, uni.encode(images)) and traced.generation.forwards == 0
    assert torch.equal(traced.images, uni.decode(uni.encode(images)))


def test_one_image_of_a_batch_can_be_filled_in_alone():
    codes, captions = codes_of(3), ["a thin two", "a seven", "a thick eight leaning left"]
    masks = torch.stack([HALF, HALF.T, ~HALF])
    together = uni.inpaint_traced(codes, masks, captions, seed=2).codes
    for row in range(3):
        one = slice(row, row + 1)
        alone = uni.inpaint_traced(codes[one], masks[one], captions[one], seed=2 + row).codes
        assert torch.equal(alone[0], together[row])


def test_an_image_hidden_whole_is_drawn_beside_others_as_alone():
    """In its own order: the drawing may come first, last, or between others."""
    codes, captions = codes_of(3), ["a thin two", "a seven", "a thick eight leaning left"]
    everything, changes = torch.ones(4, 4, dtype=torch.bool), 0
    for masks in ([everything, HALF, everything], [HALF, everything, HALF.T]):
        together = uni.inpaint_traced(codes, torch.stack(masks), captions, seed=2)
        alike = uni.inpaint_traced(codes, torch.stack(masks), ["a seven"] * 3).generation
        assert alike.rows == [0, 2] and alike.place(2) == 1
        for row, mask in enumerate(masks):
            one = slice(row, row + 1)
            alone = uni.inpaint_traced(codes[one], mask, captions[one], seed=2 + row)
            assert torch.equal(alone.codes[0], together.codes[row])
            changes += not torch.equal(alone.codes[0], codes[row])
            if row == 0:
                assert together.generation.ids[0].equal(alone.generation.ids[0])
    assert changes == 6


def test_a_mask_of_pixels_hides_every_code_that_it_touches():
    codes = codes_of(1)
    pixels = torch.zeros(32, 32, dtype=torch.bool)
    pixels[7:9, 31] = True  # two pixels, in two patches of 8 x 8
    hidden = torch.zeros(4, 4, dtype=torch.bool)
    hidden[:2, 3] = True
    expected = uni.inpaint_traced(codes, hidden, seed=3).codes
    for mask in (pixels, pixels[None], pixels.numpy(), hidden.numpy()):
        assert torch.equal(uni.inpaint_traced(codes, mask, seed=3).codes, expected)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(4, 4), r"a mask holds True where to fill in, got torch.float32; write `mask >"),
        ([[True]], "a mask holds True where to fill in, got list"),
        (
            torch.ones(5, 5, dtype=torch.bool),
            r"a mask of 2 images is \[32, 32\] pixels or \[4, 4\]",
        ),
        (torch.ones(3, 4, 4, dtype=torch.bool), r"got \[3, 4, 4\]"),
        (torch.ones(2, 1, 4, 4, dtype=torch.bool), r"got \[2, 1, 4, 4\]"),
        (torch.tensor(True), r"got \[\]"),
    ],
)
def test_masks_that_cannot_be_used(mask, message):
    with pytest.raises(ValueError, match=message):
        uni.inpaint(real_images(2).floats(), mask)


def test_guidance_needs_a_caption():
    for scale in (2.0, 0.0):
        with pytest.raises(ValueError, match="guidance strengthens a caption; give one, or leave"):
            uni.inpaint_traced(codes_of(1), HALF, guidance=scale)
    plain, one = (uni.inpaint_traced(codes_of(1), HALF, guidance=s) for s in (None, 1.0))
    assert torch.equal(plain.codes, one.codes)
    with pytest.raises(ValueError, match="2 texts for 1 images"):
        uni.inpaint_traced(codes_of(1), HALF, ["a two", "a three"])


def test_colour_is_filled_in_too():
    colour = tiny_uni(channels=3)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    codes = colour.encode(images)
    traced = colour.inpaint_traced(codes, HALF, "a bright photo of a ship")
    assert torch.equal(traced.codes[:, ~HALF], codes[:, ~HALF])
    assert traced.images.shape == (2, 3, 32, 32)


# --- sentences -----------------------------------------------------------------------------------


def test_parts_around_blanks():
    assert between_blanks("a thick ___ leaning right") == ["a thick", " leaning right"]
    assert between_blanks(" ___ thin _, blue") == ["", " thin", ", blue"]
    assert between_blanks("a seven ___") == between_blanks("a seven ___ ") == ["a seven", ""]
    assert between_blanks("_ a _ b _ c") == ["", " a", " b", " c"]  # as many as may be


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a seven", "there is no blank in 'a seven'; write ___ where words are missing"),
        ("a se___", "a blank stands for whole words; put spaces around ___ in 'a se___'"),
        ("a ___ven", "a blank stands for whole words; put spaces around ___ in 'a ___ven'"),
        ("___", "the text is only a blank; use `describe` for a whole caption"),
        ("_ a _ b _ c _", "4 blanks are too many; use 3 at most"),
        ("a seven ___ " + "leaning right " * 9, "is too long: an answer has 16 tokens"),
    ],
)
def test_blanks_that_cannot_be_filled(text, message):
    with pytest.raises(ValueError, match=message):
        uni.infill(text, real_images(1).floats())


@pytest.mark.parametrize("texts", [3, None, [3], ("a ___ two", 3)])
def test_blanks_are_in_texts(texts):
    with pytest.raises(ValueError, match="texts must be a list of strings, for example"):
        uni.infill(texts, real_images(1).floats())


def test_candidates_have_every_length_of_a_blank():
    vocab = uni.vocab
    found = candidates(vocab, "a thick ___ leaning ___", 16)
    assert len(found) == LONGEST**2 and all(len(ids) == 16 for ids in found)
    lengths = [(ids.index(vocab.eos_id), ids.count(vocab.mask_id)) for ids in found]
    assert lengths[0] == (5, 2) and max(lengths) == (3 + 2 * LONGEST, 2 * LONGEST)
    fitting = candidates(vocab, "a thick ___ leaning ___", lengths[0][0] + 2)
    assert len(fitting) == 3 and all(ids[-1] == vocab.eos_id for ids in fitting)
    whole = vocab.encode("a thick seven leaning right")
    one = candidates(vocab, "a thick ___ leaning right", 16)[0]
    assert [i for i in one if i not in (vocab.mask_id, vocab.eos_id)] == whole[:2] + whole[3:]


def test_words_that_are_given_stay():
    assert uni.infill([], real_images(1).floats()[:0]) == []
    texts = ["a thick ___ leaning right", "___ seven ___"]
    for text, answer in zip(texts, uni.infill(texts, real_images(2).floats())):
        parts = between_blanks(text)
        assert answer.startswith(parts[0]) and answer.endswith(parts[-1])
        assert len(answer) > sum(map(len, parts)), "something stands in each blank"


def test_the_likeliest_length_wins(monkeypatch):
    """Each candidate is scored by a forward pass of its own for every token."""
    image = real_images(1).floats()
    prompt = layout.describe_prompt(uni.vocab, uni.encode(image)[0])
    config = uni.sampling(changed(DESCRIBE, gather=True))
    allowed = uni.vocab.is_text()
    allowed[uni.vocab.eos_id] = False
    masked = torch.tensor(candidates(uni.vocab, "a thick ___ leaning right", 16))
    rows = [(prompt,)] * len(masked)
    filled, _ = uni.write(rows, masked, config, uni.tokens(allowed))
    padding = -len(prompt) % 16  # the answer begins a block of 16
    scores = []
    for answer in filled:
        score = 0.0
        for i, token in enumerate(answer):
            ids = prompt + answer[:i] + [uni.vocab.mask_id] * (16 - i)
            logits = reference.logits_of_prefix(uni.backbone, ids, 16, padding)[len(prompt) + i]
            logits[~uni.vocab.is_text()] = -math.inf
            logits[uni.vocab.mask_id] = -math.inf
            score += float(logits.log_softmax(-1)[token].detach())
        scores.append(score)
    prompts, answers = torch.tensor([prompt] * len(filled)), torch.tensor(filled)
    found = log_likelihood(uni, prompts, answers, config)
    assert torch.allclose(found, torch.tensor(scores), atol=1e-3) and not found.requires_grad
    best = filled[scores.index(max(scores))]
    text = uni.vocab.decode(i for i in best if i != uni.vocab.eos_id)
    assert uni.infill("a thick ___ leaning right", image) == [text]
    for place, best in enumerate(filled):  # wherever it stands
        monkeypatch.setattr(filling, "log_likelihood", lambda *_, k=place: torch.eye(LONGEST)[k])
        text = uni.vocab.decode(i for i in best if i != uni.vocab.eos_id)
        assert uni.infill("a thick ___ leaning right", image) == [text]


def test_memory_does_not_grow_with_the_sentences_that_are_compared(monkeypatch):
    images, sizes, steps = real_images(3).floats(), [], []
    text = "a ___ seven leaning ___"  # 16 sentences an image
    whole = uni.infill(text, images)

    def scored(model, prompt, *rest):
        sizes.append(len(prompt))
        steps.append(rest[-1].steps)
        return log_likelihood(model, prompt, *rest)

    monkeypatch.setattr(filling, "BATCH_SIZE", 20)
    monkeypatch.setattr(filling, "log_likelihood", scored)
    assert uni.infill(text, images) == whole and sizes == [20, 20, 8]
    uni.infill(text, images[:1], steps=3)
    assert set(steps[:3]) == {DESCRIBE.steps} and steps[3:] == [3]


@pytest.mark.parametrize("block", [1, 16])
def test_probabilities_of_all_answers_sum_to_one(block):
    """All answers of two tokens, each scored by itself: the chain rule loses nothing."""
    prompt = layout.describe_prompt(uni.vocab, codes_of(1)[0])
    config, allowed = uni.sampling(DESCRIBE, block_size=block), uni.vocab.is_text()
    allowed[uni.vocab.mask_id] = False
    words = allowed.nonzero()[:, 0]
    first = int(words[7])
    one = log_likelihood(uni, torch.tensor([prompt]), torch.tensor([[first]]), config)
    pairs = torch.stack([torch.full_like(words, first), words], 1)
    both = log_likelihood(uni, torch.tensor([prompt] * len(pairs)), pairs, config)
    assert float(both.logsumexp(0)) == pytest.approx(float(one), abs=1e-4)


@functools.cache
def shipped():
    return minillada.load("mnist-uni")


def test_the_shipped_model_names_the_digit_in_a_blank():
    images = real_images(6)
    said = shipped().infill("a thick ___ leaning right", images.floats())
    words = minillada.datasets.mnist.DIGITS
    assert said == [f"a thick {words[label]} leaning right" for label in images.labels.tolist()]

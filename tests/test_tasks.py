"""Drawing and describing are the sampler on the right sequence; everything around them keeps order, shape and meaning."""

import json
import math

import pytest
import torch
from helpers import (
    few,
    mnist_test_images,
    real_images,
    save_tiny_uni,
    tiny_backbone,
    tiny_tokenizer,
    tiny_uni,
)
from hypothesis import given
from hypothesis import strategies as st

import minillada
import minillada.uni as uni_module
from minillada import checkpoint, layout
from minillada.datasets import captions
from minillada.measure.judge import load_judge
from minillada.sampler import generate, row_generators
from minillada.settings import changed
from minillada.uni import ANSWER_LENGTH, DESCRIBE, DRAW, EDIT, THINK, Uni, equal_lengths
from minillada.vocab import load_vocabulary

uni = tiny_uni()
GREEDY = dict(temperature=0.0, steps=4)
MIXED = ["a seven", "a thick seven leaning right", "an eight", "a thin zero standing upright", "a seven leaning left", "something else"]


# --- drawing -----------------------------------------------------------------------------------------------------------


def test_drawings_are_pictures():
    images = uni.draw(["a seven"] * 3, steps=2)
    assert images.shape == (3, 1, 32, 32) and images.dtype == torch.float32 and images.device.type == "cpu"
    assert images.min() >= 0 and images.max() <= 1
    assert uni.draw([]).shape == (0, 1, 32, 32)


@pytest.mark.parametrize("task", [uni.draw, uni.think_and_draw, uni.interleave_all])
def test_a_single_string_is_not_a_list_of_letters(task):
    with pytest.raises(ValueError, match="a list of strings"):
        task("draw the sum of three and four")
    with pytest.raises(ValueError, match="empty"):
        task(["a seven", " "])


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_drawing_is_the_sampler_on_the_layout(guidance):
    traced = uni.draw_traced(["a thin two"] * 2, seed=5, guidance=guidance, steps=3)
    prompt = torch.tensor([layout.draw_prompt(uni.vocab, "a thin two", 4)] * 2)
    config = changed(DRAW, steps=3, guidance=guidance, block_size=uni.backbone.config.block_size)
    unconditional = torch.tensor([layout.draw_prompt(uni.vocab, None, 4)])
    expected = generate(
        uni.backbone,
        prompt,
        16,
        config,
        uni.tokens(uni.vocab.is_image()),
        (unconditional,),
        row_generators(5, 2),
    )
    assert torch.equal(traced.codes, uni.vocab.codes(expected.ids).view(2, 4, 4))
    assert torch.equal(traced.generation.ids, expected.ids)
    assert torch.equal(traced.images, uni.tokenizer.decode(traced.codes))
    assert traced.codes.unique().numel() > 3, "a model that always draws the same would prove little"


def test_settings_reach_the_sampler():
    one, two = (uni.draw_traced(["a seven"], guidance=g, **GREEDY).codes for g in (1.0, 3.0))
    assert not torch.equal(one, two)
    assert uni.draw_traced(["a seven"], steps=1).generation.forwards < uni.draw_traced(["a seven"], steps=8).generation.forwards
    assert uni.draw_traced(["a seven"], block_size=4, steps=1).generation.forwards == 5  # 4-blocks around the end of the prompt
    assert uni.sampling(DRAW, steps=None, guidance=3.0) == changed(DRAW, guidance=3.0)


def test_the_seed_decides_and_the_cache_does_not():
    a, b, c = (uni.draw(["a seven"] * 2, seed=s, steps=2) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c) and not torch.equal(a[0], a[1])
    uncached = uni.draw_traced(["a seven"] * 2, seed=0, steps=2, use_cache=False)
    assert torch.equal(uncached.images, a)


def test_prompts_of_different_lengths_come_back_in_order(monkeypatch):
    """Each as if it had been drawn alone: grouping by length and batching are invisible."""
    alone = torch.cat([uni.draw_traced([c], **GREEDY).codes for c in MIXED])
    assert len({tuple(c.flatten().tolist()) for c in alone}) > 3
    assert torch.equal(uni.draw_traced(MIXED, **GREEDY).codes, alone)
    monkeypatch.setattr(uni_module, "BATCH_SIZE", 2)
    assert torch.equal(uni.draw_traced(MIXED * 2, **GREEDY).codes, alone.repeat(2, 1, 1))


@few
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=20), batch_size=st.integers(1, 5))
def test_equal_lengths_is_a_partition(lengths, batch_size):
    groups = equal_lengths([([0] * n, [0]) for n in lengths], batch_size)
    assert sorted(i for rows in groups for i in rows) == list(range(len(lengths)))
    for rows in groups:
        assert 1 <= len(rows) <= batch_size and len({lengths[i] for i in rows}) == 1 and rows == sorted(rows)


# --- describing --------------------------------------------------------------------------------------------------------


def test_describing_is_the_sampler_on_the_layout():
    images = real_images(3).floats()
    codes = uni.tokenizer.encode(images)
    prompt = torch.tensor([layout.describe_prompt(uni.vocab, c) for c in codes])
    config = changed(DESCRIBE, block_size=uni.backbone.config.block_size)
    tokens = uni.tokens(uni.vocab.is_text())
    answer = generate(uni.backbone, prompt, ANSWER_LENGTH, config, tokens).ids
    expected = []
    for row in answer.tolist():
        expected.append(uni.vocab.decode(row[: row.index(uni.vocab.eos_id)] if uni.vocab.eos_id in row else row))
    assert uni.describe(images) == expected == uni.describe_codes(codes)
    assert len(set(expected)) > 1 and not any("<code" in text for text in expected)


def test_the_question_is_part_of_the_prompt():
    images = real_images(4).floats()
    assert uni.describe(images, question="Which digit is it?") != uni.describe(images)


def test_describing_in_batches_keeps_the_order(monkeypatch):
    images = real_images(5).floats()
    whole = uni.describe(images)
    monkeypatch.setattr(uni_module, "BATCH_SIZE", 2)
    assert uni.describe(images) == whole
    assert uni.describe(images[:0]) == []
    pixels = uni.tokenizer.decode(uni.tokenizer.encode(images))
    assert torch.allclose(uni.decode(uni.encode(images)), pixels, atol=1e-5)


def test_every_caption_fits_the_answer():
    vocab = load_vocabulary(16)
    assert max(len(vocab.encode(c)) for c in captions.all_captions()) + 1 <= ANSWER_LENGTH


# --- inputs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampling", "sentence"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"guidance": math.nan}, "guidance must be a finite number"),
        ({"guidance": math.inf}, "guidance must be a finite number"),
        ({"threshold": 2.0}, "threshold must be"),
        ({"temperature": -0.5}, "temperature must be"),
        ({"block_size": 0}, "block_size must be at least 1"),
        ({"top_k": 0}, "top_k must be at least 1"),
    ],
)
def test_settings_that_cannot_decode(sampling, sentence):
    with pytest.raises(ValueError, match=sentence):
        uni.draw(["a seven"], **sampling)
    with pytest.raises(ValueError, match=sentence):
        uni.describe(real_images(1).floats(), **sampling)


def test_captions_that_cannot_be_drawn():
    for empty in ("", "  "):
        with pytest.raises(ValueError, match="the caption is empty"):
            uni.draw(["a seven", empty])
    with pytest.raises(ValueError, match="list of strings"):
        uni.draw("a seven")
    with pytest.raises(ValueError, match="exceed the context of 128; shorten"):
        uni.draw(["七" * 200])


image = real_images(1).floats()


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (image[..., 2:30, 2:30], "images must have shape"),
        (image[0], "images must have shape"),
        (image.repeat(1, 3, 1, 1), "images must have shape"),
        (image * 255, r"finite values in \[0, 1\]"),
        (image - 1, r"finite values in \[0, 1\]"),
        (image + math.nan, r"finite values in \[0, 1\]"),
        ((image * 255).byte(), "floating point"),
    ],
)
def test_images_that_cannot_be_described(images, sentence):
    with pytest.raises(ValueError, match=sentence):
        uni.describe(images)


def test_codes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"grid, got \[1, 3, 3\]"):
        uni.decode(torch.zeros(1, 3, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"image codes must lie in \[0, 16\)"):
        uni.describe_codes(torch.full((1, 4, 4), 16))


def test_parts_that_were_not_trained_together():
    with pytest.raises(ValueError, match="the backbone has 24 token ids but text and image codes make 400"):
        Uni(tiny_backbone(), tiny_tokenizer(), load_vocabulary(16))


# --- loading -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    return save_tiny_uni(tmp_path)


@pytest.mark.parametrize("suffix", ["", "weights.safetensors"])
def test_a_saved_run_loads_and_draws_the_same(run, suffix):
    loaded = minillada.load(run / suffix)
    assert not loaded.training and loaded.info["kind"] == "backbone"
    assert torch.equal(loaded.draw(["a seven"], steps=2), uni.draw(["a seven"], steps=2))


def test_a_bfloat16_backbone_draws_and_describes(run):
    loaded = minillada.load(run, dtype=torch.bfloat16)
    assert loaded.backbone.lm_head.weight.dtype == torch.bfloat16
    assert loaded.tokenizer.codebook.embedding.dtype == torch.float32
    images = loaded.draw(["a seven"], steps=2)
    assert images.dtype == torch.float32 and images.isfinite().all()
    assert len(loaded.describe(images)) == 1


def test_another_version_of_the_tokenizer_is_noticed(run):
    other = tiny_tokenizer(9)
    about = {"kind": "tokenizer", "config": checkpoint.read_info(run.parent / "tokenizer" / "weights.safetensors")["config"]}
    checkpoint.save_model(run.parent / "tokenizer" / "weights.safetensors", other, about)
    with pytest.raises(ValueError, match="was trained on another version of tokenizer"):
        minillada.load(run)


def test_weights_that_do_not_name_their_tokenizer(run):
    path = run / "weights.json"
    info = json.loads(path.read_text())
    del info["tokenizer"], info["digest"]
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match="tokenizer"):
        minillada.load(run)


def test_loading_what_is_not_there(run):
    with pytest.raises(FileNotFoundError, match="no weights called 'mnits'; shipped: "):
        minillada.load("mnits")
    with pytest.raises(ValueError, match="holds a tokenizer, not a backbone"):
        minillada.load(run.parent / "tokenizer")
    (run.parent / "tokenizer" / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no weights at .*tokenizer"):
        minillada.load(run)


@pytest.mark.skipif(not checkpoint.shipped("mnist"), reason="the shipped weights are not there")
def test_the_shipped_model_draws_and_describes():
    """A small sample against bars well below the measured values; `minillada evaluate mnist` gives those."""
    shipped = minillada.load("mnist")
    judge = load_judge()
    digits = torch.arange(60) % 10
    drawn = shipped.draw([captions.all_captions()[int(d) * 6 + i // 10] for i, d in enumerate(digits)], seed=0)
    assert float((judge.classify(drawn) == digits).float().mean()) >= 0.93
    images = mnist_test_images().floats(slice(0, 100))
    named = [captions.parse(text)[0] for text in shipped.describe(images)]
    assert sum(a == b for a, b in zip(named, mnist_test_images().labels[:100].tolist(), strict=True)) >= 93


# --- every task --------------------------------------------------------------------------------------------------------


def test_an_answer_is_the_sampler_on_its_own_images():
    a, b, c = real_images(3).floats()
    codes = uni.encode(torch.stack([a, b, c]))
    prompts = [
        layout.prompt(uni.vocab, "describe", [codes[0], "what digit is this?"]),
        layout.prompt(uni.vocab, "describe", [codes[1], codes[2], "which is larger?"]),
    ]
    expected = [uni.reply([prompt])[0] for prompt in prompts]
    assert uni.answer([a, (b, c)], ["what digit is this?", "which is larger?"]) == expected
    assert uni.answer(torch.stack([a, b]), "why?") == uni.answer([a, b], ["why?", "why?"]) and uni.answer([], "why?") == []


@pytest.mark.parametrize("scales", [(1.5, 0.0), (4.0, 1.0)])
def test_an_edit_is_three_way_guidance_on_the_layout(scales):
    text, image = scales
    pictures = real_images(2).floats()
    codes, vocab = uni.encode(pictures), uni.vocab
    users = [([c, "mirror it"], [c, None], ["mirror it"]) for c in codes]
    full, no_text, no_image = (torch.tensor([layout.prompt(vocab, "edit", user[k], 4) for user in users]) for k in range(3))
    config = changed(EDIT, steps=3, temperature=1.0, guidance=text, guidance_image=image, block_size=uni.backbone.config.block_size)
    tokens, source = uni.tokens(vocab.is_image()), row_generators(3, 2)
    ids = generate(uni.backbone, full, 16, config, tokens, (no_text, no_image), source).ids
    edited = uni.edit(pictures, "mirror it", guidance_text=text, guidance_image=image, steps=3, temperature=1.0, seed=3)
    assert torch.equal(edited, uni.decode(vocab.codes(ids).view(2, 4, 4)))
    assert uni.edit([], "mirror it").shape == (0, 1, 32, 32)


def test_thinking_draws_after_its_own_text(monkeypatch):
    monkeypatch.setattr(uni_module, "THINKING_LENGTH", 30)  # random weights never stop, and their context is short
    prompts = ["draw the sum of one and one", "three and three"]
    texts, images = uni.think_and_draw(prompts, seed=4, steps=2)
    vocab = uni.vocab
    begun = [layout.prompt(vocab, "think", [p]) for p in prompts]
    thoughts, _ = uni.write_until_image(begun, 30, THINK)
    assert texts == [vocab.decode(t) for t in thoughts] and all(len(t) <= 30 for t in thoughts)
    full = [begin + thought + layout.image_header(vocab, 4, 4) for begin, thought in zip(begun, thoughts, strict=True)]
    branch = layout.prompt(vocab, "think", [None], 4)
    rows = [(one, branch) for one in full]
    codes, _ = uni.fill_images(rows, uni.sampling(DRAW, steps=2), row_generators(4, 2))
    assert torch.equal(uni.decode(codes), images)
    assert uni.think_and_draw([])[0] == []


def scripted(monkeypatch, answers):
    """`uni` whose text phases write the given texts, in turn, and whether an image follows."""
    turns = iter(answers)

    def write_until_image(prompts, length, config):
        text, more = next(turns)
        return [uni.vocab.encode(text) for _ in prompts], [more] * len(prompts)

    monkeypatch.setattr(uni, "write_until_image", write_until_image)


def test_interleaving_alternates_and_ends(monkeypatch):
    scripted(monkeypatch, [("one", True), ("two", True), ("done", False)])
    story = uni.interleave("count", steps=2)
    assert [part if isinstance(part, str) else tuple(part.shape) for part in story] == ["one", (1, 32, 32), "two", (1, 32, 32), "done"]
    monkeypatch.setattr(uni_module, "MAX_IMAGES", 3)
    scripted(monkeypatch, [("more", True)] * 9)
    story = uni.interleave("never stops", steps=1)
    assert [isinstance(part, str) for part in story] == [True, False] * 3


def test_a_text_phase_ends_where_an_image_begins(monkeypatch):
    vocab = uni.vocab
    word, header, code = vocab.encode("two"), layout.image_header(vocab, 4, 4), vocab.image_token_offset + 3
    rows = [word + header + [vocab.eos_id], word + [vocab.eos_id] * 5, word + [code, *header], word * 3]
    monkeypatch.setattr(uni, "write", lambda *_, **__: (rows, None))
    texts, begins = uni.write_until_image([[]] * 4, 9, THINK)
    assert texts == [word, word, word, word * 3] and begins == [True, False, True, False]


def test_inputs_of_tasks_that_cannot_be_read():
    a, b = real_images(2).floats()
    with pytest.raises(ValueError, match="3 texts for 2 images"):
        uni.answer([a, b], ["one?", "two?", "three?"])
    with pytest.raises(ValueError, match="question or instruction is empty"):
        uni.edit([a], " ")
    with pytest.raises(ValueError, match="images of different sizes cannot be read together"):
        uni.answer([(a, b[:, :28, :28])], "which?")
    with pytest.raises(ValueError, match=r"images must have shape \[B, 1, 32, 32\]"):
        uni.answer([a[:, :28, :28]], "what?")
    with pytest.raises(ValueError, match="exceed the context"):
        uni.answer([(a,) * 9], "what are these?")

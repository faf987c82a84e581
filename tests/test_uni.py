"""Tasks are the sampler on the right sequence; what is around them keeps order and meaning."""

import json
import math
from pathlib import Path

import pytest
import torch
from helpers import (
    mnist_test_images,
    real_images,
    save_tiny_uni,
    tiny_backbone,
    tiny_tokenizer,
    tiny_uni,
)

import minillada
import minillada.writer as writer_module
from minillada import checkpoint, layout
from minillada.commit import row_generators
from minillada.datasets import captions
from minillada.measure.judge import load_judge
from minillada.sampler import generate
from minillada.settings import changed
from minillada.uni import DESCRIBE, DRAW, EDIT, INTERLEAVE, THINK, Uni
from minillada.vocab import load_vocabulary

# The tiny model knows the words of captions alone.
pytestmark = pytest.mark.filterwarnings("ignore:this model knows no word")

uni = tiny_uni()
GREEDY = dict(temperature=0.0, steps=4)
MIXED = [
    "a seven",
    "a thick seven leaning right",
    "an eight",
    "a thin zero standing upright",
    "a seven leaning left",
    "something else",
]

# --- drawing -------------------------------------------------------------------------------------


def test_drawings_are_pictures():
    images = uni.draw(["a seven"] * 3, steps=2)
    assert images.shape == (3, 1, 32, 32)
    assert images.dtype == torch.float32 and images.device.type == "cpu"
    assert images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_drawing_is_the_sampler_on_the_layout(guidance):
    traced = uni.draw_traced(["a thin two"] * 2, seed=5, guidance=guidance, steps=3)
    full, unconditional = layout.draw_branches(uni.vocab, "a thin two", 4)
    config = uni.sampling(DRAW, steps=3, guidance=guidance)
    expected = generate(
        uni.backbone,
        torch.tensor([full] * 2),
        16,
        config,
        uni.tokens(uni.vocab.is_image()),
        (torch.tensor([unconditional]),),
        row_generators(5, 2),
    )
    assert torch.equal(traced.codes, uni.vocab.codes(expected.ids).view(2, 4, 4))
    assert torch.equal(traced.generation.ids, expected.ids)
    assert torch.equal(traced.images, uni.tokenizer.decode(traced.codes))
    assert traced.codes.unique().numel() > 3, "always the same drawing would prove little"


def test_settings_reach_the_sampler():
    one, two = (uni.draw_traced(["a seven"], guidance=g, **GREEDY).codes for g in (1.0, 3.0))
    assert not torch.equal(one, two)
    few, many = (uni.draw_traced(["a seven"], steps=s).generation.forwards for s in (1, 8))
    assert few < many
    # Blocks of four around the end of the prompt.
    assert uni.draw_traced(["a seven"], block_size=4, steps=1).generation.forwards == 5
    block = uni.backbone.config.block_size
    sampling = uni.sampling(DRAW, steps=None, guidance=3.0)
    assert sampling == changed(DRAW, guidance=3.0, block_size=block)


def test_the_seed_decides_and_the_cache_does_not():
    a, b, c = (uni.draw(["a seven"] * 2, seed=s, steps=2) for s in (0, 0, 7))
    assert torch.equal(a, b) and not torch.equal(a, c) and not torch.equal(a[0], a[1])
    uncached = uni.draw_traced(["a seven"] * 2, seed=0, steps=2, use_cache=False)
    assert torch.equal(uncached.images, a)


@pytest.mark.parametrize("sampling", [{}, {"strategy": "random"}])
def test_one_drawing_of_a_batch_can_be_repeated_alone(monkeypatch, sampling):
    """Whatever the lengths of the other prompts and the size of a batch."""
    together = uni.draw_traced(MIXED * 2, seed=3, **sampling).codes
    for row, caption in enumerate(MIXED * 2):
        alone = uni.draw_traced([caption], seed=3 + row, **sampling).codes
        assert torch.equal(alone[0], together[row])
    monkeypatch.setattr(writer_module, "BATCH_SIZE", 2)
    assert torch.equal(uni.draw_traced(MIXED * 2, seed=3, **sampling).codes, together)


@pytest.mark.parametrize("seed", [-1, 10**14, 10**20, 0.5, None])
def test_seeds_that_cannot_be_used(seed):
    with pytest.raises(ValueError, match="a seed is a whole number from 0 to 2147483648"):
        uni.draw(["a seven"], seed=seed)


def test_prompts_of_different_lengths_come_back_in_order(monkeypatch):
    """Each as if it had been drawn alone: grouping by length and batching are invisible."""
    alone = torch.cat([uni.draw_traced([c], **GREEDY).codes for c in MIXED])
    assert len({tuple(c.flatten().tolist()) for c in alone}) > 3
    assert torch.equal(uni.draw_traced(MIXED, **GREEDY).codes, alone)
    monkeypatch.setattr(writer_module, "BATCH_SIZE", 2)
    assert torch.equal(uni.draw_traced(MIXED * 2, **GREEDY).codes, alone.repeat(2, 1, 1))


# --- describing and answering --------------------------------------------------------------------


def test_describing_is_the_sampler_on_the_layout():
    images, vocab = real_images(3).floats(), uni.vocab
    codes = uni.tokenizer.encode(images)
    prompt = torch.tensor([layout.describe_prompt(vocab, c) for c in codes])
    tokens, config = uni.tokens(vocab.is_text()), uni.sampling(DESCRIBE)
    answer = generate(uni.backbone, prompt, uni.answer_length, config, tokens).ids
    expected = []
    for row in answer.tolist():
        end = row.index(vocab.eos_id) if vocab.eos_id in row else len(row)
        expected.append(vocab.decode(row[:end]))
    assert uni.describe(images) == expected == uni.describe_codes(codes)
    assert len(set(expected)) > 1 and not any("<code" in text for text in expected)


def test_the_question_is_part_of_the_prompt():
    images = real_images(4).floats()
    assert uni.describe(images, question="which digit is it?") != uni.describe(images)


def test_describing_in_batches_keeps_the_order(monkeypatch):
    images = real_images(5).floats()
    whole = uni.describe(images)
    monkeypatch.setattr(writer_module, "BATCH_SIZE", 2)
    assert uni.describe(images) == whole
    pixels = uni.tokenizer.decode(uni.tokenizer.encode(images))
    assert torch.allclose(uni.decode(uni.encode(images)), pixels, atol=1e-5)


def test_every_caption_fits_the_answer():
    vocab = load_vocabulary(16)
    assert max(len(vocab.encode(c)) for c in captions.all_captions()) + 1 <= uni.answer_length


def test_an_answer_is_the_sampler_on_its_own_images():
    a, b, c = real_images(3).floats()
    codes = uni.encode(torch.stack([a, b, c]))
    prompts = [
        layout.prompt(uni.vocab, "describe", [codes[0], "what digit is this?"]),
        layout.prompt(uni.vocab, "describe", [codes[1], codes[2], "which is larger?"]),
    ]
    expected = uni.reply(prompts, uni.answer_length, uni.sampling(DESCRIBE))
    assert uni.answer([a, (b, c)], ["what digit is this?", "which is larger?"]) == expected
    assert uni.answer(torch.stack([a, b]), "why?") == uni.answer([a, b], ["why?", "why?"])


# --- editing, thinking, stories ------------------------------------------------------------------


@pytest.mark.parametrize("scales", [(1.5, 0.0), (4.0, 1.0)])
def test_an_edit_is_three_way_guidance_on_the_layout(scales):
    text, image = scales
    pictures, vocab = real_images(2).floats(), uni.vocab
    rows = [layout.edit_branches(vocab, [c], "mirror it", 4) for c in uni.encode(pictures)]
    full, no_text, no_image = (torch.tensor([row[k] for row in rows]) for k in range(3))
    given = dict(steps=3, temperature=1.0, guidance_image=image)
    config = uni.sampling(EDIT, guidance=text, **given)
    tokens, source = uni.tokens(vocab.is_image()), row_generators(3, 2)
    ids = generate(uni.backbone, full, 16, config, tokens, (no_text, no_image), source).ids
    edited = uni.edit(pictures, "mirror it", seed=3, guidance_text=text, **given)
    assert torch.equal(edited, uni.decode(vocab.codes(ids).view(2, 4, 4)))


def test_thinking_draws_after_its_own_text(monkeypatch):
    # Random weights never stop, and their context is short.
    monkeypatch.setattr(uni, "thinking", (30, THINK))
    prompts, vocab = ["draw the sum of one and one", "three and three"], uni.vocab
    texts, images = uni.think_and_draw(prompts, seed=4, steps=2)
    begun = [layout.prompt(vocab, "think", [prompt]) for prompt in prompts]
    thoughts, _ = uni.write_until_image(begun, 30, THINK)
    assert texts == [vocab.decode(t) for t in thoughts] and all(len(t) <= 30 for t in thoughts)
    header, branch = layout.image_header(vocab, 4, 4), layout.prompt(vocab, "think", [None], 4)
    rows = [(begin + thought + header, branch) for begin, thought in zip(begun, thoughts)]
    codes, _ = uni.fill_images(rows, uni.sampling(DRAW, steps=2), row_generators(4, 2))
    assert torch.equal(uni.decode(codes), images)


def scripted(monkeypatch, answers):
    """`uni` whose text phases write the given texts, in turn, and whether an image follows."""
    turns = iter(answers)

    def write_until_image(prompts, length, config):
        text, more = next(turns)
        header = [1] if more else []  # any header will do: `uni` writes its own
        return [uni.vocab.encode(text) for _ in prompts], [header] * len(prompts)

    monkeypatch.setattr(uni, "write_until_image", write_until_image)


def test_interleaving_alternates_and_ends(monkeypatch):
    scripted(monkeypatch, [("one", True), ("two", True), ("done", False)])
    story = uni.interleave("count", steps=2)
    kinds = [part if isinstance(part, str) else tuple(part.shape) for part in story]
    assert kinds == ["one", (1, 32, 32), "two", (1, 32, 32), "done"]
    monkeypatch.setattr(uni, "max_images", 3)
    scripted(monkeypatch, [("more", True)] * 9)
    story = uni.interleave("never stops", steps=1)
    assert [isinstance(part, str) for part in story] == [True, False] * 3


@pytest.mark.parametrize("image_scale", [0.0, 1.0])
def test_guidance_of_a_story_leaves_out_words_and_images(monkeypatch, image_scale):
    """By hand: the first image is compared with no prompt, the second in three ways."""
    scripted(monkeypatch, [("one", True), ("two", True), ("", False)])
    given = dict(steps=2, guidance_image=image_scale)
    story = uni.interleave("count", seed=2, **given)
    vocab, source = uni.vocab, row_generators(2, 1)
    header = layout.image_header(vocab, 4, 4)
    asked, nothing = (layout.prompt(vocab, "interleave", [text]) for text in ("count", None))
    one, two = vocab.encode("one"), vocab.encode("two")
    config = uni.sampling(INTERLEAVE, steps=2)
    first, _ = uni.fill_images([(asked + one + header, nothing + header)], config, source)
    image = layout.image_block(vocab, first[0].cpu())
    branches = (
        asked + one + image + two + header,
        nothing + image + header,
        asked + one + two + header,
    )
    second, _ = uni.fill_images([branches], uni.sampling(INTERLEAVE, **given), source)
    assert torch.equal(story[1], uni.decode(first)[0])
    assert torch.equal(story[3], uni.decode(second)[0])


def test_one_story_of_a_batch_can_be_repeated_alone(monkeypatch):
    answers = [("one", True), ("two", True), ("done", False)]
    scripted(monkeypatch, answers)
    together = uni.interleave_all(["count", "count from one"], seed=4, steps=2)
    for row, prompt in enumerate(["count", "count from one"]):
        scripted(monkeypatch, answers)
        alone = uni.interleave(prompt, seed=4 + row, steps=2)
        for one, other in zip(alone, together[row], strict=True):
            assert one == other if isinstance(one, str) else torch.equal(one, other)


# --- nothing asked, nothing done -----------------------------------------------------------------


def test_empty_lists_give_empty_results():
    assert uni.draw([]).shape == (0, 1, 32, 32)
    assert uni.draw_traced([]).codes.shape == (0, 4, 4)
    assert uni.describe([]) == uni.describe(real_images(1).floats()[:0]) == []
    assert uni.answer([], "why?") == uni.answer([], []) == []
    assert uni.edit([], "mirror it").shape == (0, 1, 32, 32)
    texts, images = uni.think_and_draw([])
    assert texts == [] and images.shape == (0, 1, 32, 32)
    assert uni.interleave_all([]) == []


# --- inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampling", "sentence"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"guidance": math.nan}, "guidance must be a finite number"),
        ({"guidance": 1e38}, "guidance must be at most 10000"),
        ({"temperature": -0.5}, "temperature must be"),
        ({"tempo": 1}, "there is no setting 'tempo'"),
        ({"guidance_image": 1.0}, "guidance_image 1 compares a prompt without text"),
    ],
)
def test_settings_that_cannot_decode(sampling, sentence):
    with pytest.raises(ValueError, match=sentence):
        uni.draw(["a seven"], **sampling)
    with pytest.raises(ValueError, match=sentence):
        uni.describe(real_images(1).floats(), **sampling)


def test_scales_that_a_task_does_not_have():
    image = real_images(1).floats()
    with pytest.raises(ValueError, match="give guidance_text or guidance_image"):
        uni.edit(image, "mirror it", guidance=2.0)
    with pytest.raises(ValueError, match="guidance 2 has nothing to compare with"):
        uni.describe(image, guidance=2.0)


def test_rows_of_an_edit_that_show_nothing_are_refused():
    codes = uni.encode(real_images(1).floats())
    for shown in (codes, [codes[0]], [[]]):
        with pytest.raises(ValueError, match="a row is a list of one or more grids of codes"):
            uni.edit_traced(shown, "mirror it")


@pytest.mark.parametrize("task", [uni.draw, uni.think_and_draw, uni.interleave_all])
@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ("draw the sum of three and four", "must be a list of strings"),
        ("", "must be a list of strings"),
        (None, "must be a list of strings"),
        ([None], "must be a list of strings"),
        (["a seven", " "], "a text is empty"),
    ],
)
def test_texts_that_cannot_be_read(task, texts, sentence):
    with pytest.raises(ValueError, match=sentence):
        task(texts)


def test_texts_and_images_that_do_not_fit():
    a, b = real_images(2).floats()
    with pytest.raises(ValueError, match="3 texts for 2 images"):
        uni.answer([a, b], ["one?", "two?", "three?"])
    with pytest.raises(ValueError, match="1 texts for 0 images"):
        uni.edit([], ["mirror it"])
    with pytest.raises(ValueError, match="a text is empty"):
        uni.edit([a], " ")
    with pytest.raises(ValueError, match="a text is empty"):
        uni.describe(a[None], question="")
    with pytest.raises(ValueError, match="images of different sizes cannot be read together"):
        uni.answer([(a, b[:, :28, :28])], "which?")
    with pytest.raises(ValueError, match=r"images must have shape \[B, 1, 32, 32\]"):
        uni.answer([a[:, :28, :28]], "what?")


def test_encode_and_decode_read_what_all_methods_read():
    images = real_images(3).floats()
    codes = uni.encode(images)
    assert torch.equal(codes, uni.encode(images.numpy()))
    assert torch.equal(codes, uni.encode(list(images)))
    assert torch.equal(codes, uni.encode((images * 255).round().byte()))
    for method in (uni.encode, uni.decode):
        for wrong in (None, "seven", codes.tolist()):
            with pytest.raises(
                ValueError, match="images are tensors or arrays|codes must be int64"
            ):
                method(wrong)


def test_prompts_that_are_too_long():
    with pytest.raises(ValueError, match="exceed the context of 128, .*; shorten one"):
        uni.draw(["七" * 200])
    with pytest.raises(ValueError, match="exceed the context of 128, .*; shorten one"):
        uni.answer([(real_images(1).floats()[0],) * 9], "what are these?")


def test_capital_letters_change_nothing():
    """Our models have read lower-case texts only."""
    image = real_images(1).floats()
    assert torch.equal(
        uni.draw([" A Thick SEVEN "], **GREEDY), uni.draw(["a thick seven"], **GREEDY)
    )
    assert uni.answer(image, "What digit is this?") == uni.answer(image, "what digit is this?")
    assert uni.describe(image, question="describe the image.") == uni.describe(image)
    edited = (uni.edit(image, text) for text in ("Mirror it", "mirror it"))
    assert torch.equal(*edited)


def test_parts_that_were_not_trained_together():
    with pytest.raises(ValueError, match="the backbone has 24 token ids but text and image codes"):
        Uni(tiny_backbone(), tiny_tokenizer(), load_vocabulary(16))


def test_a_model_that_predicts_no_numbers():
    broken = tiny_uni(1)
    with torch.no_grad():
        broken.backbone.lm_head.weight.fill_(math.nan)
    image = real_images(1).floats()
    for task in (
        lambda: broken.draw(["a seven"], steps=1),
        lambda: broken.describe(image),
        lambda: broken.infill("a ___ two", image),
        lambda: broken.interleave("count from one"),
    ):
        with pytest.raises(ValueError, match="its weights are damaged"):
            task()


# --- loading -------------------------------------------------------------------------------------


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
    assert loaded.tokenizer.embedding.dtype == torch.float32
    images = loaded.draw(["a seven"], steps=2)
    assert images.dtype == torch.float32 and images.isfinite().all()
    assert len(loaded.describe(images)) == 1


def test_another_version_of_the_tokenizer_is_noticed(run):
    path = run.parent / "tokenizer" / "weights.safetensors"
    about = {"kind": "tokenizer", "config": checkpoint.read_info(path)["config"]}
    checkpoint.save_model(path, tiny_tokenizer(9), about)
    with pytest.raises(ValueError, match="was trained on another version of tokenizer"):
        minillada.load(run)


def test_auto_is_the_best_device(run, monkeypatch):
    monkeypatch.setattr("minillada.uni.best_device", lambda: "nothing")
    with pytest.raises(ValueError, match="device 'nothing' is not available here"):
        minillada.load(run, "auto")


def test_a_kind_of_device_that_is_none(run):
    for name in ("gpu", "meta"):  # nothing can be computed on `meta`
        with pytest.raises(ValueError, match=f"device '{name}' is not available here; choose auto"):
            minillada.load(run, name)


def test_weights_that_do_not_name_their_tokenizer(run):
    path = run / "weights.json"
    info = json.loads(path.read_text())
    del info["tokenizer"], info["digest"]
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match="tokenizer"):
        minillada.load(run)


def test_a_type_that_holds_no_numbers_of_a_model_is_refused(run):
    for dtype in ("bfloat16", torch.long, torch.float8_e4m3fn):
        with pytest.raises(ValueError, match="dtype is a float type, such as torch.bfloat16"):
            minillada.load(run, dtype=dtype)


def test_loading_what_is_not_there(run):
    with pytest.raises(FileNotFoundError, match="no weights called 'mnits'; shipped: "):
        minillada.load("mnits")
    with pytest.raises(FileNotFoundError, match="no weights at .*/mnist/weights.safetensors; ship"):
        minillada.load(Path("mnist"))
    with pytest.raises(ValueError, match="holds a tokenizer, not a backbone"):
        minillada.load(run.parent / "tokenizer")
    (run.parent / "tokenizer" / "weights.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no weights at .*tokenizer"):
        minillada.load(run)


@pytest.mark.skipif(not checkpoint.shipped("mnist"), reason="the shipped weights are not there")
def test_the_shipped_model_draws_and_describes():
    """A small sample against bars well below the values that `minillada evaluate mnist` gives."""
    shipped, judge = minillada.load("mnist"), load_judge()
    digits = torch.arange(60) % 10
    texts = [captions.all_captions()[int(d) * 6 + i // 10] for i, d in enumerate(digits)]
    drawn = shipped.draw(texts, seed=0)
    assert float((judge.classify(drawn) == digits).float().mean()) >= 0.93
    described = shipped.describe(mnist_test_images().floats(slice(0, 100)))
    named = [captions.parse(text)[0] for text in described]
    labels = mnist_test_images().labels[:100].tolist()
    assert sum(a == b for a, b in zip(named, labels, strict=True)) >= 93


@pytest.mark.skipif(not checkpoint.shipped("mnist"), reason="the shipped weights are not there")
def test_shipped_models_refuse_what_they_never_learned():
    shipped, image = minillada.load("mnist"), real_images(1).floats()
    for task, named in ((shipped.answer, "answer questions"), (shipped.edit, "edit")):
        with pytest.raises(ValueError, match=f"not learned to {named}; load 'mnist-uni'"):
            task(image, "what digit is this?")
    for name in ("mnist", "cifar"):  # `cifar` answers and edits
        model = minillada.load(name)
        for task in (model.think_and_draw, model.interleave_all):
            with pytest.raises(ValueError, match="not learned to write before it draws"):
                task(["count from one"])


def test_a_model_that_learned_to_draw_alone_describes_nothing():
    """`minillada train mnist-cpu` makes such a model; its captions would be empty."""
    model, image = tiny_uni(), real_images(1).floats()
    model.info = {"training": {"data": {"mixture": [["draw", 1.0]]}}}
    model.draw(["a seven"], steps=1)
    for task in (lambda: model.describe(image), lambda: model.infill("a ___ two", image)):
        with pytest.raises(ValueError, match="has not learned to describe; load 'mnist-uni'"):
            task()


def test_a_model_draws_with_the_settings_that_its_json_names(monkeypatch):
    """What the user says comes first, and None is nothing said."""
    uni, seen = tiny_uni(), []
    uni.info = {"drawing": {"steps": 3, "guidance": 4.0, "strategy": "random"}}

    def fill(rows, config, *rest):
        seen.append(config)
        return torch.zeros(len(rows), 4, 4, dtype=torch.long), None

    monkeypatch.setattr(uni, "fill_images", fill)
    uni.draw_traced(["a two"], steps=None)
    uni.draw_traced(["a two"], steps=5)
    first, second = seen
    assert (first.steps, first.guidance, first.strategy) == (3, 4.0, "random")
    assert first.temperature == DRAW.temperature and second == changed(first, steps=5)


def test_the_image_after_a_thought_is_drawn_with_these_settings_too(monkeypatch):
    model, seen = tiny_uni(), []
    model.info = {"drawing": {"steps": 3, "guidance": 4.0, "strategy": "random"}}
    monkeypatch.setattr(model, "thinking", (8, THINK))

    def fill(rows, config, *rest):
        seen.append(config)
        return torch.zeros(len(rows), 4, 4, dtype=torch.long), None

    monkeypatch.setattr(model, "fill_images", fill)
    model.think_and_draw(["a two"])
    assert seen == [model.sampling(DRAW, steps=3, guidance=4.0, strategy="random")]


def test_a_model_edits_with_the_settings_of_its_json(monkeypatch):
    uni, seen = tiny_uni(), []
    uni.info = {"editing": {"steps": 3, "temperature": 0.5, "strategy": "random"}}

    def fill(rows, config, *rest):
        seen.append(config)
        return torch.zeros(len(rows), 4, 4, dtype=torch.long), None

    monkeypatch.setattr(uni, "fill_images", fill)
    image = torch.zeros(1, 1, 32, 32)
    uni.edit(image, "a two")
    uni.edit(image, "a two", guidance_text=3.0, temperature=0.0)
    first, second = seen
    assert (first.steps, first.temperature, first.strategy) == (3, 0.5, "random")
    assert second == changed(first, guidance=3.0, temperature=0.0)

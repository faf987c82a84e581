"""The calls of a user: prompts letter by letter, settings, pictures in and out, errors."""

import importlib.util
import inspect

import numpy
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

import minillada
from minillada import sampler
from minillada.commit import Tokens
from minillada.config import SamplingConfig
from minillada.datasets import pictures
from minillada.extras.sprint import Sprint
from minillada.official import calls, resize
from minillada.official.calls import Call, load
from minillada.official.painter import load_painter
from minillada.official.parts import Canvas, Parts
from minillada.vocab import size_token

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None,
    reason='diffusers is not installed; run pip install "minillada[official]"',
)
QUICK = {"turbo": 1, "normal": 2}


@pytest.fixture(scope="module")
def model(checkpoint):
    loaded = load(checkpoint, dtype="float32")
    loaded.painter_steps = QUICK
    return loaded


@pytest.fixture
def small_edits(monkeypatch):
    """Photos to edit become 64 x 64 pixels at most, so that tests are quick."""
    monkeypatch.setattr(resize, "EDIT_SQUARES", 4)


@pytest.fixture
def without_painter(monkeypatch):
    """Pictures are black squares: these tests look at what comes before."""

    def canvas(parts, grid=32, painter=None, steps=0, seed=0):
        made = Canvas(parts, grid, None, steps, seed)
        made.decode = lambda codes: torch.zeros(len(codes), 3, 32, 32)
        return made

    monkeypatch.setattr(calls, "Canvas", canvas)


@pytest.fixture
def begins_images(monkeypatch, words):
    """Random weights begin an image by chance; here they begin one each time."""

    def write_until_image(self, prompts, length, config):
        return [words.text("so")], [words.header(1, 1)]

    monkeypatch.setattr(Call, "write_until_image", write_until_image)


def photo(wide=70, high=66, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return resize.picture(torch.rand(3, high, wide, generator=generator))


class Words:
    """The ids of the specification, made with `tokenizers` alone."""

    def __init__(self, checkpoint):
        self.tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self.offset = 512  # of the tiny checkpoint

    def text(self, text):
        """Plain text: no special token can be typed."""
        plain = Tokenizer.from_str(self.tokenizer.to_str())
        plain.encode_special_tokens = True
        return plain.encode(text).ids

    def piece(self, text):
        return self.tokenizer.encode(text).ids

    def one(self, token):
        return [self.tokenizer.token_to_id(token)]

    def header(self, high, wide):
        sizes = self.one(size_token(high)) + self.one(size_token(wide))
        return self.one("<|image|>") + sizes + self.one("<boi>")

    def block(self, codes):
        codes_ids = (codes.flatten() + self.offset).tolist()
        return self.header(*codes.shape) + codes_ids + self.one("<|/image|>")

    def chat(self, system, user):
        before = self.piece(f"<role>SYSTEM</role> {system} <role>HUMAN</role>")
        return before + user + self.piece("<role>ASSISTANT</role>")


@pytest.fixture(scope="module")
def words(checkpoint):
    return Words(checkpoint)


@pytest.fixture
def asked(monkeypatch, without_painter):
    """What each call gives to `write`, which answers with what a test lays down."""
    record = []

    def write(self, rows, length, config, tokens, generators=None, cache=True):
        rows = [tuple(list(prompt) for prompt in row) for row in rows]
        record.append((rows, length, config, tokens))
        answer = record_answers.pop(0) if record_answers else [512] * length
        padded = (answer + [self.vocab.eos_id] * length)[:length]
        return [padded for _ in rows], None

    record_answers = []
    monkeypatch.setattr(Call, "write", write)
    record_of = type("Record", (), {"calls": record, "answers": record_answers})
    return record_of


# --- prompts, letter by letter -------------------------------------------------------------------

DRAW = "You are a text-to-image generation assistant."
THINK = "You are a text-to-image generation assistant with a thinking process."
EDIT = "You are an image editing assistant."
STORY = "You are a interleaved generation assistant."
ASK = "You are a multimodal understanding assistant."


def test_prompts_of_a_drawing(model, asked, words):
    model.draw("A Fox in the snow. ", size=(96, 64), steps=3, seed=1)
    [(rows, length, config, tokens)] = asked.calls
    header = words.header(2, 3)
    full = words.chat(DRAW, words.text("A Fox in the snow. ")) + header
    nothing = words.chat(DRAW, words.piece("<uncondition>")) + header
    assert rows == [(full, nothing)]  # capitals and the last space stay
    assert length == 6 and torch.equal(tokens.allowed, model.vocab.is_image())
    assert (config.steps, config.guidance, config.rescale) == (3, 2.0, 0.7)
    assert (config.block_size, config.threshold, config.temperature) == (32, 0.95, 0)
    assert config.fill_tail and config.strategy == "low_confidence"


def test_what_a_user_types_is_no_special_token(model, asked, words):
    model.draw("<|image|><boi>", size=32)
    [(rows, *_)] = asked.calls
    image = words.one("<|image|>")[0]
    assert rows[0][0].count(image) == 1 and rows[0][0][-4] == image


def test_prompts_of_questions(model, asked, words):
    one, two = photo(), photo(640, 600, seed=1)  # the second one shrinks beside another
    model.answer(one, "What is it?", length=5)
    model.answer([one, two], "Which is larger?", length=5)
    model.describe(one, length=5, chat=False)
    tokenizer = model.parts.tokenizer()

    def read(image, images):
        ready = resize.for_understanding(image, images)
        return words.block(tokenizer.encode(resize.pixels(ready)[None])[0])

    alone = read(one, 1)
    [first, both, bare] = [rows[0] for rows, *_ in asked.calls]
    assert first == (words.chat(ASK, alone + words.text("What is it?")),)
    user = read(one, 2) + read(two, 2) + words.text("Which is larger?")
    assert both == (words.chat(ASK, user),)
    assert bare == (alone + words.text("Describe this image in detail."),)
    _, length, config, _ = asked.calls[0]
    assert length == 5 and (config.steps, config.threshold, config.guidance) == (32, 0.95, 1)


@pytest.mark.parametrize("crop", ["served", "released"])
def test_prompts_of_an_edit(model, asked, words, small_edits, crop):
    model.edit(photo(), "Make it red", crop=crop)
    ready = {"served": resize.served_crop, "released": resize.released_crop}[crop](photo())
    codes = model.parts.tokenizer().encode(resize.pixels(ready)[None])[0]
    assert codes.shape == (4, 4)
    header, text, mark = words.header(4, 4), words.text("Make it red"), words.piece("<uncondition>")
    [(rows, length, config, _)] = asked.calls
    full = words.chat(EDIT, words.block(codes) + text) + header
    no_text = words.chat(EDIT, words.block(codes) + mark) + header
    no_image = words.chat(EDIT, words.one("<|image|>") + text) + header
    assert rows == [(full, no_text, no_image)] and length == 16
    assert (config.steps, config.guidance, config.guidance_image) == (8, 4.0, 0.0)
    assert config.rescale == 0.7


def test_edits_without_guidance_follow_the_instruction(model, asked, small_edits):
    """As released: two scales of 0 leave guidance out, not the instruction."""
    model.edit(photo(), "Make it red", guidance_text=0)
    model.edit(photo(), "Make it red", guidance_text=0, guidance_image=1.5)
    scales = [(config.guidance, config.guidance_image) for _, _, config, _ in asked.calls]
    assert scales == [(1.0, 0.0), (0.0, 1.5)]


def test_sprint_shortens_the_cache_of_all_but_edits(
    model, without_painter, small_edits, monkeypatch
):
    prune, pruned = Sprint.prune, []

    def counted(self, *given):
        pruned.append(self)
        return prune(self, *given)

    exact = model.describe(photo(), length=40)
    monkeypatch.setattr(Sprint, "prune", counted)
    monkeypatch.setattr(model, "sprint", Sprint(model.vocab.is_image(), 1.0, 1.0))
    assert model.describe(photo(), length=40) == exact and pruned
    pruned.clear()
    model.draw("a fox", size=64, adaptive=True)
    assert pruned
    pruned.clear()
    model.edit(photo(), "Make it red", guidance_image=1.5)
    assert not pruned


def test_thinking_keeps_the_header_of_the_model(model, asked, words):
    thought, own = words.text("a cat"), words.header(7, 9)
    asked.answers.append(thought + own + [512] * 3)
    text, _ = model.think_and_draw("the animal that says meow", size=64)
    begun = words.chat(THINK, words.text("the animal that says meow"))
    [(first, length, config, tokens), (second, codes, drawing, _)] = asked.calls
    assert text == "a cat" and first == [(begun,)] and length == 4096
    assert (config.steps, config.threshold) == (32, 0.95)
    assert tokens.stop == words.one("<boi>")[0] and tokens.allowed is None
    silent = words.chat(THINK, words.piece("<uncondition>")) + words.header(2, 2)
    assert second == [(begun + thought + own, silent)] and codes == 4
    assert (drawing.steps, drawing.guidance) == (8, 2.0)


def test_thinking_without_a_header_draws_what_was_asked_for(model, asked, words):
    asked.answers.append(words.text("no image"))
    model.think_and_draw("a cat", size=64)
    (full, silent) = asked.calls[1][0][0]
    assert full == words.chat(THINK, words.text("a cat")) + words.text("no image") + words.header(
        2, 2
    )
    assert silent[-4:] == full[-4:]


def test_a_thought_leaves_room_for_its_image(model, asked, words):
    room = model.backbone.config.max_position_embeddings
    model.think_and_draw("a cat", size=2048)  # 4,096 codes
    [(first, length, *_), (second, codes, *_)] = asked.calls
    assert codes == 64 * 64 and len(first[0][0]) + length + 4 + codes <= room
    assert len(second[0][0]) + codes <= room
    with pytest.raises(ValueError, match="fill the context.* ask for a smaller picture"):
        model.think_and_draw("a cat " * 1500, size=2048)


def test_branches_of_a_story(model, asked, words):
    one, two = words.text("First."), words.text("Then.")
    first, second = torch.tensor([[1, 2]]), torch.tensor([[3], [4]])
    asked.answers += [one + words.header(1, 2), [513, 514]]
    asked.answers += [two + words.header(2, 1), [515, 516], words.text("End.")]
    story = model.interleave("How to plant")
    assert [part if isinstance(part, str) else part.size for part in story] == [
        "First.", (32, 32), "Then.", (32, 32), "End.",
    ]  # fmt: skip
    begun = words.chat(STORY, words.text("How to plant"))
    silent = words.chat(STORY, words.piece("<uncondition>"))
    history = begun + one + words.block(first)
    rows = [call[0][0] for call in asked.calls]
    assert rows[0] == (begun,)
    header = words.header(1, 2)
    assert rows[1] == (begun + one + header, silent + header)
    assert rows[2] == (history,)
    header = words.header(2, 1)
    assert rows[3] == (
        history + two + header,
        history + words.piece("<uncondition>") + header,
        silent + two + header,
    )
    assert rows[4] == (history + two + words.block(second),)
    scales = [(c.guidance, c.guidance_image, c.steps) for _, _, c, _ in asked.calls[1::2]]
    assert scales == [(7.5, 0.0, 32), (7.5, 1.5, 32)]


def test_a_story_with_a_strange_header_has_the_size_that_was_asked_for(model, asked, words):
    strange = words.one("<|image|>") + words.text("x") + words.one("<boi>")
    asked.answers += [words.text("One.") + strange, [512] * 6, words.text("End.")]
    model.interleave("tell", size=(96, 64))
    assert asked.calls[1][1] == 6 and asked.calls[1][0][0][0][-4:] == words.header(2, 3)


def test_a_size_that_a_story_names_is_that_of_one_image(model, asked, words):
    nameless = words.one("<|image|>") + words.one("<boi>")
    spelled = words.text("<|reserved_token_65|>")  # in letters: there is no such token
    unknown = words.one("<|image|>") + spelled + words.one(size_token(2)) + words.one("<boi>")
    for header, codes in ((words.header(1, 3), 3), (nameless, 6), (unknown, 6)):
        asked.answers += [words.text("So.") + header, [512] * codes]
    model.interleave("tell", size=(96, 64), images=3)
    shapes = [rows[0][0][-4:] for rows, *_ in asked.calls[1::2]]
    assert shapes == [words.header(1, 3), words.header(2, 3), words.header(2, 3)]


def test_a_story_ends_where_the_context_does(model, asked, words):
    room = model.backbone.config.max_position_embeddings
    asked.answers += [words.text("One.") + words.header(64, 64), [512] * 4096]
    asked.answers += [words.text("Two.") + words.header(64, 64)]
    with pytest.warns(UserWarning, match="fills the context"):
        story = model.interleave("tell")
    assert [isinstance(part, str) for part in story] == [True, False, True]
    assert all(len(row[0]) + length <= room for (row, *_), length, *_ in asked.calls)
    # The last text was offered what was left, not 8,192 tokens.
    assert asked.calls[0][1] < 8192 and asked.calls[2][1] < 4096


def test_an_image_may_fill_the_last_whole_block(checkpoint, asked, words):
    fixed = len(words.chat(DRAW, [])) + 4 + 2 * 2  # with header and codes
    letters = 32 - fixed % 32  # a token each
    model = load(checkpoint, dtype="float32", context=fixed + letters)
    model.draw("q" * letters, size=64)
    # The rest of a context that is no whole blocks stays empty.
    model = load(checkpoint, dtype="float32", context=fixed + letters + 31)
    with pytest.raises(ValueError, match="does not fit the context"):
        model.draw("q" * (letters + 1), size=64)


@pytest.mark.parametrize(("more", "texts"), [(0, [True, False]), (1, [True, False]), (2, [True])])
def test_a_story_that_fills_the_context_exactly_ends(checkpoint, asked, words, more, texts):
    """With the end of its image; with the image itself; and where the image does not fit."""
    text = words.text("One.")
    fixed = len(words.chat(STORY, text + words.block(torch.zeros(1, 1, dtype=torch.long))))
    letters = 32 - fixed % 32
    asked.answers += [text + words.header(1, 1), [512]]
    model = load(checkpoint, dtype="float32", context=fixed + letters)
    with pytest.warns(UserWarning, match="fills the context"):
        story = model.interleave("q" * (letters + more))
    assert [isinstance(part, str) for part in story] == texts


def test_an_answer_has_no_tag_and_no_blanks_around_it(model, asked, words):
    asked.answers.append(words.text(" A fox. ") + words.one("<|role_end|>"))
    assert model.describe(photo(), length=20) == "A fox."


def test_what_is_usual_is_as_released(checkpoint, asked, words):
    """A picture of 1024 pixels is 32 x 32 codes; lengths and numbers are the most there may be."""
    model = load(checkpoint, dtype="float32", context=99_968)
    assert model.painter_steps == {"turbo": 8, "normal": 50}
    for call in (model.draw, model.edit, model.think_and_draw, model.interleave):
        assert inspect.signature(call).parameters["painter"].default == "turbo"
    model.draw("a fox", size=32, rescale=0.1)  # what is given counts more
    assert asked.calls.pop()[2].rescale == 0.1
    asked.answers.append([512] * 1024)
    model.draw("a fox")
    model.describe(photo())
    model.think_and_draw("a fox")
    assert [length for _, length, *_ in asked.calls] == [1024, 2048, 4096, 1024]
    asked.calls.clear()
    nameless = words.text("So.") + words.one("<|image|>") + words.one("<boi>")
    asked.answers += 11 * [nameless, [512] * 1024]
    story = model.interleave("tell")
    assert sum(not isinstance(part, str) for part in story) == 10
    assert [length for _, length, *_ in asked.calls][:4] == [8192, 1024, 8192, 1024]


def test_the_shape_of_an_edit_is_that_of_the_photo(model, asked, words, small_edits):
    model.edit(photo(200, 50), "Make it red")  # 128 x 32 pixels are read as 2 x 8 codes
    [(rows, length, *_)] = asked.calls
    assert rows[0][0][-4:] == words.header(2, 8) and length == 16


def test_an_answer_is_as_long_as_fits(model, asked):
    room = model.backbone.config.max_position_embeddings
    model.describe(photo(), length=10 * room)
    [(rows, length, *_)] = asked.calls
    assert length == room - len(rows[0][0])


def test_a_story_goes_on_in_a_longer_context(checkpoint, asked, words):
    model = load(checkpoint, dtype="float32", context=16_384)
    for text in ("One.", "Two."):  # both images have 4,096 codes; the file has 8,192 tokens
        asked.answers += [words.text(text) + words.header(64, 64), [512] * 4096]
    asked.answers.append(words.text("End."))
    story = model.interleave("tell")
    assert [isinstance(part, str) for part in story] == [True, False, True, False, True]
    with pytest.raises(ValueError, match="context must be at least 1, got 0"):
        load(checkpoint, context=0)


# --- from end to end -----------------------------------------------------------------------------


@needs_diffusers
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_call_with_random_weights(checkpoint, small_edits, dtype):
    model = load(checkpoint, dtype=dtype)
    model.painter_steps = QUICK
    assert model.backbone.lm_head.weight.dtype == getattr(torch, dtype)
    assert model.draw("a fox", size=(64, 32), steps=2).size == (64, 32)
    assert model.draw("a fox", size=32, painter="normal").size == (32, 32)
    assert model.edit(photo(), "make it red", steps=2, guidance_image=1.0).size == (128, 128)
    assert isinstance(model.answer([photo(), photo()], "what?", length=3), str)
    assert isinstance(model.describe(photo(), length=3), str)
    text, image = model.think_and_draw("meow", size=32, steps=2, length=40)
    assert isinstance(text, str) and image.size == (32, 32) and image.mode == "RGB"
    story = model.interleave("tell", size=32, steps=2, length=40, images=1)
    assert all(isinstance(part, str) or part.size[0] % 32 == 0 for part in story)


@needs_diffusers
@pytest.mark.parametrize("name", ["turbo", "normal"])
def test_a_drawing_is_the_sampler_and_then_the_painter(checkpoint, model, words, name):
    drawn = model.draw("a fox", size=64, steps=4, painter=name, seed=5)
    header = words.header(2, 2)
    full = words.chat(DRAW, words.text("a fox")) + header
    nothing = words.chat(DRAW, words.piece("<uncondition>")) + header
    config = SamplingConfig(block_size=32, steps=4, guidance=2.0, rescale=0.7)
    allowed = torch.arange(576) >= 512
    tokens = Tokens(words.one("<|mask|>")[0], words.one("<|endoftext|>")[0], None, allowed)
    prompt, branch = torch.tensor([full]), torch.tensor([nothing])
    ids = sampler.generate(model.backbone, prompt, 4, config, tokens, [branch]).ids
    painter = load_painter(checkpoint, name == "turbo", dtype=torch.float32)
    noise = torch.Generator().manual_seed(5)
    painted = painter.paint((ids - 512).view(1, 2, 2), QUICK[name], noise)
    assert drawn.tobytes() == resize.picture(painted[0]).tobytes()


@needs_diffusers
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_story_with_random_weights(checkpoint, words, begins_images, dtype):
    model = load(checkpoint, dtype=dtype)
    model.painter_steps = QUICK
    story = model.interleave("tell", steps=2, images=2)
    assert [part if isinstance(part, str) else part.size for part in story] == [
        "so", (32, 32), "so", (32, 32),
    ]  # fmt: skip


@needs_diffusers
def test_the_seed_of_an_edit_decides_its_noise(model, small_edits):
    pictures = [model.edit(photo(), "red", steps=1, seed=seed).tobytes() for seed in (0, 0, 1)]
    assert pictures[0] == pictures[1] != pictures[2]


@needs_diffusers
def test_offloaded_parts_draw_the_same(checkpoint, model):
    other = load(checkpoint, dtype="float32", offload=True)
    other.painter_steps = QUICK
    assert other.draw("a fox", size=32).tobytes() == model.draw("a fox", size=32).tobytes()


@needs_diffusers
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "how",
    [{}, {"offload": True}, {"bits": 8}, {"bits": 4}, {"experts_on_gpu": 2, "offload": True}],
)
def test_every_call_on_a_gpu(checkpoint, small_edits, how):
    if how.get("bits") == 4:
        pytest.importorskip("bitsandbytes", reason='run pip install "minillada[four-bit]"')
    model = load(checkpoint, "cuda", "bfloat16", **how)
    model.painter_steps = QUICK
    assert model.draw("a fox", size=(64, 32), steps=2).size == (64, 32)
    edited = model.edit(photo(), "make it red", steps=2, guidance_image=1.0, painter="normal")
    assert edited.size == (128, 128)
    assert isinstance(model.answer([photo(), photo()], "what?", length=3), str)
    assert isinstance(model.describe(photo(), length=3), str)
    text, image = model.think_and_draw("meow", size=32, steps=2, length=40)
    assert isinstance(text, str) and image.size == (32, 32)


@needs_diffusers
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_story_on_a_gpu(checkpoint, begins_images):
    model = load(checkpoint, "cuda", "bfloat16")
    model.painter_steps = QUICK
    story = model.interleave("tell", steps=2, images=2)
    assert [isinstance(part, str) for part in story] == [True, False, True, False]


@pytest.mark.parametrize("how", [{"mapped": True}, {"experts_on_gpu": 2}])
def test_experts_in_their_files_answer_the_same(checkpoint, how):
    answers = []
    for options in ({}, how):
        other = load(checkpoint, **options)
        answers.append(other.answer(photo(), "What is it?", length=40))
    assert answers[0] == answers[1] and answers[0]


def test_parts_are_read_when_needed_and_kept(model, checkpoint, asked):
    fresh = load(checkpoint)
    fresh.draw("a fox", size=64)  # by a painter that is not read here; nothing encodes an image
    assert not fresh.parts.kept
    fresh.answer(photo(), "what?", length=2)
    assert set(fresh.parts.kept) == {"tokenizer"}
    assert fresh.parts.tokenizer() is fresh.parts.tokenizer()


# --- errors --------------------------------------------------------------------------------------


def test_the_package_offers_it():
    assert minillada.official.load is load
    with pytest.raises(AttributeError, match="unofficial"):
        _ = minillada.unofficial


@pytest.mark.parametrize("size", [0, 31, 1000, (64, 40), 65 * 32, -32, 64.0, (64,), "64", None])
def test_sizes_that_cannot_be_drawn(model, size):
    with pytest.raises(ValueError, match="multiples of 32"):
        model.draw("a fox", size=size)


@pytest.mark.parametrize("photos", [[], "photo.png", [torch.zeros(3, 8, 8)], None])
def test_photos_that_are_none(model, photos):
    with pytest.raises(ValueError, match="PIL"):
        model.answer(photos, "what?")
    with pytest.raises(ValueError, match="an edit has one photo"):
        model.edit(photos, "make it red")


@needs_diffusers  # the painter comes first, since it may be missing
def test_other_errors(model, checkpoint):
    with pytest.raises(ValueError, match="text is empty"):
        model.draw("  ", size=32)
    with pytest.raises(ValueError, match="a seed is a whole number"):
        model.draw("a fox", size=32, seed=-1)
    with pytest.raises(ValueError, match="no painter 'fast'"):
        model.draw("a fox", size=32, painter="fast")
    with pytest.raises(ValueError, match="no crop 'middle'"):
        model.edit(photo(), "make it red", crop="middle")
    with pytest.raises(ValueError, match="fill the context"):
        model.answer(photo(), "a fox " * 9000)
    with pytest.raises(ValueError, match="does not fit the context"):
        model.draw("a fox " * 2000, size=2048)
    with pytest.raises(ValueError, match="must be at least 2, got 1"):
        model.parts.kept.clear()
        model.painter_steps = {"normal": 1}
        model.draw("a fox", size=32, painter="normal")
    assert not model.parts.kept, "the painter was read for nothing"
    model.painter_steps = QUICK
    with pytest.raises(ValueError, match="no token for an image side of 320 codes"):
        model.answer(Image.new("RGB", (4800, 30)), "what?")
    with pytest.raises(ValueError, match="one of bfloat16, float32"):
        load(checkpoint, dtype="float8")
    with pytest.raises(ValueError, match="no setting 'temprature'"):
        model.draw("a fox", size=32, temprature=1.0)


def test_what_can_be_refused_is_refused_before_a_painter_is_read(model, monkeypatch):
    def too_early(self, *given):
        raise AssertionError("a painter was read, or something decoded")

    monkeypatch.setattr(Parts, "painter", too_early)
    for wrong in ({"steps": 0}, {"guidance": 1e9}, {"foo": 1}, {"painter": None}):
        for call in (model.draw, model.think_and_draw, model.interleave):
            with pytest.raises(ValueError):
                call("a fox", size=32, **wrong)
    with pytest.raises(ValueError, match="does not fit the context"):
        model.draw("a fox " * 2000, size=2048)
    monkeypatch.setattr(model, "painter_steps", {"turbo": 0, "normal": 1})
    for name, least in (("turbo", 1), ("normal", 2)):
        with pytest.raises(ValueError, match=f"{name} painter must be at least {least}"):
            model.edit(photo(), "make it red", painter=name)


def test_numbers_below_one_are_refused(model):
    with pytest.raises(ValueError, match="images must be at least 1, got 0"):
        model.interleave("tell", images=0)
    for call in (model.interleave, model.think_and_draw):
        with pytest.raises(ValueError, match="length must be at least 1, got -1"):
            call("a fox", length=-1)
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        model.describe(photo(), length=0)
    for number in (2.5, "5", None):
        with pytest.raises(ValueError, match=f"got {number!r}; give a whole number"):
            model.describe(photo(), length=number)
    with pytest.raises(ValueError, match="half a character"):
        model.draw("a \ud800", size=32)


def test_devices_by_name(checkpoint, monkeypatch):
    monkeypatch.setattr("minillada.uni.best_device", lambda: "nothing")
    for name, kind in (("auto", "nothing"), ("gpu", "gpu")):
        with pytest.raises(ValueError, match=f"device '{kind}' is not available here; choose auto"):
            load(checkpoint, name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_a_device_that_is_not_there():
    """It is refused before anything is looked for, or downloaded."""
    with pytest.raises(ValueError, match="device 'cuda' is not available here") as raised:
        load("no-such-folder", "cuda")
    assert "\n" not in str(raised.value)


def test_photos_are_turned_upright():
    turned = Image.new("RGB", (30, 20))
    turned.getexif()[0x0112] = 6  # the camera was held on its side
    read = calls.read_photos(turned)[0]
    assert read.size == (20, 30) and read.mode == "RGB"
    assert calls.read_photos(Image.new("RGBA", (4, 4)))[0].mode == "RGB"


def test_photos_of_every_depth_show_the_same():
    """A ramp from black to white; and black ink on transparency is ink on white paper."""
    ramp = numpy.tile(numpy.arange(256, dtype="uint16"), (2, 1))
    deep = [Image.fromarray(ramp * 257), Image.fromarray((ramp * 257).astype("int32"))]
    deep.append(Image.fromarray((ramp / 255).astype("float32")))
    clear = Image.new("RGBA", (256, 2))
    clear.putalpha(Image.fromarray((255 - ramp).astype("uint8")))
    assert [image.mode for image in deep] == ["I;16", "I", "F"]
    for read in calls.read_photos([*deep, clear]):
        assert read.mode == "RGB" and numpy.array_equal(numpy.array(read)[..., 1], ramp)


def test_a_damaged_note_of_the_camera_does_no_harm(tmp_path):
    Image.new("RGB", (4, 2), "red").save(tmp_path / "a.png", exif=b"Exif\0\0garbage")
    with Image.open(tmp_path / "a.png") as photo:
        [read] = calls.read_photos(photo)
    assert read.size == (4, 2) and read.getpixel((0, 0)) == (255, 0, 0)
    assert pictures.read(tmp_path / "a.png", 3)[:, 0, 0].tolist() == [1, 0, 0]

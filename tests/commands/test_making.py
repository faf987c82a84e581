"""The commands that use a model do what the functions do, and save before they print."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import mnist_test_images, real_images, save_tiny_uni, tiny_judge, tiny_uni
from PIL import Image

import minillada
from minillada import checkpoint
from minillada.commands import common, making
from minillada.commands.common import escaped
from minillada.datasets import mnist
from minillada.datasets.pictures import read
from minillada.datasets.table import DATASETS, MNIST
from minillada.show import grids
from minillada.uni import THINK, Uni

# The tiny model knows the words of captions alone.
pytestmark = pytest.mark.filterwarnings("ignore:this model knows no word")


def saved(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def expected(images: torch.Tensor, columns: int) -> bytes:
    small = grids.to_pil(grids.tile(images, columns))
    return small.resize((small.width * 3, small.height * 3), 0).tobytes()


def test_draw_saves_one_row_a_caption(call, run, tmp_path):
    captions = ["a seven", "a thick eight"]
    settings = ["--count", 3, "--steps", 2, "--seed", 4]
    code, out, _ = call("draw", *captions, *settings, "--model", run)
    assert code == 0 and out == "saved outputs/draw.png\n"
    images = minillada.load(run).draw(["a seven"] * 3 + ["a thick eight"] * 3, seed=4, steps=2)
    assert saved(tmp_path / "outputs" / "draw.png") == expected(images, 3)
    with Image.open(tmp_path / "outputs" / "draw.png") as image:
        assert image.size == (3 * (3 * 34 - 2), 3 * (2 * 34 - 2))
    assert [p.name for p in (tmp_path / "outputs").iterdir()] == ["draw.png"]


@pytest.mark.parametrize(
    ("name", "kind"), [("a.jpg", "JPEG"), ("b.JPEG", "JPEG"), ("c.png", "PNG")]
)
def test_the_ending_decides_what_is_written(call, run, tmp_path, name, kind):
    code, out, _ = call("draw", "a two", "--steps", 1, "--count", 1, "--out", name, "--model", run)
    assert code == 0 and out == f"saved {name}\n"
    with Image.open(tmp_path / name) as image:
        assert image.format == kind


def test_describe_reads_pictures_and_test_images(call, run, picture):
    names = [str(picture(f"{size}.png", size)) for size in (28, 32)]
    code, out, _ = call("describe", *names, "--test", 3, "--seed", 1, "--model", run, "--json")
    report = json.loads(out)
    chosen = torch.randperm(10_000, generator=torch.Generator().manual_seed(1))[:3]
    assert code == 0
    assert [entry["name"] for entry in report] == [
        *names, *(f"test image {index}" for index in chosen.tolist())
    ]  # fmt: skip
    images = [read(Path(name))[None] for name in names] + [mnist_test_images().floats(chosen)]
    texts = [entry["text"] for entry in report]
    assert texts == minillada.load(run).describe(torch.cat(images))
    code, out, _ = call("describe", names[0], "--model", run)
    assert code == 0 and out == f"{names[0]}: {escaped(texts[0])}\n"


def test_a_picture_given_twice_is_described_twice(call, run, picture):
    name = picture("x.png")
    _, out, _ = call("describe", name, name, "--model", run, "--json")
    assert [entry["name"] for entry in json.loads(out)] == [str(name)] * 2


def test_answers(call, run, picture):
    names = [picture(f"{level}.png", level=level) for level in (100, 200)]
    a, b = (read(name) for name in names)
    uni = minillada.load(run)
    code, out, _ = call("answer", *names, "--question", "why?", "--model", run)
    answers = uni.answer([a, b], "why?")
    assert code == 0
    assert out.splitlines() == [f"{n}: {escaped(text)}" for n, text in zip(names, answers)]
    asked = ["--together", "--question", "why?", "--model", run, "--json"]
    code, out, _ = call("answer", *names, *asked)
    [entry] = json.loads(out)
    assert code == 0 and entry["name"] == f"{names[0]} + {names[1]}"
    assert [entry["text"]] == uni.answer([(a, b)], "why?")


@pytest.mark.filterwarnings("ignore:.* is grey")
def test_what_is_asked_if_nothing_is_said(call, run, colour_run, picture):
    name = picture("x.png")
    for model, question in ((run, "what digit is this?"), (colour_run, "what is this?")):
        given = call("answer", name, "--question", question, "--model", model)
        assert call("answer", name, "--model", model) == given
        asked = call("answer", name, "--question", "is it bright or dark?", "--model", model)
        assert asked[1] != given[1]  # so the question matters


def test_edits(call, run, picture, tmp_path):
    names = [picture(f"{level}.png", level=level) for level in (100, 200)]
    images = [read(name) for name in names]
    scales = ["--guidance-text", 3, "--guidance-image", 1]
    code, out, _ = call("edit", *names, "--instruction", "mirror it", *scales, "--model", run)
    assert code == 0 and out == "saved outputs/edit.png\n"
    edited = minillada.load(run).edit(images, "mirror it", guidance_text=3.0, guidance_image=1.0)
    assert saved(tmp_path / "outputs" / "edit.png") == expected(edited, 2)


@pytest.fixture
def short_stories(monkeypatch):
    """Random weights never stop, and their context is short."""
    monkeypatch.setattr(Uni, "thinking", (30, THINK))
    monkeypatch.setattr(Uni, "max_images", 2)


def test_thoughts_and_stories(call, run, short_stories):
    uni = minillada.load(run)
    code, out, _ = call("think", "draw one", "--model", run)
    [thought], _ = uni.think_and_draw(["draw one"])
    assert code == 0
    assert out.splitlines() == [f"draw one: {escaped(thought)}", "saved outputs/think.png"]
    code, out, _ = call("interleave", "count", "--model", run)
    told = [escaped(p) if isinstance(p, str) else "[image]" for p in uni.interleave("count")]
    assert code == 0 and out.splitlines()[0] == " ".join(told)


@pytest.mark.parametrize(
    ("out", "sentence"),
    [("story.gif", "a picture's name ends in .png"), ("folder.png", "it is a folder")],
)
def test_a_story_without_a_place_is_not_begun(refuse, run, monkeypatch, tmp_path, out, sentence):
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(Uni, "interleave", lambda *_, **__: pytest.fail("the story was written"))
    assert sentence in refuse("interleave", "count", "--out", out, "--model", run)


def test_a_full_disk_costs_the_pictures_of_a_story_and_not_its_texts(call, run, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device", "story.png")

    monkeypatch.setattr(Uni, "interleave", lambda *_, **__: ["one", torch.zeros(1, 32, 32)])
    monkeypatch.setattr(making, "save_images", full)
    code, out, err = call("interleave", "count", "--model", run)
    assert code == 2 and out == "one [image]\n" and "No space left" in err


@pytest.mark.parametrize(
    ("wishes", "sentence"),
    [
        (["--painter", "nosuch"], "no weights called 'nosuch'"),
        (["--painter-steps", 3], "the convolutional decoder has no steps"),
    ],
)
def test_a_wrong_painter_is_refused_before_anything_is_drawn(
    refuse, run, monkeypatch, wishes, sentence
):
    drawn = []
    plain = Uni.draw_traced
    monkeypatch.setattr(
        Uni, "draw_traced", lambda uni, texts, **of: drawn.extend(texts) or plain(uni, texts, **of)
    )
    assert sentence in refuse("draw", "a two", *wishes, "--model", run)
    assert not drawn


def test_a_picture_is_saved_before_anything_is_printed(call, run, monkeypatch, tmp_path):
    """Whatever the terminal does, the work is not lost."""
    seen = []
    monkeypatch.setattr(
        making, "print_texts", lambda *_, **__: seen.append((tmp_path / "t.png").exists())
    )
    monkeypatch.setattr(Uni, "thinking", (30, THINK))
    assert call("think", "draw one", "--out", "t.png", "--model", run)[0] == 0
    assert seen == [True]


@pytest.mark.filterwarnings("ignore:Glyph")  # a random model writes control characters
def test_demo_saves_its_picture(call, monkeypatch, tmp_path):
    monkeypatch.setattr(making, "load", lambda name, device: tiny_uni())
    monkeypatch.setattr(making, "load_judge", tiny_judge)
    code, out, err = call("demo", "--seed", 1)
    assert code == 0 and "saved outputs/demo.png" in out and "notebooks" in out
    assert all(f" {word}" in out for word in mnist.DIGITS)
    with Image.open(tmp_path / "outputs" / "demo.png") as image:
        assert image.width > 300 and len(set(image.convert("L").tobytes())) > 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["draw", ""], "a text is empty"),
        (["draw", "a seven", "   "], "a text is empty"),
        (["draw", "a seven", "--steps", "0"], "steps must be at least 1, got 0"),
        (["draw", "a seven", "--guidance", "nan"], "guidance must be a finite number, got nan"),
        (["draw", "a seven", "--guidance", "inf"], "guidance must be a finite number, got inf"),
        (["draw", "a seven", "--temperature", "-1"], "temperature must be"),
        (["draw", "seven " * 300], "exceed the context"),
        (["describe", "--test", "2", "--question", "why? " * 300], "exceed the context"),
    ],
)
def test_what_the_model_refuses(refuse, run, arguments, sentence):
    assert sentence in refuse(*arguments, "--model", run)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["draw", "a", "--count", "0"], "count must be at least 1 and at most 500, got 0"),
        (["draw", "a", "--count", "1000000000"], "at most 500, got 1000000000"),
        (["draw", *["a"] * 501], "the number of captions must be at least 1 and at most 500"),
        (["draw", "a", "--seed", "100000000000000"], "at most 1,000,000,000, got 1000000000000"),
        (["draw", "a", "--seed", "-1"], "seed must be at least 0"),
        (["draw", "a", "--device", "nonsense"], "device 'nonsense' is not available here"),
        (["draw", "a", "--device", "cuda:99"], "device 'cuda:99' is not available here"),
        (["draw", "a", "--device", "meta"], "device 'meta' is not available here"),
        (["draw", "a", "--model", "mnits"], "no weights called 'mnits'"),
        (["think", "a", "--model", "mnist-unicorn"], "no weights called 'mnist-unicorn'"),
        (["draw", "a \udcff"], "some text is not valid UTF-8"),
        (["draw", "a", "--out", "x.gif"], "a picture's name ends in .png"),
        (["think", "a", "--out", "."], "a picture's name ends in .png"),
        (["describe"], "nothing to describe; give picture files or --test N"),
        (["describe", "--test", "-1"], "test must be at least 0"),
        (["describe", "nowhere.png"], "no picture at nowhere.png"),
        (["describe", "."], ". is not a file; give a picture"),
        (["answer", "nowhere.png"], "no picture at nowhere.png"),
    ],
)
def test_what_is_refused_before_a_model_is_loaded(refuse, monkeypatch, arguments, sentence):
    real = common.load

    def load(name, device):
        assert name in ("mnits", "mnist-unicorn"), "a model was loaded in vain"
        return real(name, device)

    monkeypatch.setattr(common, "load", load)
    assert sentence in refuse(*arguments)


@pytest.mark.parametrize("command", [["draw", "a"], ["think", "a"], ["demo"]])
def test_endings_that_cannot_be_written(refuse, run, command, monkeypatch):
    monkeypatch.setattr(Uni, "draw", None)  # no work is done before
    model = [] if command == ["demo"] else ["--model", run]
    assert "a picture's name ends in .png" in refuse(*command, "--out", "x.gif", *model)


def test_tasks_that_cannot_be_done(refuse, run, picture):
    one = picture("one.png")
    edit = ["edit", one, "--model", run, "--instruction"]
    assert "a text is empty" in refuse(*edit, "")
    bad = ["mirror it", "--guidance-text", "nan"]
    assert "guidance must be a finite number" in refuse(*edit, *bad)
    assert "exceed the context" in refuse("answer", *[one] * 9, "--together", "--model", run)


def test_bad_pictures(refuse, run, picture, tmp_path):
    def sentence(name):
        return refuse("describe", name, "--model", run)

    Image.new("L", (40, 40), 255).save(tmp_path / "blank.png")
    assert "blank.png shows no digit" in sentence("blank.png")
    (tmp_path / "text.png").write_text("I am a picture")
    assert "text.png is not a picture that can be read" in sentence("text.png")
    whole = picture("cut.png", 28).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert "cut.png is not a picture that can be read" in sentence("cut.png")


def test_a_tokenizer_of_another_kind_is_named(refuse, run, picture, tmp_path):
    shutil.copytree(run, tmp_path / "other")
    weights = tmp_path / "other" / "weights.safetensors"
    checkpoint.write_info(weights, checkpoint.read_info(weights) | {"tokenizer": str(run)})
    assert "holds a backbone, not a tokenizer" in refuse(
        "describe", picture("one.png"), "--model", "other"
    )


def test_a_run_named_like_shipped_weights_is_mentioned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "mnist" / "weights.safetensors"
    own.parent.mkdir()
    own.touch()
    with pytest.warns(UserWarning, match="'mnist' is the shipped model; write ./mnist for the run"):
        common.load_finished("mnist", "cpu")


def test_data_of_ones_own_says_how_its_pictures_are_read(call, refuse, tmp_path, monkeypatch):
    run = save_tiny_uni(tmp_path / "own", dataset="shapes")
    Image.new("L", (90, 60), 90).save(tmp_path / "grey.png")
    asked = ["describe", "grey.png", "--model", run]
    assert "or start the script that adds one of your own" in refuse(*asked)
    for digits in (False, True):
        mine = replace(MNIST, name="shapes", digits=digits, load=lambda split: real_images(4))
        monkeypatch.setitem(DATASETS, "shapes", mine)
        if digits:
            assert "grey.png shows no digit" in refuse(*asked)
        else:
            code, out, _ = call(*asked, "--test", 4)
            assert code == 0 and out.startswith("grey.png: ") and out.count("test image ") == 4


# --- colour --------------------------------------------------------------------------------------


@pytest.fixture
def colour_run(tmp_path):
    """The path of a tiny run that reads colour."""
    return str(save_tiny_uni(tmp_path / "colour", channels=3, dataset="cifar10"))


def test_a_model_of_photos_reads_any_picture_file(call, colour_run, tmp_path):
    red = Image.new("RGB", (90, 60), (200, 30, 20))
    red.save(tmp_path / "red.png")
    code, out, err = call("describe", "red.png", "--model", colour_run)
    assert code == 0 and out.startswith("red.png: ") and err == ""
    image = read(tmp_path / "red.png", channels=3)
    assert image.shape == (3, 32, 32)
    code, out, err = call("edit", "red.png", "--instruction", "mirror it", "--model", colour_run)
    assert code == 0 and Image.open(tmp_path / "outputs/edit.png").mode == "RGB"


def test_a_grey_picture_for_a_model_of_photos_is_said_to_be_grey(call, colour_run, tmp_path):
    Image.new("L", (40, 40), 90).save(tmp_path / "grey.png")
    with pytest.warns(UserWarning, match="grey.png is grey; this model reads colour"):
        code, out, _ = call("answer", "grey.png", "--question", "why?", "--model", colour_run)
    assert code == 0 and out.startswith("grey.png: ")


def test_test_images_are_those_of_the_models_data(call, colour_run):
    code, out, _ = call("describe", "--test", 2, "--model", colour_run, "--json")
    assert code == 0 and len(json.loads(out)) == 2


def test_more_test_images_than_there_are_is_said(refuse, colour_run, monkeypatch):
    sample = making.load_cifar10_or_sample("test")
    few = type(sample)(sample.pixels[:5], sample.labels[:5])
    monkeypatch.setattr(making, "load_cifar10_or_sample", lambda split: few)
    asked = ["describe", "--test", "6", "--model", colour_run]
    assert "test must be at least 1 and at most 5, got 6" in refuse(*asked)


def test_inpainting(call, run, picture, tmp_path):
    names = [picture(f"{level}.png", level=level) for level in (100, 200)]
    images = torch.stack([read(name) for name in names])
    uni = minillada.load(run)
    asked = ["--hide", "left half", "--caption", "a seven", "--guidance", 3, "--seed", 2]
    code, out, _ = call("inpaint", *names, *asked, "--model", run)
    assert code == 0 and out == "saved outputs/inpaint.png\n"
    hidden = torch.zeros(32, 32, dtype=torch.bool)
    hidden[:, :16] = True
    filled = uni.inpaint(images, hidden, "a seven", guidance=3.0, seed=2)
    both = torch.cat([images.masked_fill(hidden, 0.5), filled])
    assert saved(tmp_path / "outputs" / "inpaint.png") == expected(both, 2)
    # The same hole, drawn: white on black.
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 32))
    mask.save(tmp_path / "mask.png")
    call("inpaint", names[0], "--mask", "mask.png", "--out", "other.png", "--model", run)
    both = torch.cat([images[:1].masked_fill(hidden, 0.5), uni.inpaint(images[:1], hidden)])
    assert saved(tmp_path / "other.png") == expected(both, 1)


def test_infilling(call, run, picture):
    names = [str(picture(f"{level}.png", level=level)) for level in (100, 200)]
    images = torch.stack([read(name) for name in names])
    code, out, _ = call("infill", "a thick ___", *names, "--model", run, "--json")
    texts = minillada.load(run).infill("a thick ___", images)
    assert code == 0
    assert json.loads(out) == [{"name": n, "text": t} for n, t in zip(names, texts)]


def test_what_cannot_be_filled_in(refuse, run, picture):
    one = picture("one.png")
    assert "no part of an image is called 'sky'" in refuse("inpaint", one, "--hide", "sky")
    assert "no picture at no.png" in refuse("inpaint", one, "--mask", "no.png")
    assert "there is no blank in 'a seven'" in refuse("infill", "a seven", one)
    asked = ["inpaint", one, "--guidance", 2, "--model", run]
    assert "guidance strengthens a caption; give one" in refuse(*asked)
    both = ["inpaint", one, "--mask", one, "--hide", "middle"]
    assert "--hide and --mask both say what to fill in" in refuse(*both)


def test_no_file_of_a_command_is_lost_to_another(refuse, run, picture, tmp_path):
    one, mask = picture("one.png"), picture("mask.png", 32)
    before = one.read_bytes()
    asked = ["edit", one, "--instruction", "mirror it", "--model", run]
    problem = "one.png is also another file of this command; choose another name"
    assert problem in refuse(*asked, "--out", one)
    assert problem in refuse(*asked, "--out", tmp_path / "nowhere" / ".." / "one.png")
    assert problem in refuse("inpaint", one, "--out", "one.png", "--model", run)
    assert problem in refuse("describe", one, "--show-steps", one, "--model", run)
    masked = ["inpaint", one, "--mask", mask, "--out", mask, "--model", run]
    assert "mask.png is also another file" in refuse(*masked)
    assert one.read_bytes() == before
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("name", ["a$x^{$.png", "k\udcf6ln.png"])
def test_no_name_of_a_picture_is_a_formula_or_unprintable(call, run, picture, tmp_path, name):
    try:
        one = picture(name)
    except (OSError, UnicodeError):
        pytest.skip("no file can be called so here")
    code, _, err = call("describe", one, "--show-steps", "steps.png", "--model", run)
    assert code == 0, err
    assert (tmp_path / "steps.png").exists()


STEPS = {"describe": [], "answer": [], "edit": ["--instruction", "mirror it"]}


@pytest.mark.parametrize("command", STEPS)
def test_the_steps_of_reading_are_saved(call, refuse, run, colour_run, picture, tmp_path, command):
    names = [picture("like_mnist.png"), picture("large.png", 90)]
    words = [*STEPS[command], "--show-steps", "steps.png", "--model"]
    code, out, _ = call(command, *names, *words, run)
    assert code == 0 and out
    with Image.open(tmp_path / "steps.png") as image:
        assert image.width > 1000
    assert "for picture files of digits" in refuse(command, names[0], *words, colour_run)

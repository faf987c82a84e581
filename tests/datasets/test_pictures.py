"""Pictures of every kind are read as MNIST would have shown them; what is no picture is refused."""

import functools
import os
import struct
import zlib

import numpy
import pytest
import torch
from helpers import mnist_test_images
from PIL import Image, ImageDraw, ImageFont, ImageOps

import minillada
from minillada.datasets import pictures
from minillada.datasets.cifar10 import load_cifar10_sample
from minillada.experiments import scans
from minillada.measure.judge import Judge, load_judge

COUNT = 20


@functools.cache
def judge() -> Judge:
    return load_judge()


def digit(i: int) -> Image.Image:
    """A test digit as MNIST ships it: 28 px, white on black."""
    return Image.fromarray(mnist_test_images().pixels[i, 0, 2:30, 2:30].numpy())


def enlarged(i: int, size: int = 280) -> Image.Image:
    """The same, black on white and large."""
    return ImageOps.invert(digit(i).resize((size, size), Image.Resampling.BICUBIC))


def right(folder, make, name: str = "digit.png", **options) -> int:
    """How many of the first test digits the judge reads after `make(i)` was saved and read."""
    images = []
    for i in range(COUNT):
        make(i).save(folder / name, **options)
        images.append(pictures.read(folder / name))
    batch = torch.stack(images)
    assert batch.shape == (COUNT, 1, 32, 32) and batch.dtype == torch.float32
    assert 0 <= float(batch.min()) and float(batch.max()) <= 1
    return int((judge().classify(batch) == mnist_test_images().labels[:COUNT]).sum())


def sixteen_bits(i):
    return Image.fromarray(numpy.asarray(digit(i)).astype("uint16") * 257)


def decimals(i):
    return Image.fromarray(numpy.asarray(digit(i)).astype("float32") / 255)


def bright_on_clear(i):
    white = Image.new("L", (28, 28), 255)
    return Image.merge("LA", (white, digit(i)))


@pytest.mark.parametrize(
    ("convert", "name"),
    [
        (digit, "grey.png"),
        (lambda i: digit(i).convert("RGB"), "rgb.png"),
        (lambda i: digit(i).convert("P"), "palette.gif"),
        (lambda i: digit(i).convert("CMYK"), "print.tif"),
        (lambda i: ImageOps.expand(digit(i), 2), "padded.png"),
        (sixteen_bits, "deep.png"),
        (decimals, "decimals.tif"),
        (bright_on_clear, "clear.png"),
    ],
)
def test_a_picture_like_mnist_keeps_every_pixel(tmp_path, convert, name):
    for i in range(3):
        convert(i).save(tmp_path / name)
        expected = mnist_test_images().floats([i])[0]
        assert torch.allclose(pictures.read(tmp_path / name), expected, atol=1e-6)


def test_the_white_of_numbers_without_a_depth():
    known = {0.3: 1, 1: 1, 2: 255, 255: 255, 256: 65_535, 65_535: 65_535, 70_000: 70_000}
    assert {largest: pictures.white_of(largest) for largest in known} == known


def test_numbers_that_are_none_are_black(tmp_path):
    pixels = numpy.asarray(digit(0)).astype("float32") / 255
    pixels[0, :4] = numpy.nan, numpy.inf, -numpy.inf, -3
    Image.fromarray(pixels).save(tmp_path / "decimals.tif")
    expected = mnist_test_images().floats([0])[0]
    assert torch.allclose(pictures.read(tmp_path / "decimals.tif"), expected, atol=1e-6)


def test_a_tenth_of_the_border_may_be_bright():
    grey = torch.zeros(28, 28)
    assert not pictures.looks_like_mnist(grey)
    grey[0, :10] = 1  # the corner belongs to two sides: 11 of 112
    assert pictures.looks_like_mnist(grey)
    grey[0, :11] = 1
    assert not pictures.looks_like_mnist(grey)
    for level, like in ((0.09, True), (0.2, False)):
        grey = torch.full((28, 28), level)
        grey[10:20, 10:20] = 1
        assert pictures.looks_like_mnist(grey) == like


@pytest.mark.parametrize(("ink", "paper"), [(80, 1), (180, 0)])
def test_clear_paper_is_what_shows_the_ink(tmp_path, ink, paper):
    Image.merge("LA", (Image.new("L", (28, 28), ink), digit(0))).save(tmp_path / "clear.png")
    assert pictures.read(tmp_path / "clear.png", digits=False)[0, 0, 0] == paper


def dark_on_clear(i):
    return Image.merge("LA", (Image.new("L", (28, 28)), digit(i)))


def turned_page(i):
    """A page that was turned: its corners are clear."""
    page = ImageOps.expand(enlarged(i).convert("RGBA"), 60, "white")
    return page.rotate(20, Image.Resampling.BICUBIC, expand=True)


def round_blackboard(i):
    board = ImageOps.expand(ImageOps.invert(enlarged(i)), 60)
    shape = Image.new("L", board.size)
    ImageDraw.Draw(shape).ellipse((0, 0, *board.size), 255)
    board.putalpha(shape)
    return board


def edged_ink(i, size):
    """Dark ink with a lighter edge: nearly white pixels were made clear, and no others."""
    page = enlarged(i, size)
    page.putalpha(page.point(lambda v: 255 * (v < 230)))
    return page


def off_centre(i):
    page = Image.new("L", (420, 300), 255)
    page.paste(enlarged(i, 120), (250, 20))
    return page


def cut_close(i):
    large = enlarged(i)
    return large.crop(ImageOps.invert(large).point(lambda v: 255 * (v > 80)).getbbox())


def scan(i, noise: float = 8.0, shadow: float = 0.0):
    """Black on grey paper, darker to the right, with noise."""
    ink = 1 - numpy.asarray(enlarged(i, 300)) / 255
    light = 1 - shadow * numpy.linspace(0, 1, 300)
    pixels = (235 - 200 * ink) * light + numpy.random.default_rng(i).normal(0, noise, ink.shape)
    return Image.fromarray(pixels.clip(0, 255).astype("uint8"))


def photo(i):
    page = numpy.asarray(off_centre(i).convert("RGB")) * [0.8, 0.76, 0.7]
    height, width, _ = page.shape
    y, x, _ = numpy.mgrid[:height, :width, :1] / height
    page = page * (1 - 0.3 * x * y) + numpy.random.default_rng(i).normal(0, 5, page.shape)
    return Image.fromarray(page.clip(0, 255).astype("uint8"))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda i: ImageOps.invert(digit(i)), "small.png"),
        (lambda i: ImageOps.expand(ImageOps.invert(digit(i)), 2, 255), "padded.png"),
        (lambda i: enlarged(i, 40), "forty.png"),
        (enlarged, "large.png"),
        (enlarged, "large.webp"),
        (lambda i: ImageOps.invert(enlarged(i)), "white_on_black.png"),
        (lambda i: enlarged(i).point(lambda v: 255 * (v > 127)).convert("1"), "one_bit.png"),
        (dark_on_clear, "clear.png"),
        (turned_page, "turned.png"),
        (round_blackboard, "round.png"),
        (lambda i: edged_ink(i, 28), "small_edge.png"),
        (lambda i: edged_ink(i, 280), "edge.png"),
        (off_centre, "off_centre.png"),
        (cut_close, "cut_close.png"),
        (scan, "scan.jpg"),
        (lambda i: scan(i, 15, 0.5), "shadow.jpg"),
        (photo, "photo.jpg"),
    ],
)
def test_other_pictures_are_prepared_as_mnist_was(tmp_path, make, name):
    assert right(tmp_path, make, name) >= COUNT - 1


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_a_camera_says_how_it_was_held(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for i in range(3):
        digit(i).transpose(turn).save(tmp_path / "turned.png", exif=exif)
        expected = mnist_test_images().floats([i])[0]
        assert torch.allclose(pictures.read(tmp_path / "turned.png"), expected, atol=1e-6)


def test_a_picture_whose_camera_wrote_nonsense_stays_as_it_is(tmp_path, monkeypatch):
    def damaged(picture):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(ImageOps, "exif_transpose", damaged)
    digit(0).save(tmp_path / "digit.png")
    expected = mnist_test_images().floats([0])[0]
    assert torch.allclose(pictures.read(tmp_path / "digit.png"), expected, atol=1e-6)


def test_the_package_reads_pictures_by_a_short_name(tmp_path):
    digit(0).save(tmp_path / "digit.png")
    image = minillada.pictures.read(tmp_path / "digit.png")
    assert torch.equal((image * 255).round().byte(), mnist_test_images().pixels[0])


def test_steps_of_preparing():
    """A bar of known place and size is found, scaled into 20 px and centred by its mass."""
    page = torch.full((100, 100), 0.9)
    page[10:50, 60:80] = 0.2
    page[90, 5] = 0.2  # a speck
    ink = pictures.find_ink(page)
    rows, columns = (ink > 0.5).any(1).nonzero(), (ink > 0.5).any(0).nonzero()
    scale = pictures.WORK / 100
    assert float(rows.min()) == pytest.approx(10 * scale, abs=1)
    assert float(rows.max()) == pytest.approx(50 * scale, abs=1.5)
    assert float(columns.min()) == pytest.approx(60 * scale, abs=1)
    box = pictures.fit_into_box(ink)
    assert box.shape == (20, 10)
    lopsided = torch.ones(20, 11)
    lopsided[:, :5] = 0.2  # more ink on the right: the box moves to the left
    for one in (box, lopsided):
        whole = pictures.centre(one)
        assert whole.shape == (28, 28)
        assert float(whole.sum()) == pytest.approx(float(one.sum()), abs=1e-3)
        y = float((whole.sum(1) * torch.arange(28)).sum() / whole.sum())
        x = float((whole.sum(0) * torch.arange(28)).sum() / whole.sum())
        assert max(abs(y - 14), abs(x - 14)) <= 0.51, "MNIST has its centres of mass there"


def test_each_step_is_shown_and_the_last_one_is_read(tmp_path):
    scan(3, 10, 0.4).save(tmp_path / "scan.png")
    done = pictures.steps(tmp_path / "scan.png")
    assert list(done) == ["brightness", "paper", "ink", "in its box", "what is read"]
    assert all(image.ndim == 3 and len(image) == 1 for image in done.values())
    assert torch.equal(done["what is read"], pictures.read(tmp_path / "scan.png"))
    # The paper is the light alone: darker to the right, and without a trace of the ink.
    paper = done["paper"][0]
    assert paper[:, 10].mean() > paper[:, -10].mean() + 0.2
    assert float((paper.diff(dim=1)).max()) < 0.01
    digit(3).save(tmp_path / "like.png")
    assert list(pictures.steps(tmp_path / "like.png")) == ["brightness", "what is read"]


def test_scans_with_all_that_can_go_wrong_at_once(tmp_path):
    def make(i):
        return scans.scan(mnist_test_images().pixels[i, 0, 2:30, 2:30].numpy(), i, 5.0, 12.0, 0.5)

    assert right(tmp_path, make, "scan.jpg", quality=50) >= COUNT - 1


def test_small_digits_of_scikit_learn(tmp_path):
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    images = []
    for pixels in digits.images[:60]:
        Image.fromarray((pixels / 16 * 255).round().astype("uint8")).save(tmp_path / "small.png")
        images.append(pictures.read(tmp_path / "small.png"))
    hits = judge().classify(torch.stack(images)) == torch.tensor(digits.target[:60])
    assert int(hits.sum()) >= 54


def test_most_photos_show_no_digit(tmp_path):
    """Grey ones: their colour does not give them away."""
    refused = 0
    for photo in load_cifar10_sample("test").floats(slice(0, 40)):
        save_photo(tmp_path / "photo.png", photo.mean(0, keepdim=True).expand(3, -1, -1))
        try:
            pictures.read(tmp_path / "photo.png")
        except ValueError as error:
            assert "photo.png shows no digit" in str(error)
            refused += 1
    assert refused >= 34


@pytest.mark.parametrize("text", ["hello", "seven", "42", "how are\nyou?"])
def test_words_are_no_digit(tmp_path, text):
    page = Image.new("L", (300, 120), 250)
    ImageDraw.Draw(page).text((20, 10), text, 30, font=ImageFont.load_default(48))
    page.save(tmp_path / "words.png")
    with pytest.raises(ValueError, match=r"words\.png shows no digit"):
        pictures.read(tmp_path / "words.png")


@pytest.mark.parametrize("number", [3, 4, 8])
def test_a_printed_digit_is_one(tmp_path, number):
    page = Image.new("L", (200, 200), 250)
    ImageDraw.Draw(page).text((60, 30), str(number), 30, font=ImageFont.load_default(120))
    page.save(tmp_path / "digit.png")
    assert int(judge().classify(pictures.read(tmp_path / "digit.png")[None])) == number


def blank(level):
    return Image.new("L", (200, 150), level)


def slope():
    return Image.fromarray(numpy.tile(numpy.linspace(100, 250, 200), (150, 1)).astype("uint8"))


def noise():
    return Image.fromarray(numpy.random.default_rng(0).integers(0, 255, (300, 300), "uint8"))


@pytest.mark.parametrize(
    "image",
    [blank(255), blank(0), blank(130), slope(), noise(), Image.new("LA", (40, 40), (0, 0)),
     Image.new("L", (28, 28)), Image.new("L", (1, 1))],
)  # fmt: skip
def test_a_picture_without_ink_is_refused(tmp_path, image):
    image.save(tmp_path / "empty.png")
    with pytest.raises(ValueError, match=r"empty\.png shows no digit; write one with dark ink"):
        pictures.read(tmp_path / "empty.png")


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


@pytest.mark.parametrize("side", [5001, 12_000, 20_000])
def test_the_size_is_checked_before_pixels_are_decoded(tmp_path, side):
    """The file ends behind its header: whoever decodes it says that it is truncated."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, side, 8, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b""))
    with pytest.raises(ValueError, match=r"bomb\.png has more than 50 megapixels; make it smaller"):
        pictures.read(tmp_path / "bomb.png")


def test_a_picture_of_fifty_megapixels_is_decoded(tmp_path):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 5000, 8, 0, 0, 0, 0))
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b""))
    with pytest.raises(ValueError, match=r"large\.png is not a picture that can be read"):
        pictures.read(tmp_path / "large.png")


def test_a_picture_of_somebody_else_is_said_to_be_closed(tmp_path, monkeypatch):
    def closed(path, formats):
        raise PermissionError

    monkeypatch.setattr(Image, "open", closed)
    (tmp_path / "theirs.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"theirs\.png may not be read; change its permissions"):
        pictures.read(tmp_path / "theirs.png")


def test_what_is_no_picture_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no picture at .*nothing\.png"):
        pictures.read(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="is not a file; give a picture"):
        pictures.read(tmp_path)
    enlarged(0).save(tmp_path / "whole.png")
    with pytest.raises(ValueError, match="read with 1 channel or with 3, got 2"):
        pictures.read(tmp_path / "whole.png", channels=2)
    whole = (tmp_path / "whole.png").read_bytes()
    page = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n"  # would start another program
    for content in (b"", b"I am a picture", whole[: len(whole) // 2], whole[:20], page):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"bad\.png is not a picture that can be read"):
            pictures.read(tmp_path / "bad.png")
    Image.new("LAB", (64, 48), (150, 128, 128)).save(tmp_path / "lab.tif")
    for read in (pictures.read, pictures.read_mask, lambda path: pictures.read(path, channels=3)):
        with pytest.raises(ValueError, match=r"lab\.tif has LAB colours; save it in RGB"):
            read(tmp_path / "lab.tif")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is not a file"):
        pictures.read(tmp_path / "pipe")


# --- masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(96, 64), (40, 200), (33, 33), (32, 32), (20, 24), (28, 28)])
def test_the_mask_of_a_photo_is_cut_as_the_photo(tmp_path, size):
    """So a mask that is the photo in black and white hides what is white in the photo."""
    page = Image.new("L", size)
    page.paste(255, (size[0] // 3, size[1] // 4, size[0] // 2, size[1]))
    page.save(tmp_path / "mask.png")
    with pytest.warns(UserWarning, match="is grey"):
        photo = pictures.read(tmp_path / "mask.png", channels=3)
    assert torch.equal(pictures.read_mask(tmp_path / "mask.png", digits=False), photo[0] > 0.5)


@pytest.mark.parametrize("size", [28, 32])
def test_the_mask_of_a_digit_covers_the_pixels_that_are_white(tmp_path, size):
    page = Image.new("L", (size, size))
    page.paste(255, (3, 5, 20, 21))
    page.save(tmp_path / "mask.png")
    read = pictures.read(tmp_path / "mask.png")[0]  # it looks like MNIST, so it is not moved
    assert torch.equal(pictures.read_mask(tmp_path / "mask.png"), read > 0.5)


def test_a_mask_that_is_no_mask_of_a_digit_as_it_is_read_is_refused(tmp_path):
    for size in ((300, 300), (64, 64), (32, 28)):
        Image.new("L", size).save(tmp_path / "mask.png")
        with pytest.raises(ValueError, match=rf"has {size[0]} x {size[1]} pixels; draw the mask"):
            pictures.read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("digits", [True, False])
def test_a_mask_that_hides_nothing_is_refused(tmp_path, digits):
    Image.new("L", (32, 32), 100).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=r"mask\.png has no white pixels.*; make white what"):
        pictures.read_mask(tmp_path / "mask.png", digits)


def test_a_mask_that_is_white_beside_the_middle_is_told_where_a_model_looks(tmp_path):
    page = Image.new("L", (160, 90))
    page.paste(255, (0, 0, 30, 90))
    page.save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="no white pixels where the model looks: in its middle"):
        pictures.read_mask(tmp_path / "mask.png", digits=False)


def test_a_grey_picture_of_anything_is_cut_as_a_photo(tmp_path):
    """Nothing is taken for ink: dark stays dark, and a small thing stays small."""
    page = Image.new("L", (96, 64), 200)
    page.paste(40, (20, 10, 30, 50))  # with 32 px a side: 2 to 7, from 5 to 25
    page.save(tmp_path / "bar.png")
    image = pictures.read(tmp_path / "bar.png", digits=False)
    assert image.shape == (1, 32, 32)
    dark = (image[0] - 40 / 255).abs() < 1e-6
    assert dark[5:25, 2:7].all() and dark.sum() == 100 and image.max() == 200 / 255


# --- photos --------------------------------------------------------------------------------------


def save_photo(path, photo: torch.Tensor) -> None:
    Image.fromarray((photo * 255).round().byte().permute(1, 2, 0).numpy(), "RGB").save(path)


def test_a_small_photo_keeps_every_pixel(tmp_path):
    photo = load_cifar10_sample("test").floats([3])[0]
    save_photo(tmp_path / "cat.png", photo)
    assert torch.equal(pictures.read(tmp_path / "cat.png", channels=3), photo)


def test_a_large_photo_is_cut_around_its_middle_and_averaged(tmp_path):
    photo = load_cifar10_sample("test").floats([8])[0]
    large = photo.repeat_interleave(4, 1).repeat_interleave(4, 2)  # [3, 128, 128]
    for shade in (0.0, 0.4):  # of every fourth row
        large[:, ::4] *= 1 - shade
        wide = torch.nn.functional.pad(large, (40, 41))
        save_photo(tmp_path / "ship.png", wide)
        read = pictures.read(tmp_path / "ship.png", channels=3)
        assert torch.allclose(read, photo * (1 - shade / 4), atol=shade / 255 + 1e-6)


def test_a_tiny_photo_is_enlarged_without_steps(tmp_path):
    ramp = torch.linspace(0, 1, 16).expand(3, 16, 16)
    save_photo(tmp_path / "ramp.png", ramp * torch.tensor([1, 0.8, 0.6]).view(3, 1, 1))
    image = pictures.read(tmp_path / "ramp.png", channels=3)
    assert (image[:, :, 1:-1].diff(dim=2) > 0).all()


def test_transparent_parts_of_a_photo_are_white(tmp_path):
    Image.new("RGBA", (40, 40), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    with pytest.warns(UserWarning, match="is grey"):
        assert (pictures.read(tmp_path / "clear.png", channels=3) == 1).all()


@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "1"])
def test_a_grey_photo_is_read_and_said_to_be_grey(tmp_path, mode):
    Image.new("L", (64, 48), 128).convert(mode).save(tmp_path / "grey.png")
    with pytest.warns(UserWarning, match=r"grey\.png is grey; this model reads colour"):
        image = pictures.read(tmp_path / "grey.png", channels=3)
    assert image.shape == (3, 32, 32)
    assert torch.equal(image[0], image[1]) and torch.equal(image[1], image[2])


def test_a_coloured_digit_is_read_and_said_to_be_coloured(tmp_path):
    grey = mnist_test_images().floats([0])[0]
    colours = torch.cat([grey, 0 * grey, 0 * grey])  # red ink on black
    red = 0.5 + 0.5 * colours - 0.5 * torch.cat([0 * grey, grey, grey])
    paper = torch.tensor([0.9, 0.9, 0.2]).view(3, 1, 1) * torch.ones(3, 32, 32)
    save_photo(tmp_path / "red.png", torch.where(grey > 0.3, red, paper))
    with pytest.warns(UserWarning, match=r"red\.png is coloured; this model reads grey digits"):
        assert pictures.read(tmp_path / "red.png").shape == (1, 32, 32)


@pytest.mark.filterwarnings("error")
def test_colours_below_what_is_transparent_are_not_spoken_of(tmp_path):
    ink = ImageOps.invert(enlarged(0))  # white where it is to be opaque
    clear = Image.composite(Image.new("RGB", ink.size), Image.new("RGB", ink.size, "red"), ink)
    clear.putalpha(ink)  # black ink, and red that nobody sees
    clear.save(tmp_path / "clear.png")
    pictures.read(tmp_path / "clear.png")
    # Pillow itself warns when a palette with transparent entries is made RGB.
    ink.convert("P").save(tmp_path / "palette.png", transparency=bytes(range(256)))
    pictures.read(tmp_path / "palette.png")

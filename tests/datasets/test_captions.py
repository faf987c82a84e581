"""Measurements on synthetic strokes of known width and angle; parsing inverts the grammar."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import mnist_test_images, real_images

from minillada.datasets import captions, colour
from minillada.datasets.captions import (
    all_captions,
    attributes,
    caption,
    caption_classes,
    describe_pixels,
    parse,
    slant,
    stroke_width,
)


def stroke(
    width: float, degrees: float = 0.0, length: float = 20.0, size: int = 32
) -> torch.Tensor:
    """A straight anti-aliased stroke `[1, 1, size, size]`, leaning right by `degrees`."""
    half = (size - 1) / 2
    y, x = torch.meshgrid(torch.arange(size) - half, torch.arange(size) - half, indexing="ij")
    a = math.radians(degrees)
    along, across = x * math.sin(a) - y * math.cos(a), x * math.cos(a) + y * math.sin(a)
    ink = (width / 2 + 0.5 - across.abs()).clamp(0, 1) * (length / 2 + 0.5 - along.abs()).clamp(
        0, 1
    )
    return ink[None, None]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6])
def test_width_of_a_bar_across_the_picture_is_exact(width):
    image = torch.zeros(1, 1, 32, 32)
    image[..., 10 : 10 + width] = 1  # no ends: area / boundary is the width itself
    expected = (
        width * 64 / 63
    )  # 64 rows of area at twice the resolution, 63 differences between rows
    assert float(stroke_width(image)) == pytest.approx(expected, abs=1e-3)
    assert float(stroke_width(image.mT)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("degrees", [10, 20, 45, -30])
def test_width_of_a_finite_bar_is_area_over_half_the_boundary(width, degrees):
    """Both ends count as boundary: 2·w·l / 2(w + l). Pixels see diagonals up to a tenth thinner."""
    expected = width * 20 / (width + 20)
    assert float(stroke_width(stroke(width, degrees))) == pytest.approx(expected, rel=0.12)


def test_width_orders_strokes_and_ignores_length():
    widths = [float(stroke_width(stroke(w / 2, 12))) for w in range(3, 13)]
    assert widths == sorted(widths)
    assert float(stroke_width(stroke(2, 7, length=12))) == pytest.approx(
        float(stroke_width(stroke(2, 7, length=24))), rel=0.1
    )


@pytest.mark.parametrize("width", [2.5, 4])
def test_blur_is_not_read_as_thickness(width):
    sharp = stroke(width, 12)
    kernel = torch.tensor([0.25, 0.5, 0.25])
    soft = F.conv2d(sharp, (kernel[:, None] * kernel)[None, None], padding=1)
    assert float(stroke_width(soft)) == pytest.approx(float(stroke_width(sharp)), abs=0.25)


def test_a_blank_picture_has_width_zero_and_no_slant():
    blank = torch.zeros(2, 1, 32, 32)
    assert stroke_width(blank).tolist() == [0, 0] and slant(blank).tolist() == [0, 0]


@pytest.mark.parametrize("degrees", [-40, -20, -5, 0, 5, 15, 30, 40])
@pytest.mark.parametrize("width", [1, 2, 3])
def test_slant_of_a_line_is_its_angle(degrees, width):
    assert float(slant(stroke(width, degrees))) == pytest.approx(degrees, abs=1.5)


def test_slant_does_not_depend_on_place_brightness_or_batch():
    image = stroke(2, 20, length=14)
    for moved in (image.roll((3, -4), (2, 3)), image * 0.5):
        assert float(slant(moved)) == pytest.approx(float(slant(image)), abs=0.05)
    images = torch.cat([stroke(2, d) for d in (-20, 0, 20)])
    assert torch.allclose(slant(images), torch.cat([slant(i[None]) for i in images]), atol=1e-4)
    assert torch.allclose(
        slant(images.flip(3)), -slant(images), atol=1e-3
    )  # a mirror turns right into left


def test_thresholds_belong_to_the_upper_class(monkeypatch):
    monkeypatch.setattr(
        captions, "stroke_width", lambda images: torch.tensor([2.39, 2.4, 2.41, 2.4, 2.4])
    )
    monkeypatch.setattr(
        captions, "slant", lambda images: torch.tensor([-5.01, -5.0, 14.99, 15.0, 15.01])
    )
    assert attributes(torch.zeros(5, 1, 1, 1)).tolist() == [[0, 0], [1, 1], [1, 1], [1, 2], [1, 2]]


def test_synthetic_strokes_are_described_as_built():
    images = torch.cat([stroke(w, d) for w in (1.5, 5) for d in (-25, 5, 30)])
    assert describe_pixels(images, torch.tensor([1, 1, 1, 1, 1, 1])) == [
        "a thin one leaning left", "a thin one standing upright", "a thin one leaning right",
        "a thick one leaning left", "a thick one standing upright", "a thick one leaning right",
    ]  # fmt: skip


def test_classes_are_label_thickness_slant():
    images = torch.cat([stroke(5, -25), stroke(1.5, 30)])
    assert caption_classes(images, torch.tensor([7, 3])).tolist() == [[7, 1, 0], [3, 0, 2]]


def test_parse_is_the_inverse_of_caption():
    for classes in itertools.product([*range(10)], [None, 0, 1], [None, 0, 1, 2]):
        assert parse(caption(*classes)) == classes


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("", (None, None, None)),
        ("a dog", (None, None, None)),
        ("thick", (None, 1, None)),
        ("leaning", (None, None, None)),  # half an attribute is none
        ("right", (None, None, None)),
        ("seventeen", (None, None, None)),  # whole words only
        ("leaning right a thin zero", (0, 0, 2)),
    ],
)
def test_parse_of_incomplete_sentences(text, classes):
    assert parse(text) == classes


def test_grammar():
    assert caption(7, 1, 2) == "a thick seven leaning right"
    assert caption(8) == "an eight" and caption(8, None, 1) == "an eight standing upright"
    assert caption(8, 0) == "a thin eight" and caption(1, None, 0) == "a one leaning left"


def test_all_captions_are_in_digit_major_order():
    texts = all_captions()
    assert len(texts) == len(set(texts)) == 60
    for d, t, s in itertools.product(range(10), range(2), range(3)):
        assert texts[(d * 2 + t) * 3 + s] == caption(d, t, s)


def test_real_digits_fill_every_class():
    """No class is rare, and a caption depends on one image's pixels and label alone."""
    images = mnist_test_images()
    pixels = images.floats(slice(0, 2000))
    classes = attributes(pixels)
    assert 0.35 < float(classes[:, 0].float().mean()) < 0.65
    assert min((classes[:, 1] == s).float().mean() for s in range(3)) > 0.1
    some = real_images(40)
    texts = describe_pixels(some.floats(), some.labels)
    assert [parse(t)[0] for t in texts] == some.labels.tolist()
    assert texts == [describe_pixels(some.floats([i]), some.labels[[i]])[0] for i in range(40)]


@pytest.mark.parametrize("measure", [stroke_width, slant, attributes, colour.attributes])
def test_one_image_and_bytes_are_refused_with_a_way_out(measure):
    image = torch.rand(3, 32, 32)
    with pytest.raises(ValueError, match=r"float32 \[3, 32, 32\]; write image\[None\]"):
        measure(image)
    with pytest.raises(ValueError, match=r"uint8 \[1, 3, 32, 32\].* bytes / 255"):
        measure((255 * image[None]).byte())


@pytest.mark.parametrize("language", [captions, colour])
def test_as_many_labels_as_images_are_needed(language):
    images = torch.rand(3, 1 if language is captions else 3, 32, 32)
    with pytest.raises(ValueError, match="3 images need as many labels, got 2"):
        language.describe_pixels(images, torch.tensor([1, 2]))

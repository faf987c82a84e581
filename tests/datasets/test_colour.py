"""Brightness and colour of synthetic photos; the grammar and its inverse."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from minillada.datasets import colour
from minillada.datasets.cifar10 import load_cifar10_sample
from minillada.datasets.colour import (
    GRAMMAR,
    attributes,
    brightness,
    caption,
    describe_pixels,
    frame_colour,
    hue,
)

PAINTS = {
    "blue": (0.3, 0.4, 0.8),
    "green": (0.3, 0.6, 0.2),
    "brown": (0.5, 0.35, 0.2),
    "": (0.5, 0.5, 0.52),
}


def plain(red: float, green: float, blue: float) -> torch.Tensor:
    """One colour, `[1, 3, 32, 32]`."""
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1).expand(1, 3, 32, 32).clone()


@pytest.mark.parametrize(("word", "paint"), PAINTS.items())
def test_plain_pictures_have_their_colour(word, paint):
    assert colour.COLOUR_WORDS[int(attributes(plain(*paint))[0, 1])] == word


def test_colour_is_that_of_the_frame_alone():
    image = plain(*PAINTS["blue"])
    image[..., 4:-4, 4:-4] = plain(*PAINTS["brown"])[..., 4:-4, 4:-4]
    assert torch.allclose(frame_colour(image)[0], torch.tensor(PAINTS["blue"]), atol=1e-5)
    assert describe_pixels(image, torch.tensor([8])) == ["a dark photo of a ship, mostly blue"]


def test_hues_of_pure_colours():
    pure = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]])
    angle, distance = hue(pure)
    assert (angle % 360).tolist() == pytest.approx([0, 60, 120, 180, 240, 300], abs=1e-3)
    assert distance.tolist() == pytest.approx([1] * 6, abs=1e-6)
    _, grey = hue(torch.full((1, 3), 0.4))
    assert float(grey) == pytest.approx(0, abs=1e-6)


def test_the_frame_is_four_pixels_wide():
    image, frame = torch.rand(1, 3, 32, 32), torch.ones(32, 32, dtype=torch.bool)
    frame[4:28, 4:28] = False
    torch.testing.assert_close(frame_colour(image)[0], image[0][:, frame].mean(1))


@pytest.mark.parametrize(
    ("word", "low", "high"), [("blue", 175, 260), ("green", 65, 165), ("brown", -40, 55)]
)
def test_words_begin_and_end_at_their_hues_and_greys_have_none(word, low, high):
    def said(degrees: float, distance: float) -> str:
        """The word for a colour at a hue: each channel is a cosine, 120 degrees after the last."""
        angles = torch.deg2rad(torch.tensor([degrees, degrees - 120, degrees - 240]))
        paint = 0.5 + distance * 2 / 3 * angles.cos()
        return colour.COLOUR_WORDS[int(attributes(plain(*paint.tolist()))[0, 1])]

    assert said(low + 0.5, 0.3) == said(high - 0.5, 0.3) == word
    assert said(low - 0.5, 0.3) == said(high + 0.5, 0.3) == ""
    middle = (low + high) / 2
    assert said(middle, 0.065) == word and said(middle, 0.055) == ""


def test_edges_belong_to_the_upper_class(monkeypatch):
    numbers = torch.tensor([0.474, 0.475]), torch.tensor([175.0, 260.0]), torch.tensor([0.06, 0.06])
    monkeypatch.setattr(colour, "brightness", lambda images: numbers[0])
    monkeypatch.setattr(colour, "hue", lambda colours: numbers[1:])
    assert attributes(torch.zeros(2, 3, 32, 32)).tolist() == [[0, 0], [1, colour.UNSAID]]


def test_brightness_is_mean_luma_and_green_counts_most():
    assert float(brightness(plain(0.2, 0.2, 0.2))) == pytest.approx(0.2)
    red, green, blue = (float(brightness(plain(*paint))) for paint in torch.eye(3).tolist())
    assert green > red > blue and red + green + blue == pytest.approx(1)
    assert attributes(plain(0.475, 0.475, 0.475) + 1e-4)[0, 0] == 1
    assert attributes(plain(0.47, 0.47, 0.47))[0, 0] == 0


def test_every_word_covers_a_fair_share_of_real_images():
    sample = load_cifar10_sample("test")
    classes = attributes(sample.floats())
    bright = float(classes[:, 0].float().mean())
    assert 0.45 < bright < 0.55
    for word in range(len(colour.COLOUR_WORDS)):
        assert float((classes[:, 1] == word).float().mean()) > 0.1


def test_words_survive_a_blur():
    images = load_cifar10_sample("test").floats()
    soft = F.interpolate(F.avg_pool2d(images, 4), scale_factor=4, mode="bilinear")
    same = (attributes(images) == attributes(soft)).float().mean(0)
    assert same[0] > 0.99 and same[1] > 0.96


def test_attributes_do_not_depend_on_the_batch():
    images = load_cifar10_sample("train").floats(slice(0, 20))
    alone = torch.cat([attributes(image[None]) for image in images])
    assert torch.equal(attributes(images), alone)


def test_captions():
    assert caption(8, 0, 0) == "a dark photo of a ship, mostly blue"
    assert caption(0, 1, 3) == "a bright photo of an airplane" == caption(0, 1)
    assert caption(1) == "a photo of an automobile"
    assert caption(4, None, 1) == "a photo of a deer, mostly green"


def test_parse_is_the_inverse_of_caption():
    for label, bright, word in itertools.product(range(10), (None, 0, 1), range(4)):
        assert GRAMMAR.parse(caption(label, bright, word)) == (label, bright, word)
    assert GRAMMAR.parse("") == (None, None, colour.UNSAID)
    assert GRAMMAR.parse("mostly shiplike") == (None, None, colour.UNSAID)


def test_index_is_the_row_of_all_captions():
    texts = GRAMMAR.all_captions()
    assert len(texts) == len(set(texts)) == 80
    rows = torch.tensor([[3, 1, 0], [0, 0, 3], [9, 1, 3]])
    assert [texts[i] for i in GRAMMAR.index(rows).tolist()] == [caption(*r) for r in rows.tolist()]

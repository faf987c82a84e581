"""A stored figure keeps its colours, its size on the page and its alt text."""

import io

import pytest
import torch
from PIL import Image, ImageColor

from minillada.show import charts, grids, page


def stored(figure) -> Image.Image:
    return Image.open(io.BytesIO(page.rendered(figure, "a figure").data))


def distance_to(image: Image.Image, colour: str) -> int:
    """How far the nearest colour of the picture is from `colour`, in the worst channel."""
    wanted = ImageColor.getrgb(colour)
    there = [there for _, there in image.convert("RGB").getcolors(1 << 20)]
    return min(max(abs(a - b) for a, b in zip(one, wanted)) for one in there)


def test_a_ring_keeps_its_colour():
    """Rings have few pixels, and a table has many shades: the ring must not become one of them."""
    table = torch.rand(8, 16, generator=torch.Generator().manual_seed(0))
    ring = torch.zeros(8, 16, dtype=torch.bool)
    ring[2, 3] = True
    image = stored(charts.heatmap([table], ["a table"], "x", "y", [ring], form=".2f"))
    assert image.mode == "P"
    assert distance_to(image, page.RED) <= 12


def test_digits_and_photographs_keep_their_colours():
    shades = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    assert (
        len(
            {
                p[0]
                for _, p in stored(grids.gallery(shades, ["grey"]))
                .convert("RGB")
                .getcolors(1 << 20)
            }
        )
        >= 32
    )
    photo = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert stored(grids.gallery(photo, ["a photograph"])).mode == "RGB"


def test_a_figure_takes_96_pixels_of_the_page_an_inch():
    shown = page.rendered(charts.curves({"loss": [1.0, 2.0]}, "step", "loss"), "a line")
    assert shown.width == 6 * page.SHOWN
    assert Image.open(io.BytesIO(shown.data)).width == 6 * page.DPI


def test_the_alt_text_is_stored_with_the_picture_and_below_it(monkeypatch):
    digits = grids.picture(torch.zeros(2, 1, 4, 4))
    for figure in (charts.curves({"loss": [1.0, 2.0]}, "step", "loss"), digits, digits.image):
        displayed = []
        monkeypatch.setattr(page, "display", displayed.append)
        page.show(figure, alt="1 < 2, doubled")
        picture, text = displayed
        _, metadata = picture._repr_mimebundle_()
        assert metadata["image/png"]["alt"] == "1 < 2, doubled"
        assert text.data == '<p class="jp-sr-only">1 &lt; 2, doubled</p>'


def test_an_alt_text_is_demanded():
    with pytest.raises(ValueError, match="needs an alt text"):
        page.show(charts.curves({"loss": [1.0, 2.0]}, "step", "loss"), alt=" ")


def test_lines_differ_in_more_than_colour():
    styles = [page.line_style(k, 10) for k in range(len(page.COLOURS))]
    assert len({style["color"] for style in styles}) == len(styles)
    assert len({style["marker"] for style in styles}) == len(styles)

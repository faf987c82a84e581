"""Images stand where `tile` says, wrong titles are marked, lines lean as asked."""

import math

import pytest
import torch

from minillada.datasets.pool import Pool
from minillada.show import grids, page
from minillada.tasks.base import Example, Marked


def test_tile_places_every_image_and_leaves_white_between():
    images = torch.arange(5).view(5, 1, 1, 1).expand(5, 2, 3, 4) / 10
    canvas = grids.tile(images, columns=2, gap=1)
    assert canvas.shape == (2, 3 * 4 - 1, 2 * 5 - 1)
    covered = torch.zeros(canvas.shape[1:], dtype=torch.bool)
    for i in range(5):
        y, x = i // 2 * 4, i % 2 * 5
        assert torch.equal(canvas[:, y : y + 3, x : x + 4], images[i])
        covered[y : y + 3, x : x + 4] = True
    assert bool((canvas[:, ~covered] == 1).all())


def test_no_images_are_an_empty_figure():
    """Such as the wrong answers of a model that made none."""
    none = torch.zeros(0, 1, 4, 4)
    assert [axes.get_title() for axes in grids.gallery(none, [], columns=3).axes] == [""] * 3
    assert bool((grids.tile(none, columns=3) == 1).all())


def test_rows_have_their_names_and_a_short_row_ends_white():
    rows = {"one": torch.zeros(3, 1, 4, 4), "two": torch.zeros(1, 1, 4, 4)}
    first, second = grids.labelled_rows(rows).axes
    assert [axes.texts[0].get_text() for axes in (first, second)] == ["one", "two"]
    pixels = second.images[0].get_array()  # [4, 3 * 4 + 2 * 2]
    assert pixels.shape[:2] == (4, 16)
    assert bool((pixels[:, :4] == 0).all()) and bool((pixels[:, 4:] == 1).all())


@pytest.mark.parametrize("channels", [1, 3])
def test_to_pil_keeps_black_white_and_order(channels):
    image = torch.zeros(channels, 2, 3)
    image[:, 0, 2] = 1
    pixels = grids.to_pil(image).convert("L")
    assert pixels.size == (3, 2)
    assert [pixels.getpixel((x, y)) for y in range(2) for x in range(3)] == [0, 0, 255, 0, 0, 0]


def test_wrong_titles_have_a_cross_and_empty_places_no_axes():
    figure = grids.gallery(
        torch.zeros(3, 1, 4, 4), ["one", "two", "three"], 2, [False, True, False]
    )
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["one", "✗ two", "three", ""]
    assert figure.axes[1].title.get_color() == page.RED
    assert not figure.axes[3].axison


def test_titles_of_two_lines_are_not_cut_off():
    titles = ["a thick seven leaning right"] * 8
    image = page.drawn(grids.gallery(torch.zeros(8, 1, 32, 32), titles)).convert("L")
    assert image.crop((0, 0, image.width, 1)).getextrema() == (255, 255)  # the top row is white


def test_titles_of_a_page_of_tasks_do_not_touch():
    question = "what number does the picture show?"
    asked, answer = Example("draw", [question], []), [question, torch.zeros(1, 32, 32)]
    marked = Marked([asked] * 6, [answer] * 6, {"": [False] * 6})
    figure = grids.task_page(Pool([], {"digit": []}), "new", marked)
    page.drawn(figure)
    titles = [axes.title.get_window_extent() for axes in figure.axes]
    assert all(left.x1 + 4 < right.x0 for left, right in zip(titles, titles[1:]))


def test_code_grid_writes_each_code_at_its_place_and_cuts_between_patches():
    figure = grids.code_grid(torch.zeros(1, 8, 12), torch.arange(6).view(2, 3))
    left, right = figure.axes
    written = {text.get_text(): text.get_position() for text in right.texts}
    assert written == {str(3 * y + x): (x, y) for y in range(2) for x in range(3)}
    across = [line.get_ydata()[0] for line in left.lines if line.get_xdata() == [0, 1]]
    assert across == [3.5]
    assert [line.get_xdata()[0] for line in left.lines if line.get_xdata() != [0, 1]] == [3.5, 7.5]


def test_a_line_leans_through_the_centre_of_mass():
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 2:5, 6] = 1  # centre of mass: row 3, column 6
    axes = grids.leaning(image, torch.tensor([20.0])).axes[0]
    x, y = axes.lines[0].get_data()
    assert (x[0] + x[1]) / 2 == pytest.approx(6) and (y[0] + y[1]) / 2 == pytest.approx(3)
    # to the right of vertical: the upper end (smaller y) lies further right
    assert math.degrees(math.atan((x[1] - x[0]) / (y[0] - y[1]))) == pytest.approx(20)


def test_a_caption_with_dollar_signs_is_no_formula():
    figure = grids.gallery(torch.zeros(2, 1, 4, 4), ["$a_{$ seven", 7])
    page.drawn(figure)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["$a_{$ seven", "7"]


def test_wrong_answers_may_be_a_tensor():
    titles = grids.gallery(torch.zeros(2, 1, 4, 4), [1, 7], 2, torch.tensor([1, 7]) != 7).axes
    assert [axes.get_title() for axes in titles] == ["✗ 1", "7"]


def test_a_gallery_needs_a_column_and_a_title_for_each_image():
    images = torch.zeros(2, 1, 4, 4)
    for make in (grids.tile, grids.picture, lambda images, n: grids.gallery(images, ["", ""], n)):
        with pytest.raises(ValueError, match="at least 1 column, got 0"):
            make(images, 0)
    with pytest.raises(ValueError, match="2 images need as many titles, got 1"):
        grids.gallery(images, ["one"])

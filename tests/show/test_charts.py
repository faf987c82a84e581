"""What charts draw is what they were given: interval ends, rings, classes, scales."""

import math

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from minillada.sampler import Step
from minillada.show import charts, page


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (0.5, (0.5, 0.5, 0.5)),
        ((0.99, 0.03), (0.99, 0.96, 1.0)),
        ((0.01, 0.03), (0.01, 0.0, 0.04)),
        ((0.99, 0.95, 0.998), (0.99, 0.95, 0.998)),
        ((0.5, -0.1, 1.2), (0.5, 0.0, 1.0)),
    ],
)
def test_ends_of_a_share_stay_in_0_to_1(point, expected):
    assert charts.interval(point, share=True) == pytest.approx(expected)


def test_other_intervals_may_leave_0_to_1():
    assert charts.interval((0.5, 2.0)) == (0.5, -1.5, 2.5)


def ends_drawn(axes) -> list[tuple[float, float]]:
    """(low, high) of every error bar in `axes`."""
    (bars,) = axes.collections
    return [tuple(segment[:, 1].tolist()) for segment in bars.get_segments() if len(segment)]


POINTS = [(0.5, 0.1), (0.99, 0.9, 0.995), 0.7]
DRAWN = [(0.4, 0.6), (0.9, 0.995)]  # the third point has no interval, so no caps either


@pytest.mark.parametrize(
    "figure",
    [
        charts.bars(POINTS, ["a", "b", "c"], "right"),
        charts.dots({"one": POINTS}, ["a", "b", "c"], "right"),
        charts.sweep([1, 2, 4], {"right": {"one": POINTS}}, "steps", log=True),
    ],
    ids=["bars", "dots", "sweep"],
)
def test_both_ends_are_drawn(figure):
    ends = ends_drawn(figure.axes[0])
    assert len(ends) == len(DRAWN)
    for drawn, expected in zip(ends, DRAWN):
        assert drawn == pytest.approx(expected)


def test_without_intervals_no_error_bars_are_drawn():
    assert not charts.bars([1.0, 2.0], ["a", "b"], "right").axes[0].collections
    assert charts.whiskers([1.0, 2.0]) == ([1.0, 2.0], None)
    _, ends = charts.whiskers([math.nan, 2.0])  # a value that is missing has no interval, either
    assert ends is None


def test_a_missing_point_is_left_out():
    figure = charts.sweep([1, 2], {"bits": {"one": [(3.0, 0.1), (math.nan, 0.0)]}}, "size")
    figure.draw_without_rendering()
    (ends,) = ends_drawn(figure.axes[0])
    assert ends == pytest.approx((2.9, 3.1))


def test_every_line_has_its_own_x():
    x = {"one": [1, 2], "two": [1.5, 8.0]}
    figure = charts.sweep(x, {"right": {"one": [0, 1], "two": [2, 3]}}, "speed", log=True, line=1)
    axes = figure.axes[0]
    assert [line.get_xdata().tolist() for line in axes.lines[:2]] == [[1, 2], [1.5, 8.0]]
    assert axes.lines[2].get_linestyle() == "--"
    assert axes.get_xticks().tolist() == [1, 1.5, 2, 8]


def test_smoothing_is_a_trailing_mean():
    assert charts.trailing_mean([3.0, 5.0, 10.0, 0.0], 2) == [3.0, 4.0, 7.5, 5.0]
    drawn = charts.curves({"loss": [3.0, 5.0, 10.0, 0.0]}, "step", "loss", smooth=2)
    assert drawn.axes[0].lines[0].get_ydata().tolist() == [3.0, 4.0, 7.5, 5.0]


def test_tables_side_by_side_share_one_colour_scale():
    figure = charts.heatmap([torch.tensor([[1.0]]), torch.tensor([[4.0]])], ["a", "b"], "", "")
    assert [axes.images[0].get_clim() for axes in figure.axes] == [(0.0, 4.0)] * 2


def step(start: int, confidence: list[float], committed: list[int]) -> Step:
    """One step of one row that decodes a block of four."""
    chosen = torch.tensor([[i in committed for i in range(4)]])
    sure = torch.tensor([confidence])
    return Step(start, torch.zeros(1, 4, dtype=torch.long), sure, chosen, torch.zeros_like(chosen))


def test_confidence_map_rings_what_was_committed_and_leaves_the_prompt_out():
    steps = [
        step(4, [0.0, 0.3, 0.9, 0.2], [2]),  # position 4 belongs to the prompt
        step(4, [0.0, 0.8, 0.0, 0.7], [1, 3]),
        step(8, [0.5, 0.6, 0.7, 0.8], [0, 1, 2, 3]),
    ]
    axes = charts.confidence_map(steps).axes[0]
    rings = {(int(line.get_ydata()[0]), int(line.get_xdata()[0])) for line in axes.lines}
    # (step, column): columns count the positions that were asked, so the prompt has none
    assert rings == {(0, 1), (1, 0), (1, 2), (2, 3), (2, 4), (2, 5), (2, 6)}
    nan, table = math.nan, torch.tensor(axes.images[0].get_array().filled(math.nan))
    assert table.shape == (3, 7)
    # a place that is not asked has no number: it is known, or its block comes later
    assert table[1].tolist() == pytest.approx([0.8, nan, 0.7, nan, nan, nan, nan], nan_ok=True)


def test_cells_without_a_number_are_grey():
    figure = charts.heatmap([torch.tensor([[0.5, math.nan, 0.0]])], [""], "", "", form=".1f")
    (image,) = figure.axes[0].images
    assert image.get_clim() == (0, 0.5)
    assert to_hex(image.to_rgba(image.get_array())[0, 1]).upper() == page.GREY
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.5"]


def test_histogram_counts_every_value_in_its_class():
    values = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    axes = charts.histogram(values, [1.0, 3.0], ["low", "middle", "high"], "x").axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["low (20%)", "middle (40%)", "high (40%)"]


def test_chosen_bars_are_dark():
    axes = charts.bars([1, 2], ["a", "b"], "", marks=[True, False]).axes[0]
    assert [to_hex(bar.get_facecolor()).upper() for bar in axes.patches] == [page.BLUE, page.PALE]


def test_names_that_do_not_fit_are_turned():
    figures = [
        charts.bars([1, 2], ["one", "two"], ""),  # widens for its names
        charts.bars([1] * 9, ["make it thicker and mirror it"] * 9, ""),  # as wide as a page
        charts.label(charts.bars([1] * 9, ["a word"] * 9, ""), ["a word"] * 9, size=(3, 2)),
    ]
    angles = [figure.axes[0].get_xticklabels()[0].get_rotation() for figure in figures]
    assert angles == [0, 90, 90]


def test_a_curve_beside_runs_is_averaged_as_they_are():
    own = [4.0, 2.0, 3.0, 1.0, 9.0]  # the last step fills no window
    figure = charts.beside_runs(own, [[3.0, 2.0, 1.0], [5.0, 2.0, 1.0]], 2, "loss")
    mean, yours = figure.axes[0].lines
    assert list(yours.get_ydata()) == [3.0, 2.0]
    assert list(yours.get_xdata()) == [2, 4]
    assert list(mean.get_ydata()) == [4.0, 2.0]


def test_numbers_of_any_kind_are_drawn():
    """Students plot what they have: tensors, arrays, whole numbers, half precision."""
    for values in ([1, 2], torch.tensor([1, 2]), np.float32([1, 2]), [torch.tensor(1.0), 2]):
        figure = charts.bars(values, [3, 4], "count")
        assert [bar.get_height() for bar in figure.axes[0].patches] == [1.0, 2.0]
    assert charts.interval(torch.tensor([0.5, 2.0])) == (0.5, -1.5, 2.5)
    for values in (torch.arange(9), torch.rand(9).bfloat16(), torch.rand(9).double(), np.ones(9)):
        charts.histogram(values, [0.3, 0.6], ["low", "middle", "high"], "x")
        charts.right_and_wrong({"x": (values, torch.zeros(9, dtype=torch.bool), ())})
        charts.scatter({"a": values.reshape(-1, 1)[:, [0, 0]]})
        charts.heatmap([values.reshape(3, 3)], ["a"], "x", "y", form=".1f")
    charts.heatmap([torch.arange(4).view(2, 2)], ["whole numbers"], "x", "y", form="d")
    charts.histogram(torch.tensor([1.0, float("nan"), float("inf")]), [0.5], ["low", "high"], "x")
    page.drawn(charts.heatmap([-torch.ones(2, 2)], ["nothing above 0"], "x", "y"))


def test_nothing_to_draw_is_refused_in_a_sentence():
    for draw in (
        lambda nothing: charts.histogram(nothing, [0.5], ["low", "high"], "x"),
        lambda nothing: charts.scatter({"a": nothing}),
        lambda nothing: charts.heatmap([nothing], ["a"], "x", "y"),
    ):
        with pytest.raises(ValueError, match="nothing to be shown"):
            draw(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="nothing to be shown"):
        charts.histogram(torch.full((3,), math.nan), [0.5], ["low", "high"], "x")

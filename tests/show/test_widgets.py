"""Every control of the explorer reaches the sampler and explains itself; what is drawn is what the
figures show; a caption that cannot be drawn is answered, not raised."""

import base64
import re

import ipywidgets
import pytest
from helpers import tiny_uni
from matplotlib.figure import Figure

from minillada.show import charts, strips, widgets
from minillada.show.page import rendered
from minillada.show.widgets import sampler_explorer

MOVED = {
    "caption": "a thin two",
    "steps": 3,
    "block_size": 4,
    "guidance": 3.0,
    "temperature": 0.5,
    "threshold": 0.5,
    "seed": 7,
}


@pytest.fixture
def explorer(monkeypatch):
    """Controls by name of an explorer over a small model, and what each drawing was asked for."""
    uni, asked = tiny_uni(), []
    draw = uni.draw_traced

    def recording(captions, **settings):
        asked.append({"caption": captions[0], **settings})
        return draw(captions, **settings)

    monkeypatch.setattr(uni, "draw_traced", recording)
    box = sampler_explorer(uni)
    return {control.description.replace(" ", "_"): control for control in box.children[:-1]}, asked


def test_every_control_reaches_the_sampler(explorer):
    controls, asked = explorer
    assert set(controls) == set(MOVED) and len(asked) == 1
    for name, value in MOVED.items():
        assert asked[-1][name] != value
        controls[name].value = value
        assert asked[-1][name] == value and type(asked[-1][name]) is type(value)
    assert asked[-1] == MOVED and len(asked) == 1 + len(MOVED)


def test_an_empty_caption_is_answered():
    *controls, page = sampler_explorer(tiny_uni()).children
    controls[0].value = "  "
    assert "a text is empty" in page.value and "<img" not in page.value


def test_the_widget_draws_what_the_figures_show():
    uni = tiny_uni()
    page = sampler_explorer(uni, "a thin two").children[-1].value
    traced = uni.draw_traced(["a thin two"], seed=0)
    film = rendered(strips.filmstrip(uni, traced), "a film")
    sure = rendered(charts.confidence_map(traced.generation.steps), "a map")
    shown = re.findall('<img src="data:image/png;base64,([^"]*)" width="([0-9]+)"', page)
    assert [(base64.b64decode(data), int(width)) for data, width in shown] == [
        (picture.data, picture.width) for picture in (film, sure)
    ]
    codes, passes = traced.codes.numel(), traced.generation.forwards
    assert f"{codes} codes in {passes} forward passes" in page


def test_what_a_user_types_is_no_html():
    page = sampler_explorer(tiny_uni(), 'a "<b>thin</b>" two').children[-1].value
    assert "<b>" not in page and page.count("<img") == 2
    assert 'alt="a &quot;&lt;b&gt;thin&lt;/b&gt;&quot; two, step by step"' in page


def test_no_widget_has_an_output_area():
    """Voilà would miss the end of a cell that fills one, and never show its page."""
    kinds, left = set(), [sampler_explorer(tiny_uni())]
    while left:
        widget = left.pop()
        kinds.add(type(widget))
        left += getattr(widget, "children", ())
    assert ipywidgets.HTML in kinds and ipywidgets.Output not in kinds


def test_every_control_has_a_hint_and_room_for_its_name(explorer):
    for control in explorer[0].values():
        hint = control.tooltip or control.placeholder
        assert hint, f"the browser shows 'null' over {control.description}"
        assert control.style.description_width == "7em"


def test_both_pictures_count_steps_from_one():
    uni = tiny_uni()
    traced = uni.draw_traced(["a thin two"], steps=1)
    table = charts.confidence_map(traced.generation.steps).axes[0]
    names = [label.get_text() for label in table.get_yticklabels()]
    frames = [axes.get_title() for axes in strips.filmstrip(uni, traced).axes]
    assert names and [f"step {name}" for name in names] == frames


def test_a_slider_draws_what_is_chosen():
    asked = []

    def draw(size):
        asked.append(size)
        return Figure(figsize=(1, 1))

    slider, page = widgets.choice(draw, "block size", [1, 2, 4], "a mask").children
    first = page.value
    slider.value = 4
    assert asked == [1, 4]
    assert 'alt="a mask; block size 1"' in first and 'alt="a mask; block size 4"' in page.value
    assert slider.description == "block size"

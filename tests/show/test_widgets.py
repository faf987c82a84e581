"""Every control of the explorer reaches the sampler and explains itself; what is drawn is what the
figures show; a caption that cannot be drawn is answered, not raised."""

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


def test_an_empty_caption_is_answered(explorer, capsys):
    controls, _ = explorer
    controls["caption"].value = "  "
    assert "a text is empty" in capsys.readouterr().out


def test_old_pictures_stay_until_all_new_ones_are_rendered(explorer, monkeypatch, capsys):
    controls, _ = explorer
    save, shown_before = Figure.savefig, []

    def recording(*args, **options):
        shown_before.append(capsys.readouterr().out)
        return save(*args, **options)

    capsys.readouterr()
    monkeypatch.setattr(Figure, "savefig", recording)
    controls["seed"].value = 7
    assert len(shown_before) == 2
    assert "passes" not in "".join(shown_before)
    assert "passes" in capsys.readouterr().out


def test_the_widget_draws_what_the_figures_show(monkeypatch):
    uni, displayed = tiny_uni(), []
    monkeypatch.setattr(widgets, "display", lambda *pictures: displayed.append(pictures))
    widgets.sampler_explorer(uni, "a thin two")
    traced = uni.draw_traced(["a thin two"], seed=0)
    film = rendered(strips.filmstrip(uni, traced), "a film")
    sure = rendered(charts.confidence_map(traced.generation.steps), "a map")
    shown = [picture for pictures in displayed for picture in pictures]
    assert [film.data, sure.data] == [picture.data for picture in shown if hasattr(picture, "data")]


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

    slider, _ = widgets.choice(draw, "block size", [1, 2, 4], "a mask").children
    slider.value = 4
    assert asked == [1, 4]
    assert slider.description == "block size"

"""Every control of the explorer reaches the sampler and explains itself, and a caption that cannot be drawn is answered, not raised."""

import pytest
from helpers import tiny_uni
from matplotlib.figure import Figure

from minillada.show import charts, strips
from minillada.show.widgets import sampler_explorer

MOVED = {"caption": "a thin two", "steps": 3, "block_size": 4, "guidance": 3.0, "temperature": 0.5, "threshold": 0.5, "seed": 7}


@pytest.fixture
def explorer(monkeypatch):
    """The explorer over a small model, its controls by name, and what each drawing was asked for."""
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
    assert "the caption is empty" in capsys.readouterr().out


def test_old_pictures_stay_until_all_new_ones_are_rendered(explorer, monkeypatch, capsys):
    controls, _ = explorer
    save, shown_before = Figure.savefig, []

    def recording(*args, **options):
        shown_before.append(capsys.readouterr().out)
        return save(*args, **options)

    capsys.readouterr()
    monkeypatch.setattr(Figure, "savefig", recording)
    controls["seed"].value = 7
    assert len(shown_before) == 2 and "passes" not in "".join(shown_before) and "passes" in capsys.readouterr().out


def test_every_control_has_a_hint_and_room_for_its_name(explorer):
    for control in explorer[0].values():
        assert control.tooltip or control.placeholder, f"the browser shows 'null' over {control.description}"
        assert control.style.description_width == "7em"


def test_both_pictures_count_steps_from_one():
    uni = tiny_uni()
    traced = uni.draw_traced(["a thin two"], steps=1)
    names = [label.get_text() for label in charts.confidence_map(traced.generation.steps).axes[0].get_yticklabels()]
    frames = [axes.get_title() for axes in strips.filmstrip(uni, traced).axes]
    assert names and [f"step {name}" for name in names] == frames

"""Diagrams: every box is drawn once, and arrows lead from box to box."""

from minillada.show import diagrams


def test_boxes_of_the_same_text_are_told_apart():
    places = {"x": (0, 0), "+#1": (1, 0), "+#2": (2, 0)}
    figure = diagrams.boxes(places, [("x", "+#1"), ("+#1", "+#2")])
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.texts]
    assert names[:3] == ["x", "+", "+"]
    assert len(axes.texts) == 3 + 2  # an arrow is a text without letters


def test_rows_go_down():
    figure = diagrams.boxes({"above": (0, 0), "below": (0, 1)}, [])
    above, below = figure.axes[0].texts
    assert above.get_position()[1] > below.get_position()[1]


def test_words_stand_on_the_middle_of_their_arrow():
    figure = diagrams.boxes({"ask": (0, 0), "go": (2, 1)}, [("ask", "go", "yes")])
    word = figure.axes[0].texts[-1]
    assert word.get_text() == "yes"
    assert word.get_position() == (1, -0.5)

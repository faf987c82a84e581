"""Operations do what they say to every pixel, and can be undone where they promise it."""

import pytest
import torch
from helpers import few, real_images
from hypothesis import given
from hypothesis import strategies as st

from minillada.datasets import edits
from minillada.datasets.captions import stroke_width
from minillada.datasets.cifar10 import load_cifar10_sample
from minillada.datasets.colour import brightness

IMAGES = real_images(40).floats()


@few
@given(st.integers(-6, 6), st.integers(-6, 6))
def test_moving_is_a_loop_over_pixels(down, right):
    image = torch.rand(1, 2, 7, 9, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros_like(image)
    for y in range(7):
        for x in range(9):
            if 0 <= y - down < 7 and 0 <= x - right < 9:
                expected[..., y, x] = image[..., y - down, x - right]
    assert torch.equal(edits.move(image, down, right), expected)


@pytest.mark.parametrize("width", [3, 4, 6])
def test_thicker_and_thinner_move_an_edge_by_half_a_pixel(width):
    bar = torch.zeros(1, 1, 32, 32)
    bar[..., 4:28, 10 : 10 + width] = 1
    assert float(edits.thicker(bar)[..., 16, :].sum()) == pytest.approx(width + 1, abs=0.1)
    assert float(edits.thinner(bar)[..., 16, :].sum()) == pytest.approx(width - 1, abs=0.1)


def test_real_strokes_change_their_measured_width():
    before = stroke_width(IMAGES)
    assert (stroke_width(edits.thicker(IMAGES)) > before + 0.6).all()
    thick = before > 2.4
    assert (stroke_width(edits.thinner(IMAGES[thick])) < before[thick] - 0.4).all()


@pytest.mark.parametrize(
    ("instruction", "place"),
    [
        ("mirror it", [1, 6]),
        ("rotate it", [3, 8]),  # clockwise: what was near the top is now near the right side
        ("shift it left", None),  # over the edge
        ("shift it right", [1, 7]),
        ("shift it up", None),
        ("shift it down", [5, 3]),
    ],
)
def test_where_a_point_goes(instruction, place):
    image = torch.zeros(1, 1, 10, 10)
    image[..., 1, 3] = 1
    after = edits.apply([instruction], image)[0, 0].nonzero().tolist()
    assert after == ([] if place is None else [place])


def test_undo_brings_the_image_back():
    # nothing that a shift could push over the edge
    inside = torch.nn.functional.pad(IMAGES[..., 4:28, 4:28], (4,) * 4)
    for name in edits.OPERATIONS:
        rows = [name] * len(inside)
        back = edits.undo(rows, edits.apply(rows, inside))
        kept = torch.allclose(back, inside, atol=1e-6)
        assert kept == (name not in ("make it thicker", "make it thinner")), name
    assert torch.equal(edits.undo(["make it thicker"], inside[:1]), inside[:1])


def test_every_row_gets_its_own_instruction():
    names = [None, *edits.OPERATIONS]
    rows = [names[i % len(names)] for i in range(len(IMAGES))]
    out = edits.apply(rows, IMAGES)
    for i, name in enumerate(rows):
        before = IMAGES[i : i + 1]
        alone = before if name is None else edits.OPERATIONS[name].do(before)
        assert torch.equal(out[i : i + 1], alone)
    known = list(edits.OPERATIONS) * 4
    undone = edits.undo(known[: len(IMAGES)], IMAGES[: len(known)])
    for i, name in enumerate(known[: len(IMAGES)]):
        assert torch.equal(undone[i : i + 1], edits.undo([name], IMAGES[i : i + 1]))


@pytest.mark.parametrize("function", [edits.apply, edits.undo])
def test_unknown_instructions(function):
    with pytest.raises(ValueError, match="no operation is called 'paint it'; choose one of make"):
        function(["paint it"], IMAGES[:1])


@pytest.mark.parametrize("function", [edits.apply, edits.undo])
def test_each_image_needs_an_instruction(function):
    with pytest.raises(ValueError, match="1 instructions for 2 images; give one for each"):
        function(["mirror it"], IMAGES[:2])


# --- colour --------------------------------------------------------------------------------------


def photos() -> torch.Tensor:
    return load_cifar10_sample("test").floats(slice(0, 10))


@pytest.mark.parametrize("name", edits.COLOUR_OPERATIONS)
def test_a_colour_operation_changes_the_picture_and_stays_in_range(name):
    before = photos()
    after = edits.apply([name] * len(before), before)
    assert after.min() >= 0 and after.max() <= 1
    assert (after - before).abs().mean((1, 2, 3)).min() > 0.005


@pytest.mark.parametrize("name", ["mirror it", "make it brighter", "invert it", "shift its hue"])
def test_a_colour_operation_can_be_undone(name):
    before = photos()
    after = edits.undo([name] * len(before), edits.apply([name] * len(before), before))
    assert torch.allclose(after, before, atol=1e-6)


def test_colour_operations_do_what_they_say():
    before = photos()
    grey = edits.grey(before)
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 1], grey[:, 2])
    assert torch.allclose(brightness(grey), brightness(before), atol=1e-6)
    assert (brightness(edits.brighten(before)) > brightness(before)).all()
    # A third of the way to white.
    torch.testing.assert_close(edits.brighten(before), before + (1 - before) / 3)
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    assert edits.shift_hue(red).flatten().tolist() == [0, 1, 0]

"""Operations do what they say to every pixel, can be undone where they promise it, and are far enough apart to be marked."""

import pytest
import torch
from helpers import few, real_images
from hypothesis import given
from hypothesis import strategies as st

from minillada.datasets import edits
from minillada.datasets.captions import stroke_width

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
    assert torch.equal(edits.moved(down, right)(image), expected)


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


def test_a_rotation_is_clockwise():
    image = torch.zeros(1, 1, 4, 4)
    image[..., 0, 1] = 1  # top, left of the middle: a quarter turn clockwise brings it to the right side, above the middle
    assert edits.OPERATIONS["rotate it"](image)[0, 0].nonzero().tolist() == [[1, 3]]


def test_undo_brings_the_image_back():
    inside = torch.nn.functional.pad(IMAGES[..., 4:28, 4:28], (4,) * 4)  # nothing that a shift could push over the edge
    for instruction, undo in edits.UNDO.items():
        assert torch.allclose(undo(edits.OPERATIONS[instruction](inside)), inside, atol=1e-6), instruction
    assert set(edits.OPERATIONS) - set(edits.UNDO) == {"make it thicker", "make it thinner"}


def test_every_row_gets_its_own_instruction():
    names = [None, *edits.OPERATIONS]
    rows = [names[i % len(names)] for i in range(len(IMAGES))]
    out = edits.apply(rows, IMAGES)
    for i, name in enumerate(rows):
        alone = IMAGES[i : i + 1] if name is None else edits.OPERATIONS[name](IMAGES[i : i + 1])
        assert torch.equal(out[i : i + 1], alone)
    with pytest.raises(ValueError, match="no operation is called 'paint it'; choose one of make it thicker"):
        edits.apply(["paint it"], IMAGES[:1])

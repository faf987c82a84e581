"""Films are grey where nothing is known; strips name, place and frame tokens."""

import pytest
import torch
from helpers import tiny_uni
from matplotlib.colors import to_hex

from minillada.show import charts, page, strips
from minillada.vocab import BOI, UNCONDITION


def test_film_frames_are_grey_exactly_where_codes_are_masked():
    uni = tiny_uni(block_size=4)
    traced = uni.draw_traced(["a thin two"], steps=2)
    steps, patch = traced.generation.steps, uni.tokenizer.config.patch_size
    begin = traced.generation.start
    frames = strips.film_frames(uni, traced)
    assert len(frames) == len(steps)

    known = torch.zeros(16, dtype=torch.bool)
    for step, frame in zip(steps, frames):
        for i, token in enumerate(step.ids[0].tolist()):
            place = step.start + i - begin
            if 0 <= place < 16:
                known[place] = token != uni.vocab.mask_id
        for place in range(16):
            y, x = place // 4 * patch, place % 4 * patch
            grey = frame[:, y : y + patch, x : x + patch] == 0.5
            assert bool(grey.all()) != bool(known[place])
    assert not torch.equal(frames[0], frames[-1])
    assert torch.equal(frames[-1], traced.images[0])


def test_a_film_is_that_of_its_row():
    """Rows of one length run together, and the steps of the first such rows alone are kept."""
    uni = tiny_uni()
    traced = uni.draw_traced(["a two", "a thin two", "a six", "a thick six"], steps=3)
    for row in (0, 2):
        torch.testing.assert_close(strips.film_frames(uni, traced, row)[-1], traced.images[row])
    for row in (1, 3, 4):
        with pytest.raises(ValueError, match=f"row {row} is not in the batch .*; trace it alone"):
            strips.film_frames(uni, traced, row)
    with pytest.raises(ValueError, match="row 0 is not in"):
        strips.filmstrip(uni, uni.draw_traced([]))


@pytest.mark.parametrize("block_size", [1, 4, 8, 16, 32])
@pytest.mark.parametrize("part", [slice(0, 2), slice(2, 4), slice(1, 2)])
def test_a_film_of_inpainting_shows_what_was_given_from_the_beginning(block_size, part):
    uni = tiny_uni()
    codes = torch.arange(32).view(2, 4, 4) % 16
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0] = True  # the first image is drawn whole, in a batch of its own
    mask[1, part] = True
    both = uni.inpaint_traced(codes, mask, "a two", block_size=block_size)
    torch.testing.assert_close(strips.film_frames(uni, both)[-1], both.images[0])
    alone = uni.inpaint_traced(codes[1:], mask[1:], "a two", block_size=block_size)
    frames = strips.film_frames(uni, alone)
    torch.testing.assert_close(frames[-1], alone.images[0])
    rows = torch.ones(32, dtype=torch.bool)  # of pixels
    rows[8 * part.start : 8 * part.stop] = False
    assert not (frames[0, :, rows] == 0.5).all(2).any()
    assert len(frames) == 1 or (frames[0, :, ~rows] == 0.5).any()


def test_a_film_without_a_step_is_refused():
    uni = tiny_uni()
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    traced = uni.inpaint_traced(torch.zeros(1, 4, 4, dtype=torch.long), nothing)
    for figure in (
        lambda: strips.filmstrip(uni, traced),
        lambda: charts.confidence_map(traced.generation.steps),
    ):
        with pytest.raises(ValueError, match="no step to be shown"):
            figure()


def test_kinds_and_names_of_tokens():
    vocab = tiny_uni().vocab
    code = vocab.image_token_offset + 7
    boi, (seven,) = vocab.markup(BOI)[0], vocab.encode(" seven")
    kinds = [strips.token_kind(vocab, token) for token in (code, boi, seven, vocab.mask_id)]
    assert kinds == ["image", "special", "text", "mask"]
    names = [strips.token_name(vocab, token) for token in (code, boi, seven, vocab.mask_id)]
    assert names == ["code 7", "<boi>", "·seven", "mask"]
    (long,) = vocab.encode(" understanding")
    assert strips.token_name(vocab, long) == "·understandi…"
    (unconditional,) = vocab.markup(UNCONDITION)
    assert strips.token_name(vocab, unconditional) == "uncondition"
    # what a user types is text, even if it looks like markup
    assert {strips.token_kind(vocab, token) for token in vocab.encode("<role>")} == {"text"}


def test_strip_places_tokens_in_reading_order_and_frames_the_marked():
    vocab = tiny_uni().vocab
    ids = [vocab.image_token_offset + i for i in range(5)]
    marks = [False, False, False, True, False]
    figure = strips.token_strip(vocab, ids, columns=3, title="t", marks=marks)
    boxes = figure.axes[0].patches
    assert [(int(box.get_x()), int(box.get_y())) for box in boxes] == [
        (0, 0), (1, 0), (2, 0), (0, 1), (1, 1),
    ]  # fmt: skip
    framed = [to_hex(box.get_edgecolor()).upper() == page.RED for box in boxes]
    assert framed == marks


def test_mask_figure_draws_the_mask():
    mask = torch.ones(3, 3).tril().bool()
    axes = strips.mask_figure([mask], ["causal"], ["a", "b", "c"]).axes[0]
    assert torch.equal(torch.tensor(axes.images[0].get_array()).bool(), mask)
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b", "c"]


def test_nothing_of_a_mask_figure_is_cut_off():
    mask = torch.ones(6, 6).tril().bool()
    figure = strips.mask_figure([mask] * 4, ["causal"] * 4, ["0"] * 6)
    figure.draw_without_rendering()
    for axes in figure.axes:
        box = axes.get_tightbbox()  # with title and labels
        assert box.y0 >= 0 and box.y1 <= figure.bbox.height


def test_a_strip_needs_a_column():
    with pytest.raises(ValueError, match="at least 1 column, got 0"):
        strips.token_strip(tiny_uni().vocab, [1, 2], columns=0)

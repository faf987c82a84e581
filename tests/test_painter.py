"""The painter: what it is given matters, rows are independent, and what it refuses."""

from itertools import pairwise

import pytest
import torch
from helpers import generator, real_images

from minillada import checkpoint, painting
from minillada.config import PainterConfig
from minillada.flow import mix
from minillada.painter import Painter
from minillada.painting import paint
from minillada.settings import changed
from minillada.vq import ImageTokenizer

SMALL = PainterConfig(
    image_size=8,
    grid=2,
    codebook_size=5,
    code_dim=8,
    width=8,
    condition_width=8,
    blocks=2,
    painting_steps=3,
)


@pytest.fixture
def small():
    torch.manual_seed(0)
    module = Painter(SMALL)
    for parameter in module.parameters():  # the blocks begin with zeros, which would hide them
        torch.nn.init.normal_(parameter, std=0.2)
    return module.eval()


@pytest.mark.parametrize("shift", [1.0, 6.0])
def test_painting_is_euler_along_the_velocity_that_the_network_says(small, shift):
    codes = torch.randint(5, (2, 2, 2))
    sketch = torch.rand(2, 1, 8, 8)
    small.config = changed(SMALL, shift=shift)
    painted = paint(small, codes, sketch, steps=4, seed=7)
    times = [step / (step + shift * (4 - step)) for step in range(5)]
    x = torch.stack(
        [torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (7, 8)]
    )
    with torch.no_grad():
        for t, then in pairwise(times):
            end = small(x, torch.full((2,), t), codes, 2 * sketch - 1).clamp(-1, 1)
            x = x + (then - t) * (end - x) / (1 - t)
    torch.testing.assert_close(painted, (x.clamp(-1, 1) + 1) / 2)
    assert painted.shape == (2, 1, 8, 8) and not painted.requires_grad


def test_a_row_depends_on_its_seed_and_not_on_the_others(small, monkeypatch):
    codes, sketch = torch.randint(5, (5, 2, 2)), torch.rand(5, 1, 8, 8)
    together = paint(small, codes, sketch, seed=3)
    torch.testing.assert_close(paint(small, codes[4:], sketch[4:], seed=7)[0], together[4])
    monkeypatch.setattr(painting, "BATCH_SIZE", 2)
    torch.testing.assert_close(paint(small, codes, sketch, seed=3), together)
    assert not torch.equal(paint(small, codes, sketch, seed=4)[0], together[0])
    assert paint(small, codes[:0], sketch[:0]).shape == (0, 1, 8, 8)


def test_time_codes_sketch_and_guidance_matter(small):
    x, sketch = torch.randn(2, 1, 1, 8, 8)
    codes, t = torch.zeros(1, 2, 2, dtype=torch.long), torch.tensor([0.2])
    other = codes.clone()
    other[0, 1, 1] = 3
    with torch.no_grad():
        said = small(x, t, codes, sketch)
        assert not torch.equal(said, small(x, torch.tensor([0.7]), codes, sketch))
        assert not torch.equal(said, small(x, t, other, sketch))
        assert not torch.equal(said, small(x, t, codes, -sketch))
    # Guidance 0 is the painter without codes and sketch: all codes are painted alike.
    sketch = torch.rand(1, 1, 8, 8)
    nothing = paint(small, codes, sketch, guidance=0.0)
    torch.testing.assert_close(nothing, paint(small, other, 1 - sketch, guidance=0.0))
    plain = paint(small, codes, sketch)
    torch.testing.assert_close(paint(small, codes, sketch, guidance=1.0), plain)
    assert not torch.allclose(paint(small, codes, sketch, guidance=2.0), plain)


def test_guidance_adds_what_codes_and_sketch_change(small):
    x, sketch = torch.randn(2, 3, 1, 8, 8) / 2
    codes, t = torch.randint(5, (3, 2, 2)), torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        given = small(x, t, codes, sketch)
        nothing = small(x, t, torch.full_like(codes, 5), torch.zeros_like(sketch))
        for scale in (0.5, 1.0, 3.0):
            said = small.saying(codes, sketch, scale)(x, t)
            torch.testing.assert_close(said, (nothing + scale * (given - nothing)).clamp(-1, 1))


def test_the_chosen_rows_are_left_out_and_no_others(small):
    codes, sketch = torch.randint(5, (3, 2, 2)), torch.rand(3, 1, 8, 8)
    for rows in ([True, False, True], [False, True, False]):
        chosen = torch.tensor(rows)
        without, grey = small.drop(codes, sketch, chosen)
        assert (without[chosen] == 5).all() and (grey[chosen] == 0).all()
        assert torch.equal(without[~chosen], codes[~chosen])
        assert torch.equal(grey[~chosen], sketch[~chosen])


def test_every_weight_takes_part(small):
    x, sketch = torch.randn(2, 2, 1, 8, 8)
    small(x, torch.rand(2), torch.randint(5, (2, 2, 2)), sketch).square().sum().backward()
    assert not [name for name, weight in small.named_parameters() if weight.grad is None]


@pytest.mark.skipif(not checkpoint.shipped("mnist-painter"), reason="the painter is not shipped")
def test_the_shipped_painter_says_what_it_learned():
    """The mean squared error on 40 pictures: under the same weights, another network has more."""
    painter, _ = checkpoint.load_model("mnist-painter", Painter)
    tokenizer, _ = checkpoint.load_model("mnist-tokenizer", ImageTokenizer)
    images = real_images(40).floats()
    codes, picture = tokenizer.encode(images), 2 * images - 1
    noise, errors = torch.randn(picture.shape, generator=generator()), []
    says = painter.saying(codes, 2 * tokenizer.decode(codes) - 1)
    for time in (0.0, 0.3, 0.6, 0.9):
        t = torch.full((40,), time)
        with torch.no_grad():
            errors.append(float((says(mix(picture, noise, t), t) - picture).square().mean()))
    assert errors == pytest.approx([0.012065, 0.011726, 0.009116, 0.001352], rel=1e-3)


def test_an_untrained_painter_paints_the_sketch():
    codes, sketch = torch.randint(5, (3, 2, 2)), torch.rand(3, 1, 8, 8)
    for turbo in (False, True):
        painter = Painter(changed(SMALL, turbo=turbo)).eval()
        for shown in (sketch, sketch.round()):
            painted = paint(painter, codes, shown, steps=7)
            torch.testing.assert_close(painted, shown)
            assert painted.min() >= 0 and painted.max() <= 1, "not even by rounding"


def test_a_turbo_painter_jumps(small):
    codes, sketch = torch.randint(5, (1, 2, 2)), torch.rand(1, 1, 8, 8)
    turbo = Painter(changed(SMALL, turbo=True)).eval()
    turbo.load_state_dict(small.state_dict())
    # With one step both say what the network promises for pure noise.
    torch.testing.assert_close(paint(turbo, codes, sketch, 1), paint(small, codes, sketch, 1))
    assert not torch.allclose(paint(turbo, codes, sketch, 3), paint(small, codes, sketch, 3))
    assert torch.equal(paint(turbo, codes, sketch), paint(turbo, codes, sketch, 3))
    # Two jumps: half of the first picture, half fresh noise of the same generator.
    source, said = generator(4), small.saying(codes, 2 * sketch - 1)
    first, second = (torch.randn(1, 8, 8, generator=source)[None] for _ in range(2))
    with torch.no_grad():
        middle = (said(first, torch.zeros(1)) + second) / 2
        end = said(middle, torch.full((1,), 0.5))
    torch.testing.assert_close(paint(turbo, codes, sketch, 2, seed=4), (end + 1) / 2)


@pytest.mark.parametrize(
    ("codes", "steps", "sentence"),
    [
        (torch.zeros(1, 2, 2, dtype=torch.long), 0, "at least 1 step, got 0"),
        (torch.zeros(1, 4, 4, dtype=torch.long), 1, r"form a \[B, 2, 2\] grid, got \[1, 4, 4\]"),
        (torch.full((1, 2, 2), 5), 1, r"\[0, 5\), got 5 to 5; do they come from another"),
        (torch.full((1, 2, 2), -1), 1, r"got -1 to -1"),
    ],
)
def test_what_cannot_be_painted_is_refused_in_one_sentence(small, codes, steps, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        paint(small, codes, torch.rand(1, 1, 8, 8), steps)
    assert "\n" not in str(caught.value)

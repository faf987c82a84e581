"""The painter: what it is given matters, rows are independent, and what it refuses."""

import pytest
import torch

from minillada import painting
from minillada.config import PainterConfig
from minillada.painter import Painter
from minillada.painting import paint
from minillada.settings import changed

SMALL = PainterConfig(
    image_size=8,
    grid=2,
    codebook_size=5,
    code_dim=8,
    width=8,
    condition_width=8,
    blocks=1,
    painting_steps=3,
)


@pytest.fixture
def small():
    torch.manual_seed(0)
    module = Painter(SMALL)
    for parameter in module.parameters():  # the blocks begin with zeros, which would hide them
        torch.nn.init.normal_(parameter, std=0.2)
    return module.eval()


def test_painting_is_euler_along_the_velocity_that_the_network_says(small):
    codes = torch.randint(5, (2, 2, 2))
    sketch = torch.rand(2, 1, 8, 8)
    painted = paint(small, codes, sketch, steps=4, seed=7)
    x = torch.stack(
        [torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (7, 8)]
    )
    with torch.no_grad():
        for step in range(4):
            t = step / 4
            end = small(x, torch.full((2,), t), codes, 2 * sketch - 1).clamp(-1, 1)
            x = x + 1 / 4 * (end - x) / (1 - t)
    torch.testing.assert_close(painted, (x.clamp(-1, 1) + 1) / 2)
    assert painted.shape == (2, 1, 8, 8)


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


def test_an_untrained_painter_paints_the_sketch():
    codes, sketch = torch.randint(5, (3, 2, 2)), torch.rand(3, 1, 8, 8)
    for turbo in (False, True):
        painter = Painter(changed(SMALL, turbo=turbo)).eval()
        torch.testing.assert_close(paint(painter, codes, sketch, steps=4), sketch)


def test_a_turbo_painter_jumps(small):
    codes, sketch = torch.randint(5, (1, 2, 2)), torch.rand(1, 1, 8, 8)
    turbo = Painter(changed(SMALL, turbo=True)).eval()
    turbo.load_state_dict(small.state_dict())
    # With one step both say what the network promises for pure noise.
    torch.testing.assert_close(paint(turbo, codes, sketch, 1), paint(small, codes, sketch, 1))
    assert not torch.allclose(paint(turbo, codes, sketch, 3), paint(small, codes, sketch, 3))
    assert torch.equal(paint(turbo, codes, sketch), paint(turbo, codes, sketch, 3))


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

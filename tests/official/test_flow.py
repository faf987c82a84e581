"""Both samplers against closed forms and slow loops."""

import pytest
import torch

from minillada.flow import shifted
from minillada.official.flow import SHIFT, euler, turbo


def recorded(velocity, times):
    """The same velocity; the times it is asked for are noted."""

    def noted(x, t):
        times.append(float(t))
        return velocity(x, t)

    return noted


def test_shifted_times():
    # By hand: 0.5 / (0.5 + 6 - 3) = 1/7.
    values = shifted(torch.tensor([0.0, 0.5, 1.0], dtype=torch.double), SHIFT)
    assert values.tolist() == pytest.approx([0, 1 / 7, 1])
    assert (shifted(torch.linspace(0, 1, 50), SHIFT).diff() > 0).all()


def test_fifty_steps_are_forty_nine_evaluations():
    times = []
    euler(recorded(lambda x, t: x, times), torch.zeros(1, 1, 2, 2))
    expected = [i / 49 / (i / 49 + 6 - 6 * i / 49) for i in range(49)]
    assert times == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("steps", [2, 3, 50])
def test_a_constant_velocity_is_followed_exactly(steps):
    noise, picture = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    end = euler(lambda x, t: picture - noise, noise, steps)
    torch.testing.assert_close(end, picture)
    assert end.dtype == torch.float32


def test_growing_states_have_a_closed_form():
    """For dx/dt = x Euler's end is the product of (1 + step), whatever the start."""
    noise = torch.randn(1, 2, 3, 3)
    product = 1.0
    times = [i / 19 / (i / 19 + 6 - 6 * i / 19) for i in range(20)]
    for i in range(19):
        product *= 1 + times[i + 1] - times[i]
    torch.testing.assert_close(euler(lambda x, t: x, noise, 20), product * noise)


def gaussian_velocity(mean, std):
    """The exact velocity where pictures are normal: E[x_1 - x_0 | x_t]."""

    def velocity(x, t):
        variance = (t * std) ** 2 + (1 - t) ** 2
        centred = x - t * mean
        return mean + (t * std**2 - (1 - t)) / variance * centred

    return velocity


def test_the_state_of_euler_is_float32_whatever_the_noise_is():
    noise = torch.randn(1, 1, 2, 2).bfloat16()
    end = euler(lambda x, t: x, noise, 5)
    assert end.dtype == torch.float32
    torch.testing.assert_close(end, euler(lambda x, t: x, noise.float(), 5))


def test_euler_turns_noise_into_the_right_normal_distribution():
    noise = torch.randn(1, 1, 200, 200, generator=torch.Generator().manual_seed(0))
    # The flow of a Gaussian is known: x_1 = mean + std x_0.
    end = euler(gaussian_velocity(2.0, 0.5), noise, 2000)
    torch.testing.assert_close(end, 2.0 + 0.5 * noise, atol=0.02, rtol=0)


def test_turbo_on_a_single_picture_lands_on_it_from_anywhere():
    picture = torch.randn(1, 2, 3, 3, dtype=torch.double)
    times = []
    velocity = recorded(lambda x, t: (picture - x) / (1 - t), times)
    end = turbo(velocity, torch.randn(1, 2, 3, 3))
    torch.testing.assert_close(end, picture)
    assert times == [i / 8 for i in range(8)]
    assert end.dtype == torch.float64


def test_turbo_equals_a_slow_loop():
    """Written from the formulas, number by number, with the noise drawn beforehand."""

    def velocity(x, t):
        return torch.sin(3 * x) + t * x

    noise = torch.randn(1, 1, 2, 3)
    end = turbo(velocity, noise, 5, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    fresh = [torch.randn(1, 1, 2, 3, generator=generator, dtype=torch.double) for _ in range(5)]
    for row in range(2):
        for column in range(3):
            x = float(noise[0, 0, row, column])
            for step in range(5):
                t, later = step / 5, (step + 1) / 5
                v = float(velocity(torch.tensor(x, dtype=torch.double), t))
                promised = x + (1 - t) * v
                x = later * promised + (1 - later) * float(fresh[step][0, 0, row, column])
            assert float(end[0, 0, row, column]) == pytest.approx(x, abs=1e-12)


def test_turbo_keeps_the_distribution_of_a_distilled_model():
    """A perfect consistency model of a Gaussian: from x_t straight to the end of its path."""
    mean, std = 2.0, 0.5

    def velocity(x, t):
        spread = torch.sqrt((t * std) ** 2 + (1 - t) ** 2)
        promised = mean + std * (x - t * mean) / spread
        return (promised - x) / (1 - t)

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 300, 300, generator=generator)
    end = turbo(velocity, noise, 8, generator)
    # 90,000 numbers: the mean is known to 0.5 / 300.
    assert float(end.mean()) == pytest.approx(mean, abs=0.01)
    assert float(end.std()) == pytest.approx(std, abs=0.01)


def test_seeds_decide():
    def velocity(x, t):
        return -x

    noise = torch.randn(1, 1, 2, 2)
    same = [turbo(velocity, noise, 3, torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(same[0], same[1]) and not torch.equal(same[0], same[2])


def test_too_few_steps():
    with pytest.raises(ValueError, match="at least 2 steps"):
        euler(lambda x, t: x, torch.zeros(1, 1, 1, 1), 1)
    with pytest.raises(ValueError, match="at least 1 step"):
        turbo(lambda x, t: x, torch.zeros(1, 1, 1, 1), 0)

"""Flow matching against closed forms: the velocity, its steps, its jumps, and distillation."""

import pytest
import torch

from minillada.flow import consistency_target, euler, jumps, mix, shifted

MEAN, STD = 2.0, 0.5  # pictures of the toy: every pixel is normal, whatever the others are


def gaussian_picture(x, t):
    """E[x_1 | x_t] of the toy at times t `[B]` or `[]`: the mean of a normal that is observed."""
    t = t.reshape(-1, 1, 1, 1)
    variance = (t * STD) ** 2 + (1 - t) ** 2
    return MEAN + t * STD**2 / variance * (x - t * MEAN)


def gaussian_velocity(x, t):
    return (gaussian_picture(x, t) - x) / (1 - t)


def path(x, now, then):
    """Where the toy's flow carries x: the standardised pixel stays the same."""
    now, then = now.reshape(-1, 1, 1, 1), then.reshape(-1, 1, 1, 1)
    spread = [torch.sqrt((t * STD) ** 2 + (1 - t) ** 2) for t in (now, then)]
    return then * MEAN + spread[1] / spread[0] * (x - now * MEAN)


# --- the flow ------------------------------------------------------------------------------------


def test_mixing_starts_as_noise_and_ends_as_the_picture():
    picture, noise = torch.randn(2, 3, 1, 4, 4)
    mixed = mix(picture, noise, torch.tensor([0.0, 1.0, 0.25]))
    assert torch.equal(mixed[0], noise[0]) and torch.equal(mixed[1], picture[1])
    torch.testing.assert_close(mixed[2], 0.25 * picture[2] + 0.75 * noise[2])


def test_the_expected_velocity_of_a_gaussian_has_its_closed_form():
    """E[x_1 - x_0 | x_t], regressed on x_t from samples, is the line that the formula gives."""
    generator = torch.Generator().manual_seed(0)
    noise, picture = torch.randn(2, 400_000, generator=generator, dtype=torch.double)
    picture = MEAN + STD * picture
    for t in (0.0, 0.3, 0.8):
        x = t * picture + (1 - t) * noise
        covariance = torch.stack([x, picture - noise]).cov()
        slope = covariance[0, 1] / covariance[0, 0]
        at = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.double).view(3, 1, 1, 1)
        line = (picture - noise).mean() + slope * (at - x.mean())
        formula = gaussian_velocity(at, torch.tensor(t, dtype=torch.double))
        torch.testing.assert_close(formula, line, atol=0.02, rtol=0)


def test_euler_converges_at_first_order():
    noise = torch.randn(1, 1, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    # The flow of the toy ends at mean + std * noise.
    errors = []
    for steps in (50, 100, 200):
        times = torch.linspace(0, 1, steps + 1, dtype=torch.double)
        end = euler(gaussian_velocity, noise, times)
        errors.append(float((end - (MEAN + STD * noise)).abs().max()))
    # Twice the steps, half the error.
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, abs=0.05)


def test_shifted_times_keep_their_ends_and_their_order():
    times = torch.linspace(0, 1, 9)
    for shift in (0.5, 1.0, 6.0):
        moved = shifted(times, shift)
        assert moved[0] == 0 and moved[-1] == 1 and (moved.diff() > 0).all()
    torch.testing.assert_close(shifted(times, 1.0), times)
    assert (shifted(times, 6.0) <= times).all()


def test_jumps_of_a_perfect_student_keep_the_distribution():
    generator = torch.Generator().manual_seed(0)

    def fresh():
        return torch.randn(1, 1, 300, 300, generator=generator)

    def velocity(x, t):
        return (path(x, t, torch.ones(1)) - x) / (1 - t)

    end = jumps(velocity, fresh(), torch.linspace(0, 1, 5), fresh)
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(end.std()) == pytest.approx(STD, abs=0.01)


# --- distillation --------------------------------------------------------------------------------


def test_the_end_of_the_teachers_path_is_the_fixed_point():
    """A student that says where the teacher's Euler steps end gets itself back as its target."""
    times = torch.linspace(0, 1, 9, dtype=torch.double)

    def ends(x, t):
        place = int((times < float(t[0]) - 1e-9).sum())
        return euler(gaussian_velocity, x, times[place:])

    x = torch.randn(2, 1, 4, 4, dtype=torch.double)
    for place in range(8):
        now, then = times[place].expand(2), times[place + 1].expand(2)
        wanted = consistency_target(ends, gaussian_picture, x, now, then)
        torch.testing.assert_close(wanted, ends(x, now))
        # No other student is one: the teacher itself says the mean of all ends.
        if place < 7:
            other = consistency_target(gaussian_picture, gaussian_picture, x, now, then)
            assert (other - gaussian_picture(x, now)).abs().max() > 1e-3


def test_the_teacher_leads_every_row_in_steps_of_its_own():
    x = torch.randn(3, 1, 4, 4, dtype=torch.double, requires_grad=True)
    now = torch.tensor([0.0, 0.25, 0.5], dtype=torch.double)
    then = torch.tensor([0.5, 1.0, 0.625], dtype=torch.double)

    def student(x, t):
        return 3 * x + t.view(-1, 1, 1, 1)

    for substeps in (1, 2, 3):
        wanted = consistency_target(student, gaussian_picture, x, now, then, substeps)
        assert not wanted.requires_grad
        for row in range(3):
            times = torch.linspace(float(now[row]), float(then[row]), substeps + 1).double()
            end = euler(gaussian_velocity, x[row], times)[0]
            said = 3 * end + then[row] if then[row] < 1 else end
            torch.testing.assert_close(wanted[row], said)


def test_a_target_at_the_end_is_the_teachers_point_whatever_the_student_says():
    x, now, then = torch.randn(2, 1, 4, 4), torch.tensor([0.75, 0.75]), torch.ones(2)

    def nonsense(x, t):
        return torch.full_like(x, 99.0)

    wanted = consistency_target(nonsense, gaussian_picture, x, now, then)
    torch.testing.assert_close(wanted, gaussian_picture(x, now))

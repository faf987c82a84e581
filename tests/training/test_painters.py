"""How painters learn: what they are shown, what counts as an error, and runs of a few steps."""

import pytest
import torch

from minillada import checkpoint
from minillada.datasets.images import Images
from minillada.flow import consistency_target
from minillada.painter import Painter
from minillada.presets import get_preset
from minillada.settings import changed
from minillada.training import train
from minillada.training.loop import fit, step_generator
from minillada.training.painters import (
    Lesson,
    energy_distance,
    moved,
    painter_loss,
    quarters,
    turbo_loss,
)
from minillada.vq import ImageTokenizer

PRESET = changed(get_preset("mnist-painter"), batch_size=4, steps=3, width=8, condition_width=8)
TURBO = changed(PRESET, turbo=True, painting_steps=4)
SPREAD = changed(TURBO, spread_weight=4.0)


@pytest.fixture(scope="module")
def tokenizer():
    return checkpoint.load_model("mnist-tokenizer", ImageTokenizer)[0]


@pytest.fixture(scope="module")
def images():
    pixels = torch.randint(256, (16, 1, 32, 32), generator=torch.Generator().manual_seed(0))
    return Images(pixels.byte(), torch.zeros(16, dtype=torch.long))


@pytest.fixture(scope="module")
def teacher(images):
    return train.load_teacher("mnist-features", images, "cpu")[0]


def generator():
    return torch.Generator().manual_seed(1)


def test_a_batch_holds_pictures_their_codes_and_what_the_decoder_makes_of_them(tokenizer, images):
    preset = changed(PRESET, unconditional_rate=0.0)
    batch = Lesson(preset, tokenizer, images, None).batch(Painter(PRESET.model), 0, generator())
    shown = (batch.picture + 1) / 2
    assert torch.equal(tokenizer.encode(shown), batch.codes)
    torch.testing.assert_close(2 * tokenizer.decode(batch.codes) - 1, batch.sketch)
    assert batch.noise.shape == batch.picture.shape == (4, 1, 32, 32)


def test_some_batches_lack_codes_and_some_images_are_mirrored(tokenizer, images):
    preset = changed(PRESET, unconditional_rate=1.0, mirrored=True, batch_size=16)
    batch = Lesson(preset, tokenizer, images, None).batch(Painter(PRESET.model), 0, generator())
    assert (batch.codes == PRESET.model.codebook_size).all() and (batch.sketch == 0).all()
    plain = Lesson(changed(preset, mirrored=False), tokenizer, images, None)
    straight = plain.batch(Painter(PRESET.model), 0, generator()).picture
    same = [torch.equal(*pair) for pair in zip(batch.picture, straight)]
    mirrored = [torch.equal(*pair) for pair in zip(batch.picture, straight.flip(-1))]
    assert sum(same) + sum(mirrored) == 16 and 4 <= sum(mirrored) <= 12


def test_equal_pictures_have_no_feature_error_and_others_have_one(tokenizer, images, teacher):
    lesson = Lesson(PRESET, tokenizer, images, teacher)
    picture, other = 2 * images.floats(slice(0, 4)) - 1, 2 * images.floats(slice(4, 8)) - 1
    assert lesson.errors(picture, picture)[0] == 0 < lesson.errors(other, picture)[0]
    # Without a classifier nothing is added to a loss.
    assert Lesson(PRESET, tokenizer, images, None).errors(other, picture)[0] == 0


def test_errors_are_those_of_their_formulas(tokenizer, images, teacher):
    """The first: shares of the wanted features. The second: of features, pixels and squares."""
    lesson = Lesson(SPREAD, tokenizer, images, teacher)
    shown = images.floats(slice(0, 8))
    for ours, stage in zip(lesson.features(2 * shown - 1), teacher.stages(shown), strict=True):
        torch.testing.assert_close(ours.flatten(1), stage.flatten(1))
    picture, said = 2 * shown - 1, 2 * images.floats(slice(8, 16)) - 1
    found, right = lesson.features(said), lesson.features(picture)
    shares = [(a - b).square().mean() / b.square().mean() for a, b in zip(found, right)]
    found.append(torch.cat([said, said**2], 1))
    right.append(torch.cat([picture, picture**2], 1))
    apart = [energy_distance(quarters(a), quarters(b)) for a, b in zip(found, right)]
    wanted = torch.stack(shares).mean(), torch.stack(apart).mean()
    torch.testing.assert_close(lesson.errors(said, picture), wanted)


def restless(model, seed=0):
    """A painter whose last layers, which begin with zeros, are random."""
    torch.manual_seed(seed)
    painter = Painter(model).eval()
    torch.nn.init.normal_(painter.leave[2].weight, std=0.1)
    return painter


@torch.no_grad()
def test_flow_matching_is_the_squared_error_of_the_velocity(tokenizer, images, teacher):
    """The velocity of what is said is (said - x) / (1 - t), the right one picture - noise."""
    preset = changed(PRESET, batch_size=16, feature_weight=3.0)
    painter, lesson = restless(preset.model), Lesson(preset, tokenizer, images, teacher)
    source = step_generator(preset.training.seed, 1)
    picture, noise, codes, sketch = lesson.batch(painter, 1, source)
    t = torch.rand(16, generator=source)
    x = t.view(-1, 1, 1, 1) * picture + (1 - t).view(-1, 1, 1, 1) * noise
    said = painter(x, t, codes, sketch)
    wrong = (said - x) / (1 - t).view(-1, 1, 1, 1) - (picture - noise)
    # Near the end an error of the picture counts at most a hundredfold.
    squared = wrong.square().mean((1, 2, 3)) * ((1 - t) / 0.1).clamp_max(1).square()
    assert (t > 0.9).any()
    value, metrics = painter_loss(painter, lesson)(1)
    assert metrics["velocity"] == pytest.approx(float(squared.mean()), rel=1e-3)
    assert metrics["features"] == pytest.approx(float(lesson.errors(said, picture)[0]), rel=1e-3)
    assert float(value) == pytest.approx(metrics["velocity"] + 3 * metrics["features"], rel=1e-4)


@torch.no_grad()
def test_a_turbo_painter_must_say_what_it_says_at_its_next_jump(tokenizer, images, teacher):
    """Four steps of the source lead there; features are compared with the real picture."""
    preset = changed(SPREAD, batch_size=16, feature_weight=3.0)
    painter, source = restless(preset.model), restless(PRESET.model, 1)
    lesson = Lesson(preset, tokenizer, images, teacher)
    chances = step_generator(preset.training.seed, 0)
    picture, noise, codes, sketch = lesson.batch(painter, 0, chances)
    now = torch.randint(4, (16,), generator=chances) / 4
    x = now.view(-1, 1, 1, 1) * picture + (1 - now).view(-1, 1, 1, 1) * noise
    says = painter.saying(codes, sketch), source.saying(codes, sketch)
    said = painter(x, now, codes, sketch)
    wanted = consistency_target(*says, x, now, now + 1 / 4, 4)
    features, spread = lesson.errors(*moved(torch.cat([said, picture]), chances).chunk(2))
    parts = [(said - wanted).square().mean(), features, spread]
    value, metrics = turbo_loss(painter, source, lesson)(0)
    assert list(metrics.values()) == pytest.approx([float(part) for part in parts], rel=1e-3)
    assert float(value) == pytest.approx(float(parts[0] + 3 * features + 4 * spread), rel=1e-4)


def test_the_energy_distance_is_that_of_its_formula():
    a, b = torch.randn(5, 3, generator=generator()), torch.randn(7, 3, generator=generator()) + 1
    x, y = a / b.std(0) / 3**0.5, b / b.std(0) / 3**0.5
    between = [(p - q).norm() for p in x for q in y]
    inside = [[(p - q).norm() for p in z for q in z if p is not q] for z in (list(x), list(y))]
    wanted = 2 * sum(between) / 35 - sum(inside[0]) / 20 - sum(inside[1]) / 42
    torch.testing.assert_close(energy_distance(a, b), wanted, rtol=1e-3, atol=1e-3)


def test_what_is_spread_alike_has_no_energy_distance_and_a_blurred_mean_has_one():
    a, b = torch.randn(2, 2000, 4, generator=generator())
    assert abs(energy_distance(a, b)) < 0.01
    # The single best answer to all of b is its mean. It has the least squared error, and no spread.
    assert energy_distance(b.mean(0).expand_as(b), b) > 0.3
    assert energy_distance(a + 1, b) > 0.3
    # Where rows are equal, a distance has no slope; the gradient stays a number.
    same = torch.zeros(4, 4, requires_grad=True)
    energy_distance(same, b[:4]).backward()
    assert same.grad.isfinite().all()


def test_quarters_are_means_over_halves_of_both_sides():
    x = torch.randn(2, 3, 4, 6, generator=generator())
    wanted = [x[:, :, i : i + 2, j : j + 3].mean((2, 3)) for i in (0, 2) for j in (0, 3)]
    torch.testing.assert_close(quarters(x).view(2, 3, 4), torch.stack(wanted, -1))
    assert torch.equal(quarters(x[:, :, :1, :1]), x[:, :, 0, 0])  # a feature without places


def test_a_contrast_that_is_too_strong_is_seen_in_the_spread(tokenizer, images, teacher):
    lesson = Lesson(SPREAD, tokenizer, images, teacher)
    picture = 2 * images.floats(slice(0, 16)) - 1
    assert (
        lesson.errors(picture, picture)[1] < lesson.errors((1.5 * picture).clamp(-1, 1), picture)[1]
    )


def test_a_batch_is_moved_as_a_whole():
    numbers = torch.arange(64.0).view(1, 1, 8, 8)
    pair = moved(torch.cat([numbers, numbers + 100]), generator())
    assert torch.equal(pair[0] + 100, pair[1]) and pair.shape == (2, 1, 8, 8)


@pytest.mark.parametrize("preset", [PRESET, TURBO, SPREAD])
def test_both_losses_fall_and_reach_every_weight(preset, tokenizer, images, teacher):
    torch.manual_seed(0)
    painter, source = Painter(preset.model), Painter(PRESET.model).eval()
    # The last layers begin with zeros, and so would the gradients of all others.
    for block in (*painter.down, *painter.middle, *painter.up):
        torch.nn.init.normal_(block.last.weight, std=0.1)
    torch.nn.init.normal_(painter.leave[2].weight, std=0.1)
    lesson = Lesson(changed(preset, unconditional_rate=0.5), tokenizer, images, teacher)
    loss = (
        painter_loss(painter, lesson) if preset is PRESET else turbo_loss(painter, source, lesson)
    )
    value, _ = loss(0)
    value.backward()
    assert not [name for name, weight in painter.named_parameters() if weight.grad is None]
    records = fit(painter, loss, changed(preset.training, steps=40, learning_rate=3e-3))
    # Times are random, and so are single losses.
    values = torch.tensor([record["loss"] for record in records])
    assert values[-10:].mean() < values[:10].mean()


def test_a_painter_starts_from_the_codebook_and_a_turbo_painter_from_its_source(tokenizer):
    painter = train.new_model(PRESET, "cpu", tokenizer)
    assert torch.equal(painter.embedding.weight[:-1], tokenizer.embedding)
    turbo = train.new_model(TURBO, "cpu", tokenizer, painter)
    for name, value in turbo.state_dict().items():
        assert torch.equal(value, painter.state_dict()[name])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tokenizer": None}, "needs an image tokenizer"),
        ({"grid": 8}, "grid of the painter is 8, but mnist-tokenizer has 4; set grid to 4"),
        ({"codebook_size": 9}, "codebook_size of the painter is 9, but mnist-tokenizer has 512"),
        ({"turbo": True}, "is distilled; name its painter with --set source=NAME"),
        ({"spread_weight": 1.0}, "only turbo painters learn how pictures spread"),
        (
            {"turbo": True, "source": "mnist-painter", "spread_weight": 1.0, "batch_size": 1},
            "one picture has no spread; set batch_size to 2 or more",
        ),
        ({"source": "mnist-painter"}, "only turbo painters have a source; leave it out"),
        (
            {"turbo": True, "source": "mnist-painter-turbo"},
            "mnist-painter-turbo is a turbo painter; name the one it was distilled from",
        ),
        (
            {"turbo": True, "source": "mnist-painter"},
            "width of the painter is 8, but mnist-painter has 32; set width to 32",
        ),
        (
            {"turbo": True, "source": "mnist-painter", "tokenizer": "mnist-tokenizer-pixels"},
            "mnist-painter paints other codes than those of mnist-tokenizer-pixels",
        ),
        ({"teacher": None}, "feature_weight needs a classifier; .* teacher=NAME, or set it to 0"),
        ({"teacher": "cifar-features"}, "channels of cifar-features is 3, but the images have 1"),
        ({"dataset": "cifar10"}, "channels is 1, but the images have 3"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(changes, sentence, tmp_path):
    if "dataset" in changes:
        pytest.importorskip("minillada.datasets.cifar10")
        from minillada.files import DATA_DIR

        if not (DATA_DIR / "cifar10" / "cifar10.safetensors").exists():
            pytest.skip("needs the whole of CIFAR-10")
    with pytest.raises(ValueError, match=sentence):
        train.train(changed(PRESET, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()

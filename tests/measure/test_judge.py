"""The judge's pieces, its augmentation as known geometry, and the shipped judge itself."""

import math

import pytest
import torch
from helpers import generator, mnist_test_images, real_images, tiny_judge

from minillada import checkpoint
from minillada.config import JudgeConfig
from minillada.measure.judge import Judge, augment, flip_and_shift
from minillada.measure.whitened import MatrixConv, Whitening


def test_classify_is_the_argmax_of_the_head_on_the_features():
    model, images = tiny_judge(), real_images(9).floats()
    with torch.no_grad():
        logits = model(images)
        features = model.features(images)
    assert features.shape == (9, 6) and logits.shape == (9, 10)
    assert torch.allclose(features @ model.head.weight.T + model.head.bias, logits, atol=1e-5)
    assert torch.equal(model.classify(images), logits.argmax(1))


def test_features_do_not_depend_on_the_batch_size():
    model, images = tiny_judge(), real_images(9).floats()
    assert torch.allclose(model.features(images, batch_size=2), model.features(images), atol=1e-5)


def test_one_image_and_bytes_are_refused_and_float64_is_read():
    model, images = tiny_judge(), real_images(9)
    for wrong in (images.floats()[0], images.pixels):
        with pytest.raises(ValueError, match=r"must be floats .* write image\[None\]"):
            model.classify(wrong)
    assert torch.equal(model.classify(images.floats().double()), model.classify(images.floats()))


def test_loss_is_cross_entropy_of_augmented_copies():
    model, images = tiny_judge(), real_images(16)
    loss, metrics = model.loss(images.floats(), images.labels, generator(3))
    logits = model(augment(images.floats(), generator(3)))
    by_hand = -torch.stack(
        [row.log_softmax(0)[label] for row, label in zip(logits, images.labels, strict=True)]
    ).mean()
    assert float(loss.detach()) == pytest.approx(float(by_hand.detach()), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(
        float((logits.argmax(1) == images.labels).float().mean())
    )
    other, _ = model.loss(images.floats(), images.labels, generator(4))
    assert float(other.detach()) != float(loss.detach())


def test_no_augmentation_is_the_identity():
    images = real_images(3).floats()
    assert torch.allclose(
        augment(images, generator(), degrees=0, zoom=0, shift=0), images, atol=1e-5
    )


def fixed(monkeypatch, *u):
    """Make every random number of `augment` the given one in [−1, 1]: angle, scale, two shifts."""
    monkeypatch.setattr(
        torch,
        "rand",
        lambda rows, count, generator: (torch.tensor(u)[:, None].expand(4, count) + 1) / 2,
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_shift_by_hand(monkeypatch, sign):
    fixed(monkeypatch, 0.0, 0.0, sign, 0.0)
    images = real_images(2).floats()
    moved = augment(
        images, generator(), degrees=0, zoom=0, shift=0.25
    )  # a quarter of 16 px: the picture is read 4 px aside
    assert torch.allclose(
        moved[..., 6:26, 6:26], images.roll(-int(4 * sign), 3)[..., 6:26, 6:26], atol=1e-4
    )


def test_rotation_by_hand(monkeypatch):
    fixed(monkeypatch, 1.0, 0.0, 0.0, 0.0)
    images = real_images(2).floats()
    assert torch.allclose(
        augment(images, generator(), degrees=90, zoom=0), images.rot90(1, (2, 3)), atol=1e-4
    )


def test_zoom_by_hand(monkeypatch):
    fixed(monkeypatch, 0.0, 1.0, 0.0, 0.0)
    image = torch.zeros(1, 1, 32, 32)
    image[..., 8:24, 8:24] = 1
    assert float(augment(image, generator(), zoom=1.0).sum()) == pytest.approx(
        64, rel=0.15
    )  # half the side: a quarter of the area


def test_augmentation_draws_every_image_its_own():
    image = real_images(1).floats().repeat(6, 1, 1, 1)
    copies = augment(image, generator())
    assert len({tuple(c.flatten().tolist()) for c in copies}) == 6
    assert torch.equal(copies, augment(image, generator())) and math.isclose(
        float(copies.min()), 0, abs_tol=1e-6
    )


@pytest.mark.skipif(not checkpoint.shipped("mnist-judge"), reason="the shipped judge is not there")
def test_the_shipped_judge_knows_digits():
    """On the first 1,000; `minillada evaluate` measures all 10,000."""
    model, info = checkpoint.load_model("mnist-judge", Judge)
    images = mnist_test_images()
    right = model.classify(images.floats(slice(0, 1000))) == images.labels[:1000]
    assert float(right.float().mean()) >= 0.993
    assert info["parameters"] == sum(p.numel() for p in model.parameters())


# --- photographs ---------------------------------------------------------------------------------


def photo_judge(**changes) -> Judge:
    torch.manual_seed(0)
    values = dict(channels=3, width=4, features=16, whitened=True, flips=True)
    return Judge(JudgeConfig(**values | changes)).eval()


def test_whitening_makes_patches_uncorrelated():
    torch.manual_seed(0)
    images = torch.rand(40, 3, 8, 8).cumsum(-1) / 8  # neighbours are alike
    layer = Whitening(3)
    layer.fit(images, eps=0.0)
    numbers = layer(images)[:, :12].transpose(0, 1).flatten(1)  # [12, N]: without the opposites
    assert torch.allclose(numbers.cov(correction=0), torch.eye(12), atol=1e-3)
    assert torch.equal(layer.kernel[12:], -layer.kernel[:12])


def test_a_convolution_with_a_matrix_is_a_convolution():
    torch.manual_seed(0)
    ours, theirs = MatrixConv(5, 7), torch.nn.Conv2d(5, 7, 3, padding=1, bias=False)
    theirs.weight.data = ours.weight.data.view(7, 5, 3, 3)
    x = torch.randn(2, 5, 6, 6)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)
    assert ours.weight.ndim == 2  # so that Muon takes it


def test_a_mirrored_photo_shows_the_same():
    judge, images = photo_judge(), torch.rand(6, 3, 32, 32)
    judge.prepare(images)
    assert judge.features(images).shape == (6, 16)
    assert torch.equal(judge.classify(images), judge.classify(images.flip(-1)))


def test_stages_end_with_the_features():
    judge, images = photo_judge(), torch.rand(2, 3, 32, 32)
    judge.prepare(images)
    stages = judge.stages(images)
    assert [tuple(stage.shape) for stage in stages] == [
        (2, 4, 15, 15), (2, 8, 7, 7), (2, 16, 3, 3), (2, 16)
    ]  # fmt: skip
    assert torch.equal(stages[-1], judge.features(images))
    plain = tiny_judge()
    assert torch.equal(plain.stages(images[:, :1])[-1], plain.features(images[:, :1]))


def test_photos_are_flipped_and_moved_within_their_frame():
    images = torch.arange(32.0).expand(16, 3, 32, 32)
    moved = flip_and_shift(images, generator(3))
    assert moved.shape == images.shape and torch.isin(moved, images).all()
    # Each row is the first one or its mirror image.
    steps = moved[:, 0, 0].diff(dim=-1)[:, 5:-5]
    assert set(steps.mean(1).tolist()) == {1.0, -1.0}


def test_a_whitened_body_says_how_many_features_it_has():
    with pytest.raises(ValueError, match="has 16 features, not 5"):
        photo_judge(features=5)

"""Lookup against brute force, the codebook's update by hand, and the losses as explicit loops."""

import math

import numpy
import pytest
import torch
import torch.nn.functional as F
from helpers import few, generator, real_images, tiny_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from minillada import checkpoint
from minillada.config import TokenizerConfig
from minillada.measure.codebook import codebook_usage
from minillada.training.recipes import image_tokenizer_loss
from minillada.vq import (
    CaptionTower,
    Codebook,
    ImageTokenizer,
    ResidualBlock,
    Tokenizer,
    check_image_codes,
)


def codebook(size: int = 6, dim: int = 4, seed: int = 0) -> Codebook:
    torch.manual_seed(seed)
    return Codebook(size, dim)


# --- lookup --------------------------------------------------------------------------------------


@few
@given(seed=st.integers(0, 999), size=st.integers(1, 9))
def test_nearest_code_by_cosine_is_brute_force(seed, size):
    book = codebook(size, 4, seed)
    features = torch.randn(2, 4, 3, 2, generator=generator(seed)) * torch.logspace(
        -2, 2, 2
    )  # lengths differ a lot
    quantised = book(features)
    for b in range(2):
        for i in range(3):
            for j in range(2):
                x = features[b, :, i, j]
                cosines = [float(x @ e / (x.norm() * e.norm())) for e in book.embedding]
                distances = [float((x / x.norm() - e).norm()) for e in book.embedding]
                code = int(quantised.codes[b, i, j])
                assert cosines[code] == pytest.approx(max(cosines), abs=1e-6)
                assert distances[code] == pytest.approx(
                    min(distances), abs=1e-5
                )  # the same code: both are unit vectors
                assert torch.allclose(
                    quantised.vectors[b, :, i, j], book.embedding[code], atol=1e-6
                )
                assert torch.allclose(quantised.features[b, :, i, j], x / x.norm(), atol=1e-6)


def test_gradient_passes_straight_through():
    book, direction = codebook(), torch.randn(1, 4, 2, 2, generator=generator(1))
    features = torch.randn(1, 4, 2, 2, generator=generator(2), requires_grad=True)
    through = torch.autograd.grad((book(features).vectors * direction).sum(), features)[0]
    around = torch.autograd.grad((F.normalize(features, dim=1) * direction).sum(), features)[0]
    assert torch.allclose(through, around, atol=1e-6) and through.abs().sum() > 0.1


# --- update --------------------------------------------------------------------------------------


def unit_features(count: int, dim: int = 4, seed: int = 0) -> torch.Tensor:
    """`[1, dim, count, 1]`"""
    return F.normalize(torch.randn(1, dim, count, 1, generator=generator(seed)), dim=1)


def test_moving_average_update_by_hand():
    book, features = codebook(3), unit_features(5)
    codes = torch.tensor([0, 0, 2, 0, 2]).view(1, 5, 1)
    sums, counts = book.sums.numpy().copy(), book.counts.numpy().copy()
    flat = features[0, :, :, 0].T.numpy()
    assert (
        book.update(features, codes, generator()) == 0
    )  # after one step nobody is dead: 0.99 > 0.02 * 5/3
    for code, members in ((0, [0, 1, 3]), (1, []), (2, [2, 4])):
        counts[code] = 0.99 * counts[code] + 0.01 * len(members)
        sums[code] = 0.99 * sums[code] + 0.01 * flat[members].sum(0)
    numpy.testing.assert_allclose(book.counts.numpy(), counts, rtol=1e-6)
    numpy.testing.assert_allclose(book.sums.numpy(), sums, rtol=1e-5)
    numpy.testing.assert_allclose(
        book.embedding.numpy(), sums / numpy.linalg.norm(sums, axis=1, keepdims=True), rtol=1e-5
    )


def test_every_place_of_the_grid_moves_its_own_code():
    """Images of a grid do what a list of their places does; the last code is used by none."""
    grid = F.normalize(torch.randn(2, 4, 2, 3, generator=generator(6)), dim=1).bfloat16()
    codes = torch.randint(5, (2, 2, 3), generator=generator(7))
    places = [grid[b, :, i, j] for b in range(2) for i in range(2) for j in range(3)]
    one, other = codebook(), codebook()
    one.update(grid.requires_grad_(), codes, generator())
    other.update(torch.stack(places, 1)[None, :, :, None], codes.view(1, 12, 1), generator())
    assert torch.allclose(one.sums, other.sums) and torch.equal(one.counts, other.counts)
    assert one.sums.dtype == torch.float32 and not one.sums.requires_grad


def test_codes_converge_to_the_mean_direction_of_their_features():
    book, features = codebook(2, seed=3), unit_features(8)
    codes = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0]).view(1, 8, 1)
    for step in range(1200):
        book.update(features, codes, generator(step))
    flat = features[0, :, :, 0].T
    for code in range(2):
        assert torch.allclose(
            book.embedding[code],
            F.normalize(flat[codes.flatten() == code].mean(0), dim=0),
            atol=1e-3,
        )


def test_dead_codes_restart_at_features_of_the_batch():
    book, features = codebook(4), unit_features(12)
    codes = torch.zeros(1, 12, 1, dtype=torch.long)
    codes[0, :2] = 3
    average_use = 12 / 4
    dead = 0.02 * average_use
    book.counts.copy_(
        torch.tensor([1.0, dead * 1.02, dead * 1.005, 0.0])
    )  # 1 stays just alive; 2 drops below; 3 is used again
    before = book.embedding.clone()
    revived = book.update(features, codes, generator(5))
    # After decay: 1.02 * 0.99 > 1 lives, 1.005 * 0.99 < 1 is dead, 0.01 * 2 < 0.06 is dead.
    assert revived == 2
    chosen = torch.randint(12, (2,), generator=generator(5))
    assert torch.allclose(book.embedding[[2, 3]], features[0, :, chosen, 0].T, atol=1e-6)
    assert book.counts[[2, 3]].tolist() == [average_use] * 2
    assert torch.allclose(book.sums[[2, 3]], features[0, :, chosen, 0].T * average_use, atol=1e-6)
    assert torch.allclose(book.embedding[1], before[1], atol=1e-6)


def test_without_revival_codes_die_and_with_it_they_serve():
    """All codes start in one place: moving averages alone would hardly move most of them."""
    book = codebook(16, 8, 1)
    torch.manual_seed(0)
    book.embedding.copy_(F.normalize(torch.ones(8) + 0.01 * torch.randn(16, 8), dim=-1))
    book.sums.copy_(book.embedding)
    spread = F.normalize(torch.randn(1, 8, 256, 1, generator=generator(4)), dim=1)
    start = codebook_usage(book(spread).codes, 16)[0]
    revived = sum(book.update(spread, book(spread).codes, generator(s)) for s in range(700))
    assert revived > 0 and codebook_usage(book(spread).codes, 16)[0] > max(0.9, start)


# --- alignment -----------------------------------------------------------------------------------


def test_alignment_loss_is_the_double_loop():
    torch.manual_seed(0)
    tower = CaptionTower(
        TokenizerConfig(image_size=8, patch_size=4, code_dim=3, caption_vocab_size=20)
    )
    with torch.no_grad():
        tower.log_scale.fill_(0.7)
        tower.bias.fill_(-0.4)
    vectors = torch.randn(4, 3, 2, 2, generator=generator(1))
    # id 0 fills up shorter captions and is left out of the mean
    caption_ids = torch.randint(1, 20, (5, 6), generator=generator(2))
    caption_ids[0, 2:] = caption_ids[3, 5:] = 0
    index = torch.tensor([0, 4, 2, 2])
    image = tower.image(vectors.reshape(4, -1))
    total = 0.0
    for b in range(4):
        for n in range(5):
            pieces = torch.stack([tower.pieces.weight[i] for i in caption_ids[n] if i > 0]).mean(0)
            text = tower.text(pieces)
            cosine = (image[b] @ text / (image[b].norm() * text.norm())).item()
            z = math.exp(0.7) * cosine - 0.4
            total += math.log1p(math.exp(-z if index[b] == n else z))  # −log σ(±z)
    loss = tower(vectors, caption_ids, index)
    assert float(loss.detach()) == pytest.approx(total / 4, rel=1e-4)


def test_alignment_starts_at_the_temperature_and_bias_of_siglip():
    tower = CaptionTower(TokenizerConfig())
    assert (
        float(tower.log_scale.detach().exp()) == pytest.approx(10)
        and float(tower.bias.detach()) == -10
    )


def caption_batch(count: int = 8):
    images = real_images(count).floats()
    return (
        images,
        torch.randint(1, 384, (5, 7), generator=generator(1)),
        torch.randint(5, (count,), generator=generator(2)),
    )


def encoder_gradient(tokenizer, batch) -> torch.Tensor:
    loss, _ = image_tokenizer_loss(tokenizer, *batch, generator())
    tokenizer.zero_grad()
    loss.backward()
    return tokenizer.encoder[0].weight.grad.clone()


def test_alignment_reaches_the_encoder_and_scales_with_its_weight():
    batch = caption_batch()
    gradients = [
        encoder_gradient(tiny_tokenizer(alignment_weight=w), batch) for w in (1e-9, 1.0, 2.0)
    ]
    pull = gradients[1] - gradients[0]
    assert pull.abs().max() > 1e-5
    assert torch.allclose(
        gradients[2] - gradients[0], 2 * pull, atol=1e-4 * float(pull.abs().max()) + 1e-7
    )


def test_pixels_alone_build_no_tower():
    tokenizer = tiny_tokenizer(alignment_weight=0.0)
    assert not hasattr(tokenizer, "tower")
    _, parts = image_tokenizer_loss(tokenizer, *caption_batch(), generator())
    assert "alignment" not in parts


# --- the whole tokenizer -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_size", "patch_size", "channels"), [(32, 8, 1), (32, 4, 3), (16, 2, 1), (8, 8, 1)]
)
def test_shapes_and_ranges(image_size, patch_size, channels):
    tokenizer = tiny_tokenizer(image_size=image_size, patch_size=patch_size, channels=channels)
    grid = image_size // patch_size
    images = torch.rand(2, channels, image_size, image_size, generator=generator())
    codes = tokenizer.encode(images)
    assert (
        codes.shape == (2, grid, grid)
        and codes.dtype == torch.int64
        and codes.min() >= 0
        and codes.max() < 16
    )
    pixels = tokenizer.decode(codes)
    assert pixels.shape == images.shape and pixels.min() >= 0 and pixels.max() <= 1
    assert not pixels.requires_grad
    assert tokenizer.config.tokens == grid**2


def test_a_deeper_block_goes_on_as_it_was():
    x, deep, shallow = torch.randn(2, 8, 4, 4), ResidualBlock(8, 3), ResidualBlock(8)
    shallow.net.load_state_dict(deep.net.state_dict())
    with torch.no_grad():
        assert torch.equal(deep(x), shallow(x)) and not torch.equal(deep(x), x)
        for parameter in deep.parameters():
            parameter.normal_(std=0.2)
        expected = x
        for pair in (deep.net, deep.more[0], deep.more[1]):
            expected = expected + pair(expected)
        torch.testing.assert_close(deep(x), expected)


def test_decode_is_what_training_decodes():
    """Codes alone carry everything: they decode to the picture that the loss compared."""
    tokenizer, images = tiny_tokenizer(), real_images(4).floats()
    with torch.no_grad():
        trained = tokenizer.decoder(tokenizer.codebook(tokenizer.encoder(images)).vectors)
        assert torch.allclose(tokenizer.decode(tokenizer.encode(images)), trained, atol=1e-5)


def test_loss_and_gradient_are_the_sum_of_the_parts():
    tokenizer, (images, captions, index) = (
        tiny_tokenizer(edge_weight=0.7, alignment_weight=0.2),
        caption_batch(),
    )
    features = F.normalize(tokenizer.encoder(images), dim=1)
    codes = tokenizer.encode(images)
    vectors = tokenizer.codebook.embedding[codes].permute(0, 3, 1, 2)
    through = features + (vectors - features).detach()
    output = tokenizer.decoder(through)
    squared = (output - images).pow(2).mean()
    down = (
        ((output[:, :, 1:] - output[:, :, :-1]) - (images[:, :, 1:] - images[:, :, :-1]))
        .abs()
        .mean()
    )
    right = (
        ((output[..., 1:] - output[..., :-1]) - (images[..., 1:] - images[..., :-1])).abs().mean()
    )
    commit = (features - vectors).pow(2).mean()
    alignment = tokenizer.tower(through, captions, index)
    expected = squared + 0.7 * (down + right) + commit + 0.2 * alignment
    loss, parts = image_tokenizer_loss(tokenizer, images, captions, index, generator())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert parts["psnr_db"] == pytest.approx(-10 * math.log10(squared.item()), abs=1e-3)
    assert parts["commit"] == pytest.approx(commit.item(), rel=1e-4)
    assert parts["alignment"] == pytest.approx(alignment.item(), rel=1e-4)
    slow, fast = (torch.autograd.grad(x, list(tokenizer.parameters())) for x in (expected, loss))
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, atol=1e-6 + 1e-4 * float(b.abs().max()))


def test_only_training_moves_the_codebook():
    tokenizer, batch = tiny_tokenizer(), caption_batch()
    before = tokenizer.codebook.sums.clone()
    assert "revived" not in image_tokenizer_loss(tokenizer, *batch, generator())[1]
    tokenizer.encode(batch[0])
    assert torch.equal(tokenizer.codebook.sums, before)
    tokenizer.train()
    assert "revived" in image_tokenizer_loss(tokenizer, *batch, generator())[1]
    assert not torch.equal(tokenizer.codebook.sums, before)
    assert not any("codebook" in name for name, _ in tokenizer.named_parameters()), (
        "moved by average, not by gradient"
    )


def test_a_few_steps_of_training_help():
    tokenizer, batch = tiny_tokenizer().train(), caption_batch(8)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), 5e-3)
    losses = []
    for step in range(20):
        loss, _ = image_tokenizer_loss(tokenizer, *batch, generator(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# --- inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patch", "image"), [(6, 36), (64, 32), (8, 28)])
def test_patch_size_must_be_a_power_of_two_that_divides_the_image(patch, image):
    with pytest.raises(ValueError, match=f"a power of 2 dividing image_size, not {patch}"):
        ImageTokenizer(TokenizerConfig(patch_size=patch, image_size=image))


good = torch.zeros(2, 1, 32, 32)


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (
            torch.zeros(2, 1, 28, 28),
            r"images must have shape \[B, 1, 32, 32\], got \[2, 1, 28, 28\]",
        ),
        (torch.zeros(2, 3, 32, 32), "images must have shape"),
        (torch.zeros(32, 32), "images must have shape"),
        (torch.zeros(1, 32, 32), "images must have shape"),
        (good + 1.01, r"finite and in \[0, 1\]"),
        (good - 0.01, r"finite and in \[0, 1\]"),
        (good * math.nan, r"finite and in \[0, 1\]"),
        (good.index_fill(0, torch.tensor([1]), math.inf), r"finite and in \[0, 1\]"),
        (good.to(torch.uint8), "must be floats"),
        (good.long(), "must be floats"),
    ],
)
def test_bad_images_are_refused(images, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_tokenizer().encode(images)


@pytest.mark.parametrize(
    ("codes", "sentence"),
    [
        (
            torch.zeros(2, 4, 5, dtype=torch.long),
            r"codes must form a \[B, 4, 4\] grid, got \[2, 4, 5\]",
        ),
        (torch.zeros(2, 16, dtype=torch.long), "grid, got"),
        (torch.zeros(4, 4, dtype=torch.long), "grid, got"),
        (torch.full((1, 4, 4), 16), r"codes must lie in \[0, 16\), got 16 to 16"),
        (torch.full((1, 4, 4), -1), r"codes must lie in \[0, 16\), got -1 to -1"),
        (torch.arange(1, 17).view(1, 4, 4), r"codes must lie in \[0, 16\), got 1 to 16"),
        (torch.zeros(1, 4, 4), r"codes must be int64, got torch.float32; use codes.long\(\)"),
        (torch.zeros(1, 4, 4, dtype=torch.uint8), "codes must be int64, got torch.uint8"),
    ],
)
def test_bad_codes_are_refused(codes, sentence):
    with pytest.raises(ValueError, match=sentence):
        tiny_tokenizer().decode(codes)


def test_a_grid_of_codes_has_a_height_and_a_width():
    check_image_codes(torch.zeros(1, 2, 3, dtype=torch.long), 2, 3, 16)
    with pytest.raises(ValueError, match=r"codes must form a \[B, 2, 3\] grid, got \[1, 3, 2\]"):
        check_image_codes(torch.zeros(1, 3, 2, dtype=torch.long), 2, 3, 16)


@pytest.mark.skipif(
    not checkpoint.shipped("mnist-tokenizer"), reason="the shipped tokenizer is not there"
)
def test_the_shipped_tokenizer_keeps_digits():
    """On the first 300 test images; `minillada evaluate` measures all 10,000."""
    tokenizer, _ = checkpoint.load_model("mnist-tokenizer", ImageTokenizer)
    images = real_images(300).floats()
    codes = tokenizer.encode(images)
    squared = float((tokenizer.decode(codes) - images).square().mean())
    assert -10 * math.log10(squared) >= 22
    assert tokenizer.config.tokens <= 64
    used, perplexity = codebook_usage(codes, tokenizer.config.codebook_size)
    assert used > 0.5 and perplexity > 100


def test_other_floats_are_read_like_float32():
    tokenizer, images = tiny_tokenizer(), real_images(20).floats()
    assert torch.equal(tokenizer.encode(images.double()), tokenizer.encode(images))
    assert tokenizer.encode(images.half()).shape == (20, 4, 4)


# --- autocast ------------------------------------------------------------------------------------


def test_autocast_changes_no_code():
    """Features rounded to bfloat16 gave other codes in 7 to 11 % of the places."""
    tokenizer, images = tiny_tokenizer(), real_images(200).floats()
    codes = tokenizer.encode(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tokenizer.encode(images), codes)


def test_training_under_autocast_keeps_the_codebook_in_float32():
    book = codebook(16, 8)
    features = torch.randn(4, 8, 5, 5, generator=generator(1))
    with torch.autocast("cpu", torch.bfloat16):
        quantised = book(features)
        halves = book(features.bfloat16())
    assert torch.equal(quantised.codes, book(features).codes)
    for result in (quantised, halves):
        assert result.vectors.dtype == result.features.dtype == torch.float32
        assert torch.allclose(result.features.norm(dim=1), torch.ones(4, 5, 5), atol=1e-6)
    tokenizer, batch = tiny_tokenizer().train(), caption_batch()
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = image_tokenizer_loss(tokenizer, *batch, generator())
    loss.backward()
    assert tokenizer.encoder[0].weight.grad.isfinite().all()
    assert torch.allclose(tokenizer.embedding.norm(dim=1), torch.ones(16), atol=1e-6)


def test_the_tokenizer_keeps_the_protocol():
    tokenizer: Tokenizer = tiny_tokenizer(image_size=16, patch_size=4, channels=3)
    assert tokenizer.grid == 4 and tokenizer.image_shape == (3, 16, 16)
    assert tokenizer.embedding.shape == (16, 8)
    images = tokenizer.decode(tokenizer.encode(torch.rand(2, *tokenizer.image_shape)))
    tokenizer.check_images(images)


def test_no_images_are_no_codes():
    assert tiny_tokenizer().encode(torch.zeros(0, 1, 32, 32)).shape == (0, 4, 4)
    for shape in ((0,), (0, 3, 32, 32)):
        with pytest.raises(ValueError, match=r"images must have shape \[B, 1, 32, 32\], got \[0"):
            tiny_tokenizer().encode(torch.zeros(shape))

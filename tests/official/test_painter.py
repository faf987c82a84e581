"""The official painter: only the glue is ours, so the glue is what is tested here."""

import json
import pickle
import warnings
from random import Random

import pytest
import torch
from torch import nn

from minillada.official import painter as painter_file
from minillada.official.fabricate import fabricate
from minillada.official.painter import Painter, SigVQ, load_painter, load_sigvq
from minillada.official.sums import SUMS

REASON = 'diffusers is not installed; run pip install "minillada[official]"'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("diffusers", reason=REASON)
    place = tmp_path_factory.mktemp("checkpoint") / "official"
    fabricate(place, parts=("image_tokenizer", "decoder", "decoder-turbo", "vae"))
    return place


class Field(nn.Module):
    """In place of the transformer: a velocity that is a formula; it notes what it is given."""

    in_channels = 2

    def __init__(self, formula):
        super().__init__()
        self.formula = formula
        self.calls = []

    def forward(self, x, t, cap_feats, return_dict, patch_size, f_patch_size):
        assert not return_dict and (patch_size, f_patch_size) == (2, 1)
        self.calls.append((x, t, cap_feats))
        return ([self.formula(*row) for row in zip(x, t, cap_feats)],)


class Enlarge(nn.Module):
    """In place of the VAE: latents 8 times as large, three channels."""

    class config:  # noqa: N801
        latent_channels, scaling_factor, shift_factor = 2, 0.5, 0.25

    def decode(self, latent, return_dict):
        rows = latent.repeat_interleave(8, 2).repeat_interleave(8, 3)
        return (torch.cat([rows, rows[:, :1]], 1),)


def glued(formula, is_turbo=False):
    sigvq = SigVQ(7, 6).requires_grad_(False)
    return Painter(sigvq, Field(formula), Enlarge(), is_turbo)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


CODES = torch.tensor([[[0, 1, 2], [3, 4, 6]]])


# --- parts ---------------------------------------------------------------------------------------


def test_a_code_stands_for_four_places_in_raster_order():
    sigvq = SigVQ(7, 6)
    names = ["net.0.proj.weight", "net.0.proj.bias", "net.2.weight", "net.2.bias"]
    expected = ["prior_token_embedding.weight", *(f"prior_projector.{name}" for name in names)]
    assert list(sigvq.state_dict()) == expected
    condition = sigvq(CODES[0])
    assert condition.shape == (4 * 6, 6)
    first, last = sigvq.prior_projector.net[0].proj, sigvq.prior_projector.net[2]
    for row in range(4):
        for column in range(6):
            x = sigvq.prior_token_embedding.weight[CODES[0, row // 2, column // 2]]
            hidden = first.weight @ x + first.bias
            by_hand = last.weight @ (hidden / (1 + torch.exp(-hidden))) + last.bias
            torch.testing.assert_close(condition[row * 6 + column], by_hand)


def test_what_the_transformer_is_given():
    painter = glued(lambda x, t, condition: 0 * x)
    painter.paint(CODES, steps=3, generator=generator())
    assert len(painter.transformer.calls) == 2
    for x, t, conditions in painter.transformer.calls:
        assert [tuple(latent.shape) for latent in x] == [(2, 1, 8, 12)] * 2
        assert torch.equal(conditions[0], painter.sigvq(CODES[0]))
        assert torch.equal(conditions[1], torch.zeros(24, 6))  # the negative is zeros
        assert t.dtype == torch.float32 and t.shape == (2,)
    assert painter.transformer.calls[0][1].tolist() == [0, 0]  # t = 0 is noise
    assert painter.transformer.calls[1][1].tolist() == pytest.approx([1 / 7] * 2)


def test_only_the_networks_compute_in_bfloat16():
    """Times, velocities and the state of the sampler keep their digits."""
    painter = glued(lambda x, t, condition: x / 3)
    painter.sigvq.bfloat16()
    noise, times = torch.randn(1, 2, 8, 12), torch.tensor(0.123)
    velocity = painter.guided([painter.sigvq(CODES[0])], 1.0)(noise, times)
    [(x, t, _)] = painter.transformer.calls
    assert x[0].dtype == torch.bfloat16 and torch.equal(t, times.expand(2))
    assert velocity.dtype == torch.float32


def test_pixels_of_latents():
    painter = glued(lambda x, t, condition: 0 * x)
    image = painter.paint(CODES, generator=generator())
    noise = torch.randn(1, 2, 8, 12, generator=generator())
    assert image.shape == (1, 3, 64, 96)
    by_hand = ((noise / 0.5 + 0.25 + 1) / 2).clamp(0, 1)
    assert torch.equal(image[:, :2, ::8, ::8], by_hand)


def test_numbers_of_evaluations():
    for is_turbo, evaluations in ((False, 49), (True, 8)):
        painter = glued(lambda x, t, condition: 0 * x, is_turbo)
        painter.paint(CODES)
        assert len(painter.transformer.calls) == evaluations
        assert len(painter.transformer.calls[0][0]) == (1 if is_turbo else 2)  # turbo: no guidance
    # Turbo's times are even: 0, 1/8, … 7/8.
    times = [float(t[0]) for _, t, _ in painter.transformer.calls]
    assert times == [i / 8 for i in range(8)]


def test_guidance_keeps_the_length():
    """Against a slow loop over pictures: p + g (p - n), not longer than p."""
    torch.manual_seed(1)
    positive, negative = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4)
    negative[1] = positive[1]  # nothing to lead away from
    positive[2], negative[2] = 1.0, 1.5  # guidance makes this one shorter

    def formula(x, t, condition):
        number = int(condition[0, 0].abs())
        return (positive if condition[0, 0] > 0 else negative)[number - 1][:, None]

    painter = glued(formula)
    # Conditions whose first number says which picture; the negative ones are replaced below.
    conditions = [torch.full((4, 6), number + 1.0) for number in range(3)]
    original = painter.evaluate

    def evaluate(x, t, both):
        return original(x, t, both[:3] + [-condition for condition in both[:3]])

    painter.evaluate = evaluate
    for guidance in (1.0, 0.5, 4.0):
        led = painter.guided(conditions, guidance)(torch.zeros(3, 2, 4, 4), torch.tensor(0.3))
        for number in range(3):
            p, n = positive[number], negative[number]
            slow = p + guidance * (p - n)
            if slow.norm() > p.norm():
                slow = slow * (p.norm() / slow.norm())
            torch.testing.assert_close(led[number], slow)


def test_no_guidance_is_one_branch():
    painter = glued(lambda x, t, condition: 0 * x)
    painter.paint(CODES, steps=3, guidance=0)
    assert len(painter.transformer.calls[0][0]) == 1


def test_a_batch_paints_what_each_would_be_alone():
    codes = torch.tensor([[[0, 1]], [[5, 6]]])

    def formula(x, t, condition):
        return condition.mean() * torch.ones_like(x) + 0.1 * x

    noise = torch.randn(2, 2, 4, 8, generator=generator())
    painter = glued(formula)
    both = painter.paint(codes, generator=generator())
    for number in range(2):
        alone = painter_file.euler(
            painter.guided([painter.sigvq(codes[number])], 1.0), noise[number : number + 1]
        )
        torch.testing.assert_close(both[number], painter.pixels(alone)[0])


@pytest.mark.parametrize("is_turbo", [False, True])
def test_a_picture_of_no_numbers_is_refused(is_turbo):
    painter = glued(lambda x, t, condition: x / 0, is_turbo)
    with pytest.raises(ValueError, match=r"no numbers \(NaN or infinity\).* download them again"):
        painter.paint(CODES, steps=2)
    latents = torch.zeros(1, 2, 8, 12)
    latents[0, 1, 3, 5] = torch.inf  # a single one
    with pytest.raises(ValueError, match="no numbers"):
        painter.pixels(latents)


@pytest.mark.parametrize(
    "codes",
    [torch.tensor([[[7]]]), torch.tensor([[[-1]]]), torch.tensor([[1]]), torch.rand(1, 2, 2)],
)
def test_codes_that_cannot_be_painted(codes):
    with pytest.raises(ValueError, match="codes must"):
        glued(lambda x, t, condition: x).paint(codes)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_codes_may_be_whole_numbers_of_any_type(dtype):
    painter = glued(lambda x, t, condition: condition.mean() + 0 * x)
    wanted = painter.paint(CODES, 3, generator())
    assert torch.equal(painter.paint(CODES.to(dtype), 3, generator()), wanted)


# --- with diffusers ------------------------------------------------------------------------------


def test_the_released_transformer_has_the_official_number_of_weights():
    pytest.importorskip("diffusers", reason=REASON)
    from minillada.official.fabricate import decoder_entries, sigvq_entries, vae_entries
    from minillada.official.sizes import FULL

    entries = decoder_entries(FULL)
    assert sum(entry.count for entry in entries) == 6_160_808_512
    names = {entry.key for entry in entries}
    assert {"semantic_embedder.0.weight", "semantic_embedder.1.bias"} <= names
    assert not any("cap_embedder" in name for name in names)
    assert sum(entry.count for entry in sigvq_entries(FULL)) == 100_671_488
    assert sum(entry.bytes for entry in vae_entries(FULL)) == pytest.approx(0.17e9, rel=0.02)


@pytest.mark.parametrize("is_turbo", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tiny_painter_end_to_end(folder, is_turbo, dtype):
    painter = load_painter(folder, is_turbo, dtype=dtype)
    codes = torch.tensor([[[1, 2, 3], [60, 61, 63]]])
    images = [painter.paint(codes, generator=generator(seed)) for seed in (0, 0, 1)]
    assert images[0].shape == (1, 3, 64, 96) and images[0].dtype == torch.float32
    assert 0 <= images[0].min() < images[0].max() <= 1
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])
    other = painter.paint(torch.flip(codes, [2]), generator=generator())
    assert not torch.equal(images[0], other)  # the codes matter


@pytest.mark.parametrize("is_turbo", [False, True])
def test_the_painter_equals_an_independent_loop(folder, is_turbo):
    """The whole recipe once more, on the modules of diffusers, as a flat list of steps."""
    painter = load_painter(folder, is_turbo, dtype=torch.float32)
    codes = torch.tensor([[[1, 2], [60, 63]]])
    image = painter.paint(codes, generator=generator(3))
    source = generator(3)
    x = torch.randn(1, 16, 8, 8, generator=source)[0]
    condition = painter.sigvq(codes[0])
    if is_turbo:
        x = x.double()
        for step in range(8):
            t = step / 8
            v = seen(painter, x, t, condition)
            x = x + (1 - t) * v
            later = (step + 1) / 8
            fresh = torch.randn(1, 16, 8, 8, generator=source, dtype=torch.double)[0]
            x = later * x + (1 - later) * fresh
    else:
        for step in range(49):
            t, later = (i / 49 / (i / 49 + 6 * (1 - i / 49)) for i in (step, step + 1))
            p = seen(painter, x, t, condition)
            led = 2 * p - seen(painter, x, t, torch.zeros_like(condition))
            x = x + (later - t) * led * min(1, p.norm() / led.norm())
    latent = x.float()[None] / 0.3611 + 0.1159
    picture = (painter.vae.decode(latent).sample + 1) / 2
    torch.testing.assert_close(image, picture.clamp(0, 1), atol=1e-4, rtol=0)


def seen(painter, x, t, condition):
    """One velocity of one picture."""
    output = painter.transformer([x[:, None].float()], torch.tensor([t]), [condition])
    return output.sample[0][:, 0].detach()


def test_settings_that_the_released_code_replaces(folder, tmp_path):
    stored = json.loads((folder / "decoder" / "config.json").read_text())
    assert (stored["cap_feat_dim"], stored["axes_lens"]) == (2560, [1024, 512, 512])
    transformer = load_painter(folder).transformer
    assert transformer.config.cap_feat_dim == 32
    assert transformer.config.axes_lens == [32768, 1024, 1024]
    place = copied(folder, tmp_path)
    changed = json.dumps(stored | {"siglip_feat_dim": 8})
    (place / "decoder" / "config.json").write_text(changed)
    assert load_painter(place).transformer.config.siglip_feat_dim is None


def test_each_painter_has_its_own_transformer(folder):
    normal, turbo = (load_painter(folder, quick).transformer for quick in (False, True))
    assert not torch.equal(next(normal.parameters()), next(turbo.parameters()))


def copied(folder, place):
    """Without checksums, which would notice every change first."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name != SUMS:
            (place / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (place / path.relative_to(folder)).write_bytes(path.read_bytes())
    return place


def test_the_older_name_of_the_weights(folder, tmp_path):
    place = copied(folder, tmp_path)
    weights = place / "decoder" / "model.safetensors"
    weights.rename(weights.with_name("decoder_model.safetensors"))
    older, newer = load_painter(place).transformer, load_painter(folder).transformer
    for old, new in zip(older.parameters(), newer.parameters()):
        assert torch.equal(old, new)


@pytest.mark.parametrize(
    ("name", "key", "value", "words"),
    [
        ("decoder", "n_layers", 3, "missing: layers.2"),
        ("decoder", "n_layers", 1, "unexpected: layers.1"),
        ("decoder", "dim", 64, "does not describe a ZImage"),
        ("decoder", "in_channels", 8, "misshapen"),
        ("vae", "latent_channels", 4, "misshapen"),
        ("vae", "norm_num_groups", 3, "does not describe a AutoencoderKL"),
        ("vae", "shift_factor", None, "shift_factor must be a number, got None"),
        ("vae", "scaling_factor", "0.3611", "scaling_factor must be a number, got '0.3611'"),
    ],
)
def test_contradictory_configurations(folder, tmp_path, name, key, value, words):
    place = copied(folder, tmp_path)
    path = place / name / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=words) as error:
        load_painter(place)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "image_tokenizer/sigvq_embedding.pt",
        "decoder/config.json",
        "decoder/model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ],
)
def test_missing_cut_and_foreign_files(folder, tmp_path, name):
    place = copied(folder, tmp_path)
    path = place / name
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"\x00" * 64, b"<html>not found</html>"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="is not a") as error:
            load_painter(place)
        assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="holds no"):
        load_painter(place)


class Hostile:
    def __reduce__(self):
        return (print, ("this pickle runs code",))


def test_pickles_that_run_code_are_refused(tmp_path, capsys):
    path = tmp_path / "sigvq_embedding.pt"
    for save in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))):
        save({"prior_token_embedding.weight": Hostile()}, path)
        with pytest.raises(ValueError, match="not a plain file of tensors"):
            load_sigvq(path, "cpu", torch.float32)
    assert not capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_other_contents_of_the_pickle(tmp_path):
    path = tmp_path / "sigvq_embedding.pt"
    state = SigVQ(5, 4).state_dict()
    for wrong, words in [
        ([1, 2], "must hold tensors by name"),
        ({"a": 1}, "must hold tensors by name"),
        ({"a": torch.zeros(2)}, "no matrix prior_token_embedding.weight"),
        (state | {"extra": torch.zeros(1)}, "unexpected: extra"),
        (state | {"prior_token_embedding.weight": torch.zeros(5, 3)}, "misshapen"),
        (state | {"prior_projector.net.2.bias": torch.full((4,), torch.inf)}, "infinity"),
        # Finite in its own type, and too large for the model's.
        (
            state | {"prior_projector.net.2.bias": torch.full((4,), 1e300, dtype=torch.double)},
            "infinity",
        ),
        # Types whose numbers mean something only with scales that the file does not have.
        (state | {"prior_projector.net.2.bias": torch.zeros(4, dtype=torch.int8)}, "torch.int8"),
        (state | {"prior_projector.net.2.bias": torch.zeros(4, dtype=torch.cfloat)}, "complex64"),
        (state | {"prior_projector.net.2.bias": torch.zeros(4).to_sparse()}, "tensors by name"),
    ]:
        torch.save(wrong, path)
        with pytest.raises(ValueError, match=words):
            load_sigvq(path, "cpu", torch.float32)


def test_every_damaged_pickle_is_refused_in_one_sentence(tmp_path):
    """Readers of pickles fail in many ways: an empty stack, a missing key, a wrong type."""
    path = tmp_path / "sigvq_embedding.pt"
    random = Random(0)
    for zipped in (False, True):
        torch.save(SigVQ(5, 4).state_dict(), path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for _ in range(300):
            damaged = bytearray(whole)
            damaged[random.randrange(len(whole))] = random.randrange(256)
            path.write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                try:
                    load_sigvq(path, "cpu", torch.float32)
                except ValueError as error:
                    assert str(path) in str(error) and "\n" not in str(error)


def test_the_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(ValueError, match=r'pip install "minillada\[official\]"'):
        painter_file.build("AutoencoderKL", {}, tmp_path)

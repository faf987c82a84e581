"""The official image tokenizer: counts, codes equal to an independent implementation, refusals."""

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import image_codes, vision_features
from safetensors.torch import save_file

from minillada.official.siglip import QuantiserConfig, SigLIPVQ, load_tokenizer
from minillada.official.vision import PositionTable, VisionConfig

NEEDS = 'not installed; run pip install "minillada[official]"'
VISION = VisionConfig(
    depth=3, hidden_size=32, num_heads=4, intermediate_size=48, patch_size=4, image_size=24
)
QUANTISER = QuantiserConfig(latent_channels=32, embed_dim=24, num_embeddings=50)


def tiny():
    tokenizer = SigLIPVQ(VISION, QUANTISER).eval()
    for parameter in tokenizer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # biases and positions must matter, too
    return tokenizer


def write(folder, tokenizer, vision=VISION, **changes):
    """A checkpoint's folder around a tokenizer."""
    place = folder / "image_tokenizer"
    place.mkdir(parents=True)
    save_file(tokenizer.state_dict(), place / "model.safetensors")
    config = {
        "model_type": "siglip_vq",
        "vision_config": vision.model_dump() | {"attention_dropout": 0.0},
        "vq_config": QUANTISER.model_dump() | {"in_channels": 3},
    }
    (place / "config.json").write_text(json.dumps(config))
    preprocessing = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} | changes
    (place / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return folder


def test_the_released_configuration_has_the_official_number_of_weights():
    with torch.device("meta"):
        state = SigLIPVQ(VisionConfig(), QuantiserConfig()).state_dict()
    assert len(state) == 488
    # Derived by hand: patches, positions, 40 blocks, two 1 x 1 convolutions, the codebook.
    wide, inner, code = 1536, 6144, 2048
    block = 4 * wide + 4 * (wide * wide + wide) + (wide * inner + inner) + (inner * wide + wide)
    convolutions = (wide * code + code) + (code * wide + wide)
    by_hand = (3 * 16 * 16 * wide + wide) + 128 * 128 * wide + 40 * block
    by_hand += convolutions + 16_384 * code
    assert sum(tensor.numel() for tensor in state.values()) == by_hand == 1_199_457_280
    assert (VisionConfig().num_heads, VisionConfig().layer_norm_eps) == (16, 1e-6)  # no weights
    assert "model.visual.blocks.39.attn.qkv.bias" in state
    assert "model.visual.embeddings.position_embedding.weight" in state
    assert "model.vqmodel.quantize.embedding.weight" in state


def independent(state, dtype):
    """The vision model and VQ-VAE of GLM-Image in transformers, with the same weights."""
    models = pytest.importorskip("transformers.models.glm_image", reason=f"transformers {NEEDS}")
    from transformers.models.glm_image.modeling_glm_image import GlmImageVisionModel, GlmImageVQVAE

    vision_config = models.GlmImageVisionConfig(**VISION.model_dump())
    vision_config._attn_implementation = "sdpa"
    visual = GlmImageVisionModel(vision_config).eval()
    quantiser = GlmImageVQVAE(models.GlmImageVQVAEConfig(**QUANTISER.model_dump())).eval()
    for module, prefix in ((visual, "model.visual."), (quantiser, "model.vqmodel.")):
        part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        module.load_state_dict(part)  # strict: the names are the same
    return visual.to(dtype), quantiser.to(dtype)


@pytest.mark.parametrize(("height", "width"), [(6, 6), (3, 8), (9, 2), (1, 1)])
def test_equal_to_glm_image(height, width):
    tokenizer = tiny()
    visual, quantiser = independent(tokenizer.state_dict(), torch.float32)
    images = torch.rand(2, 3, 4 * height, 4 * width)
    features = tokenizer.model.visual((images - 0.5) / 0.5)
    codes = tokenizer.encode(images)
    # GLM-Image reads a list of patches, each as [channel, row, column].
    for number, image in enumerate((images - 0.5) / 0.5):
        patches = image.reshape(3, height, 4, width, 4).permute(1, 3, 0, 2, 4).flatten(0, 1)
        shape = torch.tensor([[1, height, width]])
        seen = visual(patches.flatten(1), grid_thw=shape).last_hidden_state
        seen = seen.reshape(height, width, -1).permute(2, 0, 1)
        torch.testing.assert_close(features[number], seen, atol=1e-5, rtol=1e-5)
        chosen = quantiser.encode(seen[None]).image_tokens
        assert torch.equal(codes[number], chosen.reshape(height, width))


def test_bfloat16_codes_are_those_of_glm_image():
    tokenizer = tiny()
    visual, quantiser = independent(tokenizer.state_dict(), torch.bfloat16)
    images = torch.rand(40, 3, 24, 24)
    exact = tokenizer.encode(images)
    codes = tokenizer.to(torch.bfloat16).encode(images)
    patches = ((images - 0.5) / 0.5).reshape(40, 3, 6, 4, 6, 4).permute(0, 2, 4, 1, 3, 5)
    shapes = torch.tensor([[1, 6, 6]] * 40)
    seen = visual(patches.reshape(40 * 36, -1).bfloat16(), grid_thw=shapes).last_hidden_state
    seen = seen.reshape(40, 6, 6, -1).permute(0, 3, 1, 2)
    chosen = quantiser.encode(seen).image_tokens.reshape(40, 6, 6)
    # Patches are added up in another order there, so a few of 1,440 codes may differ.
    assert (codes == chosen).float().mean() > 0.97
    # The quantiser alone has no such freedom.
    assert torch.equal(tokenizer.model.vqmodel(seen), chosen)
    assert (codes != exact).any(), "bfloat16 rounds: some codes differ from those of float32"
    # Pixels are normalised in float32, and only then rounded.
    rounded = ((images - 0.5) / 0.5).bfloat16()
    assert torch.equal(codes, tokenizer.model.vqmodel(tokenizer.model.visual(rounded)))


@st.composite
def tokenizers(draw) -> tuple[VisionConfig, QuantiserConfig]:
    """Tiny image tokenizers of every shape that the official configuration allows."""

    def choose(*options):
        return draw(st.sampled_from(options))

    heads, wide, patch = choose(1, 2, 4), choose(8, 12), choose(2, 3)
    vision = VisionConfig(
        depth=choose(1, 2, 3),
        hidden_size=wide,
        num_heads=heads,
        intermediate_size=choose(6, 16),
        patch_size=patch,
        image_size=patch * choose(1, 4, 7),
        layer_norm_eps=choose(1e-6, 0.1),
        attention_bias=choose(True, False),
    )
    width, count = choose(5, 16), choose(7, 40)
    return vision, QuantiserConfig(latent_channels=wide, embed_dim=width, num_embeddings=count)


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(
    tokenizers(), st.integers(0, 10**6), st.sampled_from([(1, 1), (2, 3), (5, 2), (4, 4), (1, 6)])
)
def test_codes_are_those_of_the_reference(configurations, seed, grid):
    vision, quantiser = configurations
    numbers = torch.Generator().manual_seed(seed)
    tokenizer = SigLIPVQ(vision, quantiser).eval()
    for parameter in tokenizer.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=numbers)
    high, wide = grid
    shape = (3, vision.patch_size * high, vision.patch_size * wide)
    image = torch.rand(shape, generator=numbers)
    exact = {key: tensor.double() for key, tensor in tokenizer.state_dict().items()}
    with torch.no_grad():
        ours = tokenizer.model.visual((image[None] - 0.5) / 0.5)[0].flatten(1).T
    theirs = vision_features(exact, vision, image.double())
    torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=1e-4)
    codes = tokenizer.encode(image[None])[0].flatten().tolist()
    assert codes == image_codes(exact, vision, image.double())


def test_the_table_itself_comes_back_at_its_own_size():
    table = PositionTable(VISION)
    own = table.position_embedding.weight.reshape(6, 6, 32).permute(2, 0, 1)
    torch.testing.assert_close(table(6, 6)[0], own)


def test_codes_are_the_nearest_vectors():
    tokenizer = tiny()
    assert tokenizer.embedding.shape == (50, 24)
    torch.testing.assert_close(tokenizer.embedding.norm(dim=1), torch.ones(50))
    quantise = tokenizer.model.vqmodel.quantize
    # Scaled vectors of the codebook are their own nearest.
    codes = torch.tensor([3, 49, 0, 3])
    assert torch.equal(quantise(5 * quantise.embedding.weight[codes]), codes)
    shades = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])  # black and white are allowed
    assert tokenizer.encode(shades).shape == (2, 1, 1)


def test_a_stored_tokenizer_comes_back(tmp_path):
    tokenizer = tiny()
    folder = write(tmp_path, tokenizer)
    images = torch.rand(1, 3, 8, 12)
    loaded = load_tokenizer(folder, dtype=torch.float32)
    assert torch.equal(loaded.encode(images), tokenizer.encode(images))
    assert load_tokenizer(folder).embedding.dtype == torch.bfloat16  # the official numerics
    # The older name of the file.
    place = folder / "image_tokenizer"
    (place / "model.safetensors").rename(place / "image_tokenizer.safetensors")
    assert torch.equal(
        load_tokenizer(folder, dtype=torch.float32).encode(images), loaded.encode(images)
    )


@pytest.mark.parametrize(
    ("shape", "low", "high"),
    [((1, 3, 8, 9), 0, 1), ((3, 8, 8), 0, 1), ((0, 3, 8, 8), 0, 1), ((1, 1, 8, 8), 0, 1)]
    + [((1, 3, 8, 8), 0, 255), ((1, 3, 8, 8), -1, 1), ((1, 3, 8, 8), float("nan"), 1)],
)
def test_images_that_cannot_be_read(shape, low, high):
    images = torch.rand(shape) * (high - low) + low
    with pytest.raises(ValueError, match="images must be"):
        tiny().encode(images)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act must be"),
        ({"spatial_merge_size": 2}, "spatial_merge_size must be"),
        ({"num_heads": 5}, "5 heads cannot share"),
        ({"depth": 4}, "missing: model.visual.blocks.3"),
        ({"depth": 2}, "unexpected: model.visual.blocks.2"),
        ({"image_size": 28}, "position_embedding.weight [36, 32], not [49, 32]"),
        ({"hidden_size": 36}, "latent_channels"),
    ],
)
def test_contradictory_configurations(tmp_path, changes, words):
    vision = VISION.model_dump() | changes
    folder = write(tmp_path, tiny())
    path = folder / "image_tokenizer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vision_config": vision}))
    with pytest.raises(ValueError, match=re.escape(words)):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"temporal_patch_size": 2}, "temporal_patch_size must be 1, got 2"),
        ({"patch_size": 14}, "patch_size must be 4, got 14"),
        ({"image_mean": [0.5, 0.5, 0.4]}, "image_mean must be [0.5, 0.5, 0.5], got"),
        ({"image_std": [0.2] * 3}, "image_std must be [0.5, 0.5, 0.5], got"),
    ],
)
def test_other_preprocessing_is_refused(tmp_path, changes, words):
    folder = write(tmp_path, tiny(), **changes)
    with pytest.raises(ValueError, match=re.escape(words)):
        load_tokenizer(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_missing_and_cut_files(tmp_path, name):
    folder = write(tmp_path, tiny())
    path = folder / "image_tokenizer" / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{name} is not a"):
        load_tokenizer(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"holds no {name}"):
        load_tokenizer(folder)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    tokenizer = tiny()
    with torch.no_grad():
        tokenizer.model.visual.blocks[1].mlp.fc1.bias[2] = float("nan")
    with pytest.raises(ValueError, match="blocks.1.mlp.fc1.bias holds NaN"):
        load_tokenizer(write(tmp_path, tokenizer))
    with pytest.raises(ValueError, match="F8_E4M3"):
        state = {k: v.to(torch.float8_e4m3fn) for k, v in tiny().state_dict().items()}
        save_file(state, tmp_path / "image_tokenizer" / "model.safetensors")
        load_tokenizer(tmp_path)

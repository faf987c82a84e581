"""The official painter: image codes to pixels by a diffusion transformer (Z-Image) and a VAE.

`diffusers` has both networks; here is only what stands between them (LLaDA2.0-Uni, released code).

    codes [h, w] -> SigVQ -> condition [4hw, C] -> transformer -> latent [16, 4h, 4w]
    latent -> VAE -> pixels [3, 32h, 32w]

Notable choices
- Flow matching: `x_t = t x_1 + (1 - t) x_0`, where t = 0 is noise and t = 1 the picture. The model
  gets this t as it is; the pipeline of `diffusers` would turn it round.
- A code stands for 16 pixels of what was read and for 32 pixels of what is drawn.
- The state of a sampler is float32, whatever the type of the weights. Turbo's is float64 and stays
  on the CPU, since some devices have no such numbers.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from einops import repeat
from torch import Tensor, nn

from ..extras.packages import load_package
from .flow import Velocity, euler, turbo
from .reading import check_shapes, find, load_pickle, load_safetensors, read_json, take
from .sums import check_files, known_sums

# What the released code sets, whatever the file says: room for long conditions, no SigLIP features.
FORCED = {"axes_lens": [32768, 1024, 1024], "siglip_feat_dim": None}
PATCH = {"patch_size": 2, "f_patch_size": 1}  # 2 x 2 places of the latent, of one frame
DECODER_WEIGHTS = ("model.safetensors", "decoder_model.safetensors")  # one of them is there
VAE_WEIGHTS = "diffusion_pytorch_model.safetensors"


class SigVQ(nn.Module):
    """Codes to the painter's condition: an embedding, then two layers."""

    def __init__(self, codebook_size: int, width: int):
        super().__init__()
        self.prior_token_embedding = nn.Embedding(codebook_size, width)
        # Their official names are prior_projector.net.0.proj and prior_projector.net.2.
        first = nn.Sequential(OrderedDict(proj=nn.Linear(width, width)))
        layers = nn.Sequential(first, nn.SiLU(), nn.Linear(width, width))
        self.prior_projector = nn.Sequential(OrderedDict(net=layers))

    def forward(self, codes: Tensor) -> Tensor:
        """Condition `[4hw, C]` of codes `[h, w]`: each stands for 2 x 2 places."""
        places = repeat(codes, "h w -> (h 2) (w 2)").flatten()  # raster order
        return self.prior_projector(self.prior_token_embedding(places))


class Painter:
    """`paint`: codes `[B, h, w]` -> pixels `[B, 3, 32h, 32w]` in [0, 1]."""

    # Classes of `diffusers` are `Any` here, since the package is optional.
    def __init__(self, sigvq: SigVQ, transformer: Any, vae: Any, is_turbo: bool):
        self.sigvq = sigvq
        self.transformer = transformer
        self.vae = vae
        self.is_turbo = is_turbo
        if transformer.in_channels != vae.config.latent_channels:
            raise ValueError(
                f"the decoder makes latents of {transformer.in_channels} channels and the VAE "
                f"reads {vae.config.latent_channels}; they belong to different models"
            )

    @property
    def dtype(self) -> torch.dtype:
        return self.sigvq.prior_token_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.sigvq.prior_token_embedding.weight.device

    def to(self, device: str | torch.device) -> None:
        """Move all three networks."""
        for network in (self.sigvq, self.transformer, self.vae):
            network.to(device)

    @torch.no_grad()
    def paint(
        self,
        codes: Tensor,
        steps: int | None = None,
        generator: torch.Generator | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Pictures of codes.

        `steps` is 50 by default (49 evaluations), turbo 8 evaluations. `generator` (on the CPU)
        fixes the noise on every device. `guidance` 0 is none; turbo has none anyway.
        """
        self.check_codes(codes)
        codes = codes.to(self.device, torch.long)
        conditions = [self.sigvq(code) for code in codes]
        batch, height, width = codes.shape
        shape = (batch, self.transformer.in_channels, 4 * height, 4 * width)
        noise = torch.randn(shape, generator=generator)
        if self.is_turbo:
            steps = 8 if steps is None else steps
            latents = turbo(self.velocity(conditions), noise, steps, generator)
        else:
            steps = 50 if steps is None else steps
            latents = euler(self.guided(conditions, guidance), noise.to(self.device), steps)
        return self.pixels(latents)

    def check_codes(self, codes: Tensor) -> None:
        """`ValueError` unless codes are `[B, h, w]` of this painter's codebook."""
        size = self.sigvq.prior_token_embedding.num_embeddings
        if codes.ndim != 3 or not codes.numel() or codes.is_floating_point():
            raise ValueError(f"codes must be whole numbers [B, h, w], got {list(codes.shape)}")
        if codes.min() < 0 or codes.max() >= size:
            raise ValueError(f"codes must lie in [0, {size}); take image_token_offset off first")

    # --- velocities ------------------------------------------------------------------------------

    def evaluate(self, x: Tensor, t: Tensor, conditions: list[Tensor]) -> Tensor:
        """The transformer's velocity, float32, for latents `[N, C, H, W]` at one time.

        It is where the latents are, which may be another device than that of the networks.
        """
        latents = x.to(self.dtype).to(self.device)  # the type first: some devices have no float64
        output = self.transformer(
            x=[latent[:, None] for latent in latents],  # N times [C, 1, H, W]
            t=t.float().to(self.device).expand(len(x)),
            cap_feats=conditions,
            return_dict=False,
            **PATCH,
        )
        return torch.stack([velocity[:, 0].float() for velocity in output[0]]).to(x.device)

    def velocity(self, conditions: list[Tensor]) -> Velocity:
        """The velocity under a condition."""
        return partial(self.evaluate, conditions=conditions)

    def guided(self, conditions: list[Tensor], guidance: float) -> Velocity:
        """The velocity, led away from that under a condition of zeros."""
        if guidance == 0:
            return self.velocity(conditions)
        both = conditions + [torch.zeros_like(condition) for condition in conditions]

        def with_guidance(x: Tensor, t: Tensor) -> Tensor:
            positive, negative = self.evaluate(torch.cat([x, x]), t, both).chunk(2)
            led = positive + guidance * (positive - negative)
            # Guidance makes velocities longer; each picture's is cut back to its own length.
            scale = positive.flatten(1).norm(dim=1) / led.flatten(1).norm(dim=1)
            return led * scale.nan_to_num(1).clamp(max=1)[:, None, None, None]

        return with_guidance

    def pixels(self, latents: Tensor) -> Tensor:
        """Pixels in [0, 1], float32, of latents `[B, C, H, W]`; one by one to save memory.

        `ValueError` where the networks give NaN or infinity.
        """
        pictures = []
        config = self.vae.config
        for latent in latents.to(self.dtype).to(self.device):
            scaled = latent[None] / config.scaling_factor + config.shift_factor
            picture = self.vae.decode(scaled, return_dict=False)[0][0]
            if not picture.isfinite().all():  # as bytes this would be black
                raise ValueError(
                    "the painter's picture holds no numbers (NaN or infinity), so the weights of "
                    "decoder or VAE are damaged; download them again"
                )
            pictures.append(((picture.float() + 1) / 2).clamp(0, 1))
        return torch.stack(pictures)


# --- from files ----------------------------------------------------------------------------------


def load_painter(
    folder: Path,
    is_turbo: bool = False,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.bfloat16,
) -> Painter:
    """The painter of a checkpoint's folder: of 50 steps, or the distilled one of 8 (turbo).

    `ValueError` or `FileNotFoundError` where a file is missing, broken or does not fit.
    """
    # 1. the files, all of them before the first is read
    folder = Path(folder)
    embedding = find(folder / "image_tokenizer", "sigvq_embedding.pt")
    place = folder / ("decoder-turbo" if is_turbo else "decoder")
    config = find(place, "config.json")
    weights = find(place, *DECODER_WEIGHTS)
    vae_config, vae_weights = find(folder / "vae", "config.json"), find(folder / "vae", VAE_WEIGHTS)
    files = [embedding, config, weights, vae_config, vae_weights]
    check_files(folder, files, known_sums(folder))

    # 2. three networks
    sigvq = load_sigvq(embedding, device, dtype)
    width = sigvq.prior_token_embedding.embedding_dim
    transformer = build_transformer(read_json(config), width, config)
    load_safetensors(transformer, weights, device, dtype, rename=diffusers_name)
    vae = build_vae(vae_config)
    load_safetensors(vae, vae_weights, device, dtype)
    return Painter(sigvq, transformer, vae, is_turbo)


def load_sigvq(path: Path, device: str | torch.device, dtype: torch.dtype) -> SigVQ:
    """SigVQ; its two sizes are those of the stored embedding."""
    tensors = load_pickle(path)
    embedding = tensors.get("prior_token_embedding.weight", torch.empty(0))
    if embedding.ndim != 2:
        raise ValueError(f"{path} has no matrix prior_token_embedding.weight; download it again")
    with torch.device("meta"):
        sigvq = SigVQ(*embedding.shape)
    check_shapes(sigvq, {key: tuple(value.shape) for key, value in tensors.items()}, path)
    take(sigvq, tensors.items(), path, device, dtype)
    return sigvq


def diffusers_name(key: str) -> str:
    """The one official name that `diffusers` has another word for."""
    return key.replace("semantic_embedder.", "cap_embedder.")


def official_name(key: str) -> str:
    """The inverse of `diffusers_name`."""
    return key.replace("cap_embedder.", "semantic_embedder.")


def build_transformer(values: dict[str, Any], width: int, path: Path) -> Any:
    """The transformer, without memory, that reads conditions of `width` features."""
    return build("ZImageTransformer2DModel", values | FORCED | {"cap_feat_dim": width}, path)


def build_vae(path: Path) -> Any:
    """The VAE of a `config.json`, without memory. `ValueError` if a number for `pixels` is none."""
    vae = build("AutoencoderKL", read_json(path), path)
    for key in ("scaling_factor", "shift_factor"):
        if not isinstance(vae.config[key], int | float):
            raise ValueError(f"{path}: {key} must be a number, got {vae.config[key]!r}")
    return vae


def build(name: str, values: dict[str, Any], path: Path) -> Any:
    """A network of `diffusers`, without memory; settings that are unknown there are left out."""
    cls = getattr(load_package("diffusers", "official"), name)
    known = inspect.signature(cls.__init__).parameters
    try:
        with torch.device("meta"):
            return cls(**{key: value for key, value in values.items() if key in known})
    except Exception as error:  # any kind, for sizes that do not fit together
        raise ValueError(f"{path} does not describe a {name} ({error!r})") from None

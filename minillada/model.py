"""The backbone: a pre-norm transformer whose state-dict keys are those of the official checkpoint (arXiv 2604.20796).

Notable choices
- Same-position prediction: the logits at a masked position are about that position (an autoregressive model would shift).
- Queries, keys and values come from one matrix (rows: all query heads, then keys, then values); fewer key-value heads
  than query heads (GQA); queries and keys are RMS-normalised per head before RoPE.
- RoPE turns only the first `partial_rotary_factor` of each head's dimensions; positions are plain 1-D also for images.
- Attention is `scaled_dot_product_attention` with a boolean mask: it runs everywhere and is the reference. Training on long
  sequences skips what the mask forbids, tile by tile on a CPU, with FlexAttention on a GPU.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.checkpoint import checkpoint

from .config import ModelConfig
from .masks import TiledMask
from .moe import MixtureOfExperts, SwiGLU
from .settings import Config

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

    Mask = Tensor | TiledMask | BlockMask | None  # the forms of `masks`; None lets everybody see everything


class RMSNorm(nn.Module):
    """x / rms(x) in float32, cast back, then times weight."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).to(x.dtype) * self.weight


class KVCache:
    """Keys and values `[B, n_kv, T, head_dim]` of the tokens before the current input, for each layer.

    They live in buffers with room to spare: a step writes its tokens behind the stored ones instead of copying everything.
    """

    def __init__(self, layers: int):
        self.buffers: list[tuple[Tensor, Tensor] | None] = [None] * layers
        self.lengths = [0] * layers

    @property
    def length(self) -> int:
        """How many tokens are stored."""
        return self.lengths[0]

    def extend(self, layer: int, key: Tensor, value: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """Stored + new keys and values; of the new ones only the first `keep` stay stored (finished blocks are final)."""
        start, end = self.lengths[layer], self.lengths[layer] + key.shape[2]
        if self.buffers[layer] is None or self.buffers[layer][0].shape[2] < end:
            self.buffers[layer] = tuple(
                self._grown(old, new, start, 2 * end) for old, new in zip(self.stored(layer), (key, value), strict=True)
            )
        for buffer, new in zip(self.buffers[layer], (key, value), strict=True):
            buffer[:, :, start:end] = new
        self.lengths[layer] = start + keep
        return tuple(buffer[:, :, :end] for buffer in self.buffers[layer])

    def stored(self, layer: int) -> tuple[Tensor | None, Tensor | None]:
        """What is stored for a layer: keys and values, or None twice."""
        if self.buffers[layer] is None:
            return None, None
        return tuple(buffer[:, :, : self.lengths[layer]] for buffer in self.buffers[layer])

    @staticmethod
    def _grown(old: Tensor | None, like: Tensor, length: int, capacity: int) -> Tensor:
        buffer = like.new_empty(*like.shape[:2], capacity, like.shape[3])
        if old is not None:
            buffer[:, :, :length] = old
        return buffer


def rotary(position_ids: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine `[B or 1, 1, L, rotated dims]` for positions `[B or 1, L]`."""
    dims = int(config.head_dim * config.partial_rotary_factor)
    frequency = config.rope_theta ** (-torch.arange(0, dims, 2, device=position_ids.device, dtype=torch.float) / dims)
    angle = position_ids[:, None, :, None].float() * frequency
    angle = torch.cat([angle, angle], dim=-1)  # "rotate-half": dimension i is paired with i + dims/2
    return angle.cos(), angle.sin()


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first dims of `x` `[B, heads, L, head_dim]`; the rest pass through untouched."""
    dims = cos.shape[-1]
    turned, rest = x[..., :dims], x[..., dims:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat([-second, first], dim=-1) * sin
    return torch.cat([turned.to(x.dtype), rest], dim=-1)


@functools.cache
def flex_kernel(cuda: bool):
    """FlexAttention, compiled where it has a kernel; on a CPU the slow reference that it falls back to, which has no gradients."""

    return torch.compile(flex_attention) if cuda else flex_attention


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask) -> Tensor:
    """Attention output `[B, heads, L, head_dim]` for queries of that shape; fewer key-value heads are shared."""
    if mask is None or isinstance(mask, Tensor):
        mask = None if mask is None else mask[:, None]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=True)
    if not isinstance(mask, TiledMask):
        return flex_kernel(query.is_cuda)(query, key, value, block_mask=mask, enable_gqa=True)
    queries, keys, values = (x.split(mask.size, dim=2) for x in (query, key, value))
    gather = lambda tiles, numbers: torch.cat([tiles[n] for n in numbers], dim=2)  # noqa: E731
    rows = zip(queries, mask.rows, strict=True)
    return torch.cat([attend(q, gather(keys, seen), gather(values, seen), piece) for q, (seen, piece) in rows], dim=2)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} query heads cannot share {self.kv_heads} key-value heads evenly")
        width = config.head_dim
        self.query_key_value = nn.Linear(config.hidden_size, (self.heads + 2 * self.kv_heads) * width, bias=False)
        self.query_layernorm = RMSNorm(width, config.rms_norm_eps)
        self.key_layernorm = RMSNorm(width, config.rms_norm_eps)
        self.dense = nn.Linear(self.heads * width, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Mask, cache: KVCache | None, layer: int, keep: int) -> Tensor:
        heads = rearrange(self.query_key_value(x), "b l (h d) -> b h l d", h=self.heads + 2 * self.kv_heads)
        query, key, value = heads.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        query = apply_rotary(self.query_layernorm(query), cos, sin)
        key = apply_rotary(self.key_layernorm(key), cos, sin)
        if cache is not None:
            key, value = cache.extend(layer, key, value, keep)
        mixed = attend(query, key.to(query.dtype), value.to(query.dtype), mask)
        return self.dense(rearrange(mixed, "b h l d -> b l (h d)"))


class DecoderLayer(nn.Module):
    def __init__(self, config: ModelConfig, index: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        sparse = config.num_experts > 0 and index >= config.first_k_dense_replace
        self.mlp = MixtureOfExperts(config) if sparse else SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor, *attention_inputs) -> Tensor:
        x = x + self.attention(self.input_layernorm(x), *attention_inputs)
        return x + self.mlp(self.post_attention_layernorm(x))


class Transformer(nn.Module):
    """Embedding, layers and final norm: what the official keys call `model`."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Backbone(nn.Module):
    """`backbone(input_ids [B, L], attention_mask, position_ids) -> logits [B, L, V]` in float32."""

    kind: ClassVar[str] = "backbone"
    config_class: ClassVar[type[Config]] = ModelConfig

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = Transformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.activation_checkpointing = False  # training only: backward computes the inside of each layer again
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=config.initializer_range)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None) -> Tensor:
        """Logits for every position.

        `attention_mask` bool `[B or 1, L, L]`, True = may attend; `None` lets every token see every other.
        `position_ids` `[B or 1, L]`; `None` counts from 0. `ValueError` for an id outside the vocabulary or a position
        outside the context.
        """
        self.check_ids(input_ids)
        return self.logits(self.hidden_states(input_ids, attention_mask, position_ids))

    def check_ids(self, input_ids: Tensor) -> None:
        """`ValueError` unless ids `[B, L]` lie in the vocabulary and fit the context."""
        if input_ids.ndim != 2 or input_ids.dtype != torch.long:
            raise ValueError(f"input ids must be int64 of shape [B, L], got {input_ids.dtype} {list(input_ids.shape)}")
        if input_ids.numel() and not (input_ids.min() >= 0 and input_ids.max() < self.config.vocab_size):
            low, high = int(input_ids.min()), int(input_ids.max())
            raise ValueError(f"token ids must lie in [0, {self.config.vocab_size}), got {low} to {high}; was another vocabulary used?")
        if input_ids.shape[1] > self.config.max_position_embeddings:
            raise ValueError(f"{input_ids.shape[1]} tokens exceed the context of {self.config.max_position_embeddings}; shorten the prompt")

    def hidden_states(
        self,
        input_ids: Tensor,
        attention_mask: Mask = None,
        position_ids: Tensor | None = None,
        cache: KVCache | None = None,
        keep: int = 0,
    ) -> Tensor:
        """Final hidden states `[B, L, H]`, for callers that need logits at few positions.

        With a `cache` of T tokens the mask is `[B or 1, L, T + L]` and the first `keep` of the L tokens join the cache.
        """
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        cos, sin = rotary(position_ids, self.config)
        x = self.model.word_embeddings(input_ids)
        for index, layer in enumerate(self.model.layers):
            inputs = (x, cos, sin, attention_mask, cache, index, keep)
            again = self.activation_checkpointing and torch.is_grad_enabled()
            x = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False) if again else layer(*inputs)
        return self.model.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Head in float32: bfloat16 logits would blur the probabilities that decide what to commit."""
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), self.lm_head.weight.float())

    @torch.no_grad()
    def start_image_rows(self, codebook: Tensor, offset: int) -> None:
        """Start the image rows of embedding and head at the codebook vectors `[K, C]`, so that similar codes begin alike.

        Similar rows of the head give similar codes similar logits: what is learned about one code is learned about its
        neighbours from the first step on. The mean, which tells no code from another, is taken out; a random projection
        keeps angles approximately and lifts C dimensions to the hidden size.
        """
        centred = codebook - codebook.mean(0)
        centred = centred / centred.norm(dim=1).mean()
        for rows in (self.model.word_embeddings.weight, self.lm_head.weight):
            projection = torch.randn(codebook.shape[1], self.config.hidden_size) * self.config.initializer_range
            rows[offset : offset + len(codebook)] = centred @ projection

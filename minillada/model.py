"""The backbone: a pre-norm transformer with the state-dict keys of the official checkpoint.

Notable choices (arXiv 2604.20796 and its released code)
- Same-position prediction: logits at a masked position are about that position, without a shift.
- One matrix makes all query heads, then all keys, then all values. Several query heads share a
  key-value head (GQA). Queries and keys are RMS-normalised per head before RoPE.
- RoPE rotates pairs of dimensions by an angle that grows with the position, so attention sees
  distances. `partial_rotary_factor` is the share of a head that turns. Images have 1-D positions.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from .config import ModelConfig
from .experts import Experts
from .masks import Mask, attend
from .moe import MixtureOfExperts, RMSNorm, SwiGLU
from .settings import Config


class KVCache:
    """Keys and values `[B, n_kv, T, head_dim]` of the T tokens before the input, for each layer.

    Keys of a finished block stay. Those of the block being decoded change in each step, so the
    next step overwrites them. Buffers have spare room: a step does not copy what is stored.
    """

    def __init__(self, layers: int):
        nothing = torch.empty(1, 1, 0, 1, device="cpu")  # broadcasts to any heads
        self.keys, self.values = [nothing] * layers, [nothing] * layers
        self.lengths = [0] * layers  # tokens that stay, for each layer

    @property
    def length(self) -> int:
        return self.lengths[0]  # all layers store equally many between two forward passes

    def extend(self, layer: int, key: Tensor, value: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        """Append L keys and values and return all T + L. Only the first `keep` new ones stay."""
        start, end = self.lengths[layer], self.lengths[layer] + key.shape[2]
        self.keys[layer] = with_room(self.keys[layer], key, start, end)
        self.values[layer] = with_room(self.values[layer], value, start, end)
        self.keys[layer][:, :, start:end] = key  # behind what is stored
        self.values[layer][:, :, start:end] = value
        self.lengths[layer] = start + keep  # the next call overwrites the rest
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]  # T + L tokens

    def stored(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values that a layer has stored."""
        length = self.lengths[layer]
        return self.keys[layer][:, :, :length], self.values[layer][:, :, :length]


def with_room(buffer: Tensor, like: Tensor, length: int, end: int) -> Tensor:
    """`buffer` if it has room for `end` tokens; else a larger one with its first `length` ones."""
    if buffer.shape[2] >= end:
        return buffer
    larger = like.new_empty(*like.shape[:2], 2 * end, like.shape[3])  # doubling: few copies
    larger[:, :, :length] = buffer[:, :, :length]
    return larger


def rotated_dims(config: ModelConfig) -> int:
    """How many numbers of a head turn with the position, in pairs."""
    return int(config.head_dim * config.partial_rotary_factor)


def rotary(position_ids: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine `[B or 1, 1, L, rotated dims]` for positions `[B or 1, L]`."""
    dims = rotated_dims(config)
    even = torch.arange(0, dims, 2, device=position_ids.device, dtype=torch.float)  # 2j for pair j
    frequency = config.rope_theta ** (-even / dims)  # [dims / 2]
    angle = position_ids[:, None, :, None].float() * frequency.repeat(2)  # [B or 1, 1, L, dims]
    return angle.cos(), angle.sin()  # "rotate-half": i and i + dims/2 have the same angle


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first numbers of each head of `x` `[B, heads, L, head_dim]`; the others stay."""
    dims, cos, sin = cos.shape[-1], cos.to(x.dtype), sin.to(x.dtype)
    turning, rest = x[..., :dims], x[..., dims:]  # the rest does not depend on the position
    a, b = turning.chunk(2, dim=-1)  # [B, heads, L, dims / 2]; pair j is (a[j], b[j])
    turned = turning * cos + torch.cat([-b, a], dim=-1) * sin  # (a cos − b sin, b cos + a sin)
    return torch.cat([turned, rest], dim=-1)


class Context(NamedTuple):
    """What attention needs to know about its input `[B, L, H]`, in every layer."""

    rotation: tuple[Tensor, Tensor]  # cos and sin of `rotary`
    mask: Mask = None  # over the keys in the cache and those of the input
    cache: KVCache | None = None
    keep: int = 0  # the first `keep` of the L tokens stay in the cache


class Attention(nn.Module):
    """Grouped-query attention of layer number `layer`."""

    def __init__(self, config: ModelConfig, layer: int = 0):
        super().__init__()
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        if heads % kv_heads:
            raise ValueError(f"{heads} query heads cannot share {kv_heads} key-value heads evenly")
        if rotated_dims(config) % 2:
            raise ValueError(
                f"{rotated_dims(config)} numbers of a head cannot turn in pairs; change head_dim "
                "or partial_rotary_factor"
            )
        self.layer, width = layer, config.head_dim
        self.counts = [heads, kv_heads, kv_heads]  # how many heads are queries, keys, values
        self.query_key_value = nn.Linear(config.hidden_size, sum(self.counts) * width, bias=False)
        self.query_layernorm = RMSNorm(width, config.rms_norm_eps)
        self.key_layernorm = RMSNorm(width, config.rms_norm_eps)
        self.dense = nn.Linear(heads * width, config.hidden_size, bias=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        parts = rearrange(self.query_key_value(x), "b l (h d) -> b h l d", h=sum(self.counts))
        query, key, value = parts.split(self.counts, dim=1)  # [B, heads or n_kv, L, head_dim]
        query = apply_rotary(self.query_layernorm(query), *context.rotation)
        key = apply_rotary(self.key_layernorm(key), *context.rotation)
        if context.cache is not None:  # keys are stored with their positions
            key, value = context.cache.extend(self.layer, key, value, context.keep)
        # Under autocast the norms return float32, but values are bfloat16: one type for all.
        mixed = attend(query, key.to(query.dtype), value.to(query.dtype), context.mask)
        return self.dense(rearrange(mixed, "b h l d -> b l (h d)"))


class DecoderLayer(nn.Module):
    """Attention, then a SwiGLU or experts; both add to the residual stream `[B, L, H]`.

    With `where` (bool `[B, L]`) only the N tokens where it is True have the second part: `[N, H]`.
    """

    def __init__(self, config: ModelConfig, index: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config, index)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        sparse = config.num_experts > 0 and index >= config.first_k_dense_replace
        size = config.hidden_size, config.intermediate_size
        self.mlp: nn.Module = MixtureOfExperts(config) if sparse else SwiGLU(*size)

    def forward(self, x: Tensor, context: Context, where: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.input_layernorm(x), context)  # tokens look at each other
        if where is not None:
            x = x[where]  # [N, H]: nobody looks at the others any more
        return x + self.mlp(self.post_attention_layernorm(x))  # each token by itself


class Transformer(nn.Module):
    """Embedding, layers and norm, by their official names; `Backbone.hidden_states` runs them."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        numbers = range(config.num_hidden_layers)
        self.layers = nn.ModuleList(DecoderLayer(config, number) for number in numbers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


def check_numbers(name: str, numbers: Tensor, limit: int) -> None:
    """`ValueError` unless `numbers` are int64 `[B, L]`, at least 0 and below `limit`."""
    if not isinstance(numbers, Tensor) or numbers.ndim != 2 or numbers.dtype != torch.long:
        kind = f"{numbers.dtype} {list(numbers.shape)}" if isinstance(numbers, Tensor) else numbers
        raise ValueError(f"{name} must be an int64 tensor of shape [B, L], got {kind}")
    if numbers.numel() and not (numbers.min() >= 0 and numbers.max() < limit):
        found = f"{int(numbers.min())} to {int(numbers.max())}; do they come from another model?"
        raise ValueError(f"{name} must lie in [0, {limit}), got {found}")


def check_rows(name: str, given: Tensor, rows: int, *sizes: int) -> None:
    """`ValueError` unless `given` is `[rows or 1, *sizes]`: PyTorch might broadcast others."""
    if given.shape not in ((rows, *sizes), (1, *sizes)):
        raise ValueError(f"{name} must have shape {[rows, *sizes]}, got {list(given.shape)}")


class Backbone(nn.Module):
    """`backbone(input_ids [B, L], attention_mask, position_ids) -> logits [B, L, V]`, float32."""

    kind: ClassVar[str] = "backbone"
    config_class: ClassVar[type[Config]] = ModelConfig

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, self.model = config, Transformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)  # not shared
        # Training only: backward computes the inside of each layer again, to save memory.
        self.activation_checkpointing = False
        for module in self.modules():  # norms keep their weights of 1; routers have drawn theirs
            if isinstance(module, Experts):
                module.initialise(config.initializer_range)
            elif isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=config.initializer_range)

    def forward(
        self, input_ids: Tensor, attention_mask: Mask = None, position_ids: Tensor | None = None
    ) -> Tensor:
        """`hidden_states`, then `logits`; `ValueError` for wrong ids, positions or shapes."""
        self.check_ids(input_ids)
        rows, length = input_ids.shape
        if position_ids is not None:
            check_numbers("positions", position_ids, self.config.max_position_embeddings)
            check_rows("positions", position_ids, rows, length)
        if isinstance(attention_mask, Tensor):
            check_rows("a mask", attention_mask, rows, length, length)
        return self.logits(self.hidden_states(input_ids, attention_mask, position_ids))

    def check_ids(self, ids: Tensor) -> None:
        """`ValueError` unless ids `[B, L]` lie in the vocabulary and fit the context."""
        check_numbers("token ids", ids, self.config.vocab_size)
        longest = self.config.max_position_embeddings
        if ids.shape[1] > longest:
            raise ValueError(f"{ids.shape[1]} tokens exceed the context of {longest}; use fewer")

    def hidden_states(
        self,
        input_ids: Tensor,
        attention_mask: Mask = None,
        position_ids: Tensor | None = None,
        cache: KVCache | None = None,
        keep: int = 0,
        where: Tensor | None = None,
    ) -> Tensor:
        """Final hidden states `[B, L, H]`, or `[N, H]` at the N positions of `where` `[B, L]`.

        `attention_mask`, if a tensor, is bool `[B or 1, L, T + L]`, with T tokens in the `cache`.
        The first `keep` of the L tokens stay there. `position_ids` `[B or 1, L]`; None counts from
        0. Inputs are not checked: `forward` does it.
        """
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        context = Context(rotary(position_ids, self.config), attention_mask, cache, keep)
        x = self.model.word_embeddings(input_ids)  # [B, L, H]
        last = self.model.layers[-1]
        for layer in self.model.layers:
            # The next layer needs all tokens, as keys. After the last one only `where` is needed.
            at = where if layer is last else None
            if self.activation_checkpointing and torch.is_grad_enabled():
                # A layer draws no random numbers, so no state of a generator needs saving.
                x = recompute(layer, x, context, at, use_reentrant=False, preserve_rng_state=False)
            else:
                x = layer(x, context, at)
        return self.model.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:  # [..., H] to [..., V]
        """The head in the type of its weights, then float32, as in the official code."""
        with torch.autocast(hidden.device.type, enabled=False):  # float32 weights: all in float32
            return self.lm_head(hidden.to(self.lm_head.weight.dtype)).float()

"""Parts of a layer that see one token at a time: norm, SwiGLU, router and mixture of experts.

A mixture of experts (LLaDA2.0, arXiv 2512.15745) has many small SwiGLUs, and a token uses few.
Router:  a token x has a score for each expert, s = sigmoid(x Wᵀ) in float32. The choice looks at
s + b (b: a bias for each expert), the weights w at s alone:
    keep the best `topk_group` of `n_group` groups, by the sum of a group's two best s + b;
    choose the best `num_experts_per_tok` experts inside them;
    w = `routed_scaling_factor` · s_chosen / (Σ s_chosen + 1e-20), or without Σ if one is chosen.
Output:  Σ w_e · expert_e(x) + shared expert(x).

Notable choices
- Load balance without a loss term: after each step the bias b of busy experts falls and that of
  idle ones rises. The bias steers the choice alone: it adds nothing to an output or a gradient.
- The router is in float32, whatever the type of the model: near ties decide who is chosen.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig
from .experts import Experts, combine


class RMSNorm(nn.Module):
    """x / √(mean of x² + eps) in float32, cast back, then times weight."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).to(x.dtype) * self.weight


class SwiGLU(nn.Module):
    """The feed-forward part, down(silu(gate(x)) * up(x)): the gate scales each value of `up`."""

    def __init__(self, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))  # [..., H] to [..., H]


class Router(nn.Module):
    """Which experts a token uses, and with what weights."""

    expert_bias: Tensor
    received: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        weight = torch.empty(config.num_experts, config.hidden_size)
        self.weight = nn.Parameter(weight.normal_(std=config.initializer_range))
        self.register_buffer("expert_bias", torch.zeros(config.num_experts))
        # Choices that each expert received since the last `balance`; not part of a checkpoint. With
        # `activation_checkpointing` a layer runs and counts twice, but only the shares matter.
        self.register_buffer("received", torch.zeros(config.num_experts), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Expert numbers and float32 weights, both `[T, k]`, for tokens `[T, H]`."""
        with torch.autocast(x.device.type, enabled=False):
            scores = F.linear(x.float(), self.weight.float()).sigmoid()  # [T, E]
        chosen = self.choose(scores.detach() + self.expert_bias.float())  # [T, k]
        weights = scores.gather(1, chosen)  # without the bias
        if weights.shape[1] > 1:  # a single s / s is always 1, and the router would never learn
            weights = weights / (weights.sum(1, keepdim=True) + 1e-20)  # never a division by 0
        weights = self.config.routed_scaling_factor * weights  # [T, k]
        if self.training:
            self.received += torch.bincount(chosen.flatten(), minlength=len(self.received))
        return chosen, weights

    def choose(self, biased: Tensor) -> Tensor:
        """The k experts `[T, k]` of the best groups, for biased scores `[T, E]`."""
        groups = biased.unflatten(1, (self.config.n_group, -1))  # [T, groups, experts of a group]
        group_score = groups.topk(min(2, groups.shape[2]), dim=2).values.sum(2)  # [T, groups]
        best = group_score.topk(self.config.topk_group, dim=1).indices  # [T, topk_group]
        # Experts of the other groups get −inf, so that top-k never takes them.
        closed = torch.ones_like(group_score, dtype=torch.bool).scatter(1, best, False)
        open_scores = groups.masked_fill(closed[..., None], float("-inf")).flatten(1)  # [T, E]
        return open_scores.topk(self.config.num_experts_per_tok, dim=1).indices

    def balance(self, rate: float) -> None:
        """b_i −= u (F_i − 1/E) / RMS(F − 1/E), with b = `expert_bias`, u = `rate`, E experts.

        F_i is the share of choices that expert i received. The paper prints the opposite sign,
        which would send still more tokens to busy experts.
        """
        excess = self.received / self.received.sum().clamp_min(1) - 1 / len(self.received)
        self.expert_bias -= rate * excess / excess.square().mean().sqrt().clamp_min(1e-12)
        self.received.zero_()  # the next shares are those of the next step


class MixtureOfExperts(nn.Module):
    """Routed experts and a shared one, with the parameter names of the official checkpoint."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        check_experts(config)
        hidden, inner = config.hidden_size, config.moe_intermediate_size
        self.gate = Router(config)  # the official name; not the gate of a SwiGLU
        self.experts = Experts(config.num_experts, hidden, inner)
        self.shared_experts = SwiGLU(hidden, inner * config.num_shared_experts)  # all in one

    def forward(self, x: Tensor) -> Tensor:
        """`[..., H]` to `[..., H]`: all tokens `[B, L, H]`, or only those asked about, `[N, H]`."""
        tokens = x.flatten(0, -2)  # [T, H]
        chosen, weights = self.gate(tokens)  # [T, k]
        return combine(self.experts, tokens, chosen, weights).view_as(x) + self.shared_experts(x)


def check_experts(config: ModelConfig) -> None:
    """`ValueError` for a router that cannot choose."""
    experts, groups, kept = config.num_experts, config.n_group, config.topk_group
    if experts % groups:
        raise ValueError(f"{experts} experts do not make {groups} equal groups; change n_group")
    if kept > groups:
        raise ValueError(f"topk_group must lie between 1 and n_group = {groups}, got {kept}")
    if config.num_experts_per_tok > kept * (experts // groups):
        raise ValueError(
            f"{config.num_experts_per_tok} experts per token cannot be chosen from {kept} groups "
            f"of {experts // groups}; lower num_experts_per_tok"
        )

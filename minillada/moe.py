"""Mixture of experts: many small SwiGLUs a layer, of which each token uses a few (LLaDA2.0, arXiv 2512.15745).

Router:  s = sigmoid(x Wᵀ) in float32; the choice looks at s + b, the weights at s alone:
    keep the best `topk_group` of `n_group` groups, a group's score being the sum of its two best s + b;
    choose the best `num_experts_per_tok` experts inside them;  w = scale · s_chosen / (Σ s_chosen + 1e-20).
Output:  Σ w_e · expert_e(x) + shared expert(x).

Notable choices
- Load balance without a loss term: after each step the bias b of busy experts falls and that of idle ones rises. The bias only
  steers the choice; it never enters the output, so it disturbs no gradient.
- `combine_dense` is the formula: every expert computes every token, with weight 0 where it was not chosen. `combine_grouped` gives
  the same numbers and computes only what was chosen: choices sorted by expert are contiguous, each expert takes its slice.
  `combine_at_once` replaces the loop over slices by grouped matrix products, which a GPU has in bfloat16.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x))"""

    def __init__(self, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    """Which experts a token uses, and with what weights."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size).normal_(std=config.initializer_range))
        self.register_buffer("expert_bias", torch.zeros(config.num_experts))
        # How many choices each expert received since the last `balance`; not part of a checkpoint.
        self.register_buffer("received", torch.zeros(config.num_experts), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Expert indices and weights, both `[T, k]`, for tokens `[T, H]`; the weights are float32."""
        with torch.autocast(x.device.type, enabled=False):
            scores = F.linear(x.float(), self.weight.float()).sigmoid()
        chosen = self.choose(scores.detach() + self.expert_bias.float())
        weights = scores.gather(1, chosen)
        weights = self.config.routed_scaling_factor * weights / (weights.sum(1, keepdim=True) + 1e-20)
        if self.training:
            self.received += torch.bincount(chosen.flatten(), minlength=len(self.received))
        return chosen, weights

    def choose(self, biased: Tensor) -> Tensor:
        """The group-limited top-k of biased scores `[T, E]`: `[T, k]`."""
        groups = biased.unflatten(1, (self.config.n_group, -1))  # [T, groups, experts of a group]
        group_score = groups.topk(min(2, groups.shape[2]), dim=2).values.sum(2)
        best = group_score.topk(self.config.topk_group, dim=1).indices
        closed = torch.ones_like(group_score, dtype=torch.bool).scatter(1, best, False)
        return groups.masked_fill(closed[..., None], float("-inf")).flatten(1).topk(self.config.num_experts_per_tok, dim=1).indices

    @torch.no_grad()
    def balance(self, rate: float) -> None:
        """b_i −= u (F_i − 1/E) / RMS(F − 1/E), F_i the share of choices expert i received since the last call.

        The paper prints the opposite sign, which would send still more tokens to the busiest expert.
        """
        excess = self.received / self.received.sum().clamp_min(1) - 1 / len(self.received)
        self.expert_bias -= rate * excess / excess.square().mean().sqrt().clamp_min(1e-12)
        self.received.zero_()


def combine_dense(experts: nn.ModuleList, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Σ_e w_e · expert_e(x) `[T, H]` as it is written, over all experts; `chosen` and `weights` `[T, k]`."""
    every = torch.zeros(len(x), len(experts), device=x.device).scatter(1, chosen, weights)
    return sum((every[:, e, None] * expert(x)).to(x.dtype) for e, expert in enumerate(experts))


def combine_grouped(experts: nn.ModuleList, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """The same sum over the chosen experts alone. An expert that nobody chose does nothing."""
    k, flat = chosen.shape[1], chosen.flatten()
    order = flat.argsort(stable=True)  # sorted by expert; choice order[i] belongs to token order[i] // k
    counts = torch.bincount(flat, minlength=len(experts)).tolist()
    slices = zip(experts, (order // k).split(counts), weights.flatten()[order, None].split(counts), strict=True)
    out = torch.zeros_like(x)
    for expert, token, weight in slices:
        if len(token):
            # One product for gate and up; the weight goes in where the rows are short.
            both = F.linear(x[token], torch.cat([expert.gate_proj.weight, expert.up_proj.weight]))
            gate, up = both.chunk(2, dim=1)
            out.index_add_(0, token, F.linear(F.silu(gate) * up * weight.to(both.dtype), expert.down_proj.weight).to(x.dtype))
    return out


def combine_at_once(experts: nn.ModuleList, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """The same sum with three grouped matrix products for all experts, instead of several kernels for each, in the type of `x`."""
    k, flat = chosen.shape[1], chosen.flatten()
    order = flat.argsort(stable=True)
    ends = torch.bincount(flat, minlength=len(experts)).cumsum(0).int()  # where each expert's slice of the sorted choices ends

    def product(rows: Tensor, name: str) -> Tensor:
        stacked = torch.stack([getattr(expert, name).weight for expert in experts]).to(x.dtype)  # [E, out, in]
        return F.grouped_mm(rows, stacked.transpose(1, 2), offs=ends)

    rows = x[order // k]
    hidden = F.silu(product(rows, "gate_proj")) * product(rows, "up_proj") * weights.flatten()[order, None].to(x.dtype)
    return torch.zeros_like(x).index_add_(0, order // k, product(hidden, "down_proj"))


def combine(experts: nn.ModuleList, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """The fastest way that works here. Grouped products need bfloat16, a GPU of compute capability 8, and widths in multiples of 8."""
    if x.is_cuda and hasattr(F, "grouped_mm"):
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
        widths = experts[0].gate_proj.weight.shape
        if dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) >= (8, 0) and not any(w % 8 for w in widths):
            return combine_at_once(experts, x.to(dtype), chosen, weights).to(x.dtype)
    return combine_grouped(experts, x, chosen, weights)


class MixtureOfExperts(nn.Module):
    """Routed experts and a shared one, with the parameter names of the official checkpoint."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        check_experts(config)
        self.gate = Router(config)
        self.experts = nn.ModuleList(SwiGLU(config.hidden_size, config.moe_intermediate_size) for _ in range(config.num_experts))
        self.shared_experts = SwiGLU(config.hidden_size, config.moe_intermediate_size * config.num_shared_experts)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, L, H]` to `[B, L, H]`."""
        tokens = x.flatten(0, -2)
        return combine(self.experts, tokens, *self.gate(tokens)).view_as(x) + self.shared_experts(x)


def check_experts(config: ModelConfig) -> None:
    """`ValueError` in one sentence for a router that cannot choose."""
    experts, groups, kept, k = config.num_experts, config.n_group, config.topk_group, config.num_experts_per_tok
    if groups < 1 or experts % groups:
        raise ValueError(f"{experts} experts cannot be split into {groups} equal groups; choose n_group so that it divides num_experts")
    if not 1 <= kept <= groups:
        raise ValueError(f"topk_group must lie between 1 and n_group = {groups}, got {kept}")
    if not 1 <= k <= kept * (experts // groups):
        raise ValueError(f"{k} experts a token cannot be chosen from {kept} groups of {experts // groups}; lower num_experts_per_tok")
    if config.num_shared_experts < 1:
        raise ValueError(f"num_shared_experts must be at least 1, got {config.num_shared_experts}")


def balance_experts(module: nn.Module, rate: float) -> None:
    """`Router.balance` for every router of a model; nothing for a dense one."""
    for part in module.modules():
        if isinstance(part, Router):
            part.balance(rate)


UNFUSED = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")


FUSED = re.compile(r"(.*\.mlp\.experts)\.(gate_proj|up_proj|down_proj)")


def fuse_experts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The official training layout, all experts of a projection in one tensor `[E, out, in]`; other keys stay."""
    fused = {k: v for k, v in tensors.items() if not UNFUSED.fullmatch(k)}
    stacks: dict[str, dict[int, Tensor]] = {}
    for key, value in tensors.items():
        if found := UNFUSED.fullmatch(key):
            stacks.setdefault(f"{found[1]}.{found[3]}", {})[int(found[2])] = value
    for key, parts in stacks.items():
        if missing := set(range(max(parts) + 1)) - set(parts):
            raise ValueError(f"expert {min(missing)} is missing in {key}; the checkpoint is incomplete")
        fused[key] = torch.stack([parts[e] for e in range(len(parts))])
    return fused


def unfuse_experts(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `fuse_experts`: one tensor an expert, as the released checkpoint and this package have them."""
    unfused = {}
    for key, value in tensors.items():
        if found := FUSED.fullmatch(key):
            unfused |= {f"{found[1]}.{e}.{found[2]}.weight": part for e, part in enumerate(value)}
        else:
            unfused[key] = value
    return unfused

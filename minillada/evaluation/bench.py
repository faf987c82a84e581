"""Speed against a plainer way of computing the same thing: `minillada bench sampler | train | moe`.

Notable choices
- Each benchmark is a pair of calls, `ours` and `theirs`, which keep what they computed.
- The report is one flat dictionary: `ratio` (how many times as fast ours is, the median over pairs
  of runs), `equal` (whether both gave the same result in the same run), and the setting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checkpoint, diffusion, moe
from ..batching import Batch
from ..config import ModelConfig, ObjectiveConfig, SamplingConfig
from ..experts import Experts, combine_dense, combine_grouped
from ..extras.graphs import Graphs
from ..masks import block_causal_mask, block_diffusion_mask
from ..measure import timing
from ..model import Backbone
from ..sampler import Generation, Recorder, Tokens, generate
from ..settings import changed
from ..vocab import load_vocabulary


@dataclass(frozen=True)
class Setting:
    """Where and how often a benchmark runs."""

    device: str = "cpu"
    seed: int = 0
    pairs: int = 3

    def source(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def text_ids(self, rows: int, length: int) -> Tensor:
        """Random ids of bytes `[rows, length]`."""
        return torch.randint(0, 256, (rows, length), generator=self.source()).to(self.device)

    def backbone(self, context: int) -> Backbone:
        """The shipped `mnist` backbone with another length of context."""
        backbone, _ = checkpoint.load_model("mnist", Backbone, self.device)
        backbone.config = changed(backbone.config, max_position_embeddings=context)
        return backbone

    def compare(self, ours: Callable[[], object], theirs: Callable[[], object]) -> dict:
        ratio = timing.speed_ratio(ours, theirs, self.device, self.pairs)
        return ratio | self.where()

    def where(self) -> dict:
        """What a reader must know about the machine."""
        threads = torch.get_num_threads()
        return {"device": self.device, "card": timing.card(self.device), "threads": threads}


def per_second(report: dict, name: str, count: int) -> dict:
    """`count` over the seconds of both ways."""
    return {f"{name}_{who}": count / report[f"seconds_{who}"] for who in ("ours", "theirs")}


# --- decoding ------------------------------------------------------------------------------------


class PipelineModel(nn.Module):
    """Our backbone as `diffusers.LLaDA2Pipeline` calls a model.

    The pipeline leaves the block-causal mask to the model, so it is made here.
    """

    def __init__(self, backbone: Backbone, block_size: int):
        super().__init__()
        self.backbone, self.block_size = backbone, block_size

    @property
    def device(self) -> torch.device:
        return self.backbone.lm_head.weight.device

    def forward(self, ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> SimpleNamespace:
        index = torch.arange(ids.shape[1], device=ids.device)
        mask = block_causal_mask(index, index, self.block_size)
        return SimpleNamespace(logits=self.backbone(ids, mask, position_ids))


class Decoding:
    """`sampler.generate`, greedily: 32 steps a block of 32, and the released threshold of 0.95.

    On a GPU of CUDA its steps are recorded, unless `eager` is asked for.
    """

    prompt_length, block_size, steps, threshold = 64, 32, 32, 0.95

    def __init__(self, setting: Setting, length: int, batch: int):
        self.length = length
        self.backbone = setting.backbone(self.prompt_length + length + self.block_size)
        # Text ids only: a mask in the prompt would be a token that is not there yet. The mask's row
        # of the head is 0, so that its logit is 0, too low for either loop to write it.
        self.ids = setting.text_ids(batch, self.prompt_length)
        self.mask_id = load_vocabulary(512).mask_id  # with the 512 codes of `mnist`
        with torch.no_grad():
            self.backbone.lm_head.weight[self.mask_id] = 0
        self.recorder = Graphs() if timing.is_cuda(setting.device) else None

    def ours(self) -> Generation:
        """The fastest way on this device."""
        self.made = self.decode(self.recorder or True)
        return self.made

    def eager(self) -> Generation:
        """Without recorded steps."""
        self.made_eagerly = self.decode(True)
        return self.made_eagerly

    def decode(self, cache: bool | Recorder) -> Generation:
        config = SamplingConfig(
            block_size=self.block_size, steps=self.steps, threshold=self.threshold, temperature=0.0
        )
        tokens = Tokens(self.mask_id)
        return generate(self.backbone, self.ids, self.length, config, tokens, cache=cache)


class BothLoops(Decoding):
    """The same, and `diffusers.LLaDA2Pipeline` with the same backbone and settings."""

    def __init__(self, setting: Setting, length: int, batch: int):
        try:
            from diffusers import BlockRefinementScheduler, LLaDA2Pipeline
        except ImportError:
            raise ValueError(
                'the peer of this benchmark is missing; install it with `pip install -e ".[bench]"`'
            ) from None
        super().__init__(setting, length, batch)
        scheduler = BlockRefinementScheduler(block_length=self.block_size)
        model = PipelineModel(self.backbone, self.block_size)
        self.pipeline = cast(Any, LLaDA2Pipeline(model=model, scheduler=scheduler))
        self.pipeline.set_progress_bar_config(disable=True)

    def theirs(self) -> None:
        self.their_ids = self.pipeline(
            input_ids=self.ids,
            gen_length=self.length,
            block_length=self.block_size,
            num_inference_steps=self.steps,
            temperature=0.0,
            sampling_method="greedy",
            threshold=self.threshold,
            editing_threshold=None,
            eos_early_stop=False,
            mask_token_id=self.mask_id,
            output_type="seq",
        ).sequences


def graph_steps(setting: Setting, decoding: Decoding) -> dict:
    """What CUDA graphs gain, a step; nothing on devices without them."""
    if decoding.recorder is None:
        return {}
    seconds = timing.speed_ratio(decoding.ours, decoding.eager, setting.device, setting.pairs)
    return {
        "milliseconds_a_step_graph": 1000 * seconds["seconds_ours"] / decoding.made.forwards,
        "milliseconds_a_step_eager": 1000 * seconds["seconds_theirs"] / decoding.made.forwards,
        "ratio_eager": seconds["ratio"],
        "equal_eager": torch.equal(decoding.made.ids, decoding.made_eagerly.ids),
    }


def bench_sampler(setting: Setting, length: int = 512, batch: int = 8) -> dict:
    """Decoding with the exact cache against the pipeline of diffusers, which has none."""
    decoding = BothLoops(setting, length, batch)
    report = setting.compare(decoding.ours, decoding.theirs)
    differing = int((decoding.made.ids != decoding.their_ids).sum())
    return {
        "benchmark": "sampler",
        **report,
        "equal": differing == 0,
        "tokens_differing": differing,
        **per_second(report, "tokens_per_second", batch * length),
        **graph_steps(setting, decoding),
        "new_tokens": length,
        "batch": batch,
        "prompt": decoding.prompt_length,
        "block_size": decoding.block_size,
    }


# --- training ------------------------------------------------------------------------------------


class TrainingStep:
    """Forward and backward on random ids; both ways supervise the same tokens at the same masks."""

    block_size = 16

    def __init__(self, setting: Setting, length: int, batch: int, views: int):
        self.setting, self.views = setting, views
        self.backbone = setting.backbone(2 * length)
        self.ids = setting.text_ids(batch, length)  # [B, L]
        self.targets = torch.ones_like(self.ids, dtype=torch.bool)
        self.vocab = load_vocabulary(512)
        self.objective = ObjectiveConfig(mask_rate=(0.05, 0.95), complementary=True, views=views)

    def gradient(self, loss: Tensor) -> Tensor:
        """Of all parameters, in one vector."""
        # Gradients are returned, not added to the parameters: steps do not touch each other.
        gradients = torch.autograd.grad(loss, list(self.backbone.parameters()))
        return torch.cat([gradient.flatten() for gradient in gradients])

    def ours(self) -> None:
        """All views share one clean pass, with tiled attention."""
        rows = Batch(self.ids, self.targets, self.targets)
        loss, _ = diffusion.block_diffusion_loss(
            self.backbone, rows, self.vocab, self.block_size, self.objective, self.setting.source()
        )
        self.our_gradient = self.gradient(loss)

    def theirs(self) -> None:
        """Each view, and then its inverse, is a step of its own."""
        source = self.setting.source()
        # The same random numbers in the same order as ours, so that the masks are the same.
        ids, targets = (part.repeat_interleave(self.views, 0) for part in (self.ids, self.targets))
        blocks = ids.shape[1] // self.block_size
        rates = diffusion.sample_mask_rates(len(ids), blocks, *self.objective.mask_rate, source)
        rates = rates.to(ids.device)  # [B·views, L / block]
        noisy = diffusion.corrupt(ids, targets, rates, self.block_size, self.vocab.mask_id, source)
        gradients = []
        for view in range(self.views):
            asked = noisy.masked[view :: self.views]  # [B, L]
            t = rates[view :: self.views].repeat_interleave(self.block_size, 1)
            gradients.append(self.gradient(self.plain_loss(asked, 1 / t)))
            gradients.append(self.gradient(self.plain_loss(~asked, 1 / (1 - t))))
        self.their_gradient = torch.stack(gradients).mean(0)

    def plain_loss(self, masked: Tensor, weight: Tensor) -> Tensor:
        """The loss of one view as one would first write it.

        Both halves whole, the dense (2L)² mask, and logits at all 2L positions.
        """
        length = self.ids.shape[1]
        index = torch.arange(length, device=self.ids.device)
        mask = block_diffusion_mask(index, index, self.block_size)
        noisy = self.ids.masked_fill(masked, self.vocab.mask_id)
        positions = torch.cat([index, index])[None]
        logits = self.backbone(torch.cat([noisy, self.ids], 1), mask, positions)[:, :length]
        nats = F.cross_entropy(logits.flatten(0, 1), self.ids.flatten(), reduction="none")
        return (nats.view(self.ids.shape) * weight * masked).sum() / self.ids.numel()


def bench_train(setting: Setting, length: int = 512, batch: int = 4, views: int = 2) -> dict:
    """A training step with complementary views against one that forwards each view by itself."""
    if length % TrainingStep.block_size:
        raise ValueError(f"length must be a multiple of {TrainingStep.block_size}, got {length}")
    step = TrainingStep(setting, length, batch, views)
    report = setting.compare(step.ours, step.theirs)
    error = float((step.our_gradient - step.their_gradient).norm() / step.their_gradient.norm())
    # A view and its inverse ask every token once.
    supervised = batch * length * views
    return {
        "benchmark": "train",
        **report,
        "equal": error < 1e-4,
        "gradient_difference": error,
        **per_second(report, "supervised_tokens_per_second", supervised),
        "length": length,
        "batch": batch,
        "views": 2 * views,
        "block_size": step.block_size,
    }


# --- experts -------------------------------------------------------------------------------------


def sparse_loop(experts: Experts, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """A loop that one would write to save work: each expert looks up its own tokens."""
    out = torch.zeros_like(x)
    for number, expert in enumerate(experts.apart()):
        token, slot = (chosen == number).nonzero(as_tuple=True)
        out.index_add_(0, token, expert(x[token]) * weights[token, slot, None])
    return out


class ExpertLayer:
    """The forward pass of one layer of 64 experts, top-8 in 4 of 8 groups."""

    config = ModelConfig(
        vocab_size=2, hidden_size=160, moe_intermediate_size=64,
        num_experts=64, num_experts_per_tok=8, n_group=8, topk_group=4,
    )  # fmt: skip

    def __init__(self, setting: Setting, tokens: int):
        torch.manual_seed(setting.seed)
        self.setting = setting
        self.layer = moe.MixtureOfExperts(self.config).to(setting.device).eval()
        # Only the experts are timed: what the router chooses is computed once.
        self.x = torch.randn(tokens, self.config.hidden_size, device=setting.device)
        with torch.no_grad():
            self.chosen, self.weights = self.layer.gate(self.x)  # each [tokens, 8]
        self.ours = partial(self.run, combine_grouped)
        self.formula = partial(self.run, combine_dense)
        self.loop = partial(self.run, sparse_loop)

    @torch.no_grad()
    def run(self, combine: Callable) -> Tensor:
        return combine(self.layer.experts, self.x, self.chosen, self.weights)


def bench_moe(setting: Setting, tokens: int = 2048) -> dict:
    """The grouped path against the formula, in which every expert computes every token.

    `ratio_sparse_loop` compares it with a loop in which each expert looks up its tokens.
    """
    layer = ExpertLayer(setting, tokens)
    report = setting.compare(layer.ours, layer.formula)
    loop = setting.compare(layer.ours, layer.loop)
    ours = layer.ours()
    errors = [float((ours - other()).abs().max()) for other in (layer.formula, layer.loop)]
    return {
        "benchmark": "moe",
        **report,
        "ratio_sparse_loop": loop["ratio"],
        "equal": max(errors) < 1e-5,
        "largest_difference": max(errors),
        "tokens": tokens,
        "experts": layer.config.num_experts,
        "top_k": layer.config.num_experts_per_tok,
        "hidden_size": layer.config.hidden_size,
        "moe_intermediate_size": layer.config.moe_intermediate_size,
    }

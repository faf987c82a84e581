"""Speed against a plainer way of computing the same thing: `minillada bench sampler | train | moe`.

Each benchmark returns one flat dictionary: `ratio` (how many times as fast ours is, the median over pairs of runs),
`equal` (whether both gave the same result, checked in the same run), and the setting.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import checkpoint, diffusion, moe
from ..batching import Batch
from ..config import ModelConfig, ObjectiveConfig, SamplingConfig
from ..masks import block_causal_mask, block_diffusion_mask
from ..measure import timing
from ..model import Backbone
from ..sampler import Tokens, generate
from ..settings import changed
from ..vocab import load_vocabulary


class PipelineModel(nn.Module):
    """Our backbone as `diffusers.LLaDA2Pipeline` calls a model; the block-causal mask, which it leaves to the model, is ours."""

    def __init__(self, backbone: Backbone, block_size: int):
        super().__init__()
        self.backbone, self.block_size = backbone, block_size

    @property
    def device(self) -> torch.device:
        return self.backbone.lm_head.weight.device

    def forward(self, ids: Tensor, attention_mask: Tensor, position_ids: Tensor) -> SimpleNamespace:
        index = torch.arange(ids.shape[1], device=ids.device)
        return SimpleNamespace(logits=self.backbone(ids, block_causal_mask(index, index, self.block_size), position_ids))


def bench_sampler(
    length: int = 512, batch: int = 8, prompt: int = 64, block_size: int = 32, pairs: int = 3, device: str = "cpu", seed: int = 0
) -> dict:
    """Tokens per second of `sampler.generate` over those of `diffusers.LLaDA2Pipeline` driving the same backbone, greedily.

    The backbone is the shipped `mnist` one with a longer context; the prompts are random ids. Both take 32 steps a block and the
    released threshold of 0.95.
    """
    try:
        from diffusers import BlockRefinementScheduler, LLaDA2Pipeline
    except ImportError:
        raise ValueError("the peer of this benchmark is missing; install it with `pip install -e .[bench]`") from None
    backbone, _ = checkpoint.load_model("mnist", Backbone, device)
    backbone.config = changed(backbone.config, max_position_embeddings=prompt + length + block_size)
    vocab = load_vocabulary(512)
    # Text ids only: the mask stands for a token that is not there yet, and both loops must agree that nobody may choose it.
    ids = torch.randint(0, 256, (batch, prompt), generator=torch.Generator().manual_seed(seed)).to(device)
    with torch.no_grad():
        backbone.lm_head.weight[vocab.mask_id] = 0
    pipeline = LLaDA2Pipeline(model=PipelineModel(backbone, block_size), scheduler=BlockRefinementScheduler(block_length=block_size))
    pipeline.set_progress_bar_config(disable=True)
    config = SamplingConfig(block_size=block_size, steps=32, threshold=0.95, temperature=0.0)

    written = {}

    def ours() -> None:
        written["ours"] = generate(backbone, ids, length, config, Tokens(vocab.mask_id)).ids

    def theirs() -> None:
        written["theirs"] = pipeline(
            input_ids=ids, gen_length=length, block_length=block_size, num_inference_steps=32, temperature=0.0, sampling_method="greedy",
            threshold=0.95, editing_threshold=None, eos_early_stop=False, mask_token_id=vocab.mask_id, output_type="seq",
        ).sequences  # fmt: skip

    report = timing.speed_ratio(ours, theirs, device, pairs)
    differing = int((written["ours"] != written["theirs"]).sum())
    return {
        "benchmark": "sampler",
        **report,
        "equal": differing == 0,
        "tokens_differing": differing,
        "tokens_per_second_ours": batch * length / report["seconds_ours"],
        "tokens_per_second_theirs": batch * length / report["seconds_theirs"],
        "new_tokens": length,
        "batch": batch,
        "prompt": prompt,
        "block_size": block_size,
        "device": device,
        "threads": torch.get_num_threads(),
    }


def plain_loss(backbone: Backbone, ids: Tensor, noisy_ids: Tensor, masked: Tensor, weight: Tensor, block_size: int) -> Tensor:
    """The loss of one view as one would first write it: both halves whole, the dense (2L)² mask, logits at all 2L positions."""
    index = torch.arange(ids.shape[1], device=ids.device)
    mask = block_diffusion_mask(index, index, block_size)
    logits = backbone(torch.cat([noisy_ids, ids], 1), mask, torch.cat([index, index])[None])[:, : ids.shape[1]]
    nats = F.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view(ids.shape)
    return (nats * weight * masked).sum() / ids.numel()


def bench_train(
    length: int = 512, batch: int = 4, views: int = 2, block_size: int = 16, pairs: int = 3, device: str = "cpu", seed: int = 0
) -> dict:
    """A training step of `diffusion.block_diffusion_loss` with complementary views over one that forwards each view by itself, plainly.

    Forward and backward of the shipped `mnist` backbone on random ids; both steps supervise the same tokens at the same masks.
    """
    backbone, _ = checkpoint.load_model("mnist", Backbone, device)
    backbone.config = changed(backbone.config, max_position_embeddings=2 * length)
    ids = torch.randint(0, 256, (batch, length), generator=torch.Generator().manual_seed(seed)).to(device)
    targets, vocab = torch.ones_like(ids, dtype=torch.bool), load_vocabulary(512)
    objective = ObjectiveConfig(mask_rate=(0.05, 0.95), complementary=True, views=views)
    gradients = {}

    def step(name: str, loss: Tensor) -> None:
        gradients[name] = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(backbone.parameters()))])

    def ours() -> None:
        source = torch.Generator().manual_seed(seed)
        rows = Batch(ids, targets, targets)
        loss, _ = diffusion.block_diffusion_loss(backbone, rows, vocab, block_size, objective, source)
        step("ours", loss)

    def theirs() -> None:
        source = torch.Generator().manual_seed(seed)
        blocks = length // block_size
        rates = diffusion.sample_mask_rates(batch * views, blocks, *objective.mask_rate, source).to(device)
        masked = diffusion.corrupt(
            ids.repeat_interleave(views, 0), targets.repeat_interleave(views, 0), rates, block_size, vocab.mask_id, source
        ).masked
        total = torch.zeros_like(gradients["ours"])
        for view in range(views):
            t = rates[view::views].repeat_interleave(block_size, 1)
            for asked, weight in ((masked[view::views], 1 / t), (~masked[view::views], 1 / (1 - t))):
                step("theirs", plain_loss(backbone, ids, ids.masked_fill(asked, vocab.mask_id), asked, weight, block_size))
                total += gradients["theirs"] / (2 * views)
        gradients["theirs"] = total

    report = timing.speed_ratio(ours, theirs, device, pairs)
    error = float((gradients["ours"] - gradients["theirs"]).norm() / gradients["theirs"].norm())
    supervised = batch * length * views  # a view and its inverse ask every token once
    return {
        "benchmark": "train",
        **report,
        "equal": error < 1e-4,
        "gradient_difference": error,
        "supervised_tokens_per_second_ours": supervised / report["seconds_ours"],
        "supervised_tokens_per_second_theirs": supervised / report["seconds_theirs"],
        "length": length,
        "batch": batch,
        "views": 2 * views,
        "block_size": block_size,
        "device": device,
        "threads": torch.get_num_threads(),
    }


def sparse_loop(experts: nn.ModuleList, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """What one would write next after the formula: each expert looks up its own tokens."""
    out = torch.zeros_like(x)
    for e, expert in enumerate(experts):
        token, slot = (chosen == e).nonzero(as_tuple=True)
        out.index_add_(0, token, expert(x[token]) * weights[token, slot, None])
    return out


def bench_moe(tokens: int = 2048, hidden: int = 160, width: int = 64, pairs: int = 15, device: str = "cpu", seed: int = 0) -> dict:
    """One layer of 64 experts, top-8 in 4 of 8 groups, forward: `ratio` compares the grouped path with the formula, in which every
    expert computes every token, `ratio_sparse_loop` with a loop in which each expert looks up its tokens."""
    torch.manual_seed(seed)
    config = ModelConfig(
        vocab_size=1, hidden_size=hidden, num_experts=64, num_experts_per_tok=8, n_group=8, topk_group=4, moe_intermediate_size=width
    )
    mixture = moe.MixtureOfExperts(config).to(device).eval()
    x = torch.randn(tokens, hidden, device=device)
    chosen, weights = (part.detach() for part in mixture.gate(x))

    @torch.no_grad()
    def run(combine) -> Tensor:
        return combine(mixture.experts, x, chosen, weights)

    def against(other) -> dict:
        return timing.speed_ratio(lambda: run(moe.combine_grouped), lambda: run(other), device, pairs)

    error = max(float((run(moe.combine_grouped) - run(other)).abs().max()) for other in (moe.combine_dense, sparse_loop))
    return {
        "benchmark": "moe",
        **against(moe.combine_dense),
        "ratio_sparse_loop": against(sparse_loop)["ratio"],
        "equal": error < 1e-5,
        "largest_difference": error,
        "tokens": tokens,
        "experts": 64,
        "top_k": 8,
        "hidden_size": hidden,
        "moe_intermediate_size": width,
        "device": device,
        "threads": torch.get_num_threads(),
    }

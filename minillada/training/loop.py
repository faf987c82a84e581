"""One training loop."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from ..config import TrainingConfig
from ..moe import balance_experts
from ..training.optim import learning_rate, make_optimizers
from ..training.state import load_state, open_log, save_state

Loss = Callable[[int], tuple[Tensor, dict]]  # step -> (loss to minimise, numbers to log)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of every random number of one training step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def batch_indices(count: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Indices `[batch_size]` of step `step`: consecutive slices of one fresh permutation an epoch."""
    per_epoch = max(count // batch_size, 1)
    epoch, slot = divmod(step, per_epoch)
    order = torch.randperm(count, generator=step_generator(seed, -epoch - 1))
    return order[slot * batch_size : (slot + 1) * batch_size]


def fit(
    module: nn.Module,
    loss: Loss,
    config: TrainingConfig,
    out: Path | None = None,
    resume: bool = False,
    stop_after: int | None = None,
    save_every: int = 500,
    description: str = "training",
    after_step: Callable[[int], None] | None = None,
) -> list[dict]:
    """Train `module` in place and return one record a step: loss, metrics, gradient norm, learning rate.

    With `out`, records go to `out/metrics.jsonl` and state to `out/state.safetensors` every `save_every` steps and at
    the end; `resume` continues from there. `stop_after` ends the run early at that step, state saved, as an
    interruption would. `after_step` is called with the number of finished steps. Raises `FileNotFoundError` if there is nothing to resume and `FloatingPointError` if the loss is not finite.
    """
    optimizers = make_optimizers(module, config)
    device = next(module.parameters()).device
    start = load_state(out, module, optimizers, config) if resume and out else 0
    end = config.steps if stop_after is None else min(stop_after, config.steps)
    log = open_log(out, start) if out else None
    records: list[dict] = []
    module.train()
    on_cpu_bf16 = config.bfloat16 and device.type == "cpu"
    bar = tqdm(range(start, end), initial=start, total=config.steps, desc=description, mininterval=1.0, file=sys.stderr)
    try:
        for step in bar:
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = learning_rate(config, step)
            # The fused attention's bfloat16 backward takes twice the time of the plain one on CPUs. The choice must hold for the
            # backward pass, too, which computes checkpointed layers again.
            with sdpa_kernel(SDPBackend.MATH) if on_cpu_bf16 else nullcontext():
                with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
                    value, metrics = loss(step)
                if not torch.isfinite(value):
                    raise FloatingPointError(
                        f"the loss is {float(value.detach())} at step {step}; lower the learning rate or resume from an earlier state"
                    )
                module.zero_grad(set_to_none=True)
                value.backward()
            norm = nn.utils.clip_grad_norm_(module.parameters(), config.optim.grad_clip)
            for optimizer in optimizers:
                optimizer.step()
            balance_experts(module, config.optim.balance_rate)
            record = {"step": step, "loss": float(value.detach()), **metrics, "grad_norm": float(norm), "lr": learning_rate(config, step)}
            records.append(record)
            if log:
                log.write(json.dumps(record) + "\n")
            if step % 10 == 0:
                bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
            if out and ((step + 1) % save_every == 0 or step + 1 == end):
                log.flush()
                save_state(out, module, optimizers, step + 1, config)
            if after_step:
                after_step(step + 1)
    finally:
        bar.close()
        if log:
            log.close()
        module.eval()
    return records

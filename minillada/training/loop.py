"""One training loop for judge, tokenizer and backbone; a stopped run can go on exactly.

Notable choices
- Every random number of step n comes from a generator seeded with (seed, n), and the order of an
  epoch from one seeded with (seed, epoch). Nothing depends on earlier random numbers. So a run that
  is stopped after any step and resumed ends with bit-identical weights, without storing generator
  states.
- Loss and gradient are checked before a step is taken: one number that is not finite would spoil
  all weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from ..config import TrainingConfig
from ..moe import balance_experts
from .optim import learning_rate, make_optimizers
from .run import Run, StopSignals
from .state import Learner

Loss = Callable[[int], tuple[Tensor, dict]]  # step -> (loss to minimise, numbers to log)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of every random number of one training step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def batch_indices(count: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Indices `[batch_size]` of step `step`, or all `[count]` if there are fewer.

    Steps take slices of a permutation that is new in every epoch; what fills no batch is left out.
    """
    per_epoch = max(count // batch_size, 1)
    epoch, slot = divmod(step, per_epoch)
    # Steps count from 0, so that negative numbers are free to seed the epochs.
    order = torch.randperm(count, generator=step_generator(seed, -epoch - 1))
    return order[slot * batch_size : (slot + 1) * batch_size]


def fit(
    module: nn.Module,
    loss: Loss,
    config: TrainingConfig,
    run: Run | None = None,
    stop_after: int | None = None,
    after_step: Callable[[int], None] | None = None,
    description: str = "training",
) -> list[dict]:
    """Train `module` in place; one record a step: loss, metrics, gradient norm, learning rate.

    With a `run`, log and state go to its folder, and training goes on from there if it resumes.
    `stop_after` ends the run early at that step, as an interruption would. `after_step` is called
    with the number of finished steps. `FloatingPointError` if loss or gradient are not finite.
    """
    learner = Learner(module, make_optimizers(module, config))
    start = run.begin(learner, config) if run else 0
    end = config.steps if stop_after is None else min(stop_after, config.steps)
    steps = range(start, end)
    bar = tqdm(steps, description, config.steps, mininterval=1.0, file=sys.stderr, initial=start)
    records: list[dict] = []
    module.train()
    try:
        with StopSignals(listen=run is not None) as stop:
            for step in bar:
                record = train_step(learner, loss, config, step)
                records.append(record)
                if step % 10 == 0:
                    bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
                # After a signal the process is about to end: this state is saved as the last one.
                stopped = stop.received is not None
                if run:
                    run.record(record, last=stopped or step + 1 == end)
                if after_step:
                    after_step(step + 1)
                if stopped:
                    break
            # Ends the process if there was a signal; otherwise nothing happens.
            stop.leave(f"stopped after {start + len(records)} of {config.steps} steps")
    finally:
        bar.close()
        if run:
            run.close()
        module.eval()
    return records


def train_step(learner: Learner, loss: Loss, config: TrainingConfig, step: int) -> dict:
    """One step: loss, gradient, clipping, update. Returns its record."""
    module = learner.module
    device = next(module.parameters()).device
    rate = learning_rate(config, step)
    for optimizer in learner.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    # 1. the loss, and its gradient; metrics are plain numbers
    with attention_kernel(config, device):
        with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
            value, metrics = loss(step)
        check_number("loss", value, step)
        module.zero_grad(set_to_none=True)
        value.backward()
    # 2. a gradient longer than `grad_clip` is cut to that length
    norm = nn.utils.clip_grad_norm_(module.parameters(), config.optim.grad_clip)
    check_number("gradient norm", norm, step)
    # 3. the update
    for optimizer in learner.optimizers:
        optimizer.step()
    # The loads of experts are balanced by a rule, not by gradient; without experts: no effect.
    balance_experts(module, config.optim.balance_rate)
    record = {"step": step, "loss": float(value.detach()), **metrics}
    return record | {"grad_norm": float(norm), "lr": rate}


def attention_kernel(config: TrainingConfig, device: torch.device) -> AbstractContextManager:
    """The kernel of attention that is fastest for training.

    On CPUs the fused attention's bfloat16 backward takes twice the time of the plain one. The
    choice must hold for the backward pass, too, which computes checkpointed layers again.
    """
    if config.bfloat16 and device.type == "cpu":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def check_number(name: str, value: Tensor, step: int) -> None:
    """`FloatingPointError` unless the number is finite."""
    if not torch.isfinite(value):
        raise FloatingPointError(
            f"the {name} is {float(value.detach())} at step {step}; lower the learning rate or "
            "resume from an earlier state"
        )

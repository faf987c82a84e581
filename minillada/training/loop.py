"""One training loop for every kind of model; a stopped run can go on exactly.

Notable choices
- Every random number of step n comes from a generator seeded with (seed, n), and the order of an
  epoch from one seeded with (seed, epoch). Nothing depends on earlier random numbers. So a run that
  is stopped after any step and resumed ends with bit-identical weights, without storing generator
  states.
- Loss and gradient are checked before a step is taken: one number that is not finite would spoil
  all weights.
- A step may be computed in portions, by several processes or in several passes. What is updated,
  and what the record says, are those of the whole batch.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from ..config import TrainingConfig
from ..extras.halves import has_bfloat16
from ..moe import Router
from .distributed import Loss, Processes, whole_norm
from .optim import learning_rate, make_optimizers
from .run import Run, StopSignals
from .state import Learner


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

    `loss(step)` is the loss to minimise and a dict of numbers to log; in portions,
    `loss(step, portion)` is their share. With a `run`, log and state go to its folder,
    and training goes on from there if it resumes; it may be shared by several processes.
    `stop_after` ends the run early at that step, as an interruption would. `after_step` is called
    with the number of finished steps. `FloatingPointError` if loss or gradient are not finite.
    """
    processes = run.processes if run else Processes()
    learner, loss, start = begin(module, loss, config, run)
    end = config.steps if stop_after is None else min(stop_after, config.steps)
    steps = range(start, end)
    bar = progress(steps, description, config.steps, processes.is_first)
    records: list[dict] = []
    module.train()
    try:
        with StopSignals(run) as stop:
            for step in bar:
                record = train_step(learner, loss, config, step, processes)
                records.append(record)
                if step % 10 == 0:
                    bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
                # After a signal the process is about to end: this state is saved as the last one.
                # Of several processes, all stop after the same step, if any got a signal.
                stopped = processes.any(stop.received is not None)
                if run:
                    run.record(record, last=stopped or step + 1 == end)
                if after_step:
                    after_step(step + 1)
                if stopped:
                    break
            # A signal may also have come after the last step was looked at.
            if processes.any(stop.received is not None):
                done = start + len(records)
                stop.leave(f"stopped after {done} of {config.steps} steps")
    finally:
        bar.close()
        if run:
            run.close()
        module.eval()
    return records


def begin(
    module: nn.Module, loss: Loss, config: TrainingConfig, run: Run | None
) -> tuple[Learner, Loss, int]:
    """Learner and loss as this process holds them, and the step to begin with."""
    learner = Learner(module, make_optimizers(module, config))
    if run is None:
        return learner, loss, 0
    start = run.begin(learner, config)  # still whole, so that a stored state fits
    run.learner, loss = run.processes.share(learner, loss, config)
    return run.learner, loss, start


def progress(steps: range, description: str, total: int, shown: bool) -> tqdm:
    """The steps with a progress bar; of several processes only one shows it."""
    # If it is shown, the environment variable TQDM_DISABLE may still hide it.
    hidden = {} if shown else {"disable": True}
    return tqdm(
        steps, description, total, mininterval=1.0, file=sys.stderr, initial=steps.start, **hidden
    )


def train_step(
    learner: Learner, loss: Loss, config: TrainingConfig, step: int, processes: Processes
) -> dict:
    """One step: loss, gradient, clipping, update. Returns its record."""
    module = learner.module
    rate = learning_rate(config, step)
    for optimizer in learner.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    # 1. the loss, its gradient, and metrics, which are plain numbers
    # ddp keeps gradients in memory of its own (buckets). A new gradient would be a second copy.
    module.zero_grad(set_to_none=processes.sharding != "ddp")
    numbers = add_gradients(learner, loss, config, step, processes)
    check_number("loss", numbers["loss"], step)
    # 2. a gradient longer than `grad_clip` is cut to that length; its length before is recorded
    length = nn.utils.clip_grad_norm_(module.parameters(), config.optim.grad_clip)
    norm = float(whole_norm(length))
    check_number("gradient norm", norm, step)
    # 3. the update
    for optimizer in learner.optimizers:
        optimizer.step()
    # The loads of experts are balanced by a rule, not by gradient. A dense model has no router.
    for part in module.modules():
        if isinstance(part, Router):
            processes.add_up(part.received)
            part.balance(config.optim.balance_rate)
    return {"step": step, **numbers, "grad_norm": norm, "lr": rate}


def add_gradients(
    learner: Learner, loss: Loss, config: TrainingConfig, step: int, processes: Processes
) -> dict[str, float]:
    """Add the gradient of a step to the parameters; the loss and the metrics of its whole batch."""
    device = next(learner.module.parameters()).device
    low = computes_in_bfloat16(config, device)
    portions = processes.portions(config.accumulate)
    numbers: dict[str, float] = {}
    for portion in portions:
        with attention_kernel(low, device), processes.exchange(loss, portion is portions[-1]):
            with torch.autocast(device.type, torch.bfloat16, enabled=low):
                # Judges and painters are not trained in portions; their losses know of none.
                value, metrics = loss(step) if processes.alone(portion) else loss(step, portion)
            # DDP and FSDP divide the sum of gradients by the number of processes.
            (value * processes.count).backward()
        for name, number in {"loss": float(value.detach()), **metrics}.items():
            numbers[name] = numbers.get(name, 0) + number
    totals = processes.total(list(numbers.values()))
    return dict(zip(numbers, totals))


def computes_in_bfloat16(config: TrainingConfig, device: str | torch.device) -> bool:
    """Whether to compute in bfloat16: asked for, and not slower than float32 on this device."""
    return config.bfloat16 and has_bfloat16(device)


def attention_kernel(low: bool, device: torch.device) -> AbstractContextManager:
    """The kernel of attention that is fastest for training; `low`: in bfloat16.

    On CPUs the fused attention's bfloat16 backward takes twice the time of the plain one. The
    choice must hold for the backward pass, too, which computes checkpointed layers again.
    """
    if low and device.type == "cpu":
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


def check_number(name: str, value: float, step: int) -> None:
    """`FloatingPointError` unless the number is finite."""
    if not math.isfinite(value):
        raise FloatingPointError(
            f"the {name} is {value} at step {step}; lower the learning rate and begin a new run, "
            "from nothing or, with --start, from a snapshot"
        )

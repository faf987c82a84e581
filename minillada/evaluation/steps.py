"""How long a training step takes, and what its products alone would take: `minillada bench step`.

Notable choices
- The limit is a number of operations over a rate. Counted are the multiplications and additions of
  matrix products, convolutions and attention: forward, backward and update (Muon). The rate is that
  of one large matrix product in the same type on the same device: no step is expected to be faster.
- A step is a whole one: batch, loss, gradient, update.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from ..config import Preset
from ..measure import timing
from ..settings import changed
from ..training.checks import check_settings
from ..training.distributed import Processes, check_shared
from ..training.loop import computes_in_bfloat16, fit
from ..training.train import make_loss, new_model, read_materials
from .bench import Setting

WARM_UP = 5  # steps that are not timed: kernels are chosen, memory is taken


def bench_step(preset: Preset, setting: Setting, steps: int = 20) -> dict[str, Any]:
    """Milliseconds of a step of a preset from random weights, the limit, and how far it is.

    `ValueError` for text pieces, which are learned without steps, and for what cannot be trained.
    """
    if preset.kind == "text":
        raise ValueError("text pieces are learned without steps; name another preset")
    check_settings(preset, None)
    check_shared(preset, Processes())
    device, count = setting.device, WARM_UP + steps
    # A run stops at the last step of the preset, and all that are timed must be taken.
    preset = changed(preset, steps=max(preset.training.steps, count))
    training, half = preset.training, computes_in_bfloat16(preset.training, device)
    materials = read_materials(preset, device)
    module = new_model(preset, device, materials.tokenizer, materials.source)
    loss = make_loss(module, preset, materials)
    stamps: list[float] = []

    def note(step: int) -> None:
        timing.finish(device)
        stamps.append(time.perf_counter())

    # 1. the time between stamps, from the one that ends the warm-up on
    fit(module, loss, training, None, count, note)
    taken = [after - before for before, after in zip(stamps[WARM_UP - 1 :], stamps[WARM_UP:])]
    # 2. the operations of one more step (the import brings Triton: a third of a second)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        fit(module, loss, training, None, 1)
    operations = counter.get_total_flops()
    # 3. the limit
    rate = product_rate(torch.bfloat16 if half else torch.float32, device)
    lower, median, upper = timing.quartiles(taken)
    return {
        "benchmark": "step",
        "preset": preset.name,
        "milliseconds_a_step": 1000 * median,
        "milliseconds_quartiles": [1000 * lower, 1000 * upper],
        "examples_per_second": training.batch_size / median,
        "operations_a_step": operations,
        "operations_per_second_at_most": rate,
        "milliseconds_at_the_limit": 1000 * operations / rate,
        "times_the_limit": median * rate / operations,
        "batch_size": training.batch_size,
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "bfloat16": half,
        "steps": steps,
        **setting.where(),
    }


def product_rate(dtype: torch.dtype, device: str) -> float:
    """Multiplications and additions a second of a large matrix product."""
    size = 8192 if timing.is_cuda(device) else 2048
    a = torch.randn(size, size, device=device, dtype=dtype)
    seconds = timing.measure(lambda: a @ a, device, warmup=3, repeats=7).median
    return 2 * size**3 / seconds

"""How many forward passes a drawing takes, so that all runs of an ablation draw with equally many.

Without `--passes`, they take as many as drawings of the preset usually take with what is fixed. If
the plan sets one of `DECIDE_PASSES`, the passes follow from it, and are not made equal.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mode

from .. import checkpoint
from ..commit import quota
from ..config import ModelConfig, SamplingConfig
from ..datasets.table import DATASETS
from ..evaluation import evaluate
from ..guidance import padding_of
from ..layout import draw_branches
from ..settings import changed
from ..training.train import load_tokenizer
from ..uni import DRAW
from ..vocab import load_vocabulary
from .folder import PLAN, read_plan
from .plan import SAMPLING, Plan

# Settings that decide how many passes a drawing takes; with them, nothing is made equal.
DECIDE_PASSES = ("steps", "threshold", "adaptive", "edit_threshold", "minimal_topk", "fill_tail")
MOST_PASSES = 10_000  # that can be asked for
PROMPTS = 80  # from whose lengths the usual number of passes is counted


def count_passes(start: int, length: int, config: SamplingConfig) -> int:
    """Forward passes of `sampler.generate` that fill `length` tokens after `start` by quota."""
    start += padding_of(start, length, config)
    end, size, passes = start + length, config.block_size, 0
    steps = min(config.steps, length // config.minimal_topk)
    for first in range(start // size * size, end, size):
        masked, step = min(first + size, end) - max(first, start), 0
        while masked > 0:
            masked -= max(quota(size, steps, step), 1)
            step += 1
        passes += step
    return passes


def usual_passes(plan: Plan) -> int:
    """How many forward passes most drawings take by quota: 9 with 16 codes and blocks of 16."""
    preset = plan.preset_with()
    tokenizer, _, about = load_tokenizer(preset, "cpu")
    vocab = load_vocabulary(len(tokenizer.embedding), preset.text)
    # 1. how the runs draw: as the weights that they start from, if these have the same codes
    assert isinstance(preset.model, ModelConfig)
    values = {"block_size": preset.model.block_size}
    start = checkpoint.read_info(checkpoint.resolve(plan.start)) if plan.start else {}
    if start.get("tokenizer_sha256") == about["tokenizer_sha256"]:
        values |= start.get("drawing", {})
    for name, value in plan.fixed_settings(decoding=True).items():
        values[name.removeprefix(SAMPLING)] = value
    config = changed(DRAW, **values)
    # 2. prompts of several lengths: the block in which a prompt ends may hold the first codes
    data, grid = DATASETS[preset.dataset], tokenizer.grid
    taken = []
    for row in evaluate.balanced_prompts(PROMPTS, data):
        prompt, _ = draw_branches(vocab, data.grammar.caption(*row), grid)
        taken.append(count_passes(len(prompt), grid**2, config))
    return mode(taken)


def read_passes(text: str | None, plan: Plan, folder: Path) -> tuple[int, ...]:
    """`"9,16"` as numbers; without a text those of the folder, where the plan goes on.

    In a new folder the usual number, or none where settings of the plan decide it. `ValueError`
    for words that are no numbers, and where passes are asked for and decided by settings, too.
    """
    if text is None and (folder / PLAN).exists():
        return read_plan(folder).passes
    names = [name for name, _ in (*plan.fixed, *plan.varied)]
    deciding = [SAMPLING + name for name in DECIDE_PASSES if SAMPLING + name in names]
    if text is None:
        return () if deciding else (usual_passes(plan),)
    if deciding:
        raise ValueError(f"--passes and {deciding[0]} both decide the passes; choose one of them")
    passes = [int(part) if part.isascii() and part.isdigit() else 0 for part in text.split(",")]
    if not all(1 <= number <= MOST_PASSES for number in passes) or len(set(passes)) < len(passes):
        raise ValueError(f"--passes are different numbers from 1 to {MOST_PASSES}, got {text!r}")
    return tuple(passes)

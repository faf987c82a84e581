"""How do the short trainings of notebooks 04, 07 and 11 go, and how much do runs differ?

Each is trained with five seeds, and the means of ten steps each of its curves are stored; for
notebook 07 also what the finished model draws. The notebooks draw the band of these runs under the
reader's own curve, which has another seed. About twenty minutes on one core, most of it for 07.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import torch

from ..batching import Batch
from ..config import ModelConfig, ObjectiveConfig, TrainingConfig
from ..datasets import captions
from ..diffusion import block_diffusion_loss
from ..evaluation import evaluate
from ..measure.intervals import interval_of
from ..model import Backbone
from ..presets import get_preset
from ..settings import changed
from ..training import train
from ..training.loop import fit, step_generator
from ..training.run import LOG
from ..vocab import load_vocabulary
from .runner import Experiment, Lab, Point, main, over_seeds

PRESET, EVERY = "mnist-cpu", 10
CURVES = ("loss", "masked_nats", "grad_norm")
PAINTED = ("velocity", "features")  # the curves of a painter
PROMPTS, GUIDANCE = 300, 3.0
SEEDS = range(1, 6)  # notebook 07 itself trains with the seed 0


def means(values: list[float], every: int) -> list[float]:
    """The mean of each `every` values in a row; what is left over at the end is not used."""
    starts = range(0, len(values) - every + 1, every)
    return [round(sum(values[start : start + every]) / every, 4) for start in starts]


def logged(folder: Path, name: str) -> list[float]:
    """A number of every step of a run, such as `loss`, in order."""
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)[name] for line in lines]


def learn(lab: Lab, preset: str, every: int, prompts: int, guidance: float, seed: int) -> dict:
    """The curves of one training, and the share of its drawings that the judge calls right."""
    folder = lab.train(changed(get_preset(preset), seed=seed))
    found: dict[str, Any] = {curve: means(logged(folder, curve), every) for curve in CURVES}
    # The prompts are the same for every seed: what differs is the training.
    uni, judge = lab.load(folder), lab.judge()
    drawn = evaluate.evaluate_drawing(uni, judge, prompts, seed=1, guidance=guidance)
    for part in ("digit", "thickness", "slant"):
        name = f"draw_{part}_accuracy"
        found |= interval_of(drawn, name).entries(name)
    return found


def learn_captions(lab: Lab, every: int, steps: int, length: int, seed: int) -> dict:
    """The curve of the small model of notebook 04, section 7: all captions, in one block each."""
    vocab = load_vocabulary(0)
    rows = []
    for digit, thick, slant in product(range(10), (None, 0, 1), (None, 0, 1, 2)):
        text = vocab.encode(captions.caption(digit, thick, slant))
        row = vocab.markup("<role>ASSISTANT</role>") + text + [vocab.eos_id] * length
        rows.append(row[:length])
    ids = torch.tensor(rows)  # [120, length]
    # What may be masked, and as nothing is padding also what is real: all but the start token.
    targets = torch.arange(length).expand(len(ids), length) >= 1  # [120, length]
    torch.manual_seed(seed)
    width = {"hidden_size": 64, "intermediate_size": 128}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes = {"vocab_size": vocab.size, "block_size": length, **width, **heads}
    backbone = Backbone(ModelConfig(initializer_range=0.05, **sizes))

    def loss(step: int):
        generator = step_generator(seed, step)
        chosen = torch.randint(len(ids), (128,), generator=generator)
        batch = Batch(ids[chosen], targets[chosen], targets[chosen])
        return block_diffusion_loss(backbone, batch, vocab, length, ObjectiveConfig(), generator)

    config = changed(TrainingConfig(), steps=steps, learning_rate=3e-3, warmup_steps=10)
    return {"loss": means([record["loss"] for record in fit(backbone, loss, config)], every)}


def learn_painter(lab: Lab, preset: str, every: int, steps: int, seed: int) -> dict:
    """The curves of the painter of notebook 11, section 5."""
    short = changed(get_preset(preset), steps=steps, seed=seed)
    # The training reads both, but not through the lab.
    lab.note(short.tokenizer)
    lab.note(short.teacher)
    materials = train.read_materials(short, "cpu")
    painter = train.new_model(short, "cpu", materials.tokenizer)
    records = fit(painter, train.make_loss(painter, short, materials), short.training)
    return {name: means([record[name] for record in records], every) for name in PAINTED}


SETTINGS = {"preset": PRESET, "every": EVERY, "prompts": PROMPTS, "guidance": GUIDANCE}
PAINTER = {"preset": "mnist-painter", "every": EVERY, "steps": 120}
CAPTIONS = {"every": EVERY, "steps": 300, "length": 8}
POINTS = over_seeds(SEEDS, [Point(("runs", PRESET), learn, SETTINGS)])
POINTS += over_seeds(SEEDS, [Point(("captions", "notebook 04"), learn_captions, CAPTIONS)])
POINTS += over_seeds(SEEDS, [Point(("painter", "notebook 11"), learn_painter, PAINTER)])
EXPERIMENT = Experiment(__file__, __doc__, POINTS, {"preset": PRESET, "every": EVERY})

if __name__ == "__main__":
    main(EXPERIMENT)

"""Ask what makes thoughts about new pairs of numbers come out right, and store the answers in `data/weights/drills.json`.

`python tests/compare_drills.py` goes on from the weights of `mnist-uni-style` with tasks of thinking alone, with and without the drills
`repeat` and `go_on`, and with fewer pairs kept out, then has every sum thought about in both orders of commitment. It also asks
whether a conclusion is read from the thought: the thought is written after the prompt of another sum. Half an hour on one core; finished
runs in `runs/drills` are not trained again. Notebook 09 shows the result.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from .. import layout
from ..config import SamplingConfig
from ..files import RESULTS_DIR, atomic
from ..presets import get_preset
from ..settings import changed
from ..tasks import thinking
from ..tasks.numbers import NUMBERS, SUMS, counting_trace
from ..training import train
from ..training.run import Run
from ..uni import DESCRIBE, THINK, THINKING_LENGTH, Uni, load

STEPS, START, FOLDER, RESULT = 400, "runs/mnist-uni-style", Path("runs/drills"), RESULTS_DIR / "drills.json"


PLAIN = (("sum_thinking", 1.0), ("count_on", 2.0))


# what is trained -> shares of the tasks, pairs kept out
RUNS = {
    "no drill": (PLAIN, 9),
    "more pairs": (PLAIN, 4),
    "repeat": ((*PLAIN, ("repeat", 1.0)), 9),
    "go on": ((*PLAIN, ("go_on", 2.0)), 9),
    "both": ((*PLAIN, ("repeat", 1.0), ("go_on", 2.0)), 9),
}


ORDERS = {"by confidence": DESCRIBE, "left to right": THINK}


def trained(mixture: tuple, held_out: int, run: Path) -> Uni:
    preset = get_preset("mnist-uni")
    settings = changed(preset.training, steps=STEPS, mixture=mixture, held_out=held_out, bfloat16=True)
    if not (run / "weights.safetensors").exists():
        train.train(changed(preset, training=settings), Run(run, resume=True), start=START)
    return load(run)


def think(uni: Uni, order: SamplingConfig) -> dict[str, list[str]]:
    """The thought about each of `SUMS`, for each wording."""
    report = {}
    for wording in thinking.SUM:
        asked = [wording.format(a=NUMBERS[a], b=NUMBERS[b]) for a, b in SUMS]
        prompts = [layout.prompt(uni.vocab, "think", [text]) for text in asked]
        thoughts, _ = uni.write_until_image(prompts, THINKING_LENGTH, order)
        report[wording] = [uni.vocab.decode(thought) for thought in thoughts]
    return report


def read(uni: Uni, least: int, most: int) -> list[bool]:
    """Whether right thoughts of `least` to `most` steps are concluded right after the prompt of every sum with another result."""
    asked, answers = [], []
    for a, b in SUMS:
        thought = uni.vocab.encode(counting_trace(a, b))
        for other in SUMS if least <= b + 1 <= most else []:
            if sum(other) != a + b:
                text = thinking.SUM[0].format(a=NUMBERS[other[0]], b=NUMBERS[other[1]])
                asked.append(layout.prompt(uni.vocab, "think", [text]) + thought[:-1])
                answers.append(thought[-1:])
    said, _ = uni.write(asked, 1, uni.sampling(THINK), torch.Generator())
    return [one == answer for one, answer in zip(said, answers, strict=True)]


if __name__ == "__main__":
    report = {"steps": STEPS, "sums": SUMS, "runs": {}}
    for name in ("before", *RUNS):
        uni = load(START) if name == "before" else trained(*RUNS[name], FOLDER / name.replace(" ", "-"))
        thoughts = {order: think(uni, config) for order, config in ORDERS.items()}
        conclusions = {"short": read(uni, 1, 2), "long": read(uni, 3, 10)}  # by the steps of a thought
        report["runs"][name] = {"thoughts": thoughts, "read": {length: sum(hits) / len(hits) for length, hits in conclusions.items()}}
        for order, table in thoughts.items():
            counts = {w: sum(t == counting_trace(*pair) for t, pair in zip(table[w], SUMS, strict=True)) for w in table}
            print(name, order, counts, report["runs"][name]["read"], flush=True)
        with atomic(RESULT) as temporary:
            temporary.write_text(json.dumps(report) + "\n")

"""Ask what makes thoughts about new pairs of numbers come out right, and store the answers in `data/weights/drills.json`.

`python tests/compare_drills.py` goes on from the weights of `mnist-uni-style` with tasks of thinking alone, with and without the drills
`repeat` and `go_on`, and with fewer pairs kept out, then has every sum thought about in both orders of commitment. It also asks
whether a conclusion is read from the thought: the thought is written after the prompt of another sum. Half an hour on one core; finished
runs in `runs/drills` are not trained again. Notebook 09 shows the result.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch

from minillada import checkpoint, data, examples, layout, tasks, train
from minillada.config import SamplingConfig, get_preset

STEPS, START, FOLDER, RESULT = 400, "runs/mnist-uni-style", Path("runs/drills"), data.WEIGHTS_DIR / "drills.json"
PLAIN = (("sum_thinking", 1.0), ("count_on", 2.0))
# what is trained -> shares of the tasks, pairs kept out
RUNS = {
    "no drill": (PLAIN, 9),
    "more pairs": (PLAIN, 4),
    "repeat": ((*PLAIN, ("repeat", 1.0)), 9),
    "go on": ((*PLAIN, ("go_on", 2.0)), 9),
    "both": ((*PLAIN, ("repeat", 1.0), ("go_on", 2.0)), 9),
}
ORDERS = {"by confidence": tasks.DESCRIBE, "left to right": tasks.THINK}


def trained(mixture: tuple, held_out: int, run: Path) -> tasks.Uni:
    preset = get_preset("mnist-uni")
    settings = replace(preset.training, steps=STEPS, mixture=mixture, held_out=held_out, bfloat16=True)
    if not (run / "weights.safetensors").exists():
        train.train(replace(preset, training=settings), run, start=START)
    return tasks.load(run)


def think(uni: tasks.Uni, order: SamplingConfig) -> dict[str, list[str]]:
    """The thought about each of `examples.SUMS`, for each wording."""
    report = {}
    for wording in examples.SUM:
        asked = [wording.format(a=examples.NUMBERS[a], b=examples.NUMBERS[b]) for a, b in examples.SUMS]
        prompts = [layout.prompt(uni.vocab, "think", [text]) for text in asked]
        thoughts, _ = uni.write_until_image(prompts, tasks.THINKING_LENGTH, order)
        report[wording] = [uni.vocab.decode(thought) for thought in thoughts]
    return report


def read(uni: tasks.Uni, least: int, most: int) -> list[bool]:
    """Whether right thoughts of `least` to `most` steps are concluded right after the prompt of every sum with another result."""
    asked, answers = [], []
    for a, b in examples.SUMS:
        thought = uni.vocab.encode(examples.counting_trace(a, b))
        for other in examples.SUMS if least <= b + 1 <= most else []:
            if sum(other) != a + b:
                text = examples.SUM[0].format(a=examples.NUMBERS[other[0]], b=examples.NUMBERS[other[1]])
                asked.append(layout.prompt(uni.vocab, "think", [text]) + thought[:-1])
                answers.append(thought[-1:])
    said, _ = uni.write(asked, 1, uni.sampling(tasks.THINK), torch.Generator())
    return [one == answer for one, answer in zip(said, answers, strict=True)]


if __name__ == "__main__":
    report = {"steps": STEPS, "sums": examples.SUMS, "runs": {}}
    for name in ("before", *RUNS):
        uni = tasks.load(START) if name == "before" else trained(*RUNS[name], FOLDER / name.replace(" ", "-"))
        thoughts = {order: think(uni, config) for order, config in ORDERS.items()}
        conclusions = {"short": read(uni, 1, 2), "long": read(uni, 3, 10)}  # by the steps of a thought
        report["runs"][name] = {"thoughts": thoughts, "read": {length: sum(hits) / len(hits) for length, hits in conclusions.items()}}
        for order, table in thoughts.items():
            counts = {w: sum(t == examples.counting_trace(*pair) for t, pair in zip(table[w], examples.SUMS, strict=True)) for w in table}
            print(name, order, counts, report["runs"][name]["read"], flush=True)
        with checkpoint.atomic(RESULT) as temporary:
            temporary.write_text(json.dumps(report) + "\n")

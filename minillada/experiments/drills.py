"""What makes thoughts about new pairs of numbers come out right?

Goes on from `mnist-uni-style` with tasks of thinking alone: with and without the drills `repeat`
and `go_on`, and with fewer pairs kept out. Then every sum is thought about in both orders of
commitment. A further question is whether a conclusion is read from its thought: the thought is
written after the prompt of another sum. Half an hour on one core; notebook 10 shows the result.

`runs/mnist-uni-style` must hold that stage (data/README.md says how it is trained).
"""

from __future__ import annotations

from .. import layout
from ..config import SamplingConfig
from ..presets import get_preset
from ..settings import changed
from ..tasks import thinking
from ..tasks.numbers import NUMBERS, SUMS, counting_trace
from ..uni import DESCRIBE, THINK, Uni
from .runner import Experiment, Lab, Point, main

STEPS, START = 400, "runs/mnist-uni-style"
PLAIN = (("sum_thinking", 1.0), ("count_on", 2.0))
REPEAT, GO_ON = ("repeat", 1.0), ("go_on", 2.0)
# name -> shares of the tasks, pairs kept out
RUNS = {
    "before": (None, 9),
    "no drill": (PLAIN, 9),
    "more pairs": (PLAIN, 4),
    "repeat": ((*PLAIN, REPEAT), 9),
    "go on": ((*PLAIN, GO_ON), 9),
    "both": ((*PLAIN, REPEAT, GO_ON), 9),
}
ORDERS = {"by confidence": DESCRIBE, "left to right": THINK}


def think(uni: Uni, order: SamplingConfig) -> dict[str, list[str]]:
    """The thought about each of `SUMS`, for each wording."""
    report = {}
    for wording in thinking.SUM.plain:
        asked = [wording.format(a=NUMBERS[a], b=NUMBERS[b]) for a, b in SUMS]
        prompts = [layout.prompt(uni.vocab, "think", [text]) for text in asked]
        thoughts, _ = uni.write_until_image(prompts, uni.thinking[0], order)
        report[wording] = [uni.vocab.decode(thought) for thought in thoughts]
    return report


def read(uni: Uni, least: int, most: int) -> float:
    """How often a conclusion is that of the thought before it, where the prompt asks another sum.

    The right thought about a sum, of `least` to `most` steps, is written after the prompt of every
    sum with another result. A model that concludes from the prompt is wrong there.
    """
    asked, answers = [], []
    for a, b in SUMS:
        steps = b + 1  # `counting_trace` begins with a itself and adds 1 b times
        if not least <= steps <= most:
            continue
        thought = uni.vocab.encode(counting_trace(a, b))
        for other in SUMS:
            if sum(other) == a + b:
                continue
            text = thinking.SUM.plain[0].format(a=NUMBERS[other[0]], b=NUMBERS[other[1]])
            # All but the last token is given; the last one is the conclusion.
            asked.append(layout.prompt(uni.vocab, "think", [text]) + thought[:-1])
            answers.append(thought[-1:])
    said, _ = uni.write([(prompt,) for prompt in asked], 1, uni.sampling(THINK), uni.tokens())
    hits = [one == answer for one, answer in zip(said, answers)]
    return sum(hits) / len(hits)


def measure(
    lab: Lab, start: str, steps: int, mixture: tuple | None, held_out: int
) -> dict[str, dict]:
    """All thoughts of the model after a short run, and how often conclusions are read."""
    run = start
    if mixture is not None:
        settings = {"steps": steps, "mixture": mixture, "held_out": held_out, "bfloat16": True}
        run = str(lab.train(changed(get_preset("mnist-uni-drills"), **settings), start=start))
    uni = lab.load(run)
    return {
        "thoughts": {order: think(uni, config) for order, config in ORDERS.items()},
        "read": {"short": read(uni, 1, 2), "long": read(uni, 3, 10)},
    }


POINTS = []
for name, (mixture, held_out) in RUNS.items():
    settings = {"start": START, "steps": STEPS, "mixture": mixture, "held_out": held_out}
    POINTS.append(Point(("runs", name), measure, settings))
EXPERIMENT = Experiment(__file__, __doc__, POINTS, {"steps": STEPS, "sums": SUMS})

if __name__ == "__main__":
    main(EXPERIMENT)

"""How fast must positions turn, so that a model learns to copy an image?

RoPE turns pairs of numbers in queries and keys by an angle that grows with the position. With the
official settings half of the numbers turn, and with a base of 600,000 most of those hardly move
within a row of a hundred tokens. Small models learn exact edits of digits from nothing, in many
wordings, so that the distance from a code to its copy varies: with the official rotations, with a
small base, and with a small base for all numbers. About 20 minutes on one core.
"""

from __future__ import annotations

from ..evaluation import suite
from ..presets import get_preset
from ..settings import changed
from .normal import logged, means
from .runner import Experiment, Lab, Point, main, over_seeds

SEEDS = (0, 1, 2)
STEPS, SAMPLES = 400, 200
# name -> (theta, share of the numbers of a head that turn)
ROTATIONS = {
    "as released": (600_000.0, 0.5),
    "small base": (100.0, 0.5),
    "small base, all numbers": (100.0, 1.0),
}
TASKS = ["edit_operation", "edit_operation_new_wording"]


def copy(lab: Lab, theta: float, share: float, steps: int, samples: int, seed: int) -> dict:
    """Nats of masked tokens while training, and the exact edits that the finished model makes."""
    preset = changed(
        get_preset("mnist-uni-drills"),
        hidden_size=128,
        num_hidden_layers=4,
        intermediate_size=352,
        rope_theta=theta,
        partial_rotary_factor=share,
        mixture=(("edit_operation", 1.0),),
        many_wordings=True,
        steps=steps,
        batch_size=32,
        learning_rate=2.5e-3,
        bfloat16=True,
        seed=seed,
    )
    folder = lab.train(preset)
    marked = suite.run(lab.load(folder), lab.judge(), suite.unseen_pool(), samples, tasks=TASKS)
    return {"masked_nats": means(logged(folder, "masked_nats"), 50)} | suite.scores(marked)


POINTS = []
for name, (theta, turning) in ROTATIONS.items():
    settings = {"theta": theta, "share": turning, "steps": STEPS, "samples": SAMPLES}
    POINTS.append(Point(("rotations", name), copy, settings))
EXPERIMENT = Experiment(__file__, __doc__, over_seeds(SEEDS, POINTS), {"steps": STEPS})

if __name__ == "__main__":
    main(EXPERIMENT)

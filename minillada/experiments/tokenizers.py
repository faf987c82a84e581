"""Train the `mnist-cpu` backbone once on each image tokenizer, all else equal, and store how well it draws in `data/weights/semantic.json`.

`python tests/compare_tokenizers.py` takes a few minutes; notebook 02 shows the result.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..evaluation import evaluate
from ..files import RESULTS_DIR, atomic
from ..measure.judge import load_judge
from ..presets import get_preset
from ..settings import changed
from ..training import train
from ..training.run import Run
from ..uni import load

TOKENIZERS = {"semantic": "mnist-tokenizer", "pixels": "mnist-tokenizer-pixels"}


STEPS, BATCH_SIZE, GUIDANCE = 400, 64, 3.0


if __name__ == "__main__":
    judge = load_judge()
    scores = {}
    for name, tokenizer in TOKENIZERS.items():
        run = Path("runs") / f"compare-{name}"
        preset = get_preset("mnist-cpu")
        train.train(
            changed(preset, steps=STEPS, batch_size=BATCH_SIZE, tokenizer=tokenizer),
            Run(run, resume=True),
        )
        scores[name] = evaluate.evaluate_drawing(load(run), judge, 1000, seed=0, guidance=GUIDANCE)
        print(name, scores[name])
    with atomic(RESULTS_DIR / "tokenizers.json") as temporary:
        temporary.write_text(json.dumps(scores, indent=2) + "\n")

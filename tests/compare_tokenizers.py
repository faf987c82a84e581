"""Train the `mnist-cpu` backbone once on each image tokenizer, all else equal, and store how well it draws in `data/weights/semantic.json`.

`python tests/compare_tokenizers.py` takes a few minutes; notebook 02 shows the result.
"""

import json
from dataclasses import replace
from pathlib import Path

from minillada import checkpoint, data, evaluate, tasks, train
from minillada.config import get_preset

TOKENIZERS = {"semantic": "mnist-tokenizer", "pixels": "mnist-tokenizer-pixels"}
STEPS, BATCH_SIZE, GUIDANCE = 400, 64, 3.0

if __name__ == "__main__":
    judge, _ = checkpoint.load_model("mnist-judge", "judge")
    scores = {}
    for name, tokenizer in TOKENIZERS.items():
        run = Path("runs") / f"compare-{name}"
        preset = get_preset("mnist-cpu")
        train.train(
            replace(preset, training=replace(preset.training, steps=STEPS, batch_size=BATCH_SIZE)), run, tokenizer_weights=tokenizer
        )
        scores[name] = evaluate.evaluate_drawing(tasks.load(run), judge, 1000, seed=0, guidance=GUIDANCE)
        print(name, scores[name])
    with checkpoint.atomic(data.WEIGHTS_DIR / "semantic.json") as temporary:
        temporary.write_text(json.dumps(scores, indent=2) + "\n")

"""All measured numbers, for docs/numbers.md: `python docs/measured.py` writes the tables.

They come from what is recorded beside the weights, by `minillada evaluate NAME --record` for
`mnist`, `cifar` and both painters, and by `minillada evaluate mnist-uni --suite tasks --record`.
"""

import argparse
import re
import sys
from pathlib import Path

from minillada import checkpoint
from minillada.evaluation.report import (
    MODEL_BARS,
    PHOTO_BARS,
    model_table,
    table,
    tasks_table,
)
from minillada.files import atomic
from minillada.measure.intervals import interval_of

PAGE = Path(__file__).resolve().parent / "numbers.md"
PLACE = re.compile(r"(<!-- numbers:begin -->\n)(.*?)(<!-- numbers:end -->)", re.S)

# What is said of painters, and the bars
PAINTER_ROWS = (
    ("judged right", "≥ 99.3 %; the decoder's − 1 point"),
    ("… the decoder's pictures", "reported"),
    ("… 50 steps", "reported"),
    ("Fréchet distance over that of the decoder", "≤ 1; ≤ 0.6"),
    ("… over that of 50 steps", "≤ 1.15"),
    ("codes that come back when the picture is read again", "reported"),
    ("times as fast as 50 steps", "≥ 8"),
)


def numbers() -> str:
    """All tables, with the sentences above them."""
    metrics = checkpoint.read_info(checkpoint.resolve("mnist"))["metrics"]
    scores = checkpoint.read_info(checkpoint.resolve("mnist-uni"))["tasks"]
    photos = checkpoint.read_info(checkpoint.resolve("cifar"))["metrics"]
    painters = [painter_column(name) for name in ("mnist-painter", "cifar-painter")]
    head = "| what | to reach: digits; photos | digits | photos |"
    # what and bar of a row, and its number in each column
    rows = [(*row, *columns) for row, *columns in zip(PAINTER_ROWS, *painters)]
    seed = metrics["seed"]
    return (
        f"`minillada evaluate mnist` measures these, here with seed {seed}. In brackets stand both "
        "ends of a 95 % interval and the number of samples. Passes are forward passes of one row "
        "that an answer took; a branch of guidance is a row, too.\n\n"
        f"{model_table(metrics, MODEL_BARS)}\n## Digits: every task\n\n"
        "`minillada evaluate mnist-uni --suite tasks` measures these, on test images:\n\n"
        f"{tasks_table(scores)}\n## Photos\n\n"
        "`minillada evaluate cifar` measures these, on test images of CIFAR-10:\n\n"
        f"{model_table(photos, PHOTO_BARS)}\n## Painted pictures\n\n"
        "`minillada evaluate mnist-painter` and `minillada evaluate cifar-painter` paint from the "
        "codes of test images, in 4 jumps by the turbo painter. Fréchet distances are those of "
        "1,000 pictures to all test images; the decoder and 50 steps begin with the same codes:\n\n"
        f"{table(head, rows)}"
    )


def painter_column(name: str) -> list[str]:
    """What was measured of a painter, for the rows of `PAINTER_ROWS`."""
    found = checkpoint.read_info(checkpoint.resolve(name))["metrics"]
    judged = [f"judged_accuracy{end}" for end in ("", "_conv", "_50_steps")]
    distance, decoder, long = (found[f"frechet{end}"] for end in ("", "_conv", "_50_steps"))
    return [
        *(interval_of(found, part).percent() for part in judged),
        f"{distance / decoder:.2f} ({distance:.2f} / {decoder:.2f})",
        f"{distance / long:.2f} ({distance:.2f} / {long:.2f})",
        interval_of(found, "codes_kept").percent(),
        f"{found['speedup_over_50_steps']:.1f}",
    ]


def main() -> None:
    """Write the tables into the page; a mistake is one sentence and exit code 2."""
    try:
        tables, text = numbers(), PAGE.read_text(encoding="utf-8")
        written, places = PLACE.subn(lambda found: found[1] + tables + found[3], text)
        if not places:
            raise ValueError(f"{PAGE} has no place for the tables; `git checkout` the page")
        with atomic(PAGE) as temporary:
            temporary.write_text(written, encoding="utf-8")
    except (KeyError, ValueError, OSError) as error:
        missing = isinstance(error, KeyError)  # it names a number
        hint = " is not recorded; run `minillada evaluate … --record`" if missing else ""
        print(f"measured: {error}{hint}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # it takes none
    main()

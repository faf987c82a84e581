"""The tables of docs/numbers.md, written from what is recorded beside the weights.

Notable choices
- Bars stand here once. They were fixed before anything was measured.
- `python -m minillada.evaluation.report` writes the tables into that page, after `minillada
  evaluate NAME --record` for `mnist`, `cifar` and both painters, and `minillada evaluate mnist-uni
  --suite tasks --record`.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from .. import checkpoint
from ..files import atomic
from ..measure.intervals import interval_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "numbers.md"
PLACE = re.compile(r"(<!-- numbers:begin -->\n)(.*?)(<!-- numbers:end -->)", re.S)


@dataclass(frozen=True)
class Bar:
    """What a number says, and how large it has to be at least or at most."""

    what: str
    least: float | None = None
    most: float | None = None
    words: str = ""  # the bar in words, where it depends on another number
    unit: str = "%"  # a limit in % is stored as a share: 0.99 is 99 %

    def __str__(self) -> str:
        limit = self.least if self.least is not None else self.most
        if limit is None:
            return self.words or "reported"
        number = f"{100 * limit:g} %" if self.unit == "%" else f"{limit:g} {self.unit}".strip()
        return f"{'≤' if self.least is None else '≥'} {number}"

    def reached(self, value: float) -> bool:
        """Whether a value is on the right side; True where there is no limit."""
        value = round(value, 6)  # some values went through float32
        low, high = self.least, self.most
        return (low is None or value >= low) and (high is None or value <= high)


FRECHET = "Fréchet distance of drawings to other test images, over that of reconstructions"
# A number of `evaluate` -> its bar
MODEL_BARS = {
    "judge_accuracy": Bar("judge right on real test images", 0.993),
    "reconstruction_accuracy": Bar("judge right on their reconstructions", 0.985),
    "reconstruction_psnr_db": Bar("reconstruction", 22, unit="dB"),
    "draw_digit_accuracy": Bar("drawn digit is the asked one", 0.99),
    "draw_thickness_accuracy": Bar("thickness as asked", 0.9),
    "draw_slant_accuracy": Bar("slant as asked", 0.9),
    "frechet_ratio": Bar(FRECHET, most=3, unit=""),
    "caption_digit_accuracy": Bar("caption names the right digit", 0.985),
    "caption_exact_accuracy": Bar("whole caption right, word for word", 0.85),
    "bits_per_token": Bar("bits per token, block diffusion (upper bound)"),
    "bits_per_token_ar": Bar("bits per token, autoregressive model of the same size (exact)"),
}

# The same for photos
PHOTO_BARS = {
    "judge_accuracy": Bar("judge right on real test images", 0.935),
    "reconstruction_accuracy": Bar("judge right on their reconstructions", 0.84),
    "reconstruction_psnr_db": Bar("reconstruction", 22.5, unit="dB"),
    "caption_class_accuracy": Bar("caption names the right class", 0.7),
    "caption_brightness_accuracy": Bar("caption says the right brightness", 0.95),
    "caption_colour_accuracy": Bar("caption says the right colour, or rightly none", 0.88),
    "draw_class_accuracy": Bar("drawn class is the asked one", 0.88),
    "draw_brightness_accuracy": Bar("brightness as asked", 0.96),
    "draw_colour_accuracy": Bar("colour as asked", 0.92),
    "frechet_ratio": Bar(FRECHET, most=2, unit=""),
    "edit_operation_accuracy": Bar("exact edit: right operation done and class kept", 0.85),
    "edit_operation_accuracy_codes": Bar("… the exact results themselves, through the codes"),
    "edit_operation_accuracy_exact": Bar("… the exact results themselves, never encoded"),
    "edit_class_accuracy": Bar("turned into a class that is named, one time in ten its own", 0.75),
}

# A score of `suite` -> its bar
TASK_BARS = {
    "digit": Bar("what digit is this?", 0.985),
    "thickness": Bar("is it thick or thin?", 0.93),
    "slant": Bar("which way does it lean?", 0.93),
    "parity": Bar("is it even or odd?", 0.975),
    "arithmetic": Bar("what is this digit plus …? (0 to 18, in words)", 0.95),
    "compare": Bar("which of the two is larger?", 0.96),
    "edit_operation": Bar("exact edit: right operation done and digit kept", 0.92),
    "edit_digit": Bar("turned into a digit that is named, one time in ten its own", 0.92),
    "edit_digit_attributes": Bar("… with thickness and slant kept, both", 0.8),
    "multi_reference": Bar("digit of the first image, thickness of the second"),
    "sum_direct": Bar("draw the sum of two numbers"),
    "sum_direct_unseen": Bar("… pairs not drawn in training"),
    "sum_thinking": Bar("the same, thinking first", 0.95),
    "sum_thinking_unseen": Bar("… pairs not drawn in training", words="15 points more than direct"),
    "interleave": Bar("counting in texts and images, all of them right", 0.9),
    "draw": Bar("drawn digit is the asked one", words="within 1 point of `mnist`"),
    "describe": Bar("caption names the right digit", words="within 1 point of `mnist`"),
    "inpaint": Bar("a hidden part filled in, no caption: the digit is that of the whole"),
    "inpaint_empty": Bar("… what the judge reads before it is filled in"),
    "inpaint_attributes": Bar("… thickness and slant of the whole, both"),
    "inpaint_captioned": Bar("a hidden part filled in after a caption: the digit"),
    "inpaint_captioned_attributes": Bar("… thickness and slant, both"),
    "infill": Bar("the missing words of a caption filled in"),
    "digit_new_wording": Bar(
        "the digit, asked for in wordings never trained", words="within 3 points of those trained"
    ),
    "edit_operation_new_wording": Bar(
        "exact edit, in wordings never trained", words="within 3 points of those trained"
    ),
    "sum_thinking_new_wording": Bar("sum with thinking, in wordings never trained", words="≥ 90 %"),
}

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


def table(head: str, rows: list[tuple]) -> str:
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def passes_of(count: float | None) -> str:
    """How a number of passes stands behind a share; records of older versions have none."""
    return f", {count:.1f} passes" if count else ""


def model_table(metrics: dict, bars: dict[str, Bar]) -> str:
    """One row for each of the bars, and the time of a drawing where it was measured."""
    rows: list[tuple] = []
    for name, bar in bars.items():
        # Decibels, ratios and bits are no shares: each is printed in its own way.
        measured, what = interval_of(metrics, name), bar.what
        if name == "reconstruction_psnr_db":
            what += f", {metrics['tokens_per_image']} tokens an image"
            text = f"{measured.value:.2f} dB PSNR"
        elif name == "frechet_ratio":
            parts = f"{metrics['frechet_distance']:.2f} / {metrics['frechet_floor']:.2f}"
            text = f"{measured.value:.2f} ({parts})"
        elif name.startswith("bits"):
            text = f"{measured.value:.3f} ({measured.low:.3f} to {measured.high:.3f})"
        else:
            about = name.split("_")[0]  # `draw_passes` belongs to all that begins with `draw_`
            text = measured.percent() + passes_of(metrics.get(f"{about}_passes"))
        rows.append((what, bar, text))
    if "timing" in metrics:
        speed = metrics["timing"]
        what = f"drawing {speed['batch']} images on {speed['device']}, {speed['cached']['clock']}"
        uncached = f"without the cache {speed['cache_speedup']:.2f} times as long"
        rows.append((what, "reported", f"{speed['cached']['median']:.2f} s; {uncached}"))
    return table("| what | to reach | measured |", rows)


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


def tasks_table(scores: dict) -> str:
    """One row for each of `TASK_BARS`."""
    rows = []
    for name, bar in TASK_BARS.items():
        share = interval_of(scores[name], "accuracy").percent(1)
        rows.append((bar.what, bar, share + passes_of(scores[name].get("passes"))))
    return table("| task | to reach | measured |", rows)


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
        print(f"report: {error}{hint}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # it takes none
    main()

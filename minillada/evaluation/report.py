"""Bars, and the tables that hold them: what a number has to be, and what was measured.

Notable choices
- Bars stand here once. They were fixed before anything was measured.
- `docs/measured.py` writes the tables into docs/numbers.md; the numbers are recorded beside the
  weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..measure.intervals import interval_of


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
    "edit_operation_accuracy_painted": Bar("… the same edits, painted by the turbo painter"),
    "edit_operation_accuracy_codes": Bar("… the exact results themselves, through the codes"),
    "edit_operation_accuracy_codes_painted": Bar("… these codes, painted by the turbo painter"),
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


def tasks_table(scores: dict) -> str:
    """One row for each of `TASK_BARS`."""
    rows = []
    for name, bar in TASK_BARS.items():
        share = interval_of(scores[name], "accuracy").percent(1)
        rows.append((bar.what, bar, share + passes_of(scores[name].get("passes"))))
    return table("| task | to reach | measured |", rows)

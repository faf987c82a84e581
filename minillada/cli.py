"""The command line: minillada demo | draw | describe | answer | edit | inpaint | infill | think |
interleave | train | encode | merge | ablate | evaluate | grade | editions | bench | info |
official, the same as python -m minillada."""

from __future__ import annotations

import sys
import warnings

import torch
import typer
from safetensors import SafetensorError
from typer.core import TyperGroup

from .commands import ablating, making, measuring, official, teaching, training
from .commands.common import escaped


def sentence(error: BaseException) -> str | None:
    """What a user can do about an error, in one sentence; None for a fault of the program."""
    if isinstance(error, UnicodeError):
        return "some text is not valid UTF-8; type it again, or save the file as UTF-8"
    ours = isinstance(error, FileNotFoundError) and error.filename is None  # else it is Python's
    if ours or isinstance(error, ValueError | FloatingPointError):
        return str(error)
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        place = f"{error.filename}: " if error.filename else ""
        advice = "change its permissions" if isinstance(error, PermissionError) else "make room"
        return f"{place}{error.strerror or error}; choose another place, or {advice}"
    if isinstance(error, SafetensorError):
        return f"the weights could not be read or written ({error})"
    if "Symlink loop" in str(error):  # a `RuntimeError` of `Path.resolve` up to Python 3.12
        return f"{error}; choose another place"
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read; restore it"
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        return "there is not enough memory; ask for fewer pictures or rows at once"
    return None


def said(text: object) -> str:
    """What the program says on stderr, as one line: names in it may come from a foreign file."""
    return f"minillada: {escaped(' '.join(str(text).split()))}"


class Commands(TyperGroup):
    """Errors that a user can cause end in one sentence and exit code 2, others in a traceback."""

    def invoke(self, context):
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            print("minillada: stopped", file=sys.stderr)
            sys.exit(130)
        except Exception as error:
            text = sentence(error)
            if text is None:
                raise
            print(said(text), file=sys.stderr)
            sys.exit(2)


# Without markup, brackets in help texts stay, and every terminal can show them.
app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=__doc__,
)
for command in (
    making.demo, making.draw, making.describe, making.answer, making.edit, making.inpaint,
    making.infill, making.think, making.interleave, training.train, training.encode, training.merge,
    ablating.ablate, measuring.evaluate, measuring.info, teaching.grade, teaching.editions,
):  # fmt: skip
    app.command()(command)

benchmarks = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Speed, compared with simpler code."
)
benchmarks.command("sampler")(measuring.bench_sampler)
benchmarks.command("train")(measuring.bench_train)
benchmarks.command("step")(measuring.bench_step)
benchmarks.command("moe")(measuring.bench_moe)
benchmarks.command("official")(official.bench)
app.add_typer(benchmarks, name="bench")
app.add_typer(official.app, name="official")


def one_line(message: Warning | str, *place: object, **line: object) -> str:
    """A warning as a user reads it: its class and place in the code tell them nothing."""
    return f"{said(message)}\n"


def main() -> None:
    """Run the command line."""
    warnings.formatwarning = one_line
    for stream in (sys.stdout, sys.stderr):
        # What a terminal cannot show becomes "?": no output is worth losing the work.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app(prog_name="minillada")

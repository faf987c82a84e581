"""What must hold between settings, data and vocabulary before anything is written."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch

from ..batching import padded_length
from ..config import ModelConfig, PainterConfig, Preset, TextConfig, TokenizerConfig
from ..datasets.images import Images
from ..datasets.pool import Pool
from ..datasets.table import named
from ..diffusion import check_packed
from ..extras.conversion import check_block_schedule, check_block_sizes, padding_multiple
from ..extras.levenshtein import UNPACKED
from ..measure.judge import Judge
from ..model import Backbone
from ..painter import Painter
from ..settings import Config, plain_fields
from ..tasks.base import Source, pictures_of
from ..tasks.table import TASKS_OF, trained
from ..vocab import Vocabulary
from ..vq import ImageTokenizer
from .stream import write_example

MODULES: dict[str, Any] = {cls.kind: cls for cls in (Judge, ImageTokenizer, Backbone, Painter)}
MODELS = {"text": TextConfig} | {kind: cls.config_class for kind, cls in MODULES.items()}
MOST_ROWS = 65_536  # of a batch; a larger number is surely a typing error
TRIES = 100  # examples of each task that are measured
# What a turbo painter has of its own; all else is that of its source.
OF_TURBO = ("turbo", "painting_steps", "shift", "feature_weight", "spread_weight")
USUAL = Preset(name="", kind="text", model=TextConfig())  # what nobody sets is as in this one
COMMON = ("steps", "batch_size", "accumulate", "seed", "bfloat16", *dict(USUAL.training.optim))
# Settings that only some kinds of model are trained with, and these kinds. Text pieces read none.
READ_BY = (
    dict.fromkeys(plain_fields(USUAL.training), ("backbone",))
    | dict.fromkeys(COMMON, tuple(MODULES))
    | dict.fromkeys(("text", "balance_rate"), ("backbone",))
    | dict.fromkeys(("tokenizer", "unconditional_rate"), ("backbone", "painter"))
    | dict.fromkeys(("source", "mirrored"), ("painter",))
    | {"teacher": ("tokenizer", "painter"), "operation_share": ("tokenizer",)}
)


def check_settings(preset: Preset, start: str | None) -> None:
    """`ValueError` for settings that no run can have, whatever it is trained on."""
    if type(preset.model) is not MODELS[preset.kind]:
        raise ValueError(f"{preset.name} cannot become a {preset.kind}; leave its kind as it is")
    named(preset.dataset)
    if start is not None and not start.strip():
        raise ValueError("--start is empty; name the weights to start from, or leave it out")
    rows = preset.training.batch_size
    if rows > MOST_ROWS:
        raise ValueError(f"batch_size must be at most {MOST_ROWS}, got {rows}")
    # Windows has no fork; on macOS a fork may end in a crash.
    if preset.training.workers and sys.platform in ("win32", "darwin"):
        raise ValueError("workers are forks, unsafe on this system; use --set workers=0")
    values, usual = plain_fields(preset), plain_fields(USUAL)
    for name, kinds in READ_BY.items():
        if values[name] != usual[name] and preset.kind not in kinds:
            raise ValueError(f"{preset.name} ({preset.kind}) reads no {name}; leave {name} out")
    if getattr(preset.model, "feature_weight", 0) and not preset.teacher:
        raise ValueError(
            "feature_weight needs a classifier; name one with --set teacher=NAME, or set it to 0"
        )
    check_block_schedule(preset)
    check_block_sizes(preset)
    if preset.kind == "text" and start:
        raise ValueError("text pieces start from nothing; leave --start out")
    if preset.kind == "backbone":
        check_mixture(preset)
        if preset.training.data.pack_length:
            check_packed(preset.training.loss)
            if preset.training.loss.planted_errors:
                raise ValueError(UNPACKED)
    if isinstance(preset.model, TokenizerConfig):
        check_codebook(preset, preset.model, start)


def check_codebook(preset: Preset, model: TokenizerConfig, start: str | None) -> None:
    """`ValueError` for a codebook that would stay random, or would replace that of `start`."""
    first, steps = model.unquantised_steps, preset.training.steps
    if first >= steps:
        raise ValueError(
            f"after {first} unquantised_steps of {steps} steps the codebook is still random; "
            "lower unquantised_steps, or raise --steps"
        )
    if first and start:
        raise ValueError(
            "after unquantised_steps the codebook begins anew, so that of --start would be lost; "
            "set unquantised_steps to 0"
        )


def check_mixture(preset: Preset) -> None:
    """`ValueError` unless the mixture names tasks that can be trained, with positive shares."""
    mixture = preset.training.data.mixture
    if not mixture:
        raise ValueError(f"{preset.name} has an empty mixture; name tasks and their shares")
    known = trained(preset.dataset)
    for task, share in mixture:
        if task not in known:
            raise ValueError(f"no task {task!r} can be trained; choose from {', '.join(known)}")
        if not 0 < share < float("inf"):
            raise ValueError(f"the share of {task} must be positive, got {share}")


def check_pixels(model: Config, images: Images, of: str = "") -> None:
    """`ValueError` unless a model reads such pixels; `of`, as in " of NAME", says which model."""
    _, channels, height, width = images.pixels.shape
    for name, value in (("image_size", height), ("image_size", width), ("channels", channels)):
        wanted = getattr(model, name, value)
        if wanted != value:
            raise ValueError(f"{name}{of} is {wanted}, but the images have {value}")


def check_rows(model: Config, name: str, things: int, what: str) -> None:
    """`ValueError` unless a judge has a row for every label, a tokenizer for every text piece."""
    rows = getattr(model, name, things)
    if rows < things:
        raise ValueError(f"{name} is {rows}, but there are {things} {what}")


def check_tokens(preset: Preset, vocab: Vocabulary) -> None:
    """`ValueError` unless all pieces and codes have a row, and packed rows are whole blocks."""
    model = preset.model
    assert isinstance(model, ModelConfig)
    if model.vocab_size != vocab.size:
        raise ValueError(
            f"vocab_size is {model.vocab_size}, but there are {vocab.image_token_offset} text "
            f"pieces and {vocab.codebook_size} image codes; set vocab_size to {vocab.size}"
        )
    # Rows hold whole blocks, at every block size of a schedule.
    multiple, packed = padding_multiple(preset), preset.training.data.pack_length
    if packed % multiple:
        raise ValueError(f"pack_length must be a multiple of {multiple}, got {packed}")
    longest = max(model.block_size, packed)
    if longest > model.max_position_embeddings:
        raise ValueError(
            f"{longest} tokens do not fit into {model.max_position_embeddings} positions; raise "
            "max_position_embeddings, or lower block_size and pack_length"
        )


def check_codes(pool: Pool, info: dict) -> None:
    """`ValueError` unless the stored codes of a pool are those of the tokenizer of `info`."""
    if pool.codes is not None and pool.made_by != info["sha256"]:
        raise ValueError(
            f"data/{pool.data.stored} holds the codes of another tokenizer; make them again with "
            f"`minillada encode {pool.data.name} --tokenizer NAME`"
        )


def check_painter(preset: Preset, tokenizer: ImageTokenizer) -> None:
    """`ValueError` unless a painter paints the codes of its tokenizer and learns what it can."""
    model = preset.model
    assert isinstance(model, PainterConfig)
    book, dim = tokenizer.embedding.shape
    sizes = {"grid": tokenizer.grid, "codebook_size": book, "code_dim": dim}
    check_equal(model, sizes | {"channels": tokenizer.image_shape[0]}, preset.tokenizer)
    if model.turbo and not preset.source:
        raise ValueError(f"{preset.name} is distilled; name its painter with --set source=NAME")
    if model.spread_weight and not model.turbo:
        raise ValueError("only turbo painters learn how pictures spread; set spread_weight to 0")
    if model.spread_weight and preset.training.batch_size < 2:
        raise ValueError("one picture has no spread; set batch_size to 2 or more")


def check_source(preset: Preset, source: Painter, same_codes: bool) -> None:
    """`ValueError` unless a turbo painter is distilled from a painter of its codes and sizes."""
    model = preset.model
    assert isinstance(model, PainterConfig)
    if not model.turbo:
        raise ValueError("only turbo painters have a source; leave it out, or set turbo to true")
    if source.config.turbo:
        raise ValueError(f"{preset.source} is a turbo painter; name the one it was distilled from")
    if not same_codes:
        raise ValueError(
            f"{preset.source} paints other codes than those of {preset.tokenizer}; name a painter "
            "of this tokenizer"
        )
    sizes = plain_fields(source.config)
    check_equal(model, {name: sizes[name] for name in sizes if name not in OF_TURBO}, preset.source)


def check_equal(model: PainterConfig, wanted: dict[str, Any], other: str | None) -> None:
    """`ValueError` unless a painter has the wanted values, which are those of `other` weights."""
    for name, value in wanted.items():
        if getattr(model, name) != value:
            raise ValueError(
                f"{name} of the painter is {getattr(model, name)}, but {other} has {value}; "
                f"set {name} to {value}"
            )


def check_context(preset: Preset, vocab: Vocabulary, pool: Pool, grid: int) -> None:
    """`ValueError` unless the model has a place for every token of every sequence."""
    assert isinstance(preset.model, ModelConfig)
    length = longest_sequence(preset, vocab, pool, grid)
    context, packed = preset.model.max_position_embeddings, preset.training.data.pack_length
    found = f"sequences of this mixture have up to {length} tokens, but "
    if length > context:
        raise ValueError(f"{found}the model has {context} positions; raise max_position_embeddings")
    if packed and length > packed:
        raise ValueError(f"{found}rows have {packed}; raise pack_length, or set it to 0")


def longest_sequence(preset: Preset, vocab: Vocabulary, pool: Pool, grid: int) -> int:
    """The length of the longest of some examples of each task, filled up to whole blocks."""
    data, longest = preset.training.data, 0
    edited = any(task.startswith("edit") for task, _ in data.mixture)  # as in `backbone_loss`
    held = {None, *(pool.data.operations if edited else ())}  # what the moved images show
    # Examples are random, so the longest of some stands for the longest of all.
    source = Source(pool, random.Random(0), data.varied, data.held_out, data.many_wordings)
    blank = torch.zeros(grid, grid, dtype=torch.long)  # any codes: only their number counts
    for task, _ in data.mixture:
        for _ in range(TRIES):
            example = TASKS_OF[pool.data.name][task].make(source)
            pictures = pictures_of(example.user) + pictures_of(example.response)
            if data.moves and not held.issuperset(picture.operation for picture in pictures):
                raise ValueError(f"{task} shows edited images that `moves` lacks; set moves to 0")
            sequence = write_example(vocab, example, dict.fromkeys(pictures, blank))
            longest = max(longest, len(sequence.ids))
    return padded_length(longest, padding_multiple(preset))

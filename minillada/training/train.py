"""Training a preset into a folder: check everything, build, load what it starts from, fit, save."""

from __future__ import annotations

import json
import shlex
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import checkpoint
from ..config import Preset, TextConfig, TrainingConfig
from ..datasets.images import Images
from ..datasets.pool import Pool, stored_pool
from ..datasets.table import DATASETS, DataSet
from ..extras import transfer
from ..files import atomic
from ..measure.judge import Judge
from ..model import Backbone
from ..painter import Painter
from ..presets import PRESETS
from ..settings import plain_fields, to_dict
from ..uni import trained_on
from ..vocab import Vocabulary, load_vocabulary, text_info, train_bpe
from ..vq import ImageTokenizer
from . import checks
from .distributed import Loss, Processes, check_shared
from .loop import computes_in_bfloat16, fit
from .painters import Lesson, painter_loss, turbo_loss
from .recipes import backbone_loss, bpe_corpus, judge_loss, tokenizer_loss
from .run import TEXT, WEIGHTS, Run
from .state import differences, in_words

IDS = ("tokenizer_sha256", "text_sha256")  # what gives the ids of a vocabulary their meaning
# What the JSON of a run repeats of that of the run it starts from.
HISTORY = ("command", "training", "start", "start_sha256", "merged")
OWN_FLAGS = ("steps", "learning_rate", "seed", "tokenizer")  # the other settings go through --set


@dataclass
class Materials:
    """What a model is trained on, and what `weights.json` says about it."""

    images: Images | None  # a backbone finds its images in a pool
    vocab: Vocabulary
    about: dict[str, Any] = field(default_factory=dict)
    # of an image tokenizer or a painter:
    teacher: Judge | None = None
    # of a backbone or a painter:
    tokenizer: ImageTokenizer | None = None
    pool: Pool | None = None
    # of a turbo painter:
    source: Painter | None = None


def train(
    preset: Preset,
    run: Run | Path,
    device: str = "cpu",
    start: str | None = None,
    stop_after: int | None = None,
) -> tuple[nn.Module | None, list[dict]]:
    """Train a preset into the folder of `run`; the module, and the records of `fit`.

    `start` names weights to start from instead of random ones. `stop_after` ends early, as an
    interruption would. A complete run has `weights.safetensors` and its JSON; for text pieces
    `text.json`, with None as the module. If it cannot be trained: `ValueError`, nothing is written.
    """
    run = run if isinstance(run, Run) else Run(run)
    # 1. everything is checked that can be checked without computing
    checks.check_settings(preset, start)
    check_shared(preset, run.processes)
    run.check_folder()
    # Overwriting would delete the weights that the run says it started from.
    if start and checkpoint.resolve(start).parent.resolve() == run.folder.resolve():
        raise ValueError(f"{start} is in the folder of the run itself; choose another with --out")
    if isinstance(preset.model, TextConfig):
        train_text(preset.model, DATASETS[preset.dataset], run)
        return None, []
    materials = read_materials(preset, device)
    # 2. the module, its first weights, and its loss
    module = new_model(preset, device, materials.tokenizer, materials.source)
    about_start = start_from(start, module, preset, materials) if start else {}
    loss = make_loss(module, preset, materials)
    # 3. training
    run.info = {
        "preset": preset.name,
        "kind": preset.kind,
        "command": command(preset, start),
        "config": to_dict(preset.model),
        "training": to_dict(preset.training),
        "computed_in": computed_in(preset.training, device, run.processes),
        "dataset": preset.dataset,
        "data_md5": DATASETS[preset.dataset].checksums,
        "parameters": sum(p.numel() for p in module.parameters()),
        **materials.about,
        **about_start,
    }
    with run.locked():
        records = fit(module, loss, preset.training, run, stop_after, description=preset.name)
        # 4. the result, if something was trained now, or if the weights are missing
        finished = stop_after is None or stop_after >= preset.training.steps
        if finished and (records or not run.is_complete()):
            run.save_weights(run.folder / WEIGHTS, {"seconds": round(run.seconds)})
    return module, records


def computed_in(config: TrainingConfig, device: str, processes: Processes) -> str:
    """The type of the products of a training; a warning if it is not the one that is asked for."""
    low = computes_in_bfloat16(config, device)
    if config.bfloat16 and not low and processes.is_first:
        slow = f"PyTorch multiplies bfloat16 slowly on this device ({device})"
        warnings.warn(f"{slow}: training computes in float32, which is faster", stacklevel=3)
    return "bfloat16" if low else "float32"


def train_text(config: TextConfig, data: DataSet, run: Run) -> None:
    """Learn text pieces and write them to `text.json`. `ValueError` if the folder holds others."""
    path = run.folder / TEXT
    corpus = bpe_corpus(config.every_task, data)
    pieces = train_bpe(corpus, config.vocab_size, config.max_grid).to_str(pretty=True)
    with run.locked():
        run.check_folder()  # once more: another run may have begun
        others = [file for file in run.files() if file != path]
        if run.resume and others:
            raise ValueError(
                f"{run.folder} holds another run ({others[0].name}); choose another folder with "
                "--out, or replace it with --overwrite"
            )
        if run.resume and path.exists() and path.read_text(encoding="utf-8") != pieces:
            raise ValueError(f"{path} holds other text pieces; replace them with --overwrite")
        with atomic(path) as temporary:
            temporary.write_text(pieces, encoding="utf-8")
        for file in others:  # the run that is replaced
            file.unlink()


def read_materials(preset: Preset, device: str) -> Materials:
    """Images, vocabulary and tokenizer of a preset. `ValueError` if the model does not fit them."""
    data = DATASETS[preset.dataset]
    # 1. judge, tokenizer and painter read pixels
    if preset.kind != "backbone":
        images = data.load("train")
        checks.check_pixels(preset.model, images)
        checks.check_rows(preset.model, "classes", int(images.labels.max()) + 1, "labels")
        if preset.kind == "painter":
            return painter_materials(preset, images, device)
        vocab = load_vocabulary(getattr(preset.model, "codebook_size", 0))  # a judge has no codes
        checks.check_rows(preset.model, "caption_vocab_size", vocab.image_token_offset, "pieces")
        teacher, about = load_teacher(preset.teacher, images, device)
        return Materials(images, vocab, about, teacher)
    # 2. a backbone reads the codes of a tokenizer
    tokenizer, info, about = load_tokenizer(preset, device)
    vocab = load_vocabulary(len(tokenizer.embedding), preset.text)
    checks.check_tokens(preset, vocab)
    pool = stored_pool(data, "train")
    if not (preset.training.data.fresh_codes or preset.training.data.moves):
        checks.check_codes(pool, info)  # they are read
    checks.check_context(preset, vocab, pool, tokenizer.grid)
    about |= text_info(preset.text)
    return Materials(None, vocab, about, tokenizer=tokenizer, pool=pool)


def load_tokenizer(preset: Preset, device: str) -> tuple[ImageTokenizer, dict, dict[str, Any]]:
    """The image tokenizer of a preset, its own JSON, and what `weights.json` says about it."""
    if not preset.tokenizer:
        raise ValueError(f"{preset.name} needs an image tokenizer; use --set tokenizer=NAME")
    tokenizer, info = checkpoint.load_model(preset.tokenizer, ImageTokenizer, device)
    name = checkpoint.full_name(preset.tokenizer)
    return tokenizer, info, {"tokenizer": name, "tokenizer_sha256": info["sha256"]}


def load_teacher(
    name: str | None, images: Images, device: str
) -> tuple[Judge | None, dict[str, Any]]:
    """A classifier of these images that stays as it is, and what `weights.json` says about it."""
    if not name:
        return None, {}
    teacher, info = checkpoint.load_model(name, Judge, device)
    checks.check_pixels(teacher.config, images, f" of {name}")
    teacher = teacher.requires_grad_(False).to(memory_format=torch.channels_last)
    return teacher, {"teacher": checkpoint.full_name(name), "teacher_sha256": info["sha256"]}


def painter_materials(preset: Preset, images: Images, device: str) -> Materials:
    """Images, tokenizer, classifier and, for a turbo painter, the painter it is distilled from."""
    tokenizer, _, about = load_tokenizer(preset, device)
    teacher, more = load_teacher(preset.teacher, images, device)
    about |= more
    checks.check_painter(preset, tokenizer)
    source = None
    if preset.source:
        source, info = checkpoint.load_model(preset.source, Painter, device)
        same_codes = info.get("tokenizer_sha256") == about["tokenizer_sha256"]
        checks.check_source(preset, source, same_codes)
        about |= {"source": checkpoint.full_name(preset.source), "source_sha256": info["sha256"]}
    vocab = load_vocabulary(len(tokenizer.embedding))  # not read
    return Materials(images, vocab, about, teacher, tokenizer, source=source)


def new_model(
    preset: Preset,
    device: str | torch.device,
    tokenizer: ImageTokenizer | None = None,
    source: Painter | None = None,
) -> nn.Module:
    """An untrained model of a preset, seeded.

    In a backbone and in a painter, the rows of the embedding for image codes start from the
    tokenizer's codebook. A turbo painter starts as the painter that it is distilled from, `source`.
    """
    torch.manual_seed(preset.training.seed)
    module = checkpoint.build(checks.MODULES[preset.kind], preset.model)
    if isinstance(module, Backbone) and tokenizer is not None:
        offset = module.config.vocab_size - len(tokenizer.embedding)
        transfer.start_image_rows(module, tokenizer.embedding.cpu(), offset)
    if isinstance(module, Painter) and tokenizer is not None:
        module.embedding.weight.data[:-1] = tokenizer.embedding.cpu()  # the last row: without codes
    if source is not None:
        module.load_state_dict(source.state_dict())
    # Convolutions run up to twice as fast in this memory layout on CPUs.
    return module.to(device, memory_format=torch.channels_last)


def start_from(
    start: str, module: nn.Module, preset: Preset, materials: Materials
) -> dict[str, Any]:
    """Load weights called `start` into `module`, and say what they are.

    If the new codebook is larger, the old codes keep their rows. If the vocabulary is another one,
    the rows of embedding and head move to where their pieces stand now, and each code starts at the
    row of the nearest old one (`extras/transfer.py`); so do the codes of a painter. A warning says
    if the two tokenizers were trained apart.
    `ValueError` if the weights do not fit, or if their tokenizer was trained again.
    """
    other, info = checkpoint.load_model(start, checks.MODULES[preset.kind])
    about = materials.about
    new = {key: value.cpu() for key, value in module.state_dict().items()}
    tensors = transfer.grown(other.state_dict(), new)
    if preset.kind == "backbone" and "text_sha256" not in info:  # an older file
        info |= text_info(info.get("text", "mnist-text"))
    # Codes mean something else under another tokenizer, and ids under other text pieces, too.
    new_ids = [key for key in IDS if key in about and info.get(key) != about[key]]
    if new_ids and materials.tokenizer:
        old_tokenizer, old_vocab = trained_on(start, info)
        codebooks = old_tokenizer.embedding, materials.tokenizer.embedding.cpu()
        if preset.kind == "painter":
            key = "embedding.weight"  # the last row means: without codes
            rows = [*transfer.nearest_codes(*codebooks).tolist(), -1]
            tensors[key] = tensors[key][rows]
        else:
            vocabs = old_vocab, materials.vocab
            tensors = transfer.translated(tensors, new, vocabs, codebooks)
        names = info["tokenizer"], about["tokenizer"]
        both = [checkpoint.read_info(checkpoint.resolve(name)) for name in names]
        transfer.warn_of_strange_codes(start, *both)
    try:
        checkpoint.load_tensors(module, tensors, checkpoint.resolve(start))
    except ValueError:  # `load_model` found the file whole, so its model has other sizes
        sizes = differences(to_dict(other.config), to_dict(preset.model))
        raise ValueError(
            f"{preset.name} cannot start from {start}, whose model has other sizes "
            f"({in_words(sizes)}); choose other weights, or the same sizes"
        ) from None
    # The history is nested: the start may itself have started from another run.
    history = {key: info[key] for key in HISTORY if key in info}
    # With the same ids a model goes on drawing and editing with its own settings (`Writer.own`).
    own = {key: info[key] for key in ("drawing", "editing") if key in info and not new_ids}
    return {"start": history, "start_sha256": info["sha256"], **own}


def make_loss(module: Any, preset: Preset, materials: Materials) -> Loss:
    """The loss of the kind of model that the preset trains."""
    if preset.kind == "backbone":
        assert materials.tokenizer and materials.pool
        return backbone_loss(module, materials.tokenizer, materials.vocab, materials.pool, preset)
    images, teacher = materials.images, materials.teacher
    assert images
    if preset.kind == "judge":
        return judge_loss(module, images, preset.training)
    if preset.kind == "tokenizer":
        data = DATASETS[preset.dataset]
        return tokenizer_loss(module, images, data, materials.vocab, preset.training, teacher)
    assert materials.tokenizer
    lesson = Lesson(preset, materials.tokenizer, images, teacher)
    if materials.source:
        return turbo_loss(module, materials.source, lesson)
    return painter_loss(module, lesson)


def command(preset: Preset, start: str | None = None) -> str:
    """The command line that repeats a run, for the JSON beside the weights."""
    if preset.name not in PRESETS:
        return f"(a preset of its own, {preset.name!r}; see config and training)"
    words = ["minillada", "train", preset.name]
    original = plain_fields(PRESETS[preset.name])
    # Only what differs from the preset needs a word.
    for name, value in plain_fields(preset).items():
        if value == original[name]:
            continue
        if name in OWN_FLAGS and value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
        elif name == "bfloat16" and value:
            words.append("--bf16")
        else:
            # A word stays as it is; numbers, lists and truth values are written as JSON.
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            words += ["--set", f"{name}={text}"]
    if start:
        words += ["--start", start]
    return shlex.join(words)

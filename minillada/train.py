"""One training loop for judge, tokenizer and backbone, resumable to the bit, and the recipe each preset follows.

Notable choices
- Every random number of step n comes from a generator seeded with (seed, n). Nothing depends on what was drawn before,
  so a run that is stopped after any step and resumed ends with bit-identical weights, without storing generator states.
- The optimiser is AdamW, or Muon for the matrices of the layers, with linear warm-up and cosine decay; gradients are clipped by norm.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm.auto import tqdm

from . import captions, checkpoint, data, edits, examples, layout, transfer
from .config import ModelConfig, Preset, TrainingConfig, get_preset, to_dict
from .conversion import block_size_at, check_block_schedule, mask_noise_at, noisy_mask_embedding, padding_multiple
from .diffusion import block_diffusion_loss
from .levenshtein import draft_loss
from .moe import balance_experts
from .vocab import Vocabulary, train_bpe
from .vq import ImageTokenizer

Loss = Callable[[int], tuple[Tensor, dict]]  # step -> (loss to minimise, numbers to log)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of every random number of one training step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def batch_indices(count: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Indices `[batch_size]` of step `step`: consecutive slices of one fresh permutation an epoch."""
    per_epoch = max(count // batch_size, 1)
    epoch, slot = divmod(step, per_epoch)
    order = torch.randperm(count, generator=step_generator(seed, -epoch - 1))
    return order[slot * batch_size : (slot + 1) * batch_size]


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up, then cosine decay to `final_lr_fraction` of the peak."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * (config.final_lr_fraction + (1 - config.final_lr_fraction) * cosine)


def make_optimizers(module: nn.Module, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """AdamW that decays matrices only: norms, biases and scales have no reason to shrink.

    With Muon, which makes the singular values of an update alike, the matrices of the layers are left to it, as its authors advise;
    embedding and head are tables of rows. Its steps are scaled to the size of AdamW's, so that a learning rate fits both.
    """
    if config.optimizer not in ("adamw", "muon"):
        raise ValueError(f"unknown optimizer {config.optimizer!r}; choose adamw or muon")
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    layers = [p for name, p in named if config.optimizer == "muon" and p.ndim == 2 and "embeddings" not in name and "lm_head" not in name]
    others = [p for _, p in named if not any(p is q for q in layers)]
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers = [torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)]
    if layers:
        optimizers.append(torch.optim.Muon(layers, config.learning_rate, config.weight_decay, adjust_lr_fn="match_rms_adamw"))
    return optimizers


def fit(
    module: nn.Module,
    loss: Loss,
    config: TrainingConfig,
    out: Path | None = None,
    resume: bool = False,
    stop_after: int | None = None,
    save_every: int = 500,
    description: str = "training",
    after_step: Callable[[int], None] | None = None,
) -> list[dict]:
    """Train `module` in place and return one record a step: loss, metrics, gradient norm, learning rate.

    With `out`, records go to `out/metrics.jsonl` and state to `out/state.safetensors` every `save_every` steps and at
    the end; `resume` continues from there. `stop_after` ends the run early at that step, state saved, as an
    interruption would. `after_step` is called with the number of finished steps. Raises `FileNotFoundError` if there is nothing to resume and `FloatingPointError` if the loss is not finite.
    """
    optimizers = make_optimizers(module, config)
    device = next(module.parameters()).device
    start = load_state(out, module, optimizers, config) if resume and out else 0
    end = config.steps if stop_after is None else min(stop_after, config.steps)
    log = open_log(out, start) if out else None
    records: list[dict] = []
    module.train()
    on_cpu_bf16 = config.bfloat16 and device.type == "cpu"
    bar = tqdm(range(start, end), initial=start, total=config.steps, desc=description, mininterval=1.0, file=sys.stderr)
    try:
        for step in bar:
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = learning_rate(config, step)
            # The fused attention's bfloat16 backward takes twice the time of the plain one on CPUs. The choice must hold for the
            # backward pass, too, which computes checkpointed layers again.
            with sdpa_kernel(SDPBackend.MATH) if on_cpu_bf16 else nullcontext():
                with torch.autocast(device.type, torch.bfloat16, enabled=config.bfloat16):
                    value, metrics = loss(step)
                if not torch.isfinite(value):
                    raise FloatingPointError(
                        f"the loss is {float(value.detach())} at step {step}; lower the learning rate or resume from an earlier state"
                    )
                module.zero_grad(set_to_none=True)
                value.backward()
            norm = nn.utils.clip_grad_norm_(module.parameters(), config.grad_clip)
            for optimizer in optimizers:
                optimizer.step()
            balance_experts(module, config.balance_rate)
            record = {"step": step, "loss": float(value.detach()), **metrics, "grad_norm": float(norm), "lr": learning_rate(config, step)}
            records.append(record)
            if log:
                log.write(json.dumps(record) + "\n")
            if step % 10 == 0:
                bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
            if out and ((step + 1) % save_every == 0 or step + 1 == end):
                log.flush()
                save_state(out, module, optimizers, step + 1, config)
            if after_step:
                after_step(step + 1)
    finally:
        bar.close()
        if log:
            log.close()
        module.eval()
    return records


def open_log(out: Path, start: int):
    """`metrics.jsonl` for appending, cut back to the steps before `start` so that a resumed run logs each step once."""
    path = out / "metrics.jsonl"
    kept = []
    if start and path.exists():
        kept = [line for line in path.read_text().splitlines() if line.endswith("}") and json.loads(line)["step"] < start]
    with checkpoint.atomic(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))
    return open(path, "a")


def save_state(out: Path, module: nn.Module, optimizers: list[torch.optim.Optimizer], step: int, config: TrainingConfig) -> None:
    """Model, optimiser moments and step in one atomic file."""
    tensors = {f"model.{k}": v for k, v in module.state_dict().items()}
    for number, optimizer in enumerate(optimizers):
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{index}.{k}": v for k, v in moments.items()}
    metadata = {"step": str(step), "training": json.dumps(to_dict(config))}
    checkpoint.save_tensors(out / "state.safetensors", tensors, metadata)


def load_state(out: Path, module: nn.Module, optimizers: list[torch.optim.Optimizer], config: TrainingConfig) -> int:
    """Restore what `save_state` wrote; returns the step to continue with."""
    path = out / "state.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"nothing to resume in {out}; start without --resume")
    tensors, metadata = checkpoint.read_tensors(path)
    if metadata.get("training") != json.dumps(to_dict(config)):
        raise ValueError(f"{path} belongs to a run with other training settings; resume with the settings it was started with")
    model = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    checkpoint.load_tensors(module, model, path)
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, index, name = key.split(".")
            states[int(number)].setdefault(int(index), {})[name] = value
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])


# --- recipes: what one step of each kind of model sees -------------------------------------------------------------


def bpe_corpus(every_task: bool = False) -> list[str]:
    """What the text tokenizer learns its merges from: every caption and the fixed prompts of the layouts, or what any task can say."""
    partial = [captions.caption(digit) for digit in range(10)]
    systems = layout.SYSTEM_PROMPTS if every_task else ("draw", "describe")
    prompts = [*(layout.SYSTEM_PROMPTS[name] for name in systems), layout.DESCRIBE_QUESTION] * 5  # as frequent as common caption words
    return captions.all_captions() + partial + prompts + (examples.all_texts() if every_task else [])


def shift(images: Tensor, generator: torch.Generator, most: int = 2) -> Tensor:
    """Each image `[B, C, H, W]` moved by up to `most` px; captions stay true, which rotation or scaling would not grant."""
    size = images.shape[-1]
    offsets = torch.randint(0, 2 * most + 1, (2, len(images), 1), generator=generator)
    rows, columns = offsets + torch.arange(size)
    padded = nn.functional.pad(images, (most,) * 4)
    return padded[
        torch.arange(len(images))[:, None, None, None],
        torch.arange(images.shape[1])[:, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def caption_table(text: Vocabulary) -> Tensor:
    """Piece ids `[N, T]` of every full caption, in the order of `captions.all_captions`."""
    return torch.tensor([text.encode(c) for c in captions.all_captions()])


def caption_index(classes: Tensor) -> Tensor:
    """Row of `caption_table` for classes `[B, 3]`."""
    return (classes[:, 0] * len(captions.THICKNESS_WORDS) + classes[:, 1]) * len(captions.SLANT_WORDS) + classes[:, 2]


def judge_loss(module: nn.Module, images: data.Images, config: TrainingConfig) -> Loss:
    def loss(step: int):
        index = batch_indices(len(images.labels), config.batch_size, step, config.seed)
        device = next(module.parameters()).device
        return module.loss(images.floats(index).to(device), images.labels[index].to(device), step_generator(config.seed, step))

    return loss


def tokenizer_loss(module: ImageTokenizer, images: data.Images, text: Vocabulary, config: TrainingConfig) -> Loss:
    device = next(module.parameters()).device
    table = caption_table(text).to(device)

    def loss(step: int):
        generator = step_generator(config.seed, step)
        index = batch_indices(len(images.labels), config.batch_size, step, config.seed)
        shown = shift(images.floats(index), generator)
        if config.operation_share:
            chosen = torch.randint(len(edits.OPERATIONS), (len(index),), generator=generator).tolist()
            spared = (torch.rand(len(index), generator=generator) >= config.operation_share).tolist()
            names = list(edits.OPERATIONS)
            shown = edits.apply([None if s else names[c] for s, c in zip(spared, chosen, strict=True)], shown)
        # Thickness and slant are those of what is shown, which can only be measured white on black.
        dark = shown.mean((1, 2, 3), keepdim=True) < 0.5
        right = caption_index(captions.caption_classes(torch.where(dark, shown, 1 - shown), images.labels[index]))
        return module.loss(shown.to(device), table, right.to(device), generator)

    return loss


def backbone_batches(tokenizer: ImageTokenizer, vocab: Vocabulary, images: data.Images, preset: Preset, step: int) -> list[layout.Batch]:
    """One batch a task, or one of packed rows, in the shares of the preset; images are tokenised afresh, shifted at random, at every step.

    Tasks differ in length and in where their response begins; in one batch, each would be computed over the other's range too.
    """
    config = preset.training
    generator = step_generator(config.seed, step)
    index = batch_indices(len(images.labels), config.batch_size, step, config.seed)
    originals = images.floats(index)
    classes = captions.caption_classes(originals, images.labels[index]).tolist()
    device = next(tokenizer.parameters()).device
    codes = tokenizer.encode(shift(originals, generator).to(device)).cpu()
    chance = torch.rand(len(index), 3, generator=generator).tolist()
    draw, describe = [], []
    for i, (digit, thickness, angle) in enumerate(classes):
        text = captions.caption(digit, thickness, angle)
        if math.ceil((i + 1) * config.draw_share) == math.ceil(i * config.draw_share):
            describe.append(layout.describe_sequence(vocab, codes[i], text))
            continue
        drop, partial, which = chance[i]
        if drop < config.unconditional_rate:
            text = None
        elif partial < config.partial_caption_rate:  # "a seven", "a thick seven" and "a seven leaning right" in equal parts
            text = captions.caption(digit, thickness if which > 2 / 3 else None, angle if which < 1 / 3 else None)
        draw.append(layout.draw_sequence(vocab, text, codes[i]))
    multiple = padding_multiple(preset)
    if config.pack_length:
        return [layout.pack(draw + describe, vocab, config.pack_length, multiple)]
    return [layout.collate(sequences, vocab, multiple) for sequences in (draw, describe) if sequences]


def encode_pictures(
    tokenizer: ImageTokenizer, images: data.Images, pictures: list[examples.Picture], generator: torch.Generator | None
) -> dict[examples.Picture, Tensor]:
    """Codes `[h, w]` of each picture. With a generator, every image is first moved at random, the same way before and after an edit."""
    if not pictures:
        return {}
    indices = sorted({p.index for p in pictures})
    row = {index: r for r, index in enumerate(indices)}
    originals = images.floats(torch.tensor(indices))
    if generator is not None:
        originals = shift(originals, generator)
    pictures = sorted(set(pictures), key=lambda p: (p.index, p.operation or ""))
    shown = edits.apply([p.operation for p in pictures], originals[[row[p.index] for p in pictures]])
    device = next(tokenizer.parameters()).device
    codes = torch.cat([tokenizer.encode(part.to(device)).cpu() for part in shown.split(500)])
    return dict(zip(pictures, codes, strict=True))


def write_example(vocab: Vocabulary, example: examples.Example, codes: dict[examples.Picture, Tensor]) -> layout.Sequence:
    """The training sequence of an example whose pictures are known as codes."""
    user, response = ([codes.get(part, part) if isinstance(part, examples.Picture) else part for part in side] for side in example[1:3])
    return layout.sequence(vocab, example.system, user, response, example.given)


def mixture_batches(tokenizer: ImageTokenizer, vocab: Vocabulary, pool: examples.Pool, preset: Preset, step: int) -> list[layout.Batch]:
    """Examples of every task, drawn by the shares of the mixture, gathered by shape or packed into rows."""
    config = preset.training
    rng = random.Random(config.seed * 1_000_003 + step)
    tasks, shares = zip(*config.mixture, strict=True)
    chosen = [
        examples.drop(examples.TASKS[task](pool, rng, config.varied), rng, config.unconditional_rate)
        for task in rng.choices(tasks, shares, k=config.batch_size)
    ]
    pictures = [part for example in chosen for part in example.user + example.response if isinstance(part, examples.Picture)]
    codes = encode_pictures(tokenizer, pool.images, pictures, step_generator(config.seed, step))
    sequences, multiple = [write_example(vocab, example, codes) for example in chosen], padding_multiple(preset)
    if config.pack_length:
        return [layout.pack(sequences, vocab, config.pack_length, multiple)]
    return layout.by_shape(sequences, vocab, multiple)


def backbone_loss(backbone: nn.Module, tokenizer: ImageTokenizer, vocab: Vocabulary, images: data.Images, preset: Preset) -> Loss:
    """The block diffusion loss of each batch of a step, for the objective of the preset, averaged by their shares of the rows."""
    device = next(backbone.parameters()).device
    config = preset.training
    pool = examples.Pool(images, config.held_out) if config.mixture else None
    settings = dict(
        objective=config.objective, per=config.mask_rate_per, views=config.views,
        complementary=config.complementary, confidence_weight=config.confidence_weight,
        edit_noise=config.edit_noise, text_weight=config.text_weight, image_offset=vocab.image_token_offset,
    )  # fmt: skip
    backbone.activation_checkpointing = config.activation_checkpointing
    if config.compile:
        backbone.hidden_states = torch.compile(backbone.hidden_states)  # a compiled module would have other names for its weights

    def loss(step: int):
        generator = step_generator(config.seed, step)
        total, nats = torch.zeros((), device=device), 0.0
        batches = (
            mixture_batches(tokenizer, vocab, pool, preset, step) if pool else backbone_batches(tokenizer, vocab, images, preset, step)
        )
        for batch in batches:
            ids, targets, share = batch.ids.to(device), batch.targets.to(device), len(batch.ids) / sum(len(b.ids) for b in batches)
            documents = None if batch.documents is None else batch.documents.to(device)
            block_size = min(block_size_at(preset, step), ids.shape[1])
            with noisy_mask_embedding(backbone, vocab.mask_id, mask_noise_at(config, step), generator):
                value, metrics = block_diffusion_loss(
                    backbone, ids, targets, block_size, vocab.mask_id, config.mask_rate, generator, documents=documents, **settings
                )
            if config.planted_errors:
                value = value + draft_loss(backbone, batch, vocab, block_size, config.planted_errors, generator)
            total, nats = total + share * value, nats + share * metrics["masked_nats"]
        return total, {"masked_nats": nats}

    return loss


def text_path(text: str = "mnist-text") -> Path:
    """Where shipped text pieces are."""
    return data.WEIGHTS_DIR / f"{text}.json"


def load_vocabulary(codebook_size: int, text: str = "mnist-text") -> Vocabulary:
    """The shipped text pieces called `text` with `codebook_size` image codes behind them."""
    return Vocabulary.from_file(text_path(text), codebook_size)


def new_model(preset: Preset, device: str | torch.device, tokenizer: ImageTokenizer | None = None) -> nn.Module:
    """An untrained model of a preset, seeded; a backbone's image rows start from the tokenizer's codebook."""
    torch.manual_seed(preset.training.seed)
    module = checkpoint.build(preset.kind, to_dict(preset.model))
    if isinstance(preset.model, ModelConfig) and tokenizer is not None:
        offset = preset.model.vocab_size - tokenizer.config.codebook_size
        module.start_image_rows(tokenizer.codebook.embedding.cpu(), offset)
    # Convolutions run up to twice as fast in this memory layout on CPUs.
    return module.to(device, memory_format=torch.channels_last)


def command(preset: Preset, tokenizer_weights: str | None, start: str | None) -> str:
    """The command line that repeats this run, for the JSON beside the weights."""
    shipped = get_preset(preset.name)
    parts = ["minillada train", preset.name]
    for ours, theirs in ((preset.training, shipped.training), (preset.model, shipped.model)):
        for name, value in to_dict(ours).items():
            if value == to_dict(theirs)[name]:
                continue
            if name in ("steps", "learning_rate", "draw_share", "seed"):
                parts.append(f"--{name.replace('_', '-')} {value}")
            elif name == "bfloat16":
                parts.append("--bf16")
            else:
                parts.append(f"--set {name}={json.dumps(value, separators=(',', ':')) if not isinstance(value, str) else value}")
    parts += [f"--tokenizer {tokenizer_weights}"] if tokenizer_weights else []
    parts += [f"--start {start}"] if start else []
    return " ".join(parts)


def train(
    preset: Preset,
    out: Path,
    device: str = "cpu",
    resume: bool = False,
    stop_after: int | None = None,
    tokenizer_weights: str | None = None,
    start: str | None = None,
    snapshot_every: int | None = None,
) -> tuple[nn.Module | None, list[dict]]:
    """Train a preset on MNIST into the folder `out`; returns the module and the records of `fit`.

    `start` names weights to start from instead of random ones: a second round of the same recipe, or another block size.
    `snapshot_every` so many steps the weights are kept as `step-NNNNNN.safetensors` too, to be looked at or merged later.
    Writes `weights.safetensors` and its JSON when the run is complete (text pieces: `text.json`, and no module).
    """
    if preset.kind == "text":
        with checkpoint.atomic(out / "text.json") as temporary:
            train_bpe(bpe_corpus(preset.model.every_task), preset.model.vocab_size).save(str(temporary))
        return None, []
    check_block_schedule(preset)
    images = data.load_mnist("train")
    info = {
        "preset": preset.name,
        "kind": preset.kind,
        "command": command(preset, tokenizer_weights, start),
        "config": to_dict(preset.model),
        "training": to_dict(preset.training),
    }
    tokenizer = None
    if preset.kind == "backbone":
        tokenizer, tokenizer_info = checkpoint.load_model(tokenizer_weights or preset.tokenizer, "tokenizer", device)
        info |= {"tokenizer": tokenizer_weights or preset.tokenizer, "tokenizer_sha256": tokenizer_info["sha256"], "text": preset.text}
        vocab = load_vocabulary(tokenizer.config.codebook_size, preset.text)
    module = new_model(preset, device, tokenizer)
    if start:
        other, start_info = checkpoint.load_model(start, preset.kind)
        tensors = transfer.grown(other.state_dict(), module.state_dict())
        if preset.kind == "backbone" and start_info["tokenizer_sha256"] != tokenizer_info["sha256"]:
            theirs, _ = checkpoint.load_model(start_info["tokenizer"], "tokenizer")
            vocabs = load_vocabulary(theirs.config.codebook_size, start_info.get("text", "mnist-text")), vocab
            codebooks = theirs.codebook.embedding, tokenizer.codebook.embedding.cpu()
            tensors = transfer.translated(tensors, {k: v.cpu() for k, v in module.state_dict().items()}, vocabs, codebooks)
        checkpoint.load_tensors(module, tensors, checkpoint.resolve(start))
        info["start"] = {key: start_info[key] for key in ("command", "training", "start") if key in start_info}
    if preset.kind == "judge":
        loss = judge_loss(module, images, preset.training)
    elif preset.kind == "tokenizer":
        loss = tokenizer_loss(module, images, load_vocabulary(preset.model.codebook_size), preset.training)
    else:
        loss = backbone_loss(module, tokenizer, vocab, images, preset)
    began = time.perf_counter()

    def snapshot(step: int) -> None:
        if snapshot_every and step % snapshot_every == 0:
            checkpoint.save_model(checkpoint.snapshot_path(out, step), module, info | {"step": step})

    records = fit(module, loss, preset.training, out, resume, stop_after, description=preset.name, after_step=snapshot)
    weights = out / "weights.safetensors"
    complete = stop_after is None or stop_after >= preset.training.steps
    if complete and (records or not weights.exists()):  # resuming a finished run leaves its JSON, with its time, as it was
        info |= {
            "parameters": sum(p.numel() for p in module.parameters()),
            "seconds": round(time.perf_counter() - began),
            "data_md5": data.MNIST_MD5,
        }
        checkpoint.save_model(weights, module, info)
    return module, records

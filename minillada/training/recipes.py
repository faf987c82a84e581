"""What one step of each kind of model sees, and what it is asked (painters: `painters.py`).

`judge_loss`, `tokenizer_loss` and `backbone_loss` each return a `Loss` (`distributed.py`).
"""

from __future__ import annotations

import copy
import functools

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .. import layout
from ..batching import WHOLE, Batch, Portion
from ..config import Preset, TrainingConfig
from ..datasets import edits
from ..datasets.grammar import Grammar
from ..datasets.images import Images
from ..datasets.pool import Pool
from ..datasets.table import MNIST, DataSet
from ..diffusion import block_diffusion_loss
from ..extras.conversion import block_size_at, mask_noise_at, noisy_mask_embedding
from ..extras.levenshtein import draft_loss
from ..measure.judge import Judge
from ..model import Backbone
from ..settings import changed
from ..tasks.table import all_texts
from ..vocab import Vocabulary
from ..vq import Codebook, ImageTokenizer, Quantised
from .ahead import Ahead
from .distributed import Loss, all_rows
from .loop import batch_indices, step_generator
from .stream import mixture_batches, moved_codes, shift


def bpe_corpus(every_task: bool = False, data: DataSet = MNIST) -> list[str]:
    """What the text tokenizer of a data set learns its merges from.

    Captions and the fixed prompts of the layouts; with `every_task`, what any task can say too.
    """
    labels = next(iter(data.grammar.words.values()))
    partial = [data.grammar.caption(label) for label in range(len(labels))]  # name the label alone
    systems = layout.SYSTEM_PROMPTS if every_task else ("draw", "describe")
    prompts = [layout.SYSTEM_PROMPTS[name] for name in systems]
    prompts.append(layout.DESCRIBE_QUESTION)
    # Prompts five times, so that their words are about as frequent as the name of a digit.
    texts = data.grammar.all_captions() + partial + prompts * 5
    return texts + all_texts(data) if every_task else texts


def caption_table(text: Vocabulary, grammar: Grammar) -> Tensor:
    """Piece ids `[N, T]` of every full caption, in the order of `Grammar.all_captions`.

    Shorter captions are filled up with the end of a text, which `vq.CaptionTower` leaves out.
    """
    rows = [torch.tensor(text.encode(caption)) for caption in grammar.all_captions()]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=text.eos_id)


def judge_loss(module: Judge, images: Images, config: TrainingConfig) -> Loss:
    """Cross-entropy of the class."""
    images = images.to(next(module.parameters()).device)
    module.prepare(images.floats(slice(0, 5000)))

    def loss(step: int):
        index = batch_indices(len(images.labels), config.batch_size, step, config.seed)
        pixels, labels = images.floats(index), images.labels[index]
        return module.loss(pixels, labels, step_generator(config.seed, step))

    return loss


def image_tokenizer_loss(
    tokenizer: ImageTokenizer,
    images: Tensor,
    caption_ids: Tensor,
    caption_index: Tensor,
    generator: torch.Generator,
    step: int = 0,
    teacher: Judge | None = None,
    portion: Portion = WHOLE,
) -> tuple[Tensor, dict[str, float]]:
    """Training loss of a batch, and its parts; in training mode the codebook moves as well.

    `caption_ids` `[N, T]` and `caption_index` `[B]` as in `vq.CaptionTower`. In the first
    `unquantised_steps` the decoder reads features: a codebook starts better from trained ones.
    `images` may be one `portion` of a batch; PSNR and codebook still use the rows of all portions.
    """
    config = tokenizer.config
    features = tokenizer.encoder(images)
    if config.unquantised_steps and step == config.unquantised_steps and tokenizer.training:
        start_codebook(tokenizer.codebook, all_rows(features.detach(), portion), generator)
    quantised = tokenizer.codebook(features)
    unquantised = step < config.unquantised_steps
    shown = quantised.features if unquantised else quantised.vectors
    output = tokenizer.decoder(shown.contiguous(memory_format=torch.channels_last))
    # 1. Squared error alone blurs strokes, and they look thick. So edges, the differences of
    # neighbouring pixels, must match, too.
    squared = F.mse_loss(output, images)
    total = squared + config.edge_weight * edge_distance(output, images)
    # 2. Commitment pulls each feature towards its code. The codes have no gradient.
    vectors = rearrange(tokenizer.embedding[quantised.codes], "b h w c -> b c h w")
    commitment = F.mse_loss(quantised.features, vectors)
    if not unquantised:
        total = total + commitment
    error = all_rows(squared.detach()[None], portion).mean()  # of all portions
    parts = {"psnr_db": float(-10 * error.log10()), "commit": float(commitment.detach())}
    # 3. Alignment: caption and tokens agree.
    if config.alignment_weight > 0:
        alignment = tokenizer.tower(shown, caption_ids, caption_index)
        total = total + config.alignment_weight * alignment
        parts["alignment"] = float(alignment.detach())
    # 4. What a classifier sees stays, although pixels change; so does the colour of each token.
    if teacher is not None:
        distance = feature_distance(teacher, output, images)
        total = total + config.feature_weight * distance
        parts["features"] = float(distance.detach())
    if config.colour_weight > 0:
        total = total + config.colour_weight * colour_distance(output, images, config.patch_size)
    if tokenizer.training and not unquantised:
        parts["revived"] = move_codebook(tokenizer.codebook, quantised, portion, generator)
    return total, parts


def edge_distance(output: Tensor, images: Tensor) -> Tensor:
    """Mean difference of the differences of neighbouring pixels, in both directions."""
    down = F.l1_loss(output.diff(dim=2), images.diff(dim=2))
    return down + F.l1_loss(output.diff(dim=3), images.diff(dim=3))


def colour_distance(output: Tensor, images: Tensor, patch: int) -> Tensor:
    """Mean squared difference of the mean colours of patches."""
    return F.mse_loss(F.avg_pool2d(output, patch), F.avg_pool2d(images, patch))


def move_codebook(
    codebook: Codebook, quantised: Quantised, portion: Portion, generator: torch.Generator
) -> int:
    """Let a codebook learn from all rows of a batch; how many dead codes restart."""
    features = all_rows(quantised.features.detach(), portion)
    return codebook.update(features, all_rows(quantised.codes, portion), generator)


@torch.no_grad()
def start_codebook(codebook: Codebook, features: Tensor, generator: torch.Generator) -> None:
    """Take the code vectors from features `[B, D, h, w]`, chosen at random."""
    flat = F.normalize(rearrange(features, "b d h w -> (b h w) d").float(), dim=-1)  # [N, D]
    size = len(codebook.embedding)
    # If there are few features, each is taken several times: size / N, rounded up.
    order = torch.randperm(len(flat), generator=generator).repeat(-(-size // len(flat)))
    codebook.embedding.copy_(flat[order[:size].to(flat.device)])
    codebook.sums.copy_(codebook.embedding)
    codebook.counts.fill_(1.0)


def feature_distance(teacher: Judge, output: Tensor, images: Tensor) -> Tensor:
    """How differently a classifier sees two batches of images; 0 if they are equal.

    As LPIPS (arXiv 1801.03924), without its learned weights: at every place of every stage the
    activations have length 1, and their squared distance is averaged.
    """
    with torch.no_grad():
        wanted = teacher.stages(images)
    total = torch.zeros((), device=images.device)
    for seen, target in zip(teacher.stages(output), wanted):
        difference = F.normalize(seen.float(), dim=1) - F.normalize(target.float(), dim=1)
        total = total + difference.square().sum(1).mean()
    return total / len(wanted)


def tokenizer_loss(
    module: ImageTokenizer,
    images: Images,
    data: DataSet,
    text: Vocabulary,
    config: TrainingConfig,
    teacher: Judge | None = None,
) -> Loss:
    """Reconstruction, and alignment of each image with its own caption among all captions.

    It takes a step and, if several processes share it, the portion whose share is wanted.
    """
    device = next(module.parameters()).device
    images = images.to(device)
    table = caption_table(text, data.grammar).to(device)

    def loss(step: int, portion: Portion = WHOLE):
        generator = step_generator(config.seed, step)
        index = batch_indices(len(images.labels), config.batch_size, step, config.seed)
        shown = shift(images.floats(index), generator)  # [B, C, H, W]
        if config.data.operation_share:
            names = list(data.operations)
            shown = edit_some(shown, names, config.data.operation_share, generator)
        # What a caption says beside the label is measured on what is shown.
        classes = data.classes(shown, images.labels[index])  # [B, columns]
        right = data.grammar.index(classes).to(device)
        mine = portion.has(torch.arange(len(shown))).to(device)
        shown = shown[mine].contiguous(memory_format=torch.channels_last)
        value, parts = image_tokenizer_loss(
            module, shown, table, right[mine], generator, step, teacher, portion
        )
        return value / portion.of, {name: part / portion.of for name, part in parts.items()}

    return loss


def edit_some(images: Tensor, names: list[str], share: float, generator: torch.Generator) -> Tensor:
    """Images `[B, C, H, W]`, a share of them edited by a random operation."""
    chosen = torch.randint(len(names), (len(images),), generator=generator).tolist()
    edited = (torch.rand(len(images), generator=generator) < share).tolist()
    instructions = [names[c] if e else None for c, e in zip(chosen, edited)]
    return edits.apply(instructions, images)


def backbone_loss(
    backbone: Backbone, tokenizer: ImageTokenizer, vocab: Vocabulary, pool: Pool, preset: Preset
) -> Loss:
    """The block diffusion loss of the batches of a step, averaged by their shares of the rows.

    It takes a step and, where a step is computed in portions, the portion whose share is wanted.
    """
    config = preset.training
    backbone.activation_checkpointing = config.activation_checkpointing
    if config.compile:
        # The method, not the module: a compiled module has other names for its weights.
        backbone.hidden_states = torch.compile(backbone.hidden_states)  # type: ignore

    if config.data.moves and pool.moved is None:
        edited = any(task.startswith("edit") for task, _ in config.data.mixture)
        pool.moved = moved_codes(tokenizer, pool, config.data.moves, config.seed, edited)
    # Workers have no GPU.
    reader = copy.deepcopy(tokenizer).cpu() if config.workers else tokenizer
    make = functools.partial(mixture_batches, reader, vocab, pool, preset)
    batches_of = Ahead(make, config.steps, config.workers)

    def loss(step: int, portion: Portion = WHOLE):
        # Every portion takes the same random numbers, those of the whole step.
        generator = step_generator(config.seed, step)
        batches = batches_of(step)
        # By rows, not by tokens: a task with long responses counts no more than its share.
        rows = sum(len(batch.ids) for batch in batches)
        total, nats = torch.zeros((), device=backbone.lm_head.weight.device), 0.0
        done = 0  # rows of earlier batches
        for batch in batches:
            share = len(batch.ids) / rows
            mine = portion._replace(first=done)
            value, metrics = batch_loss(backbone, vocab, batch, preset, step, generator, mine)
            done += len(batch.ids)
            total = total + share * value
            nats += share * metrics["masked_nats"]
        return total, {"masked_nats": nats}

    return loss


def batch_loss(
    backbone: Backbone,
    vocab: Vocabulary,
    batch: Batch,
    preset: Preset,
    step: int,
    generator: torch.Generator,
    portion: Portion = WHOLE,
) -> tuple[Tensor, dict[str, float]]:
    """Loss and metrics of one batch with the settings of the preset, or a portion's share."""
    config = preset.training
    on_device = batch.to(backbone.lm_head.weight.device)
    # A schedule may name a block larger than any row; then the row is one block.
    block_size = min(block_size_at(preset, step), batch.ids.shape[1])
    objective = config.loss
    if block_size == 1 and config.block_sizes:
        # In a mixture, size 1 is plain autoregression: every token is masked, alone in its block.
        objective = changed(objective, mask_rate=(1.0, 1.0), complementary=False)
    with noisy_mask_embedding(backbone, vocab.mask_id, mask_noise_at(config, step), generator):
        value, metrics = block_diffusion_loss(
            backbone, on_device, vocab, block_size, objective, generator, portion
        )
    if config.loss.planted_errors:
        errors = config.loss.planted_errors  # planted on the CPU, into lists
        value = value + draft_loss(backbone, batch, vocab, block_size, errors, generator, portion)
    return value, metrics

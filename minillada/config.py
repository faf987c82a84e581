"""Every size and every default in one place: frozen dataclasses and the named presets built from them.

Notable choices
- A preset is data, not code: `PRESETS["mnist"]` says which model, which training run and which image tokenizer,
  so the command `minillada train mnist` needs no further flags and a checkpoint can store the preset beside its weights.
- One dial per model: the widths below were chosen so that the live notebook run (`mnist-cpu`) fits in 90 s on two
  laptop cores and each round of the shipped one (`mnist`) in about an hour.
- Field names follow the official configuration where it has one (`hidden_size`, `num_key_value_heads`, …).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

TEXT_VOCAB_SIZE = 384  # 256 bytes, the special tokens and every merge that the captions and prompts support


@dataclass(frozen=True)
class TextConfig:
    """Byte-level BPE; it learns merges, not weights, so its training settings play no part."""

    vocab_size: int = TEXT_VOCAB_SIZE
    every_task: bool = False  # learn pieces from the texts of every task, not from captions alone


@dataclass(frozen=True)
class TokenizerConfig:
    """Image tokenizer: `image_size` px squares become a `grid` x `grid` raster of codes."""

    image_size: int = 32
    channels: int = 1
    patch_size: int = 8  # pixels per token side; one token summarises patch_size² pixels
    codebook_size: int = 512
    code_dim: int = 32
    width: int = 24  # channels after the first convolution; doubled at every halving
    caption_vocab_size: int = TEXT_VOCAB_SIZE  # text ids the alignment tower embeds
    alignment_weight: float = 0.015  # weight of the caption-alignment loss; 0 trains for pixels alone
    edge_weight: float = 0.3  # weight of the L1 loss on image gradients, which keeps strokes sharp

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        return self.grid**2


@dataclass(frozen=True)
class JudgeConfig:
    """The classifier that marks what the other models draw; it never takes part in their training."""

    image_size: int = 32
    channels: int = 1
    classes: int = 10
    width: int = 32
    features: int = 64  # penultimate layer, the space of the Fréchet distance


@dataclass(frozen=True)
class ModelConfig:
    """Backbone; the names are those of the official `config.json`."""

    vocab_size: int
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    intermediate_size: int = 352
    rms_norm_eps: float = 1e-6
    rope_theta: float = 600_000.0
    partial_rotary_factor: float = 0.5
    initializer_range: float = 0.08  # about 1/√hidden_size at our widths; the official 0.02 is 1/√2048 (docs/log.md)
    max_position_embeddings: int = 512
    block_size: int = 16  # the block length the model is trained to decode with
    num_experts: int = 0  # routed experts a layer; 0 is a dense model
    num_experts_per_tok: int = 2
    num_shared_experts: int = 1
    n_group: int = 1
    topk_group: int = 1
    moe_intermediate_size: int = 96
    routed_scaling_factor: float = 2.5
    first_k_dense_replace: int = 1  # so many first layers stay dense


@dataclass(frozen=True)
class TrainingConfig:
    steps: int
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    final_lr_fraction: float = 0.02  # the learning rate decays (cosine) to this fraction
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    optimizer: str = "adamw"  # or "muon", for the matrices of the layers
    grad_clip: float = 1.0
    # Mask rates are drawn uniformly from this interval. A block of 16 never shows the sampler a rate below 1/16,
    # and the 1/t weight of such rates is mostly variance.
    mask_rate: tuple[float, float] = (0.05, 1.0)
    objective: str = "bound"  # how masked tokens are weighed: a name of `diffusion.OBJECTIVES`
    mask_rate_per: str = "block"  # or "sequence", whose blocks then share a rate
    views: int = 1  # noisy copies of a row that share its clean copy
    complementary: bool = False  # add to every view its inverse
    confidence_weight: float = 0.0  # weight of the confidence-aware term; the released code suggests 2
    pack_length: int = 0  # pack the sequences of a step into rows of so many tokens; 0 makes a batch of each task
    activation_checkpointing: bool = False  # store only what enters a layer and compute the rest again: less memory, a third more work
    compile: bool = False  # torch.compile: minutes for the first steps, the others a little faster; for long runs
    edit_noise: float = 0.0  # share of the visible response tokens that are replaced and must be predicted back (token editing)
    planted_errors: float = 0.0  # share of the tokens of text answers with an error to be repaired (Levenshtein editing)
    # Block size over the run, as (share of the run at which it begins, block size); empty is the model's own throughout.
    block_schedule: tuple[tuple[float, int], ...] = ()
    mask_noise: float = 0.0  # std of noise on the embedding of masked tokens at the first step; gone when warm-up ends
    text_weight: float = 1.0  # how many times the nats of a text token count, compared with those of an image code
    draw_share: float = 0.5  # share of the batch that draws; the rest describes
    mixture: tuple[tuple[str, float], ...] = ()  # shares of the tasks of `tasks.table.TRAINED`, instead of `draw_share`
    held_out: int = 9  # so many pairs of `tasks.numbers.HELD_OUT` are kept out of the sums to be learned
    varied: bool = False  # vary the wording of what is asked
    operation_share: float = 0.0  # share of a tokenizer's images that were edited first (`edits.OPERATIONS`)
    unconditional_rate: float = 0.1  # share of prompts replaced by <uncondition>, for classifier-free guidance
    partial_caption_rate: float = 0.2  # share of drawing prompts that leave out thickness, slant or both
    balance_rate: float = 0.001  # u of the router's bias update after each step; a dense model has no router
    bfloat16: bool = False
    seed: int = 0


@dataclass(frozen=True)
class SamplingConfig:
    """Decoding defaults. The official text decoder runs block 32, 32 steps, threshold 0.95, temperature 0."""

    block_size: int = 16
    steps: int = 8  # denoising steps per block
    threshold: float = 0.95  # commit every position at least this confident
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: float = 1.0  # scale of (conditional − unconditional); 1 is none
    guidance_image: float = 0.0  # scale of (no text − no image) in three-way guidance; 0 is none
    rescale: float = 0.0  # how far guided logits are brought back to the spread of the conditional ones; officially 0.7
    minimal_topk: int = 1  # at least this many tokens a step: bounds the steps by length / minimal_topk
    edit_threshold: float = 1.0  # rewrite a token of the block when another is likelier than this (LLaDA2.1); 1 is never
    post_steps: int = 16  # at most this many passes over a block that has no masks left, while they still rewrite
    strategy: str = "low_confidence"  # what the quota ranks by: see sampler.STRATEGIES
    adaptive: bool = False  # quota = what is still masked over the steps left (SPRINT), not a fixed share of the block
    fill_tail: bool = True  # also decode what the last block holds beyond the requested length, as the released loop does


@dataclass(frozen=True)
class Preset:
    """One runnable thing. `kind` is `text`, `judge`, `tokenizer` or `backbone`; `tokenizer` names what a backbone reads."""

    name: str
    kind: str
    model: TextConfig | TokenizerConfig | JudgeConfig | ModelConfig
    training: TrainingConfig
    tokenizer: str | None = None
    text: str = "mnist-text"  # the text pieces of a backbone's vocabulary


def frozen(value):
    """A JSON value as a config holds it: lists become tuples, lists of lists tuples of tuples."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def thawed(value):
    """The inverse of `frozen`."""
    return list(map(thawed, value)) if isinstance(value, tuple) else value


def to_dict(config) -> dict:
    """A config as plain JSON types."""
    return {k: thawed(v) for k, v in asdict(config).items()}


def from_dict(cls, values: dict):
    """The inverse of `to_dict`; unknown or missing fields are a `ValueError` that names them."""
    known = {f.name for f in fields(cls)}
    if unknown := set(values) - known:
        raise ValueError(f"{cls.__name__} has no field {sorted(unknown)[0]!r}; was this file written by another version?")
    try:
        return cls(**{k: frozen(v) for k, v in values.items()})
    except TypeError as error:
        raise ValueError(f"{cls.__name__} cannot be built from this file: {error}") from None

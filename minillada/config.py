"""The sizes and defaults that a user may change: immutable configurations that check themselves.

Notable choices
- A value of a wrong type or outside its limits is refused when a configuration is made, wherever
  it came from. What depends on several fields is mostly checked where it is used.
- Fields have their official names where there are some. Official: of the released LLaDA2.0-Uni.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from .settings import Config

LARGEST_SEED = 2**31
MNIST_TEXT_VOCAB_SIZE = 384  # 256 bytes, 25 special tokens, 103 merges: each word is one piece
Share = Annotated[float, Field(ge=0, le=1)]  # a share or a probability
Decay = Annotated[float, Field(ge=0, lt=1)]  # of a running mean; 1 would never move it
Width = Annotated[int, Field(ge=8, le=65_536, multiple_of=8)]  # channels, in 8 groups (GroupNorm)


# --- models --------------------------------------------------------------------------------------


class TextConfig(Config):
    """Byte-level BPE (`vocab`). It learns merges, not weights, so no training setting is used."""

    vocab_size: int = Field(MNIST_TEXT_VOCAB_SIZE, ge=300, le=10_000_000)
    every_task: bool = False  # also learn pieces from what any task says (`recipes.bpe_corpus`)
    max_grid: int = Field(16, ge=1, le=1024)  # each side length 1 to this, in codes, gets a token


class TokenizerConfig(Config):
    """Image tokenizer: `image_size` px squares become a `grid` x `grid` raster of codes."""

    image_size: int = Field(32, ge=8, le=4096)
    channels: int = Field(1, ge=1, le=4)
    patch_size: int = Field(8, ge=2, le=64)  # side of the square of pixels that a code stands for
    codebook_size: int = Field(512, ge=2, le=1_000_000)
    code_dim: int = Field(32, ge=1, le=65_536)  # numbers in the vector of a code
    width: Width = 24  # channels after the first convolution
    depth: int = Field(1, ge=1, le=64)  # of every residual block (`vq.ResidualBlock`)
    caption_vocab_size: int = Field(MNIST_TEXT_VOCAB_SIZE, ge=1)  # ids known to `vq.CaptionTower`
    alignment_weight: float = Field(0.015, ge=0)  # of the caption loss; 0: learn pixels only
    edge_weight: float = Field(0.3, ge=0)  # of an extra loss on image edges; keeps strokes sharp
    feature_weight: float = Field(0.0, ge=0)  # of a loss on the features of `Preset.teacher`
    colour_weight: float = Field(0.0, ge=0)  # of a loss on the mean colour of every token's pixels
    unquantised_steps: int = Field(0, ge=0)  # first steps: the decoder reads features, not codes

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        return self.grid**2


class JudgeConfig(Config):
    """The classifier that marks what the other models draw; it takes no part in their training."""

    image_size: int = Field(32, ge=8, le=4096)
    channels: int = Field(1, ge=1, le=4)
    classes: int = Field(10, ge=2, le=100_000)
    width: int = Field(32, ge=1, le=65_536)
    features: int = Field(64, ge=1, le=65_536)  # of the second to last layer, for Fréchet distances
    whitened: bool = False  # layers for photos (`whitened.py`); `features` must be 4 * `width`
    flips: bool = False  # also train on mirrored images, and classify by the image and its mirror
    label_smoothing: Share = 0.0  # share of the target, spread over all classes


class PainterConfig(Config):
    """From codes to pixels by flow matching; a turbo painter has the same network."""

    image_size: int = Field(32, ge=8, le=4096)
    channels: int = Field(1, ge=1, le=4)
    grid: int = Field(4, ge=1, le=1024)  # codes along one side
    codebook_size: int = Field(512, ge=2, le=1_000_000)
    code_dim: int = Field(32, ge=1, le=65_536)
    width: Width = 32  # channels of the outer level; the inner has twice as many
    condition_width: Width = 64  # channels of codes and of time
    feature_weight: float = Field(1.0, ge=0)  # of a loss on the features of `Preset.teacher`
    spread_weight: float = Field(0.0, ge=0)  # of a loss on how features are spread; turbo only
    blocks: int = Field(1, ge=1, le=100)  # residual blocks down, as many up, twice as many between
    turbo: bool = False  # paints with `flow.jumps`, not with `flow.euler`
    painting_steps: int = Field(50, ge=1, le=10_000)  # if a call names none
    shift: float = Field(1.0, gt=0, le=1000)  # of the times; above 1: more steps near the noise


class ModelConfig(Config):
    """Backbone; all names but `block_size` are those of the official `config.json`."""

    vocab_size: int = Field(ge=2, le=10_000_000)
    hidden_size: int = Field(128, ge=1, le=1_000_000)
    num_hidden_layers: int = Field(4, ge=1, le=10_000)
    num_attention_heads: int = Field(4, ge=1, le=65_536)
    num_key_value_heads: int = Field(2, ge=1, le=65_536)
    head_dim: int = Field(32, ge=2, le=65_536)
    intermediate_size: int = Field(352, ge=1, le=1_000_000)
    rms_norm_eps: float = Field(1e-6, gt=0)
    rope_theta: float = Field(600_000.0, gt=0)
    partial_rotary_factor: float = Field(0.5, gt=0, le=1)
    # About 1/√hidden_size at our widths; the official 0.02 is 1/√2048 (docs/log.md).
    initializer_range: float = Field(0.08, gt=0)
    max_position_embeddings: int = Field(512, ge=1)
    block_size: int = Field(16, ge=1)  # the block length the model is trained to decode with
    num_experts: int = Field(0, ge=0, le=100_000)  # routed experts per layer; 0: a dense model
    num_experts_per_tok: int = Field(2, ge=1)
    num_shared_experts: int = Field(1, ge=1, le=10_000)
    n_group: int = Field(1, ge=1)  # routed experts are in so many groups (moe.py)
    topk_group: int = Field(1, ge=1)  # a token chooses inside so many of them, its best
    moe_intermediate_size: int = Field(96, ge=1, le=1_000_000)
    routed_scaling_factor: float = Field(2.5, gt=0)
    first_k_dense_replace: int = Field(1, ge=0)  # so many first layers stay dense


# --- training ------------------------------------------------------------------------------------


class OptimizerConfig(Config):
    """How a training step changes the weights."""

    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for matrices of layers; adamw the rest
    learning_rate: float = Field(1e-3, gt=0, le=100)
    warmup_steps: int = Field(50, ge=0)
    final_lr_fraction: Share = 0.02  # where the cosine decay ends
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.99)  # of the means of gradients and of their squares
    grad_clip: float = Field(1.0, gt=0)  # a longer gradient is cut to this length
    balance_rate: float = Field(0.001, ge=0)  # step size that balances experts (moe.py)


class ObjectiveConfig(Config):
    """What is masked, and how the nats (−log p, natural logarithm) of masked tokens count."""

    # Weights of tokens (`objectives`). bound: 1/t at mask rate t. count: an estimate of 1/t, from
    # the number of masks. uniform: 1. reweighted: the larger, the fewer masks the row has.
    objective: Literal["bound", "count", "uniform", "reweighted"] = "bound"
    # Mask rates are uniform on this interval. While a block of 16 is decoded, at least 1 token is
    # masked, so rates far below 1/16 never occur. The weights 1/t of such rates make loss noisy.
    mask_rate: tuple[Share, Share] = (0.05, 1.0)
    mask_rate_per: Literal["block", "sequence"] = "block"  # each of these has one rate
    views: int = Field(1, ge=1, le=1000)  # noisy copies of a row that share its clean copy
    complementary: bool = False  # add a copy that masks what the first shows
    confidence_weight: float = Field(0.0, ge=0)  # of `objectives.right_entropy`; released advice: 2
    edit_noise: Share = 0.0  # share of visible tokens replaced, to be corrected (LLaDA2.1)
    planted_errors: Share = 0.0  # share of wrong tokens in drafts (`extras/levenshtein.py`)
    text_weight: float = Field(1.0, gt=0, le=1e6)  # weight of a text token; an image code has 1

    @model_validator(mode="after")
    def check_interval(self) -> Self:
        low, high = self.mask_rate
        if low > high or high == 0:
            raise ValueError(f"mask_rate is an interval that ends above 0, got {low} to {high}")
        if self.complementary and low == 1:
            raise ValueError(
                "at mask rate 1 the complement masks nothing; lower the first number of mask_rate "
                "or turn complementary off"
            )
        return self


class DataConfig(Config):
    """What examples are made of: a `mixture` gives tasks (`tasks.table.trained`) their shares."""

    mixture: tuple[tuple[str, float], ...] = Field((), examples=[(("draw", 2), ("describe", 1))])
    varied: bool = False  # take any of the plain wordings, not the first; some captions lack words
    many_wordings: bool = False  # take any trained wording: also polite ones, numerals, …
    held_out: int = Field(9, ge=0)  # so many pairs of `tasks.numbers.HELD_OUT` are not trained
    unconditional_rate: Share = 0.1  # share of image prompts with a part left out, for guidance
    pack_length: int = Field(0, ge=0)  # pack sequences into rows of so many tokens; 0: do not
    mirrored: bool = False  # mirror half of a painter's images, so that it sees more of them
    operation_share: Share = 0.0  # share of a tokenizer's images that are edited first
    fresh_codes: bool = False  # move and encode each image when it is used; read no stored codes
    moves: int = Field(0, ge=0, le=1000)  # moved copies of an image, encoded before the first step


class TrainingConfig(Config):
    """One training run: its length, its data, its loss and its optimiser."""

    steps: int = Field(1000, ge=1)
    batch_size: int = Field(128, ge=1)
    accumulate: int = Field(1, ge=1, le=65_536)  # passes that share a batch, to save memory
    workers: int = Field(0, ge=0, le=256)  # processes that make a backbone's batches beforehand
    seed: int = Field(0, ge=0, le=LARGEST_SEED)
    bfloat16: bool = False  # numbers of half the size (autocast), where a device has instructions
    compile: bool = False  # torch.compile: minutes for the first steps, the others a little faster
    activation_checkpointing: bool = False  # less memory, a third more work
    # (share of the run at which it begins, block size); empty: the model's own throughout.
    block_schedule: tuple[tuple[float, int], ...] = Field((), examples=[((0, 4), (0.5, 16))])
    # Each step takes one of these block sizes at random (BlockGen); None: no mixture of sizes.
    block_sizes: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(None, examples=[(4, 16)])
    mask_noise: float = Field(0.0, ge=0)  # std of noise on the mask embedding while warming up
    optim: OptimizerConfig = OptimizerConfig()
    loss: ObjectiveConfig = ObjectiveConfig()
    data: DataConfig = DataConfig()


# --- decoding ------------------------------------------------------------------------------------

Strategy = Literal["low_confidence", "top_k_margin", "neg_entropy", "random", "left_to_right"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


class SamplingConfig(Config):
    """Settings of decoding. A step commits (fixes) tokens, at least its quota (`commit.quota`).

    For comparison, the official text decoder: block 32, 32 steps, threshold 0.95, greedy.
    """

    block_size: int = Field(16, ge=1)
    steps: int = Field(8, ge=1)  # denoising steps per block; quota: block_size / steps
    threshold: Share = 0.95  # commit every position more confident than this; 1: quota alone
    temperature: float = Field(0.0, ge=0, le=1e6)  # 0 takes the most likely token
    top_k: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    # Logits for the full prompt, for it without words, and without images (layout.py), are mixed:
    # no_text + guidance * (full − no_text) + guidance_image * (no_text − no_image)
    guidance: float = Field(1.0, ge=-1e4, le=1e4)  # 1: none
    guidance_image: float = Field(0.0, ge=-1e4, le=1e4)  # 0: none
    rescale: Share = 0.0  # 1: logits spread as widely as without guidance; official 0.7
    # Official name. At most answer length / this steps per block; adaptive quotas are >= this.
    minimal_topk: int = Field(1, ge=1)
    edit_threshold: Share = 1.0  # rewrite a token if another is likeliest, and above this; 1: off
    post_steps: int = Field(16, ge=0)  # at most so many passes over a block without masks
    strategy: Strategy = "low_confidence"  # how the quota ranks positions (`commit.commit_score`)
    adaptive: bool = False  # quota = masks left / steps left (SPRINT, `extras/sprint.py`)
    fill_tail: bool = True  # also decode the last block beyond the length, as in the official code
    gather: bool = False  # move the borders of blocks, so that few blocks hold the answer

    @model_validator(mode="after")
    def check_temperature(self) -> Self:
        value = self.temperature
        if 0 < value < 1e-3:
            raise ValueError(f"temperature must be 0 (greedy) or at least 0.001, got {value}")
        return self


class Preset(Config):
    """One thing to train. `model` must be of the class that belongs to `kind` (`checks.MODELS`)."""

    name: str
    kind: Literal["text", "judge", "tokenizer", "backbone", "painter"]
    model: TextConfig | TokenizerConfig | JudgeConfig | PainterConfig | ModelConfig
    training: TrainingConfig = TrainingConfig()
    dataset: str = "mnist"  # what it learns from (`datasets/table.py`)
    tokenizer: str | None = None  # the image tokenizer that a backbone or a painter reads
    teacher: str | None = None  # the classifier whose features a tokenizer or painter must keep
    source: str | None = None  # the painter that a turbo painter is distilled from
    text: str = "mnist-text"  # the text pieces of a backbone's vocabulary

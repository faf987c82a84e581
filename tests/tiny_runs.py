"""A tiny run of every kind, for the tests of training."""

from helpers import real_images, tiny_backbone, tiny_tokenizer
from torch import nn

from minillada.config import JudgeConfig, Preset, TokenizerConfig, TrainingConfig
from minillada.datasets.pool import mnist_pool
from minillada.datasets.table import MNIST
from minillada.settings import changed
from minillada.training import recipes, train
from minillada.vocab import load_vocabulary

STEPS = 7
BOTH_WAYS = (("draw", 1.0), ("describe", 1.0))
SHORT = changed(
    TrainingConfig(),
    steps=STEPS,
    batch_size=8,
    warmup_steps=3,
    learning_rate=3e-3,
    weight_decay=0.1,
    seed=5,
)
JUDGE = Preset(
    name="mnist-judge", kind="judge", model=JudgeConfig(width=4, features=6), training=SHORT
)
TOKENIZER = Preset(
    name="mnist-tokenizer",
    kind="tokenizer",
    model=TokenizerConfig(codebook_size=16, code_dim=8, width=8),
    training=SHORT,
)
BACKBONE = Preset(
    name="mnist",
    kind="backbone",
    model=tiny_backbone(vocab_size=400, max_position_embeddings=128).config,
    training=changed(SHORT, mixture=BOTH_WAYS, varied=True),
    tokenizer="mnist-tokenizer",
)


def judge_run(seed: int, device: str = "cpu"):
    module = train.new_model(changed(JUDGE, seed=seed), device)
    return module, recipes.judge_loss(module, real_images(40), SHORT)


def tokenizer_run(seed: int, device: str = "cpu"):
    module = train.new_model(changed(TOKENIZER, seed=seed), device)
    text = load_vocabulary(16)
    return module, recipes.tokenizer_loss(module, real_images(40), MNIST, text, SHORT)


def backbone_run(seed: int, preset: Preset = BACKBONE, device: str = "cpu"):
    tokenizer, vocab = tiny_tokenizer().to(device), load_vocabulary(16)
    module = train.new_model(changed(preset, seed=seed), device, tokenizer)
    pool = mnist_pool(real_images(40))
    return module, recipes.backbone_loss(module, tokenizer, vocab, pool, preset)


# kind -> a module and its loss; the seed is that of the first weights alone
RUNS = {"judge": judge_run, "tokenizer": tokenizer_run, "backbone": backbone_run}


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(left[k].equal(right[k]) for k in left)

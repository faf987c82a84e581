"""Presets of MNIST."""

from __future__ import annotations

from dataclasses import replace

from ..config import TEXT_VOCAB_SIZE, TokenizerConfig, TrainingConfig

UNI_TEXT_VOCAB_SIZE = 512  # the same for the texts of every task


IMAGE_TOKENIZER = TokenizerConfig()


VOCAB_SIZE = TEXT_VOCAB_SIZE + IMAGE_TOKENIZER.codebook_size


MNIST = dict(vocab_size=VOCAB_SIZE, hidden_size=160, num_hidden_layers=5, intermediate_size=448)  # 1.7M parameters


# Two routed experts and the shared one are about as wide together as the dense layer: much the same work a token, several times the weights.
EXPERTS = dict(num_experts=16, num_experts_per_tok=2, n_group=4, topk_group=2, moe_intermediate_size=160)


# A backbone learns more from twice the steps than from twice the batch (docs/log.md).
LONG_RUN = TrainingConfig(steps=6000, batch_size=64, learning_rate=1.5e-3)


# Block size 1 is autoregression: a block is one token, always masked, so the 1/t weight is always 1. Every response token is
# predicted at every step, on average 0.525 of them above: this many steps make as many predictions as one round of `mnist`.
AR_RUN = TrainingConfig(steps=3150, batch_size=64, learning_rate=1.5e-3, mask_rate=(1.0, 1.0))


# Warm-up, stable, decay of the block size, from an autoregressive model. No sequence is longer than 512 tokens, so that entry
# is one block of length L. Half the steps of a round of `mnist`, since it does not start from nothing.
WSD_RUN = replace(LONG_RUN, steps=3000, block_schedule=((0.0, 4), (0.1, 8), (0.2, 16), (0.3, 512), (0.6, 24), (0.7, 16)))


# 90 seconds on two cores are enough to learn one of the two tasks well. Nearly empty blocks decide which digit it becomes; a
# run this short leaves out the nearly full ones, whose 1/t weights are mostly noise.
LIVE_RUN = TrainingConfig(steps=360, batch_size=48, learning_rate=3e-3, draw_share=1.0, mask_rate=(0.3, 1.0))


# A short round that starts from `mnist` and teaches it to rewrite tokens, and to delete and insert (notebook 10).
EDITING_RUN = TrainingConfig(steps=1000, batch_size=32, learning_rate=1e-3, warmup_steps=20, edit_noise=0.3, planted_errors=0.3)

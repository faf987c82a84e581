"""The stages of the model of every task, `mnist-uni`.

The first stage, alignment, is `mnist`. It draws, masking codes alone, and describes, masking words
alone. The second learns the tasks, each in one wording. The third adds arithmetic and thinking, and
varies the wording. The next two go on with larger shares for what was learned slowly: texts that
take a step of reasoning, several images, edits that move every code, style. From there on, text
tokens weigh more. `mnist-uni-drills` adds drills for the links of a thought (`tasks/thinking.py`).

The last stage, `mnist-uni`, asks for the same in many more wordings: polite ones, other words,
other orders of words, numbers as numerals. Its position embedding (RoPE) turns faster, so that
places are found again (notebook 18). It is made for a GPU. A CPU wants smaller batches:
`minillada train mnist-uni --set batch_size=32 --set pack_length=0 --set moves=0 --set workers=0`.
"""

from __future__ import annotations

from ..config import Preset, TextConfig, TokenizerConfig, TrainingConfig
from ..settings import changed
from .mnist import LARGE

TEXT_VOCAB_SIZE = 512  # text pieces for the texts of every task
# The tokenizer also sees edited digits: mirrored, rotated, inverted. White on black and black on
# white have no codes in common, hence 1,024 codes, twice as many as `mnist-tokenizer` has, whose
# weights it starts from.
TOKENIZER = TokenizerConfig(codebook_size=1024)
# The stages go on from the weights of `mnist`, so the network has its sizes.
BACKBONE = changed(LARGE, vocab_size=TEXT_VOCAB_SIZE + TOKENIZER.codebook_size)

# (task, its weight among the examples). Weights are divided by their sum.
MULTITASK = (
    ("draw", 3.0), ("describe", 3.0), ("digit", 3.0), ("thickness", 1.0), ("slant", 1.0),
    ("parity", 1.0), ("compare", 1.5), ("edit_operation", 4.0), ("edit_digit", 2.0),
    ("multi_reference", 1.0), ("interleave", 1.0),
)  # fmt: skip

INSTRUCT = (*MULTITASK, ("arithmetic", 2.0), ("sum_direct", 0.5), ("sum_thinking", 1.5))
REASON = (
    ("draw", 2.0), ("describe", 2.0), ("digit", 2.0), ("thickness", 1.0), ("slant", 3.0),
    ("parity", 1.0), ("compare", 6.0), ("edit_operation", 6.0), ("edit_digit", 2.0),
    ("multi_reference", 5.0), ("interleave", 5.0), ("arithmetic", 4.0), ("sum_direct", 0.5),
    ("sum_thinking", 5.0),
)  # fmt: skip
STYLE = (
    ("draw", 2.0), ("describe", 2.0), ("digit", 1.0), ("thickness", 1.0), ("slant", 4.0),
    ("parity", 1.0), ("compare", 7.0), ("edit_operation", 5.0), ("edit_turn", 4.0),
    ("edit_digit", 8.0), ("multi_reference", 3.0), ("interleave", 4.0), ("arithmetic", 4.0),
    ("sum_direct", 0.5), ("sum_thinking", 4.0), ("count_on", 3.0),
)  # fmt: skip
DRILLS = (
    ("draw", 2.0), ("describe", 2.0), ("digit", 3.0), ("thickness", 1.0), ("slant", 4.0),
    ("parity", 1.0), ("compare", 5.0), ("edit_operation", 5.0), ("edit_turn", 4.0),
    ("edit_digit", 8.0), ("multi_reference", 3.0), ("interleave", 4.0), ("arithmetic", 4.0),
    ("sum_direct", 0.5), ("sum_thinking", 3.0), ("count_on", 4.0), ("repeat", 2.0), ("go_on", 8.0),
)  # fmt: skip
# Most examples are for what has most wordings, and for what is learned slowest.
WORDINGS = (
    ("draw", 2.0), ("describe", 2.0), ("digit", 3.0), ("thickness", 1.0), ("slant", 5.0),
    ("parity", 1.0), ("compare", 9.0), ("edit_operation", 12.0), ("edit_turn", 5.0),
    ("edit_digit", 10.0), ("multi_reference", 3.0), ("interleave", 9.0), ("arithmetic", 3.0),
    ("sum_direct", 0.5), ("sum_thinking", 5.0), ("count_on", 3.0), ("repeat", 1.5), ("go_on", 6.0),
)  # fmt: skip

FIRST = changed(
    TrainingConfig(),
    steps=3000,
    batch_size=64,
    learning_rate=1.5e-3,
    mask_rate=(0.1, 1.0),
    objective="uniform",
    mixture=MULTITASK,
)
VARIED = changed(FIRST, varied=True, text_weight=10.0)
STAGES = {
    "mnist-uni-multitask": FIRST,
    "mnist-uni-instruct": changed(FIRST, steps=4500, mixture=INSTRUCT, varied=True),
    "mnist-uni-reason": changed(VARIED, steps=2600, mixture=REASON),
    "mnist-uni-style": changed(VARIED, steps=9000, mixture=STYLE, optimizer="muon"),
    "mnist-uni-drills": changed(VARIED, steps=3000, mixture=DRILLS, optimizer="muon"),
    "mnist-uni": changed(
        VARIED,
        steps=4000,
        batch_size=256,
        learning_rate=2e-3,
        mixture=WORDINGS,
        many_wordings=True,
        optimizer="muon",
        bfloat16=True,
        pack_length=512,
        moves=4,
        workers=2,
    ),
}
# At RoPE's released base of 600,000 most pairs of a head hardly turn within our rows.
FASTER_TURNS = changed(BACKBONE, rope_theta=100.0, partial_rotary_factor=1.0)


def stage(name: str) -> Preset:
    """One stage, which starts from the weights of the stage before (data/README.md)."""
    return Preset(
        name=name,
        kind="backbone",
        model=FASTER_TURNS if name == "mnist-uni" else BACKBONE,
        training=STAGES[name],
        tokenizer="mnist-uni-tokenizer",
        text="mnist-uni-text",
    )


UNI = (
    Preset(
        name="mnist-uni-text",
        kind="text",
        model=TextConfig(vocab_size=TEXT_VOCAB_SIZE, every_task=True),
    ),
    Preset(
        name="mnist-uni-tokenizer",
        kind="tokenizer",
        model=TOKENIZER,
        training=changed(TrainingConfig(), steps=4000, learning_rate=1.5e-3, operation_share=0.5),
    ),
    *map(stage, STAGES),
)

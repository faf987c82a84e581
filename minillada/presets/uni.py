"""The stages of the model of every task, `mnist-uni`.

The first stage, alignment, is `mnist`: captions and drawing, each masking only its own modality.
The second learns the tasks, each in one wording. The third adds arithmetic and thinking, and varies
the wording. The next two go on with larger shares for what was learned slowly: texts that take a
step of reasoning, several images, edits that move every code, style. Text tokens weigh more there.
The stage `mnist-uni` adds drills for the links of a thought.

`mnist-uni-wordings` goes on with the same in many more wordings: polite ones, other words, other
orders of words, numbers as numerals. Its weights are not shipped: after 8,300 steps, with other
rotations, most wordings that were never trained are understood, but five bars that `mnist-uni`
meets are missed (docs/log.md).
"""

from __future__ import annotations

from ..config import ModelConfig, Preset, TextConfig, TokenizerConfig, TrainingConfig
from ..settings import changed

TEXT_VOCAB_SIZE = 512  # text pieces for the texts of every task
# The tokenizer also sees edited digits: mirrored, rotated, inverted. White on black and black on
# white have no codes in common, hence 1,024 codes, twice as many as `mnist-tokenizer` has, whose
# weights it starts from.
TOKENIZER = TokenizerConfig(codebook_size=1024)
BACKBONE = ModelConfig(
    vocab_size=TEXT_VOCAB_SIZE + TOKENIZER.codebook_size,
    hidden_size=160,
    num_hidden_layers=5,
    intermediate_size=448,
)

# (task, share of the examples)
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
# Where there are most wordings to learn, there are more examples: questions, edits and sums.
WORDINGS = (
    ("draw", 2.0), ("describe", 2.0), ("digit", 4.0), ("thickness", 1.5), ("slant", 4.0),
    ("parity", 1.5), ("compare", 6.0), ("edit_operation", 10.0), ("edit_turn", 5.0),
    ("edit_digit", 9.0), ("multi_reference", 3.5), ("interleave", 4.0), ("arithmetic", 4.0),
    ("sum_direct", 0.5), ("sum_thinking", 5.0), ("count_on", 4.0), ("repeat", 2.0), ("go_on", 7.0),
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
    "mnist-uni": changed(VARIED, steps=3000, mixture=DRILLS, optimizer="muon"),
    "mnist-uni-wordings": changed(
        VARIED,
        steps=6000,
        learning_rate=1e-3,
        mixture=WORDINGS,
        many_wordings=True,
        optimizer="muon",
    ),
}


def stage(name: str) -> Preset:
    """One stage, which starts from the weights of the stage before (data/README.md)."""
    return Preset(
        name=name,
        kind="backbone",
        model=BACKBONE,
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

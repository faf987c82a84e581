"""The stages of the model of every task."""

from __future__ import annotations

from dataclasses import replace

from ..config import ModelConfig, TrainingConfig
from ..presets.mnist import UNI_TEXT_VOCAB_SIZE

# Stages of the model of every task. The first, alignment, is `mnist`: captions and drawing, each masking only its own modality.
# The second learns the tasks, each in one wording; the third adds arithmetic and thinking, and varies the wording. The next two go
# on with larger shares and a larger weight for what was learned slowly: texts that take a step of reasoning, several images, edits
# that move every code, style. The last adds drills for the links of a thought.
MULTITASK = (
    ("draw", 3.0), ("describe", 3.0), ("digit", 3.0), ("thickness", 1.0), ("slant", 1.0), ("parity", 1.0), ("compare", 1.5),
    ("edit_operation", 4.0), ("edit_digit", 2.0), ("multi_reference", 1.0), ("interleave", 1.0),
)  # fmt: skip


INSTRUCT = (*MULTITASK, ("arithmetic", 2.0), ("sum_direct", 0.5), ("sum_thinking", 1.5))


REASON = (
    ("draw", 2.0), ("describe", 2.0), ("digit", 2.0), ("thickness", 1.0), ("slant", 3.0), ("parity", 1.0), ("compare", 6.0),
    ("edit_operation", 6.0), ("edit_digit", 2.0), ("multi_reference", 5.0), ("interleave", 5.0),
    ("arithmetic", 4.0), ("sum_direct", 0.5), ("sum_thinking", 5.0),
)  # fmt: skip


STYLE = (
    ("draw", 2.0), ("describe", 2.0), ("digit", 1.0), ("thickness", 1.0), ("slant", 4.0), ("parity", 1.0), ("compare", 7.0),
    ("edit_operation", 5.0), ("edit_turn", 4.0), ("edit_digit", 8.0), ("multi_reference", 3.0), ("interleave", 4.0),
    ("arithmetic", 4.0), ("sum_direct", 0.5), ("sum_thinking", 4.0), ("count_on", 3.0),
)  # fmt: skip


DRILLS = (
    ("draw", 2.0), ("describe", 2.0), ("digit", 3.0), ("thickness", 1.0), ("slant", 4.0), ("parity", 1.0), ("compare", 5.0),
    ("edit_operation", 5.0), ("edit_turn", 4.0), ("edit_digit", 8.0), ("multi_reference", 3.0), ("interleave", 4.0),
    ("arithmetic", 4.0), ("sum_direct", 0.5), ("sum_thinking", 3.0), ("count_on", 4.0), ("repeat", 2.0), ("go_on", 8.0),
)  # fmt: skip


UNI_RUN = TrainingConfig(steps=3000, batch_size=64, learning_rate=1.5e-3, mask_rate=(0.1, 1.0), objective="uniform", mixture=MULTITASK)


UNI = ModelConfig(UNI_TEXT_VOCAB_SIZE + 1024, hidden_size=160, num_hidden_layers=5, intermediate_size=448)


UNI_STAGES = {
    "mnist-uni-multitask": UNI_RUN,
    "mnist-uni-instruct": replace(UNI_RUN, steps=4500, mixture=INSTRUCT, varied=True),
    "mnist-uni-reason": replace(UNI_RUN, steps=2600, mixture=REASON, varied=True, text_weight=10.0),
    "mnist-uni-style": replace(UNI_RUN, steps=9000, mixture=STYLE, varied=True, text_weight=10.0, optimizer="muon"),
    "mnist-uni": replace(UNI_RUN, steps=3000, mixture=DRILLS, varied=True, text_weight=10.0, optimizer="muon"),
}

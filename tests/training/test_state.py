"""A state that was damaged or belongs to another run is refused."""

import pytest
from tiny_runs import SHORT, judge_run, tokenizer_run

from minillada import checkpoint
from minillada.settings import changed
from minillada.training.loop import fit
from minillada.training.run import Run
from minillada.training.state import differences


@pytest.fixture
def stopped(tmp_path):
    """The folder of a judge that was stopped after its first step."""
    module, loss = judge_run(SHORT.seed)
    fit(module, loss, SHORT, Run(tmp_path), stop_after=1)
    return tmp_path


def resume(folder, config=SHORT, build=judge_run):
    module, loss = build(1)
    fit(module, loss, config, Run(folder, resume=True))


OTHERS = {
    "steps: 7 before, 8 now": dict(steps=8),
    "learning_rate: 0.003 before, 0.001 now": dict(learning_rate=1e-3),
    "seed: 5 before, 6 now": dict(seed=6),
    r"betas: \[0.9, 0.99\] before, \[0.9, 0.999\] now": dict(betas=(0.9, 0.999)),
}


@pytest.mark.parametrize("sentence", OTHERS)
def test_state_of_another_run_is_refused(stopped, sentence):
    with pytest.raises(ValueError, match=f"belongs to another run .{sentence}"):
        resume(stopped, changed(SHORT, **OTHERS[sentence]))


def test_state_of_another_model_is_refused(stopped):
    with pytest.raises(ValueError, match="does not fit its configuration"):
        resume(stopped, build=tokenizer_run)


def test_half_a_state_is_refused(stopped):
    path = stopped / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match="state.safetensors is not a complete safetensors file"):
        resume(stopped)


def test_a_flipped_bit_is_refused(stopped):
    """In every part of the file: weights, averages, step counts and settings."""
    path = stopped / "state.safetensors"
    content = path.read_bytes()
    header = int.from_bytes(content[:8], "little")
    data = range(8 + header, len(content), (len(content) - header) // 25)
    story = content.index(b"weight_decay") + len("weight_decay")
    for place in (story, *data):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError):
            resume(stopped)
    path.write_bytes(content)
    resume(stopped)


def test_a_state_without_a_digest_is_refused(stopped):
    path = stopped / "state.safetensors"
    tensors, settings = checkpoint.read_tensors(path)
    del settings["digest"]
    checkpoint.save_tensors(path, tensors, settings)
    with pytest.raises(ValueError, match="is damaged, or another version wrote it"):
        resume(stopped)


def test_differences_are_named_at_any_depth():
    before = {"a": 1, "inner": {"b": [1, 2], "same": 3}, "gone": 5}
    now = {"a": 2, "inner": {"b": [1], "same": 3}, "new": 6}
    assert differences(before, now) == [
        "a: 1 before, 2 now",
        "gone: 5 before, None now",
        "b: [1, 2] before, [1] now",
        "new: None before, 6 now",
    ]
    assert differences(before, before) == []

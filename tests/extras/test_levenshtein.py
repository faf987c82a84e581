"""Levenshtein editing: labels by definition, a round as a loop, drafts repaired in few rounds."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import few, generator, many, random_ids, tiny_backbone
from hypothesis import given
from hypothesis import strategies as st

from minillada import batching, layout
from minillada.extras.levenshtein import (
    align,
    apply_labels,
    draft_loss,
    plant,
    plant_errors,
    repair,
)
from minillada.masks import block_causal_mask
from minillada.vocab import Vocabulary, load_vocabulary

MASK, END, DELETE, INSERT = 0, 1, 98, 99
texts = st.lists(st.integers(2, 5), max_size=9).map(lambda body: [*body, END])
drafts = st.lists(st.sampled_from([MASK, 2, 3, 4, 5]), max_size=9).map(lambda body: [*body, END])


def apply_slowly(draft, labels, length):
    out = []
    for token, label in zip(draft, labels, strict=True):
        if label == INSERT:
            out += [MASK, token]
        elif label != DELETE:
            out.append(label)
    return (out + [END] * length)[:length]


def one_round(draft, labels, length):
    return apply_labels(torch.tensor([draft]), torch.tensor([labels]), DELETE, INSERT, MASK, END)[
        0
    ].tolist()


def longest_common(a, b):
    if not a or not b:
        return 0
    return (
        longest_common(a[1:], b[1:]) + 1
        if a[0] == b[0]
        else max(longest_common(a[1:], b), longest_common(a, b[1:]))
    )


def test_labels_by_hand():
    a, thin, thick, seven, leaning, right = range(2, 8)
    right_text = [a, thick, seven, leaning, right, END]
    label = lambda draft: align([*draft, END], right_text, DELETE, INSERT)  # noqa: E731
    assert (
        label([a, thick, seven, leaning, right]) == right_text
    )  # nothing to do: every token is its own label
    assert label([a, thin, seven, leaning, right]) == right_text  # substitute
    assert label([a, thick, thick, seven, leaning, right]) == [
        a,
        thick,
        DELETE,
        seven,
        leaning,
        right,
        END,
    ]
    assert label([a, seven, leaning, right]) == [
        a,
        INSERT,
        leaning,
        right,
        END,
    ]  # a mask before "seven", which stays
    assert label([a, thick, seven]) == [
        a,
        thick,
        seven,
        INSERT,
    ]  # two are missing: one mask a round, before the end
    assert label([a, MASK, seven, leaning, right]) == right_text  # a mask is filled
    assert label([a, thin, thin, seven, leaning, right]) == [
        a,
        thick,
        DELETE,
        seven,
        leaning,
        right,
        END,
    ]
    assert label([]) == [INSERT]


@many
@given(draft=drafts, target=texts)
def test_labels_keep_a_longest_common_subsequence(draft, target):
    labels = align(draft, target, DELETE, INSERT)
    kept = [t for t, label in zip(draft, labels, strict=True) if label in (t, INSERT)]
    assert len(kept) == longest_common(draft[:-1], target[:-1]) + 1, (
        "as many tokens stay as can stay; the end always does"
    )
    assert MASK not in kept
    # What a round makes of the draft, without its masks, is a part of the target in its order.
    rest = iter(target)
    assert all(
        token in rest
        for token in apply_slowly(draft, labels, 2 * len(draft))
        if token not in (MASK, END)
    )


@many
@given(target=texts, draft=drafts, room=st.integers(0, 3))
def test_the_right_labels_reach_the_target_in_few_rounds(target, draft, room):
    """In a block that both just fit into: at most as many rounds as tokens are missing, and one."""
    length = max(len(target), len(draft)) + room
    state = draft + [END] * (length - len(draft))
    missing = len(target) - longest_common(draft[:-1], target[:-1]) - 1
    for _ in range(missing + 2):
        text = state[: state.index(END) + 1]
        if text == target:
            break
        labels = align(text, target, DELETE, INSERT) + state[len(text) :]
        state = one_round(state, labels, length)
        assert state == apply_slowly(text, labels[: len(text)], length)
    assert text == target, "not reached in time"


@many
@given(data=st.data(), n=st.integers(1, 8), rows=st.integers(1, 3))
def test_a_round_is_the_loop(data, n, rows):
    token, label = st.integers(0, 5), st.sampled_from([2, 3, 4, DELETE, INSERT])
    ids = [data.draw(st.lists(token, min_size=n, max_size=n)) for _ in range(rows)]
    labels = [data.draw(st.lists(label, min_size=n, max_size=n)) for _ in range(rows)]
    done = apply_labels(torch.tensor(ids), torch.tensor(labels), DELETE, INSERT, MASK, END).tolist()
    assert done == [apply_slowly(i, k, n) for i, k in zip(ids, labels, strict=True)]


def test_draft_and_target_must_end_alike():
    for draft, target in (([2, 3], [2, END]), ([], [END]), ([END], [])):
        with pytest.raises(ValueError, match="must end with the same token"):
            align(draft, target, DELETE, INSERT)


# --- drafts to train with ------------------------------------------------------------------------


def test_planted_errors():
    tokens = list(range(10, 20)) * 40
    assert plant_errors(tokens, [7], 0.0, MASK, generator()) == tokens
    draft = plant_errors(tokens, [7], 1.0, MASK, generator())
    replaced, masked, doubled = (
        draft.count(7),
        draft.count(MASK),
        sum(t in range(10, 20) for t in draft),
    )
    # A quarter each is dropped, replaced, masked and preceded. A 7 is of the second or fourth kind.
    assert all(
        60 < count < 140
        for count in (
            masked,
            doubled,
            replaced - doubled,
            400 - doubled - masked - (replaced - doubled),
        )
    )
    rate = sum(
        len(plant_errors([5], [7], 0.3, MASK, generator(s))) != 1
        or plant_errors([5], [7], 0.3, MASK, generator(s)) != [5]
        for s in range(400)
    )
    assert 90 < rate < 150


def texts_batch(vocab: Vocabulary, block_size: int = 16):
    codes = torch.arange(4).view(2, 2)
    sequences = [
        layout.describe_sequence(vocab, codes, text)
        for text in ("a thin one", "a thick two leaning left", "an eight")
    ]
    return batching.collate(sequences, vocab, block_size)


def test_planted_batches_hold_the_draft_and_its_labels():
    vocab = load_vocabulary(16)
    assert (
        vocab.delete_id != vocab.insert_id
        and max(vocab.delete_id, vocab.insert_id) < vocab.image_token_offset
    )
    assert not {vocab.delete_id, vocab.insert_id} & set(vocab.encode("þÿ a thin ë \N{SNOWMAN}")), (
        "no text contains the operations"
    )
    batch = texts_batch(vocab)
    planted, labels = plant(batch, vocab, 16, 0.4, generator(3))
    assert torch.equal(planted.ids[~batch.targets], batch.ids[~batch.targets]), (
        "the prompt stays as it is"
    )
    assert torch.equal(planted.targets, batch.targets) and not torch.equal(planted.ids, batch.ids)
    for row in range(3):
        start = int(batch.targets[row].int().argmax())
        answer, draft = (
            batch.ids[row, batch.real[row]].tolist(),
            planted.ids[row, planted.real[row]].tolist(),
        )
        right = align(draft, answer, vocab.delete_id, vocab.insert_id)
        assert labels[row, start:].tolist() == right + [vocab.eos_id] * (
            labels.shape[1] - start - len(right)
        )
    same, labels = plant(batch, vocab, 16, 0.0, generator())
    assert torch.equal(same.ids, batch.ids) and torch.equal(labels, batch.ids), (
        "without errors everything is kept"
    )


def test_a_draft_ends_once_and_in_its_block_whatever_is_planted():
    vocab = load_vocabulary(16)
    batch = texts_batch(vocab)
    for seed in range(40):
        planted, labels = plant(batch, vocab, 16, 1.0, generator(seed))
        assert planted.ids.shape == labels.shape == batch.ids.shape
        for ids, real in zip(planted.ids, planted.real):
            assert (ids[real] == vocab.eos_id).nonzero().flatten().tolist() == [int(real.sum()) - 1]


def test_drawings_and_answers_of_several_blocks_are_left_out():
    vocab = load_vocabulary(16)
    drawing = batching.collate(
        [layout.draw_sequence(vocab, "a one", torch.zeros(2, 2, dtype=torch.long))], vocab, 16
    )
    assert plant(drawing, vocab, 16, 0.3, generator()) is None
    assert plant(texts_batch(vocab, 2), vocab, 2, 0.3, generator()) is None
    backbone = tiny_backbone(vocab_size=vocab.size, max_position_embeddings=64)
    assert float(draft_loss(backbone, drawing, vocab, 16, 0.3, generator())) == 0


def test_a_share_of_errors_is_a_share():
    with pytest.raises(ValueError, match="use 0 to 1, not 1.5"):
        plant(texts_batch(load_vocabulary(16)), load_vocabulary(16), 16, 1.5, generator())
    batch = texts_batch(load_vocabulary(16))
    with pytest.raises(ValueError, match="one sequence per row"):
        plant(batch._replace(documents=batch.ids), load_vocabulary(16), 16, 0.5, generator())


def test_loss_is_the_cross_entropy_of_the_labels():
    vocab = load_vocabulary(16)
    backbone, batch = (
        tiny_backbone(vocab_size=vocab.size, max_position_embeddings=64),
        texts_batch(vocab),
    )
    loss = draft_loss(backbone, batch, vocab, 16, 0.4, generator(3))
    planted, labels = plant(batch, vocab, 16, 0.4, generator(3))
    index, nats = torch.arange(planted.ids.shape[1]), []
    for row in range(3):
        with torch.no_grad():
            log_p = backbone(planted.ids[row : row + 1], block_causal_mask(index, index, 16))[
                0
            ].log_softmax(-1)
        nats += [
            -float(log_p[i, labels[row, i]]) for i in index.tolist() if planted.targets[row, i]
        ]
    assert float(loss.detach()) == pytest.approx(sum(nats) / len(nats), abs=1e-4)
    shares = []
    for part in (batching.Portion(0, 2), batching.Portion(1, 2)):
        shares.append(draft_loss(backbone, batch, vocab, 16, 0.4, generator(3), part))
    assert float(sum(shares).detach()) == pytest.approx(float(loss.detach()), abs=1e-4)
    loss.backward()
    assert backbone.lm_head.weight.grad.isfinite().all()


# --- repair --------------------------------------------------------------------------------------

WORDS = SimpleNamespace(
    mask_id=MASK, eos_id=END, delete_id=22, insert_id=23, is_text=lambda: torch.arange(24) < 22
)


class Oracle:
    """Answers with the right labels for `target`: what a perfectly trained model would say."""

    def __init__(self, target, block, start):
        self.target, self.start, self.config = target, start, SimpleNamespace(block_size=block)

    def __call__(self, ids, mask):
        assert torch.equal(
            mask,
            block_causal_mask(
                torch.arange(ids.shape[1]), torch.arange(ids.shape[1]), self.config.block_size
            ),
        )
        labels = ids.clone()
        for row, draft in enumerate(ids[:, self.start :].tolist()):
            text = draft[: draft.index(END) + 1]
            labels[row, self.start : self.start + len(text)] = torch.tensor(
                align(text, self.target, 22, 23)
            )
        return torch.nn.functional.one_hot(labels, 24).float()


@few
@given(
    target=st.lists(st.integers(2, 9), max_size=5), draft=st.lists(st.integers(2, 9), max_size=5)
)
def test_repair_with_perfect_answers(target, draft):
    prompt, target = random_ids(2, 2), [*target, END]
    first = torch.full((2, 6), END)
    first[0, : len(draft)] = torch.tensor(draft)
    states = repair(Oracle(target, 8, 2), prompt, first, WORDS, rounds=20)
    assert torch.equal(states[0], first)
    assert states[-1].tolist() == [target + [END] * (6 - len(target))] * 2
    assert not any(torch.equal(a, b) for a, b in zip(states[:-1], states[1:], strict=True)), (
        "it stops when nothing changes"
    )
    assert len(repair(Oracle(target, 8, 2), prompt, first, WORDS, rounds=1)) <= 2


def test_a_label_is_never_the_mask():
    """The mask is the likeliest token here; the next one is what stands there already."""
    wishes = torch.tensor([MASK]).expand(1, 8)

    def model(ids, mask):
        return 2.0 * F.one_hot(wishes, 24) + F.one_hot(ids, 24)

    model.config = SimpleNamespace(block_size=8)
    draft = torch.tensor([[4, 5, END]])
    assert [state.tolist() for state in repair(model, random_ids(1, 5), draft, WORDS)] == [
        draft.tolist()
    ]


def test_a_random_model_stops_after_the_given_rounds():
    states = repair(
        tiny_backbone(3, block_size=8), random_ids(3, 3), random_ids(3, 5), WORDS, rounds=4
    )
    assert 2 <= len(states) <= 5 and all(state.shape == (3, 5) for state in states)


def test_repair_names_what_is_wrong():
    backbone = tiny_backbone(block_size=8)
    with pytest.raises(
        ValueError, match="a draft of 4 tokens behind 3 does not end with a block of 8"
    ):
        repair(backbone, random_ids(1, 3), random_ids(1, 4), WORDS)
    with pytest.raises(ValueError, match="a draft of 12 tokens behind 4 does not end"):
        repair(backbone, random_ids(1, 4), random_ids(1, 12), WORDS)
    for draft in (random_ids(2, 5), random_ids(1, 5)[0]):
        with pytest.raises(ValueError, match="give a draft for each prompt"):
            repair(backbone, random_ids(1, 3), draft, WORDS)
    with pytest.raises(ValueError, match="goes on behind its end of text"):
        repair(backbone, random_ids(1, 3), torch.tensor([[3, END, 4, END, END]]), WORDS)
    with pytest.raises(ValueError, match="rounds must be at least 1, got 0"):
        repair(backbone, random_ids(1, 3), random_ids(1, 5), WORDS, rounds=0)

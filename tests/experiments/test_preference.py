"""The pairs of drawings that DPO learns from, and the loss of rewards."""

import math

import torch

from minillada import batching, layout, load
from minillada.config import ObjectiveConfig
from minillada.datasets.captions import GRAMMAR, stroke_width
from minillada.datasets.table import MNIST
from minillada.diffusion import sample_view
from minillada.experiments import preference
from minillada.experiments.preference import by_reward, find_pairs, stroke_pairs, train
from minillada.extras.preference import bound
from minillada.measure.judge import load_judge
from minillada.training.loop import batch_indices, step_generator


def test_a_pair_is_a_right_and_a_wrong_drawing_of_one_caption():
    uni, teacher = load("mnist"), load_judge(name="mnist-features")
    pairs = find_pairs(uni, teacher, tries=2, seed=0)
    captions, better, worse = zip(*pairs)
    asked = torch.tensor([GRAMMAR.parse(caption) for caption in captions])
    for codes, right in ((better, True), (worse, False)):
        images = uni.decode(torch.stack(codes))
        shown = MNIST.classes(images, teacher.classify(images))
        assert ((shown == asked).all(1) == right).all()
    # Before its first step the copy prefers nothing, whatever it is shown.
    assert math.isclose(train(uni, pairs, True, 1, seed=0)[0], math.log(2), rel_tol=1e-5)


def test_the_thicker_drawing_is_the_better_one_and_every_drawing_is_used_once():
    uni = load("mnist")
    texts, better, worse = zip(*stroke_pairs(uni, tries=4, seed=0))
    assert {texts.count(text) for text in texts} == {2} and len(set(texts)) == 10
    thick, thin = (stroke_width(uni.decode(torch.stack(codes))) for codes in (better, worse))
    assert (thick >= thin).all() and (thick > thin).any()
    # Of four, the thickest meets the thinnest, and the other two each other.
    for text in set(texts):
        rows = [row for row, other in enumerate(texts) if other == text]
        assert thick[rows].max() >= thick[rows].min() >= thin[rows].max() >= thin[rows].min()
        assert thick[rows].argmax() == thin[rows].argmin()
    # Where thin digits are asked for, the thinner one is better.
    _, better, worse = zip(*stroke_pairs(uni, tries=4, seed=0, thin=True))
    thin, thick = (stroke_width(uni.decode(torch.stack(codes))) for codes in (better, worse))
    assert (thick >= thin).all() and (thick > thin).any()


def test_the_loss_of_rewards_is_the_sum_over_single_drawings(monkeypatch):
    uni, teacher = load("mnist"), load_judge(name="mnist-features")
    value, said = {}, {}

    def first_step(backbone, loss, config):
        value["loss"], metrics = loss(0)
        said.update(metrics)
        return [said]

    monkeypatch.setattr(preference, "fit", first_step)
    assert by_reward(uni, teacher, group=16, steps=1, seed=0) == [said["reward"]]

    texts = [GRAMMAR.all_captions()[i] for i in batch_indices(60, 2, 0, 0) for _ in range(16)]
    drawn = uni.draw_traced(texts, seed=preference.PAIRS_SEED, guidance=1.0)
    shown = MNIST.classes(drawn.images, teacher.classify(drawn.images)).tolist()
    right = [list(GRAMMAR.parse(text)) == row for text, row in zip(texts, shown)]
    assert 0 < sum(right[:16]) < 16 or 0 < sum(right[16:]) < 16  # else nothing is compared
    rows = [layout.draw_sequence(uni.vocab, *row) for row in zip(texts, drawn.codes)]
    batch = batching.collate(rows, uni.vocab, 16)
    view = sample_view(batch, 16, uni.vocab.mask_id, ObjectiveConfig(), step_generator(0, 0))
    total = 0.0
    for row, reached in enumerate(bound(uni.backbone, batch, view).tolist()):
        group = right[row // 16 * 16 :][:16]
        total -= (right[row] - sum(group) / 16) * reached / 32
    assert math.isclose(float(value["loss"].detach()), total, rel_tol=1e-4)
    assert math.isclose(said["reward"], sum(right) / 32, rel_tol=1e-6)

"""The pairs of drawings that DPO learns from."""

import math

import torch

from minillada import load
from minillada.datasets.captions import GRAMMAR, stroke_width
from minillada.datasets.table import MNIST
from minillada.experiments.preference import find_pairs, stroke_pairs, train
from minillada.measure.judge import load_judge


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

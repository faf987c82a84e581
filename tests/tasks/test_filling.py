"""What is hidden, what is missing, and what counts as right when it is filled in."""

import functools
from random import Random

import pytest
import torch
from helpers import real_images, tiny_judge

from minillada.datasets import captions
from minillada.datasets.pool import Pool, mnist_pool
from minillada.tasks.base import Picture, Source, make_examples, pixels
from minillada.tasks.filling import BLANK, HOLES, hole, missing_column
from minillada.tasks.table import TASKS


@functools.cache
def pool() -> Pool:
    return mnist_pool(real_images(400))


def test_holes():
    for name in HOLES:
        hidden = hole(name, 32, 32)
        assert float(hidden.float().mean()) == (0.25 if name == "middle" else 0.5)
    assert torch.equal(hole("upper half", 8, 8), ~hole("lower half", 8, 8))
    assert torch.equal(hole("left half", 8, 8), hole("upper half", 8, 8).T)
    assert hole("middle", 8, 8)[2:6, 2:6].all()
    # Holes end where patches of 8 px end, so that they hide whole codes and nothing beside them.
    for name in HOLES:
        small = hole(name, 4, 4)
        assert torch.equal(hole(name, 32, 32)[::8, ::8], small)
    with pytest.raises(ValueError, match="no part of an image is called 'the sky'; choose from up"):
        hole("the sky", 8, 8)


def test_what_is_asked():
    source = Source(pool(), Random(0))
    for _ in range(60):
        image, part = TASKS["inpaint"].make(source).user
        assert part in HOLES and isinstance(image, Picture)
        example = TASKS["inpaint_captioned"].make(source)
        image, caption, part = example.user
        assert part in HOLES and example.response == [image]
        assert captions.parse(caption) == tuple(pool().classes(image.index))


def test_the_words_of_one_column_are_missing():
    source, seen = Source(pool(), Random(1)), set()
    for _ in range(60):
        example = TASKS["infill"].make(source)
        (image, text), (caption,) = example.user, example.response
        assert text.count(BLANK) == 1 and "leaning ___" not in text
        column = missing_column(pool(), example)
        word = captions.GRAMMAR.words[column][pool().columns[column][image.index]]
        assert text.replace(BLANK, word) == caption
        seen.add(column)
    assert seen == {"digit", "thickness", "slant"}


def test_marks_of_a_filled_image():
    asked = make_examples(TASKS["inpaint"].make, pool(), 30, seed=2)
    judge = tiny_judge()

    class Painter:
        """Gives the whole image back, or black."""

        def __init__(self, whole: bool):
            self.whole = whole

        def inpaint(self, images, masks, captions, seed):
            assert captions is None and masks.shape == (30, 32, 32)
            return images if self.whole else torch.zeros_like(images)

    # This judge reads the digit of an image that it has seen, nothing in a grey hole, else 0.
    known = {pixels(pool(), Picture(i)).numpy().tobytes(): i for i in range(len(pool()))}

    def classify(images):
        read = []
        for image in images:
            place, grey = known.get(image.numpy().tobytes()), (image == 0.5).float().mean() > 0.2
            read.append(-int(grey) if place is None else int(pool().images.labels[place]))
        return torch.tensor(read)

    judge.classify = classify
    whole = TASKS["inpaint"].mark(Painter(True), judge, pool(), asked, 0).right
    assert set(whole) == {"", "_attributes", "_thickness", "_slant", "_empty"}
    assert all(whole[""]) and all(whole["_attributes"])
    black = TASKS["inpaint"].mark(Painter(False), judge, pool(), asked, 0).right
    zeros = [pool().columns["digit"][example.response[0].index] == 0 for example in asked]
    assert black[""] == black["_empty"] == whole["_empty"] == zeros


def test_marks_of_filled_in_words():
    asked = make_examples(TASKS["infill"].make, pool(), 30, seed=2)

    class Reader:
        """Right about every column but thickness."""

        def infill(self, texts, images):
            answers = []
            for example, text in zip(asked, texts):
                right = missing_column(pool(), example) != "thickness"
                answers.append(example.response[0] if right else text)
            return answers

    marked = TASKS["infill"].mark(Reader(), tiny_judge(), pool(), asked, 0)
    parts = {name: hits for name, hits in marked.right.items() if name}
    thickness = len(parts["_thickness"])
    assert not any(parts.pop("_thickness")) and all(map(all, parts.values()))
    assert len(marked.right[""]) == sum(map(len, parts.values())) + thickness == 30

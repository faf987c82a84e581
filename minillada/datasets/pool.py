"""The images of one split, found by what they show."""

from __future__ import annotations

from random import Random

from ..datasets import captions
from ..datasets.mnist import Images
from ..tasks.numbers import COUNTED, SUMS, is_held_out


class Pool:
    """The images of one split, found by what they show, and the pairs of numbers to be added, without the first `held_out` of `HELD_OUT`.

    `classes` are rows (digit, thickness, slant).
    """

    def __init__(self, images: Images, held_out: int = 0):
        self.images = images
        self.sums = [pair for pair in SUMS if not is_held_out(*pair, held_out)]
        self.counted = [pair for pair in COUNTED if not is_held_out(*pair, held_out)]
        self.classes: list[tuple[int, int, int]] = []
        self.angles: list[float] = []  # slant in degrees
        for start in range(0, len(images.labels), 5000):
            part = images.floats(slice(start, start + 5000))
            self.classes += map(tuple, captions.caption_classes(part, images.labels[start : start + 5000]).tolist())
            self.angles += captions.slant(part).tolist()
        self.members: dict[tuple[int, int, int], list[int]] = {}
        for index, row in enumerate(self.classes):
            self.members.setdefault(row, []).append(index)

    def pick(self, rng: Random, digit: int | None = None, thickness: int | None = None, slant: int | None = None) -> int:
        """Index of a random image that shows what is asked; None asks for nothing."""
        wanted = (digit, thickness, slant)
        if wanted == (None, None, None):
            return rng.randrange(len(self.classes))
        kinds = [kind for kind in self.members if all(w is None or w == k for w, k in zip(wanted, kind, strict=True))]
        if not kinds:
            raise ValueError(f"no image of this split has the digit, thickness and slant {wanted} (classes, None: any); use a larger split")
        return rng.choice(self.members[rng.choices(kinds, [len(self.members[kind]) for kind in kinds])[0]])

    def pick_like(self, rng: Random, index: int, digit: int, thickness: int) -> int:
        """A random image of a digit and a thickness that leans as image `index` does: of four with its class of slant, the nearest in degrees.

        The class alone says little: one bit and a half, where an image has some forty. The nearest of all would say more, but would
        also lie as near to the edge of the class as image `index` does.
        """
        four = [self.pick(rng, digit, thickness, self.classes[index][2]) for _ in range(4)]
        return min(four, key=lambda other: abs(self.angles[other] - self.angles[index]))

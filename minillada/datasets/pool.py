"""The images of one split, found by what they show.

Notable choices
- What an image shows stands in named columns, one class for each image. MNIST has the columns
  digit, thickness and slant; another data set has other columns, and the class stays the same.
- Measures are numbers beside the classes, for what has a nearest: the slant in degrees.
"""

from __future__ import annotations

from random import Random

from . import captions
from .mnist import Images


class Pool:
    """Images with one class an image in each of the `columns`, and one number in each measure."""

    def __init__(
        self,
        images: Images,
        columns: dict[str, list[int]],
        measures: dict[str, list[float]] | None = None,
    ):
        self.images, self.columns, self.measures = images, columns, measures or {}
        # a class of each column, such as digit 7, thickness 1, slant 2 -> indices of its images
        self.members: dict[tuple[int, ...], list[int]] = {}
        for index, kind in enumerate(zip(*columns.values())):
            self.members.setdefault(kind, []).append(index)

    def __len__(self) -> int:
        return len(self.images.labels)

    def pick(self, rng: Random, **wanted: int | None) -> int:
        """Index of a random image of the wanted class in each named column; None: any class.

        Raises `ValueError` if the pool has no such image or no such column.
        """
        # 1. columns whose class does not matter are left out
        named = {name: value for name, value in wanted.items() if value is not None}
        if not named:
            return rng.randrange(len(self))
        # 2. the kinds of image that fit
        kinds = [kind for kind in self.members if self.fits(kind, named)]
        if not kinds:
            asked = ", ".join(f"{name} {value}" for name, value in named.items())
            raise ValueError(f"no image of this split has {asked}; use a larger split")
        # 3. one of the kinds, as often as it occurs, and then one of its images: so every image
        # that fits is equally likely
        sizes = [len(self.members[kind]) for kind in kinds]
        return rng.choice(self.members[rng.choices(kinds, sizes)[0]])

    def fits(self, kind: tuple[int, ...], wanted: dict[str, int]) -> bool:
        """Whether a kind of image has the wanted class in each named column."""
        classes = dict(zip(self.columns, kind))
        for name, value in wanted.items():
            if name not in classes:
                columns = ", ".join(classes)
                raise ValueError(f"this pool has no column {name!r}; choose from {columns}")
            if classes[name] != value:
                return False
        return True

    def pick_nearest(self, rng: Random, index: int, measure: str, **wanted: int | None) -> int:
        """Of four random images of the wanted classes, the one nearest to image `index`.

        Nearest by a measure. A class alone says little: of slant, one bit and a half. The nearest
        of all images would say more, but it would also lie as near to the edge of its class as
        image `index` does.
        """
        numbers = self.measures[measure]
        best = self.pick(rng, **wanted)
        for _ in range(3):
            other = self.pick(rng, **wanted)
            if abs(numbers[other] - numbers[index]) < abs(numbers[best] - numbers[index]):
                best = other
        return best


def mnist_pool(images: Images, batch_size: int = 5000) -> Pool:
    """The pool of MNIST: digits from the labels, thickness and slant measured from the pixels."""
    thickness, slant, degrees = [], [], []
    for start in range(0, len(images.labels), batch_size):
        part = images.floats(slice(start, start + batch_size))
        classes = captions.attributes(part)  # [n, 2]
        thickness += classes[:, 0].tolist()
        slant += classes[:, 1].tolist()
        degrees += captions.slant(part).tolist()
    columns = {"digit": images.labels.tolist(), "thickness": thickness, "slant": slant}
    return Pool(images, columns, {"slant_degrees": degrees})

"""Exercises of notebook 18, colour."""

import colorsys

import torch
import torch.nn.functional as F

from ..datasets import colour
from .checking import Case, Cases, Chance, exercise

HALF = "yours is never above 180, as with `abs` or `acos`: a negative angle is another direction"


@exercise("correct: so much of a photo is nearly grey")
def check_grey_share(chance: Chance) -> Cases:
    """`function(image [3, H, W], limit) -> float`: share of pixels with max - min below `limit`."""
    generator = chance.generator(2)
    # In the last image all values are multiples of 1/8, so that some differences are the limit.
    for height, width, limit in ((12, 12, 0.3), (9, 15, 0.4), (32, 32, 0.25)):
        base = torch.rand(1, height, width, generator=generator)
        image = 0.5 * base + 0.5 * torch.rand(3, height, width, generator=generator)
        image = (8 * image).round() / 8 if limit == 0.25 else image
        spread = image.amax(0) - image.amin(0)  # [H, W]
        grey = spread < limit
        mean = image.mean(0)
        neighbours = (image[:2] - image[1:]).abs().amax(0)
        mistakes = {
            "less than `limit`: a difference of exactly `limit` is too large": (
                (spread <= limit).float().mean()
            ),
            "a share lies between 0 and 1; that is in per cent": 100 * grey.float().mean(),
            "divide by the number of pixels, H · W, not of all numbers": grey.sum() / image.numel(),
            "the largest and the smallest may be the first and the last channel: compare these, "
            "too": (neighbours < limit).float().mean(),
            "that is divided by the largest channel (saturation); take the difference itself": (
                (spread / image.amax(0) < limit).float().mean()
            ),
            "the other way round: a grey pixel has a small difference": (~grey).float().mean(),
            "that is a count; divide by the number of pixels": grey.sum(),
            "that is the mean difference; compare each pixel with the limit": spread.mean(),
            "that compares the mean of the pixel: dark is not grey": (mean < limit).float().mean(),
            "largest minus smallest channel, not the standard deviation": (
                (image.std(0) < limit).float().mean()
            ),
            "all three channels count, not only the first two": (
                ((image[0] - image[1]).abs() < limit).float().mean()
            ),
            "of a pixel, not of the picture: take the maximum over the channels only": (
                float(image.max() - image.min() < limit)
            ),
            "one number: the share of all pixels": grey,
        }
        yield Case((image, limit), grey.float().mean(), mistakes)


@exercise("correct: red is at 0 degrees, green at 120, blue at 240")
def check_hue(chance: Chance) -> Cases:
    """`function(rgb [3]) -> (degrees, distance)`: degrees in [0, 360), distance from grey."""
    colours = torch.tensor(
        [[0.9, 0.2, 0.1], [0.2, 0.7, 0.3], [0.1, 0.3, 0.8], [0.5, 0.4, 0.2], [0.4, 0.5, 0.7]]
    )
    random = torch.tensor([0.1, 0.25, 0.4]) + 0.1 * torch.rand(3, generator=chance.generator(5))
    for rgb in [*colours, random]:
        red, green, blue = rgb
        x, y = red - (green + blue) / 2, 0.75**0.5 * (green - blue)
        angle, distance = torch.atan2(y, x), torch.hypot(x, y)
        degrees = angle.rad2deg() % 360
        sixths, saturation, _ = colorsys.rgb_to_hsv(*rgb.tolist())
        flat = torch.atan2(green - blue, x).rad2deg() % 360
        mistakes = {
            "that is the angle in radians; 180 degrees are π": (angle % (2 * torch.pi), distance),
            "that is the hue of `colorsys` (HSV), another definition; take the equations at the "
            "top": (360 * sixths, saturation),
            "atan(y / x) is the same for opposite colours; atan2(y, x) tells them apart": (
                (y / x).atan().rad2deg() % 360,
                distance,
            ),
            "the degrees come first, then the distance": (distance, degrees),
            "the other way round: green lies at +120 degrees": ((-degrees) % 360, distance),
            "x and y are exchanged: atan2 takes y first": (
                torch.atan2(x, y).rad2deg() % 360,
                distance,
            ),
            "green and blue lie at ±120 degrees: their y is ±√3/2, not ±1": (
                flat,
                torch.hypot(x, green - blue),
            ),
            "the distance is the root of x² + y²": (degrees, x * x + y * y),
            "between 0 and 360: take the remainder of a division by 360": (
                angle.rad2deg(),
                distance,
            ),
            HALF: (angle.rad2deg().abs(), distance),
        }
        yield Case((rgb,), (degrees, distance), mistakes)


@exercise("correct: whoever knows the class knows this much about the colour")
def check_guess_from_class(chance: Chance) -> Cases:
    """`function(labels [N], colours [N]) -> share`: guessing each class's most frequent colour."""
    generator = chance.generator(3)
    for count in (60, 500):
        labels = torch.randint(10, (count,), generator=generator)
        labels[:10] = torch.arange(10)  # no class is missing
        # Each class has a colour of its own in 40 % of its images; for two of them it is unsaid.
        own = torch.rand(count, generator=generator) < 0.4
        anything = torch.randint(len(colour.COLOUR_WORDS), (count,), generator=generator)
        colours = torch.where(own, labels % 4, anything)
        table = F.one_hot(labels, 10).T @ F.one_hot(colours, 4)  # [10, 4], counts
        shares = table / table.sum(1, keepdim=True).clamp_min(1)
        mistakes = {
            "that is one guess for all images; take one for each class": table.sum(0).max() / count,
            "every image counts alike, so do not average over classes": shares.amax(1).mean(),
            "that is a count; divide it by the number of images": table.amax(1).sum(),
            "unsaid counts like the other colours, so it may be the guess": (
                table[:, : colour.UNSAID].amax(1).sum() / count
            ),
            "a share lies between 0 and 1; that is in per cent": 100 * table.amax(1).sum() / count,
            "that guesses the class from the colour; it is the other way round": (
                table.amax(0).sum() / count
            ),
        }
        yield Case((labels, colours), table.amax(1).sum() / count, mistakes)


@exercise("correct: 350 and 10 degrees have the mean 0, and grey pixels hardly count")
def check_mean_hue(chance: Chance) -> Cases:
    """`function(hues [N], distances [N]) -> degrees`: the mean hue, in [0, 360).

    Each hue is an arrow of its own length: its distance from grey. The mean hue is the direction
    of the sum of all arrows.
    """
    generator = chance.generator(6)
    for centre, count in ((0.0, 9), (210.0, 12), (300.0, 15), (110.0, 10)):
        hues = (centre + 60 * torch.randn(count, generator=generator)) % 360
        hues[0], hues[1] = (centre + 170) % 360, (centre - 15) % 360
        distances = torch.rand(count, generator=generator)
        distances[0] = 0.05  # nearly grey
        angle = hues.deg2rad()
        y, x = (distances * angle.sin()).sum(), (distances * angle.cos()).sum()
        right = torch.atan2(y, x)
        unweighted = torch.atan2(angle.sin().sum(), angle.cos().sum())
        mistakes = {
            "degrees go round in a circle: add arrows, not numbers": hues.mean(),
            "add arrows, not numbers; weighing the numbers is not enough": (
                (hues * distances).sum() / distances.sum()
            ),
            "a grey pixel has hardly a hue: weigh by the distance from grey": (
                unweighted.rad2deg() % 360
            ),
            "that is the angle in radians; 180 degrees are π": right % (2 * torch.pi),
            "atan(y / x) is the same for opposite colours; atan2(y, x) tells them apart": (
                (y / x).atan().rad2deg() % 360
            ),
            "the functions of torch want radians: hues.deg2rad()": (
                torch.atan2(
                    (distances * hues.sin()).sum(), (distances * hues.cos()).sum()
                ).rad2deg()
                % 360
            ),
            "x and y are exchanged: atan2 takes y first": torch.atan2(x, y).rad2deg() % 360,
            "between 0 and 360: take the remainder of a division by 360": right.rad2deg(),
            "add 360 to negative degrees only": right.rad2deg() + 360,
            HALF: right.rad2deg().abs(),
        }
        yield Case((hues, distances), right.rad2deg() % 360, mistakes)

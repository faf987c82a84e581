"""Exercises of notebook 00, quickstart."""

from ..datasets import captions
from .checking import Case, Cases, Chance, exercise


@exercise("correct: ten sentences the model can draw")
def check_wishes(chance: Chance) -> Cases:
    """`function() -> list[str]`: a caption for every digit, all of them thick and leaning left."""
    right = [captions.caption(digit, thickness=1, slant=0) for digit in range(10)]
    mistakes = {
        "write the digits as words": [f"a thick {digit} leaning left" for digit in range(10)],
        "a caption has no full stop": [text + "." for text in right],
        "nine is a digit, too": right[:-1],
        "zero is a digit, too": right[1:],
        "ten is no digit: they go from zero to nine": [*right, "a thick ten leaning left"],
        "a caption begins with a small letter": [text.capitalize() for text in right],
        "that is thin; thick was asked for": [text.replace("thick", "thin") for text in right],
    }
    wrong = {hint: frozenset(texts) for hint, texts in mistakes.items()}
    yield Case((), frozenset(right), wrong)


@exercise("correct: 4 × 4 codes for our digits of 32 pixels and patches of 8")
def check_code_count(chance: Chance) -> Cases:
    """`function(image_size, patch_size) -> int`: how many codes a square image becomes."""
    hidden = chance.whole(3, 9)
    patch = chance.whole(2, 60)
    sizes = [(32, 8), (32, 4), (1024, 32), (64, 64), (hidden * patch, patch)]
    for image_size, patch_size in sizes:
        side = image_size // patch_size
        mistakes = {
            "that is one side of the grid; it has as many columns as rows": side,
            "that is how many pixels one code stands for": patch_size**2,
            "that is the number for our digits; both sizes may be others": 16,
            "divide both sides of the image by the patch size, not only one": image_size * side,
        }
        yield Case((image_size, patch_size), side**2, mistakes)

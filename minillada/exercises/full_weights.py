"""Exercises of notebook 19, full weights."""

import json
import math

from ..exercises.checking import Case, Cases, exercise


@exercise("correct: 8 of 256 experts are used, but all of them must be somewhere")
def check_active() -> Cases:
    """`function(hidden, inner, experts, chosen, shared) -> int`: weights that one token uses.

    In one mixture of experts: the router's, and those of the chosen and of the shared experts.
    """
    for sizes in ((2048, 512, 256, 8, 1), (96, 40, 16, 2, 3), (7, 5, 11, 3, 2)):
        hidden, inner, experts, chosen, shared = sizes
        router, one = experts * hidden, 3 * hidden * inner
        mistakes = {
            "the router compares a token with every expert, so its whole matrix is used": (
                (chosen + shared) * one
            ),
            "shared experts see every token, too": router + chosen * one,
            "an expert has three matrices: gate, up and down": (
                router + (chosen + shared) * 2 * hidden * inner
            ),
            "those are all weights; a token uses only the chosen experts": (
                router + (experts + shared) * one
            ),
        }
        yield Case(sizes, router + (chosen + shared) * one, mistakes)


@exercise("correct: a block of 32 tokens already needs most of the experts")
def check_experts_read() -> Cases:
    """`function(tokens, experts, chosen) -> float`: the share of experts that are needed.

    Each of the tokens chooses `chosen` different experts at random; an expert is needed if at least
    one token chose it. The answer is the expected share.
    """
    for tokens, experts, chosen in ((1, 256, 8), (32, 256, 8), (3, 10, 4), (64, 128, 4)):
        nobody = (1 - chosen / experts) ** tokens
        drawn = tokens * chosen
        mistakes = {
            "that is the share that nobody chose": nobody,
            "two tokens may choose the same expert; it is read once": drawn / experts,
            "the experts of one token are all different: it misses one with 1 − chosen/experts": (
                1 - (1 - 1 / experts) ** drawn
            ),
            "that is for one token; the others choose, too": chosen / experts,
        }
        yield Case((tokens, experts, chosen), 1 - nobody, mistakes)


@exercise("correct: such headers, two MB in all, tell what 33 GB hold")
def check_header() -> Cases:
    """`function(data: bytes) -> {name: shape}`: what a safetensors file holds.

    Eight bytes hold the length of the header, little end first; then comes the header, which is
    JSON: `{name: {"dtype": …, "shape": […], "data_offsets": […]}}`. The entry `__metadata__` is no
    tensor. The numbers follow.
    """
    for names in (("norm",), ("embedding", "head"), ("a", "b", "c")):
        header: dict = {"__metadata__": {"format": "pt"}}
        shapes = {}
        end = 0
        for size, name in enumerate(names, start=2):
            shapes[name] = [size, size + 3]
            begin, end = end, end + 2 * math.prod(shapes[name])
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [begin, end]}
        text = json.dumps(header).encode()
        data = len(text).to_bytes(8, "little") + text + bytes(end)
        mistakes: dict = {
            "those are places in the file; the field is called shape": {
                name: header[name]["data_offsets"] for name in names
            },
            "that is how many numbers a tensor has; its shape was asked for": {
                name: math.prod(shapes[name]) for name in names
            },
            "__metadata__ is about the file and no tensor": {"__metadata__": []} | shapes,
        }
        yield Case((data,), shapes, mistakes)

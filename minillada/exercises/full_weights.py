"""Exercises of notebook 19, full weights."""

import json
import math

import safetensors.torch
import torch
from torch import Tensor

from .checking import Case, Cases, Chance, exercise


@exercise("correct: 8 of 256 experts are used, but all of them must be stored")
def check_active(chance: Chance) -> Cases:
    """`function(hidden, inner, experts, chosen, shared) -> int`: weights that one token uses.

    In one mixture of experts: the router's, and those of the chosen and of the shared experts.
    """
    experts = chance.whole(9, 40)
    random = chance.whole(20, 90), chance.whole(5, 40), experts, chance.whole(2, 5), 2
    for sizes in ((2048, 512, 256, 8, 1), (96, 40, 16, 2, 3), (7, 5, 11, 3, 2), random):
        hidden, inner, experts, chosen, shared = sizes
        router, one = experts * hidden, 3 * hidden * inner
        mistakes = {
            "the router compares a token with every expert, so its whole matrix is used": (
                (chosen + shared) * one
            ),
            "the router's bias is not counted here, only its matrix": (
                router + experts + (chosen + shared) * one
            ),
            "the router compares a token with every expert, not only with the chosen ones": (
                chosen * hidden + (chosen + shared) * one
            ),
            "shared experts see every token, too": router + chosen * one,
            "the router reads a token, which has `hidden` numbers, not `inner`": (
                experts * inner + (chosen + shared) * one
            ),
            "an expert has three matrices: gate, up and down": (
                router + (chosen + shared) * 2 * hidden * inner
            ),
            "those are all weights; a token uses only the chosen experts": (
                router + (experts + shared) * one
            ),
        }
        yield Case(sizes, router + (chosen + shared) * one, mistakes)


@exercise("correct: a block of 32 tokens already needs most of the experts")
def check_experts_read(chance: Chance) -> Cases:
    """`function(tokens, experts, chosen) -> float`: the share of experts that are needed.

    Each of the tokens chooses `chosen` different experts at random; an expert is needed if at least
    one token chose it. The answer is the expected share.
    """
    random = chance.whole(2, 30), chance.whole(20, 200), chance.whole(2, 9)
    for tokens, experts, chosen in ((1, 256, 8), (32, 256, 8), (3, 10, 4), (64, 128, 4), random):
        nobody = (1 - chosen / experts) ** tokens
        drawn = tokens * chosen
        mistakes = {
            "that is the share that nobody chose": nobody,
            "two tokens may choose the same expert; it is read once": drawn / experts,
            "the experts of one token are all different; in yours, one may come twice": (
                1 - (1 - 1 / experts) ** drawn
            ),
            "two tokens may choose the same expert; a largest share of 1 does not mend that": (
                min(1.0, drawn / experts)
            ),
            "that is a number of experts; divide it by all of them": experts * (1 - nobody),
            "that is for one token; the others choose, too": chosen / experts,
        }
        yield Case((tokens, experts, chosen), 1 - nobody, mistakes)


@exercise("correct: such headers, two MB in all, tell what 33 GB hold")
def check_header(chance: Chance) -> Cases:
    """`function(data: bytes) -> {name: shape}`: what a safetensors file holds.

    Eight bytes hold the length of the header, little end first; then comes the header, which is
    JSON: `{name: {"dtype": …, "shape": […], "data_offsets": […]}}`. The entry `__metadata__` is no
    tensor. The numbers follow.
    """
    # The last header is so long that its length fills more than two of the eight bytes.
    for names, note in ((("norm",), ""), (("embedding", "head"), ""), (("a", "b"), "-" * 70_000)):
        header: dict = {"__metadata__": {"format": "pt", "note": note}}
        shapes = {}
        end = 0
        for size, name in enumerate(names, start=2):
            shapes[name] = [size, size + chance.whole(1, 5)]
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


@exercise("correct: the header says where one tensor stands; nothing else need be read")
def check_tensor(chance: Chance) -> Cases:
    """`function(data: bytes, name) -> Tensor`: one bfloat16 tensor of a safetensors file.

    The header is that of exercise 3. `data_offsets` count from the end of the header.
    """
    generator = chance.generator(9)
    for name in ("gate", "norm", "up"):  # the first, the second and the last in the file
        tensors = {
            part: torch.randn(3, size, generator=generator).bfloat16()
            for part, size in (("norm", 4), ("gate", 5), ("up", 2))
        }
        data = safetensors.torch.save(tensors)
        begin = int.from_bytes(data[:8], "little") + 8
        first, last = json.loads(data[8:begin])[name]["data_offsets"]
        shape = tensors[name].shape
        raw = bytearray(data[begin + first : begin + last])
        early = bytearray(data[begin - 8 + first : begin - 8 + last])
        from_zero = bytearray(data[first:last])
        swapped = bytearray(raw)
        swapped[::2], swapped[1::2] = raw[1::2], raw[::2]
        mistakes = {
            "the eight bytes of the length stand before the header": numbers(early).view(shape),
            "offsets count from the end of the header, not of the file": (
                numbers(from_zero).view(shape)
            ),
            "that reads the bytes as float16; they are bfloat16": (
                torch.frombuffer(raw, dtype=torch.float16).float().view(shape)
            ),
            "little end first: the order of the two bytes is swapped": numbers(swapped).view(shape),
            "those are bytes; read them as numbers": bytes(raw),
            "give it the shape that the header says": numbers(raw),
        }
        yield Case((data, name), tensors[name].float(), mistakes)


def numbers(raw: bytearray) -> Tensor:
    """Bytes as bfloat16 numbers."""
    return torch.frombuffer(raw, dtype=torch.bfloat16).float()

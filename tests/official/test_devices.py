"""The official model on a device: every way to run gives what the CPU gives, and mixes nothing.

The device is a pretended one (`tests/pretend.py`).
"""

import importlib.util

import pytest
import torch
from helpers import generator
from pretend import PretendDevice

from minillada.extras import halves
from minillada.official import resize
from minillada.official.calls import load
from minillada.official.painter import load_painter

HAS_DIFFUSERS = importlib.util.find_spec("diffusers") is not None
WAYS = {
    "whole": {},
    "parts by turns": {"offload": True},
    "experts from files": {"experts_on_gpu": 2, "offload": True},
    "experts in 8 bits": {"bits": 8},
}


def story(parts):
    """Texts, and the bytes of images."""
    return [part if isinstance(part, str) else part.tobytes() for part in parts]


@pytest.mark.parametrize("way", WAYS)
def test_official_calls(checkpoint, monkeypatch, way):
    monkeypatch.setattr(resize, "EDIT_SQUARES", 4)  # photos to edit are 64 x 64 pixels at most
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    # Some CPUs would round in other places than the pretended device (`extras/halves.py`).
    monkeypatch.setattr(halves, "has_bfloat16", lambda device: True)
    photo = resize.picture(torch.rand(3, 66, 70, generator=generator()))

    def compute(place, **how):
        model = load(checkpoint, place, "bfloat16", **how)
        model.painter_steps = {"turbo": 1, "normal": 2}
        results = [model.answer(photo, "What is it?", length=8)]
        if HAS_DIFFUSERS:
            results.append(model.draw("a fox", size=(64, 32), steps=2).tobytes())
            edited = model.edit(photo, "make it red", steps=2, guidance_image=1.5, painter="normal")
            results.append(edited.tobytes())
            text, image = model.think_and_draw("meow", size=32, steps=2, length=40)
            results += [text, image.tobytes()]
            results += story(model.interleave("tell", size=32, steps=2, length=40, images=1))
        return results

    rounded = {"bits": WAYS[way].get("bits")}
    expected = compute("cpu", **rounded)
    with PretendDevice("cuda") as pretended:
        assert compute("cuda", **WAYS[way]) == expected
        assert pretended.calls > 1000


@pytest.mark.skipif(not HAS_DIFFUSERS, reason="paints with diffusers")
@pytest.mark.parametrize("painter", ["turbo", "normal"])
def test_painters_where_float64_is_missing(checkpoint, painter):
    """As on Apple's GPUs. Random codes are painted: what comes before has its own test."""
    codes = torch.tensor([[[1, 2], [60, 63]]])
    with PretendDevice("mps", float64=False) as pretended:
        there = load_painter(checkpoint, painter == "turbo", "mps", torch.float32)
        found = there.paint(codes, 2, generator()).cpu()
        assert pretended.calls > 100
    here = load_painter(checkpoint, painter == "turbo", dtype=torch.float32)
    torch.testing.assert_close(found, here.paint(codes, 2, generator()), rtol=0, atol=1e-4)

"""Image tokenizer and painters: which are refused, where they wait, and what a call does."""

import importlib.util
import json
import shutil

import pytest
import torch
from helpers import Kernels

from minillada.extras import halves
from minillada.official.painter import SigVQ
from minillada.official.parts import Canvas, Parts

needs_diffusers = pytest.mark.skipif(
    importlib.util.find_spec("diffusers") is None,
    reason='diffusers is not installed; run pip install "minillada[official]"',
)


def test_parts_of_another_codebook_are_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    (folder / "SHA256SUMS").unlink()
    parts = Parts(folder, torch.device("cpu"), torch.float32, False)
    if importlib.util.find_spec("diffusers"):
        path = folder / "image_tokenizer" / "sigvq_embedding.pt"
        torch.save(SigVQ(40, 32).state_dict(), path)
        with pytest.raises(ValueError, match="embedding has 40 image codes, and .* ids for 64"):
            parts.painter("turbo")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"image_token_offset": 511}))
    with pytest.raises(ValueError, match="image tokenizer has 64 image codes, and .* ids for 65"):
        parts.tokenizer()
    assert not parts.kept


class Moved:
    """In place of a part: where it was sent, one place after the other."""

    def __init__(self):
        self.places = []

    def to(self, device):
        self.places.append(device.type)


@pytest.mark.parametrize(("offload", "home"), [(False, "meta"), (True, "cpu")])
def test_a_part_is_on_the_device_for_its_turn(tmp_path, offload, home):
    parts, part = Parts(tmp_path, torch.device("meta"), torch.float32, offload), Moved()
    assert parts.home.type == home
    with pytest.raises(KeyError), parts.at_work(part) as working:
        assert working is part and part.places == ["meta"]
        raise KeyError  # whatever happens in its turn, it goes back
    assert part.places == ["meta", home]


def test_an_image_is_as_large_as_its_grid(checkpoint):
    parts = Parts(checkpoint, torch.device("cpu"), torch.float32, False)
    canvas = Canvas(parts, (2, 3))
    assert canvas.image_shape == (3, 2 * 16, 3 * 16)
    assert canvas.encode(torch.rand(1, *canvas.image_shape)).shape == (1, 2, 3)
    assert parts.tokenizer().embedding.dtype == torch.float32
    with pytest.raises(ValueError, match="multiples of 16"):
        canvas.check_images(torch.rand(1, 3, 30, 48))


def test_a_processor_without_bfloat16_reads_images_by_other_code(checkpoint, monkeypatch):
    canvas = Canvas(Parts(checkpoint, torch.device("cpu"), torch.bfloat16, False), (2, 3))
    image, kernels = torch.rand(1, *canvas.image_shape), []
    for low in (True, False):
        monkeypatch.setattr(halves, "has_bfloat16", lambda device, low=low: low)
        with Kernels() as seen:
            canvas.encode(image)
        kernels.append(seen.types.count(torch.bfloat16))
    assert kernels[1] < 0.5 * kernels[0]


@needs_diffusers
def test_what_a_drawing_needs_is_read_before_it_is_decoded(checkpoint):
    """And waits where it was told to: here the device has no memory at all."""
    parts = Parts(checkpoint, torch.device("meta"), torch.float32, True)
    Canvas(parts).prepare()
    assert not parts.kept
    Canvas(parts, painter="turbo").prepare()
    assert list(parts.kept) == ["turbo"]
    for part in (parts.painter("turbo").sigvq, parts.tokenizer()):
        assert {weight.device.type for weight in part.parameters()} == {"cpu"}

"""The real files, and every way in which they can be missing or damaged."""

import gzip
import hashlib
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers import mnist_test_images

from minillada.datasets.mnist import MNIST_MD5, Images, load_mnist
from minillada.files import DATA_DIR, checksum

FILES = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


def test_the_test_split_is_the_original():
    images = mnist_test_images()
    assert images.pixels.shape == (10_000, 1, 32, 32) and images.pixels.dtype == torch.uint8
    assert images.labels.dtype == torch.int64
    assert torch.bincount(images.labels).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    assert images.labels[:5].tolist() == [7, 2, 1, 0, 4]  # as printed in every tutorial
    assert float(images.pixels[:, :, 2:30, 2:30].float().mean() / 255) == pytest.approx(
        0.1325, abs=1e-4
    )


def test_the_training_split_is_the_original():
    images = load_mnist()
    assert images.pixels.shape == (60_000, 1, 32, 32)
    assert torch.bincount(images.labels).tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
    assert int(
        images.pixels.sum(dtype=torch.int64)
    ) / images.labels.numel() / 784 / 255 == pytest.approx(0.1307, abs=1e-4)


def test_padding_is_two_black_pixels_on_every_side():
    pixels = mnist_test_images().pixels
    raw = gzip.decompress((DATA_DIR / "mnist" / FILES[0]).read_bytes())[16:]
    first = torch.tensor(list(raw[: 28 * 28]), dtype=torch.uint8).view(28, 28)
    assert torch.equal(pixels[0, 0, 2:30, 2:30], first)
    frame = pixels.clone()
    frame[:, :, 2:30, 2:30] = 0
    assert not frame.any()


def test_floats_are_bytes_over_255():
    images = Images(
        torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), torch.tensor([0, 1, 2])
    )
    assert torch.allclose(images.floats().flatten(), torch.tensor([0, 0.2, 1.0]))
    assert torch.equal(images.floats(torch.tensor([2, 0])).flatten(), torch.tensor([1.0, 0.0]))
    assert images.floats().dtype == torch.float32


def test_checksum(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert checksum(tmp_path / "x") == hashlib.sha256(b"abc").hexdigest()
    assert checksum(tmp_path / "x", "md5") == "900150983cd24fb0d6963f7d28e17f72"


def test_unknown_split():
    with pytest.raises(ValueError, match="'train' and 'test', not 'valid'"):
        load_mnist("valid")


@pytest.fixture
def copy(tmp_path):
    """A data folder of our own with the two test files."""
    (tmp_path / "mnist").mkdir()
    for name in FILES:
        shutil.copy(DATA_DIR / "mnist" / name, tmp_path / "mnist" / name)
    return tmp_path


def replace_torchvision(monkeypatch, mnist: type):
    """What `from torchvision.datasets import MNIST` finds; the real import would cost seconds."""
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(__path__=[]))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", SimpleNamespace(MNIST=mnist))


def forbid_download(monkeypatch, error: BaseException):
    class Unreachable:
        def __init__(self, root, download=False):
            assert download
            half = Path(root) / "MNIST" / "raw"
            half.mkdir(parents=True)
            (half / FILES[0]).write_bytes(b"half a fi")
            raise error

    replace_torchvision(monkeypatch, Unreachable)


def everything_below(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:1000],  # cut off
        lambda raw: b"",  # empty
        lambda raw: b"<html>not found</html>",  # something else altogether
        lambda raw: gzip.compress(
            gzip.decompress(raw)[:-1] + b"\x07", 1
        ),  # one byte altered, still a valid archive
        lambda raw: (
            raw[:500] + bytes([raw[500] ^ 255]) + raw[501:]
        ),  # one byte of the archive flipped
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_altered_files_are_refused(copy, damage, name):
    path = copy / "mnist" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"{name} is damaged \(wrong checksum\); delete it"):
        load_mnist("test", copy)


def test_a_forbidden_file_is_not_called_damaged(copy, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(PermissionError, match="Permission denied: .*idx3-ubyte.gz"):
        load_mnist("test", copy)


def test_a_recompressed_file_is_accepted(copy):
    """The checksum is that of the content."""
    path = copy / "mnist" / FILES[1]
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    assert torch.equal(load_mnist("test", copy).labels, mnist_test_images().labels)


@pytest.mark.parametrize(
    "error",
    [OSError("no network"), RuntimeError("Error downloading"), PermissionError("read-only")],
)
def test_missing_files_without_a_network(tmp_path, monkeypatch, error):
    forbid_download(monkeypatch, error)
    with pytest.raises(
        FileNotFoundError, match="MNIST is neither in .* nor can it be downloaded .*git checkout"
    ):
        load_mnist("test", tmp_path)
    assert everything_below(tmp_path) == []


def test_an_interrupted_download_leaves_no_half_file(tmp_path, monkeypatch):
    forbid_download(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        load_mnist("test", tmp_path)
    assert everything_below(tmp_path) == []
    assert not any(p.name != "mnist" for p in tmp_path.iterdir()), (
        "the temporary folder is gone too"
    )


def test_a_download_fills_the_folder_once(tmp_path, monkeypatch):
    calls = []

    class Mirror:
        def __init__(self, root, download=False):
            calls.append(root)
            self.raw_folder = str(Path(root) / "MNIST" / "raw")
            shutil.copytree(DATA_DIR / "mnist", self.raw_folder)
            (Path(self.raw_folder) / "t10k-labels-idx1-ubyte").write_bytes(b"unpacked copy")

    replace_torchvision(monkeypatch, Mirror)
    for _ in range(2):
        assert torch.equal(load_mnist("test", tmp_path).labels, mnist_test_images().labels)
    assert len(calls) == 1
    assert everything_below(tmp_path) == sorted(f"mnist/{name}.gz" for name in MNIST_MD5)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    forbid_download(monkeypatch, AssertionError("must not get this far"))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileNotFoundError, match="nor can it be downloaded"):
        load_mnist("test", tmp_path / "file")


def test_the_shipped_archive_is_small():
    assert sum(p.stat().st_size for p in (DATA_DIR / "mnist").iterdir()) < 12e6

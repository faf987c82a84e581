"""The loader and the sample of CIFAR-10: order, checksums, damage, and a download without network.

The whole data set is not part of the repository: what needs it builds a small one of its own.
"""

import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from minillada.datasets import cifar10
from minillada.datasets.cifar10 import (
    CLASSES,
    digest,
    from_sheet,
    load_cifar10,
    load_cifar10_sample,
)
from minillada.datasets.images import Images


def random_images(count: int, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10)


@pytest.fixture
def small(monkeypatch):
    """A CIFAR-10 of 50 training and 10 test images, with their checksums and counts."""
    splits = {"train": random_images(50, 1), "test": random_images(10, 2)}
    sums = {name: digest(images) for name, images in splits.items()}
    monkeypatch.setattr(cifar10, "CIFAR10_MD5", sums)
    monkeypatch.setattr(cifar10, "COUNTS", {"train": 50, "test": 10})
    return splits


def write_copy(root, splits):
    path = root / "cifar10" / "cifar10.safetensors"
    path.parent.mkdir()
    tensors = {}
    for name, images in splits.items():
        tensors[f"{name}_pixels"] = images.pixels
        tensors[f"{name}_labels"] = images.labels.byte()
    save_file(tensors, path)
    return path


def write_archive(path, splits):
    """The official binary archive in small: records of a label byte and 3,072 pixel bytes."""
    folder = path.parent / "cifar-10-batches-bin"
    folder.mkdir()
    parts = {"test_batch.bin": splits["test"]}
    for number in range(5):
        rows = slice(10 * number, 10 * number + 10)
        part = Images(splits["train"].pixels[rows], splits["train"].labels[rows])
        parts[f"data_batch_{number + 1}.bin"] = part
    with tarfile.open(path, "w:gz") as tar:
        for name, images in parts.items():
            content = b""
            for pixels, label in zip(images.pixels, images.labels):
                content += bytes([int(label)]) + pixels.numpy().tobytes()
            (folder / name).write_bytes(content)
            tar.add(folder / name, f"cifar-10-batches-bin/{name}")


@pytest.mark.parametrize("split", ["train", "test"])
def test_sample_holds_a_hundred_of_each_class_in_turn(split):
    sample = load_cifar10_sample(split)
    assert sample.pixels.shape == (1000, 3, 32, 32) and sample.pixels.dtype == torch.uint8
    assert sample.labels.tolist() == [*range(10)] * 100
    assert len(sample.pixels.flatten(1).unique(dim=0)) == 1000


def test_samples_of_training_and_test_share_no_image():
    both = torch.cat([load_cifar10_sample("train").pixels, load_cifar10_sample("test").pixels])
    assert len(both.flatten(1).unique(dim=0)) == 2000


def test_a_sheet_has_a_row_of_images_for_each_class():
    pixels = random_images(1000).pixels
    sheet = torch.zeros(320, 3200, 3, dtype=torch.uint8)
    for i, image in enumerate(pixels):
        y, x = 32 * (i % 10), 32 * (i // 10)
        sheet[y : y + 32, x : x + 32] = image.permute(1, 2, 0)
    assert torch.equal(from_sheet(sheet), pixels)


@pytest.mark.skipif(
    not (cifar10.DATA_DIR / "cifar10" / "cifar10.safetensors").exists(), reason="needs CIFAR-10"
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_sample_is_the_first_of_each_class(split):
    images, sample = load_cifar10(split), load_cifar10_sample(split)
    for label in range(10):
        first = images.pixels[images.labels == label][:100]
        assert torch.equal(sample.pixels[label::10], first)


def test_missing_or_damaged_sample_is_one_clear_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="sample of CIFAR-10 is not at .*git checkout"):
        load_cifar10_sample("test", tmp_path)
    path = tmp_path / "cifar10" / "sample-test.png"
    path.parent.mkdir()
    for size in ((3200, 320), (32, 32)):  # other pixels, another size
        Image.new("RGB", size).save(path)
        with pytest.raises(ValueError, match="damaged"):
            load_cifar10_sample("test", tmp_path)
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="damaged"):
        load_cifar10_sample("test", tmp_path)


@pytest.mark.parametrize("load", [load_cifar10, load_cifar10_sample])
def test_unknown_split_is_refused(load):
    with pytest.raises(ValueError, match="'train' and 'test', not 'validation'"):
        load("validation")


def test_local_copy_is_read_and_its_order_is_checked(small, tmp_path):
    path = write_copy(tmp_path, small)
    images = load_cifar10("train", tmp_path)
    assert torch.equal(images.pixels, small["train"].pixels) and images.labels.dtype == torch.int64
    # The same images in another order would not belong to the codes any more.
    order = torch.arange(50).flip(0)
    turned = Images(small["train"].pixels[order], small["train"].labels[order])
    path.unlink()
    path.parent.rmdir()
    write_copy(tmp_path, small | {"train": turned})
    with pytest.raises(ValueError, match="wrong checksum"):
        load_cifar10("train", tmp_path)


@pytest.mark.parametrize("load", [load_cifar10, load_cifar10_sample])
def test_a_forbidden_file_is_not_called_damaged(small, tmp_path, monkeypatch, load):
    def refuse(path, *mode, **more):
        raise PermissionError(13, "Permission denied", str(path))

    path = write_copy(tmp_path, small)
    (path.parent / "sample-test.png").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match="Permission denied: .*cifar10"):
        load("test", tmp_path)


def test_truncated_copy_is_refused(small, tmp_path):
    path = write_copy(tmp_path, small)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="damaged .*delete it"):
        load_cifar10("train", tmp_path)


def test_download_becomes_a_complete_copy(small, tmp_path, monkeypatch):
    def fetch(url, root, filename, md5):
        assert url.endswith("cifar-10-binary.tar.gz") and md5 == cifar10.ARCHIVE_MD5
        write_archive(tmp_path / "made.tar.gz", small)
        (tmp_path / "made.tar.gz").rename(f"{root}/{filename}")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    for split in ("train", "test"):
        images = load_cifar10(split, tmp_path)
        assert torch.equal(images.pixels, small[split].pixels)
        assert torch.equal(images.labels, small[split].labels)
    assert [path.name for path in (tmp_path / "cifar10").iterdir()] == ["cifar10.safetensors"]


@pytest.mark.parametrize(
    "error", [OSError("no route"), RuntimeError("File not found or corrupted")]
)
def test_interrupted_download_leaves_nothing(tmp_path, monkeypatch, error):
    def fetch(url, root, filename, md5):
        (tmp_path / "cifar10" / "half").parent.mkdir(exist_ok=True)
        with open(f"{root}/{filename}", "wb") as file:
            file.write(b"half of it")
        raise error

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    with pytest.raises(FileNotFoundError, match="neither at .* nor can it be downloaded"):
        load_cifar10("test", tmp_path)
    assert list((tmp_path / "cifar10").iterdir()) == []


def test_archive_without_a_file_is_no_data(small, tmp_path, monkeypatch):
    def fetch(url, root, filename, md5):
        tarfile.open(f"{root}/{filename}", "w:gz").close()

    monkeypatch.setattr("torchvision.datasets.utils.download_url", fetch)
    with pytest.raises(FileNotFoundError, match="nor can it be downloaded"):
        load_cifar10("test", tmp_path)


def test_labels_have_official_names():
    assert len(CLASSES) == 10 and CLASSES[3] == "cat" and CLASSES[8] == "ship"
    assert set(cifar10.VEHICLES) <= set(CLASSES)

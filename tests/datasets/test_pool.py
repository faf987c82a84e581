"""A pool knows what its images show, and picks each kind as often as it occurs."""

import dataclasses
import functools
from random import Random

import pytest
import torch
from helpers import mnist_test_images, real_images, tiny_tokenizer

from minillada import checkpoint
from minillada.datasets import captions, cifar10, table
from minillada.datasets.cifar10 import load_cifar10_sample
from minillada.datasets.mnist import Images
from minillada.datasets.pool import Pool, measured_pool, mnist_pool, store_pools, stored_pool
from minillada.files import DATA_DIR


@functools.cache
def pool() -> Pool:
    return mnist_pool(mnist_test_images())


def classes(index: int) -> list[int]:
    return [column[index] for column in pool().columns.values()]


def test_the_columns_of_mnist_are_measured():
    images = mnist_test_images()
    index = [0, 17, 4999, 5000, 9999]
    expected = captions.caption_classes(images.floats(index), images.labels[index]).tolist()
    assert list(pool().columns) == ["digit", "thickness", "slant"]
    assert [classes(i) for i in index] == expected
    degrees = captions.slant(images.floats(index)).tolist()
    measured = [pool().measures["slant_degrees"][i] for i in index]
    assert measured == pytest.approx(degrees, abs=1e-3)
    assert len(pool()) == sum(map(len, pool().members.values())) == 10_000


@pytest.mark.parametrize(
    "wanted",
    [{"digit": 3}, {"thickness": 1, "digit": None}, {"slant": 2}, dict(slant=0, digit=8)],
)
def test_what_is_picked_shows_what_is_wanted(wanted):
    rng = Random(0)
    picked = [pool().pick(rng, **wanted) for _ in range(30)]
    for name, value in wanted.items():
        if value is not None:
            assert {pool().columns[name][i] for i in picked} == {value}
    assert len(set(picked)) > 20
    assert len({tuple(classes(i)) for i in picked}) > 1


def test_kinds_are_picked_as_often_as_they_occur():
    small = mnist_pool(real_images(200))
    rng = Random(0)
    picked = torch.tensor([small.pick(rng, digit=1) for _ in range(4000)]).bincount(minlength=200)
    ones = (small.images.labels == 1).nonzero().flatten()
    expected = 4000 / len(ones)
    assert picked.sum() == picked[ones].sum()
    assert (picked[ones] - expected).abs().max() < 6 * expected**0.5


def test_what_is_not_there_is_refused():
    few = mnist_pool(real_images(3))
    with pytest.raises(ValueError, match="no image of this split has digit 5, slant 0; use a larg"):
        few.pick(Random(0), digit=5, thickness=None, slant=0)
    with pytest.raises(ValueError, match="no column 'colour'; choose from digit, thickness, slant"):
        few.pick(Random(0), colour=1)
    for wanted in ({"colour": None}, {"digit": 5, "colour": None}):  # any class is no class, too
        with pytest.raises(ValueError, match="no column 'colour'; choose from digit"):
            few.pick(Random(0), **wanted)
        with pytest.raises(ValueError, match="no column 'colour'; choose from digit"):
            few.kinds(**wanted)


def test_another_data_set_has_other_columns():
    images = Images(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    cars = Pool(images, {"kind": [0, 1, 0, 1], "colour": [5, 5, 6, 6]}, {"length": [0, 1, 2, 9]})
    assert cars.pick(Random(0), kind=1, colour=6) == 3
    assert {cars.pick(Random(n)) for n in range(40)} == {0, 1, 2, 3}
    # Four of two candidates: the nearer one is missed only if all four are the other.
    nearest = [cars.pick_nearest(Random(n), 0, "length", kind=1) for n in range(400)]
    assert nearest.count(3) / 400 == pytest.approx(1 / 16, abs=0.04)


def test_the_nearest_of_four_is_nearer_than_chance():
    """Among images of one class, only the measure decides."""
    rng, near, far = Random(2), 0.0, 0.0
    degrees = pool().measures["slant_degrees"]
    for _ in range(300):
        index = pool().pick(rng, digit=3)
        wanted = {"digit": 7, "thickness": 1, "slant": pool().columns["slant"][index]}
        like = pool().pick_nearest(rng, index, "slant_degrees", **wanted)
        other = pool().pick(rng, **wanted)
        assert classes(like) == list(wanted.values())
        near += abs(degrees[like] - degrees[index])
        far += abs(degrees[other] - degrees[index])
    assert near < 0.5 * far


# --- stored --------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [table.MNIST, table.CIFAR10])
def test_what_is_stored_is_what_is_measured(data):
    """The shipped columns, on images that are in every clone."""
    if not (DATA_DIR / data.stored).exists():
        pytest.skip("the codes are not here yet")
    stored = stored_pool(data, "test")
    if data is table.MNIST:
        images, places = mnist_test_images(), torch.arange(10_000)
    else:
        images = load_cifar10_sample("test")
        # The sample holds the first 100 images of each class, the classes in turn.
        labels = torch.tensor(stored.columns["label"])
        rows = [(labels == label).nonzero()[:100, 0] for label in range(10)]
        places = torch.stack(rows, dim=1).flatten()
    again = measured_pool(data, images)
    for name, column in again.columns.items():
        assert [stored.columns[name][i] for i in places.tolist()] == column
    for name, numbers in again.measures.items():
        kept = [stored.measures[name][i] for i in places.tolist()]
        assert kept == pytest.approx(numbers, abs=1e-4)


def small_data(tmp_path, monkeypatch):
    """CIFAR-10 of 30 images a split, and the path of a file for its codes."""
    sample = {split: load_cifar10_sample(split) for split in ("train", "test")}
    monkeypatch.setattr(
        cifar10, "load_cifar10",
        lambda split: Images(sample[split].pixels[:30], sample[split].labels[:30]),
    )  # fmt: skip
    return tmp_path / "codes.safetensors"


def test_codes_are_stored_and_pixels_are_read_only_when_asked_for(tmp_path, monkeypatch):
    path, tokenizer = small_data(tmp_path, monkeypatch), tiny_tokenizer(channels=3)
    store_pools(table.CIFAR10, tokenizer, {"tokenizer_sha256": "abc"}, path)
    images = cifar10.load_cifar10("train")
    calls = []

    def without_network(split):
        calls.append(split)
        raise FileNotFoundError("no pixels here")

    monkeypatch.setattr(cifar10, "load_cifar10", without_network)
    pool = stored_pool(table.CIFAR10, "train", path)
    assert len(pool) == 30 and pool.made_by == "abc" and pool.label == "label"
    assert torch.equal(pool.codes, tokenizer.encode(images.floats()))
    assert pool.columns["label"] == images.labels.tolist()
    assert pool.classes(7) == [column[7] for column in pool.columns.values()]
    assert calls == []
    with pytest.raises(FileNotFoundError, match="no pixels here"):
        pool.images  # noqa: B018


def test_codes_of_a_large_codebook_are_stored_whole(tmp_path, monkeypatch):
    """70,000 does not fit into 16 bits."""

    class Large:
        embedding = torch.zeros(100_000, 1)

        def encode(self, images):
            return torch.full((len(images), 2, 2), 70_000)

    path = small_data(tmp_path, monkeypatch)
    store_pools(table.CIFAR10, Large(), {}, path)
    assert stored_pool(table.CIFAR10, "test", path).codes.unique().tolist() == [70_000]


def test_classes_that_fill_no_byte_are_stored_whole(tmp_path, monkeypatch):
    path = small_data(tmp_path, monkeypatch)
    images = table.CIFAR10.load("test")
    many = images._replace(labels=torch.arange(len(images.labels)) + 250)
    data = dataclasses.replace(
        table.CIFAR10,
        load=lambda split: many,
        classes=lambda pixels, labels: torch.stack([labels, 0 * labels, 0 * labels + 1], 1),
    )
    store_pools(data, path=path)
    stored = stored_pool(data, "test", path).columns
    assert list(stored.values())[0] == many.labels.tolist()
    assert checkpoint.read_tensors(path)[0]["test_colour"].dtype == torch.uint8, "a byte is enough"


def test_a_place_that_cannot_be_written_is_refused_before_images_are_measured(tmp_path):
    def load(split):
        raise AssertionError("images are read")

    data = dataclasses.replace(table.MNIST, load=load)
    with pytest.raises(ValueError, match="is not a regular file, so it stays"):
        store_pools(data, path=tmp_path)


def test_a_model_of_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="no data set is called 'svhn'; choose mnist or cifar10"):
        table.data_set_of({"dataset": "svhn"})


def test_without_a_file_images_are_measured(tmp_path, monkeypatch):
    path = small_data(tmp_path, monkeypatch)
    pool = stored_pool(table.CIFAR10, "test", path)
    assert len(pool) == 30 and pool.codes is None


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    path = small_data(tmp_path, monkeypatch)
    store_pools(table.CIFAR10, None, None, path)
    assert stored_pool(table.CIFAR10, "test", path).codes is None
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="damaged or of another version; restore it"):
        stored_pool(table.CIFAR10, "test", path)
    store_pools(table.CIFAR10, None, None, path)
    with pytest.raises(ValueError, match="damaged or of another version"):
        stored_pool(table.MNIST, "test", path)  # other columns


def test_a_forbidden_file_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    path = small_data(tmp_path, monkeypatch)
    path.touch()
    monkeypatch.setattr(checkpoint, "read_tensors", refuse)
    with pytest.raises(PermissionError, match="Permission denied: .*codes.safetensors"):
        stored_pool(table.CIFAR10, "test", path)


def with_another_bit(path):
    """One bit of the last tensor is another one: the file can still be read."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_one_wrong_bit_is_refused(tmp_path, monkeypatch):
    path = small_data(tmp_path, monkeypatch)
    store_pools(table.CIFAR10, tiny_tokenizer(channels=3), {"tokenizer_sha256": "abc"}, path)
    with_another_bit(path)
    with pytest.raises(ValueError, match="damaged.*`minillada encode cifar10`"):
        stored_pool(table.CIFAR10, "test", path)
    for data in table.DATASETS.values():  # what is shipped
        copy = tmp_path / f"{data.name}.safetensors"
        copy.write_bytes((DATA_DIR / data.stored).read_bytes())
        assert len(stored_pool(data, "test", copy)) == 10_000
        with_another_bit(copy)
        with pytest.raises(ValueError, match="damaged"):
            stored_pool(data, "train", copy)

"""`check --digests`: every changed byte is found, and no name leads out of the folder."""

import random

import pytest

from minillada.official.inspection import wrong_digests
from minillada.official.sums import SUMS, check_sum, known_sums, write_sums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "part" / "b.bin").write_bytes(bytes(range(256)))
    write_sums(tmp_path)
    return tmp_path


def test_every_flipped_bit_is_found(folder):
    assert wrong_digests(folder) == []
    path = folder / "part" / "b.bin"
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(50):
        damaged = bytearray(whole)
        damaged[rng.randrange(256)] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(damaged))
        assert wrong_digests(folder) == ["part/b.bin is not the file that SHA256SUMS describes"]


def test_lines_are_those_of_sha256sum(tmp_path):
    """With two blanks or a blank and an asterisk; digits of either case; paths from here or not."""
    a, b = 32 * "0a", 32 * "b1"
    (tmp_path / SUMS).write_text(f"{a}  x.json\n{b.upper()} *./part/y.bin\n")
    assert known_sums(tmp_path) == {"x.json": a, "part/y.bin": b}
    for length in (63, 65):
        (tmp_path / SUMS).write_text(f"{length * '0'}  x.json\n")
        with pytest.raises(ValueError, match="a line that is no checksum"):
            known_sums(tmp_path)
    check_sum(tmp_path, a, a)
    with pytest.raises(ValueError, match="is not the file"):
        check_sum(tmp_path, a, a[:-1] + "b")


def test_its_own_checksum_is_not_among_them(folder):
    write_sums(folder)  # the file is there already
    assert known_sums(folder).keys() == {"a.json", "part/b.bin"}


def test_files_of_a_download_are_links(folder, tmp_path_factory):
    """The hub keeps them elsewhere, under their checksums."""
    blobs = tmp_path_factory.mktemp("blobs")
    for number, path in enumerate((folder / "a.json", folder / "part" / "b.bin")):
        path.rename(blobs / str(number))
        try:
            path.symlink_to(blobs / str(number))
        except OSError:
            pytest.skip("this system makes no links")
    assert wrong_digests(folder) == []
    (blobs / "0").write_text("[]")
    assert wrong_digests(folder) == ["a.json is not the file that SHA256SUMS describes"]


@pytest.mark.parametrize("name", ["c.safetensors", "c.pt"])
def test_weights_without_a_checksum_are_found(folder, name):
    """Loading would refuse such a folder, or warn."""
    (folder / "part" / name).write_bytes(b"")
    (folder / "notes.txt").write_text("")  # no weights
    assert wrong_digests(folder) == [f"SHA256SUMS does not name part/{name}; make it again"]


def test_one_blank_before_a_name_is_enough(folder):
    """`sha256sum --check` reads such lines, too."""
    lines = (folder / SUMS).read_text().replace("  ", " ")
    (folder / SUMS).write_text(lines)
    assert wrong_digests(folder) == []


def test_missing_files_and_names_that_lead_out(folder):
    (folder / "a.json").unlink()
    assert wrong_digests(folder) == ["a.json is missing"]
    for name in ("../a", "/etc/hostname"):
        (folder / SUMS).write_text("0" * 64 + f"  {name}\n")
        with pytest.raises(ValueError, match="outside the folder"):
            wrong_digests(folder)
    (folder / SUMS).unlink()
    with pytest.raises(ValueError, match="has no SHA256SUMS"):
        wrong_digests(folder)

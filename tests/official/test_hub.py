"""A folder, or a name on the hub; the network is never asked here."""

import errno
import sys
from types import SimpleNamespace

import pytest

from minillada.official import hub
from minillada.official.hub import local_folder
from minillada.official.sums import SUMS, read_sums

SHA = "ab" * 32


class HfApi:
    """Knows the checksum of the one large file, as the hub does."""

    def model_info(self, name, revision, files_metadata):
        if name == "off/line":
            raise ConnectionError
        assert files_metadata and "/" not in revision
        large, small = SimpleNamespace(sha256=SHA), None
        names = {"part/large.safetensors": large, "config.json": small, "not-here.bin": large}
        siblings = [SimpleNamespace(rfilename=file, lfs=lfs) for file, lfs in names.items()]
        return SimpleNamespace(siblings=siblings)


def fake(monkeypatch, answer):
    """A `huggingface_hub` that answers with a folder or with an error."""
    calls = []

    def snapshot_download(name, allow_patterns):
        calls.append((name, allow_patterns))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    module = SimpleNamespace(snapshot_download=snapshot_download, HfApi=HfApi)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


def test_a_folder_is_used_as_it_is(tmp_path, monkeypatch):
    calls = fake(monkeypatch, tmp_path)
    assert local_folder(tmp_path) == tmp_path and local_folder(str(tmp_path)) == tmp_path
    assert not calls


def test_a_name_is_downloaded_without_code(tmp_path, monkeypatch):
    calls = fake(monkeypatch, tmp_path)
    assert local_folder("inclusionAI/LLaDA2.0-Uni") == tmp_path
    assert calls == [("inclusionAI/LLaDA2.0-Uni", hub.WANTED)]
    assert not any(pattern.endswith(("py", "*", "bin")) for pattern in hub.WANTED)


def test_what_the_hub_knows_stands_beside_the_files(tmp_path, monkeypatch):
    (tmp_path / "part").mkdir()
    for name in ("part/large.safetensors", "config.json"):
        (tmp_path / name).write_text("")
    fake(monkeypatch, tmp_path)
    assert local_folder("off/line") == tmp_path and not (tmp_path / SUMS).exists()
    local_folder("some/one")
    assert read_sums(tmp_path) == {"part/large.safetensors": SHA}
    (tmp_path / SUMS).write_text(f"{'0' * 64}  config.json\n")
    local_folder("some/one")  # what is there stays
    assert list(read_sums(tmp_path)) == ["config.json"]


def test_a_download_that_may_only_be_read_is_used_as_it_is(tmp_path, monkeypatch):
    """A cache that a course shares, for example. Loading says that nothing is known."""
    (tmp_path / "part").mkdir()
    (tmp_path / "part/large.safetensors").write_text("")
    fake(monkeypatch, tmp_path)

    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(hub, "atomic", refuse)
    assert local_folder("some/one") == tmp_path and not (tmp_path / SUMS).exists()


@pytest.mark.parametrize(
    "place", ["no-such-folder", "./a/b", "/no/such", "a/b/c", "../a", "a b/c", "", "https://x/y"]
)
def test_what_is_neither_a_folder_nor_a_name(place, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    calls = fake(monkeypatch, tmp_path)
    if place:  # an empty text is the working folder
        with pytest.raises(FileNotFoundError, match="there is no folder"):
            local_folder(place)
    assert not calls


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Network is unreachable\nTraceback: ..."),
        FileNotFoundError("cannot find the requested files in the local cache"),
        RuntimeError(""),
    ],
)
def test_offline_is_one_sentence(error, monkeypatch):
    fake(monkeypatch, error)
    with pytest.raises(ValueError, match="check name and connection") as raised:
        local_folder("someone/something")
    assert "\n" not in str(raised.value) and "someone/something" in str(raised.value)


def test_a_full_disk_is_what_it_is(monkeypatch):
    fake(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(OSError, match="No space"):
        local_folder("someone/something")


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r'pip install "minillada\[official\]"'):
        local_folder("someone/something")

"""Files are whole or not there."""

import os
import platform
import re
import subprocess
import sys

import pytest

from minillada import files
from minillada.files import atomic, checksum

ROOT = files.Path(__file__).resolve().parent.parent


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [RuntimeError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "deep" / "x.txt"
    with atomic(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(type(error)), atomic(path) as temporary:
        temporary.write_text("half of the ne")
        raise error
    assert path.read_text() == "old" and names(path.parent) == ["x.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path, umask):
    old = os.umask(umask)
    try:
        (tmp_path / "usual").touch()
        with atomic(tmp_path / "x") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT, 0o600))  # as the safetensors library does
    finally:
        os.umask(old)
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "usual").stat().st_mode


def dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.skipif(os.name == "nt", reason="nobody can ask there whether a process lives")
def test_what_a_killed_writer_left_is_removed(tmp_path):
    machine, dead = platform.node(), dead_process()
    gone = f".x.{machine}.{dead}.part"
    # of a process that lives, of another file, and of a machine that shares the folder
    kept = [f".x.{machine}.{os.getppid()}.part", f".y.{machine}.{dead}.part", f".x.far.{dead}.part"]
    for name in (gone, *kept):
        (tmp_path / name).touch()
    with atomic(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == sorted([*kept, "x"]), "only its own leftovers"


def test_processes_of_two_machines_write_one_file(tmp_path, monkeypatch):
    """In a container, most programs are process 1."""
    with atomic(tmp_path / "x") as first:
        first.write_text("first")
        monkeypatch.setattr(platform, "node", lambda: "another")
        with atomic(tmp_path / "x") as second:
            second.write_text("second")
        assert (tmp_path / "x").read_text() == "second"
    assert (tmp_path / "x").read_text() == "first" and names(tmp_path) == ["x"]


def test_a_file_that_is_held_for_a_moment_is_replaced_later(tmp_path, monkeypatch):
    """As on Windows, while a program looks for viruses in it."""
    replace, refused = os.replace, [1, 1]

    def held(old, new):
        if refused:
            raise PermissionError(refused.pop())
        replace(old, new)

    monkeypatch.setattr(os, "replace", held)
    monkeypatch.setattr(files, "WAITS", (0, 0))
    with atomic(tmp_path / "x") as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == ["x"]
    refused += 3 * [1]
    with pytest.raises(PermissionError), atomic(tmp_path / "x") as temporary:
        temporary.write_text("newer")
    assert names(tmp_path) == ["x"] and (tmp_path / "x").read_text() == "new"


def test_a_shipped_name_is_spelt_alike_on_every_system(monkeypatch):
    there = files.Path.is_file  # Windows and macOS do not tell capitals from small letters
    monkeypatch.setattr(
        files.Path, "is_file", lambda path: there(path.with_name(path.name.lower()))
    )
    assert files.is_shipped("mnist", ".json") and not files.is_shipped("MNIST", ".json")


@pytest.mark.skipif(os.name == "nt", reason="links and pipes of Unix")
def test_only_regular_files_are_replaced(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = names(tmp_path)
    paths = [tmp_path / name for name in ("link", "dangling", "folder", "pipe")]
    for path in [*paths, files.Path("/dev/null")]:
        with pytest.raises(ValueError, match=f"{path.name} is not a regular file"), atomic(path):
            raise AssertionError("nothing is written")
    assert names(tmp_path) == before and (tmp_path / "file").read_text() == "kept"


def test_a_place_that_cannot_be_written_is_known_before_the_work(tmp_path):
    (tmp_path / "file").write_text("kept")
    files.check_writable(tmp_path / "new" / "deeper" / "x", "choose another")
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "deeper" / "x"):
        sentence = f"cannot write to the folder {re.escape(str(path.parent))}; choose another"
        with pytest.raises(ValueError, match=sentence):
            files.check_writable(path, "choose another")
    with pytest.raises(ValueError, match="is not a regular file"):
        files.check_writable(tmp_path, "choose another")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("suffix", "inside"), [(".safetensors", "weights.safetensors"), (".json", "text.json")]
)
def test_weights_and_text_pieces_are_found_by_the_same_rules(tmp_path, monkeypatch, suffix, inside):
    shipped = tmp_path / "weights" / f"one{suffix}"
    for path in (shipped, tmp_path / "one" / inside, tmp_path / "two" / inside):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    monkeypatch.setattr(files, "WEIGHTS_DIR", shipped.parent)
    monkeypatch.chdir(tmp_path)
    own = files.Path("one") / inside
    assert files.find("one", suffix, inside) == shipped
    for name in ("./one", files.Path("one"), f"one/{inside}"):
        assert files.find(name, suffix, inside) == own
    assert files.find("two", suffix, inside) == files.Path("two") / inside
    assert files.find(f"not-there{suffix}", suffix, inside) == files.Path(f"not-there{suffix}")
    assert files.find("not-there", suffix, inside) is None


def test_checksum_is_that_of_the_content(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert checksum(tmp_path / "x", "md5") == "900150983cd24fb0d6963f7d28e17f72"


def test_a_missing_data_folder_is_named_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DATA_DIR", tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match="nowhere; install .* `pip install -e .`, or .*MINILLADA_DATA"
    ):
        files.need_data()


def test_nothing_is_made_where_the_data_folder_is_missing(tmp_path):
    """As after `pip install .` without -e: neither loading nor training makes a data folder."""
    code = (
        "import sys, minillada\n"
        "from minillada.datasets.mnist import load_mnist\n"
        "from minillada.vocab import load_vocabulary\n"
        "for load in (minillada.load, load_mnist, lambda: load_vocabulary(16)):\n"
        "    try: load()\n"
        "    except FileNotFoundError as error: print(error)\n"
    )
    environment = os.environ | {"MINILLADA_DATA": str(tmp_path / "nowhere")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    sentences = done.stdout.splitlines()
    assert len(sentences) == 3 and names(tmp_path) == []
    for sentence in sentences:
        assert "there is no data folder at" in sentence and "`pip install -e .`" in sentence


def test_a_write_that_fails_leaves_no_new_folder(tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("new/deep/x", "old/new/x"):
        with pytest.raises(RuntimeError), atomic(tmp_path / name):
            raise RuntimeError("refused")
    assert names(tmp_path) == ["old"] and names(tmp_path / "old") == []
    with atomic(tmp_path / "new" / "x"):
        pass
    assert names(tmp_path) == ["new", "old"]


def test_the_data_folder_stays_when_the_working_folder_changes(tmp_path):
    code = "import os; from minillada.files import DATA_DIR; os.chdir('..'); print(DATA_DIR)"
    environment = os.environ | {"MINILLADA_DATA": "data", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True)
    assert os.fsdecode(done.stdout).strip() == str(tmp_path / "data")


def test_an_empty_variable_names_no_data_folder():
    """An unset variable of a shell script often arrives as an empty one."""
    code = "from minillada.files import DATA_DIR; print(DATA_DIR)"
    environment = os.environ | {"MINILLADA_DATA": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout.decode().strip().endswith("data")

"""Running the command line in this process, on a tiny model."""

import sys
import warnings

import pytest
from helpers import save_tiny_uni
from PIL import Image

from minillada import cli


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    return save_tiny_uni(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def run(run_folder):
    """The path of a tiny run, as the command line takes it."""
    return str(run_folder)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run the command line in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # `main` sets it
    for name, value in {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["minillada", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def refuse(call, tmp_path):
    """Exit code 2 and, as the last line on stderr, one sentence; no output and no file."""

    def files():
        return [path for path in sorted(tmp_path.rglob("*")) if path.is_file()]

    def refuse(*arguments):
        before = files()
        code, out, err = call(*arguments)
        assert code == 2, (code, out, err)
        assert out == "" and "Traceback" not in err
        *_, sentence = err.strip().splitlines()
        assert sentence.startswith("minillada: ")
        assert sum(line.startswith("minillada: ") for line in err.splitlines()) == 1
        assert files() == before
        return sentence

    return refuse


@pytest.fixture
def picture(tmp_path):
    """Writes a bar on black and returns its path."""

    def picture(name, size=28, mode="L", level=200):
        image = Image.new(mode, (size, size))
        colour = level if mode == "L" else (level,) * 3
        image.paste(colour, (size // 2 - 2, 5, size // 2 + 1, size - 5))
        image.save(tmp_path / name)
        return tmp_path / name

    return picture

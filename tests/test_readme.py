"""What the documents tell a reader to type works: snippet, commands, targets, links, the demo itself; and the numbers are measured.

`python tests/test_readme.py` writes the table of numbers into the README, from what `minillada evaluate mnist --record` and
`minillada evaluate mnist-uni --suite tasks --record` stored.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer.main
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from minillada import cli
from minillada.datasets import mnist
from minillada.files import WEIGHTS_DIR

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md", "data/README.md", "docs/log.md")}
README = DOCUMENTS["README.md"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


NUMBERS = re.compile(r"(<!-- numbers:begin -->\n)(.*?)(<!-- numbers:end -->)", re.S)


def numbers_table() -> str:
    """The README's table of numbers, from the measurements stored beside the weights."""
    info = json.loads((WEIGHTS_DIR / "mnist.json").read_text(encoding="utf-8"))
    assert "metrics" in info, "nothing measured yet: run `minillada evaluate mnist --record`"
    m = info["metrics"]
    timing = m["timing"]

    def percent(key):
        return f"{100 * m[key]:.2f} % ± {100 * m[f'{key}_ci95']:.2f} (n = {m[f'{key}_n']:,})"

    def bits(key):
        return f"{m[key]:.3f} ± {m[f'{key}_ci95']:.3f}"

    rows = [
        ("judge right on real test images", "≥ 99.3 %", percent("judge_accuracy")),
        ("judge right on their reconstructions", "≥ 98.5 %", percent("reconstruction_accuracy")),
        (f"reconstruction, {m['tokens_per_image']} tokens an image", "≥ 22 dB", f"{m['reconstruction_psnr_db']:.2f} dB PSNR"),
        ("drawn digit is the asked one", "≥ 99 %", percent("draw_digit_accuracy")),
        ("thickness as asked", "≥ 90 %", percent("draw_thickness_accuracy")),
        ("slant as asked", "≥ 90 %", percent("draw_slant_accuracy")),
        (
            "Fréchet distance of drawings to the test set, over that of reconstructions",
            "≤ 3",
            f"{m['frechet_distance'] / m['frechet_floor']:.2f} ({m['frechet_distance']:.2f} / {m['frechet_floor']:.2f})",
        ),
        ("caption names the right digit", "≥ 98.5 %", percent("caption_digit_accuracy")),
        ("whole caption right, word for word", "≥ 85 %", percent("caption_exact_accuracy")),
        ("bits per token, block diffusion (upper bound)", "", bits("bits_per_token")),
        ("bits per token, autoregressive model of the same size (exact)", "", bits("bits_per_token_ar")),
        (
            f"drawing {timing['batch']} digits on {timing['device']}, {timing['cached']['clock']}",
            "",
            f"{timing['cached']['median']:.2f} s; without the cache {timing['cache_speedup']:.2f} times as long",
        ),
    ]
    head = f"`minillada evaluate mnist` measures these, here with seed {m['seed']}; ± is the half-width of a 95 % interval.\n\n"
    head += "| what | to reach | measured |\n|---|---|---|\n"
    return head + "".join(f"| {what} | {bar or 'reported'} | {value} |\n" for what, bar, value in rows) + tasks_table()


# score of `suite` -> (what it says, the bar)
TASKS = {
    "digit": ("what digit is this?", "≥ 98.5 %"),
    "thickness": ("is it thick or thin?", "≥ 93 %"),
    "slant": ("which way does it lean?", "≥ 93 %"),
    "parity": ("is it even or odd?", "≥ 97.5 %"),
    "arithmetic": ("what is this digit plus …? (0 to 18, in words)", "≥ 95 %"),
    "compare": ("which of the two is larger?", "≥ 96 %"),
    "edit_operation": ("exact edit: right operation done and digit kept", "≥ 92 %"),
    "edit_digit": ("turned into another digit", "≥ 92 %"),
    "edit_digit_attributes": ("… with thickness and slant kept, both", "≥ 80 %"),
    "multi_reference": ("digit of the first image, thickness of the second", ""),
    "sum_direct": ("draw the sum of two numbers", ""),
    "sum_direct_unseen": ("… pairs never trained", ""),
    "sum_thinking": ("the same, thinking first", "≥ 95 %"),
    "sum_thinking_unseen": ("… pairs never trained", "15 points more than direct"),
    "interleave": ("counting in texts and images, all of them right", "≥ 90 %"),
    "draw": ("drawn digit is the asked one", "within 1 point of `mnist`"),
    "describe": ("caption names the right digit", "within 1 point of `mnist`"),
}


def tasks_table() -> str:
    """The scores of every task, from what `minillada evaluate mnist-uni --suite tasks --record` stored."""
    scores = json.loads((WEIGHTS_DIR / "mnist-uni.json").read_text(encoding="utf-8"))["tasks"]
    head = (
        "\n`minillada evaluate mnist-uni --suite tasks` measures these, on test images:\n\n| task | to reach | measured |\n|---|---|---|\n"
    )
    rows = [(what, bar or "reported", scores[name]) for name, (what, bar) in TASKS.items()]
    return head + "".join(
        f"| {what} | {bar} | {100 * s['accuracy']:.1f} % ± {100 * s['ci95']:.1f} (n = {s['n']:,}) |\n" for what, bar, s in rows
    )


def commands(program: str) -> list[list[str]]:
    """Arguments of every call of `program` in code blocks and inline code of the documents, comments removed."""
    lines = []
    for text in DOCUMENTS.values():
        lines += [line for language, block in FENCE.findall(text) if language != "python" for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    words = [shlex.split(line, comments=True, posix="\\" not in line) for line in lines if program in line and "…" not in line]
    words = [w[2:] if w[:2] in (["python", "-m"], ["python3", "-m"]) else w for w in words]
    return [w[1:] for w in words if len(w) > 1 and w[0].removeprefix(".venv/bin/") == program]


def test_the_python_snippet_runs():
    (snippet,) = [block for language, block in FENCE.findall(README) if language == "python"]
    names: dict = {}
    exec(snippet, names)
    assert names["images"].shape == (8, 1, 32, 32) and names["images"].min() >= 0 and names["images"].max() <= 1
    assert len(names["captions"]) == 8 and all(isinstance(c, str) and c for c in names["captions"])


def subcommands() -> dict[tuple[str, ...], object]:
    """Every command by the words that call it, for example ("bench", "moe")."""
    found = {}
    for name, command in typer.main.get_command(cli.app).commands.items():
        parts = getattr(command, "commands", None)  # a group of commands
        found |= {(name, part): c for part, c in parts.items()} if parts is not None else {(name,): command}
    return found


@pytest.mark.parametrize("words", commands("minillada"), ids=" ".join)
def test_every_minillada_command_parses(words):
    # Parsing checks the subcommand, the options and the types of their values, without running anything.
    name = next(name for name in subcommands() if tuple(words[: len(name)]) == name)
    assert not subcommands()[name].make_context(name[-1], words[len(name) :]).args


def test_every_subcommand_is_shown_and_has_the_common_options():
    for name, command in subcommands().items():
        assert any(tuple(words[: len(name)]) == name for words in commands("minillada")), f"the README does not show {' '.join(name)}"
        assert {"device", "seed"} <= {parameter.name for parameter in command.params}, name


def test_the_numbers_are_the_recorded_ones():
    assert NUMBERS.search(README).group(2) == numbers_table(), "run `python tests/test_readme.py`"


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {word for words in commands("make") for word in words if "=" not in word}
    assert {"demo", "test", "lab", "help"} <= named <= targets
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout if os.name != "nt" else ""
    assert all(f"make {target}" in listed for target in named) or os.name == "nt"


def test_pip_lines_agree_with_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {canonicalize_name(r.name): r for r in map(Requirement, project["dependencies"])}
    pins = set((ROOT / "constraints.txt").read_text().splitlines())
    lines = commands("pip")
    assert ["install", "-e", ".", "-c", "constraints.txt"] in lines
    for words in filter(None, lines):
        assert words[0] == "install"
        for word in words[1:]:
            if word not in ("-e", ".", ".[dev]", "-c", "constraints.txt"):
                requirement = Requirement(word)
                assert requirement.name in declared, f"{word} is not a dependency"
                assert not requirement.specifier or word in pins, f"{word} is not what constraints.txt pins"
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in README


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", DOCUMENTS[name]) if "://" not in link]
    missing = [link for link in links if not ((ROOT / name).parent / link).exists()]
    assert not missing


def test_every_notebook_and_module_is_listed():
    assert set(re.findall(r"\(notebooks/([^)]+\.ipynb)\)", README)) == {p.name for p in (ROOT / "notebooks").glob("*.ipynb")}
    missing = [p.name for p in (ROOT / "minillada").glob("*.py") if not p.name.startswith("__") and f"`{p.name}`" not in README]
    assert not missing


def test_data_readme_lists_the_checksums():
    for name, md5 in mnist.MNIST_MD5.items():
        assert re.search(rf"`{re.escape(name)}\.gz`.*`{md5}`", DOCUMENTS["data/README.md"])


def test_the_demo_end_to_end(tmp_path):
    out = tmp_path / "pictures" / "demo.png"
    command = [sys.executable, "-m", "minillada", "demo", "--out", str(out)]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^saved {re.escape(str(out))} after \d+ s\. Next: .*make lab", done.stdout, re.M)
    for digit in mnist.DIGITS:
        assert re.search(rf"^  a \w+ {digit} ", done.stdout, re.M), f"no drawing of a {digit}"
    assert len(re.findall(r"^  a ", done.stdout, re.M)) >= 20, "ten drawings and ten descriptions"
    with Image.open(out) as picture:
        assert picture.format == "PNG" and picture.width > 400
    assert list(out.parent.iterdir()) == [out], "a temporary file is left behind"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(NUMBERS.sub(lambda m: m[1] + numbers_table() + m[3], README), encoding="utf-8")

"""What the documents tell a reader to type works: snippet, commands, targets, links, the demo.

And the numbers are measured: `python docs/measured.py` writes their tables, and the README repeats
a few of them.
"""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import typer.main
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image, ImageChops, ImageStat

from minillada import checkpoint, cli
from minillada.datasets import mnist
from minillada.datasets.pool import measured_pool
from minillada.datasets.table import DATASETS
from minillada.evaluation import report
from minillada.experiments.results import load_result, read_result, result_path
from minillada.measure.intervals import interval_of
from minillada.official.needs import memory_table
from minillada.presets import PRESETS
from minillada.tasks.table import TASKS_OF
from minillada.vocab import Vocabulary, train_bpe

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("docs/installing.md", "docs/commands.md", "docs/numbers.md", "docs/full-weights.md")
GUIDES = ("docs/TEACHING.md", "docs/glossary.md")
OTHERS = ("CONTRIBUTING.md", "data/README.md", "docs/log.md")
NAMES = ("README.md", *PAGES, *GUIDES, *OTHERS)
DOCUMENTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in NAMES}
README = DOCUMENTS["README.md"]
NUMBERS = DOCUMENTS["docs/numbers.md"]
FULL_WEIGHTS = DOCUMENTS["docs/full-weights.md"]
CARD = read_result(result_path("gpu"))["machine"]["card"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def commands(program: str) -> list[list[str]]:
    """Arguments of every call of `program` in code blocks and inline code of the documents.

    Comments are removed; calls with "…" are no commands to type.
    """
    lines = []
    for text in DOCUMENTS.values():
        for language, block in FENCE.findall(text):
            lines += block.splitlines() if language != "python" else []
        lines += re.findall(r"`([^`\n]+)`", FENCE.sub("", text))
    lines = [line for line in lines if program in line and "…" not in line]
    words = [shlex.split(line, comments=True, posix="\\" not in line) for line in lines]
    words = [w[2:] if w[:2] in (["python", "-m"], ["python3", "-m"]) else w for w in words]
    return [w[1:] for w in words if len(w) > 1 and w[0].removeprefix(".venv/bin/") == program]


def run_snippet(page: str, place: int = 0) -> dict:
    """What the names of a Python snippet of a page hold after it ran, as an import does."""
    snippets = [text for language, text in FENCE.findall(DOCUMENTS[page]) if language == "python"]
    names: dict = {"__name__": "snippet"}
    exec(snippets[place], names)
    return names


def test_the_python_snippet_of_the_readme_runs():
    names = run_snippet("README.md")
    assert names["images"].shape == (8, 1, 32, 32)
    assert names["images"].min() >= 0 and names["images"].max() <= 1
    assert len(names["captions"]) == 8 and all(isinstance(c, str) and c for c in names["captions"])
    assert names["edited"].shape == (2, 1, 32, 32)


def test_the_python_snippet_of_the_commands_runs():
    names = run_snippet("docs/commands.md")
    images, filled = names["images"], names["filled"]
    assert images.shape == filled.shape == (2, 1, 32, 32)
    assert len(names["captions"]) == 2 and all("___" not in text for text in names["captions"])
    assert len(names["texts"]) == len(names["sums"]) == 1 and names["texts"][0]
    kinds = [isinstance(part, str) for part in names["story"]]
    assert kinds == [True, False] * 4, "a text, then an image: three, four, five, six"


def test_the_data_set_of_the_commands_is_one():
    with patch.dict(DATASETS), patch.dict(TASKS_OF), patch.dict(PRESETS):
        run_snippet("docs/commands.md", -2)
        data = DATASETS["shapes"]
        pool = measured_pool(data, data.load("test"))
        assert pool.label == "label" and len(pool.members) == 6, "three kinds in two sizes"
        assert len(set(data.grammar.all_captions())) == 6
        assert {PRESETS[f"shapes-{kind}"].dataset for kind in ("text", "cpu")} == {"shapes"}
    assert "shapes" not in DATASETS


def test_the_text_of_the_commands_is_learned():
    """Two models of a text that repeats itself, as the script of the page makes them."""
    words = run_snippet("docs/commands.md", -1)
    words["LENGTH"], words["ROWS"] = 32, 4
    text = "one two three four five six " * 40
    vocab = Vocabulary(train_bpe([text], vocab_size=300), codebook_size=0)
    ids = torch.tensor(vocab.encode(text))
    for block in (1, 4):
        untrained, backbone = (words["train"](vocab, ids, block, steps) for steps in (1, 60))
        before, after = (words["bits_a_byte"](model, vocab, ids) for model in (untrained, backbone))
        assert after < 0.5 < before
        assert words["written"](backbone, vocab, "one two", 6).startswith("one two three four")


def subcommands() -> dict[tuple[str, ...], object]:
    """Every command by the words that call it, for example ("bench", "moe")."""
    found = {}
    for name, command in typer.main.get_command(cli.app).commands.items():
        parts = getattr(command, "commands", None)  # a group of commands
        if parts is None:
            found[(name,)] = command
        else:
            found |= {(name, part): inner for part, inner in parts.items()}
    return found


@pytest.mark.parametrize("words", commands("minillada"), ids=" ".join)
def test_every_minillada_command_parses(words):
    # Parsing checks the subcommand, the options and the types of their values; nothing is run.
    name = next(name for name in subcommands() if tuple(words[: len(name)]) == name)
    assert not subcommands()[name].make_context(name[-1], words[len(name) :]).args


def test_the_commands_of_the_readme_are_on_the_page_of_all_commands():
    def shown(page: str) -> list[list[str]]:
        lines = "".join(block for _, block in FENCE.findall(DOCUMENTS[page])).splitlines()
        return [shlex.split(line, comments=True) for line in lines if line.startswith("minillada ")]

    few, every = shown("README.md"), shown("docs/commands.md")
    assert len(few) >= 10 and not [words for words in few if words not in every]


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 250, "it is read in five minutes; depth belongs into docs/"


def test_every_subcommand_is_shown_and_has_the_common_options():
    for name, command in subcommands().items():
        shown = any(tuple(words[: len(name)]) == name for words in commands("minillada"))
        assert shown, f"no page shows {' '.join(name)}"
        # Some official commands only read headers; those for a course run no model.
        if not {"official", "grade", "editions"} & set(name):
            assert {"device", "seed"} <= {parameter.name for parameter in command.params}, name


# The rows that the README repeats, in their order
FEW = {
    "mnist": (
        *("draw_digit_accuracy", "caption_exact_accuracy"),
        *("bits_per_token", "bits_per_token_ar"),
    ),
    "mnist-uni": ("sum_direct_unseen", "sum_thinking_unseen"),
    "cifar": (
        *("draw_class_accuracy", "reconstruction_accuracy"),
        *("edit_operation_accuracy", "edit_operation_accuracy_painted"),
    ),
}


def row_of_few(model: str, name: str) -> tuple[str, str]:
    """What a row is about, and its end: the bar, what was measured, and whether it is missed."""
    record = checkpoint.read_info(checkpoint.resolve(model))
    if model == "mnist-uni":
        bar, value = report.TASK_BARS[name], record["tasks"][name]["accuracy"]
        row = report.tasks_table(record["tasks"]).splitlines()[2 + [*report.TASK_BARS].index(name)]
    else:
        bar = (report.MODEL_BARS if model == "mnist" else report.PHOTO_BARS)[name]
        value = record["metrics"][name]
        row = report.model_table(record["metrics"], {name: bar}).splitlines()[2]
    what, *cells = row.strip("| ").split(" | ")
    missed = "" if bar.reached(value) else ": **missed**"
    return what.removeprefix("… "), f"| {' | '.join(cells)}{missed} |"


def test_the_readme_repeats_rows_as_they_are_recorded():
    rows = README[README.index("## Numbers") :].split("\n\n")[2].splitlines()[2:]
    expected = [(model, *row_of_few(model, name)) for model in FEW for name in FEW[model]]
    assert len(rows) == len(expected)
    for row, (model, what, end) in zip(rows, expected):
        assert row.endswith(end), f"{row}\nends with {end}"
        begin, command, _ = row.split("`")
        assert what in begin and command.split()[:3] == ["minillada", "evaluate", model], row


def test_the_readme_tells_every_bar_that_is_missed():
    for model, bars in (("mnist", report.MODEL_BARS), ("cifar", report.PHOTO_BARS)):
        metrics = checkpoint.read_info(checkpoint.resolve(model))["metrics"]
        assert {name for name in bars if not bars[name].reached(metrics[name])} <= {*FEW[model]}


def decoding_on_the_gpu(measured: dict, rows: str) -> list[str]:
    """Steps as they are and recorded, then the pipeline of diffusers and ours."""
    found = measured["bench"][rows]
    steps = [found[f"milliseconds_a_step_{way}"] for way in ("eager", "graph")]
    seconds = [found[f"seconds_{who}"] for who in ("theirs", "ours")]
    return [
        f"{found['ratio_eager']:.1f} ({steps[0]:.2f} and {steps[1]:.2f} ms)",
        f"{found['ratio']:.1f} ({seconds[0]:.2f} and {seconds[1]:.2f} s)",
    ]


def test_the_figures_of_the_gpu_are_the_stored_ones():
    section = NUMBERS[NUMBERS.index("## On a GPU") :]
    measured = load_result("gpu")
    shown = [CARD]
    for rows in ("sampler, 1 row", "sampler, 8 rows"):
        shown += decoding_on_the_gpu(measured, rows)
    for name in ("train", "moe"):
        found = measured["bench"][name]
        times = [1000 * found[f"seconds_{who}"] for who in ("theirs", "ours")]
        shown.append(f"{found['ratio']:.2f} ({times[0]:.1f} and {times[1]:.1f} ms)")
    curve = measured["training"]["mnist-gpu"]["after"]
    for step in ("450", "900"):
        shown.append(interval_of(curve[step], "draw_digit_accuracy").percent(1))
    for name in ("mnist-gpu", "cifar"):
        step = measured["steps"][name]
        products = step["aten::mm, also those of Muon"]
        shown.append(f"{step['milliseconds']} ms; at most {products:.1f} ms")
    assert not [text for text in shown if text not in section]


def test_the_readme_repeats_figures_of_the_gpu():
    measured = load_result("gpu")
    section = README[README.index(CARD) :].split("\n\n")[1]
    rows = section.splitlines()[2:]
    assert rows and not [row for row in rows if row not in NUMBERS.splitlines()]
    curve = measured["training"]["mnist-gpu"]["after"]
    shown = decoding_on_the_gpu(measured, "sampler, 1 row")
    shown.append(interval_of(curve["450"], "draw_digit_accuracy").percent(1))
    assert len(rows) == len(shown) and all(text in row for text, row in zip(shown, rows))


def test_the_table_of_memory_is_the_computed_one():
    assert memory_table() in FULL_WEIGHTS, "run `minillada official memory`"
    assert memory_table("flash") in FULL_WEIGHTS, "run `minillada official memory --size flash`"


def test_every_make_target_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {word for words in commands("make") for word in words if "=" not in word}
    assert {"demo", "test", "lab", "help"} <= named <= targets
    if os.name != "nt":
        done = subprocess.run(
            ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert all(f"make {target}" in done.stdout for target in named)


def test_pip_lines_agree_with_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {canonicalize_name(r.name): r for r in map(Requirement, project["dependencies"])}
    pins = set((ROOT / "constraints.txt").read_text().splitlines())
    lines = commands("pip")
    extras = [f".[{extra}]" for extra in project["optional-dependencies"]]
    known = ("-e", ".", "-c", "constraints.txt", *extras)
    assert ["install", "-e", ".", "-c", "constraints.txt"] in lines
    for words in filter(None, lines):
        assert words[0] == "install"
        for word in words[1:]:
            if word not in known:
                requirement = Requirement(word)
                assert requirement.name in declared, f"{word} is not a dependency"
                pinned = not requirement.specifier or word in pins
                assert pinned, f"{word} is not what constraints.txt pins"
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in README


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name):
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", DOCUMENTS[name]) if "://" not in link]
    missing = [link for link in links if not ((ROOT / name).parent / link).exists()]
    assert not missing


def test_every_notebook_and_module_is_listed():
    linked = set(re.findall(r"\(notebooks/([^)]+\.ipynb)\)", README))
    assert linked == {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    modules = [path.name for path in (ROOT / "minillada").glob("*.py")]
    assert not [n for n in modules if not n.startswith("__") and f"`{n}`" not in README]


def test_data_readme_lists_the_checksums():
    for name, md5 in mnist.MNIST_MD5.items():
        assert re.search(rf"`{re.escape(name)}\.gz`.*`{md5}`", DOCUMENTS["data/README.md"])


def test_the_demo_end_to_end(tmp_path):
    out = tmp_path / "pictures" / "demo.png"
    command = [sys.executable, "-m", "minillada", "demo", "--out", str(out)]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr
    saved = rf"^saved {re.escape(str(out))} after \d+ s\. Next: .*make lab"
    assert re.search(saved, done.stdout, re.M)
    for digit in mnist.DIGITS:
        assert re.search(rf"^  a \w+ {digit} ", done.stdout, re.M), f"no drawing of a {digit}"
    assert len(re.findall(r"^  a ", done.stdout, re.M)) >= 20, "ten drawings and ten descriptions"
    with Image.open(out) as picture:
        # The README shows what this command draws. Elsewhere a few pixels may differ.
        with Image.open(ROOT / "data" / "demo.png") as shown:
            assert picture.format == "PNG" and picture.size == shown.size
            difference = ImageChops.difference(picture.convert("L"), shown.convert("L"))
        assert ImageStat.Stat(difference).mean[0] < 5
    assert list(out.parent.iterdir()) == [out], "a temporary file is left behind"

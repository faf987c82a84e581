"""The order of the house: the README's table lists every file, and a file imports only from above.

The bars below keep the pages short enough to be read. They are facts about the text of the code.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "minillada"
COMMAND_LINE = ("cli.py", "commands/")


def table_rows() -> list[tuple[str, str]]:
    """First and second column of the table under "## The package"."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## The package")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \| (.*) \|$", section, re.M)


def listed_files() -> list[str]:
    """Every file of the table, in its order; a room's row names its files in their order."""
    files = []
    for place, text in table_rows():
        if place.endswith(".py"):
            files.append(place)
        else:
            files += [place + name for name in re.findall(r"`(\w+\.py)`", text)]
    return files


FACES = ("cli.py", "__init__.py", "__main__.py")  # how the package is entered
SPINE = [place for place, _ in table_rows() if place.endswith(".py") and place not in FACES]
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
# An empty file that only makes a folder a package says nothing and needs no place.
FILES = [name for name in FILES if (PACKAGE / name).read_text(encoding="utf-8").strip()]
every_file = pytest.mark.parametrize("name", FILES)


def imported_files(name: str) -> set[str]:
    """The files of the package that a file imports, wherever in it the import stands."""
    found = set()
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            # One dot is the folder of the file, two dots the folder above it.
            folder = (PACKAGE / name).parents[node.level - 1]
            base = folder / (node.module or "").replace(".", "/")
            found |= {target for alias in node.names if (target := file_of(base, alias.name))}
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names]
            absolute = [module for module in modules if (module or "").startswith("minillada")]
            assert not absolute, f"{name}: imports inside the package are relative: {absolute}"
    return found


def file_of(base: Path, name: str) -> str:
    """The file that `from base import name` reads: a module called `name`, or `base` itself."""
    for path in (base / f"{name}.py", base.with_suffix(".py"), base / "__init__.py"):
        if path.exists():
            return path.relative_to(PACKAGE).as_posix()
    raise AssertionError(f"nothing called {name} in {base}")


def test_the_table_lists_every_file_once():
    listed = listed_files()
    assert sorted(listed) == FILES
    assert len(listed) == len(set(listed))


@every_file
def test_a_file_imports_only_from_files_above_it(name):
    order = listed_files()
    below = [other for other in imported_files(name) if order.index(other) >= order.index(name)]
    assert not below, f"{name} imports {below}, which the README lists below it"


def test_the_spine_needs_no_room():
    rooms = {other for name in SPINE for other in imported_files(name) if "/" in other}
    assert not rooms


def test_using_a_model_loads_no_training_code():
    """And not torch's compiler, which takes a second."""
    code = (
        "import sys, minillada; minillada.load('mnist'); "
        "dear = 'minillada.training', 'torch._dynamo', 'sympy'; "
        "print([name for name in sys.modules if name.startswith(dear)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- bars ----------------------------------------------------------------------------------------


def lines(names: list[str]) -> int:
    return sum(len((PACKAGE / n).read_text(encoding="utf-8").splitlines()) for n in names)


def functions(name: str) -> list[ast.FunctionDef]:
    tree = ast.parse((PACKAGE / name).read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def is_command_line(name: str) -> bool:
    return name.startswith(COMMAND_LINE)


def test_the_spine_is_short():
    """The aim is 18 files and 2,600 lines (docs/log.md): these numbers may fall, not rise."""
    assert len(SPINE) <= 25
    assert lines(SPINE) <= 4755
    assert not [name for name in SPINE if lines([name]) > 254]


def test_the_readme_counts_the_model_and_its_shortest_reading():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    model = SPINE[SPINE.index("vq.py") : SPINE.index("checkpoint.py")]
    assert f"**The model** comes next, {len(model)} files" in readme
    short = re.search(r"ten of them show .* in ([\d,]+)\nlines: (.*)\.$", readme, re.M)
    names = [f"{name}.py" for name in re.findall(r"`(\w+)`", short[2])]
    assert len(names) == 10 and names == [name for name in model if name in names]
    assert abs(lines(names) - int(short[1].replace(",", ""))) < 25


def test_the_package_is_short():
    """The aim is 6,000 lines without what is around it: may fall, not rise."""
    around = ("exercises/", "course/", "experiments/", "ablation/", "official/")
    official = ("commands/official.py", "presets/official.py")
    assert lines([name for name in FILES if not name.startswith(around + official)]) <= 16_389


def test_no_function_is_long():
    long = [
        f"{name}:{function.lineno} {function.name}"
        for name in FILES
        if not is_command_line(name)
        for function in functions(name)
        if (function.end_lineno or 0) - function.lineno + 1 > 50
    ]
    assert not long


def test_few_functions_have_many_parameters():
    many = []
    for name in FILES:
        for function in functions(name) if not is_command_line(name) else []:
            arguments = function.args
            named = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
            if len([a for a in named if a.arg not in ("self", "cls")]) > 8:
                many.append(f"{name} {function.name}")
    assert len(many) <= 2, many


def test_the_spine_is_commented():
    comments = code = 0
    for name in SPINE:
        text = (PACKAGE / name).read_text(encoding="utf-8")
        commented, coded = set(), set()
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                commented.add(token.start[0])
            elif token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT):
                docstring = token.type == tokenize.STRING and token.line.lstrip().startswith('"""')
                if token.string.strip() and not docstring:
                    coded.add(token.start[0])
        comments, code = comments + len(commented), code + len(coded)
    assert comments >= 0.15 * code, f"{comments} comment lines, {code} code lines"

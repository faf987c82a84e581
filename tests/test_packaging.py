"""The files around the package agree with one another, and nothing shipped is too large."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from helpers import script
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import minillada
from minillada import checkpoint
from minillada.datasets.table import data_set_of
from minillada.files import checksum

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DEV = EXTRAS["dev"] + EXTRAS["ablate"] + EXTRAS["docs"] + EXTRAS["play"]
DECLARED = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"] + DEV)}
PINS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]
IMPORT_NAMES = {
    "pillow": "PIL",
    "ipython": "IPython",
    "pyyaml": "yaml",
}  # where a package's import name is not its own
MB = 1_000_000


def megabytes(folder):
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / MB


def test_conda_environment_installs_exactly_the_project():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"]
    plain = [d for d in environment["dependencies"] if isinstance(d, str)]
    (through_pip,) = [d["pip"] for d in environment["dependencies"] if isinstance(d, dict)]
    versions = {r.name: r.specifier for r in map(Requirement, plain)}
    assert versions.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert "pip" in versions and "-e ." in through_pip
    # Any package named here as well would have to be a declared one with the declared range.
    named = [Requirement(d) for d in through_pip if not d.startswith("-")]
    for requirement in [
        *named,
        *(Requirement(d) for d in plain if Requirement(d).name not in ("python", "pip")),
    ]:
        assert DECLARED[canonicalize_name(requirement.name)].specifier == requirement.specifier


def test_constraints_are_plain_pins_inside_the_declared_ranges():
    pinned = {}
    for pin in PINS:
        assert pin.url is None and re.fullmatch(r"==[^*,+]+", str(pin.specifier)), (
            f"{pin}: one exact public version"
        )
        pinned.setdefault(canonicalize_name(pin.name), []).append(next(iter(pin.specifier)).version)
    for name, requirement in DECLARED.items():
        assert name in pinned, f"{name} is not pinned"
        assert all(requirement.specifier.contains(version) for version in pinned[name]), name
    # Which CUDA libraries belong to a PyTorch wheel is PyTorch's to say: a pin would break others.
    assert not [name for name in pinned if name.startswith(("nvidia-", "cuda-", "triton"))]


SET_UP = ["constraints.txt", "environment.yml", "pyproject.toml", "Makefile", "Containerfile"]
SET_UP += [".devcontainer/devcontainer.json", "binder/environment.yml", "binder/host.py"]
SET_UP += [path.relative_to(ROOT).as_posix() for path in (ROOT / ".github").rglob("*.yml")]


@pytest.mark.parametrize("name", SET_UP)
def test_set_up_files_name_no_addresses(name):
    assert not re.search(
        r"://|--(extra-)?index-url|--find-links|--hash", (ROOT / name).read_text(encoding="utf-8")
    )


def test_every_import_is_declared():
    allowed = (
        {IMPORT_NAMES.get(name, name) for name in DECLARED}
        | set(sys.stdlib_module_names)
        | {"minillada"}
    )
    peers = {Requirement(line).name for line in PROJECT["optional-dependencies"]["bench"]}
    for path in (ROOT / "minillada").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert {name.split(".")[0] for name in names} <= allowed | (
                peers if path.name == "bench.py" else set()
            ), f"{path.name}: {names}"


def test_scripts_of_a_clone_on_windows_run_in_a_container(tmp_path):
    """Git for Windows ends all lines as Windows does, unless a repository says otherwise."""

    def git(*words):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    git("init")
    git("config", "core.autocrlf", "true")
    for name in (".gitattributes", "binder/start"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    git("add", "-A")
    (tmp_path / "binder" / "start").unlink()
    git("checkout", "--", "binder/start")
    assert (tmp_path / "binder" / "start").read_bytes().startswith(b"#!/usr/bin/env bash\n")


def test_version_and_licence():
    assert minillada.__version__ == PROJECT["version"]
    assert PROJECT["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert (
        "Apache License" in text
        and "Version 2.0, January 2004" in text
        and "END OF TERMS AND CONDITIONS" in text
    )


def test_python_range_admits_this_python():
    assert SpecifierSet(PROJECT["requires-python"]).contains(
        ".".join(map(str, sys.version_info[:3]))
    )


WEIGHTS = sorted((ROOT / "data" / "weights").glob("*.safetensors"))


@pytest.mark.parametrize("path", WEIGHTS, ids=[p.stem for p in WEIGHTS])
def test_shipped_weights_say_how_they_were_made(path):
    info = checkpoint.read_info(path)
    assert info["sha256"] == checksum(path)
    assert info["preset"] == path.stem and info["command"].startswith(
        f"minillada train {path.stem}"
    )
    assert isinstance(info["training"]["seed"], int)
    assert info["data_md5"] == data_set_of(info).checksums
    text = json.dumps(info)
    assert not re.search(r'"(/|[A-Z]:\\|~)', text), "a path of the machine it was trained on"
    if info["kind"] == "backbone":
        tokenizer = path.with_name(f"{info['tokenizer']}.safetensors")
        assert info["tokenizer_sha256"] == checksum(tokenizer), (
            "trained on another tokenizer than the shipped one"
        )


def test_sizes():
    assert megabytes(ROOT / "data" / "mnist") <= 12
    # 20 for drawing and describing, 10 for every task, the rest for colour
    assert megabytes(ROOT / "data" / "weights") <= 53
    # Without git (an unpacked archive) there is no list of what is shipped, only of what lies here.
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    shipped = [ROOT / f for f in listed.stdout.split("\0") if f] or [*(ROOT / "data").rglob("*")]
    assert not [p for p in shipped if p.is_file() and p.stat().st_size > 12 * MB]


@pytest.mark.parametrize(
    "given, expected",
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
    ],
)
def test_waiting_threads_sleep_soon_unless_the_user_says_otherwise(given, expected):
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    environment = {key: value for key, value in os.environ.items() if key not in names} | given
    # Another module in the place of torch notes what torch would read: loading torch takes seconds.
    program = """
import os, sys
class Stop:
    def find_spec(self, name, *rest):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
            sys.exit()
sys.meta_path.insert(0, Stop())
import minillada
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == expected


def test_make_hands_it_to_the_kernels():
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    clean = {key: value for key, value in os.environ.items() if key not in names}
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    rules = "include Makefile\nspin: ; @echo [$(GOMP_SPINCOUNT)] $$GOMP_SPINCOUNT\n"
    for given, expected in (({}, "[1000] 1000"), ({"GOMP_SPINCOUNT": "7"}, "[7] 7")):
        command = ["make", "-s", "-f", "-", "spin"]
        done = subprocess.run(
            command, input=rules, env=clean | given, capture_output=True, text=True, cwd=ROOT
        )
        assert done.stdout.strip() == expected


def test_the_second_environment_has_the_oldest_pytorch():
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    command = ["make", "-s", "-f", "-", "show"]
    rules = "include Makefile\nshow: ; @$(OLDEST_PINS)\n"
    done = subprocess.run(command, input=rules, capture_output=True, text=True, cwd=ROOT)
    pins = [Requirement(line) for line in done.stdout.splitlines()]
    assert [pin.name for pin in pins] == ["torch", "torchvision"]
    for pin in pins:
        declared = str(DECLARED[pin.name].specifier)
        assert declared.startswith(">=") and str(pin.specifier) == declared.replace(">=", "==")


def run_make(folder, *words):
    command = ["make", "UV=", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_another_python_replaces_an_environment_that_is_too_old(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    # Two interpreters that can do nothing but make an environment; in one of them, asking for the
    # version or pip says that it is too old.
    for name, answer in (("old", 1), ("new", 0)):
        made = f"mkdir -p .venv/bin; printf '#!/bin/sh\\nexit {answer}\\n' > .venv/bin/python"
        interpreter = tmp_path / name
        interpreter.write_text(f"#!/bin/sh\n{made}; chmod +x .venv/bin/python\n")
        interpreter.chmod(0o755)
    done = run_make(tmp_path, ".venv/installed", "PYTHON=./old")
    assert done.returncode == 2 and "needs Python 3.11 or newer: name one" in done.stdout
    done = run_make(tmp_path, ".venv/installed", "PYTHON=./new")
    assert done.returncode == 0 and (tmp_path / ".venv" / "installed").is_file(), done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_path_of_an_interpreter_is_kept_as_it_is():
    python = "/opt/.venvs/py312/bin/python"
    done = run_make(ROOT, "-n", "-B", ".venv-oldest/installed", f"PYTHON={python}")
    assert f"{python} -m venv --clear .venv-oldest\n" in done.stdout
    assert ".venv-oldest/bin/python -m pip install" in done.stdout


# --- elsewhere -----------------------------------------------------------------------------------


def test_binder_brings_the_pytorch_that_the_project_needs():
    environment = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text())
    plain = [d.replace("python=", "python==") for d in environment["dependencies"]]
    named = {r.name: r.specifier for r in map(Requirement, plain)}
    assert named["pytorch-cpu"] == DECLARED["torch"].specifier
    assert named["torchvision"] == DECLARED["torchvision"].specifier
    assert SpecifierSet(PROJECT["requires-python"]).contains(next(iter(named["python"])).version)
    assert "pip install -e ." in (ROOT / "binder" / "postBuild").read_text()


def test_the_development_container_is_that_of_the_container_file():
    place = ROOT / ".devcontainer"
    about = json.loads((place / "devcontainer.json").read_text())
    assert (place / about["build"]["dockerfile"]).resolve() == ROOT / "Containerfile"
    # The workspace takes the place of the copy that the image has installed.
    copied_to = re.findall(r"^WORKDIR (/opt\S+)", (ROOT / "Containerfile").read_text(), re.M)
    assert copied_to == [about["workspaceFolder"]]


def test_workflows_run_three_systems_and_the_oldest_python():
    workflows = ROOT / ".github" / "workflows"
    tests = yaml.safe_load((workflows / "tests.yml").read_text())["jobs"]["tests"]
    matrix = tests["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "windows", "macos"}
    assert PROJECT["requires-python"] == f">={matrix['python'][0]}"
    for path in workflows.glob("*.yml"):
        (job,) = yaml.safe_load(path.read_text())["jobs"].values()
        (install,) = [step["run"] for step in job["steps"] if "pip install" in step.get("run", "")]
        extras = re.search(r"\[([\w,]+)\]", install)[1].split(",")
        assert set(extras) <= set(EXTRAS) and install.endswith("-c constraints.txt")


@pytest.fixture(scope="module")
def host():
    """`binder/host.py` as a module."""
    return script("binder/host.py")


def test_a_host_keeps_what_is_new_enough(host):
    versions = {"torch": "2.12.0+cu126", "torchvision": "0.27.0", "numpy": "1.26.4"}
    wanted = ["torch>=2.11", "torchvision>=0.26", "numpy>=2.0", "einops>=0.8", "jupyterlab>=4.3"]
    assert host.needed(wanted, versions.get) == ["numpy>=2.0", "einops>=0.8"]
    with pytest.raises(ValueError, match=r"this host has torch 2\.10\.0, and minillada needs"):
        host.needed(wanted, (versions | {"torch": "2.10.0"}).get)
    with pytest.raises(ValueError, match=r"this host has torch \(none\)"):
        host.needed(wanted, {}.get)
    # All that a host is said to bring for itself is something that the project asks for.
    assert set(host.HOSTS) | set(host.KEPT) <= set(DECLARED)

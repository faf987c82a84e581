"""Install minillada beside what a hosted notebook has: `%run binder/host.py` on Colab or Kaggle.

Notable choices
- A package of the host is kept where it is new enough, PyTorch above all: it fits the host's GPU,
  and another one takes minutes and may not find it.
- Jupyter and IPython of the host are never touched, they are running. Packages that only tests need
  are left out.
- A PyTorch that is too old is reported and not replaced.
"""

import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
KEPT = ("torch", "torchvision")  # of the host, or none
HOSTS = ("ipython", "jupyterlab", "pytest", "pytest-xdist", "nbval", "hypothesis", "pyyaml")


def installed(name: str) -> str | None:
    """The version of a package on this host."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def needed(requirements: list[str], found=installed) -> list[str]:
    """What has to be installed; `ValueError` when the PyTorch of the host is too old."""
    missing = []
    for text in requirements:
        requirement = Requirement(text)
        have = found(requirement.name)
        # A local part such as +cu128 does not count.
        enough = have is not None and requirement.specifier.contains(have, prereleases=True)
        if enough or requirement.name in HOSTS:
            continue
        if requirement.name in KEPT:
            raise ValueError(
                f"this host has {requirement.name} {have or '(none)'}, and minillada needs "
                f"{requirement}: choose a newer runtime, or install it first"
            )
        missing.append(text)
    return missing


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    before = installed("torch")
    missing = needed(project["dependencies"])
    subprocess.run([*pip, "--no-deps", "--editable", str(ROOT)], check=True)
    if missing:
        subprocess.run([*pip, "--no-warn-conflicts", *missing], check=True)  # tests stay out
    sys.path.insert(0, str(ROOT))  # the running kernel finds it without a restart
    sys.modules.pop("minillada", None)  # a failed import may have taken the clone for the package
    print(f"minillada is ready; PyTorch {before} of this host is kept")


if __name__ == "__main__":
    main()

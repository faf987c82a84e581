"""What the tests of site and slides share: an open page, and the script of the slides."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def slides():
    """`docs/slides/make.py` as a module."""
    spec = importlib.util.spec_from_file_location("slides_make", ROOT / "docs/slides/make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def open_page(browser):
    """Open a file; in the end nothing may have failed, or come from the network."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(120_000)  # milliseconds: the tests may run on a busy machine
    problems: list[str] = []
    page.on("requestfailed", lambda request: problems.append(f"not found: {request.url}"))
    page.on("pageerror", lambda error: problems.append(str(error)))

    def note_network(request):
        if request.url.startswith(("http:", "https:")):
            problems.append(f"needs the network: {request.url}")

    page.on("request", note_network)

    def go_to(path: Path):
        page.goto(path.resolve().as_uri())
        return page

    yield go_to
    page.close()
    assert not problems

"""What the tests of the site and of the slides share: a browser, and the script of the slides."""

import importlib.util
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="session")
def slides():
    """`docs/slides/make.py` as a module."""
    spec = importlib.util.spec_from_file_location("slides_make", ROOT / "docs/slides/make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def browser():
    """Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if BROWSER is None:
        pytest.skip("there is no Chromium to look at the pages with")
    options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=options)
        yield chromium
        chromium.close()


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

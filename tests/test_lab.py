"""JupyterLab in a real browser: notebooks run from top to bottom, sliders redraw their figures."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from helpers import needed_cells

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
TOKEN = "lab-test"
# Without news and updates nothing covers the page; with all cells in it none is drawn late.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab, and the folder that it shows."""
    place = tmp_path_factory.mktemp("lab")
    shown, home = place / "shown", place / "home"
    shown.mkdir()
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    command += [f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={shown}"]
    command += ["--LabApp.expose_app_in_browser=True"]
    private = {
        "HOME": str(home),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PYTHONPATH": str(NOTEBOOKS.parent),
    }
    with open(place / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | private)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status?token={TOKEN}", server, place / "log")
        yield f"http://127.0.0.1:{port}", shown
    finally:
        server.terminate()
        server.wait(30)


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Until the server answers, two minutes at most."""
    for _ in range(240):
        if server.poll() is not None:
            raise AssertionError(log.read_text())
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("JupyterLab does not answer")


@pytest.fixture
def run_all(lab, browser):
    """Open a notebook, run all of its cells, and return the page."""
    address, shown = lab
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(90_000)  # milliseconds: the machine may be busy

    def open_and_run(path: Path):
        shutil.copy(path, shown / path.name)
        page.goto(f"{address}/lab/tree/{path.name}?token={TOKEN}&reset")
        idle = "document.querySelector('#jp-main-statusbar')?.textContent.includes('| Idle')"
        page.wait_for_function(idle)
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait_for_function(idle)
        return page

    yield open_and_run
    page.close()


@pytest.mark.parametrize("name", ["00_quickstart", "05_backbone"])
def test_run_all(run_all, name):
    page = run_all(NOTEBOOKS / f"{name}.ipynb")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    prompts = page.locator(".jp-CodeCell .jp-InputArea-prompt").all_text_contents()
    assert [text.strip() for text in prompts] == [f"[{n + 1}]:" for n in range(len(cells))]
    # Errors have a type of their own in the page.
    assert page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0


def widget_cells(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The cells that show sliders, and those that they need: a notebook that runs in seconds."""
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    sources = [cell.source for cell in codes]
    wanted = [place for place, source in enumerate(sources) if source.startswith("widgets.")]
    short = nbformat.v4.new_notebook(metadata=notebook.metadata)
    short.cells = [codes[place] for place in needed_cells(sources, wanted)]
    return short


@pytest.mark.parametrize(("name", "count"), [("08_sampling", 3), ("09_every_task", 1)])
def test_sliders_redraw_their_figures(run_all, tmp_path, name, count):
    short = widget_cells(nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4))
    nbformat.write(short, tmp_path / f"{name}.ipynb")
    page = run_all(tmp_path / f"{name}.ipynb")
    cells = page.locator(".jp-CodeCell:has(.noUi-handle)")
    assert cells.count() == count
    for number in range(count):
        cell = cells.nth(number)
        figure = cell.locator("img").first
        figure.wait_for()
        before = figure.get_attribute("src")
        cell.locator(".noUi-handle").first.focus()
        page.keyboard.press("End")  # the largest value of the first slider
        page.wait_for_function(
            "([cell, old]) => { const image = cell.querySelector('img');"
            " return image && image.src != old; }",
            arg=[cell.element_handle(), before],
        )
        # What went wrong in a widget is shown below it.
        assert cell.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0

"""What the playground does with a drawing, without a browser and in a real one."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from helpers import mnist_test_images, tiny_uni

from minillada.playground import board, page
from minillada.tasks.filling import HOLES

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "minillada" / "playground" / "playground.ipynb"

# The tiny model knows the words of captions alone.
pytestmark = pytest.mark.filterwarnings("ignore:this model knows no word")


@pytest.fixture
def playground():
    pytest.importorskip("ipycanvas", reason='needs ipycanvas: pip install -e ".[play]"')
    return page.Playground(tiny_uni())


def draw_a_bar(board) -> None:
    board.begin(150, 60)
    for y in range(60, 230, 10):
        board.move(150, y)
    board.end(150, 230)


def test_a_stroke_is_read_described_and_coded(playground):
    assert page.EMPTY.split(":")[0] in playground.caption.value
    draw_a_bar(playground.board)
    picture = playground.picture
    assert picture.shape == (1, 32, 32) and picture.max() == 1
    rows, columns = (picture[0] > 0.5).any(1).sum(), (picture[0] > 0.5).any(0).sum()
    assert rows == 20 and 1 <= columns <= 4, "20 px high, as in MNIST"
    codes = playground.uni.encode(picture[None])
    assert torch.equal(playground.cover.codes, codes[0])
    assert (
        page.said(f"It is {playground.uni.describe_codes(codes)[0]}.") == playground.caption.value
    )


def test_the_keys_draw_what_the_mouse_draws(playground):
    keys = playground.board.key
    for key in ["ArrowUp"] * 6 + [" "] + ["ArrowDown"] * 12 + [" "]:
        keys(key, False, False, False)
    assert playground.picture is not None
    rows = (playground.picture[0] > 0.5).any(1).sum()
    assert rows == 20
    keys("Backspace", False, False, False)
    assert playground.picture is None and playground.board.blank
    # A ring shows where the pen is, and belongs to no drawing.
    keys("ArrowLeft", False, False, False)
    assert playground.board.pen == (board.SIDE / 2 - board.STEP, board.SIDE / 2)
    assert playground.board.paper.getextrema() == (255, 255)


def test_a_finger_draws_what_the_mouse_draws(playground):
    def touch(kind, *places):
        touches = [{"x": x, "y": y} for x, y in places]
        playground.board.canvas._handle_frontend_event(
            None, {"event": kind, "touches": touches}, None
        )

    draw_a_bar(playground.board)
    by_mouse = playground.picture
    playground.clear(None)
    touch("touch_start", (150, 60))
    for y in range(60, 230, 10):
        touch("touch_move", (150, y), (10, 10))  # a second finger rests on the board
    touch("touch_end")
    assert torch.equal(playground.picture, by_mouse)


def test_a_test_digit_is_read_as_it_is(playground):
    playground.take_test_digit(None)
    real = mnist_test_images().floats([0])[0]
    assert float((playground.picture - real).abs().mean()) < 0.06


def test_an_empty_board_is_answered_with_a_sentence(playground):
    for work in (lambda p: playground.answer(p, "why?"), lambda p: playground.fill_in(p, "", 0)):
        playground.try_out(work)
        assert "The board is empty" in playground.result.value
    assert playground.image.layout.display == "none"


def test_the_list_says_what_is_covered_after_a_new_digit(playground):
    for _ in range(2):  # the same part is chosen twice
        playground.take_test_digit(None)
        assert playground.part.value == "nothing" and not playground.cover.hidden.any()
        playground.part.value = "lower half"
        assert playground.cover.hidden.any()
    playground.clear(None)
    assert playground.part.value == "nothing"


def test_questions_edits_and_filled_parts(playground):
    draw_a_bar(playground.board)
    uni, picture = playground.uni, playground.picture
    playground.try_out(lambda p: playground.answer(p, "what digit is this?"))
    assert page.said(uni.answer(picture[None], "what digit is this?")[0]) == playground.result.value
    playground.try_out(lambda p: playground.edit(p, "mirror it"))
    both = torch.stack([picture, uni.edit(picture[None], "mirror it")[0]])
    assert playground.image.value == page.png(both)
    playground.try_out(lambda p: playground.fill_in(p, "", 0))
    assert "Nothing is covered" in playground.result.value
    playground.hide({"new": HOLES[0]})
    made = playground.fill_in(picture, "a seven", 3)
    filled = uni.inpaint(picture.expand(3, -1, -1, -1), playground.cover.hidden, "a seven", seed=3)
    assert torch.equal(made[1:], filled) and bool((made[0, 0, :16] == 0.5).all())


def test_patches_are_covered_and_uncovered_by_dragging(playground):
    cover = playground.cover
    cover.begin(10, 10)
    cover.move(80, 10)
    cover.end(80, 10)
    cover.move(200, 200)  # the button is up
    assert cover.hidden.nonzero().tolist() == [[0, 0], [0, 1]]
    cover.begin(10, 10)
    cover.end(10, 10)
    assert cover.hidden.nonzero().tolist() == [[0, 1]]


def test_every_panel_names_a_notebook():
    for name in page.NOTEBOOKS.values():
        assert (ROOT / "notebooks" / f"{name}.ipynb").exists()


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture
def address(tmp_path):
    """The address of the page, served by Voilà."""
    for package in ("ipycanvas", "voila"):
        pytest.importorskip(package, reason=f'needs {package}: pip install -e ".[play]"')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "voila", str(NOTEBOOK), "--no-browser", f"--port={port}"]
    private = {"HOME": str(tmp_path), "JUPYTER_CONFIG_DIR": str(tmp_path / "config")}
    with open(tmp_path / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | private)
    try:
        for _ in range(240):
            if server.poll() is not None:
                raise AssertionError((tmp_path / "log").read_text())
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/voila/static/", timeout=5)
            except urllib.error.HTTPError:
                break  # it answers
            except OSError:
                time.sleep(0.5)
            else:
                break
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


def draw_with_keys(view) -> None:
    """New paper, and on it the same bar once more, without the mouse."""
    view.locator("canvas.board").focus()
    view.keyboard.press("Backspace")
    view.get_by_text("The board is empty").wait_for()
    for key in ["ArrowUp"] * 7 + [" "] + ["ArrowDown"] * 14 + [" "]:
        view.keyboard.press(key)
    view.get_by_text(re.compile("^It is a thi(n|ck) one standing upright")).wait_for()


def test_the_page_in_a_real_browser(address, browser, tmp_path):
    """A digit drawn with the mouse, then with keys, is described, asked about and filled in."""
    view = browser.new_page(viewport={"width": 1400, "height": 1250})
    view.set_default_timeout(120_000)
    view.goto(address)
    view.get_by_text("The board is empty").wait_for()
    board = view.locator("canvas.board")
    board.wait_for()
    box = board.bounding_box()
    # The panels stand side by side, also while a long sentence stands below the board.
    panels = [view.get_by_role("heading", name=name) for name in list(page.NOTEBOOKS)[:3]]
    assert len({panel.bounding_box()["y"] for panel in panels}) == 1
    view.mouse.move(box["x"] + 150, box["y"] + 60)
    view.mouse.down()
    view.mouse.move(box["x"] + 150, box["y"] + 230, steps=12)
    view.mouse.up()
    view.get_by_text(re.compile("^It is a thi(n|ck) one standing upright")).wait_for()
    # Pixels of both canvases: ink in the middle of the board, and in the model's picture.
    for name, x, y in (("board", 150, 150), ("cover", 150, 150)):
        view.wait_for_function(f"""() => {{
            const canvas = document.querySelector("canvas.{name}");
            const pixel = canvas.getContext("2d").getImageData({x}, {y}, 1, 1).data;
            return pixel[3] == 255 && (pixel[0] < 80) == ("{name}" == "board");
        }}""")
    draw_with_keys(view)
    view.get_by_role("button", name="ask").click()
    view.get_by_text("three", exact=True).wait_for()  # one plus two
    view.get_by_label("cover").select_option("lower half")
    view.get_by_role("button", name="fill it in").click()
    view.get_by_text("What is left, and what it became:").wait_for()
    view.locator("img.result").wait_for()
    picture = os.environ.get("PLAYGROUND_PICTURE", str(tmp_path / "page.png"))
    view.screenshot(path=picture, full_page=True)
    view.close()

"""The playground, one page: draw a digit, and see what the model makes of it.

Notable choices
- Every panel names the notebook that explains it.
- What cannot be done yet, such as describing an empty board, is said in a sentence in its place.
- Panels are small functions from what is on the board to what they show. So a test can use them
  without a browser.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable

import ipywidgets
import torch
from PIL import Image
from torch import Tensor

from ..datasets import mnist
from ..datasets.pictures import read_digit
from ..show.grids import tile, to_pil
from ..show.widgets import sampler_explorer
from ..tasks.filling import HOLES, hole
from ..uni import Uni, load
from .board import SIDE, Board, Cover, look_away

EMPTY = "The board is empty: draw a digit with mouse or finger, or press “a test digit”."
ABOUT = (
    "Draw a digit from 0 to 9 on the left. Keys: Tab moves between the panels; on the board, the "
    "arrows move the pen, space puts it down or lifts it, Backspace takes new paper."
)
# panel -> the notebook that explains it
NOTEBOOKS = {
    "Draw a digit": "01_data_and_captions",
    "What the model reads": "02_image_tokenizer",
    "Caption, question, edit": "09_every_task",
    "Cover a part, and let the model fill it in": "09_every_task",
    "From a caption to a picture, step by step": "08_sampling",
}
WIDE = {"width": "22em"}
NARROW = {"width": f"{SIDE}px"}  # words below a canvas: long ones do not move the other panels


def heading(panel: str) -> ipywidgets.HTML:
    """The title of a panel, and where it is explained."""
    return ipywidgets.HTML(f"<h3>{panel}</h3><small>explained in {NOTEBOOKS[panel]}.ipynb</small>")


def said(text: str) -> str:
    """A sentence as HTML, large enough to be read from the back of a room."""
    return f'<p style="font-size: 1.2em; margin: 0.3em 0">{html.escape(text)}</p>'


def png(images: Tensor) -> bytes:
    """Images `[B, C, H, W]` in a row, enlarged, as the bytes of a PNG."""
    row, buffer = to_pil(tile(images, len(images))), io.BytesIO()
    row.resize((4 * row.width, 4 * row.height), Image.Resampling.NEAREST).save(buffer, "PNG")
    return buffer.getvalue()


class Playground:
    """The widgets of the page, and what happens when one of them is used."""

    def __init__(self, uni: Uni):
        self.uni = uni
        self.picture: Tensor | None = None  # [1, 32, 32], as the model reads it
        self.problem = EMPTY  # why there is no picture
        self.tests, self.next_test = mnist.load_mnist("test"), 0
        self.caption = ipywidgets.HTML(said(EMPTY), layout=NARROW)
        self.cover = Cover(uni.tokenizer.grid)
        choices = ["nothing", *HOLES]
        self.part = ipywidgets.Dropdown(options=choices, description="cover", layout=WIDE)
        self.part.observe(self.hide, "value")
        self.board = Board(self.look)
        self.result = ipywidgets.HTML(said(""))
        self.image = ipywidgets.Image(layout={"display": "none"})
        self.image.add_class("result")
        look_away()

    # --- what happens ---

    def look(self) -> None:
        """Read the board: its picture, its codes and its caption; older results go."""
        self.picture, self.result.value = None, said("")
        self.part.value = "nothing"  # a new picture is not covered; any part can be chosen, again
        self.image.layout.display = "none"
        try:
            if self.board.blank:
                raise ValueError(EMPTY)
            self.picture = read_digit(self.board.paper, "your drawing")
            codes = self.uni.encode(self.picture[None])
            self.cover.show(self.picture, codes[0].cpu())
            self.caption.value = said("It is " + self.uni.describe_codes(codes)[0] + ".")
        except ValueError as error:
            self.problem = str(error)
            self.cover.empty()
            self.caption.value = said(self.problem)

    def try_out(self, work: Callable[[Tensor], str | Tensor]) -> None:
        """Show what `work(picture)` gives: a text, or images `[B, C, H, W]`."""
        self.image.layout.display = "none"
        try:
            if self.picture is None:
                raise ValueError(self.problem)
            made = work(self.picture)
        except ValueError as error:
            made = str(error)
        if isinstance(made, Tensor):  # two images are an edit, more are ways to fill in
            self.image.value, self.image.layout.display = png(made), "block"
            made = "Before, and after:" if len(made) == 2 else "What is left, and what it became:"
        self.result.value = said(made)

    def answer(self, picture: Tensor, question: str) -> str:
        return self.uni.answer(picture[None], question)[0]

    def edit(self, picture: Tensor, instruction: str) -> Tensor:
        return torch.stack([picture, self.uni.edit(picture[None], instruction)[0]])

    def fill_in(self, picture: Tensor, caption: str, seed: int) -> Tensor:
        """What is left of the picture, and three ways to fill it in."""
        hidden = self.cover.hidden
        if not hidden.any():
            raise ValueError("Nothing is covered: choose a part, or click on patches, first.")
        pictures = picture.expand(3, -1, -1, -1)
        filled = self.uni.inpaint(pictures, hidden, caption.strip() or None, seed=seed)
        patch = picture.shape[-1] // self.cover.grid
        large = hidden.repeat_interleave(patch, 0).repeat_interleave(patch, 1)  # [H, W]
        return torch.cat([picture.masked_fill(large, 0.5)[None], filled])

    def take_test_digit(self, button: ipywidgets.Button) -> None:
        self.board.show(self.tests.floats([self.next_test])[0])
        self.next_test += 1

    def clear(self, button: ipywidgets.Button) -> None:
        self.board.clear()
        self.look()

    def hide(self, change: dict) -> None:
        grid = self.cover.grid
        nothing = torch.zeros(grid, grid, dtype=torch.bool)
        self.cover.hide(hole(change["new"], grid, grid) if change["new"] in HOLES else nothing)

    # --- what is seen ---

    def board_panel(self) -> ipywidgets.VBox:
        test, new = button("a test digit"), button("new paper")
        test.on_click(self.take_test_digit)
        new.on_click(self.clear)
        buttons = ipywidgets.HBox([test, new])
        return panel("Draw a digit", self.board.canvas, buttons, self.caption)

    def cover_panel(self) -> ipywidgets.VBox:
        text = "Numbers are codes. Click on patches to cover them."
        note = ipywidgets.HTML(text, layout=NARROW)
        return panel("What the model reads", self.cover.canvas, note)

    def words_panel(self) -> ipywidgets.VBox:
        rows = []
        for name, text, work in (
            ("ask", "what is this digit plus two?", self.answer),
            ("edit", "turn it into a four", self.edit),
        ):
            field = ipywidgets.Text(text, description=name, layout=WIDE, continuous_update=False)
            go = button(name)
            self.connect(field, go, work)
            rows.append(ipywidgets.HBox([field, go]))
        return panel("Caption, question, edit", *rows)

    def connect(self, field: ipywidgets.Text, go: ipywidgets.Button, work: Callable) -> None:
        """The button, and Enter after a change, do the work with the text of the field."""

        def do(_: object) -> None:
            self.try_out(lambda picture: work(picture, field.value))

        go.on_click(do)
        field.observe(do, "value")  # a new text, at Enter

    def fill_panel(self) -> ipywidgets.VBox:
        hint = "empty: anything"
        words = ipywidgets.Text("", placeholder=hint, description="caption", layout=WIDE)
        seed = ipywidgets.IntSlider(0, 0, 99, description="seed", layout=WIDE)
        go = button("fill it in")
        go.on_click(
            lambda _: self.try_out(lambda picture: self.fill_in(picture, words.value, seed.value))
        )
        name = "Cover a part, and let the model fill it in"
        return panel(name, self.part, words, seed, go)

    def page(self) -> ipywidgets.VBox:
        """Everything, from top to bottom."""
        title = ipywidgets.HTML(f"<h1>minillada: a playground</h1><p>{ABOUT}</p>")
        right = ipywidgets.VBox([self.words_panel(), self.fill_panel(), self.result, self.image])
        top = ipywidgets.HBox([self.board_panel(), self.cover_panel(), right])
        top.layout.flex_flow = "row wrap"
        film = panel("From a caption to a picture, step by step", sampler_explorer(self.uni))
        return ipywidgets.VBox([title, top, film])


def button(name: str) -> ipywidgets.Button:
    return ipywidgets.Button(description=name, layout={"width": "9em"})


def panel(name: str, *widgets: ipywidgets.Widget) -> ipywidgets.VBox:
    """Widgets under the title of their panel."""
    return ipywidgets.VBox([heading(name), *widgets], layout={"margin": "0 1.5em 0 0"})


def playground(model: str = "mnist-uni") -> ipywidgets.VBox:
    """The page, with a model that does every task with digits."""
    return Playground(load(model)).page()

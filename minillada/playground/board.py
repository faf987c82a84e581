"""Two canvases: a board to draw on, and the picture that the model reads, to be covered in part.

Notable choices
- The browser only reports where the mouse is. The strokes are drawn here, on paper of our own, so
  the pixels are known without asking the browser for them.
- A browser that opens the page has missed what was drawn before, so all is drawn again for it.
- All that the mouse can do, a finger and the keys can do: arrows move a pen, space puts it down or
  lifts it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from ..extras.packages import load_package
from ..show.grids import to_pil
from ..show.page import ORANGE

SIDE = 288  # pixels of a canvas
BRUSH = 22  # about as wide, compared with the board, as a pen stroke of MNIST in its box
STEP = 12  # pixels that an arrow key moves the pen
MOVES = {"ArrowLeft": (-1, 0), "ArrowRight": (1, 0), "ArrowUp": (0, -1), "ArrowDown": (0, 1)}
PEN, COVER = "#0072B2", "#b5b5b5"
Point = Callable[[float, float], None]


def new_canvas(name: str):
    """A canvas of `SIDE` pixels. `ValueError`, with what to install, without ipycanvas."""
    canvas = load_package("ipycanvas", "play").Canvas(width=SIDE, height=SIDE)
    canvas.layout.border, canvas.layout.width = f"2px solid {PEN}", f"{SIDE + 4}px"
    canvas.layout.height = f"{SIDE + 4}px"
    canvas.add_class(name)
    return canvas


def listen(canvas, begin: Point, move: Point, end: Point) -> None:
    """Call these with the place (x, y) of the mouse, or of the first finger."""
    canvas.on_mouse_down(begin)
    canvas.on_mouse_move(move)
    canvas.on_mouse_up(end)
    canvas.on_mouse_out(end)
    canvas.on_touch_start(lambda fingers: begin(*fingers[0]))
    canvas.on_touch_move(lambda fingers: move(*fingers[0]))
    canvas.on_touch_end(lambda fingers: end(0, 0))  # no finger is left, so there is no place


def look_away() -> None:
    """Draw on a canvas that nobody sees.

    ipycanvas names a canvas only when it is another one than before. A browser that opens the page
    later has missed the name, and stops at a command without one. So the next command must name it.
    """
    load_package("ipycanvas", "play").Canvas(width=1, height=1).clear()


class Board:
    """White paper and a black pen; `changed` is called after every stroke."""

    def __init__(self, changed: Callable[[], None]):
        self.canvas, self.changed = new_canvas("board"), changed
        listen(self.canvas, self.begin, self.move, self.end)
        self.canvas.on_key_down(self.key)
        self.canvas.on_client_ready(self.paint)
        self.clear()

    def paint(self) -> None:
        """The paper, for a browser that has just opened the page."""
        put(self.canvas, self.paper)

    def clear(self) -> None:
        """New paper, and the pen above its middle."""
        self.paper = Image.new("L", (SIDE, SIDE), 255)
        self.pen, self.down = (SIDE / 2, SIDE / 2), False  # `down`: the pen touches the paper
        self.blank = True  # nothing was drawn yet
        self.canvas.fill_style = "white"
        self.canvas.fill_rect(0, 0, SIDE, SIDE)

    def show_pen(self) -> None:
        """A ring where the pen is, for those who move it with keys."""
        self.paint()
        self.canvas.stroke_style, self.canvas.line_width = PEN, 2
        self.canvas.stroke_circle(*self.pen, BRUSH / 2)

    def begin(self, x: float, y: float) -> None:
        self.paint()  # the ring of the pen goes
        self.pen, self.down = (x, y), True
        self.stroke(x, y)

    def move(self, x: float, y: float) -> None:
        if self.down:
            self.stroke(x, y)

    def end(self, x: float, y: float) -> None:
        if self.down:
            self.down = False
            self.changed()

    def stroke(self, x: float, y: float) -> None:
        """A line from the pen to (x, y), with round ends, on the paper and in the browser."""
        half, pencil = BRUSH / 2, ImageDraw.Draw(self.paper)
        pencil.line([self.pen, (x, y)], fill=0, width=BRUSH)
        for a, b in (self.pen, (x, y)):
            pencil.ellipse([a - half, b - half, a + half, b + half], fill=0)
        self.canvas.stroke_style, self.canvas.line_width = "black", BRUSH
        self.canvas.line_cap = "round"
        self.canvas.stroke_line(*self.pen, x + 0.01, y)  # a line of length 0 is not drawn
        self.pen, self.blank = (x, y), False

    def key(self, key: str, shift: bool, control: bool, meta: bool) -> None:
        """Arrows move the pen, space puts it down or lifts it, Backspace takes new paper."""
        if key in MOVES:
            dx, dy = MOVES[key]
            x = min(max(self.pen[0] + STEP * dx, 0), SIDE)
            y = min(max(self.pen[1] + STEP * dy, 0), SIDE)
            if self.down:
                self.stroke(x, y)
            else:
                self.pen = (x, y)
                self.show_pen()
        elif key == " " and self.down:
            self.end(*self.pen)
        elif key == " ":
            self.begin(*self.pen)
        elif key in ("Backspace", "Delete"):
            self.clear()
            self.changed()

    def show(self, image: Tensor) -> None:
        """A digit `[1, H, W]`, bright on black, as ink on the paper."""
        self.clear()
        ink = to_pil(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        self.paper, self.blank = ImageOps.invert(ink), False
        self.paint()
        self.changed()


class Cover:
    """The picture `[C, H, W]` that the model reads, in patches, some of which are covered."""

    def __init__(self, grid: int):
        self.canvas, self.grid = new_canvas("cover"), grid
        self.patch = SIDE // grid
        listen(self.canvas, self.begin, self.move, self.end)
        self.canvas.on_client_ready(self.paint)
        self.drag: bool | None = None  # what the mouse does: cover (True) or uncover
        self.empty()

    def empty(self) -> None:
        """No picture."""
        self.picture = torch.zeros(1, 32, 32)
        self.codes: Tensor | None = None
        self.hidden = torch.zeros(self.grid, self.grid, dtype=torch.bool)
        self.paint()

    def show(self, picture: Tensor, codes: Tensor) -> None:
        """A picture `[C, H, W]` and its codes `[h, w]`; nothing is covered."""
        self.picture, self.codes = picture, codes
        self.hide(torch.zeros_like(self.hidden))

    def hide(self, hidden: Tensor) -> None:
        """Cover the codes `[h, w]`."""
        self.hidden = hidden
        self.paint()

    def place(self, x: float, y: float) -> tuple[int, int]:
        """Row and column of the patch at (x, y)."""
        last = self.grid - 1  # the border of the canvas belongs to the last patch
        return min(int(y) // self.patch, last), min(int(x) // self.patch, last)

    def begin(self, x: float, y: float) -> None:
        self.drag = not bool(self.hidden[self.place(x, y)])
        self.move(x, y)

    def move(self, x: float, y: float) -> None:
        place = self.place(x, y)
        if self.drag is not None and bool(self.hidden[place]) != self.drag:
            self.hidden[place] = self.drag
            self.paint()

    def end(self, x: float, y: float) -> None:
        self.drag = None

    def paint(self) -> None:
        """Everything anew: the picture, the covered patches, the lines between, the codes."""
        large = to_pil(self.picture).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        with load_package("ipycanvas", "play").hold_canvas():
            put(self.canvas, large)
            self.canvas.fill_style = COVER
            for row, column in self.hidden.nonzero().tolist():
                corner = column * self.patch, row * self.patch
                self.canvas.fill_rect(*corner, self.patch, self.patch)
            self.canvas.stroke_style, self.canvas.line_width = ORANGE, 1
            for line in range(1, self.grid):
                self.canvas.stroke_line(line * self.patch, 0, line * self.patch, SIDE)
                self.canvas.stroke_line(0, line * self.patch, SIDE, line * self.patch)
            self.write_codes()

    def write_codes(self) -> None:
        """The number of each code in its corner, or a question mark."""
        self.canvas.font = "13px sans-serif"
        if self.codes is None:
            return
        for row in range(self.grid):
            for column in range(self.grid):
                covered = bool(self.hidden[row, column])
                self.canvas.fill_style = "black" if covered else ORANGE
                code = "?" if covered else str(int(self.codes[row, column]))
                self.canvas.fill_text(code, column * self.patch + 4, row * self.patch + 15)


def put(canvas, image: Image.Image) -> None:
    """A picture of the size of the canvas onto it."""
    canvas.put_image_data(numpy.array(image.convert("RGB")), 0, 0)

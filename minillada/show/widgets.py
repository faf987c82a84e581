"""Sliders for the notebooks. They are an extra: the same page shows such figures without them."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
from matplotlib.figure import Figure

from ..uni import DRAW, Uni
from . import charts, strips
from .page import rendered

COMMON = {
    "layout": {"width": "28em"},
    "style": {"description_width": "7em"},  # ipywidgets' own width cuts "temperature" off
    "continuous_update": False,  # redraw when a slider is let go, not at every value it passes
}
WHOLE, REAL = ipywidgets.IntSlider, ipywidgets.FloatSlider
# kind, name, first value, lowest, highest, step, hint
SLIDERS = [
    (WHOLE, "steps", DRAW.steps, 1, 16, 1, "forward passes a block; each decides a share of codes"),
    (REAL, "guidance", DRAW.guidance, 0, 8, 0.5, "0 ignores the caption, 1 is no guidance"),
    (REAL, "temperature", DRAW.temperature, 0, 2, 0.1, "0 takes the likeliest code"),
    (REAL, "threshold", DRAW.threshold, 0, 1, 0.05, "codes surer than this need not wait"),
    (WHOLE, "seed", 0, 0, 99, 1, "the same seed and settings draw the same picture"),
]


def sampler_controls(caption: str, trained_block: int) -> dict[str, ipywidgets.DOMWidget]:
    """A control for the caption and for each of the sampler's settings, by the setting's name."""
    hint = "what to draw, then Enter"
    text = ipywidgets.Text(caption, description="caption", placeholder=hint, **COMMON)
    controls: dict[str, ipywidgets.DOMWidget] = {"caption": text}
    for kind, name, value, low, high, step, hint in SLIDERS:
        controls[name] = kind(
            value, min=low, max=high, step=step, description=name, tooltip=hint, **COMMON
        )
    # Each stop doubles the size. One can type over its number, and arrow keys work.
    hint = f"codes decoded together; the model was trained with {trained_block}"
    controls["block_size"] = ipywidgets.FloatLogSlider(
        trained_block, base=2, min=0, max=5, step=1, readout_format="d",
        description="block size", tooltip=hint, **COMMON,
    )  # fmt: skip
    return controls


def written(figure: Figure, alt: str) -> str:
    """A figure as HTML, with its alt text."""
    picture = rendered(figure, alt)
    pixels, alt = base64.b64encode(picture.data).decode(), html.escape(alt)
    return f'<p><img src="data:image/png;base64,{pixels}" width="{picture.width}" alt="{alt}"></p>'


def following(
    controls: Mapping[str, ipywidgets.DOMWidget], answer: Callable[..., str]
) -> ipywidgets.VBox:
    """The controls above the HTML that `answer(**values)` gives, again whenever a value changes.

    An output area (`ipywidgets.interactive_output`) would do the same, but while a cell fills one,
    Voilà may miss the end of the cell: every second visit of the playground never loaded.
    """
    page = ipywidgets.HTML()

    def follow(_: object = None) -> None:
        page.value = answer(**{name: control.value for name, control in controls.items()})

    for control in controls.values():
        control.observe(follow, "value")
    follow()
    return ipywidgets.VBox([*controls.values(), page])


def sampler_explorer(uni: Uni, caption: str = "a thick seven leaning right") -> ipywidgets.VBox:
    """A caption, the sampler's settings, and the filmstrip and confidence map they lead to."""

    def draw(caption: str, seed: int, block_size: float, **sampling) -> str:
        try:
            traced = uni.draw_traced([caption], seed=seed, block_size=round(block_size), **sampling)
        except ValueError as error:  # an empty caption is a matter of typing, not a crash
            return f"<p>{html.escape(str(error))}</p>"
        film = written(strips.filmstrip(uni, traced), f"{caption}, step by step")
        sure = written(charts.confidence_map(traced.generation.steps), "confidence of each code")
        count = f"{traced.codes.numel()} codes in {traced.generation.forwards} forward passes"
        return f"<p>{count}</p>{film}{sure}"

    return following(sampler_controls(caption, uni.backbone.config.block_size), draw)


def choice(
    draw: Callable[[float], Figure], name: str, values: Sequence[float], alt: str
) -> ipywidgets.VBox:
    """A slider called `name` over `values`, and the figure `draw(value)` of the chosen one.

    `draw` is a function that the page has used already: the slider shows more of the same.
    """
    slider = ipywidgets.SelectionSlider(options=values, description=name, **COMMON)

    def chosen(value: float) -> str:
        return written(draw(value), f"{alt}; {name} {value}")

    return following({"value": slider}, chosen)

"""Sliders for the notebooks: an extra view of figures that the same page also shows without them."""

from __future__ import annotations

import ipywidgets
from IPython.display import display

from ..show import charts, strips
from ..show.page import rendered
from ..uni import DRAW, Uni


def sampler_explorer(uni: Uni, caption: str = "a thick seven leaning right") -> ipywidgets.VBox:
    """A caption, the sampler's settings, and under them the filmstrip and confidence map they lead to."""
    trained = uni.backbone.config.block_size
    named = {"layout": {"width": "28em"}, "style": {"description_width": "7em"}}  # ipywidgets' own width cuts "temperature" off
    wait = named | {"continuous_update": False}  # redraw when a slider is let go, not at every pixel it passes

    def slider(kind: type, name: str, value: float, low: float, high: float, step: float, tooltip: str):
        return kind(value, min=low, max=high, step=step, description=name, tooltip=tooltip, **wait)

    whole, real = ipywidgets.IntSlider, ipywidgets.FloatSlider
    controls = {
        "caption": ipywidgets.Text(caption, description="caption", placeholder="what to draw, then Enter", **wait),
        "steps": slider(whole, "steps", DRAW.steps, 1, 16, 1, "forward passes a block; each takes its share of the codes"),
        # Doubles at each stop. Typing over its number works, unlike a SelectionSlider's; arrow keys do, unlike a Dropdown's.
        "block_size": ipywidgets.FloatLogSlider(
            trained,
            base=2,
            min=0,
            max=5,
            step=1,
            readout_format="d",
            description="block size",
            tooltip=f"codes decoded together; the model was trained with {trained}",
            **wait,
        ),
        "guidance": slider(real, "guidance", DRAW.guidance, 0, 8, 0.5, "0 ignores the caption, 1 is no guidance, more exaggerates it"),
        "temperature": slider(real, "temperature", DRAW.temperature, 0, 2, 0.1, "0 takes the likeliest code, more leaves more to chance"),
        "threshold": slider(real, "threshold", DRAW.threshold, 0, 1, 0.05, "codes surer than this need not wait; at 1 all do"),
        "seed": slider(whole, "seed", 0, 0, 99, 1, "the same seed and settings draw the same picture"),
    }

    def draw(caption: str, seed: int, block_size: float, **sampling) -> None:
        try:
            traced = uni.draw_traced([caption], seed=seed, block_size=round(block_size), **sampling)
        except ValueError as error:  # an empty caption is a matter of typing, not a crash
            print(error)
            return
        # The first output clears the old ones, so nothing is put out before all is rendered: the page blinks for less long.
        pictures = [rendered(strips.filmstrip(uni, traced)), rendered(charts.confidence_map(traced.generation.steps))]
        print(f"{traced.codes.numel()} codes in {traced.generation.forwards} forward passes")
        display(*pictures)

    return ipywidgets.VBox([*controls.values(), ipywidgets.interactive_output(draw, controls)])

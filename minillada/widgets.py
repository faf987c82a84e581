"""Sliders for the notebooks: an extra view of figures that the same page also shows without them."""

from __future__ import annotations

import ipywidgets

from . import plots
from .tasks import DRAW, Uni


def sampler_explorer(uni: Uni, caption: str = "a thick seven leaning right") -> ipywidgets.VBox:
    """A caption, the sampler's settings, and under them the filmstrip and confidence map they lead to."""
    trained, sizes = uni.backbone.config.block_size, [1, 2, 4, 8, 16, 32]
    wait = {"continuous_update": False}  # redraw when a slider is let go, not at every pixel it passes
    controls = {
        "caption": ipywidgets.Text(caption, description="caption", **wait),
        "steps": ipywidgets.IntSlider(DRAW.steps, min=1, max=16, description="steps", **wait),
        "block_size": ipywidgets.SelectionSlider(options=sizes, value=trained, description="block size", **wait),
        "guidance": ipywidgets.FloatSlider(DRAW.guidance, min=0, max=8, step=0.5, description="guidance", **wait),
        "temperature": ipywidgets.FloatSlider(DRAW.temperature, min=0, max=2, step=0.1, description="temperature", **wait),
        "threshold": ipywidgets.FloatSlider(DRAW.threshold, min=0, max=1, step=0.05, description="threshold", **wait),
        "seed": ipywidgets.IntSlider(0, min=0, max=99, description="seed", **wait),
    }

    def draw(caption: str, seed: int, **sampling) -> None:
        try:
            traced = uni.draw_traced([caption], seed=seed, **sampling)
        except ValueError as error:  # an empty caption is a matter of typing, not a crash
            print(error)
            return
        print(f"{traced.codes.numel()} codes in {traced.generation.forwards} forward passes")
        plots.show(plots.filmstrip(uni, traced))
        plots.show(plots.confidence_map(traced.generation.steps))

    return ipywidgets.VBox([*controls.values(), ipywidgets.interactive_output(draw, controls)])

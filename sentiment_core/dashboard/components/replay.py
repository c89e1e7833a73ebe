"""A training run under one play head: value from `figures.training.replay`, drawn by `figures.replay.js`."""

from __future__ import annotations

import gradio as gr

TEMPLATE = """<div class="q replay"><div class="controls"><button type="button">▶ Play</button>
<input type="range" max="1000" value="1000" aria-label="Play head: reviews seen"><output></output></div>
<svg role="img" aria-label="Loss and validation accuracy over reviews seen; numbers in its data"></svg>
<canvas role="img" aria-label="Validation reviews on a log-odds axis, positive up" hidden></canvas></div>"""


def replay_figure(elem_id: str) -> gr.HTML:
    """An empty place for the replay."""
    return gr.HTML(
        {}, html_template=TEMPLATE, js_on_load="figs.replay(element, props, watch)",
        apply_default_css=False, elem_id=elem_id, visible=False,
    )  # fmt: skip

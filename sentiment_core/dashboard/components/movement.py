"""Reviews that move between two systems: histograms that slide into each other, their table, the threshold.

The template is static; what the figure says goes in as data, and `figures.movement.js` draws it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import figure_menu
from sentiment_core.figures.style import percent
from sentiment_core.metrics import histogram
from sentiment_core.metrics.histogram import BINS, EDGE, probability_of

RANGES = (0, 10, 22, 34, 45, 56, 68, 80, BINS)
"""Edges between bins near 0.1, 1, 10, 50, 90, 99 and 99.9 %: the rows of the table."""

SLIDER = (
    '<label class="threshold">Threshold <input type="range" value="0" min="-7" max="7" '
    f'step="{2 * EDGE / BINS:g}"><output></output></label>'
)
MOVEMENT = f"""<div class="q movement" hidden><h2></h2>
<p class="readout"><b class="num"></b><span class="of"></span></p><canvas role="img"></canvas>
<div class="controls"><button type="button"></button>{SLIDER}</div><p class="caption"></p></div>"""
CAPTION = (
    "{where}, by P(positive) on a log-odds axis. Hollow bars are on the wrong side of the dashed line. "
    "Drag the line to move the threshold; click a bar to read its reviews."
)


def movement_figure(elem_id: str) -> gr.HTML:
    """An empty place for the histograms; its value is what `movement_value` gives."""
    load = "figs.movement(element, props, watch)"
    return gr.HTML({}, html_template=MOVEMENT, js_on_load=load, apply_default_css=False, elem_id=elem_id)


def threshold_slider(elem_id: str) -> gr.HTML:
    """The page's one threshold; its event "threshold" comes with `at`, in percent."""
    html, load = f'<div class="q">{SLIDER}</div>', "figs.tellThreshold(element, trigger) // 'threshold'"
    return gr.HTML(html_template=html, js_on_load=load, apply_default_css=False, elem_id=elem_id)


def movement_value(label: np.ndarray, before: np.ndarray, after: np.ndarray, where: str) -> dict[str, Any]:
    """What `figs.movement` draws. `before`, `after`: (n,) P(positive) of the same reviews."""
    tallest = max(int(histogram.counts(label, p).max()) for p in (before, after))
    return {
        "cells": histogram.moves(label, before, after).tolist(), "edge": EDGE, "bins": BINS, "top": tallest,
        "title": finding(label, before, after), "caption": CAPTION.format(where=where),
    }  # fmt: skip


def finding(label: np.ndarray, before: np.ndarray, after: np.ndarray) -> str:
    """What the move did, at a threshold of one half."""
    old, new = (percent(float(np.mean((p >= 0.5) == label))) for p in (before, after))
    positive = float(np.mean(before >= 0.5))
    word, share = ("positive", positive) if positive >= 0.5 else ("negative", 1 - positive)
    if share < 0.9:
        return f"From {old} to {new} of the reviews on the right side of the threshold"
    return f"Before, {percent(share)} of the reviews were called {word}; after, {new} are called correctly"


def range_words(low: int, high: int) -> str:
    """P(positive) from one edge between bins to another.

    >>> range_words(45, 56), range_words(0, 10)
    ('50–90\\u202f%', 'below 0.0911\\u202f%')
    """
    first, last = (f"{100 * probability_of(edge):.3g}" for edge in (low, high))
    if low == 0:
        return f"below {last}\u202f%"
    return f"{first}\u202f% and above" if high == BINS else f"{first}–{last}\u202f%"


def table_html(label: np.ndarray, before: np.ndarray, after: np.ndarray) -> str:
    """The histograms' counts by ranges, each a link to its reviews, and the figure's menu."""
    counts = {side: histogram.counts(label, p) for side, p in (("before", before), ("after", after))}
    rows = [(range_words(low, high), low, high) for low, high in pairwise(RANGES)]
    edges = [probability_of(edge) for edge in range(BINS + 1)]
    columns = {"p_from": edges[:-1], "p_to": edges[1:]}
    for side, (negative, positive) in counts.items():
        columns |= {f"negative_{side}": negative, f"positive_{side}": positive}
    menu = figure_menu(pd.DataFrame(columns), "movement", ["png"])
    return render("movement_table", rows=rows, edges=edges, counts=counts, menu=menu)

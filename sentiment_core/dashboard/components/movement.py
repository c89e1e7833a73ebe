"""Reviews that move between two systems: histograms that slide into each other, and their table."""

from itertools import pairwise

import numpy as np
import pandas as pd

from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import Panel
from sentiment_core.figures.style import percent
from sentiment_core.metrics import histogram
from sentiment_core.metrics.histogram import BINS, EDGE, probability_of

RANGES = (0, 10, 22, 34, 45, 56, 68, 80, BINS)
"""Edges between bins near 0.1, 1, 10, 50, 90, 99 and 99.9 %: the rows of the table."""
CAPTION = (
    "{where}, by P(positive) on a log-odds axis. Hollow bars: misclassified at the dashed threshold. "
    "Drag the line to move the threshold; click a bar to read its reviews."
)


def movement_panel(label: np.ndarray, before: np.ndarray, after: np.ndarray, where: str) -> Panel:
    """The histograms of two systems. `before`, `after`: (n,) P(positive) of the same reviews."""
    counts = {side: histogram.counts(label, p) for side, p in (("before", before), ("after", after))}
    edges = [probability_of(edge) for edge in range(BINS + 1)]
    value = {
        "cells": histogram.moves(label, before, after).tolist(), "edge": EDGE, "bins": BINS, "edges": edges,
        "top": max(int(each.max()) for each in counts.values()),
    }  # fmt: skip
    data = pd.DataFrame({"p_from": edges[:-1], "p_to": edges[1:]})
    for side, by_label in counts.items():
        data[[f"negative_{side}", f"positive_{side}"]] = by_label.T
    return Panel(finding(label, before, after), value, CAPTION.format(where=where), data, "movement")


def finding(label: np.ndarray, before: np.ndarray, after: np.ndarray) -> str:
    """What the move did, at a threshold of one half."""
    old, new = (percent(float(np.mean((p >= 0.5) == label))) for p in (before, after))
    positive = float(np.mean(before >= 0.5))
    word, part = ("positive", positive) if positive >= 0.5 else ("negative", 1 - positive)
    if part < 0.9:
        return f"From {old} to {new} of the reviews classified correctly"
    return f"Before, {percent(part)} of the reviews were called {word}; after, {new} are classified correctly"


def table_html(data: pd.DataFrame, versus: str = "") -> str:
    """A `movement_panel`'s data by RANGES, each count a link to its reviews."""
    parts = [data.iloc[low:high] for low, high in pairwise(RANGES)]
    rows = [(one["p_from"].iloc[0], one["p_to"].iloc[-1], one.iloc[:, 2:].sum().to_dict()) for one in parts]
    return render("movement_table", rows=rows, versus=versus)

"""Figures of evaluations: tidy frames in, plotly figures out; fractions become percent only here."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sentiment_core.figures.style import (
    PAPER,
    THIN,
    color_of,
    finished,
    interval,
    note,
    percent,
    series,
    tint,
)
from sentiment_core.systems import SYSTEMS, System

LONGEST_LINE = 32  # characters of a published result's name that stand beside its mark on a phone
DASHED = {"dash": "dash", "width": 1, "color": color_of("muted")}
PERCENT_TICKS = {"tickvals": [0, 25, 50, 75, 100]}
PUBLISHED = System("", "", "", work="", colour="muted", marker="square-open")  # not measured here


class Actor(NamedTuple):
    """How one of the two models is drawn where both share a figure."""

    name: str
    symbol: str
    dash: str
    sign: str  # the symbol as text, for lists of names


BASE = Actor("base model", "square", "dot", "■")  # so is drawn what has a colour of its own
ACTORS = {"fine": Actor("fine-tuned", "circle", "solid", "●"), "base": BASE}


def _unit_square(x_title: str, y_title: str) -> go.Figure:
    """Both axes from 0 to 100 % with the diagonal dashed."""
    figure = go.Figure().add_shape(type="line", x0=0, y0=0, x1=100, y1=100, line=DASHED)
    figure.update_xaxes(range=[-2, 102], title_text=x_title, **PERCENT_TICKS)
    return figure.update_yaxes(range=[-2, 102], title_text=y_title, **PERCENT_TICKS)


def systems_chart(table: pd.DataFrame) -> go.Figure:
    """Accuracy from worst to best, with intervals and chance; published results are small.

    Args:
        table: one row per mark, best first. Columns title, system ("" for a published result),
            accuracy, low, high (fractions; low and high may be NaN).
    """
    rows: list[Any] = list(table.iloc[::-1].itertuples())
    own = np.array([row.system in SYSTEMS for row in rows])
    titles = [row.title if row.system in SYSTEMS else _in_lines(row.title) for row in rows]
    tall = np.array(["<br>" in title for title in titles])
    rooms = np.select([own[:-1], tall[:-1] | tall[1:]], [1.0, 0.8], 0.55)  # to the next row above
    places = np.cumsum([1.0, *rooms])
    figure = go.Figure().add_vline(x=50, line=DASHED)
    corner = {"xanchor": "left", "xshift": 5, "yanchor": "bottom"}
    figure.add_annotation(note(50, places[-1] + 0.7, "chance", "muted", **corner))
    for place, row, title in zip(places, rows, titles, strict=True):
        _add_system(figure, row, place, title)
    figure.update_xaxes(range=[0, 101], title_text="Accuracy (%)", **PERCENT_TICKS)
    figure.update_yaxes(
        range=[places[0] - 0.6, places[-1] + 1.15], tickvals=places[own], showticklabels=False
    )
    return finished(figure, 78 + int(44 * (places[-1] - places[0] + 1)), margin_r=70)


def _add_system(figure: go.Figure, row: Any, place: float, title: str) -> None:
    """Its mark and interval, its name above the line or beside a published mark, its figure at the right."""
    system = SYSTEMS.get(row.system, PUBLISHED)
    x, measured, error = 100 * row.accuracy, system is not PUBLISHED, None
    hover = f"{row.title}<br>{percent(row.accuracy, 2)}"
    if not np.isnan(row.high - row.low):
        hover += f" (95{THIN}% interval {percent(row.low, 2)} to {percent(row.high, 2)})"
        error = interval(system.colour, [x], [100 * row.low], [100 * row.high])
    mark = {"mode": "markers", "marker_symbol": system.marker, "marker_size": 14 if measured else 9}
    figure.add_trace(series(row.title, system.colour, [x], [place], hover=hover, error_x=error, **mark))
    where = {"xanchor": "right", "xshift": -9}
    if measured:
        where = {"x": 0, "xanchor": "left", "yanchor": "bottom", "yshift": 6}
    font = {"color": color_of(system.colour), "size": 13 if measured else 11}
    font["weight"] = 600 if row.system == "fine-tuned" else 400
    name = note(x, place, title, font=font, bgcolor=PAPER.light, borderpad=0)  # no line runs through it
    value = percent(row.accuracy, 2 if row.high - row.low < 0.02 else 1)  # NaN is not below
    figure.add_annotation(name | where)
    figure.add_annotation(note(1, place, value, font=font, xref="paper", xanchor="left", xshift=8))


def _in_lines(name: str) -> str:
    """A published result's name, in two lines where one is too long for a phone.

    >>> _in_lines("BERT-base + in-task pretraining, 110M")
    'BERT-base + in-task<br>pretraining, 110M'
    """
    if len(name) <= LONGEST_LINE:
        return name
    return "<br>".join(textwrap.wrap(name, math.ceil(len(name) / 2) + 3))


def reliability_chart(table: pd.DataFrame) -> go.Figure:
    """Predicted probability against the observed rate. Columns actor, mean_p_positive, share_positive, low,
    high, n (fractions; empty bins left out)."""
    figure = _unit_square("Mean predicted probability (%)", "Observed positive rate (%)")
    notes = [note(100, 1, "dashed: perfect calibration", "muted", xanchor="right", yanchor="bottom")]
    for line, (actor, rows) in enumerate(table.groupby("actor", sort=False)):
        name, symbol, dash, sign = ACTORS[str(actor)]
        x, y, low, high = (
            100 * rows[column] for column in ("mean_p_positive", "share_positive", "low", "high")
        )
        hover = f"{name}<br>Mean predicted probability %{{x:.1f}}{THIN}%"
        hover += f"<br>Observed positive rate %{{y:.1f}}{THIN}%, n = %{{customdata[0]:,}}"
        figure.add_trace(series(
            name, str(actor), x, y, hover=hover, error_y=interval(str(actor), y, low, high),
            customdata=rows[["n"]], mode="lines+markers", line={"width": 1.5, "dash": dash},
            marker={"size": 10, "symbol": symbol},
        ))  # fmt: skip
        place = {"xanchor": "left", "yanchor": "top", "yshift": -20 * line}
        notes.append(note(0, 100, f"{sign} {name}", str(actor), **place))
    return finished(figure, 340, annotations=notes)


def confusion_chart(counts: pd.DataFrame, actor: str) -> go.Figure:
    """Counts by true label and prediction; the tint is the share of the row, on one scale for every matrix.

    Args:
        counts: rows "Negative" and "Positive" (the truth), columns the predictions, integers.
        actor: palette entry of the tint, such as "base" or "fine".
    """
    shares = 100 * counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    right = counts.index.to_numpy()[:, None] == counts.columns.to_numpy()
    word = np.where(right, "correct", np.where(counts.columns.isin(counts.index), "incorrect", "unparsed"))
    text = [
        f'<span style="font-size:22px">{count:,}</span><br>{share:.1f}{THIN}%<br>{kind}'
        for count, share, kind in zip(counts.to_numpy().flat, shares.to_numpy().flat, word.flat, strict=True)
    ]
    hover = f"True label %{{y}}, predicted %{{x}}: %{{customdata:,}} (%{{z:.1f}}{THIN}% of the row)"
    heatmap = go.Heatmap(
        x=list(counts.columns), y=list(counts.index), z=shares, zmin=0, zmax=100, customdata=counts,
        text=np.reshape(text, counts.shape), texttemplate="%{text}",
        textfont={"size": 12, "color": color_of("ink")}, hovertemplate=f"{hover}<extra></extra>",
        colorscale=[[0, tint(actor, 0.06)], [1, tint(actor, 0.5)]], showscale=False, xgap=6, ygap=6,
    )  # fmt: skip
    figure = go.Figure(heatmap)
    for i, j in np.argwhere(right):
        corners = {"x0": j - 0.49, "x1": j + 0.49, "y0": i - 0.485, "y1": i + 0.485}
        figure.add_shape(type="rect", line={"width": 1.5, "color": color_of(actor)}, **corners)
    bare = {"showgrid": False, "ticks": ""}
    figure.update_xaxes(side="top", title_text="Predicted", **bare)
    figure.update_yaxes(autorange="reversed", title_text="True label", tickangle=-90, **bare)
    return finished(figure, 300, margin_t=12)


class Roc(NamedTuple):
    """One system's ROC curve, and where the present threshold is on it."""

    actor: str
    curve: pd.DataFrame  # false_positive_rate and true_positive_rate, as fractions
    rates: Mapping[str, Any]  # false_positive_rate and recall_positive at the threshold
    threshold: str  # in words


def roc_chart(curves: Mapping[str, Roc]) -> go.Figure:
    """ROC curves by the systems' names, with the present thresholds marked."""
    figure = _unit_square("False positive rate (%)", "True positive rate (recall, %)")
    notes = [note(75, 75, "chance", "muted", xanchor="left", yanchor="top", xshift=6)]
    for line, (name, (actor, curve, rates, threshold)) in enumerate(curves.items()):
        look, words = ACTORS.get(actor, BASE), f"{name} {threshold}"
        hover = f"{name}<br>FPR %{{x:.1f}}{THIN}%<br>TPR %{{y:.1f}}{THIN}%"
        x, y = 100 * curve["false_positive_rate"], 100 * curve["true_positive_rate"]
        drawn = {"mode": "lines", "line": {"width": 2.5, "dash": look.dash}}
        figure.add_trace(series(name, actor, x, y, hover=hover, **drawn))
        marker = {"size": 13, "symbol": look.symbol, "line": {"color": "#ffffff", "width": 2}}
        at = [100 * rates["false_positive_rate"]], [100 * rates["recall_positive"]]
        figure.add_trace(series(words, actor, *at, hover=words, mode="markers", marker=marker))
        place = {"xanchor": "right", "yanchor": "bottom", "yshift": 20 * line}
        notes.append(note(100, 2, f"{look.sign} {words}", actor, **place))
    return finished(figure, 360, annotations=notes)

"""Figures of evaluations: tidy frames in, plotly figures out; fractions become percent only here."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sentiment_core.figures.style import PALETTE, PAPER, THIN, color_of, finished, note, percent, series
from sentiment_core.systems import SYSTEMS, System

LONGEST_LINE = 32
"""Characters of a published result's name that stand beside its mark on a phone."""

DASHED = {"dash": "dash", "width": 1, "color": color_of("muted")}
PERCENT_TICKS = {"tickvals": [0, 25, 50, 75, 100]}
PUBLISHED = System("", "", "", work="", colour="muted", marker="square-open")
"""How results are drawn that were not measured here."""


class Actor(NamedTuple):
    """How one of the two models is drawn where both share a figure."""

    name: str
    symbol: str
    dash: str
    sign: str
    """The symbol as text, for lists of names."""


ACTORS = {
    "fine": Actor("fine-tuned", "circle", "solid", "●"),
    "base": Actor("base model", "square", "dot", "■"),
}
"""By palette entry; what has another colour is drawn as the base model."""


def _actor_series(actor: str, rows: pd.DataFrame, x: Iterable[object], y: str, hover: str) -> go.Scatter:
    """One model's line of marks: column `y` of `rows` with its interval, as percent; `n` is for the hover."""
    name, symbol, dash, _ = ACTORS[actor]
    return series(
        name, actor, x, 100 * rows[y], bounds=(100 * rows["low"], 100 * rows["high"]), hover=f"{name}{hover}",
        mode="lines+markers", line={"width": 1.5, "dash": dash}, marker={"size": 10, "symbol": symbol},
        customdata=rows[["n"]],
    )  # fmt: skip


def _by_actor(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    return ((str(actor), rows) for actor, rows in table.groupby("actor", sort=False))


def _look(actor: str) -> Actor:
    return ACTORS.get(actor, ACTORS["base"])


def _listed(actor: str, text: str, line: int, *, top: bool) -> dict:
    """Line `line` of a list of names in the top left or the bottom right corner of the unit square."""
    text = f"{_look(actor).sign} {text}"
    if top:
        return note(0, 100, text, actor, xanchor="left", yanchor="top", yshift=-20 * line)
    return note(100, 2, text, actor, xanchor="right", yanchor="bottom", yshift=20 * line)


def _unit_square(figure: go.Figure, x_title: str, y_title: str) -> None:
    """Both axes from 0 to 100 % with the diagonal dashed."""
    figure.add_shape(type="line", x0=0, y0=0, x1=100, y1=100, line=DASHED)
    figure.update_xaxes(range=[-2, 102], title_text=x_title, **PERCENT_TICKS)
    figure.update_yaxes(range=[-2, 102], title_text=y_title, **PERCENT_TICKS)


def systems_chart(table: pd.DataFrame) -> go.Figure:
    """Accuracy of every system from worst to best, with intervals, from 0 to 100 and chance marked.

    Systems measured here have a name above their line; published results are small, named beside their mark.

    Args:
        table: one row per mark, best first. Columns title, system ("" for a published result),
            accuracy, low, high (fractions; low and high may be NaN).
    """
    rows: list[Any] = list(table.itertuples())[::-1]
    measured = [row.system in SYSTEMS for row in rows]
    titles = [row.title if own else _in_lines(row.title) for row, own in zip(rows, measured, strict=True)]
    rooms = [_room(*pair) for pair in zip(measured[:-1], titles[:-1], titles[1:], strict=True)]
    places = np.cumsum([1.0, *rooms])
    figure = go.Figure()
    figure.add_vline(x=50, line=DASHED)
    notes = [note(50, places[-1] + 0.7, "chance", "muted", xanchor="left", xshift=5, yanchor="bottom")]
    for place, row, title in zip(places, rows, titles, strict=True):
        figure.add_trace(_system_mark(row, place))
        notes += _system_notes(row, place, title)
    figure.update_xaxes(range=[0, 101], title_text="Accuracy (%)", **PERCENT_TICKS)
    around = [places[0] - 0.6, places[-1] + 1.15]
    figure.update_yaxes(range=around, tickvals=places[measured], showticklabels=False)
    height = 78 + int(44 * (places[-1] - places[0] + 1))
    return finished(figure, height, annotations=notes, margin_r=70)


def _system_mark(row: Any, place: float) -> go.Scatter:
    system = SYSTEMS.get(row.system, PUBLISHED)
    hover, bounds = f"{row.title}<br>{percent(row.accuracy, 2)}", None
    if not np.isnan(row.high - row.low):
        hover += f" (95{THIN}% interval {percent(row.low, 2)} to {percent(row.high, 2)})"
        bounds = ([100 * row.low], [100 * row.high])
    look = {"mode": "markers", "marker": {"symbol": system.marker, "size": 9 if system is PUBLISHED else 14}}
    x = [100 * row.accuracy]
    return series(row.title, system.colour, x, [place], bounds=bounds, along="x", hover=hover, **look)


def _system_notes(row: Any, place: float, title: str) -> list[dict]:
    """The name, above the line of a system measured here or beside a published mark, and the figure."""
    system = SYSTEMS.get(row.system, PUBLISHED)
    size, weight = 11 if system is PUBLISHED else 13, 600 if row.system == "fine-tuned" else 400
    font = {"color": color_of(system.colour), "size": size, "weight": weight}
    if system is not PUBLISHED:
        where = {"x": 0, "xanchor": "left", "yanchor": "bottom", "yshift": 6}
    elif row.accuracy > 0.6:  # on the side where there is room
        where = {"xanchor": "right", "xshift": -9}
    else:
        where = {"xanchor": "left", "xshift": 9}
    paper = {"bgcolor": PAPER.light, "borderpad": 0}  # no line runs through a name
    value = percent(row.accuracy, 2 if row.high - row.low < 0.02 else 1)  # NaN is not below
    return [
        note(100 * row.accuracy, place, title, font=font, **paper) | where,
        note(1, place, value, font=font, xref="paper", xanchor="left", xshift=8),
    ]


def _in_lines(name: str) -> str:
    """A published result's name, in two lines where one is too long for a phone.

    >>> _in_lines("BERT-base + in-task pretraining, 110M")
    'BERT-base + in-task<br>pretraining, 110M'
    """
    if len(name) <= LONGEST_LINE:
        return name
    return "<br>".join(textwrap.wrap(name, math.ceil(len(name) / 2) + 3))


def _room(own: bool, name: str, above: str) -> float:
    """Between one row and the next above it, in rows of a system measured here."""
    return 1.0 if own else 0.8 if "<br>" in name + above else 0.55


def reliability_chart(table: pd.DataFrame) -> go.Figure:
    """Predicted probability against the observed rate. Columns actor, mean_p_positive, share_positive, low,
    high, n (fractions; empty bins left out)."""
    figure = go.Figure()
    _unit_square(figure, "Mean predicted probability (%)", "Observed positive rate (%)")
    notes = [note(100, 1, "dashed: perfect calibration", "muted", xanchor="right", yanchor="bottom")]
    hover = f"<br>Mean predicted probability %{{x:.1f}}{THIN}%"
    hover += f"<br>Observed positive rate %{{y:.1f}}{THIN}%, n = %{{customdata[0]:,}}"
    for line, (actor, rows) in enumerate(_by_actor(table)):
        figure.add_trace(_actor_series(actor, rows, 100 * rows["mean_p_positive"], "share_positive", hover))
        notes.append(_listed(actor, ACTORS[actor].name, line, top=True))
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
        colorscale=[[0, _tint(actor, 0.06)], [1, _tint(actor, 0.5)]], showscale=False, xgap=6, ygap=6,
    )  # fmt: skip
    figure = go.Figure(heatmap)
    for i, j in np.argwhere(right):
        figure.add_shape(
            type="rect", x0=j - 0.49, x1=j + 0.49, y0=i - 0.485, y1=i + 0.485,
            line={"width": 1.5, "color": color_of(actor)},
        )  # fmt: skip
    bare = {"showgrid": False, "ticks": ""}
    figure.update_xaxes(side="top", title_text="Predicted", **bare)
    figure.update_yaxes(autorange="reversed", title_text="True label", tickangle=-90, **bare)
    return finished(figure, 300, margin_t=12)


def _tint(name: str, opacity: float) -> str:
    """Halfway between an entry's two forms and translucent: a heatmap is an image, which no rule of
    `theme_css` reaches, so one colour must show on a white page and on a dark one.

    >>> _tint("fine", 0.5)
    'rgba(21, 160, 122, 0.5)'
    """
    light, dark = ([int(form[i : i + 2], 16) for i in (1, 3, 5)] for form in PALETTE[name])
    red, green, blue = ((a + b) // 2 for a, b in zip(light, dark, strict=True))
    return f"rgba({red}, {green}, {blue}, {opacity})"


def roc_chart(
    curves: Mapping[str, tuple[str, pd.DataFrame]], points: Sequence[tuple[str, float, float, str]]
) -> go.Figure:
    """ROC curves with the present thresholds marked.

    Args:
        curves: name -> (actor, columns false_positive_rate and true_positive_rate, as fractions).
        points: (actor, false positive rate, true positive rate, label) of each threshold, one per curve.
    """
    figure = go.Figure()
    _unit_square(figure, "False positive rate (%)", "True positive rate (recall, %)")
    notes = [note(75, 75, "chance", "muted", xanchor="left", yanchor="top", xshift=6)]
    for name, (actor, curve) in curves.items():
        fpr, tpr = 100 * curve["false_positive_rate"], 100 * curve["true_positive_rate"]
        hover = f"{name}<br>FPR %{{x:.1f}}{THIN}%<br>TPR %{{y:.1f}}{THIN}%"
        line = {"width": 2.5, "dash": _look(actor).dash}
        figure.add_trace(series(name, actor, fpr, tpr, hover=hover, mode="lines", line=line))
    for i, (actor, fpr, tpr, label) in enumerate(points):
        marker = {"size": 13, "symbol": _look(actor).symbol, "line": {"color": "#ffffff", "width": 2}}
        at = [100 * fpr], [100 * tpr]
        figure.add_trace(series(label, actor, *at, hover=label, mode="markers", marker=marker))
        notes.append(_listed(actor, label, i, top=False))
    return finished(figure, 360, annotations=notes)

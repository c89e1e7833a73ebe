"""Figures of evaluations: tidy frames in, plotly figures out; fractions become percent only here."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sentiment_core.chart_style import PAPER, THIN, color_of, finished, note, percent
from sentiment_core.systems import SYSTEMS

# ---- accuracy

LONGEST_LINE = 32
"""Characters of a published result's name that stand beside its mark on a phone."""


def systems_chart(table: pd.DataFrame) -> go.Figure:
    """Accuracy of every system from worst to best, with intervals, from 0 to 100 and chance marked.

    Systems measured here have a name above their line; published results are small, named beside their mark.

    Args:
        table: one row per mark, best first. Columns title, system ("" for a published result),
            accuracy, low, high (fractions; low and high may be NaN).
    """
    figure = go.Figure()
    rows = list(reversed(list(table.itertuples())))
    own_rows = [row.system in SYSTEMS for row in rows]
    titles = [row.title if row.system in SYSTEMS else _in_lines(row.title) for row in rows]
    places = np.cumsum(
        [1.0, *(_room(*pair) for pair in zip(own_rows[:-1], titles[:-1], titles[1:], strict=True))]
    )
    figure.add_vline(x=50, line={"dash": "dash", "width": 1, "color": color_of("muted")})
    notes = [note(50, places[-1] + 0.7, "chance", "muted", xanchor="left", xshift=5, yanchor="bottom")]
    for place, row, title in zip(places, rows, titles, strict=True):
        known_as = SYSTEMS.get(row.system)
        color, symbol = (known_as.colour, known_as.marker) if known_as else ("muted", "square-open")
        own = row.system in SYSTEMS
        known = not (np.isnan(row.low) or np.isnan(row.high))
        figure.add_trace(
            go.Scatter(
                x=[100 * row.accuracy],
                y=[place],
                mode="markers",
                name=row.title,
                marker={"color": color_of(color), "symbol": symbol, "size": 14 if own else 9},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 2,
                    "width": 5,
                    "color": color_of(color),
                    "array": [100 * (row.high - row.accuracy)],
                    "arrayminus": [100 * (row.accuracy - row.low)],
                }
                if known
                else None,
                hovertemplate=f"{row.title}<br>{percent(row.accuracy, 2)}"
                + (f" (95{THIN}% interval {percent(row.low, 2)} to {percent(row.high, 2)})" if known else "")
                + "<extra></extra>",
            )
        )
        size = 13 if own else 11
        weight = 600 if row.system == "fine-tuned" else 400
        font = {"color": color_of(color), "size": size, "weight": weight}
        if own:
            where = {"x": 0, "xanchor": "left", "yanchor": "bottom", "yshift": 6}
        elif row.accuracy > 0.6:  # on the side where there is room
            where = {"xanchor": "right", "xshift": -9}
        else:
            where = {"xanchor": "left", "xshift": 9}
        paper = {"bgcolor": PAPER.light, "borderpad": 0}  # no line runs through a name
        notes.append(note(100 * row.accuracy, place, title) | where | paper | {"font": font})
        value = percent(row.accuracy, 2 if known and row.high - row.low < 0.02 else 1)
        notes.append(note(1, place, value, xref="paper", xanchor="left", xshift=8) | {"font": font})
    figure.update_xaxes(range=[0, 101], tickvals=[0, 25, 50, 75, 100], title_text="reviews answered right, %")
    figure.update_yaxes(
        range=[places[0] - 0.6, places[-1] + 1.15],
        tickvals=places[own_rows],
        showticklabels=False,
        title_text="",
    )
    finished(figure, 78 + int(44 * (places[-1] - places[0] + 1)), annotations=notes)
    return figure.update_layout(margin_r=70)


def _in_lines(name: str) -> str:
    """A published result's name, in two lines where one is too long for a phone.

    >>> _in_lines("BERT-base + in-task pretraining, 110M")
    'BERT-base + in-task<br>pretraining, 110M'
    """
    return (
        "<br>".join(textwrap.wrap(name, math.ceil(len(name) / 2) + 3)) if len(name) > LONGEST_LINE else name
    )


def _room(own: bool, name: str, above: str) -> float:
    """Between one row and the next above it, in rows of a system measured here."""
    return 1.0 if own else 0.8 if "<br>" in name + above else 0.55


def slices_chart(table: pd.DataFrame, *, x_title: str) -> go.Figure:
    """Accuracy of both models in parts of the reviews. Columns actor ("base", "fine"), part, accuracy,
    low, high, n (fractions; parts in drawing order)."""
    figure = go.Figure()
    figure.add_hline(y=50, line={"dash": "dash", "width": 1, "color": color_of("muted")})
    parts = list(dict.fromkeys(table["part"]))
    notes = [note(0, 50, "chance", "muted", xref="paper", xanchor="left", yanchor="top", yshift=-8)]
    for actor, rows in table.groupby("actor", sort=False):
        name, symbol = ("fine-tuned", "circle") if actor == "fine" else ("base model", "square")
        figure.add_trace(
            go.Scatter(
                x=rows["part"],
                y=100 * rows["accuracy"],
                mode="lines+markers",
                name=name,
                line={"color": color_of(actor), "width": 1.5, "dash": "solid" if actor == "fine" else "dot"},
                marker={"color": color_of(actor), "size": 10, "symbol": symbol},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 1.5,
                    "width": 5,
                    "color": color_of(actor),
                    "array": 100 * (rows["high"] - rows["accuracy"]),
                    "arrayminus": 100 * (rows["accuracy"] - rows["low"]),
                },
                customdata=rows[["n"]],
                hovertemplate=f"{name}, %{{x}}<br>%{{y:.1f}}{THIN}% right of "
                f"%{{customdata[0]:,}}<extra></extra>",
            )
        )
        middle = rows.iloc[len(rows) // 2]
        shift = 24 if actor == "fine" else -24
        notes.append(note(parts.index(middle["part"]), 100 * middle["accuracy"], name, actor, yshift=-shift))
    figure.update_xaxes(title_text=x_title, type="category", range=[-0.4, len(parts) - 0.6], tickangle=0)
    figure.update_yaxes(range=[0, 102], tickvals=[0, 25, 50, 75, 100], title_text="right, %")
    return finished(figure, 320, annotations=notes).update_xaxes(tickfont_size=11)


def reliability_chart(table: pd.DataFrame) -> go.Figure:
    """Stated probability against what happened. Columns actor, mean_p_positive, share_positive, low,
    high, n (fractions; empty bins left out)."""
    figure = go.Figure()
    figure.add_shape(
        type="line", x0=0, y0=0, x1=100, y1=100, line={"dash": "dash", "width": 1, "color": color_of("muted")}
    )
    notes = [note(100, 1, "dashed: as often as stated", "muted", xanchor="right", yanchor="bottom")]
    for line, (actor, rows) in enumerate(table.groupby("actor", sort=False)):
        name, symbol = ("fine-tuned", "circle") if actor == "fine" else ("base model", "square")
        figure.add_trace(
            go.Scatter(
                x=100 * rows["mean_p_positive"],
                y=100 * rows["share_positive"],
                mode="lines+markers",
                name=name,
                line={"color": color_of(actor), "width": 1.5, "dash": "solid" if actor == "fine" else "dot"},
                marker={"color": color_of(actor), "size": 9, "symbol": symbol},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 1,
                    "width": 3,
                    "color": color_of(actor),
                    "array": 100 * (rows["high"] - rows["share_positive"]),
                    "arrayminus": 100 * (rows["share_positive"] - rows["low"]),
                },
                customdata=rows[["n"]],
                hovertemplate=f"{name} said %{{x:.1f}}{THIN}%<br>%{{y:.1f}}{THIN}% of %{{customdata[0]:,}} "
                "were positive<extra></extra>",
            )
        )
        sign = "●" if actor == "fine" else "■"  # listed in the corner that a usual model leaves free
        where = {"xanchor": "left", "yanchor": "top", "yshift": -20 * line}
        notes.append(note(0, 100, f"{sign} {name}", actor) | where)
    figure.update_xaxes(range=[-2, 102], tickvals=[0, 25, 50, 75, 100], title_text="stated P(positive), %")
    figure.update_yaxes(range=[-2, 102], tickvals=[0, 25, 50, 75, 100], title_text="really positive, %")
    return finished(figure, 340, annotations=notes)


# ---- confusion


def confusion_chart(counts: pd.DataFrame, actor: str) -> go.Figure:
    """Counts by true label and answer; the tint is the share of the row, on one scale for every matrix.

    Args:
        counts: rows "Negative" and "Positive" (the truth), columns the answers, integers.
        actor: "base" or "fine".
    """
    shares = counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0).fillna(0.0)
    shapes, notes, ink = [], [], color_of("ink")
    for i, truth in enumerate(counts.index):
        for j, answer in enumerate(counts.columns):
            share, right = float(shares.iloc[i, j]), truth == answer
            shapes.append(
                {
                    "type": "rect",
                    "x0": j - 0.48,
                    "x1": j + 0.48,
                    "y0": i - 0.47,
                    "y1": i + 0.47,
                    "layer": "below",
                    "fillcolor": color_of(actor),
                    "opacity": 0.04 + 0.4 * share,
                    "line": {"width": 0},
                }
            )
            shapes.append(
                {
                    "type": "rect",
                    "x0": j - 0.48,
                    "x1": j + 0.48,
                    "y0": i - 0.47,
                    "y1": i + 0.47,
                    "line": {"width": 1.5 if right else 1, "color": color_of(actor if right else "line")},
                }
            )
            word = "right" if right else "no answer" if answer not in counts.index else "wrong"
            notes.append(
                note(
                    j,
                    i,
                    f"{int(counts.iloc[i, j]):,}",
                    font={"size": 22, "color": ink},
                    yshift=11,
                )
            )
            notes.append(
                note(
                    j,
                    i,
                    f"{percent(share)} · {word}",
                    font={"size": 12, "color": ink},
                    yshift=-14,
                )
            )
    figure = go.Figure(
        go.Scatter(
            x=[j for _ in counts.index for j in range(counts.shape[1])],
            y=[i for i in range(len(counts)) for _ in counts.columns],
            mode="markers",
            marker={"size": 44, "opacity": 0},
            customdata=[
                [truth, answer, int(counts.iloc[i, j]), 100 * float(shares.iloc[i, j])]
                for i, truth in enumerate(counts.index)
                for j, answer in enumerate(counts.columns)
            ],
            hovertemplate="%{customdata[0]} reviews answered %{customdata[1]}: %{customdata[2]:,} "
            f"(%{{customdata[3]:.1f}}{THIN}%)<extra></extra>",
        )
    )
    figure.update_xaxes(
        tickvals=list(range(counts.shape[1])),
        ticktext=list(counts.columns),
        range=[-0.5, counts.shape[1] - 0.5],
        side="top",
        showgrid=False,
        title_text="the model's answer",
    )
    figure.update_yaxes(
        tickvals=list(range(len(counts))),
        ticktext=list(counts.index),
        range=[len(counts) - 0.5, -0.5],
        showgrid=False,
        title_text="the label",
        tickangle=-90,
    )
    return finished(figure, 300, shapes=shapes, annotations=notes).update_layout(margin_t=12)


def roc_chart(
    curves: Mapping[str, tuple[str, pd.DataFrame]], points: Sequence[tuple[str, float, float, str]]
) -> go.Figure:
    """ROC curves with the present thresholds marked.

    Args:
        curves: name -> (actor, columns false_positive_rate and true_positive_rate, as fractions).
        points: (actor, false positive rate, true positive rate, label) of each threshold, one per curve.
    """
    figure = go.Figure()
    figure.add_shape(
        type="line", x0=0, y0=0, x1=100, y1=100, line={"dash": "dash", "width": 1, "color": color_of("muted")}
    )
    notes = [note(75, 75, "chance", "muted", xanchor="left", yanchor="top", xshift=6)]
    for line, ((name, (actor, curve)), point) in enumerate(zip(curves.items(), points, strict=True)):
        sign = "●" if actor == "fine" else "■"  # listed in the corner that a usual model leaves free
        where = {"xanchor": "right", "yanchor": "bottom", "yshift": 20 * line}
        notes.append(note(100, 2, f"{sign} {point[3]}", actor) | where)
        figure.add_trace(
            go.Scatter(
                x=100 * curve["false_positive_rate"],
                y=100 * curve["true_positive_rate"],
                mode="lines",
                name=name,
                line={"color": color_of(actor), "width": 2.5, "dash": "solid" if actor == "fine" else "dot"},
                hovertemplate=f"{name}<br>%{{x:.1f}}{THIN}% false alarms<br>%{{y:.1f}}{THIN}% of positives "
                f"found<extra></extra>",
            )
        )
    for actor, false_rate, true_rate, label in points:
        figure.add_trace(
            go.Scatter(
                x=[100 * false_rate],
                y=[100 * true_rate],
                mode="markers",
                name=label,
                marker={
                    "color": color_of(actor),
                    "size": 13,
                    "symbol": "circle" if actor == "fine" else "square",
                    "line": {"color": "#ffffff", "width": 2},
                },
                hovertemplate=f"{label}<extra></extra>",
            )
        )
    figure.update_xaxes(
        range=[-2, 102], tickvals=[0, 25, 50, 75, 100], title_text="negative reviews called positive, %"
    )
    figure.update_yaxes(
        range=[-2, 102], tickvals=[0, 25, 50, 75, 100], title_text="positive reviews found, %"
    )
    return finished(figure, 360, annotations=notes)

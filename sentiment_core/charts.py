"""Tidy frames in, plotly figures out. Pure: no files, no Gradio; fractions become percent only here.

One figure serves both themes: it is drawn in the palette's light colours on a transparent ground, and
`theme_css` gives the rules that turn each of them into its dark partner when the page is dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots


class Tint(NamedTuple):
    """One meaning's colour on a white and on a near-black page."""

    light: str
    dark: str


PALETTE: dict[str, Tint] = {
    "base": Tint("#6B7688", "#9AA7BA"),
    "fine": Tint("#007A5A", "#2BC79A"),
    "positive": Tint("#0072B2", "#56B4E9"),
    "negative": Tint("#C75000", "#F08A3C"),
    "ink": Tint("#1B2430", "#E6EAF0"),
    "muted": Tint("#596273", "#A3ADBD"),
    "line": Tint("#D9DEE6", "#333C49"),
    "run2": Tint("#7A4FA3", "#C6A4EB"),
    "run3": Tint("#8A6100", "#E0B84C"),
    "run4": Tint("#A13B6F", "#EE9CC4"),
}
"""Actors first, then text and lines, then the colours of further runs in one chart."""

THIN = "\u202f"
"""Narrow no-break space, between a number and its unit."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
TRANSPARENT = "rgba(0,0,0,0)"
RUN_STYLES = (("fine", "solid"), ("run2", "dash"), ("run3", "dot"), ("run4", "dashdot"))

ACTORS: dict[str, tuple[str, str]] = {
    "baseline-scored": ("base", "circle"),
    "baseline-generated": ("base", "square"),
    "baseline-few-shot": ("base", "triangle-up"),
    "tfidf-logreg": ("ink", "diamond"),
    "fine-tuned": ("fine", "circle"),
}
"""System -> palette entry and mark."""


def theme_css() -> str:
    """CSS rules that redraw every palette colour of a figure in its dark partner under `.dark`."""
    rules = []
    for tint in PALETTE.values():
        red, green, blue = (int(tint.light[i : i + 2], 16) for i in (1, 3, 5))
        for part in ("fill", "stroke"):
            selector = f'.dark .js-plotly-plot [style*="{part}: rgb({red}, {green}, {blue})"]'
            rules.append(f"{selector}{{{part}:{tint.dark} !important}}")
    return "\n".join(rules)


def percent(fraction: float, digits: int = 1) -> str:
    """>>> percent(0.9509) == "95.1\u202f%"
    True
    """
    return f"{100 * fraction:.{digits}f}{THIN}%"


def _color(name: str) -> str:
    return PALETTE[name].light


def _layout(figure: go.Figure, height: int, **more: object) -> go.Figure:
    axis = {
        "gridcolor": _color("line"),
        "linecolor": _color("line"),
        "zeroline": False,
        "automargin": True,
        "tickfont": {"color": _color("muted"), "size": 12},
        "title": {"font": {"color": _color("muted"), "size": 13}},
        "title_standoff": 8,
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 12, "t": 30, "b": 8},  # above: room for the camera button
        paper_bgcolor=TRANSPARENT,
        plot_bgcolor=TRANSPARENT,
        font={"family": FONT, "size": 13, "color": _color("ink")},
        hoverlabel={"bgcolor": "#101828", "bordercolor": "#101828", "font": {"color": "#ffffff", "size": 13}},
        showlegend=False,
        dragmode=False,
        modebar={"bgcolor": TRANSPARENT, "color": "#808997", "activecolor": _color("fine")},
        **more,
    )
    return figure


def empty_figure() -> go.Figure:
    """A figure without axes, for a place that has nothing to draw yet."""
    figure = _layout(go.Figure(), 40).update_layout(margin_t=8)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return figure


def _note(x: float, y: float, text: str, color: str = "ink", **more: object) -> dict:
    return {
        "x": x,
        "y": y,
        "text": text,
        "showarrow": False,
        "font": {"color": _color(color), "size": 13},
        **more,
    }


# ---- accuracy


def systems_chart(table: pd.DataFrame) -> go.Figure:
    """Accuracy of every system from worst to best, with intervals, from 0 to 100 and chance marked.

    Systems measured here have a name above their line; published results are small, named beside their mark.

    Args:
        table: one row per mark, best first. Columns title, system ("" for a published result),
            accuracy, low, high (fractions; low and high may be NaN).
    """
    figure = go.Figure()
    rows = list(reversed(list(table.itertuples())))
    own_rows = [row.system in ACTORS for row in rows]
    places = np.cumsum([1.0, *(1.0 if own else 0.55 for own in own_rows[:-1])])
    figure.add_vline(x=50, line={"dash": "dash", "width": 1, "color": _color("muted")})
    notes = [_note(50, places[-1] + 0.7, "chance", "muted", xanchor="left", xshift=5, yanchor="bottom")]
    for place, row in zip(places, rows, strict=True):
        color, symbol = ACTORS.get(row.system, ("muted", "square-open"))
        own = row.system in ACTORS
        known = not (np.isnan(row.low) or np.isnan(row.high))
        figure.add_trace(
            go.Scatter(
                x=[100 * row.accuracy],
                y=[place],
                mode="markers",
                name=row.title,
                marker={"color": _color(color), "symbol": symbol, "size": 14 if own else 9},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 2,
                    "width": 5,
                    "color": _color(color),
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
        font = {"color": _color(color), "size": size, "weight": weight}
        if own:
            where = {"x": 0, "xanchor": "left", "yanchor": "bottom", "yshift": 6}
        elif row.accuracy > 0.6:  # on the side where there is room
            where = {"xanchor": "right", "xshift": -9}
        else:
            where = {"xanchor": "left", "xshift": 9}
        notes.append(_note(100 * row.accuracy, place, row.title) | where | {"font": font})
        value = percent(row.accuracy, 2 if known and row.high - row.low < 0.02 else 1)
        notes.append(_note(1, place, value, xref="paper", xanchor="left", xshift=8) | {"font": font})
    figure.update_xaxes(
        range=[-1, 101], tickvals=[0, 25, 50, 75, 100], title_text="reviews answered right, %"
    )
    figure.update_yaxes(
        range=[places[0] - 0.6, places[-1] + 1.15], tickvals=places, showticklabels=False, title_text=""
    )
    _layout(figure, 78 + int(44 * (places[-1] - places[0] + 1)), annotations=notes)
    return figure.update_layout(margin_r=70)


def slices_chart(table: pd.DataFrame, *, x_title: str) -> go.Figure:
    """Accuracy of both models in parts of the reviews. Columns actor ("base", "fine"), part, accuracy,
    low, high, n (fractions; parts in drawing order)."""
    figure = go.Figure()
    figure.add_hline(y=50, line={"dash": "dash", "width": 1, "color": _color("muted")})
    parts = list(dict.fromkeys(table["part"]))
    notes = [_note(0, 50, "chance", "muted", xref="paper", xanchor="left", yanchor="top", yshift=-8)]
    for actor, rows in table.groupby("actor", sort=False):
        name, symbol = ("fine-tuned", "circle") if actor == "fine" else ("base model", "square")
        figure.add_trace(
            go.Scatter(
                x=rows["part"],
                y=100 * rows["accuracy"],
                mode="lines+markers",
                name=name,
                line={"color": _color(actor), "width": 1.5, "dash": "solid" if actor == "fine" else "dot"},
                marker={"color": _color(actor), "size": 10, "symbol": symbol},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 1.5,
                    "width": 5,
                    "color": _color(actor),
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
        notes.append(_note(parts.index(middle["part"]), 100 * middle["accuracy"], name, actor, yshift=-shift))
    figure.update_xaxes(title_text=x_title, type="category", range=[-0.4, len(parts) - 0.6], tickangle=0)
    figure.update_yaxes(range=[0, 102], tickvals=[0, 25, 50, 75, 100], title_text="right, %")
    return _layout(figure, 320, annotations=notes).update_xaxes(tickfont_size=11)


def reliability_chart(table: pd.DataFrame) -> go.Figure:
    """Stated probability against what happened. Columns actor, mean_p_positive, share_positive, low,
    high, n (fractions; empty bins left out)."""
    figure = go.Figure()
    figure.add_shape(
        type="line", x0=0, y0=0, x1=100, y1=100, line={"dash": "dash", "width": 1, "color": _color("muted")}
    )
    notes = [_note(100, 1, "dashed: as often as stated", "muted", xanchor="right", yanchor="bottom")]
    for line, (actor, rows) in enumerate(table.groupby("actor", sort=False)):
        name, symbol = ("fine-tuned", "circle") if actor == "fine" else ("base model", "square")
        figure.add_trace(
            go.Scatter(
                x=100 * rows["mean_p_positive"],
                y=100 * rows["share_positive"],
                mode="lines+markers",
                name=name,
                line={"color": _color(actor), "width": 1.5, "dash": "solid" if actor == "fine" else "dot"},
                marker={"color": _color(actor), "size": 9, "symbol": symbol},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 1,
                    "width": 3,
                    "color": _color(actor),
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
        notes.append(_note(0, 100, f"{sign} {name}", actor) | where)
    figure.update_xaxes(range=[-2, 102], tickvals=[0, 25, 50, 75, 100], title_text="stated P(positive), %")
    figure.update_yaxes(range=[-2, 102], tickvals=[0, 25, 50, 75, 100], title_text="really positive, %")
    return _layout(figure, 340, annotations=notes)


# ---- loss curves

X_TITLES = {"step": "optimizer steps", "examples": "reviews seen", "seconds": "seconds of training"}


def _smooth(values: pd.Series) -> pd.Series:
    """Exponential mean whose half-life is a fiftieth of the run, at least two steps."""
    return values.ewm(halflife=max(2.0, len(values) / 50)).mean()


def _thin(rows: pd.DataFrame, limit: int = 1200) -> pd.DataFrame:
    """At most `limit` rows, evenly taken, the last one kept: more cannot be told apart on a screen."""
    if len(rows) <= limit:
        return rows
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, limit).astype(int))]


def _log_range(values: Sequence[float]) -> dict[str, object]:
    """Range and plain ticks of a logarithmic axis around the positive ones of `values`."""
    positive = [value for value in values if 0 < value < np.inf]
    low, high = (min(positive), max(positive)) if positive else (0.1, 1.0)
    ticks = [m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)]
    return {
        "range": [float(np.log10(low / 1.25)), float(np.log10(high * 1.25))],
        "tickvals": ticks,
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def history_chart(histories: Mapping[str, pd.DataFrame], *, x: str = "step") -> go.Figure:
    """Loss (raw thin, smoothed thick, validation as marks; log scale) above validation accuracy, one x axis.

    Args:
        histories: run id -> rows as `artifacts.read_history` gives them.
        x: "step", "examples" or "seconds".
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.64, 0.36], vertical_spacing=0.07)
    notes: list[dict] = []
    losses: list[float] = []
    accuracies: list[float] = []
    for (run_id, rows), (color, dash) in zip(histories.items(), RUN_STYLES * len(histories), strict=False):
        train = rows[rows["loss"].notna()]
        line = {"color": _color(color), "dash": dash}
        shown = _thin(train.assign(smooth=_smooth(train["loss"])))
        hover = f"{run_id}<br>{X_TITLES[x]} %{{x:,.0f}}<br>"
        figure.add_trace(
            go.Scatter(
                x=shown[x],
                y=shown["loss"],
                mode="lines",
                line=line | {"width": 1, "dash": "solid"},
                opacity=0.3,
                name=f"{run_id}, raw",
                hoverinfo="skip",
            ),
            row=1,
            col=1,
        )
        figure.add_trace(
            go.Scatter(
                x=shown[x],
                y=shown["smooth"],
                mode="lines",
                line=line | {"width": 2.5},
                name=f"{run_id}, smoothed",
                hovertemplate=hover + "training loss %{y:.3f} (smoothed)<extra></extra>",
            ),
            row=1,
            col=1,
        )
        checks = rows[rows["eval_loss"].notna()]
        mark = {
            "color": _color(color),
            "size": 9,
            "symbol": "diamond",
            "line": {"width": 1, "color": "#ffffff"},
        }
        for column, place, text in (
            ("eval_loss", 1, "validation loss %{y:.3f}"),
            ("eval_accuracy", 2, f"validation accuracy %{{y:.2f}}{THIN}%"),
        ):
            seen = checks[checks[column].notna()]
            values = seen[column] * (100 if place == 2 else 1)
            mode = "markers" if place == 1 or len(seen) < 2 else "lines+markers"
            figure.add_trace(
                go.Scatter(
                    x=seen[x],
                    y=values,
                    mode=mode,
                    marker=mark,
                    cliponaxis=False,
                    line=line | {"width": 1.5},
                    name=f"{run_id}, validation",
                    hovertemplate=hover + text + "<extra></extra>",
                ),
                row=place,
                col=1,
            )
            if place == 2 and len(seen):
                accuracies += list(values)
                last = seen.iloc[-1]
                notes.append(
                    _note(float(last[x]), 100 * last[column], f"{run_id} {percent(last[column])}", color)
                    | {"xref": "x2", "yref": "y2", "xanchor": "right", "yanchor": "bottom", "yshift": 6}
                )
        losses += [*train["loss"], *checks["eval_loss"]]
    figure.update_yaxes(title_text="loss, log scale", type="log", **_log_range(losses), row=1, col=1)
    low = min([80.0, *accuracies]) if accuracies else 50.0
    figure.update_yaxes(
        title_text="validation accuracy, %", range=[max(0, 5 * (low // 5)), 102], row=2, col=1
    )
    figure.update_xaxes(title_text=X_TITLES[x], rangemode="tozero", row=2, col=1)
    return _layout(figure, 480, annotations=notes)


def schedule_chart(histories: Mapping[str, pd.DataFrame], *, x: str = "step") -> go.Figure:
    """Learning rate above gradient norm, one x axis; arguments as `history_chart`."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    for (run_id, rows), (color, dash) in zip(histories.items(), RUN_STYLES * len(histories), strict=False):
        shown = _thin(rows[rows["loss"].notna()])
        for place, column in ((1, "learning_rate"), (2, "grad_norm")):
            figure.add_trace(
                go.Scatter(
                    x=shown[x],
                    y=shown[column],
                    mode="lines",
                    name=run_id,
                    line={"color": _color(color), "dash": dash, "width": 1.8 if place == 1 else 1},
                    hovertemplate=f"{run_id}<br>{X_TITLES[x]} %{{x:,.0f}}<br>{column.replace('_', ' ')} "
                    "%{y:.3g}<extra></extra>",
                ),
                row=place,
                col=1,
            )
    figure.update_yaxes(title_text="learning rate", rangemode="tozero", exponentformat="e", row=1, col=1)
    figure.update_yaxes(title_text="gradient norm", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text=X_TITLES[x], rangemode="tozero", row=2, col=1)
    return _layout(figure, 380)


# ---- confusion


def confusion_chart(counts: pd.DataFrame, actor: str) -> go.Figure:
    """Counts by true label and answer; the tint is the share of the row, on one scale for every matrix.

    Args:
        counts: rows "Negative" and "Positive" (the truth), columns the answers, integers.
        actor: "base" or "fine".
    """
    shares = counts.div(counts.sum(axis=1).replace(0, np.nan), axis=0).fillna(0.0)
    shapes, notes = [], []
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
                    "fillcolor": _color(actor),
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
                    "line": {"width": 1.5 if right else 1, "color": _color(actor if right else "line")},
                }
            )
            word = "right" if right else "no answer" if answer not in counts.index else "wrong"
            notes.append(
                _note(
                    j, i, f"{int(counts.iloc[i, j]):,}", font={"size": 22, "color": _color("ink")}, yshift=11
                )
            )
            notes.append(
                _note(
                    j, i, f"{percent(share)} · {word}", font={"size": 12, "color": _color("ink")}, yshift=-14
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
    return _layout(figure, 300, shapes=shapes, annotations=notes).update_layout(margin_t=12)


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
        type="line", x0=0, y0=0, x1=100, y1=100, line={"dash": "dash", "width": 1, "color": _color("muted")}
    )
    notes = [_note(75, 75, "chance", "muted", xanchor="left", yanchor="top", xshift=6)]
    for line, ((name, (actor, curve)), point) in enumerate(zip(curves.items(), points, strict=True)):
        sign = "●" if actor == "fine" else "■"  # listed in the corner that a usual model leaves free
        where = {"xanchor": "right", "yanchor": "bottom", "yshift": 20 * line}
        notes.append(_note(100, 2, f"{sign} {point[3]}", actor) | where)
        figure.add_trace(
            go.Scatter(
                x=100 * curve["false_positive_rate"],
                y=100 * curve["true_positive_rate"],
                mode="lines",
                name=name,
                line={"color": _color(actor), "width": 2.5, "dash": "solid" if actor == "fine" else "dot"},
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
                    "color": _color(actor),
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
    return _layout(figure, 360, annotations=notes)

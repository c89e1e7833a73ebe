"""Figures of training: histories in, plotly figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sentiment_core.chart_style import THIN, color_of, finished, note, percent

RUN_STYLES = (("fine", "solid"), ("run2", "dash"), ("run3", "dot"), ("run4", "dashdot"))
"""Palette entry and dash of each run in one chart."""

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
        line = {"color": color_of(color), "dash": dash}
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
            "color": color_of(color),
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
                last, above = seen.iloc[-1], len(notes) % 2 == 0
                notes.append(
                    note(float(last[x]), 100 * last[column], f"{run_id} {percent(last[column])}", color)
                    | {"xref": "x2", "yref": "y2", "xanchor": "right"}
                    | {"yanchor": "bottom" if above else "top", "yshift": 6 if above else -6}
                )
        losses += [*train["loss"], *checks["eval_loss"]]
    figure.update_yaxes(title_text="loss, log scale", type="log", **_log_range(losses), row=1, col=1)
    low = min([80.0, *accuracies]) if accuracies else 50.0
    figure.update_yaxes(
        title_text="validation accuracy, %", range=[max(0, 5 * (low // 5)), 102], row=2, col=1
    )
    figure.update_xaxes(title_text=X_TITLES[x], rangemode="tozero", row=2, col=1)
    return finished(figure, 480, annotations=notes)


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
                    line={"color": color_of(color), "dash": dash, "width": 1.8 if place == 1 else 1},
                    hovertemplate=f"{run_id}<br>{X_TITLES[x]} %{{x:,.0f}}<br>{column.replace('_', ' ')} "
                    "%{y:.3g}<extra></extra>",
                ),
                row=place,
                col=1,
            )
    figure.update_yaxes(title_text="learning rate", rangemode="tozero", exponentformat="e", row=1, col=1)
    figure.update_yaxes(title_text="gradient norm", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(title_text=X_TITLES[x], rangemode="tozero", row=2, col=1)
    return finished(figure, 380)

"""Figures of training: histories in, plotly figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sentiment_core.figures.style import THIN, finished, note, percent, series

RUN_STYLES = (("fine", "solid"), ("run2", "dash"), ("run3", "dot"), ("run4", "dashdot"))
"""Palette entry and dash of each run in one chart."""

X_TITLES = {"step": "Optimizer steps", "examples": "Reviews seen", "seconds": "Training time (s)"}


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
    ends = [float(np.log10(low / 1.25)), float(np.log10(high * 1.25))]
    return {"range": ends, "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def history_chart(histories: Mapping[str, pd.DataFrame], *, x: str = "step") -> go.Figure:
    """Loss (raw thin, smoothed thick, validation as marks; log scale) above validation accuracy, one x axis.

    Args:
        histories: run id -> rows as `artifacts.read_history` gives them.
        x: "step", "examples" or "seconds".
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.64, 0.36], vertical_spacing=0.07)
    notes, losses, accuracies = [], [], []
    for (run_id, rows), (color, dash) in zip(histories.items(), RUN_STYLES * len(histories), strict=False):
        train = rows[rows["loss"].notna()]
        checks = rows[rows["eval_loss"].notna()].assign(accuracy=lambda r: 100 * r["eval_accuracy"])
        scored = checks[checks["accuracy"].notna()]
        shown = _thin(train.assign(smooth=_smooth(train["loss"])))
        draw = partial(_line, run_id, color, x)
        mark = {
            "marker": {"size": 9, "symbol": "diamond", "line": {"width": 1, "color": "#ffffff"}},
            "line": {"width": 1.5, "dash": dash},
            "cliponaxis": False,
        }
        mode = "markers" if len(scored) < 2 else "lines+markers"
        traces = [
            draw(shown, "loss", "", line={"width": 1}, opacity=0.3, hoverinfo="skip"),
            draw(shown, "smooth", "training loss %{y:.3f} (smoothed)", line={"width": 2.5, "dash": dash}),
            draw(checks, "eval_loss", "validation loss %{y:.3f}", mode="markers", **mark),
            draw(scored, "accuracy", f"validation accuracy %{{y:.2f}}{THIN}%", mode=mode, **mark),
        ]
        figure.add_traces(traces, rows=[1, 1, 1, 2], cols=[1, 1, 1, 1])
        losses += [*train["loss"], *checks["eval_loss"]]
        accuracies += list(scored["accuracy"])
        if len(scored):
            notes.append(_end_note(run_id, scored.iloc[-1], x, color, above=len(notes) % 2 == 0))
    lowest = min([80.0, *accuracies]) if accuracies else 50.0
    _name_axes(figure, x, "Loss (log scale)", "Validation accuracy (%)")
    figure.update_yaxes(type="log", **_log_range(losses), row=1, col=1)
    figure.update_yaxes(range=[max(0, 5 * (lowest // 5)), 102], row=2, col=1)
    return finished(figure, 480, annotations=notes)


def schedule_chart(histories: Mapping[str, pd.DataFrame], *, x: str = "step") -> go.Figure:
    """Learning rate above gradient norm, one x axis; arguments as `history_chart`."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    for (run_id, rows), (color, dash) in zip(histories.items(), RUN_STYLES * len(histories), strict=False):
        shown, draw = _thin(rows[rows["loss"].notna()]), partial(_line, run_id, color, x)
        traces = [
            draw(shown, "learning_rate", "learning rate %{y:.3g}", line={"width": 1.8, "dash": dash}),
            draw(shown, "grad_norm", "gradient norm %{y:.3g}", line={"width": 1, "dash": dash}),
        ]
        figure.add_traces(traces, rows=[1, 2], cols=[1, 1])
    _name_axes(figure, x, "Learning rate", "Gradient norm")
    figure.update_yaxes(rangemode="tozero").update_yaxes(exponentformat="e", row=1, col=1)
    return finished(figure, 380)


def _line(run: str, color: str, x: str, rows: pd.DataFrame, y: str, hover: str, **look: Any) -> go.Scatter:
    """Column `y` of a run's rows over column `x`."""
    hover = f"{run}<br>{X_TITLES[x]} %{{x:,.0f}}<br>{hover}"
    look.setdefault("mode", "lines")
    return series(run, color, rows[x], rows[y], hover=hover, **look)


def _end_note(run_id: str, last: pd.Series, x: str, color: str, *, above: bool) -> dict:
    """The last validation accuracy, beside its mark in the lower part."""
    side = {"yanchor": "bottom", "yshift": 6} if above else {"yanchor": "top", "yshift": -6}
    text, where = f"{run_id} {percent(last['eval_accuracy'])}", {"xref": "x2", "yref": "y2"}
    return note(float(last[x]), last["accuracy"], text, color, **where, xanchor="right", **side)


def _name_axes(figure: go.Figure, x: str, upper: str, lower: str) -> None:
    figure.update_yaxes(title_text=upper, row=1, col=1)
    figure.update_yaxes(title_text=lower, row=2, col=1)
    figure.update_xaxes(title_text=X_TITLES[x], rangemode="tozero", row=2, col=1)

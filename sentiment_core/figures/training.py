"""Figures of training: histories in; what the page's script replays, and a plotly figure, out."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sentiment_core.figures.style import finished, series

RUN_STYLES = (("fine", "solid"), ("run2", "dash"), ("run3", "dot"), ("run4", "dashdot"))
"""Palette entry and dash of each run in one chart."""


def _smooth(values: pd.Series) -> pd.Series:
    """Geometric exponential mean, half-life a fiftieth of the run, two points at least: steep falls stay."""
    logs = pd.Series(np.log(values.clip(lower=1e-6)))
    return pd.Series(np.exp(logs.ewm(halflife=max(2.0, len(values) / 50)).mean()))


def _thin(rows: pd.DataFrame, limit: int = 1200) -> pd.DataFrame:
    """At most `limit` rows, evenly taken, the last one kept: more cannot be told apart on a screen."""
    if len(rows) <= limit:
        return rows
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, limit).astype(int))]


def evaluations(rows: pd.DataFrame) -> pd.DataFrame:
    """The evaluation lines of a history (`artifacts.read_history`), in order."""
    return rows[rows["eval_loss"].notna() & rows["eval_accuracy"].notna()].sort_values("step")


def joined(checks: pd.DataFrame) -> list[bool]:
    """Whether a line may lead from the evaluation before to each one: it claims to know what lay between.

    At most an epoch and a doubling of the steps may; the doubling keeps what is learned in the first steps
    from looking slow on a logarithmic axis. Columns: step, epoch.
    """
    places = checks[["step", "epoch"]].to_numpy().tolist()
    near = [b[1] - a[1] <= 1 and b[0] <= max(1, 2 * a[0]) for a, b in pairwise(places)]
    return [False, *near][: len(places)]


def replay(histories: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """What `figs.replay` draws: every run's curves, and the histograms of the first one where it has them.

    Args:
        histories: run id -> rows as `artifacts.read_history` gives them; fractions stay fractions.
    """
    styles = RUN_STYLES * len(histories)
    runs = [_run(*one, *style) for one, style in zip(histories.items(), styles, strict=False)]
    counts = [check["counts"] for check in runs[0]["checks"]]
    complete = bool(counts) and all(counts)
    top = min(int(np.max(counts)), 3 * int(np.max(counts[-1]))) if complete else 0
    return {"runs": runs, "top": top}


def _run(name: str, rows: pd.DataFrame, color: str, dash: str) -> dict[str, Any]:
    train, checks = rows[rows["loss"].notna()], evaluations(rows)
    shown = _thin(train.assign(smooth=_smooth(train["loss"])))
    columns = {"loss": "eval_loss", "accuracy": "eval_accuracy", "counts": "eval_counts"}
    marks = checks.assign(joined=joined(checks), **{new: checks[old] for new, old in columns.items()})
    return {
        "name": name, "color": color, "dash": dash,
        "train": shown[["examples", "seconds", "loss", "smooth"]].round(4).to_numpy().tolist(),
        "checks": marks[["step", "examples", "seconds", "joined", *columns]].to_dict("records"),
    }  # fmt: skip


def schedule_chart(histories: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Learning rate above gradient norm over reviews seen; argument as `replay`."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    for (run_id, rows), (color, dash) in zip(histories.items(), RUN_STYLES * len(histories), strict=False):
        shown = _thin(rows[rows["loss"].notna()])
        for row, (column, words, width) in enumerate(
            (("learning_rate", "learning rate", 1.8), ("grad_norm", "gradient norm", 1)), start=1
        ):
            hover = f"{run_id}<br>%{{x:,.0f}} reviews seen<br>{words} %{{y:.3g}}"
            look = {"mode": "lines", "line": {"width": width, "dash": dash}}
            line = series(run_id, color, shown["examples"], shown[column], hover=hover, **look)
            figure.add_trace(line, row=row, col=1)
    figure.update_yaxes(title_text="Learning rate", exponentformat="e", row=1, col=1)
    figure.update_yaxes(title_text="Gradient norm", row=2, col=1).update_yaxes(rangemode="tozero")
    figure.update_xaxes(title_text="Reviews seen", rangemode="tozero", row=2, col=1)
    return finished(figure, 380)

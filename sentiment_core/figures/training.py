"""Figures of training: histories in; what the page's script replays, and a plotly figure, out.

Histories are run -> rows as `artifacts.read_history` gives them; at most as many are drawn as have a style.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sentiment_core.figures.style import finished, series

RUN_STYLES = (("fine", "solid"), ("run2", "8px,4px"), ("run3", "2px,3px"), ("run4", "8px,3px,2px,3px"))
"""Palette entry and dash (as CSS and plotly both know it) of each run in one chart."""


def split(history: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Its training lines and its evaluation lines."""
    return history.dropna(subset=["loss"]), history.dropna(subset=["eval_loss", "eval_accuracy"])


def replay(histories: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """What `figs.replay` draws: the axes' ends, every run's curves, the first one's histograms."""
    runs: list[dict[str, Any]] = [
        {"name": name, "color": color, "dash": dash} | _curves(history)
        for (name, history), (color, dash) in zip(histories.items(), RUN_STYLES, strict=False)
    ]
    counts = [check["counts"] for check in runs[0]["checks"]]
    rows = pd.concat(histories.values())
    losses = rows[["loss", "eval_loss"]].to_numpy()
    losses = losses[losses > 0]
    first, worst = min((n for n in rows["examples"] if n), default=1), min(0.8, rows["eval_accuracy"].min())
    return {
        "runs": runs,
        "reviews": [int(first), max(int(rows["examples"].max()), int(first) + 1)],
        "loss": [losses.min() / 1.15, losses.max() * 1.15],
        "accuracy": [max(0.0, np.floor(20 * worst) / 20 - 0.05), 1],
        "top": min(int(np.max(counts)), 3 * int(np.max(counts[-1]))) if counts and all(counts) else 0,
    }


def _curves(history: pd.DataFrame) -> dict[str, Any]:
    """`smooth`: geometric exponential mean, half-life a fiftieth of the run: steep falls stay. `joined`: if a
    line may lead there from the evaluation before, at most an epoch and a doubling of the steps away: it
    claims to know what lay between, and early learning would look slow on a logarithmic axis."""
    train, checks = split(history)
    logs = pd.Series(np.log(train["loss"].clip(lower=1e-6)))
    train = train.assign(smooth=np.exp(logs.ewm(halflife=max(2.0, len(train) / 50)).mean()))
    checks = checks.drop(columns="loss").rename(columns=lambda name: name.removeprefix("eval_"))
    joined = (checks["epoch"].diff() <= 1) & (checks["step"] <= (2 * checks["step"].shift()).clip(lower=1))
    shown = ["step", "examples", "seconds", "joined", "loss", "accuracy", "counts"]
    return {
        "train": train[["examples", "seconds", "loss", "smooth"]].round(4).to_dict("records"),
        "checks": checks.assign(joined=joined)[shown].to_dict("records"),
    }


def loss_chart(histories: Mapping[str, pd.DataFrame]) -> go.Figure:
    """Training loss as logged above validation accuracy over examples seen."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    columns = {"loss": "Training loss", "eval_accuracy": "Validation accuracy"}
    for (name, history), (color, dash) in zip(histories.items(), RUN_STYLES, strict=False):
        for row, (column, words) in enumerate(columns.items(), start=1):
            logged = history.dropna(subset=[column])
            hover = f"{name}<br>%{{x:,.0f}} examples seen<br>{words.lower()} %{{y:.3g}}"
            look = {"mode": "lines", "line_width": 1.5, "line_dash": dash}
            line = series(name, color, logged["examples"], logged[column], hover=hover, **look)
            figure.add_trace(line, row=row, col=1).update_yaxes(title_text=words, row=row, col=1)
    figure.update_xaxes(title_text="Examples seen", rangemode="tozero", row=2, col=1)
    return finished(figure.update_yaxes(tickformat=".0%", row=2, col=1), 380)

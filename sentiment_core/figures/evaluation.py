"""Figures of evaluations: tidy frames in, plotly figures out; fractions become percent only here."""

import re
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from sentiment_core.figures import style
from sentiment_core.figures.style import THIN, color_of, finished, interval, note, percent, series, tint
from sentiment_core.systems import SYSTEMS, System

COSTS = {
    "parameters": "Parameters of the base model", "gpu_seconds": "GPU seconds of training",
    "peak_memory_gb": "Peak GPU memory of training (GB)", "trainable_share": "Trained weights (% of base)",
    "adapter_mb": "Size of the adapter (MB)", "answer_ms": "Answering in batches (ms an answer)",
}  # fmt: skip
LOGARITHMIC = (0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)  # accuracies marked on such an axis
PUBLISHED = System("", "", "", work="", colour="muted", marker="square-open")  # not measured here


def systems_chart(table: pd.DataFrame, start: int = 0) -> go.Figure:
    """Accuracy from worst to best, with intervals and chance; published results are small.
    table: one row per mark, best first. Columns title, system ("" for a published result), accuracy, low,
    high (fractions; low and high may be NaN).
    start: of the axis, in percent; what lies below is drawn there as an arrow to the left."""
    lines = [t.replace(", ", ",<br>") if len(t) > 46 else t for t in table["title"]]  # a phone is no wider
    rows: list[Any] = list(table.assign(title=lines).iloc[::-1].itertuples())
    own = np.array([row.system in SYSTEMS for row in rows])
    room = np.where(own, 1.0, 0.55) + [0.35 * ("<br>" in row.title) for row in rows]  # above each
    places = np.cumsum([1.0, *room[:-1]])
    figure = go.Figure()
    if start < 50:
        corner = {"xanchor": "left", "xshift": 5, "yanchor": "bottom"}
        figure.add_vline(x=50, line={"dash": "dash", "width": 1, "color": color_of("muted")})
        figure.add_annotation(note(50, places[-1] + 0.7, "chance", "muted", **corner))
    for place, row in zip(places, rows, strict=True):
        _add_system(figure, row, place, start)
    title = f"Accuracy (%), cut: the axis begins at {start}" if start else "Accuracy (%)"
    ticks = None if start else [0, 25, 50, 75, 100]
    figure.update_xaxes(range=[start, 100 + (100 - start) / 100], title_text=title, tickvals=ticks)
    figure.update_yaxes(range=[0.4, places[-1] + 1.15], tickvals=places[own], showticklabels=False)
    margins = {"margin_r": 70} | ({"margin_l": 48} if start else {})  # of long names beside marks at the left
    return finished(figure, 78 + int(44 * places[-1]), **margins)


def _add_system(figure: go.Figure, row: Any, place: float, start: int) -> None:
    """Its mark and interval, its name above the line or beside a published mark, its figure at the right."""
    system = SYSTEMS.get(row.system, PUBLISHED)
    x, measured, error = 100 * row.accuracy, system is not PUBLISHED, None
    hover = f"{row.title}<br>{percent(row.accuracy, 2)}"
    marker, below = system.marker, x < start
    if below:
        x, marker = start, "triangle-left"
    if not np.isnan(row.high - row.low):
        hover += f" (95{THIN}% interval {percent(row.low, 2)} to {percent(row.high, 2)})"
        error = None if below else interval(system.colour, [x], [100 * row.low], [100 * row.high])
    mark = {"mode": "markers", "marker_symbol": marker, "marker_size": 14 if measured else 9}
    mark |= {"cliponaxis": False}
    figure.add_trace(series(row.title, system.colour, [x], [place], hover=hover, error_x=error, **mark))
    where: dict[str, Any] = {"xanchor": "right", "xshift": -9}
    if measured:
        where = {"x": start, "xanchor": "left", "yanchor": "bottom", "yshift": 6, "align": "left"}
    elif below:
        where = {"xanchor": "left", "xshift": 9}
    font = {"color": color_of(system.colour), "size": 13 if measured else 11}
    font["weight"] = 600 if row.system == "fine-tuned" else 400
    where |= {"font": font, "bgcolor": style.PAPER.light, "borderpad": 0}  # no line runs through it
    value = percent(row.accuracy, 2 if row.high - row.low < 0.02 else 1)  # NaN is not below
    figure.add_annotation(note(x, place, row.title) | where)
    figure.add_annotation(note(1, place, value, font=font, xref="paper", xanchor="left", xshift=8))


def cost_chart(
    table: pd.DataFrame, by: str, doubt: tuple[float, float, str] | None, chosen: str | None, against: str
) -> go.Figure:
    """Accuracy before → after by a cost, an arrow a run, on the error's logarithm; no cost: at the right.
    A dotted line joins the runs that none beats on both axes.
    table: columns title, run ("" for a published result), on_front, named (whether its title is written, or
    on a phone, by page.css, its number from the left), `by`, one of COSTS; accuracy, low, high, and the same
    three of the base model with before_ (fractions; NaN where not known). Its order breaks ties of `by`.
    doubt: between which accuracies labels are in doubt, and what that is called.
    chosen: the run whose name is bold.
    against: "accuracy", or another one of COSTS, with a mark a run for its arrow."""
    from scipy.optimize import isotonic_regression

    costs, arrows = {by, against} & COSTS.keys(), against == "accuracy"
    table = table[arrows | (table["run"] != "")]
    table = table.assign(**{name: table[name].astype(float).clip(lower=0.01) for name in costs})
    table = table.sort_values(by, kind="stable")
    runs, others = (table[(table["run"] != "") == measured] for measured in (True, False))
    unknown, x_axis = _cost_axis(table[by])
    figure, named = go.Figure(), runs["named"].to_numpy(bool)
    steps = np.ptp(x_axis["range"]) * np.cumsum([0.0, *np.where(named, 0.055, 0.022)])[:-1]
    if doubt:
        band = {"fillcolor": color_of("line"), "opacity": 0.5, "line_width": 0, "layer": "below"}
        figure.add_hrect(_halvings(doubt[0]), _halvings(doubt[1]), **band)
        corner = {"xanchor": "left", "yanchor": "top", "align": "left", "xshift": 4}
        figure.add_annotation(note(0, 1, doubt[2], "muted", xref="paper", yref="paper", **corner))
    places = isotonic_regression(np.log10(runs[by]) - steps).x + steps  # the nearest that are so far apart
    ends = np.asarray(_halvings(runs["accuracy"]) if arrows else np.log10(runs[against]))
    best, look = runs["on_front"].to_numpy(bool), {"mode": "lines", "line_shape": "hv", "line_dash": "dot"}
    figure.add_trace(series("front", "fine", places[best], ends[best], hover="", hoverinfo="skip", **look))
    for at, end, number, run in zip(places, ends, named.cumsum(), runs.to_dict("records"), strict=True):
        shares = [[run[side + one] for side in ("before_", "")] for one in ("accuracy", "low", "high")]
        told = [percent(share, 2) for share in shares[0]] if arrows else [f"{run[against]:,.3g}"]
        y, n = _halvings(shares) if arrows else np.full((3, 1), end), len(told)
        mark = {"symbol": ["square", "triangle-up"][-n:], "color": [*map(color_of, ("base", "fine"))][-n:]}
        arrow = series(run["title"], "fine", [at] * n, y[0], hover=run["title"] + "<br>%{text}", text=told)
        figure.add_trace(arrow.update(error_y=interval("fine", *y), marker=mark | {"size": 12}))
        font = {"color": color_of("fine"), "size": 11, "weight": 700 if run["run"] == chosen else 400}
        look: dict[str, Any] = {"font": font, "textangle": -90, "xanchor": "left", "xshift": 3}
        under = arrows or end > (ends.max() + ends.min()) / 2
        look |= {"yanchor": "top", "align": "right"} if under else {"yanchor": "bottom", "align": "left"}
        top = min(end, _halvings(0.945)) if arrows else end
        if run["named"]:
            figure.add_annotation(note(at, top, re.sub(r", (?!\d)|(?=\+ )", "<br>", run["title"]), **look))
            foot = {"font": font | {"size": 12}, "yshift": -15}  # above, others are too near
            figure.add_annotation(note(at, y[0, 0], str(number), **foot))
    at, y = np.log10(others[by].fillna(10**unknown)), _halvings(others["accuracy"])
    told = [f"{one.title}<br>{one.accuracy:.1%}" for one in others.itertuples()]
    shown = others["title"].where(others[by] == others[by].max(), "")  # where there is room
    look = {"mode": "markers+text", "marker_symbol": "square-open", "textposition": "bottom center"}
    look |= {"text": [name.replace(", ", ",<br>") for name in shown], "cliponaxis": False, "hovertext": told}
    look |= {"textfont_color": color_of("muted")}
    figure.add_trace(series("published", "muted", at, y, hover="%{hovertext}", **look))
    figure.update_xaxes(title_text=COSTS[by], tickangle=0, **x_axis)
    if not arrows:
        return finished(figure.update_yaxes(title_text=COSTS[against], **_cost_axis(runs[against])[1]), 540)
    ticks = {"tickvals": _halvings(LOGARITHMIC), "ticktext": [f"{100 * tick:g}" for tick in LOGARITHMIC]}
    least, most = _halvings(runs["before_accuracy"].min()) - 0.4, max(_halvings([0.985, *runs["high"]])) + 0.1
    ticks |= {"autorangeoptions_clipmin": least, "autorangeoptions_clipmax": most}  # whatever titles need
    figure.update_yaxes(title_text="Accuracy (%), by the error’s logarithm", **ticks)
    return finished(figure, 540)


def _cost_axis(costs: pd.Series) -> tuple[float, dict[str, Any]]:
    """Where on a logarithmic axis an unknown cost stands, and the axis's range and ticks."""
    low, high = np.log10(costs.min()) - 0.3, np.log10(max(costs.max(), 5 * costs.min())) + 0.2
    room = 0.15 * (high - low) if costs.isna().any() else 0.0  # of those at the right end
    each = (1,) if high - low > 1.8 else (1, 2, 5)
    ticks = [n * 10.0**power for power in range(-2, 13) for n in each]
    ticks = [tick for tick in ticks if tick < 10 ** (high - room / 3)]
    names = [f"{c / 1e9:g}B" if c >= 1e9 else f"{c / 1e6:g}M" if c >= 1e6 else f"{c:g}" for c in ticks]
    places = [*np.log10(ticks), high + (room / 2 or 1)]
    axis = {"range": [low, high + room], "tickvals": places, "ticktext": [*names, "not<br>published"]}
    return high + room / 2, axis


def _halvings(accuracy: Any) -> Any:
    """How often the error was halved; an accuracy counts as 99.9 % at most."""
    return -np.log2(np.maximum(1 - np.asarray(accuracy, float), 0.001))


def coverage_chart(table: pd.DataFrame, marks: pd.DataFrame) -> go.Figure:
    """Accuracy of the surest answers by their share, with the interval as a band.
    table: columns actor, coverage, accuracy, low, high (fractions).
    marks: columns target, coverage, accuracy (fractions), of the fine-tuned model."""
    figure = go.Figure()
    for actor, rows in table.groupby("actor", sort=False):
        name, dash, at, side, edge = "base model", "dot", len(rows) // 2, "right", "top"  # below its line
        if actor == "fine":
            name, dash, at, side, edge = "fine-tuned", "solid", len(rows) // 3, "left", "bottom"
        x, y, low, high = (100 * rows[column] for column in ("coverage", "accuracy", "low", "high"))
        band = {"x": [*x, *x[::-1]], "y": [*high, *low[::-1]], "fillcolor": tint(str(actor), 0.2)}
        figure.add_trace(go.Scatter(**band, fill="toself", mode="none", hoverinfo="skip"))
        hover = f"{name}<br>of the surest %{{x:.0f}}{THIN}%, %{{y:.2f}}{THIN}% right"
        line = series(name, str(actor), x, y, hover=hover, mode="lines")
        figure.add_trace(line.update(line={"width": 2.5, "dash": dash}))
        figure.add_annotation(note(x.iloc[at], y.iloc[at], name, str(actor), xanchor=side, yanchor=edge))
    x, y, apart = 100 * marks["coverage"], 100 * marks["accuracy"], ["bottom left", *["top center"] * 9]
    asked = [f"{100 * target:g}" for target in marks["target"]]
    hover = f"%{{text}}{THIN}% asked for: %{{x:.1f}}{THIN}% answered, %{{y:.2f}}{THIN}% right"
    look = {"mode": "markers+text", "text": asked, "textposition": apart, "marker_size": 10}
    figure.add_trace(series("target", "fine", x, y, hover=hover, **look))
    figure.update_xaxes(range=[0, 101], title_text="Answers given, the surest first (%)")
    return finished(figure.update_yaxes(title_text="Accuracy of these answers (%)"), 380)


def confusion_chart(counts: pd.DataFrame, actor: str) -> go.Figure:
    """Counts by true label and prediction; the tint is the share of the row, on one scale for every matrix.
    counts: rows "Negative" and "Positive" (the truth), columns the predictions, integers.
    actor: palette entry of the tint, such as "base" or "fine"."""
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

"""Small pieces of HTML, every value escaped, and the slot that holds one figure with its words."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from html import escape

import gradio as gr
import pandas as pd
import plotly.graph_objects as go
from gradio.components.plot import PlotData

from sentiment_core.chart_style import empty_figure
from sentiment_core.dashboard.html import render

MAX_TABLE_ROWS = 200


def q(inner: str) -> str:
    """Wrap trusted HTML into the page's own style."""
    return f'<div class="q">{inner}</div>'


def notice(sentence: str, *, warn: bool = False) -> str:
    return render("notice", sentence=sentence, warn=warn)


def empty(sentence: str, command: str = "") -> str:
    """An empty state: what is missing, and the command that makes it."""
    return render("empty", sentence=sentence, command=command)


def html_table(frame: pd.DataFrame, *, row_header: bool = True) -> str:
    """A table with header cells for columns and, where asked, for each row's first cell."""
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in frame.columns]
    head = "".join(
        f'<th scope="col"{" class=n" if n else ""}>{escape(str(c))}</th>'
        for c, n in zip(frame.columns, numeric, strict=True)
    )
    body = []
    for row in frame.head(MAX_TABLE_ROWS).itertuples(index=False):
        cells = []
        for i, value in enumerate(row):
            text = escape(_cell(value))
            if i == 0 and row_header:
                cells.append(f'<th scope="row">{text}</th>')
            else:
                cells.append(f"<td{' class=n' if numeric[i] else ''}>{text}</td>")
        body.append("<tr>" + "".join(cells) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)) or value is pd.NA:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1 else f"{value:,.2f}"
    if hasattr(value, "__index__"):
        return f"{int(value):,}"
    return str(value)


def data_details(frame: pd.DataFrame, name: str) -> str:
    """The figure's data, folded: a table (first rows) and the whole as a CSV download."""
    coded = base64.b64encode(frame.to_csv(index=False).encode()).decode()
    more = (
        f'<p class="small">The first {MAX_TABLE_ROWS} of {len(frame):,} rows; the CSV has them all.</p>'
        if len(frame) > MAX_TABLE_ROWS
        else ""
    )
    return (
        "<details><summary>Data of this figure</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Data table of {escape(name)}">'
        f"{html_table(frame, row_header=False)}</div>{more}"
        f'<a class="download" download="{escape(name)}.csv" href="data:text/csv;base64,{coded}">Download '
        f"as CSV</a>"
        "</details>"
    )


def plot_data(figure: go.Figure, name: str) -> PlotData:
    """The figure for `gr.Plot`, with a camera button that saves an SVG, and no logo."""
    content = json.loads(figure.to_json())
    content["config"] = {
        "displaylogo": False,
        "displayModeBar": True,
        "modeBarButtons": [["toImage"]],
        "toImageButtonOptions": {"format": "svg", "filename": name},
        "responsive": True,
    }
    return PlotData(type="plotly", plot=json.dumps(content))


@dataclass(frozen=True)
class Panel:
    """One figure: the finding as its title, a caption with n and the interval's meaning, its data."""

    title: str
    figure: go.Figure
    caption: str
    data: pd.DataFrame
    name: str
    """File name of the downloads."""


@dataclass
class FigureSlot:
    """Where one figure goes on the page. Build it inside a Blocks; `show` gives values for `outputs`."""

    elem_id: str
    height: int = 320
    level: int = 2
    outputs: list[gr.components.Component] = field(init=False)

    def __post_init__(self) -> None:
        with gr.Column(elem_classes="figure", elem_id=self.elem_id):
            waiting = q(f'<div style="min-height:{self.height}px" class="muted">Reading the artifacts…</div>')
            title = gr.HTML(waiting, elem_id=f"{self.elem_id}-title")
            plot = gr.Plot(
                plot_data(empty_figure(), "empty"),
                show_label=False,
                container=False,
                visible=False,
                elem_id=f"{self.elem_id}-plot",
            )
            notes = gr.HTML("", elem_id=f"{self.elem_id}-notes")
        self.outputs = [title, plot, notes]

    def show(self, panel: Panel) -> list[object]:
        title = q(f"<h{self.level}>{escape(panel.title)}</h{self.level}>")
        notes = q(f'<p class="caption">{escape(panel.caption)}</p>{data_details(panel.data, panel.name)}')
        return [title, gr.Plot(plot_data(panel.figure, panel.name), visible=True), notes]

    def hide(self, html: str) -> list[object]:
        """An empty state in the figure's place; with no text, the place itself disappears."""
        return [html or '<div class="nothing"></div>', gr.Plot(visible=False), ""]

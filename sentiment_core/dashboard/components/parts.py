"""Small pieces of HTML, and the slot that holds one figure with its words."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd
import plotly.graph_objects as go
from gradio.components.plot import PlotData
from markupsafe import Markup

from sentiment_core.dashboard.components.html import fragment, render
from sentiment_core.figures.style import empty_figure

MAX_TABLE_ROWS = 200


def notice(sentence: str, *, warn: bool = False) -> Markup:
    return render("notice", sentence=sentence, warn=warn)


def empty(sentence: str, command: str = "") -> Markup:
    """An empty state: what is missing, and the command that makes it."""
    return render("empty", sentence=sentence, command=command)


def waiting(sentence: str, height: int) -> Markup:
    """Stands where something will come, so high that nothing moves when it does."""
    return render("placeholder", sentence=sentence, height=height)


def html_table(frame: pd.DataFrame, *, row_header: bool = True) -> Markup:
    """A table with header cells for columns and, where asked, for each row's first cell."""
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in frame.dtypes]
    rows = [[_cell(value) for value in row] for row in frame.head(MAX_TABLE_ROWS).itertuples(index=False)]
    return fragment("table", columns=list(frame), numeric=numeric, rows=rows, row_header=row_header)


def _cell(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1 else f"{value:,.2f}"
    return f"{value:,}" if hasattr(value, "__index__") else str(value)


def plot_data(figure: go.Figure) -> PlotData:
    """The figure for `gr.Plot`, without plotly's own buttons."""
    content = json.loads(figure.to_json())
    content["config"] = {"displayModeBar": False, "responsive": True}
    return PlotData(type="plotly", plot=json.dumps(content))


def figure_menu(data: pd.DataFrame, name: str, pictures: Sequence[str] = ("png", "svg")) -> Markup:
    """The "⋯" inside a `.figure`: its data as a CSV and (first rows) as a table, and its picture as a file.

    Args:
        name: of the files, without their ending.
        pictures: formats; of a figure on a canvas only "png".
    """
    csv = base64.b64encode(data.to_csv(index=False).encode()).decode()
    table, rows = html_table(data, row_header=False), len(data)
    sizes = {"rows": rows, "shown": MAX_TABLE_ROWS}
    return fragment("figure_menu", name=name, csv=csv, table=table, pictures=pictures, **sizes)


@dataclass(frozen=True)
class Panel:
    """One figure: the finding as its title, a caption with n and the interval's meaning, its data."""

    title: str
    figure: go.Figure | dict[str, Any]
    """For plotly, or the value of a figure of our own."""
    caption: str
    data: pd.DataFrame
    name: str
    """File name of the downloads."""


class FigureSlot:
    """Where one figure goes on the page. Build it inside a Blocks; `show` gives values for `outputs`.

    Args:
        make: a figure of our own, from its elem_id; by default plotly's place.
    """

    def __init__(
        self, elem_id: str, height: int, level: int = 2, make: Callable[[str], gr.HTML] | None = None
    ) -> None:
        self.level = level
        with gr.Column(elem_classes="figure", elem_id=elem_id) as self.column:
            title = gr.HTML(waiting("Reading the artifacts…", height), elem_id=f"{elem_id}-title")
            plot = (make or _plotly)(f"{elem_id}-plot")
            notes = gr.HTML("", elem_id=f"{elem_id}-notes")
        self.outputs: list[gr.components.Component] = [title, plot, notes]

    def show(self, panel: Panel | None, otherwise: str = "") -> list[object]:
        """The figure, with its finding and its menu above and its caption below, or `otherwise`."""
        if panel is None:
            return self.hide(otherwise)
        if isinstance(panel.figure, dict):
            plot, pictures = gr.HTML(panel.figure, visible=True), ("png",)
        else:
            plot, pictures = gr.Plot(plot_data(panel.figure), visible=True), ("png", "svg")
        menu = figure_menu(panel.data, panel.name, pictures)
        title = render("figure_title", level=self.level, panel=panel, menu=menu)
        return [title, plot, render("caption", text=panel.caption)]

    def hide(self, html: str) -> list[object]:
        """An empty state in the figure's place; with no text, the place itself disappears."""
        return [html or '<div class="nothing"></div>', gr.update(visible=False), ""]


def _plotly(elem_id: str) -> gr.Plot:
    look = {"elem_id": elem_id, "show_label": False, "container": False, "visible": False}
    return gr.Plot(plot_data(empty_figure()), **look)

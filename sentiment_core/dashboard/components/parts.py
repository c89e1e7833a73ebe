"""What the page is made of: its style, HTML from the Jinja templates, and the slot of a figure and its words.

Every value of a template is escaped unless it is Markup.
"""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sentiment_core.dashboard.store import noun
from sentiment_core.figures.style import FONTS, PALETTE, THIN, percent, theme_css
from sentiment_core.metrics.histogram import BINS, EDGE

FOLDER = Path(__file__).parent.parent
MONO_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")
MAX_TABLE_ROWS = 200


def points(fraction: float, digits: int = 1) -> str:
    """A difference of percentages, with its sign.

    >>> points(0.451)
    '+45.1 points'
    """
    return f"{100 * fraction:+.{digits}f} points".replace("-", "\u2212")


def seconds(value: float) -> str:
    """A duration in the unit a reader would use."""
    if value < 1:
        return f"{1000 * value:.0f}{THIN}ms"
    if value < 120:
        return f"{value:.0f}{THIN}s" if value >= 10 else f"{value:.1f}{THIN}s"
    if value < 7200:
        return f"{value / 60:.0f}{THIN}min"
    return f"{value / 3600:.1f}{THIN}h"


def duration(value: float) -> str:
    """The same in words, of a training."""
    return f"{value:.0f} seconds" if value < 120 else f"{value / 60:.0f} minutes"


def parameters(count: int) -> str:
    """A model's size.

    >>> parameters(134_515_008), parameters(1_500_000_000)
    ('135M', '1.5B')
    """
    return f"{count / 1e9:.3g}B" if count >= 1e9 else f"{count / 1e6:.0f}M"


def css() -> str:
    """`--q-base`, `--q-fine`, … in the light and in the dark form, and what wears them."""
    light, dark = ("".join(f"--q-{name}:{tint[i]};" for name, tint in PALETTE.items()) for i in (0, 1))
    return f":root{{{light}}}\n.dark{{{dark}}}\n{static('*.css')}{theme_css()}"


def static(*patterns: str) -> str:
    """The files under `static/` that match, pattern by pattern, each in the order of their names."""
    files = [file for pattern in patterns for file in sorted((FOLDER / "static").glob(pattern))]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def theme() -> gr.themes.Base:
    """Gradio's plainest, in system fonts (none is fetched); `theme.css` says what wears which colour."""
    hues = dict.fromkeys(("primary_hue", "secondary_hue", "neutral_hue"), "slate")
    return gr.themes.Base(**hues, font=FONTS, font_mono=MONO_FONTS)


TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
TEMPLATES.filters |= {one.__name__: one for one in (percent, points, seconds, duration, parameters, noun)}
TEMPLATES.filters["count"] = "{:,}".format


def render(template: str, /, **values: object) -> Markup:
    """A template's HTML inside the page's own style; `template` is a file's name without ".html".
    Raises jinja2.UndefinedError: the template asks for a value that was not given."""
    return Markup(f'<div class="q">{fragment(template, **values)}</div>')


def fragment(template: str, /, **values: object) -> Markup:
    """The same without the page's own style around it: a part of another template."""
    return Markup(TEMPLATES.get_template(f"{template}.html").render(values))


def notice(sentence: str, *, warn: bool = False) -> Markup:
    return render("notice", sentence=sentence, warn=warn)


def empty(sentence: str, command: str = "") -> Markup:
    """An empty state: what is missing, and the command that makes it."""
    return render("empty", sentence=sentence, command=command)


def figure_menu(data: pd.DataFrame, name: str, pictures: Sequence[str] = ("png", "svg")) -> Markup:
    """The "⋯" inside a `.figure`: its data as a CSV and (first rows) a table, and its pictures (of a figure
    on a canvas only "png"); `name`: of the files, without their ending."""
    csv = base64.b64encode(data.to_csv(index=False).encode()).decode()
    with pd.option_context("display.max_colwidth", None):
        look = {"index": False, "border": 0, "na_rep": "–", "float_format": "{:,.6g}".format}
        table = Markup(data.head(MAX_TABLE_ROWS).to_html(**look))
    more = {"table": table, "shown": MAX_TABLE_ROWS, "total": len(data)}
    return fragment("figure_menu", name=name, csv=csv, pictures=pictures, **more)


def own_figure(name: str, elem_id: str, script: str = "element, props, watch", **more: Any) -> gr.HTML:
    """A place for what `figs.NAME(script)` of the page's script draws into `templates/NAME.html`.

    Gradio runs a template as code, so that one holds nobody's text; `more` goes to the component.
    """
    template, load = render(name, edge=EDGE, bins=BINS), f"figs.{name}({script})"
    return gr.HTML(html_template=template, js_on_load=load, apply_default_css=False, elem_id=elem_id, **more)


@dataclass(frozen=True)
class Panel:
    """One figure: the finding as its title, a caption with n and the interval's meaning, its data."""

    title: str
    figure: go.Figure | dict[str, Any]  # for plotly, or the value of a figure of our own
    caption: str
    data: pd.DataFrame
    name: str  # file name of the downloads


class FigureSlot:
    """Where one figure goes on the page. Build it inside a Blocks; `show` gives values for `outputs`.
    make: the component for the figure; by default plotly's."""

    def __init__(self, elem_id: str, height: int, make: Callable[..., Any] = gr.Plot) -> None:
        with gr.Column(elem_classes="figure", elem_id=elem_id) as self.column:
            soon = render("placeholder", sentence="Reading the artifacts…", height=height)
            title = gr.HTML(soon, elem_id=f"{elem_id}-title")
            plot = make(elem_id=f"{elem_id}-plot", show_label=False, container=False, visible=False)
            notes = gr.HTML("", elem_id=f"{elem_id}-notes")
        self.outputs: list[gr.components.Component] = [title, plot, notes]

    def show(self, panel: Panel | None, otherwise: str = "") -> list[object]:
        """The figure, with its finding and its menu above and its caption below, or in its place `otherwise`;
        with no text, the place itself disappears."""
        if panel is None:
            return [otherwise or '<div class="nothing"></div>', gr.update(visible=False), ""]
        own = isinstance(panel.figure, dict)
        menu = figure_menu(panel.data, panel.name, ("png",) if own else ("png", "svg"))
        title = render("figure_title", panel=panel, menu=menu)
        plot = gr.HTML(json.dumps(panel.figure), visible=True) if own else gr.Plot(panel.figure, visible=True)
        return [title, plot, render("caption", text=panel.caption)]

"""What all figures share: the palette and both its themes, number forms, layout. Pure: no files, no Gradio.

One figure serves both themes: it is drawn in the palette's light colours on a transparent ground, and
`theme_css` gives the rules that turn each of them into its dark partner when the page is dark.
"""

import functools
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from plotly.colors import hex_to_rgb, label_rgb


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

PAPER = Tint("#FEFEFE", "#10141B")
"""Behind a name that a line would run through. Not quite white: what is white stays so in the dark."""

THIN = "\u202f"  # narrow no-break space, between a number and its unit

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
TRANSPARENT = "rgba(0,0,0,0)"


def theme_css() -> str:
    """CSS rules that redraw every palette colour of a figure in its dark partner under `.dark`."""
    return "\n".join(
        f'.dark .js-plotly-plot [style*="{part}: {label_rgb(hex_to_rgb(tint.light))}"]'
        f"{{{part}:{tint.dark} !important}}"
        for tint in (*PALETTE.values(), PAPER)
        for part in ("fill", "stroke")
    )


def percent(fraction: float, digits: int = 1) -> str:
    """For example 95.1 %, with THIN between number and sign."""
    return f"{100 * fraction:.{digits}f}{THIN}%"


def color_of(name: str) -> str:
    """The light form of a palette entry; `theme_css` turns it into the dark one."""
    return PALETTE[name].light


def tint(name: str, opacity: float) -> str:
    """Halfway between an entry's two forms and translucent: a heatmap is an image, which no rule of
    `theme_css` reaches, so one colour must show on a white page and on a dark one.

    >>> tint("fine", 0.5)
    'rgba(21, 160, 122, 0.5)'
    """
    red, green, blue = ((a + b) // 2 for a, b in zip(*map(hex_to_rgb, PALETTE[name]), strict=True))
    return f"rgba({red}, {green}, {blue}, {opacity})"


_AXIS = {
    "gridcolor": color_of("line"), "linecolor": color_of("line"), "zeroline": False, "automargin": True,
    "tickfont": {"color": color_of("muted"), "size": 12},
    "title": {"font": {"color": color_of("muted"), "size": 13}, "standoff": 8},
}  # fmt: skip
TEMPLATE = go.layout.Template(layout={
    "xaxis": _AXIS, "yaxis": _AXIS, "margin": {"l": 8, "r": 12, "t": 12, "b": 8}, "showlegend": False,
    "paper_bgcolor": TRANSPARENT, "plot_bgcolor": TRANSPARENT, "dragmode": False,
    "font": {"family": ", ".join(FONTS), "size": 13, "color": color_of("ink")},
    "hoverlabel": {"bgcolor": "#101828", "bordercolor": "#101828", "font": {"color": "#ffffff", "size": 13}},
})  # fmt: skip
"""The look that all figures share, in place of plotly's own."""


def finished(figure: go.Figure, height: int, **layout: object) -> go.Figure:
    """`figure` in the shared look, `height` pixels high; written as JSON once, for however many visitors."""
    figure.to_json = functools.cache(figure.to_json)
    return figure.update_layout(template=TEMPLATE, height=height, **layout)


def series(name: str, color: str, x: ArrayLike, y: ArrayLike, *, hover: str, **look: object) -> go.Scatter:
    """Marks or a line in one palette colour, with a hover text; `look`: further properties of the trace."""
    light, hover = color_of(color), f"{hover}<extra></extra>"
    return go.Scatter(x=x, y=y, name=name, marker_color=light, line_color=light, hovertemplate=hover, **look)


def interval(color: str, middle: ArrayLike, low: ArrayLike, high: ArrayLike) -> dict[str, object]:
    """Error bars of a series, its `error_x` or `error_y`, from the intervals' ends in the axis's units."""
    ends = {"array": np.subtract(high, middle), "arrayminus": np.subtract(middle, low)}
    return {**ends, "thickness": 1.5, "width": 5, "color": color_of(color)}


def note(x: float, y: float, text: str, color: str = "ink", **more: object) -> dict:
    """An annotation without an arrow; `color` is a palette entry."""
    font = {"color": color_of(color), "size": 13}
    return {"x": x, "y": y, "text": text, "showarrow": False, "font": font, **more}

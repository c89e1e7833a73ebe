"""HTML from the Jinja templates beside this file; every value is escaped unless it is Markup."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sentiment_core.figures.style import THIN, percent

UNITS = {"ms": "milliseconds", "s": "seconds", "min": "minutes", "h": "hours"}


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
    """The same in words.

    >>> duration(39.05), duration(900)
    ('39 seconds', '15 minutes')
    """
    number, unit = seconds(value).split(THIN)
    return f"{number} {UNITS[unit]}"


def parameters(count: int) -> str:
    """A model's size.

    >>> parameters(134_515_008), parameters(1_500_000_000)
    ('135M', '1.5B')
    """
    return f"{count / 1e9:.3g}B" if count >= 1e9 else f"{count / 1e6:.0f}M"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {one.__name__: one for one in (percent, points, seconds, duration, parameters)}
    environment.filters["count"] = "{:,}".format
    return environment


def render(template: str, /, **values: object) -> Markup:
    """A template's HTML inside the page's own style; `template` is a file's name without ".html".
    Raises jinja2.UndefinedError: the template asks for a value that was not given."""
    return Markup(f'<div class="q">{fragment(template, **values)}</div>')


def fragment(template: str, /, **values: object) -> Markup:
    """The same without the page's own style around it: a part of another template."""
    return Markup(_environment().get_template(f"{template}.html").render(values))

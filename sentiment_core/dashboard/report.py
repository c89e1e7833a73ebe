"""One self-contained HTML file of a run, or of two held against each other, from the page's own figures.

python -m sentiment_core.dashboard.report smollm2-135m --output report.html
python -m sentiment_core.dashboard.report smollm2-135m-taught --versus smollm2-135m --output report.html
"""

import argparse
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from plotly.io import to_html

from sentiment_core import cli
from sentiment_core.artifacts.store import write_text
from sentiment_core.config import ASSETS, UserError
from sentiment_core.dashboard import panels
from sentiment_core.dashboard.components import header, parts
from sentiment_core.dashboard.context import Context
from sentiment_core.dashboard.pairs import Sides
from sentiment_core.dashboard.store import Store
from sentiment_core.dashboard.tabs import accuracy, confusion, loss, method
from sentiment_core.figures.training import loss_chart


def report_html(context: Context, run_id: str, versus: str = "") -> str:
    """The document. Raises UserError where a run is not there, or has not answered the same reviews."""
    (run, evals), store = context.evals(run_id, None), context.store
    sides = Sides.of(context, run_id, None, versus)
    if not run or run.run_id != run_id or not sides.after or versus != sides.versus:
        known = ", ".join(one.run_id for one in store.finished_runs()) or "none"
        raise UserError(f"no evaluations of {' and '.join(filter(None, (run_id, versus)))} (runs: {known})")
    flow, matrices = accuracy.before_and_after(store, sides, linked=False)[2], []
    for name, one in zip(sides.names, sides[:2], strict=True):
        if one:
            panel = confusion.matrix_panel(confusion.Side.cut(one, store.predictions(one)))
            matrices.append(replace(panel, title=f"{name}. {panel.title}"))
    drawn = [
        panels.accuracy_panel(evals, store.references()), *matrices, panels.coverage_panel(store, run, evals),
        panels.cost_panel(context, run_id, context.dataset(None), "parameters", ()),
    ]  # fmt: skip
    if not (history := {run_id: store.history(run)})[run_id].empty:
        told = "Training loss as logged, and validation accuracy, over examples seen."
        drawn.append(replace(loss.loss_panel(history, run.record), figure=loss_chart(history), caption=told))
    found = [panel for panel in drawn if panel]
    look = {"full_html": False, "config": {"displayModeBar": False}}
    figures = [to_html(one.figure, include_plotlyjs=not at, **look) for at, one in enumerate(found)]
    data = [b64encode(one.data.to_csv(index=False).encode()).decode() for one in found]
    return parts.fragment(
        "report", head=header.head_html(context, run), css=parts.css(),
        flow=method.settings_html(context, sides, run_id) + flow,
        sections=list(zip(found, figures, data, strict=True)), name=" against ".join(sides.names),
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 2 something to correct."""
    parser = argparse.ArgumentParser(prog="python -m sentiment_core.dashboard.report", description=__doc__)
    parser.add_argument("run", help="a finished and evaluated run")
    parser.add_argument("--versus", default="", metavar="RUN", help="held against this one")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the .html file")
    parser.add_argument("--assets", type=Path, default=ASSETS, help="folder of artifacts (default: assets)")
    given = parser.parse_args(argv)

    def write() -> str:
        write_text(given.output, report_html(Context(Store(given.assets)), given.run, given.versus))
        return str(given.output)

    return cli.run(write)


if __name__ == "__main__":
    raise SystemExit(main())

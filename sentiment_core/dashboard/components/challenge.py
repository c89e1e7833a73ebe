"""The challenge set's heatmap: accuracy by phenomenon and system, as a table of figures on a tint."""

from collections.abc import Mapping

import pandas as pd
from markupsafe import Markup

from sentiment_core.artifacts.store import Evaluation
from sentiment_core.dashboard.components.html import render
from sentiment_core.dashboard.components.parts import figure_menu
from sentiment_core.figures.style import percent
from sentiment_core.systems import SYSTEMS, first_base


def heatmap_html(evals: Mapping[str, Evaluation]) -> Markup:
    """The hardest phenomenon first; nothing where the reviews have no phenomena.
    evals: system -> its evaluation, all on the same reviews."""
    table = by_phenomenon(evals)
    if table.empty:
        return Markup()
    records = {system: evals[system].record for system in table["system"].unique()}
    judge = "fine-tuned" if "fine-tuned" in records else next(iter(records))
    judged = table[table["system"] == judge].sort_values("accuracy", kind="stable")
    name = "the fine-tuned model" if judge == "fine-tuned" else records[judge].title
    cells = {(row.phenomenon, row.system): row for row in table.itertuples()}
    return render(
        "challenge", title=finding(judged, name), menu=figure_menu(table, "challenge", pictures=()),
        records=records, systems=SYSTEMS, phenomena=judged["phenomenon"].tolist(), cells=cells,
        widest=((table["high"] - table["low"]) / 2).max(),
    )  # fmt: skip


def by_phenomenon(evals: Mapping[str, Evaluation]) -> pd.DataFrame:
    """phenomenon, system, accuracy, low, high, n: the base model first, then the fine-tuned one."""
    first = [system for system in (first_base(evals), "fine-tuned") if system in evals]
    rows = [
        {"phenomenon": part.value, "system": system}
        | part.accuracy.model_dump(include={"value", "low", "high", "n"})
        for system in dict.fromkeys([*first, *evals])
        for part in evals[system].record.slices if part.by == "phenomenon"
    ]  # fmt: skip
    return pd.DataFrame(rows).rename(columns={"value": "accuracy"})


def finding(judged: pd.DataFrame, name: str) -> str:
    """What is hardest for a system, of its rows in `by_phenomenon`, and how hard."""
    lowest = judged["accuracy"].min()
    hardest = judged.loc[judged["accuracy"] == lowest, "phenomenon"]
    return f"Hardest for {name}: {' and '.join(hardest)}, {percent(lowest, 0)} correct"

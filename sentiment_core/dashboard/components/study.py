"""How a model measures below chance: the study's figure beside our own free answers."""

import numpy as np
import pandas as pd
from markupsafe import Markup

from sentiment_core.artifacts.frames import read_as
from sentiment_core.artifacts.schema import OTHER_FORM, Confusion
from sentiment_core.artifacts.store import Run
from sentiment_core.dashboard.components.html import fragment
from sentiment_core.dashboard.context import Context
from sentiment_core.metrics.intervals import Metric, wilson

FIRST_ROWS = 200  # of a subset that was not shuffled, as a notebook takes it to be quick
READINGS = ("positive", "negative", "unparsed")


def study_panel(context: Context, run: Run) -> Markup | None:
    """None without the study's figures or our free answers to the same test split."""
    references = {one.kind: one.accuracy for one in context.store.references()}
    generated = context.store.evals(run, "imdb").get("baseline-generated")
    if generated is None or not {"study-before", "study-after"} <= references.keys():
        return None
    record, first = generated.record, first_rows(context.store.predictions(generated))
    forms = {form.parsed: form for form in reversed(record.answer_forms) if form.form != OTHER_FORM}
    found = [forms[read] for read in READINGS if read in forms]
    frequent = [(f"“{one.form}”", read_as(one), f"{one.count:,}") for one in found]
    return fragment(
        "study", before=references["study-before"], after=references["study-after"], record=record,
        forms=frequent, squares=waffle(record.confusion), first=first, rows=FIRST_ROWS,
    )  # fmt: skip


def waffle(cells: Confusion) -> dict[str, int]:
    """Right, wrong and no label in squares of 100."""
    counts = {
        "right": cells.negative_negative + cells.positive_positive,
        "wrong": cells.negative_positive + cells.positive_negative,
        "no label": cells.negative_unparsed + cells.positive_unparsed,
    }
    ends = np.cumsum([*counts.values()]) * 100 / sum(counts.values())
    return dict(zip(counts, np.diff(ends.round(), prepend=0).astype(int).tolist(), strict=True))


def first_rows(predictions: pd.DataFrame) -> Metric | None:
    """Accuracy on the first rows where these are all negative, as in a split that is sorted by label."""
    head = predictions.head(FIRST_ROWS)
    if len(head) < FIRST_ROWS or head["label"].any():
        return None
    return wilson(int((head["prediction"] == head["label"]).sum()), FIRST_ROWS)

"""How a model measures below chance: the study's figure beside our own free answers."""

from __future__ import annotations

import pandas as pd
from markupsafe import Markup

from sentiment_core.artifacts.schema import OTHER_FORM, AnswerForm, Confusion, EvalRecord
from sentiment_core.artifacts.store import Run
from sentiment_core.dashboard.components.html import fragment
from sentiment_core.dashboard.context import Context
from sentiment_core.metrics.intervals import Metric, wilson

FIRST_ROWS = 200
"""Of a subset that was not shuffled, as a notebook takes it to be quick."""


def study_panel(context: Context, run: Run) -> Markup | None:
    """None without the study's figures or our free answers to the same test split."""
    references = {one.kind: one.accuracy for one in context.store.references()}
    generated = context.store.evals(run, "imdb").get("baseline-generated")
    if generated is None or not {"study-before", "study-after"} <= references.keys():
        return None
    record = generated.record
    return fragment(
        "study", before=references["study-before"], after=references["study-after"], record=record,
        forms=frequent_forms(record), squares=waffle(record.confusion),
        first=first_rows(context.store.predictions(generated)), rows=FIRST_ROWS,
    )  # fmt: skip


def frequent_forms(record: EvalRecord) -> list[AnswerForm]:
    """The most frequent answer that was read as positive, as negative, and as no label."""
    forms = [form for form in record.answer_forms if form.form != OTHER_FORM]  # most frequent first
    found = (next((f for f in forms if f.parsed == p), None) for p in ("positive", "negative", "unparsed"))
    return [form for form in found if form]


def waffle(cells: Confusion) -> dict[str, int]:
    """Right, wrong and no label in squares of 100; the largest remainders are rounded up."""
    counts = {
        "right": cells.negative_negative + cells.positive_positive,
        "wrong": cells.negative_positive + cells.positive_negative,
        "no label": cells.negative_unparsed + cells.positive_unparsed,
    }
    n = sum(counts.values())
    squares = {name: 100 * count // n for name, count in counts.items()}
    by_rest = sorted(counts, key=lambda name: -(100 * counts[name] % n))
    return squares | {name: squares[name] + 1 for name in by_rest[: 100 - sum(squares.values())]}


def first_rows(predictions: pd.DataFrame) -> Metric | None:
    """Accuracy on the first rows where these are all negative, as in a split that is sorted by label."""
    head = predictions.head(FIRST_ROWS)
    if len(head) < FIRST_ROWS or head["label"].any():
        return None
    return wilson(int((head["prediction"] == head["label"]).sum()), FIRST_ROWS)

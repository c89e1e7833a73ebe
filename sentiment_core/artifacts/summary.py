"""Predictions in, the measured part of an `EvalRecord` out; the same predictions give the same record."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pandas as pd

from sentiment_core.artifacts.schema import PREDICTION_COLUMNS, Confusion
from sentiment_core.artifacts.store import Evaluation
from sentiment_core.metrics import classification, slices
from sentiment_core.metrics.intervals import floats, wilson

OVERLAP_SETTING = "overlap_ids"
"""Key of `EvalRecord.settings` with the review ids that `accuracy_without_overlap` leaves out."""


def summarize(predictions: pd.DataFrame, *, overlap_ids: Collection[str] = ()) -> dict[str, Any]:
    """Everything in an `EvalRecord` that follows from its predictions.

    Args:
        predictions: columns PREDICTION_COLUMNS plus any group columns.
        overlap_ids: reviews whose text also stands in the training data. They stay in every metric but
            one, `accuracy_without_overlap`, which is there only when ids are given; store them under
            `settings[OVERLAP_SETTING]`, so that it can be recomputed.
    Returns:
        The fields metrics, confusion, unparsed and slices.
    """
    label, answer = predictions["label"], predictions["prediction"]
    groups = [column for column in predictions if column not in PREDICTION_COLUMNS]
    p_positive = floats(predictions["p_positive"], "p_positive").astype("float32")  # as it is stored
    found = classification.evaluate(label, answer, p_positive, pair_id=predictions.get("pair_id"))
    if len(overlap_ids):
        kept = ~predictions["review_id"].isin(list(overlap_ids)).to_numpy()
        if kept.any():
            right = (label == answer).fillna(False).to_numpy(dtype=bool)
            found["accuracy_without_overlap"] = wilson(int(right[kept].sum()), int(kept.sum()))
    return {
        "metrics": found,
        "confusion": Confusion(**classification.confusion(label, answer)),
        "unparsed": int(answer.isna().sum()),
        "slices": tuple(slices.slices(predictions, groups)),
    }


def recompute(evaluation: Evaluation) -> dict[str, Any]:
    """`summarize` on a stored evaluation, with the settings that it was made with."""
    overlap_ids = evaluation.record.settings.get(OVERLAP_SETTING, ())
    return summarize(evaluation.predictions(), overlap_ids=overlap_ids)

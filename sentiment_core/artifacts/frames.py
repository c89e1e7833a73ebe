"""Predictions in; the measured part of an `EvalRecord` out. Gaps are NaN."""

import re
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray

from sentiment_core.artifacts.schema import DRAW_COLUMN, PREDICTION_COLUMNS, Confusion, Slice
from sentiment_core.metrics import classification
from sentiment_core.metrics.intervals import Metric, floats, mean_of_draws, wilson

OVERLAP_SETTING = "overlap_ids"  # of `EvalRecord.settings`: what `accuracy_without_overlap` leaves out
MOST_VALUES = 20  # a column with more of them is an identifier, not a group
DRAW = re.compile(DRAW_COLUMN.format(r"\d+"))


def group_columns(columns: Iterable[Any]) -> list[str]:
    """Those that the dataset brought along."""
    names = (str(column) for column in columns if column not in PREDICTION_COLUMNS)
    return [name for name in names if not DRAW.fullmatch(name)]


def summarize(predictions: pd.DataFrame, *, overlap_ids: Collection[str] = ()) -> dict[str, Any]:
    """What follows from the predictions in an `EvalRecord`: its metrics, confusion, unparsed and slices.

    Args:
        predictions: columns PREDICTION_COLUMNS plus any of further draws and groups.
        overlap_ids: reviews whose text also stands in the training data. They stay in every metric but
            one, `accuracy_without_overlap`, which is there only when ids are given; store them under
            `settings[OVERLAP_SETTING]`, so that it can be recomputed.
    """
    label, answer = predictions["label"], predictions["prediction"]
    found = _metrics(predictions, overlap_ids)
    draws = [found]
    for column in filter(DRAW.fullmatch, map(str, predictions)):
        p = predictions[column].to_numpy()
        draw = predictions.assign(p_positive=p, prediction=answers(p))
        draws.append(_metrics(draw, overlap_ids, resamples=1))
    values = {name: [draw[name].value for draw in draws if name in draw] for name in found}
    return {
        "metrics": {name: mean_of_draws(metric, values[name]) for name, metric in found.items()},
        "confusion": Confusion(**classification.confusion(label, answer)),
        "unparsed": int(answer.isna().sum()),
        "slices": slices(predictions),
        "draw_accuracies": tuple(draw["accuracy"].value for draw in draws) if len(draws) > 1 else (),
    }


def _metrics(frame: pd.DataFrame, overlap_ids: Collection[str], resamples: int = 1000) -> dict[str, Metric]:
    label, answer = frame["label"], frame["prediction"]
    p = floats(frame["p_positive"], "p_positive").astype("float32")  # as it is stored
    found = classification.evaluate(label, answer, p, pair_id=frame.get("pair_id"), resamples=resamples)
    kept = ~frame["review_id"].isin(list(overlap_ids)).to_numpy()
    if len(overlap_ids) and kept.any():
        found["accuracy_without_overlap"] = wilson(int(_right(frame)[kept].sum()), int(kept.sum()))
    return found


def _right(frame: pd.DataFrame) -> pd.Series:
    return (frame["label"] == frame["prediction"]).fillna(False).astype(bool)


def slices(frame: pd.DataFrame) -> tuple[Slice, ...]:
    """Strict accuracy for each value of each group column; pair_id and other identifiers are passed over,
    and reviews without a value are in no slice."""
    right, found = _right(frame), []
    for column in group_columns(frame):
        groups = right.groupby(frame[column]).agg(["sum", "size"])
        if column != "pair_id" and len(groups) <= MOST_VALUES:
            shares = ((str(value), wilson(hits, n)) for value, hits, n in groups.itertuples())
            found += [Slice(by=column, value=value, accuracy=share) for value, share in shares]
    return tuple(found)


def answers(p_positive: np.ndarray) -> ExtensionArray:
    """(n,) P(positive) -> (n,) 0 or 1, as Int8; numbers that overflowed (NaN) are no answer."""
    return pd.arrays.IntegerArray((p_positive >= 0.5).astype(np.int8), mask=np.isnan(p_positive))

"""Accuracy of parts of the reviews: by the columns that a dataset brought along."""

from collections.abc import Iterable

import pandas as pd

from sentiment_core.metrics import intervals
from sentiment_core.metrics.intervals import Metric, Record, wilson

MOST_VALUES = 20  # a column with more of them is an identifier, not a group


class Slice(Record):
    """Accuracy of a part of the reviews, for example of those whose version is "edited"."""

    by: str  # the column; of older evaluations also "tokens", "truncated" and "confidence"
    value: str
    accuracy: Metric


def slices(frame: pd.DataFrame, group_columns: Iterable[str]) -> list[Slice]:
    """Strict accuracy for each value of each group column; pair_id and other identifiers are passed over.
    frame: label, prediction, and the group columns; reviews without a value are in no slice."""
    answers, labels = intervals.read_answers(frame["prediction"], len(frame)), frame["label"]
    right, found = pd.Series(answers == intervals.read_labels(labels), index=frame.index), []
    for column in group_columns:
        groups = right.groupby(frame[column]).agg(["sum", "size"])
        if column != "pair_id" and len(groups) <= MOST_VALUES:
            found += [
                Slice(by=column, value=str(value), accuracy=wilson(hits, n))
                for value, hits, n in groups.itertuples()
            ]
    return found
